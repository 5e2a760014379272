"""The reference of all commands, as docs/cli.md holds it: `python -m elute.cli.reference > docs/cli.md`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from elute.cli.main import elute


def walk(command: click.Command, path: str = "elute") -> Iterator[tuple[str, click.Command]]:
    """Every command with the words that call it."""
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in command.list_commands(context):
            member = command.get_command(context, name)
            if member is not None:
                yield from walk(member, f"{path} {name}")


def reference() -> str:
    """All help texts, one after another."""
    parts = ["# Commands\n\nNames may be spelt with `-` or `_`. This page is generated from the program's own help."]
    for path, command in walk(elute):
        context = click.Context(command, info_name=path, help_option_names=["-h", "--help"], terminal_width=100)
        parts.append(f"## {path}\n\n```\n{command.get_help(context)}\n```")
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    click.echo(reference(), nl=False)

"""Commands that belong to no group: demo, doctor, completion."""

from __future__ import annotations

from typing import Any

import click

from elute.base.run import Artifact
from elute.cli.commands import command


def _show_doctor(answer: dict[str, Any]) -> str:
    lines = [f"elute {answer['versions']['elute']} · Python {answer['versions']['python']} · {answer['device']}"]
    for heading, key in (("Extras", "extras"), ("Keys", "keys")):
        lines.append(f"\n{heading}")
        for name, row in answer[key].items():
            mark = "yes" if row["usable"] else "no "
            lines.append(f"  {mark}  {name:<20} {row['for']}" + ("" if row["usable"] else f"\n       → {row['type']}"))
    return "\n".join(lines)


@command("doctor", show=_show_doctor)
def doctor() -> Artifact:
    """Say which extras, device and keys are usable, and what to type for those that are not."""
    from elute.base.doctor import examine

    return examine()


def _show_completion(answer: dict[str, Any]) -> str:
    return str(answer["script"])


@command("completion", show=_show_completion)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> Artifact:
    """Print the script that completes commands in a shell.

    \b
    bash:  elute completion bash >> ~/.bashrc
    zsh:   elute completion zsh >> ~/.zshrc
    fish:  elute completion fish > ~/.config/fish/completions/elute.fish
    """
    from pathlib import Path

    from click.shell_completion import get_completion_class

    from elute.cli.main import elute

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"there is no completion for {shell}")
    text = kind(elute, {}, "elute", "_ELUTE_COMPLETE").source()
    return Artifact("completion", Path(shell), {"script": text})


def __getattr__(name: str) -> click.Command:
    """`elute demo` is the demonstration that a newcomer should see first: that of a group."""
    if name == "demo":
        from elute.cli.cells import demo

        return demo
    raise AttributeError(name)

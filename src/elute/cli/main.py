"""The command line: how every command answers.

Exit codes: 0; 1 for an EluteError, in one line (with `--debug` its traceback); 2 for a command line that cannot be
understood; 130 when it was interrupted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import click

from elute.cli.commands import Face, LazyGroup
from elute.cli.menu import GROUPS


@click.command(
    cls=LazyGroup,
    sections=GROUPS,
    help="What a scientific model has learnt, feature by feature, with evidence and a control.",
    epilog="Names may be spelt with - or _. `elute GROUP --help` says more.",
)
@click.version_option(package_name="elute", message="elute %(version)s")
@click.option("-v", "--verbose", count=True, expose_value=False, callback=Face.louder, help="Say more.")
@click.option("-q", "--quiet", count=True, expose_value=False, callback=Face.quieter, help="Warnings and errors alone.")
@click.option("--debug", is_flag=True, expose_value=False, callback=Face.debugging, help="Show tracebacks.")
def elute() -> None:
    """Hold the groups."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code."""
    from elute.base.errors import EluteError

    # Threads that wait by spinning starve the others on a busy machine; PyTorch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        elute.main(args=None if arguments is None else list(arguments), prog_name="elute", standalone_mode=False)
    except EluteError as error:
        if Face.debug:
            raise
        click.echo(f"error: {error}", err=True)
        for note in getattr(error, "__notes__", []):
            click.echo(f"       {note}", err=True)
        return 1
    except click.exceptions.Exit as stop:
        return stop.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("stopped; what was finished is kept, and the same command goes on from there", err=True)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; nothing more can be told, and Python must not try at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return 0


def script() -> None:
    """Be the installed program."""
    sys.exit(main())

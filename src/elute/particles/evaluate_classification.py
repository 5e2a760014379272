"""`python -m elute.particles.evaluate_classification`: the same as `elute particles evaluate_classification`.

So that a command line written for CryoLens' own module runs when the module's name is changed.
"""

from __future__ import annotations

import sys
from importlib import import_module


def main(arguments: list[str] | None = None) -> int:
    """Run the command with these arguments."""
    given = sys.argv[1:] if arguments is None else arguments
    # A program's door, not a part of the library: what lies above it is looked up, and nothing here depends on it.
    code: int = import_module("elute.cli.main").main(["particles", "evaluate-classification", *given])
    return code


if __name__ == "__main__":
    sys.exit(main())

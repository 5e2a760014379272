"""Run the benchmarks: `python -m benchmarks [NAME…]`. Each prints a table and writes results/NAME.json."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main(names: list[str]) -> int:
    known = sorted(p.stem for p in HERE.glob("*.py") if not p.name.startswith("_"))
    if unknown := [n for n in names if n not in known]:
        print(f"there is no benchmark {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    codes = [subprocess.run([sys.executable, HERE / f"{name}.py"], check=False).returncode for name in names or known]
    return max(codes)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

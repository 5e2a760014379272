#!/usr/bin/env python3
"""Execute a notebook's code cells in one namespace, in an empty folder, and store what they show.

    scripts/execute_notebook.py examples/routing_feature.ipynb            outputs are written into the notebook
    scripts/execute_notebook.py --check examples/routing_feature.ipynb    nothing is written; what is stored must be
                                                                          of these cells, and of the same kinds

It does what Jupyter does with plain Python, and needs nothing of it: the last expression of a cell is shown in every
form that it knows (text, HTML, SVG), and standard output is kept. A cell that fails ends it.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import hashlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

FORMS = {"_repr_html_": "text/html", "_repr_svg_": "image/svg+xml"}


def lines(text: str) -> list[str]:
    """Return text as notebooks keep it."""
    return text.splitlines(keepends=True)


def code_cells(notebook: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the cells that are executed."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def digest(notebook: dict[str, Any]) -> str:
    """Return what says whether outputs are of these very cells."""
    sources = ["".join(cell["source"]) for cell in code_cells(notebook)]
    return hashlib.sha256(json.dumps(sources).encode()).hexdigest()


def execute(source: str, names: dict[str, Any], *, number: int) -> list[dict[str, Any]]:
    """Run one cell, and return its outputs."""
    tree = ast.parse(source)
    last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    printed, value = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        exec(compile(tree, f"cell {number}", "exec"), names)  # noqa: S102
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)  # noqa: S307
    found: list[dict[str, Any]] = []
    if printed.getvalue():
        found.append({"name": "stdout", "output_type": "stream", "text": lines(printed.getvalue())})
    if value is not None and not source.rstrip().endswith(";"):
        data = {"text/plain": lines(repr(value))}
        for name, form in FORMS.items():
            if (text := getattr(value, name, lambda: None)()) is not None:
                data[form] = lines(text)
        found.append({"data": data, "execution_count": number, "metadata": {}, "output_type": "execute_result"})
    return found


def run(notebook: dict[str, Any]) -> list[list[dict[str, Any]]]:
    """Run all cells in a folder that is taken away again."""
    names: dict[str, Any] = {"__name__": "__main__"}
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            cells = enumerate(code_cells(notebook), 1)
            return [execute("".join(cell["source"]), names, number=i) for i, cell in cells]
        finally:
            os.chdir(before)


def kinds(outputs: list[dict[str, Any]]) -> list[list[str]]:
    """Return what kinds of outputs a cell has."""
    return [sorted(output.get("data", {output.get("name", ""): None})) for output in outputs]


def check(notebook: dict[str, Any], found: list[list[dict[str, Any]]]) -> list[str]:
    """Return what is wrong with the outputs that are stored."""
    wrong = []
    if notebook["metadata"].get("elute", {}).get("cells") != digest(notebook):
        wrong.append("the outputs are of other cells: execute it anew")
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), found, strict=True), 1):
        if kinds(cell["outputs"]) != kinds(outputs):
            wrong.append(f"cell {number} shows {kinds(outputs)}, and {kinds(cell['outputs'])} is stored")
    return wrong


def main() -> int:
    """Execute one notebook."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--check", action="store_true", help="Write nothing; say whether what is stored is right.")
    asked = parser.parse_args()
    path = asked.notebook.resolve()
    notebook = json.loads(path.read_text(encoding="utf-8"))
    found = run(notebook)
    if asked.check:
        wrong = check(notebook, found)
        sys.stderr.write("".join(f"{path.name}: {line}\n" for line in wrong))
        return 1 if wrong else 0
    for number, (cell, outputs) in enumerate(zip(code_cells(notebook), found, strict=True), 1):
        cell.update(execution_count=number, outputs=outputs)
    notebook["metadata"]["elute"] = {"cells": digest(notebook)}
    text = json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())

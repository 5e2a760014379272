"""Where a folder's content came from: each stage's settings, inputs and versions."""

from __future__ import annotations

from pathlib import Path

from elute.base import run
from elute.reports.html import join, table, tag


class ProvenancePage:
    """Shows `run.json`."""

    title = "Where this came from"
    needs: tuple[str, ...] = ("run.json",)

    def render(self, folder: Path) -> str:
        """Render the stages in the order in which they were done."""
        record = run.read(folder)
        parts = []
        for stage, entry in record["stages"].items():
            rows = [(name, tag("code", value)) for name, value in entry["config"].items()]
            rows += [(f"input {name}", tag("code", digest)) for name, digest in entry["inputs"].items()]
            if entry["model"]:
                rows += [(f"model {name}", tag("code", value)) for name, value in entry["model"].items()]
            parts += [tag("h3", stage), table(["setting", "value"], rows)]
        parts += [tag("h3", "Versions"), table(["program", "version"], record.get("versions", {}).items())]
        return join(parts)


PAGE = ProvenancePage()

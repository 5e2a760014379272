"""`dashboard.html`: the features of a run on one page that needs nothing else, neither a network nor a server.

The page is the files of `dashboard_page/`, put into one another; the data are the tables of findings, column by column
as they lie in Parquet, as JSON. Text from data is never HTML: the page's program sets it as text alone, and the policy
allows no other program than this one, by its digest, and no connection.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.analysis import run_tables
from elute.base import files
from elute.base.errors import ConfigError, DataError
from elute.base.run import Artifact
from elute.reports.html import escape
from elute.store import layout

if TYPE_CHECKING:
    import polars as pl

NAME = "dashboard.html"
SCHEMA = 1
_PAGE = Path(__file__).parent / "dashboard_page"
_SCRIPTS = ("text.js", "state.js", "list.js", "panel.js", "page.js")  # each uses those before it
_EACH = {run_tables.GENES: 40, run_tables.CELLS: 20, run_tables.GROUPS: 40, run_tables.NUMBERS: 20}
_ORDER = {
    run_tables.GENES: "rank",
    run_tables.CELLS: "rank",
    run_tables.GROUPS: "auroc",
    run_tables.NUMBERS: "rho",
}
_CONTROLS = "validation/summary.json"
_LONGEST = 300  # characters of one name, whatever the data is called
_DIGITS = 6
_HELD = ("columns", "follow", "cells", "found again", "found again by chance", "not run")


def write_dashboard(folder: Path, *, top_n_features: int = 100) -> Artifact:
    """Write a run's page from its tables: the most frequent features, what they fire on, and the control beside."""
    folder = Path(folder)
    if top_n_features < 1:
        raise ConfigError(f"a dashboard of {top_n_features} features", remedy="Give --top-n-features 1 or more.")
    places = run_tables.find_sites(folder)
    if not places:
        run_tables.read_table(folder, run_tables.FEATURES)  # says what is missing
    data: dict[str, Any] = {
        "schema": SCHEMA,
        "run": folder.resolve().name,
        "about": _about(folder),
        "sites": [_site(name, place, top_n_features) for name, place in places.items()],
    }
    text = _page(f"{folder.resolve().name}: features", data).encode()
    path = folder / NAME
    files.write_atomically(path, lambda handle: handle.write(text))
    shown = {site["name"]: len(site["features"]["feature"]) for site in data["sites"]}
    return Artifact("dashboard", path, {"features": shown, "bytes": len(text)})


def _site(name: str, folder: Path, top: int) -> dict[str, Any]:
    """One site's tables, cut to the features and rows that the page shows."""
    frame = run_tables.read_table(folder, run_tables.FEATURES, needs=("frequency",))
    alive = frame.filter(frame["frequency"] > 0)
    if alive.is_empty():
        raise DataError("no feature fires", where=folder / run_tables.FEATURES, remedy="Look at its training first.")
    chosen = alive.sort(["frequency", "feature"], descending=[True, False]).head(top)
    kinds = alive["kind"].drop_nulls().value_counts(sort=True).rows() if "kind" in alive.columns else []
    found: dict[str, Any] = {
        "name": name,
        "about": _explained(folder),
        "of": len(frame),
        "alive": len(alive),
        "kinds": [list(row) for row in kinds],
        "controls": _controls(folder),
        "edges": _edges(),
        "features": _columns(chosen),
    }
    for file, most in _EACH.items():
        found[file.removesuffix(".parquet")] = _columns(_cut(folder, file, chosen, most))
    return found


def _cut(folder: Path, file: str, chosen: pl.DataFrame, most: int) -> pl.DataFrame | None:
    """The first rows of each chosen feature; nothing where the table was not made."""
    import polars as pl

    if not (folder / file).is_file():
        return None
    by = _ORDER[file]
    frame = run_tables.read_table(folder, file, needs=(by,))
    frame = frame.filter(pl.col("feature").is_in(chosen["feature"].implode()))
    if file == run_tables.GENES:
        raw = pl.col("rank_raw") if "rank_raw" in frame.columns else pl.lit(None)
        here = pl.min_horizontal(pl.col("rank"), raw)
    elif by == "rank":
        here = pl.col("rank")
    else:  # what speaks most for a feature first, in either direction
        far = (pl.col(by) - (0.5 if by == "auroc" else 0.0)).abs()
        here = far.rank("ordinal", descending=True).over("feature")
    return frame.with_columns(here.alias("_at")).sort("feature", "_at").group_by("feature", maintain_order=True).head(
        most
    ).drop("_at")  # fmt: skip


def _columns(frame: pl.DataFrame | None) -> dict[str, list[Any]] | None:
    """A table as JSON has it: a list a column."""
    return None if frame is None else {name: [_plain(v) for v in frame[name].to_list()] for name in frame.columns}


def _plain(value: Any) -> Any:
    """A value as JSON and a page have room for it."""
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int):
        return value
    text = str(value).encode(errors="replace").decode()  # half a character has no place in a file
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def _edges() -> list[float] | None:
    """Where the bins of the histograms begin."""
    from elute.analysis import tally

    return [float(f"{edge:.{_DIGITS}g}") for edge in tally.EDGES]


def _about(folder: Path) -> dict[str, Any]:
    """What was read: the model, the cells, the rows; what is not recorded is left out."""
    found: dict[str, Any] = {}
    if (folder / "activations" / layout.MANIFEST).is_file():
        manifest = layout.read_manifest(folder / "activations")
        found["rows"] = manifest.rows
        if manifest.model is not None:
            found["model"] = manifest.model.name
    if (folder / run_tables.SHEET).is_file():
        cells = run_tables.read_cells(folder)
        found["cells"] = len(cells)
        found["donors"] = cells["donor"].n_unique() - bool(cells["donor"].null_count()) if "donor" in cells else 0
        if "split" in cells.columns:
            found["splits"] = [list(row) for row in cells["split"].drop_nulls().value_counts(sort=True).rows()]
    return _plain_tree(found)


def _explained(folder: Path) -> dict[str, Any]:
    """What the dictionary explains beside principal directions, where that was measured, and its width and k."""
    found: dict[str, Any] = {}
    if (folder / "codes" / "manifest.json").is_file():
        manifest = _read(folder / "codes" / "manifest.json", "a manifest of codes")
        found |= {key: manifest[key] for key in ("n_features", "k") if isinstance(manifest.get(key), int)}
    judged: Any = _read(folder / _CONTROLS, "a summary of controls").get("reconstruction")
    on: Any = "test"
    if not isinstance(judged, dict):
        judged = _read(folder / "evaluation.json", "an evaluation")
        control, on = judged.get("control"), judged.get("split")
        judged = {**judged, "principal": control.get("explained_variance_pca") if isinstance(control, dict) else None}
    if judged.get("principal") is not None:
        found |= {
            "explained": judged.get("explained_variance"),
            "explained_pca": judged["principal"],
            "explained_on": on,
        }
    return _plain_tree(found)


def _controls(folder: Path) -> dict[str, Any] | None:
    """How many features follow a cell type, and how many columns of what they are held against."""
    told = _read(folder / _CONTROLS, "a summary of controls")
    follow, kinds = told.get("follow"), told.get("kinds")
    if not isinstance(follow, dict):
        return None
    rows = []
    for name, part in follow.items():
        known = kinds.get(name, {}) if isinstance(kinds, dict) else {}
        fire = sum(known.values()) - known.get("silent", 0) - known.get("rare", 0)
        row = {key.replace(" ", "_"): part.get(key) for key in _HELD}
        rows.append({"name": name, **row, "identity": known.get("gene identity", 0) / fire if fire else None})
    across = told.get("across donors")
    donors = []
    for column, part in across.items() if isinstance(across, dict) else ():
        name = told.get("label", "cell type") if column == "label" else column
        null = part.get("permuted") or []
        beside = {"most": max(null, default=None), "times": len(null)}
        told_of = {key.replace(" ", "_"): part.get(key) for key in ("donors", "features", "not run")}
        donors.append(_plain_tree({"name": name, **told_of, **beside}))
    return {"at": _plain(told.get("at")), "rows": [_plain_tree(row) for row in rows], "donors": donors}


def _read(path: Path, what: str) -> dict[str, Any]:
    """A file of JSON; empty where it is not there."""
    value = files.read_json(path, what=what, remedy="Delete it, and make it anew.") if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _plain_tree(found: dict[str, Any]) -> dict[str, Any]:
    return {key: _plain(value) for key, value in found.items()}


def _page(title: str, data: dict[str, Any]) -> str:
    """Put the files of the page, and the data, into one document."""
    style, script = (_PAGE / "page.css").read_text(), _script()
    told = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    # Inside a script element only these could end it, or the line in an old reader of JSON.
    for character in "<>&\u2028\u2029":
        told = told.replace(character, f"\\u{ord(character):04x}")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    parts = {
        "policy": escape(f"{policy}; base-uri 'none'; form-action 'none'"),
        "title": escape(_plain(title)),
        "style": style,
        "data": told,
        "script": script,
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (_PAGE / "page.html").read_text())


def _script() -> str:
    """All modules as one: the lines by which they know one another are taken out."""
    text = "\n".join((_PAGE / name).read_text() for name in _SCRIPTS)
    return re.sub(r"^export ", "", re.sub(r"^import .*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"

"""What is known of a run, read for a report: what was trained on what, and what it is held against.

What a run did not do is nothing here, with why; a file that anybody may have edited is read number by number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.analysis import run_tables
from elute.base import files
from elute.base.errors import DataError
from elute.reports.validation_records import NOT_RUN, number
from elute.reports.validation_svg import plain
from elute.reports.validation_tables import SUMMARY, Site, read_site

if TYPE_CHECKING:
    import polars as pl

CHOOSING, SHOWING = "train", "test"
THOSE = "features, on those cells"
COLUMNS = ("features", "permuted labels", "genes", "neurons", "principal components", "another seed", THOSE,
           "random weights", "embedding layer")  # fmt: skip


@dataclass(frozen=True)
class Follow:
    """What follows a cell type among some columns: features, or what they are held against."""

    name: str
    columns: float | None
    count: float | None
    most: float | None  # of all times that labels were dealt out anew
    cells: float | None
    by_type: dict[str, float]
    no_claim: tuple[str, ...]
    both_signs: bool
    again: tuple[float, float | None] | None  # found again, and by chance
    single: float | None  # share of those with a kind that stand for one gene
    why: str  # not run


@dataclass(frozen=True)
class Across:
    """Features that differ across donors in a column, beside the same with its levels dealt out anew."""

    column: str
    features: float | None
    donors: float | None
    permuted: tuple[float, ...]
    why: str


@dataclass(frozen=True, eq=False)
class SiteFacts:
    """What is known of one dictionary."""

    name: str
    place: Path
    features: int
    alive: int
    k: int | None
    trained: dict[str, Any]  # steps, rows
    kinds: dict[str, float]
    explained: tuple[float, float | None, str] | None  # the share, that of principal directions, and of which rows
    controls: str | None  # full, standard; None where none were run
    at: float | None
    follow: tuple[Follow, ...]
    across: tuple[Across, ...]
    fdr: float
    notes: tuple[str, ...]
    validated: Site | None
    frame: pl.DataFrame  # features.parquet

    def column(self, name: str) -> Follow | None:
        """One of what is counted, if it is there."""
        return next((each for each in self.follow if each.name == name), None)


@dataclass(frozen=True, eq=False)
class RunFacts:
    """What is known of a run."""

    name: str
    home: Path
    model: str | None
    parameters: float | None
    data: str | None
    cells: pl.DataFrame | None
    genes: int | None
    label: str | None  # the column that names cell types
    sites: tuple[SiteFacts, ...]
    splits: dict[str, int] = field(default_factory=dict)
    donors: dict[str, int] = field(default_factory=dict)  # of each split, and under "" of all
    apart: bool = False  # whether no donor is on both sides

    @property
    def labelled(self) -> bool:
        """Whether cells are of two types or more."""
        return (
            self.cells is not None and "label" in self.cells.columns and self.cells["label"].drop_nulls().n_unique() > 1
        )

    @property
    def others(self) -> str:
        """What the cells are that did not choose."""
        return "cells of other donors" if self.apart else "held-out cells"


def read_run(folder: Path) -> RunFacts:
    """Read a run's folder, or that of one of its sites."""
    folder = Path(folder)
    places = run_tables.find_sites(folder)
    if not places:
        what = "is not the folder of a run: it holds no features.parquet"
        raise DataError(what, where=folder, remedy="`elute cells run-pipeline` makes one.")
    above = folder.resolve().parent
    home = above if not (folder / run_tables.SHEET).is_file() and (above / run_tables.SHEET).is_file() else folder
    done = part(_record(home / "run.json"), "stages", "run-pipeline")
    manifest = _record(home / "activations" / "manifest.json")
    config = _record(home / "model_config.json")
    cells = run_tables.read_cells(home) if (home / run_tables.SHEET).is_file() else None
    sources = part(done, "inputs") or part(manifest, "source")
    sites = tuple(_site(name, place, folder) for name, place in places.items())
    label = next((site_label for site in sites if (site_label := _label(site, done))), None)
    return RunFacts(
        name=plain(folder.resolve().name),
        home=home,
        model=_text(part(done, "model", "name") or part(manifest, "model", "name") or config.get("name")),
        parameters=number(config.get("parameters")),
        data=_text(next(iter(sources), None) if isinstance(sources, dict) else None),
        cells=cells,
        genes=_height(home / "genes.parquet"),
        label=label,
        sites=sites,
        splits=_splits(cells),
        donors=_donors(cells),
        apart=_apart(cells),
    )


def _site(name: str, place: Path, folder: Path) -> SiteFacts:
    frame = run_tables.read_table(place, run_tables.FEATURES).sort("feature")
    told = _record(place / SUMMARY)
    validated = None
    if isinstance(told.get("databases"), dict):
        validated = read_site(place, name=name, run=folder.resolve().name)
    extracted = _record(place / "extraction_summary.json")
    codes = _record(place / "codes" / "manifest.json")
    alive = int(frame["alive"].sum()) if "alive" in frame.columns else len(frame)
    kinds = frame["kind"].drop_nulls().value_counts().rows() if "kind" in frame.columns else []
    trained = part(_record(place / "run.json"), "stages", "train", "summary")
    controls = told.get("controls")
    return SiteFacts(
        name=plain(name),
        place=place,
        features=len(frame),
        alive=alive,
        k=codes["k"] if isinstance(codes.get("k"), int) else None,
        trained=trained if isinstance(trained, dict) else {},
        kinds={plain(kind): float(n) for kind, n in sorted(kinds)},
        explained=_explained(place, told),
        controls=plain(controls or "some") if isinstance(told.get("follow"), dict) else None,
        at=number(told.get("at")),
        follow=_follow(told),
        across=tuple(_across(plain(c), p, told) for c, p in _items(told.get("across donors"))),
        fdr=number(told.get("fdr")) or number(part(extracted, "fdr")) or 0.05,
        notes=_texts(extracted.get("notes")),
        validated=validated,
        frame=frame,
    )


def _explained(place: Path, told: dict[str, Any]) -> tuple[float, float | None, str] | None:
    judged, held = told.get("reconstruction"), _record(place / "evaluation.json")
    if isinstance(judged, dict) and (found := number(judged.get("explained_variance"))) is not None:
        return found, number(judged.get("principal")), "rows of cells that it was not trained on"
    if (found := number(held.get("explained_variance"))) is not None:
        on = f"rows of the split “{plain(held['split'])}”" if held.get("split") else "all rows"
        return found, number(part(held, "control", "explained_variance_pca")), on
    trained = part(_record(place / "run.json"), "stages", "train", "summary", "explained_variance")
    return None if (found := number(trained)) is None else (found, None, "the rows that it was trained on")


def _follow(told: dict[str, Any]) -> tuple[Follow, ...]:
    """The columns of the table of controls."""
    kinds = told.get("kinds")
    found = [_one(plain(name), each, part(kinds, name)) for name, each in _items(told.get("follow"))]
    return tuple(sorted(found, key=lambda each: COLUMNS.index(each.name) if each.name in COLUMNS else len(COLUMNS)))


def _one(name: str, each: dict[str, Any], kinds: Any) -> Follow:
    counted = {key: number(n) or 0.0 for key, n in kinds.items()} if isinstance(kinds, dict) else {}
    told = sum(n for kind, n in counted.items() if kind not in ("silent", "rare"))
    again = number(each.get("found again"))
    types = each.get("by type")
    return Follow(
        name=name,
        columns=number(each.get("columns")),
        count=number(each.get("follow")),
        most=number(each.get("most")),
        cells=number(each.get("cells")),
        by_type={plain(k): found for k, n in types.items() if (found := number(n)) is not None}
        if isinstance(types, dict)
        else {},
        no_claim=_texts(each.get("no claim")),
        both_signs=each.get("both signs") is True,
        again=None if again is None else (again, number(each.get("found again by chance"))),
        single=counted.get("gene identity", 0.0) / told if told else None,
        why=plain(each[NOT_RUN]) if NOT_RUN in each else "",
    )


def _across(column: str, each: dict[str, Any], told: dict[str, Any]) -> Across:
    name = plain(told.get("label") or "cell type") if column == "label" else column
    null = each.get("permuted")
    permuted = tuple(n for one in null if (n := number(one)) is not None) if isinstance(null, list) else ()
    why = plain(each[NOT_RUN]) if NOT_RUN in each else ""
    return Across(name, number(each.get("features")), number(each.get("donors")), permuted, why)


def _label(site: SiteFacts, done: Any) -> str | None:
    told = _record(site.place / SUMMARY).get("label") or _record(site.place / "extraction_summary.json").get("label")
    return _text(told or part(done, "config", "cells", "cell_type_key"))


def _splits(cells: pl.DataFrame | None) -> dict[str, int]:
    if cells is None or "split" not in cells.columns:
        return {}
    counted = cells["split"].drop_nulls().cast(str).value_counts().rows()
    order = {CHOOSING: 0, "validation": 1, SHOWING: 2}
    return {plain(k): n for k, n in sorted(counted, key=lambda row: (order.get(row[0], 3), row[0]))}


def _donors(cells: pl.DataFrame | None) -> dict[str, int]:
    """How many donors each split has."""
    if cells is None or "donor" not in cells.columns:
        return {}
    known = cells.filter(cells["donor"].is_not_null())
    found = {"": known["donor"].n_unique()}
    if "split" in cells.columns:
        found |= {plain(key[0]): each["donor"].n_unique() for key, each in known.group_by("split")}
    return found


def _apart(cells: pl.DataFrame | None) -> bool:
    """Whether donors of the cells that chose are others than those of the cells that show."""
    if cells is None or "donor" not in cells.columns or "split" not in cells.columns:
        return False
    sides = [set(cells.filter(cells["split"] == side)["donor"].drop_nulls().to_list()) for side in (CHOOSING, SHOWING)]
    return bool(sides[0]) and bool(sides[1]) and not sides[0] & sides[1]


def _height(path: Path) -> int | None:
    if not path.is_file():
        return None
    import polars as pl

    try:
        return int(pl.scan_parquet(path, glob=False).select(pl.len()).collect().item())
    except (pl.exceptions.PolarsError, OSError):
        return None


def part(value: Any, *names: str) -> Any:
    """Return what lies under names one below the other; None where one of them is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _record(path: Path) -> dict[str, Any]:
    """A file of JSON; empty where it is not there."""
    value = files.read_json(path, what="a record", remedy="Delete it, and make it anew.") if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _items(value: Any) -> Iterable[tuple[Any, dict[str, Any]]]:
    return [(k, v) for k, v in value.items() if isinstance(v, dict)] if isinstance(value, dict) else []


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(plain(each) for each in value) if isinstance(value, list) else ()


def _text(value: Any) -> str | None:
    return plain(value) if value else None

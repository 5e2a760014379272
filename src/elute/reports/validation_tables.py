"""What a validated site wrote, read for its report: the summary, a table a database, and the features' names.

Columns that are not there are read as null, so that a table of an older or a newer run still gives a page; a table
that cannot be read, or lacks what makes it one, is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.analysis import run_tables
from elute.base import files
from elute.base.errors import DamagedError, DataError
from elute.reports import validation_records as records
from elute.reports.validation_records import Null
from elute.reports.validation_svg import LONGEST, plain

if TYPE_CHECKING:
    import polars as pl

SUMMARY = "validation/summary.json"
NETWORKS = ("network", "string", "string-db")  # as the table of interactions may be called
NUMBERS = (
    *("overlap", "list_size", "term_size", "background", "expected", "odds", "odds_low", "odds_high"),
    *("p", "null_p", "q", "q_plain", "p_shown", "q_shown", "auc", "p_rank", "q_rank", "p_parent"),
)
_COUNTS = ("overlap", "list_size", "term_size", "background")
_NETWORK_NUMBERS = ("genes", "edges", "expected", "p", "q", "null_p", "q_null")
_FEATURES = ("frequency", "name_confidence", "auroc", "auroc_shown", "cell_type_donors")
_FEATURE_TEXTS = ("kind", "cell_type", "name", "name_reason", "name_source", "name_term")
_TITLE = 80  # characters of what a database is called
_AGAIN = "Type: elute cells validate --results {}"


@dataclass(frozen=True, eq=False)
class Source:
    """What was found in one database."""

    name: str
    title: str
    snapshot: str
    taken: str
    licence: str
    evidence: str  # what of it was taken
    run: bool
    why: str
    background: str
    counts: dict[str, float | None]  # genes, terms, tests, features, significant, plain, again, excess and its ends
    null: Null | None
    controls: dict[str, tuple[float | None, float | None, str]]  # significant, of, and why it was not run
    notes: tuple[str, ...]
    further: tuple[tuple[str, str], ...]  # what was tested beside, and what came of it
    rows: pl.DataFrame | None  # None where there is no such table

    @property
    def is_network(self) -> bool:
        """Whether its genes are tested for interactions, so that its rows stand in the table of networks."""
        return self.name in NETWORKS

    @property
    def beyond_null(self) -> bool | None:
        """Whether more features have a term than matched lists give; None where that was not tested."""
        low = self.counts["excess_low"]
        return None if low is None else low > 0


@dataclass(frozen=True, eq=False)
class Site:
    """All that the report of one site is made from."""

    folder: Path
    run: str
    name: str
    fdr: float
    top_n_genes: int | None
    sources: tuple[Source, ...]
    kin: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]
    features: pl.DataFrame
    genes: pl.DataFrame  # feature, genes: the list of each, best first
    network: pl.DataFrame | None
    named: bool  # whether names were given at all
    donors: bool  # whether cells are of several donors, so that those held out are other ones

    @property
    def others(self) -> str:
        """What the cells are that did not choose genes."""
        return "other donors" if self.donors else "other cells"

    def titles(self, names: Sequence[str]) -> list[str]:
        """What databases are called for a reader."""
        called = {source.name: source.title for source in self.sources}
        return [called.get(name, name) for name in names]


def read_site(folder: Path, *, name: str = "", run: str = "") -> Site:
    """Read what was written in the folder of one site."""
    told = _summary(folder)
    databases = told.get("databases")
    if not isinstance(databases, dict) or not all(isinstance(each, dict) for each in databases.values()):
        raise DataError("holds no databases", where=folder / SUMMARY, remedy=_AGAIN.format(folder))
    top = records.number(told.get("top_n_genes"))
    features = _features(folder)
    kin = told.get("kin")
    sources = tuple(_source(folder, key, value) for key, value in databases.items())
    return Site(
        folder=folder,
        run=plain(run or folder.resolve().name),
        name=plain(name or folder.resolve().name),
        fdr=records.number(told.get("fdr")) or 0.05,
        top_n_genes=None if top is None else int(top),
        sources=sources,
        kin=tuple(tuple(map(str, group)) for group in kin if len(group) > 1) if isinstance(kin, list) else (),
        notes=records.notes(told),
        features=features,
        genes=_genes(folder, features, 50 if top is None else int(top)),
        network=_network(folder, sources),
        donors=bool((features["cell_type_donors"] > 1).any()),
        named=features["name"].is_not_null().any() or features["name_reason"].is_not_null().any(),
    )


def _summary(folder: Path) -> dict[str, Any]:
    path, remedy = folder / SUMMARY, _AGAIN.format(folder)
    if not path.is_file():
        raise DataError(f"holds no {SUMMARY}", where=folder, remedy=remedy)
    told = files.read_json(path, what="a summary of validation", remedy=remedy)
    if not isinstance(told, dict):
        raise DamagedError("is not a summary of validation", where=path, remedy=remedy)
    return told


def _source(folder: Path, name: str, told: dict[str, Any]) -> Source:
    ran = told.get("status") == "run"
    null, counts = told.get("null"), ("genes", "terms", "tests", "features", "significant", "plain", "again")
    held = {key: records.number(told.get(key)) for key in (*counts, "excess", "excess_low", "excess_high")}
    controls = told.get("controls") if isinstance(told.get("controls"), dict) else {}
    return Source(
        name=name,
        title=plain(told.get("title") or name, _TITLE),
        snapshot=plain(told.get("snapshot") or told.get("title") or name, _TITLE),
        taken=plain(told.get("taken") or ""),
        licence=plain(told.get("licence") or ""),
        evidence=records.evidence(told.get("evidence")),
        run=ran,
        why=plain(told.get("why") or ""),
        background=plain(told.get("background") or ""),
        counts=held,
        null=records.null(null) if isinstance(null, dict) else None,
        controls={plain(key): records.control(part) for key, part in controls.items()}
        if isinstance(controls, dict)
        else {},
        notes=records.notes(told),
        further=records.further(told),
        rows=_rows(folder / "validation" / f"{name}.parquet") if ran and Path(name).name == name else None,
    )


def _rows(path: Path) -> pl.DataFrame | None:
    """A database's rows, best first within a feature; broader terms that were folded come last."""
    import polars as pl

    if path.stem in NETWORKS or not path.is_file():
        return None
    frame = _read(path, ("term", "p"))
    text = [_text(frame, "term"), _text(frame, "label", "term"), _text(frame, "group"), _text(frame, "folded_under")]
    kinds = {key: pl.Int64 if key in _COUNTS else pl.Float64 for key in NUMBERS}
    try:
        numbers = [_real(frame, key, kind) for key, kind in kinds.items()]
        genes = pl.col("genes") if "genes" in frame.columns else pl.lit([], pl.List(pl.String)).alias("genes")
        genes = genes.cast(pl.List(pl.String)).fill_null([])
        rows = frame.select(pl.col("feature").cast(pl.Int64), *text, *numbers, genes)
    except pl.exceptions.PolarsError as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"is no table of terms: {first}", where=path, remedy="Validate the run anew.") from None
    rows = rows.filter(pl.col("feature").is_not_null(), pl.col("term").is_not_null(), pl.col("p").is_not_null())
    rows = _readable(rows).with_columns(p_larger=pl.max_horizontal("p", "null_p"))  # what q was made from
    return rows.sort("feature", pl.col("folded_under").is_not_null(), "p_larger", "term")


def level(fdr: float) -> pl.Expr:
    """1 for a pair at q ≤ the rate, 2 for one that a plain test alone would have called, 0 for any other."""
    import polars as pl

    return pl.when(pl.col("q") <= fdr).then(1).when(pl.col("q_plain") <= fdr).then(2).otherwise(0).alias("level")


def _readable(rows: pl.DataFrame) -> pl.DataFrame:
    """Write labels that are names in capitals, as of MSigDB's sets, as people write them; the name itself is kept."""
    import polars as pl

    from elute.validation.wording import tidy

    labels = rows["label"].unique().drop_nulls().to_list()
    spoken = {label: tidy(label, longest=LONGEST) for label in labels if "_" in label and label == label.upper()}
    return rows.with_columns(pl.col("label").replace(spoken)) if spoken else rows


def _read(path: Path, needs: tuple[str, ...]) -> pl.DataFrame:
    """Read a table that validation wrote; what is wrong with it is mended by validating anew."""
    try:
        return run_tables.read_table(path.parent, path.name, needs=needs)
    except DataError as error:
        raise DamagedError(error.what, where=error.where, remedy=_AGAIN.format(path.parent.parent)) from None


def _text(frame: pl.DataFrame, name: str, instead: str = "") -> pl.Expr:
    import polars as pl

    found = [pl.col(each).cast(pl.String) for each in (name, instead) if each in frame.columns]
    return (pl.coalesce(found) if found else pl.lit(None, pl.String)).alias(name)


def _real(frame: pl.DataFrame, name: str, kind: Any) -> pl.Expr:
    import polars as pl

    column = pl.col(name).cast(kind) if name in frame.columns else pl.lit(None, kind)
    return (column.fill_nan(None) if kind == pl.Float64 else column).alias(name)


def _features(folder: Path) -> pl.DataFrame:
    import polars as pl

    frame = run_tables.read_table(folder, run_tables.FEATURES)
    alive = pl.col("alive").fill_null(value=True) if "alive" in frame.columns else pl.lit(value=True)
    top = pl.col("top_genes") if "top_genes" in frame.columns else pl.lit([], pl.List(pl.String))
    numbers = [_real(frame, name, pl.Float64) for name in _FEATURES]
    texts = [_text(frame, name) for name in _FEATURE_TEXTS]
    top = top.cast(pl.List(pl.String)).fill_null([]).alias("top_genes")
    return frame.select(pl.col("feature").cast(pl.Int64), alive.alias("alive"), *numbers, *texts, top).sort("feature")


def _genes(folder: Path, features: pl.DataFrame, most: int) -> pl.DataFrame:
    """Each feature's list of genes, as it was tested; where that is not kept, its top genes."""
    import polars as pl

    if not (folder / run_tables.GENES).is_file():
        return features.select("feature", genes="top_genes")
    frame = run_tables.read_table(folder, run_tables.GENES, needs=("symbol", "rank"))
    listed = frame.filter(pl.col("rank") <= most).sort("feature", "rank")
    listed = listed.group_by(pl.col("feature").cast(pl.Int64), maintain_order=True).agg(genes="symbol")
    joined = features.select("feature", "top_genes").join(listed, on="feature", how="left", maintain_order="left")
    return joined.select("feature", genes=pl.coalesce("genes", "top_genes"))


def _network(folder: Path, sources: Sequence[Source]) -> pl.DataFrame | None:
    """The table of interactions, where they were tested in this very run."""
    import polars as pl

    ran = [source.name for source in sources if source.is_network and source.run]
    paths = [folder / "validation" / f"{name}.parquet" for name in (*ran, *NETWORKS) if ran]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        return None
    frame = _read(path, ("p",))
    numbers = [_real(frame, name, pl.Float64) for name in _NETWORK_NUMBERS]
    hubs = pl.col("hubs") if "hubs" in frame.columns else pl.lit([], pl.List(pl.String))
    hubs = hubs.cast(pl.List(pl.String)).fill_null([]).alias("hubs")
    return frame.select(pl.col("feature").cast(pl.Int64), *numbers, hubs).sort("feature")

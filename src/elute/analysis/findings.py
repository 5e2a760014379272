"""What a run found, for a person at a Python prompt: tables as polars frames, each read when it is asked for.

run = elute.open("results/pbmc")
run.features.top(10)                          # the most frequent features
f = run.feature(42); f.genes; f.cells; f.tests
run.site("blocks.3.hook_mlp_out").features    # a run of several sites is asked for one of them
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elute.analysis.run_tables import CELLS, FEATURES, GENES, GROUPS, NUMBERS, find_sites, read_cells, read_table
from elute.base import run
from elute.base.errors import DataError, near

if TYPE_CHECKING:
    import polars as pl
    from anndata import AnnData

    from elute.dictionaries.dictionary import Dictionary
    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

Pooling = Literal["mean", "max", "sum"]


class Features:
    """All features of a site, a row each."""

    def __init__(self, frame: pl.DataFrame, where: Path) -> None:
        self.frame = frame
        self._where = where

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        alive = int(self.frame["alive"].sum()) if "alive" in self.frame.columns else len(self)
        return f"Features({len(self):,}, of which {alive:,} fire)\n{self.frame}"

    def top(self, n: int = 10, *, by: str = "frequency", descending: bool = True) -> pl.DataFrame:
        """Return the first features by any column; those without a value there come last."""
        if by not in self.frame.columns:
            raise DataError(f"features have no column {by!r}", where=self._where, remedy=near(by, self.frame.columns))
        return self.frame.sort([by, "feature"], descending=[descending, False], nulls_last=True).head(n)


@dataclass(frozen=True, eq=False)
class Feature:
    """One feature: what is known of it."""

    number: int
    row: dict[str, Any]
    """Its row of the table of features."""
    folder: Path

    def __repr__(self) -> str:
        genes = ", ".join((self.row.get("top_genes") or [])[:5])
        return f"Feature({self.number}: {self.row.get('kind') or 'of no kind'}; {genes or 'no genes'})"

    @property
    def genes(self) -> pl.DataFrame:
        """Genes by how far they exceed what their own frequency and expression give: the ranking to read."""
        return self._ranked("rank")

    @property
    def genes_raw(self) -> pl.DataFrame:
        """Genes by the plain sum of activation × expression, which lists those that are expressed everywhere."""
        return self._ranked("rank_raw")

    @property
    def cells(self) -> pl.DataFrame:
        """The cells in which it fired most."""
        return read_table(self.folder, CELLS, feature=self.number, needs=("rank",)).sort("rank")

    @property
    def tests(self) -> pl.DataFrame:
        """Each level of each column of cells against it; the `_shown` columns are of cells that chose nothing."""
        return read_table(self.folder, GROUPS, feature=self.number)

    @property
    def numbers(self) -> pl.DataFrame:
        """Rank correlation with each numeric column of cells."""
        return read_table(self.folder, NUMBERS, feature=self.number)

    @property
    def near(self) -> pl.DataFrame:
        """Features whose direction is nearest."""
        return self._others("near", "near_cosine", "cosine")

    @property
    def together(self) -> pl.DataFrame:
        """Features that fire in the same rows."""
        return self._others("together", "together_score", "score")

    def _ranked(self, by: str) -> pl.DataFrame:
        frame = read_table(self.folder, GENES, feature=self.number, needs=("rank", "rank_raw"))
        return frame.filter(frame[by].is_not_null()).sort(by)

    def _others(self, names: str, numbers: str, called: str) -> pl.DataFrame:
        import polars as pl

        values = self.row.get(names) or [], self.row.get(numbers) or []
        return pl.DataFrame(
            dict(zip(("feature", called), values, strict=True)), {"feature": pl.Int32, called: pl.Float64}
        )


class SiteRun:
    """What a run found at one site."""

    def __init__(self, folder: Path, site: str, home: Path) -> None:
        self.folder, self.name, self.home = folder, site, home

    def __repr__(self) -> str:
        return f"SiteRun({str(self.folder)!r}: {self.name})"

    @cached_property
    def features(self) -> Features:
        """All features."""
        return Features(read_table(self.folder, FEATURES).sort("feature"), self.folder / FEATURES)

    def feature(self, number: int) -> Feature:
        """Return one feature."""
        frame = self.features.frame
        rows = frame.filter(frame["feature"] == number)
        if rows.is_empty():
            numbers = frame["feature"].to_list()  # in their order
            remedy = f"They are numbered from {numbers[0]} to {numbers[-1]}." if numbers else ""
            raise DataError(
                f"there is no feature {number} in {len(frame):,} features", where=self.folder, remedy=remedy
            )
        return Feature(int(number), rows.row(0, named=True), self.folder)

    @cached_property
    def dictionary(self) -> Dictionary:
        """The dictionary, loaded."""
        from elute.dictionaries.files import load_dictionary

        return load_dictionary(self.folder)

    @cached_property
    def codes(self) -> StoredCodes:
        """The codes of every row."""
        from elute.store.codes import StoredCodes

        return StoredCodes(self.folder / "codes")

    @cached_property
    def store(self) -> Store:
        """The rows that were read."""
        from elute.store.reader import Store

        return Store(self.home / "activations")

    @cached_property
    def cells(self) -> pl.DataFrame:
        """The cells, numbered as in every table."""
        return read_cells(self.home)

    def to_anndata(self, data: Path | str | None = None, *, pooling: Pooling = "mean") -> AnnData:
        """Return the cells with their features in .obsm["X_elute"]; with `data`, the whole file that they came from."""
        from elute.analysis.to_anndata import to_anndata

        return to_anndata(self.home, self.name, data=None if data is None else Path(data), pooling=pooling)


class Run:
    """A run's folder. With one site it answers as that site does; with several, `site(name)` does."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self._sites = find_sites(self.folder)
        if not self._sites:
            what = "is not the folder of a run: it holds no dictionary, no codes and no features.parquet"
            raise DataError(what, where=self.folder, remedy="`elute cells run-pipeline` makes one.")

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r}: {', '.join(self.sites)})"

    @property
    def sites(self) -> list[str]:
        """Names of the sites."""
        return list(self._sites)

    def site(self, name: str | None = None) -> SiteRun:
        """Return what was found at one site; its name may be left out where there is one alone."""
        if name is None and len(self._sites) > 1:
            what = f"there are several sites: {', '.join(self._sites)}"
            raise DataError(what, where=self.folder, remedy=f"Say which: .site({next(iter(self._sites))!r})")
        if name is not None and name not in self._sites:
            raise DataError(f"there is no site {name!r}", where=self.folder, remedy=near(name, self._sites))
        name = name if name is not None else next(iter(self._sites))
        return SiteRun(self._sites[name], name, self.folder)

    @cached_property
    def record(self) -> dict[str, Any]:
        """What `run.json` says: the settings and inputs of each stage."""
        return run.read(self.folder)

    @cached_property
    def cells(self) -> pl.DataFrame:
        """The cells, numbered as in every table."""
        return read_cells(self.folder)

    @cached_property
    def _only(self) -> SiteRun:
        return self.site()

    @property
    def features(self) -> Features:
        """All features of the only site."""
        return self._only.features

    def feature(self, number: int) -> Feature:
        """Return one feature of the only site."""
        return self._only.feature(number)

    @property
    def dictionary(self) -> Dictionary:
        """The dictionary of the only site, loaded."""
        return self._only.dictionary

    @property
    def codes(self) -> StoredCodes:
        """The codes of the only site."""
        return self._only.codes

    def to_anndata(
        self, data: Path | str | None = None, *, site: str | None = None, pooling: Pooling = "mean"
    ) -> AnnData:
        """Return the cells with their features in .obsm["X_elute"], ready for scanpy."""
        return self.site(site).to_anndata(data, pooling=pooling)


def open_run(folder: Path | str) -> Run:
    """Open a run's folder."""
    return Run(folder)

"""A file of targets: which samples and genes it has, and its numbers, read a piece at a time.

    .h5ad                  obs names (or a column) are samples, var names genes; X, layers/NAME or raw
    .parquet .csv .tsv     a row a sample; every column of numbers is a gene, but for those that say something else

Nothing is decided here about what the numbers are: gene_counts.py looks at all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, near

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.models.cells.sheet import Sheet
    from elute.store.imports.nonzeros import Csr, Nonzeros
    from elute.tissue.settings import TargetsConfig

PIECE = 1024  # samples
_LOOK = 500  # samples that are looked at to choose among matrices
# Columns of numbers that tables of spots and tiles commonly have beside their genes.
_NO_GENES = frozenset(
    (
        *("tile_id", "group", "patient", "donor", "site", "section", "slide", "split", "fold", "label", "cluster"),
        *("x", "y", "row", "col", "pixel_x", "pixel_y", "size_px", "width", "height", "microns_per_pixel"),
        *("in_tissue", "array_row", "array_col", "pxl_row_in_fullres", "pxl_col_in_fullres", "barcode", "index"),
        *("total_counts", "n_counts", "library", "library_size", "size_factor", "n_genes", "n_genes_by_counts"),
    )
)


@dataclass(frozen=True, eq=False)
class TargetFile:
    """What a file of targets holds."""

    where: str
    names: pl.Series  # of its samples
    genes: list[str]
    matrix: Nonzeros
    matrix_name: str
    digest: str
    column: Callable[[str], pl.Series]  # one of a row a sample, besides the genes

    def pieces(self, places: np.ndarray[Any, Any]) -> Iterator[tuple[int, Csr]]:
        """Read some samples by their places, which ascend: where a piece begins among them, and its numbers."""
        matrix, rows = self.matrix.by_rows(places)
        with matrix.opened() as read:
            for start in range(0, len(rows), PIECE):
                yield start, read(rows[start : start + PIECE])


def open_targets(config: TargetsConfig) -> TargetFile:
    """Open the file of targets, and see that its samples and genes have names of their own."""
    if config.counts is None:
        raise ConfigError("no targets are given", where="targets", remedy="Give --counts FILE (.h5ad, .parquet, .csv).")
    path = Path(config.counts)
    if not path.exists():
        raise DataError("there is no such file", where=path, remedy=_others(path))
    found = _h5ad(path, config) if path.suffix.lower() in (".h5ad", ".h5") else _table(path, config)
    _check_names(found)
    return found


def _others(path: Path) -> str:
    if not path.parent.is_dir():
        return f"There is no folder {path.parent}."
    known = [p.name for p in path.parent.iterdir() if p.suffix.lower() in (".h5ad", ".parquet", ".csv", ".tsv")]
    return near(path.name, known) if known else "There is no .h5ad, .parquet, .csv or .tsv file beside it."


def _check_names(found: TargetFile) -> None:
    names = found.names
    missing = names.null_count() + int((names.str.strip_chars() == "").sum())
    if missing:
        raise DataError(f"{missing:,} samples have no id", where=found.where, remedy="Each target needs a sample id.")
    twice = names.filter(names.is_duplicated()).unique(maintain_order=True)
    if len(twice):
        shown = ", ".join(repr(name) for name in twice.head(3)) + (", …" if len(twice) > 3 else "")
        what = f"{console.count(len(twice), 'sample id')} stand in several rows ({shown})"
        raise DataError(what, where=found.where, remedy="Keep one row of each, or name another --sample-column.")
    seen: set[str] = set()
    again = [gene for gene in found.genes if gene in seen or seen.add(gene)]  # type: ignore[func-returns-value]
    if again:
        what = f"{console.count(len(again), 'gene name')} stand twice (say {again[0]!r})"
        raise DataError(what, where=found.where, remedy="Make them unique: adata.var_names_make_unique().")


def _h5ad(path: Path, config: TargetsConfig) -> TargetFile:
    import polars as pl

    from elute.models.cells.infile import open_file
    from elute.store.imports.samples import as_text

    sheet = open_file(path)
    names = sheet.names if config.sample_column is None else sheet.column(config.sample_column)
    name, matrix, genes = _matrix(sheet, config.layer)
    assert sheet.digest is not None  # noqa: S101  # of a file it is known
    where = f"{path}, {name}"
    return TargetFile(where, as_text(names.cast(pl.String)), genes, matrix, name, sheet.digest(), sheet.column)


def _matrix(sheet: Sheet, asked: str) -> tuple[str, Nonzeros, list[str]]:
    """Choose the matrix: the one that was named, or the first that looks like counts."""
    names = sheet.candidates() if asked == "auto" else [{"raw/X": "raw", "raw.X": "raw"}.get(asked, asked)]
    if not names:
        raise DataError(
            "holds no matrix (X, layers or raw)", where=sheet.where, remedy="Name one: --layer layers/NAME."
        )
    if names[0] not in sheet.matrices:
        raise ConfigError(f"has no matrix {asked!r}", where=sheet.where, remedy=near(asked, sheet.matrices))
    found = []
    for name in names:
        genes = sheet.var(name)["index"].to_list()
        matrix = sheet.matrix(name, len(genes))
        found.append((name, matrix, genes))
        if asked != "auto" or _whole(matrix):
            break
    chosen = found[-1] if asked != "auto" or _whole(found[-1][1]) else found[0]
    console.detail(f"{sheet.where}: {chosen[0]} is taken")
    return chosen


def _whole(matrix: Nonzeros) -> bool:
    """Whether the first samples of a matrix hold whole numbers from 0 on."""
    import numpy as np

    rows, places = matrix.by_rows(np.arange(min(_LOOK, matrix.shape[0])))
    with rows.opened() as read:
        data = read(places).data
    return bool(np.isfinite(data).all() and (data >= 0).all() and (data == np.rint(data)).all())


def _table(path: Path, config: TargetsConfig) -> TargetFile:
    import numpy as np
    import polars as pl

    from elute.store.imports.nonzeros import in_numpy
    from elute.store.imports.samples import as_text, read_metadata

    frame = read_metadata(path)
    key = config.sample_column or "sample_id"
    if key not in frame.columns:
        remedy = near(key, frame.columns) + " Name the column of sample ids with --sample-column."
        raise ConfigError(f"has no column {key!r}", where=path, remedy=remedy)
    kept = {key, *([config.library] if config.library not in ("total", "none") else [])}
    other = [n for n in frame.columns if n in kept or n.lower() in _NO_GENES or not _numeric(frame[n].dtype)]
    genes = [name for name in frame.columns if name not in other]
    if not genes:
        raise DataError("has no column of numbers that could be a gene", where=path, remedy="Give a column a gene.")
    if left := [name for name in other if name not in kept]:
        console.say(f"{path}: {console.count(len(left), 'column')} are no genes ({', '.join(left[:6])})")
    # A missing number must not become 0: it is met as NaN, and refused with the sample's name.
    dense = frame.select(pl.col(genes).cast(pl.Float64)).fill_null(float("nan")).to_numpy()
    matrix = in_numpy(np.ascontiguousarray(dense), str(path))

    def column(name: str) -> pl.Series:
        if name not in frame.columns:
            raise ConfigError(f"has no column {name!r}", where=path, remedy=near(name, frame.columns))
        return frame[name]

    return TargetFile(str(path), as_text(frame[key]), genes, matrix, "table", files.digest_file(path), column)


def _numeric(dtype: Any) -> bool:
    import polars as pl

    return bool(dtype.is_numeric()) or dtype == pl.Boolean

"""What an edit changed, as rows of one table: genes by their names, features by their site and number; and in words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from elute.base import console

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.changes import Reading, Told, Units
    from elute.cells.reopening import Reopened


@contextmanager
def progress(title: str, total: int, told: Told | None) -> Iterator[Told]:
    """Show how many cells were read, and tell whoever else wants to know."""
    with console.progress(title, total, unit="cells") as bar:

        def tell(done: int, of: int) -> None:
            bar.advance(done - bar.done)
            if told is not None:
                told(done, of)

        yield tell


def resolution_of(opened: Reopened) -> float:
    """What rounding can change of a mean, relative to what is predicted."""
    return {"fp32": 1e-6, "fp16": 1e-3, "bf16": 1e-2}.get(opened.model.compute.dtype, 1e-6)


def of_genes(
    opened: Reopened, reading: Reading, units: Units, *, resolution: float
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows of the genes that were read."""
    import polars as pl

    frame, told = _rows(reading, units, resolution)
    names = opened.genes.select("gene", "symbol")
    whole = pl.concat([pl.select(kind=pl.repeat("gene", len(names))), names, frame], how="horizontal")
    return whole.filter(pl.col("cells") > 0), told


def of_features(reading: Reading, units: Units, *, site: str, resolution: float) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Rows of a dictionary's features."""
    import polars as pl

    frame, told = _rows(reading, units, resolution)
    n = len(frame)
    names = pl.select(kind=pl.repeat("feature", n), site=pl.repeat(site, n), feature=pl.int_range(n, dtype=pl.Int32))
    return pl.concat([names, frame], how="horizontal"), told


def _rows(reading: Reading, units: Units, resolution: float) -> tuple[pl.DataFrame, dict[str, Any]]:
    import numpy as np

    from elute.analysis.changes import size, summary, table

    scale = size(reading.before, np.ones(len(reading.before), bool)) or 0.0
    frame = table(reading, units, resolution=resolution * scale)
    return frame, summary(frame, reading)


def section(frame: pl.DataFrame, found: dict[str, Any], name: str, *, most: int = 8) -> list[str]:
    """Say of genes or features what changed most, and the counts beside those of controls."""
    import polars as pl

    told = [f"  {found['changed']:,} of {found['tested']:,} change (q ≤ {found['fdr']:g})"]
    if found["beyond"] is not None:
        told[0] += f"; {found['beyond']:,} of them more than under any control"
        told[0] += f" ({found['beyond_expected']:.1f} expected of one that is like its controls)"
    for kind, part in found.items():
        if not kind.startswith("beside ") or part["p_size"] is None:
            continue
        middle = part["sizes"][len(part["sizes"]) // 2]
        sizes = f"size {part['size']:.3g}, {middle:.3g} in the middle of {part['controls']}, p {part['p_size']:.2g}"
        leads = f"leads {part['leads']:,}, {part['expected']:.1f} expected, p {part['p_leads']:.2g}"
        told.append(f"  {kind}: {sizes}; {leads}")
    passed = frame.filter(pl.col("q") <= found["fdr"])
    for word, down in (("up", False), ("down", True)):
        side = passed.filter(pl.col("change") < 0 if down else pl.col("change") > 0)
        best = side.sort("change", descending=not down).head(most)
        if len(best):
            shown = (f"{row[name]} {row['change']:+.3g}" for row in best.iter_rows(named=True))
            told.append(f"  {word}: {', '.join(shown)}")
    return told

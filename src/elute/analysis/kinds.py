"""What kind of thing a feature knows, by the first rule that it meets:

1. **silent**         it never fired
2. **rare**           it fired in fewer than `least_rows` rows, or in too few to tell shares from
3. **gene identity**  which gene a token is explains `by_gene` of its variance or more, at least as much as the cell
4. **depth**          which cell a token is in explains `by_cell` or more; the mean over the cell's tokens rises or
                      falls with how deeply the cell was read (|ρ| with its total or its number of genes of `depth` or
                      more); and it does so more closely than it follows its best cell type, |2 AUROC − 1| being on one
                      scale with |ρ|
5. **cell state**     the cell explains more than the gene, and `by_cell` or more
6. **gene program**   all others: several genes, in some measure wherever they are read

Gene identity comes before depth because a feature of one gene fires once a cell, so that its mean over the cell's
tokens falls with their number: |ρ| is large, and says nothing. For the same reason depth asks for a share of the cell.

Shares are those of analysis/genes.py, corrected for chance; a share that is not known is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import Field

from elute.base.errors import DataError
from elute.base.recipe import Section

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from elute.base.statistics.checks import Floats

SILENT, RARE, GENE, DEPTH, CELL, PROGRAM = "silent", "rare", "gene identity", "depth", "cell state", "gene program"
KINDS = (SILENT, RARE, GENE, DEPTH, CELL, PROGRAM)


class KindConfig(Section):
    """Where one kind of feature ends and the next begins."""

    least_rows: int = Field(20, ge=1)
    """Rows in which a feature must have fired to be more than rare."""
    by_gene: float = Field(0.5, gt=0, le=1)
    """Share of its variance between genes from which a feature knows a gene."""
    by_cell: float = Field(0.05, ge=0, le=1)
    """Share of its variance between cells below which a feature knows no state of cells."""
    depth: float = Field(0.5, gt=0, le=1)
    """Rank correlation with depth, either way, from which a feature may know that alone."""


@dataclass(frozen=True)
class Kinds:
    """A word for each feature, and how many have it."""

    words: tuple[str, ...]
    counts: dict[str, int]

    def share(self, kind: str) -> float:
        """Return the share of a kind among the features that are neither silent nor rare; 0 where there are none."""
        told = len(self.words) - self.counts[SILENT] - self.counts[RARE]
        return self.counts[kind] / told if told and kind not in (SILENT, RARE) else 0.0


def kinds(
    rows: ArrayLike,
    by_gene: ArrayLike,
    by_cell: ArrayLike,
    *,
    depth: ArrayLike | None = None,
    auroc: ArrayLike | None = None,
    config: KindConfig | None = None,
) -> Kinds:
    """Type features by the rows in which they fired and the shares of their variance.

    `depth` holds ρ with the cells' total and number of genes, [features] or [features, columns]; `auroc` is that of the
    best cell type. Either may be left out, and NaN is what is not known.
    """
    import numpy as np

    config = config or KindConfig()
    fired = _column(rows, "rows", None)
    gene, cell = _column(by_gene, "by_gene", fired), _column(by_cell, "by_cell", fired)
    rho = np.zeros(len(fired)) if depth is None else _closest(depth, fired)
    best = np.full(len(fired), 0.5) if auroc is None else np.nan_to_num(_column(auroc, "auroc", fired), nan=0.5)
    follows = np.abs(2.0 * best - 1.0)
    unknown = np.isnan(gene) | np.isnan(cell)
    gene, cell = np.nan_to_num(gene), np.nan_to_num(cell)
    rules = [
        (SILENT, fired <= 0),
        (RARE, (fired < config.least_rows) | unknown),
        (GENE, (gene >= config.by_gene) & (gene >= cell)),
        (DEPTH, (cell >= config.by_cell) & (rho >= config.depth) & (rho > follows)),
        (CELL, (cell > gene) & (cell >= config.by_cell)),
    ]
    words = np.select([met for _, met in rules], [word for word, _ in rules], default=PROGRAM).tolist()
    return Kinds(tuple(words), {kind: words.count(kind) for kind in KINDS})


def _column(values: ArrayLike, name: str, like: Floats | None) -> Floats:
    import numpy as np

    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1 or (like is not None and len(found) != len(like)):
        wanted = "one number a feature" if like is None else f"{len(like)} numbers"
        raise DataError(f"has shape {found.shape}", where=f"kinds({name})", remedy=f"Give {wanted}.")
    return found


def _closest(depth: ArrayLike, like: Floats) -> Floats:
    """Return the largest |ρ| of each feature, 0 where none is known."""
    import numpy as np

    found = np.abs(np.asarray(depth, dtype=np.float64))
    found = found[:, None] if found.ndim == 1 else found
    if found.ndim != 2 or len(found) != len(like):
        raise DataError(f"has shape {found.shape}", where="kinds(depth)", remedy=f"Give {len(like)} rows.")
    largest: Floats = np.nan_to_num(found).max(axis=1, initial=0.0)
    return largest

"""Counts of genes that follow from what is in a painted tile, so that it is known what each can be predicted from.

1. A tile's library is drawn log-normally around a size that follows how many cells its structures have.
2. A planted gene's expected count, per 10,000 of the library, is a base that grows linearly with the share of its
   structure. That of a gene that differs between patients depends on the patient alone, and that of all others on
   nothing. All genes vary a little from patient to patient.
3. Counts are negative binomial: Poisson with a gamma rate, variance mean + dispersion · mean².

The names are those of real genes so that tables read as they do with real data; nothing here is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elute.tissue.painting_layout import STRUCTURES

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.tissue.painting_settings import PaintConfig

PLANTED = {
    "EPCAM": "epithelium", "KRT8": "epithelium", "COL1A1": "stroma", "DCN": "stroma", "CD3E": "lymphocytes",
    "MS4A1": "lymphocytes", "ADIPOQ": "adipose", "PLIN1": "adipose", "VEGFA": "necrosis", "CA9": "necrosis",
}  # fmt: skip
BY_PATIENT = ("XIST", "RPS4Y1", "GSTM1", "ERAP2")
STEADY = (
    "ACTB", "GAPDH", "B2M", "RPLP0", "PPIA", "UBC", "TBP", "HPRT1", "GUSB", "YWHAZ", "SDHA", "PGK1", "RPL13A",
    "EEF1A1", "TFRC", "HMBS",
)  # fmt: skip
GENES = (*PLANTED, *BY_PATIENT, *STEADY)
_CELLS = np.array([1.0, 0.6, 1.3, 0.35, 0.5])  # cells of a structure, against epithelium
_PER = 1e4


@dataclass(frozen=True, eq=False)
class Drawn:
    """Counts of a painted cohort."""

    counts: NDArray[np.int64]  # [tiles, genes]
    library: NDArray[np.int64]  # [tiles]


def draw_counts(shares: NDArray[np.float64], patient: NDArray[np.int64], config: PaintConfig) -> Drawn:
    """Draw counts for tiles by the shares [tiles, structures] of what is in them, and whose they are."""
    rng = np.random.default_rng([config.seed, 0xC0])
    n, patients = len(shares), config.patients
    base = rng.uniform(3.0, 6.0, len(GENES))
    rates = np.repeat(base[None], n, 0)
    for g, name in enumerate(GENES):
        if name in PLANTED:
            rates[:, g] *= 1 + config.effect * shares[:, STRUCTURES.index(PLANTED[name])]
        elif name in BY_PATIENT:
            rates[:, g] *= np.where(rng.permutation(patients) % 2, 4.0, 0.25)[patient]
    rates *= np.exp(rng.normal(0, config.patient_spread, (patients, len(GENES))))[patient]
    cells = 0.1 + shares @ _CELLS
    library = np.maximum(500, np.round(config.library * cells * np.exp(rng.normal(0, 0.3, n)))).astype(np.int64)
    mean = rates * library[:, None] / _PER
    shape = 1 / config.dispersion
    return Drawn(rng.poisson(mean * rng.gamma(shape, 1 / shape, mean.shape)), library)


def gene_table(effect: float) -> pl.DataFrame:
    """Say of each gene what it was planted to: gene, kind (planted, patient, steady), structure, effect."""
    import polars as pl

    kinds = ["planted" if g in PLANTED else "patient" if g in BY_PATIENT else "steady" for g in GENES]
    held = {
        "gene": list(GENES), "kind": kinds, "structure": [PLANTED.get(g) for g in GENES],
        "effect": [effect if g in PLANTED else 0.0 for g in GENES],
    }  # fmt: skip
    schema = {"gene": pl.String, "kind": pl.String, "structure": pl.String, "effect": pl.Float64}
    return pl.DataFrame(held, schema=schema)

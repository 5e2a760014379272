"""A run of blood cells that never was: tables as `elute cells extract` writes them, for the tests of what reads them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl

MARKERS = {
    "B cell": ["CD79A", "MS4A1", "CD79B", "CD19", "BANK1", "TCL1A", "FCER2", "VPREB3", "HLA-DQA1", "IGHM"],
    "CD14+ monocyte": ["LST1", "AIF1", "TYROBP", "FCER1G", "LYZ", "S100A9", "S100A8", "CST3", "CTSS", "CD14"],
    "CD4 T cell": ["CD3D", "CD3E", "IL7R", "LTB", "CD2", "TRAC", "LDHB", "MAL", "CCR7", "LEF1"],
    "NK cell": ["NKG7", "GNLY", "GZMB", "PRF1", "KLRD1", "CTSW", "CST7", "FGFBP2", "SPON2", "KLRF1"],
}
COMMON = ["FTL", "CD74", "RPS24", "RPL13", "MALAT1", "TMSB4X", "B2M", "EEF1A1", "RPLP1", "ACTB", "FTH1", "RPS6"]
KINDS = ["gene identity", "gene program", "cell state", "depth / quality"]
HOSTILE = "<img src=x onerror=document.title='owned'>"


def make_run(
    folder: Path,
    *,
    features: int = 160,
    donors: bool = True,
    held_out: bool = True,
    names: dict[str, str] | None = None,
) -> Path:
    """Write a run of one site; `names` replaces names of genes, types and cells, to see what becomes of them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(7)
    cells = _cells(rng, names or {}, donors=donors)
    cells.write_parquet(folder / "cells.parquet")
    made = [_feature(rng, f, features, names or {}) for f in range(features)]
    _write(folder, "features", [one["row"] for one in made])
    for table in ("genes", "groups", "numbers"):
        _write(folder, f"feature_{table}", [row for one in made for row in one[table]])
    rows = [
        {"feature": f, "rank": r, "cell": cells["cell"][c], "row": c, "max": 9.1 - 0.3 * r, "mean": 2.1 - 0.05 * r,
         "sum": 810.0 - 31 * r, "label": cells["label"][c], "donor": cells["donor"][c], "split": cells["split"][c]}
        for f in range(features) for r, c in enumerate(rng.choice(len(cells), 10, replace=False).tolist(), 1)
    ]  # fmt: skip
    _write(folder, "feature_cells", rows)
    for table in ("features", "feature_genes", "feature_groups", "feature_numbers"):
        frame = pl.read_parquet(folder / f"{table}.parquet")
        lost = [c for c in frame.columns if c.endswith("_shown") and not held_out]
        lost += [c for c in frame.columns if c in ("effect", "effect_low", "effect_high", "q_donors") and not donors]
        frame = frame.with_columns(pl.lit(None, frame.schema[c]).alias(c) for c in lost)
        if not donors and "donors" in frame.columns:
            frame = frame.with_columns(pl.lit(None, pl.Int32).alias("donors"))
        frame.write_parquet(folder / f"{table}.parquet")
    (folder / "validation").mkdir(exist_ok=True)
    follow = {
        "features": {"columns": features, "follow": 41}, "permuted labels": {"columns": features, "follow": 0.5},
        "genes": {"columns": 900, "follow": 63}, "random weights": {"columns": features, "follow": 12, "cells": 80},
        "embedding layer": {"not run": "the model has no such site"},
    }  # fmt: skip
    kinds = {
        "features": {"gene identity": 30, "silent": 5, "cell state": 30},
        "random weights": {"gene identity": 9, "rare": 3},
    }
    (folder / "validation" / "summary.json").write_text(json.dumps({"at": 0.8, "follow": follow, "kinds": kinds}))
    told = {"explained_variance": 0.8123, "control": {"explained_variance_pca": 0.6331}, "split": "test"}
    (folder / "evaluation.json").write_text(json.dumps(told))
    return folder


def _write(folder: Path, name: str, rows: list[dict[str, object]]) -> None:
    pl.DataFrame(rows, infer_schema_length=None).with_columns(pl.col("feature").cast(pl.Int32)).write_parquet(
        folder / f"{name}.parquet"
    )


def _cells(rng: np.random.Generator, names: dict[str, str], *, donors: bool) -> pl.DataFrame:
    n = 400
    types = [list(MARKERS)[i] for i in rng.integers(0, 4, n)]
    donor = [f"donor {i % 8 + 1}" if donors else None for i in range(n)]
    return pl.DataFrame(
        {
            "cell": [names.get("cell", "") + "".join(rng.choice(list("ACGT"), 14)) + f"-{i}" for i in range(n)],
            "row": np.arange(n, dtype=np.int64),
            "split": ["test" if i % 8 >= 5 else "train" for i in range(n)],
            "label": [names.get(t, t) for t in types],
            "donor": pl.Series(donor, dtype=pl.String),
            "rows": rng.integers(300, 900, n),
            "total": rng.uniform(1e3, 9e3, n),
        }
    )


def _feature(rng: np.random.Generator, f: int, of: int, names: dict[str, str]) -> dict[str, object]:
    kind = KINDS[f % 4]
    best = list(MARKERS)[(f // 4) % 4]
    own = MARKERS[best] if kind in ("gene program", "cell state") else COMMON
    genes = list(dict.fromkeys([*rng.permutation(own).tolist(), *COMMON]))[:18]
    frequency = float(0.21 * np.exp(-3.2 * f / of) * rng.uniform(0.7, 1.3)) if f < of - 5 else 0.0
    alive = frequency > 0
    # Not in the order of their frequency: a page has to sort them.
    genes = [names.get(gene, gene) for gene in genes]
    raw = [names.get(gene, gene) for gene in rng.permutation(COMMON).tolist()]
    shares = rng.dirichlet([8, 2, 4] if kind == "gene identity" else [2, 7, 4])
    auroc = {t: 0.5 + (0.43 if t == best else 0.0) * rng.uniform(0.6, 1) + rng.normal(0, 0.03) for t in MARKERS}
    histogram = np.zeros(42, np.int64)
    histogram[12:30] = rng.poisson(3000 * np.exp(-(((np.arange(18) - 8.5) / 4) ** 2)))
    z = np.sort(rng.uniform(2, 38, len(genes)))[::-1]
    top = max(auroc, key=lambda name: auroc[name])
    row = {
        "feature": f, "alive": alive, "rows": int(frequency * 240_000), "frequency": frequency,
        "cells": int(400 * min(1, 5 * frequency)), "cell_frequency": min(1.0, 5 * frequency), "mean": 1.42, "max": 9.13,
        "histogram": histogram.tolist(), "by_gene": shares[0], "by_cell": shares[1], "neither": shares[2],
        "kind": kind if alive else None, "top_genes": genes[:10] if alive else [], "top_genes_z": z[:10].tolist(),
        "top_genes_raw": raw[:10] if alive else [], "cell_type": names.get(top, top) if alive else None,
        "auroc": auroc[top], "auroc_shown": auroc[top] - 0.03, "fold": 4.2, "fold_shown": 3.6, "q": 1.3e-41,
        "q_shown": 2.2e-19, "cell_type_donors": 8, "q_donors": 0.004, "module": f % 6, "near": [(f + 1) % of, (f + 2) % of],
        "near_cosine": [0.81, 0.42], "together": [(f + 7) % of, (f + 150) % of], "together_score": [0.63, 0.2],
    }  # fmt: skip
    listed = [
        {"feature": f, "gene": f"ENSG{abs(hash_of(g)):011d}", "symbol": g, "rank": r, "rank_raw": None, "score": 900 - 10.5 * r,
         "mean": 2.2, "rate": 0.41, "expression": 1.9, "z": z[r - 1], "z_shown": z[r - 1] * 0.8 - 2, "token_z": 12.0}
        for r, g in enumerate(genes, 1)
    ]  # fmt: skip
    known = {entry["symbol"]: entry for entry in listed}
    for r, g in enumerate(raw, 1):
        if g not in known:
            listed.append(
                {**listed[0], "symbol": g, "gene": f"ENSG{hash_of(g):011d}", "rank": None, "z": 1.2, "z_shown": 0.4}
            )
            known[g] = listed[-1]
        known[g]["rank_raw"], known[g]["score"] = r, 90_000 / r
    groups = [
        {"feature": f, "column": "cell_type", "level": names.get(t, t), "inside": 100, "auroc": a, "fold": 1 + 8 * max(0, a - 0.5),
         "p": 1e-9, "q": 1e-8 if a > 0.6 else 0.31, "top_in": 12, "p_fisher": 1e-4, "q_fisher": 1e-3, "auroc_shown": a - 0.03,
         "fold_shown": 1 + 7 * max(0, a - 0.5), "p_shown": 1e-6, "q_shown": 1e-5 if a > 0.6 else 0.44, "donors": 8,
         "effect": a - 0.5, "effect_low": a - 0.6, "effect_high": a - 0.4, "p_donors": 0.004, "q_donors": 0.012}
        for t, a in auroc.items()
    ]  # fmt: skip
    numbers = [
        {"feature": f, "column": "total counts", "rho": 0.31, "p": 1e-7, "q": 1e-6, "rho_shown": 0.27},
        {"feature": f, "column": "percent mitochondrial", "rho": -0.12, "p": 0.02, "q": 0.1, "rho_shown": -0.09},
    ]
    return {"row": row, "genes": listed, "groups": groups, "numbers": numbers}


def hash_of(text: str) -> int:
    """A number that is the same in every process."""
    return sum(ord(c) * 31**i for i, c in enumerate(text[:8])) % 10**9

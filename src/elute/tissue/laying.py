"""What heads leave on disk (docs/formats/tissue.md).

heads.pt                                     the final head, one a fold, the gates of an attention
metrics.parquet, baselines.parquet           scores a gene, of the head and of each control
coefficients.parquet                         each gene's strongest codes of either sign
predictions.parquet                          sample_id, fold, gene, measured, predicted; of many, rows alone, and
predictions.safetensors                      measured and predicted [samples, genes]
attention.safetensors, attention.parquet     weights [tokens, heads], and which token each row is
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.errors import DataError

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from elute.heads.crossval import Nested
    from elute.tissue.fit_setting import Setting
    from elute.tissue.plan import Plan
    from elute.tissue.pooled_codes import Features
    from elute.tissue.preparing import Targets

LONG = 5_000_000  # numbers from which on predictions are matrices
_TOP = 100  # codes of either sign that are listed a gene


def lay_down(
    plan: Plan, own: Nested, *, pooled: Features, targets: Targets, setting: Setting,
    tables: tuple[pl.DataFrame, list[pl.DataFrame]],
) -> list[Path]:  # fmt: skip
    """Write all that heads leave, and return the files."""
    import polars as pl

    from elute.heads.crossval import coefficient_table
    from elute.heads.files import NAME, save_heads

    folder = files.make_folder(plan.output / "heads")
    for old in ("predictions.safetensors", "attention.safetensors", "attention.parquet"):
        (folder / old).unlink(missing_ok=True)  # of an earlier run, which another one may not write
    gates = None if pooled.attention is None else pooled.attention.whole()[0]
    meta = {"pool": plan.heads.pool, "scale": targets.scale, "targets": targets.digest, "folds": setting.config.folds}
    save_heads(folder / NAME, own.final, genes=targets.names, folds=own.heads, meta=meta, attention=gates)
    scored, others = tables
    held = {
        "metrics.parquet": scored,
        "baselines.parquet": pl.concat(others) if others else scored.clear(),
        "coefficients.parquet": coefficient_table(own, targets.names, top=_TOP),
    }
    written = [folder / NAME, *_predictions(folder, own, targets, setting)]
    for name, table in held.items():
        files.write_atomically(folder / name, table.write_parquet)
        written.append(folder / name)
    if pooled.attention is not None:
        written += _attention(folder, pooled)
    return written


def _predictions(folder: Path, own: Nested, targets: Targets, setting: Setting) -> list[Path]:
    import numpy as np
    import polars as pl

    from elute.base.tensors import write_safetensors

    found, genes = own.predictions, targets.names
    n = len(setting.samples)
    rows = setting.samples.select("sample_id", "fold")
    path = folder / "predictions.parquet"
    if n * len(genes) > LONG:
        held = {"measured": found.measured.astype(np.float32), "predicted": found.predicted.astype(np.float32)}
        matrices = folder / "predictions.safetensors"
        write_safetensors(matrices, held, dtype="F32", metadata={"genes": json.dumps(genes)})
        files.write_atomically(path, rows.write_parquet)
        return [path, matrices]
    long = pl.DataFrame(
        {
            "sample_id": np.repeat(rows["sample_id"].to_numpy(), len(genes)),
            "fold": np.repeat(rows["fold"].to_numpy(), len(genes)),
            "gene": genes * n,
            "measured": found.measured.reshape(-1),
            "predicted": found.predicted.reshape(-1),
        }
    )
    files.write_atomically(path, long.write_parquet)
    return [path]


def _attention(folder: Path, pooled: Features) -> list[Path]:
    from elute.base.tensors import write_safetensors
    from elute.heads.attention import attention_weights

    held = pooled.attention
    if held is None:
        raise DataError("these heads have no attention")
    weights = attention_weights(held.whole()[0], held.tokens)
    paths = [folder / "attention.safetensors", folder / "attention.parquet"]
    write_safetensors(paths[0], {"weights": weights}, dtype="F32", metadata={})
    files.write_atomically(paths[1], held.rows.write_parquet)
    return paths


def attention_rows(folder: Path) -> tuple[Any, pl.DataFrame]:
    """Read the weight of each token, the mean over heads, and which token it is of."""
    import polars as pl
    from safetensors.numpy import load_file

    weights = load_file(folder / "attention.safetensors")["weights"]
    rows = pl.read_parquet(folder / "attention.parquet", glob=False)
    return weights.mean(axis=1, dtype="float64"), rows

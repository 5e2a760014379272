"""Targets ready to be fitted: aligned with the tiles, their genes chosen, and laid down with what was left out.

    targets/counts.safetensors    counts (or values) [samples, genes], library [samples]
    targets/samples.parquet       sample_id, group, section, x, y, split
    targets/genes.parquet         gene, reason, mean, variance, detected
    targets/missing.parquet       sample_id, side: which of the two lacks it, or `counts`: nothing was counted there

Genes are chosen by the samples of training patients alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import DataError
from elute.tissue import stages
from elute.tissue.aligning import align, leave_out
from elute.tissue.choosing_genes import choose_genes
from elute.tissue.gene_counts import numbers, scale_of, survey
from elute.tissue.splitting import split_digest
from elute.tissue.targets import open_targets

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.tissue.aligning import Aligned
    from elute.tissue.plan import Plan

    Array = np.ndarray[Any, Any]

_NAMES = ("counts.safetensors", "samples.parquet", "genes.parquet", "missing.parquet")
_PLACE = ("section", "x", "y")
SIDES = ("targets", "tiles", "counts")  # what a sample may lack


@dataclass(frozen=True, eq=False)
class Targets:
    """What is predicted."""

    samples: pl.DataFrame
    genes: pl.DataFrame
    values: Array  # [samples, genes], as the file has them
    library: Array  # [samples]
    scale: str  # counts, log1p or values: what heads are fitted on
    summary: dict[str, Any]

    @property
    def names(self) -> list[str]:
        """The genes."""
        return self.genes["gene"].to_list()

    @property
    def digest(self) -> str:
        """Names the targets."""
        return str(self.summary["digest"])


def prepare_targets(plan: Plan, samples: pl.DataFrame, *, rows: str, score: Any) -> Targets:
    """Align the targets with the samples of the embeddings, and choose genes; done once for the same of both.

    `rows` names the embeddings; `score(samples, values)` says of each column how well they predict it among training
    patients.
    """
    import numpy as np

    file = open_targets(plan.targets)
    sections = {"targets": plan.targets}
    inputs = {"targets": file.digest, "split": split_digest(samples), "loss": plan.heads.loss, "rows": rows}
    known = stages.done(plan.output, "align_targets", sections, inputs=inputs)
    if known is not None:
        return _read(plan.output / "targets", known)
    both = align(with_places(plan.output, samples), file.names, where=file.where)
    found = survey(
        file, both.places, training=_training(both), library=plan.targets.library, loss=plan.heads.loss,
        accept=plan.targets.transform == "none",
    )  # fmt: skip
    both, library = leave_out(both, found.empty, where=file.where), found.library[~found.empty]
    training = _training(both)
    if training.sum() < 2:
        what = f"{int(training.sum())} samples with targets are of training patients"
        raise DataError(what, where=file.where, remedy="Give targets of more samples, or another split.")
    scale = scale_of(found, loss=plan.heads.loss, transform=plan.targets.transform, where=file.where)
    seen = both.samples.filter(training)

    def marks(columns: Array) -> Array:
        values = numbers(file, both.places[training], columns)
        return np.asarray(score(seen, on_scale(values, library[training], scale)))

    columns, reasons = choose_genes(file, found, plan.targets, score=marks)
    values = numbers(file, both.places, columns)
    chosen = {"gene": [file.genes[i] for i in columns], "reason": reasons, "mean": found.mean[columns],
              "variance": found.variance[columns], "detected": found.detected[columns]}  # fmt: skip
    sides = dict(both.missing["side"].value_counts().iter_rows())
    summary = {
        "samples": len(both.samples), "genes": len(columns), "scale": scale, "counts": found.counts,
        "matrix": file.matrix_name, **{f"without_{side}": sides.get(side, 0) for side in SIDES},
        "digest": files.digest_json({**inputs, **plan.targets.model_dump(mode="json")})[:16],
    }  # fmt: skip
    written = _write(plan.output / "targets", both.samples, chosen, both.missing, (values, library))
    stages.record(plan.output, "align_targets", sections, inputs=inputs, summary=summary, written=written)
    console.say(f"{file.where}: {summary['samples']:,} samples, {summary['genes']:,} genes ({WORDS[scale]})")
    return _read(plan.output / "targets", summary)


def _training(both: Aligned) -> Array:
    return (both.samples["split"] == "train").to_numpy()


WORDS = {"counts": "counts", "log1p": "log1p of counts per million", "values": "values as they are"}


def on_scale(values: Array, library: Array, scale: str) -> Array:
    """Bring values to the scale on which squared errors and maps are told: counts to log1p of counts per million."""
    import numpy as np

    if scale == "values":
        return np.asarray(values, np.float64)
    return np.log1p(np.asarray(values, np.float64) * (1e6 / np.asarray(library, np.float64))[:, None])


def with_places(folder: Path, samples: pl.DataFrame) -> pl.DataFrame:
    """Add each sample's section and place, the mean over its tiles; nothing where no table of tiles tells them."""
    import polars as pl

    empty = {"section": pl.String, "x": pl.Float64, "y": pl.Float64}
    path = folder / "tiles.parquet"
    if path.exists():
        tiles = pl.read_parquet(path, glob=False)
        lacking = [pl.lit(None, empty[name]).alias(name) for name in _PLACE if name not in tiles.columns]
        tiles = tiles.with_columns(lacking).select("sample_id", *(pl.col(n).cast(empty[n]) for n in _PLACE))
        by = tiles.group_by("sample_id").agg(
            pl.col("section").drop_nulls().first(), pl.col("x").mean(), pl.col("y").mean()
        )
        found = samples.join(by, on="sample_id", how="left", maintain_order="left")
    else:
        found = samples.with_columns(pl.lit(None, kind).alias(name) for name, kind in empty.items())
    return found.select("sample_id", "group", "section", "x", "y", "split")


def _write(
    folder: Path, samples: pl.DataFrame, genes: dict[str, Any], missing: pl.DataFrame, held: tuple[Array, Array]
) -> list[Path]:
    import numpy as np
    import polars as pl

    from elute.base.tensors import write_safetensors

    files.make_folder(folder)
    values, library = (np.ascontiguousarray(x, np.float32) for x in held)
    write_safetensors(folder / _NAMES[0], {"counts": values, "library": library}, dtype="F32", metadata={})
    tables = (samples, pl.DataFrame(genes, schema_overrides={"gene": pl.String, "reason": pl.String}), missing)
    for name, table in zip(_NAMES[1:], tables, strict=True):
        files.write_atomically(folder / name, table.write_parquet)
    return [folder / name for name in _NAMES]


def _read(folder: Path, summary: dict[str, Any]) -> Targets:
    import polars as pl
    from safetensors.numpy import load_file

    held = load_file(folder / _NAMES[0])
    samples, genes = (pl.read_parquet(folder / name, glob=False) for name in _NAMES[1:3])
    return Targets(samples, genes, held["counts"], held["library"].astype("float64"), summary["scale"], summary)


def read_targets(plan: Plan) -> Targets:
    """Read the targets that were prepared in this run."""
    known = stages.told(plan.output, "align_targets", needs="train_heads, with the same --config")
    return _read(plan.output / "targets", known["summary"])

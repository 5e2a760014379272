"""What a tissue run found, read for its report: scores, coefficients, relevance, references, predictions, tiles.

Only tables are read, each checked for the columns that it needs (docs/formats/tissue.md). What a run does not have,
since a stage was not asked for, is an empty table, and the pages say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import polars as pl

from elute.base import files, run
from elute.base.errors import DamagedError, DataError
from elute.reports.tissue.predictions import Predictions, open_predictions
from elute.reports.tissue.token_maps import TokenMaps

SPARSE = "sparse"
BASELINES = ("dense_pca_ridge", "random_encoder", "neighbours", "shuffled", "mean")
_SCORES = (
    *("r2", "r2_low", "r2_high", "spearman", "pearson", "deviance_explained", "calibration_slope"),
    *("calibration_intercept", "r2_within", "pearson_within", "variance_rank", "n"),
)
_TEXT, _WHOLE, _REAL = pl.String(), pl.Int64(), pl.Float64()
_TILES: dict[str, pl.DataType] = {
    **dict.fromkeys(("sample_id", "tile_id", "group", "section", "label"), _TEXT),
    **dict.fromkeys(("x", "y", "size_px", "microns_per_pixel"), _REAL),
}
_SCORED: dict[str, pl.DataType] = {
    "gene": _TEXT, "model": _TEXT, **dict.fromkeys(_SCORES, _REAL), "interval": _TEXT,
}  # fmt: skip
_COEFFICIENTS: dict[str, pl.DataType] = {
    "gene": _TEXT,
    "code": _WHOLE,
    **dict.fromkeys(("coefficient", "low", "high", "stability"), _REAL),
    "rank": _WHOLE,
}
_RELEVANCE: dict[str, pl.DataType] = {
    "gene": _TEXT,
    "code": _WHOLE,
    **dict.fromkeys(("relevance", "positive", "negative", "share", "samples", "mean_activation"), _REAL),
    **dict.fromkeys(("mean_absolute", "control_mean_absolute"), _REAL),
}
_OF_SAMPLES: dict[str, pl.DataType] = {"gene": _TEXT, "sample_id": _TEXT, "code": _WHOLE, "relevance": _REAL}
_REFS: dict[str, pl.DataType] = {
    "gene": _TEXT,
    "code": _WHOLE,
    "kind": _TEXT,
    "target": _TEXT,
    "sign": _TEXT,
    "rank": _WHOLE,
    "sample_id": _TEXT,
    "tile_id": _TEXT,
    "row": _WHOLE,
    "col": _WHOLE,
    "relevance": _REAL,
    "activation": _REAL,
}
_REMOVAL: dict[str, pl.DataType] = {
    "gene": _TEXT, "unit": _TEXT, "order": _TEXT, "removed": _REAL, "output": _REAL,
}  # fmt: skip
_CONSERVED: dict[str, pl.DataType] = {
    "gene": _TEXT,
    **dict.fromkeys(("worst_relative", "bias_share", "epsilon_share", "n"), _REAL),
}
_KEYS = ("gene", "code", "sample_id", "tile_id", "kind", "rank", "model")  # without which a row says nothing
_SHOWN = 40  # coefficients of either sign that are kept of a gene


@dataclass(frozen=True, eq=False)
class Findings:
    """All that pages are made from."""

    folder: Path
    run: str
    tiles: pl.DataFrame  # a row a tile
    samples: pl.DataFrame  # a row a sample: group, section, x, y, size_px, microns_per_pixel, label, tiles
    scores: pl.DataFrame  # a row a gene and model, the sparse head among them
    coefficients: pl.DataFrame
    relevance: pl.DataFrame
    sample_relevance: pl.DataFrame
    refs: pl.DataFrame
    conservation: pl.DataFrame
    removal: pl.DataFrame  # curves of what the head gives while codes or patches are removed
    usage: pl.DataFrame  # code, and whatever the run told of it
    predictions: Predictions
    maps: TokenMaps
    index: dict[str, Any] = field(default_factory=dict)  # what the stage of relevance says of itself
    encoder: dict[str, Any] = field(default_factory=dict)  # how the encoder saw the tiles
    stages: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def genes(self) -> list[str]:
        """Every gene with a page: the best predicted first, those without a score last."""
        scored = self.scores.filter(pl.col("model") == SPARSE).sort(
            pl.col("r2").fill_nan(None), "gene", descending=[True, False], nulls_last=True
        )
        rest = self.relevance["gene"].unique().sort()
        return list(dict.fromkeys([*scored["gene"].to_list(), *rest.to_list()]))

    @cached_property
    def codes(self) -> list[int]:
        """Every code with a page: those of which there are references."""
        return self.refs["code"].unique().sort().to_list()

    @cached_property
    def unit(self) -> str:
        """The scale of what was measured and predicted."""
        scale = self.told("train_heads").get("scale")
        return "values as they are" if scale == "values" else "log1p of counts per million"

    @cached_property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of patches in a tile, as the encoder cut it."""
        grid = self.encoder.get("grid")
        whole = isinstance(grid, list) and len(grid) == 2 and all(isinstance(n, int) and n > 0 for n in grid)
        return (grid[0], grid[1]) if isinstance(grid, list) and whole else None

    @cached_property
    def seen(self) -> tuple[float, float, float, float]:
        """The part of a tile that the encoder saw: left, top, right and bottom in shares of its side."""
        part = self.encoder.get("seen")
        if isinstance(part, list) and len(part) == 4 and all(isinstance(x, int | float) and 0 <= x <= 1 for x in part):
            left, top, right, bottom = (float(x) for x in part)
            if left < right and top < bottom:
                return left, top, right, bottom
        return 0.0, 0.0, 1.0, 1.0

    def told(self, stage: str) -> dict[str, Any]:
        """What a stage said that it found."""
        summary = self.stages.get(stage, {}).get("summary")
        return summary if isinstance(summary, dict) else {}

    def is_linear(self, gene: str) -> bool:
        """Whether a gene's head is linear in the codes, as far as is recorded: attention pooling is not."""
        genes = self.index.get("genes")
        told = genes.get(gene) if isinstance(genes, dict) else None
        if isinstance(told, dict) and isinstance(told.get("linear"), bool):
            return bool(told["linear"])
        return next((pool in ("mean", "max") for pool in _pools(self.stages)), False)


def _pools(value: Any) -> Iterator[Any]:
    """Every setting called `pool` in the records of stages."""
    for key, inner in value.items() if isinstance(value, dict) else ():
        if key == "pool":
            yield inner
        yield from _pools(inner)


def read_findings(folder: Path) -> Findings:
    """Read the tables of a run."""
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder, remedy="Give the folder of a run of elute tissue.")
    metrics = _table(folder, "heads/metrics.parquet", _SCORED, needed="elute tissue train_heads")
    baselines = _table(folder, "heads/baselines.parquet", _SCORED)
    tiles = _table(folder, "tiles.parquet", _TILES, needed="elute tissue embed_export")
    named = folder / "relevance"
    mine = [path for path in _parts(named) if not path.name.endswith(".samples.parquet")]
    return Findings(
        folder=folder,
        run=folder.resolve().name,
        tiles=tiles,
        samples=_samples(tiles),
        scores=pl.concat([metrics, baselines]).unique(["gene", "model"], keep="first", maintain_order=True),
        coefficients=_coefficients(folder),
        relevance=_all(
            folder,
            (path for path in mine if path.name != "conservation.parquet"),
            _RELEVANCE,
            keep=pl.col("share") > 0,
        ),
        sample_relevance=_all(folder, _parts(named, ".samples.parquet"), _OF_SAMPLES),
        refs=_all(folder, _parts(folder / "refs"), _REFS),
        conservation=_table(folder, "relevance/conservation.parquet", _CONSERVED),
        removal=_all(folder, _parts(folder / "faithfulness"), _REMOVAL).drop_nulls(),
        usage=_usage(folder),
        predictions=open_predictions(folder),
        maps=TokenMaps.open(folder),
        index=_record(folder / "relevance" / "index.json", "an index of relevance"),
        encoder=_record(folder / "encoder.json", "an encoder’s record"),
        stages=run.read(folder)["stages"],
    )


def _parts(folder: Path, ending: str = ".parquet") -> list[Path]:
    return sorted(path for path in folder.glob(f"*{ending}") if not path.name.startswith("."))


def _all(
    folder: Path, paths: Iterable[Path], columns: dict[str, pl.DataType], *, keep: pl.Expr | None = None
) -> pl.DataFrame:
    """The tables of all genes as one, or the rows of them that are kept."""
    found = [_table(folder, path.relative_to(folder).as_posix(), columns) for path in paths]
    if keep is not None:
        found = [table.filter(keep) for table in found]
    return pl.concat(found) if found else pl.DataFrame(schema=columns)


def _table(folder: Path, name: str, columns: dict[str, pl.DataType], *, needed: str = "") -> pl.DataFrame:
    """Read these columns of a table; what is no key may lack and is null."""
    path = folder / name
    if not path.is_file():
        if needed:
            raise DataError(f"holds no {name}", where=folder, remedy=f"Type: {needed}, with the run's --config.")
        return pl.DataFrame(schema=columns)
    try:
        lazy = pl.scan_parquet(path, glob=False)
        known = lazy.collect_schema()
        if lost := [key for key in columns if key in _KEYS and key not in known]:
            raise DamagedError(f"has no column {lost[0]!r}", where=path, remedy="Run the stage that wrote it again.")
        chosen = [
            (pl.col(key) if key in known else pl.lit(None)).cast(kind, strict=False).alias(key)
            for key, kind in columns.items()
        ]
        return lazy.select(chosen).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(
            f"cannot be read: {first}", where=path, remedy="Run the stage that wrote it again."
        ) from None


def _coefficients(folder: Path) -> pl.DataFrame:
    """The strongest coefficients of either sign: a ridge head has one for every code."""
    table = _table(folder, "heads/coefficients.parquet", _COEFFICIENTS).filter(pl.col("coefficient") != 0)
    sign = pl.col("coefficient").sign()
    place = pl.col("rank").rank("ordinal").over("gene", sign)
    return table.filter(place <= _SHOWN).sort("gene", "rank", maintain_order=True)


def _samples(tiles: pl.DataFrame) -> pl.DataFrame:
    """One row a sample: the middle of its tiles, and what they have in common."""
    rest = ("group", "section", "size_px", "microns_per_pixel", "label")
    return tiles.group_by("sample_id", maintain_order=True).agg(
        *(pl.col(name).drop_nulls().first() for name in rest), pl.col("x").mean(), pl.col("y").mean(), tiles=pl.len()
    )


def _usage(folder: Path) -> pl.DataFrame:
    """How often each code fires, if that was written."""
    path = folder / "sae_usage.parquet"
    if not path.is_file():
        return pl.DataFrame(schema={"code": _WHOLE, "frequency": _REAL})
    try:
        frame = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"cannot be read: {first}", where=path, remedy="Type: elute tissue train_sae.") from None
    key = next((name for name in ("code", "feature") if name in frame.columns), None)
    if key is None:
        raise DamagedError("has no column 'code'", where=path, remedy="Type: elute tissue train_sae.")
    return frame.rename({key: "code"}).with_columns(pl.col("code").cast(_WHOLE))


def _record(path: Path, what: str) -> dict[str, Any]:
    """A small record, if it was written."""
    told = files.read_json(path, what=what) if path.is_file() else {}
    return told if isinstance(told, dict) else {}

"""Rows that are sums of known features, so that what a dictionary finds can be held against what was planted.

A row is x = Σ c_i d_i + noise: unit directions d_i drawn at random, coefficients c_i ~ Gamma(shape 4, scale ¼) of the
features that fire (mean 1, seldom near 0), and Gaussian noise. Which features fire together: see cofiring.py.

Rows come in chunks, each with a random stream of its own: any range of rows is the same however it is asked for.
`write_store` writes them as a store, and the truth into the same folder (docs/guide/metrics.md):

    truth.npy                  float32 [n_features, width]: the directions
    truth_counts.npy           int64 [n_features]: in how many of the rows each fired
    truth_codes.safetensors    indices int32, values float32 [truth_rows, slots]: codes of the first rows
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from elute.arrays.cofiring import CHUNK, Kind, design
from elute.base import console, files, run
from elute.base.codes import Codes
from elute.base.errors import DamagedError, DataError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.base.tensors import load_npy, safetensors_header, write_safetensors
from elute.store import layout, settle
from elute.store.writer import StoreWriter

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]
    Integers = NDArray[np.int64]

SITE = "planted"
TRUTH, COUNTS, CODES = "truth.npy", "truth_counts.npy", "truth_codes.safetensors"
_GROUP = 256  # rows of a group: they are independent, so any will do to split by


class PlantedConfig(Section):
    """What is planted, and how much of it is drawn."""

    kind: Kind = "independent"
    """Which features fire together."""
    n_features: int = Field(1024, ge=2)
    """Planted features; a multiple of 128 unless they are independent or coins."""
    width: int = Field(256, ge=2)
    """Dimensions of a row."""
    active: float = Field(12.0, gt=0)
    """Features that fire in a row, on average; for independent ones a number of draws."""
    noise: float = Field(0.02, ge=0)
    """Standard deviation of the noise, in each dimension."""
    zipf: float = Field(0.6, ge=0)
    """Exponent with which firing probabilities fall by rank (independent, coins and synth)."""
    rows: int = Field(600_000, ge=1)
    """Rows that are stored."""
    truth_rows: int = Field(100_000, ge=0)
    """Rows from the first on whose planted codes are stored beside them."""
    seed: int = Field(0, ge=0)
    """Seed of directions, codes and noise."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        alone = self.kind in ("independent", "coins")
        if not alone and self.n_features % 128:
            raise ValueError(f"n_features must be a multiple of 128 for {self.kind!r}, not {self.n_features}")
        least, most = (1, self.n_features / 4) if alone else (4, self.n_features / 16)
        if not least <= self.active <= most:
            raise ValueError(f"active must lie from {least} to {most:g} for {self.n_features} features, {self.kind!r}")
        return self


class Planted:
    """Planted features, and rows made of them: as many as are asked for, whatever `config.rows` says."""

    directions: Tensor  # float32[n_features, width], unit rows
    frequencies: Floats  # [n_features], the probability that each fires in a row

    def __init__(self, config: PlantedConfig) -> None:
        import numpy as np
        import torch

        self.config = config
        rng = _stream(config.seed, 0)
        drawn = rng.standard_normal((config.n_features, config.width))
        unit = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        self.directions = torch.from_numpy(unit.astype(np.float32))
        self.frequencies, self._draw = design(
            config.kind, config.n_features, active=config.active, zipf=config.zipf, rng=rng
        )
        self._last: tuple[int, _Chunk] | None = None

    def rows(self, start: int, stop: int) -> tuple[Tensor, Codes]:
        """Return rows [stop - start, width] and the planted codes that they were made from."""
        import torch

        parts = [(chunk.rows(self)[a:b], chunk.codes(a, b)) for chunk, a, b in self._chunks(start, stop)]
        codes = Codes.concatenate([part[1] for part in parts])
        return (parts[0][0].clone() if len(parts) == 1 else torch.cat([part[0] for part in parts])), codes

    def codes(self, start: int, stop: int) -> Codes:
        """Return the planted codes alone, at a quarter of the cost: features ascending, slots as many as are needed."""
        return Codes.concatenate([chunk.codes(a, b) for chunk, a, b in self._chunks(start, stop)])

    def _chunks(self, start: int, stop: int) -> list[tuple[_Chunk, int, int]]:
        if not 0 <= start < stop:
            raise DataError(f"there are no rows from {start} to {stop}")
        numbers = range(start // CHUNK, (stop - 1) // CHUNK + 1)
        return [(self._chunk(n), max(0, start - n * CHUNK), min(CHUNK, stop - n * CHUNK)) for n in numbers]

    def _chunk(self, number: int) -> _Chunk:
        if self._last is None or self._last[0] != number:
            import numpy as np

            rng = _stream(self.config.seed, number + 1)
            keys = np.sort(self._draw(rng))
            row, features = np.divmod(keys, self.config.n_features)
            values = rng.standard_gamma(4.0, len(keys), dtype=np.float32) * np.float32(0.25)
            starts = np.searchsorted(row, np.arange(CHUNK + 1))
            self._last = number, _Chunk(rng, features, values, starts, self.config.n_features)
        return self._last[1]


@dataclass
class _Chunk:
    """The codes of one chunk, row by row, and its rows once they were asked for."""

    rng: np.random.Generator  # stands where the noise begins
    features: Integers
    values: NDArray[np.float32]
    starts: Integers  # [CHUNK + 1]
    n_features: int
    x: Tensor | None = None

    def rows(self, planted: Planted) -> Tensor:
        import numpy as np
        import torch

        if self.x is None:
            # Gathers and adds what fired: 14 times faster than the product of dense codes at the default sizes.
            self.x = torch.nn.functional.embedding_bag(
                torch.from_numpy(self.features),
                planted.directions,
                torch.from_numpy(self.starts[:-1]),
                mode="sum",
                per_sample_weights=torch.from_numpy(self.values),
            )
            noise = self.rng.standard_normal(tuple(self.x.shape), dtype=np.float32)
            self.x.add_(torch.from_numpy(noise), alpha=planted.config.noise)
        return self.x

    def codes(self, start: int, stop: int) -> Codes:
        import numpy as np
        import torch

        starts = self.starts[start : stop + 1]
        lengths = np.diff(starts)
        shape = len(lengths), max(1, int(lengths.max()))
        full = np.arange(shape[1]) < lengths[:, None]
        indices, values = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        indices[full] = self.features[starts[0] : starts[-1]]
        values[full] = self.values[starts[0] : starts[-1]]
        return Codes(torch.from_numpy(indices), torch.from_numpy(values), self.n_features)


def _stream(seed: int, number: int) -> np.random.Generator:
    import numpy as np

    return np.random.Generator(np.random.SFC64(np.random.SeedSequence(seed, spawn_key=(number,))))


@dataclass(frozen=True, eq=False)
class Truth:
    """What was planted in a store."""

    directions: Tensor  # float32[n_features, width]
    counts: Integers  # [n_features], in how many of the rows each fired
    codes: Codes | None  # of the first rows; none were kept if truth_rows was 0


def write_store(folder: Path | str, config: PlantedConfig, *, recapture: bool = False) -> Artifact:
    """Write planted rows as a store of one site, and the truth beside them; what is there already is not made anew."""
    import numpy as np

    folder = files.make_folder(Path(folder))
    named = config.model_dump(mode="json", exclude={"truth_rows"})
    source = {"planted": files.digest_json(named)}
    if recapture:
        for name in (TRUTH, COUNTS, CODES):  # a fresh store is written into an empty folder alone
            (folder / name).unlink(missing_ok=True)
    stored = not recapture and _complete(folder, source)
    known = run.finished(folder, "planted", config, inputs={}) if stored else None
    if known is not None and all((folder / name).exists() for name in _truth_files(config)):
        return Artifact("store", folder, {**known, "reused": True})
    planted = Planted(config)
    counts, kept = np.zeros(config.n_features, dtype=np.int64), []
    with ExitStack() as stack:
        writer = None
        if not stored:
            writer = stack.enter_context(
                StoreWriter(folder, sites={SITE: config.width}, source=source, recapture=recapture)
            )
        bar = stack.enter_context(console.progress("plant", config.rows))
        for start in range(0, config.rows, CHUNK):
            stop = min(config.rows, start + CHUNK)
            codes = planted.codes(start, stop)
            counts += codes.counts().numpy()
            if start < config.truth_rows:
                kept.append(codes[: config.truth_rows - start])
            if writer is not None and writer.offered < stop:
                first = max(start, writer.offered)
                writer.append({SITE: planted.rows(first, stop)[0]}, _metadata(first, stop))
            bar.advance(stop - start)
    _write_truth(folder, planted, counts, kept)
    summary = {
        "rows": config.rows,
        "sites": {SITE: config.width},
        "features": config.n_features,
        "mean_active": float(counts.sum() / config.rows),
        "fewest_rows_of_a_feature": int(counts.min()),
    }
    run.record(folder, "planted", config, inputs={}, summary=summary)
    return Artifact("store", folder, {**summary, "reused": False})


def read_truth(folder: Path | str) -> Truth:
    """Read what was planted in a store."""
    import numpy as np
    import torch
    from safetensors.torch import load_file

    folder = Path(folder)
    directions, counts = load_npy(folder / TRUTH), load_npy(folder / COUNTS)
    if directions.dtype != np.float32 or counts.dtype != np.int64 or directions.shape[:1] != counts.shape:
        raise DamagedError(f"{TRUTH} and {COUNTS} do not belong together", where=folder, remedy="Plant it anew.")
    codes = None
    if (path := folder / CODES).exists():
        names = set(safetensors_header(path)[1]) - {"__metadata__"}
        if names != {"indices", "values"}:
            raise DamagedError("holds no codes", where=path, remedy="Plant it anew.")
        held = load_file(path)
        codes = Codes(held["indices"], held["values"], len(counts))
    return Truth(torch.from_numpy(np.array(directions)), np.array(counts), codes)


def _truth_files(config: PlantedConfig) -> list[str]:
    return [TRUTH, COUNTS, *([CODES] if config.truth_rows else [])]


def _complete(folder: Path, source: dict[str, str]) -> bool:
    if not (folder / layout.MANIFEST).exists():
        return False
    found = settle.for_reading(folder)
    return found.complete and found.source == source


def _metadata(start: int, stop: int) -> pl.DataFrame:
    import polars as pl

    number = pl.int_range(start, stop, dtype=pl.Int64, eager=True).alias("sample_id")
    return pl.DataFrame({"number": number}).select(
        sample_id="r" + pl.col("number").cast(pl.String).str.zfill(7),
        group="g" + (pl.col("number") // _GROUP).cast(pl.String).str.zfill(5),
    )


def _write_truth(folder: Path, planted: Planted, counts: Integers, kept: list[Codes]) -> None:
    import numpy as np

    for name, array in ((TRUTH, planted.directions.numpy()), (COUNTS, counts)):
        files.write_atomically(folder / name, partial(np.lib.format.write_array, array=array, allow_pickle=False))
    if not kept:
        (folder / CODES).unlink(missing_ok=True)
        return
    codes = Codes.concatenate(kept)
    arrays = {"indices": codes.indices.numpy(), "values": codes.values.numpy()}
    told = {"n_features": str(codes.n_features)}
    write_safetensors(folder / CODES, arrays, dtype={"indices": "I32", "values": "F32"}, metadata=told)

"""Scaling per site, from one pass over the training rows: mean and standard deviation, or PCA whitening.

`embed_stats.json` (docs/formats/embed_stats.md) keeps it. The rows on disk stay as they were read; whoever uses a
scaling stores its digest, and a store whose scaling is another one is refused (see `Store.expect`).

    standard   y = (x − mean) / std
    pca        y = (x − mean) · components / sqrt(variances), the directions of largest variance first

A dimension that never varies cannot be divided by its spread: whitening leaves it out, else it keeps the scale 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elute.base import console, files, run
from elute.base.accumulate import Covariance, CovarianceResult, Moments, MomentsResult
from elute.base.errors import ConfigError, DamagedError, DataError, VersionError, near
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.store import layout
from elute.store.rows import StoredRows

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

SCHEMA = 1


class StatsConfig(Section):
    """How the rows of a store are scaled."""

    method: Literal["standard", "pca"] = "standard"
    """Mean and standard deviation, or PCA whitening."""
    rank: int | None = Field(None, ge=1)
    """Number of directions that the whitening keeps; all that vary if not given."""
    split: str | None = None
    """Rows to measure; the split named train where there is one, else every row."""


@dataclass(frozen=True)
class SiteScaling:
    """One site's scaling; `components` and `variances` are there for PCA alone."""

    rows: int
    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    constant: tuple[int, ...]
    components: NDArray[np.float64] | None = None
    variances: NDArray[np.float64] | None = None
    explained: float | None = None

    @property
    def forth(self) -> NDArray[np.float64]:
        """What rows less their mean are multiplied by: a number a dimension, or a matrix."""
        if self.components is None or self.variances is None:
            return 1 / self.back
        return self.components / self.variances**0.5

    @property
    def back(self) -> NDArray[np.float64]:
        """What undoes `forth`; a constant dimension's spread of 0 counts as 1."""
        if self.components is not None and self.variances is not None:
            return self.components.T * self.variances[:, None] ** 0.5
        std = self.std.copy()
        std[list(self.constant)] = 1.0
        return std


@dataclass(frozen=True)
class Scaling:
    """What `embed_stats.json` holds."""

    record: dict[str, Any]

    @classmethod
    def of(cls, folder: Path | str) -> Scaling:
        """Read the scaling of a store."""
        path = Path(folder) / layout.STATS
        remedy = f"`elute arrays stats {folder}` makes it."
        record = files.read_json(path, what="a store's scaling (embed_stats.json)", remedy=remedy)
        if not isinstance(record, dict) or "schema_version" not in record or not isinstance(record.get("sites"), dict):
            raise DamagedError("is not a store's scaling", where=path, remedy=remedy)
        if record["schema_version"] > SCHEMA:
            raise VersionError("was written by a newer elute", where=path, remedy="Update elute.")
        return cls(record)

    @cached_property
    def digest(self) -> str:
        """Digest of the numbers, which a dictionary trained on them remembers."""
        return files.digest_json(self.record)

    def site(self, name: str) -> SiteScaling:
        """Return one site's numbers."""
        import numpy as np

        if name not in self.record["sites"]:
            raise DataError(f"there is no scaling of site {name!r}", remedy=near(name, self.record["sites"]))
        values = dict(self.record["sites"][name])
        for key in ("mean", "std", "components", "variances"):
            if values.get(key) is not None:
                values[key] = np.asarray(values[key], np.float64)
        values["constant"] = tuple(values["constant"])
        return SiteScaling(**values)

    def apply(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """Scale rows of a site."""
        import torch

        site = self.site(name)
        if x.shape[-1] != len(site.mean):
            raise DataError(f"the scaling of site {name!r} is for width {len(site.mean)}, not {x.shape[-1]}")
        mean, forth = (torch.as_tensor(part, dtype=x.dtype, device=x.device) for part in (site.mean, site.forth))
        return (x - mean) * forth if forth.ndim == 1 else (x - mean) @ forth

    def invert(self, name: str, y: torch.Tensor) -> torch.Tensor:
        """Undo `apply`; what a whitening of lower rank left out comes back as the mean."""
        import torch

        site = self.site(name)
        mean, back = (torch.as_tensor(part, dtype=y.dtype, device=y.device) for part in (site.mean, site.back))
        return (y * back if back.ndim == 1 else y @ back) + mean


def measure(folder: Path, config: StatsConfig) -> Artifact:
    """Measure a store's scaling in one pass and write `embed_stats.json`."""
    store = StoredRows(folder)
    split = config.split or ("train" if "split" in store.manifest.columns else None)
    where = store.select(split=split)
    if config.rank is not None and config.method != "pca":
        raise ConfigError("rank is for the method pca alone", remedy="Add --method pca, or leave --rank out.")
    widest = max(store.sites.values())
    if config.rank is not None and config.rank > min(store.sites.values()):
        raise ConfigError(f"rank {config.rank} is more than the width of a site ({min(store.sites.values())})")
    if not store.complete:
        console.warn(f"{store.folder} is unfinished: only the rows that are there are measured")
    if where.rows < 2:
        raise DataError(f"{where.rows} row is too few to measure a spread", where=store.folder)
    kind = Covariance if config.method == "pca" else Moments
    sums = {name: kind(width) for name, width in store.sites.items()}
    with console.progress("stats", where.rows) as bar:
        for rows, frame in store.batches(max(256, (1 << 22) // widest), where=where, columns=["sample_id"]):
            for name, x in rows.items():
                sums[name].update(x)
            bar.advance(len(frame))
    sites = {name: _numbers(sums[name].result(), config) for name in store.sites}
    record = {
        "schema_version": SCHEMA,
        "store": store.manifest.store,
        "method": config.method,
        "split": split,
        "sites": sites,
    }
    with files.locked(store.folder, "measuring"):
        files.write_json(store.folder / layout.STATS, record)
    summary = {
        name: {k: v for k, v in site.items() if k in ("rows", "explained")} | {"constant": len(site["constant"])}
        for name, site in sites.items()
    }
    told = {"method": config.method, "split": split, "sites": summary}
    run.record(store.folder, "stats", config, inputs={"store": store.manifest.store}, summary=told)
    return Artifact("scaling", store.folder / layout.STATS, told)


def _numbers(result: MomentsResult | CovarianceResult, config: StatsConfig) -> dict[str, Any]:
    """Turn a site's sums into the numbers that are kept, in full precision."""
    variance = result.variance if isinstance(result, MomentsResult) else result.covariance.diagonal()
    # Below this share of the mean's square a variance is rounding, not spread.
    constant = variance <= 1e-12 * result.mean**2
    numbers: dict[str, Any] = {
        "rows": result.count,
        "mean": result.mean.tolist(),
        "std": (variance.clip(0) ** 0.5).tolist(),
        "constant": constant.nonzero()[0].tolist(),
    }
    if isinstance(result, CovarianceResult):
        values, vectors = result.eigen()
        alive = int((values > 1e-10 * values[0]).sum()) if values[0] > 0 else 0
        if alive == 0:
            raise DataError("no dimension varies, so there is nothing to whiten", remedy="Check the rows, or the site.")
        rank = min(config.rank or alive, alive)
        if config.rank is not None and rank < config.rank:
            console.warn(f"rank {config.rank} was asked for, but only {alive} directions vary: {rank} are kept")
        numbers["components"] = vectors[:, :rank].tolist()
        numbers["variances"] = values[:rank].tolist()
        numbers["explained"] = float(values[:rank].sum() / values[:alive].sum())
    return numbers

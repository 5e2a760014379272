"""What features are found of: one file of vectors, fused ones out of fold, or every source of a configuration."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import DataError
from elute.particles.feature_settings import ParticleFeaturesConfig
from elute.particles.settings import EvaluationConfig, SourceConfig, read_inputs, sources_of

if TYPE_CHECKING:
    import polars as pl

_YAML = (".yaml", ".yml")
_HDF5 = (".h5", ".hdf5")


@dataclass(frozen=True, eq=False)
class Opened:
    """Particles with their vectors, site by site."""

    sites: dict[str, Any]  # [n, width] each
    particles: pl.DataFrame
    digests: dict[str, str]
    mark: str | None = None  # what every output has to say of itself


def open_inputs(path: Path, config: ParticleFeaturesConfig) -> Opened:
    """Read one file of vectors, or the joined sources of a configuration; every particle gets an id."""
    import polars as pl

    opened = _sources(path) if path.suffix.lower() in _YAML else _file(path, config)
    if not opened.particles["id"].null_count():
        return opened
    ids = pl.Series("id", [f"sample_{i}" for i in range(len(opened.particles))], pl.String)
    return replace(opened, particles=opened.particles.with_columns(ids))


def _file(path: Path, config: ParticleFeaturesConfig) -> Opened:
    """Read one file: fused embeddings, or any other vectors."""
    from elute.particles.reading import read_source

    if _is_fused(path):
        return _fused(path, config)
    table = read_source(SourceConfig(name=path.stem or "embedding", path=path))
    for note in table.notes:
        console.say(note)
    return Opened({site_name(table.name): table.vectors}, table.particles, {path.name: table.digest})


def _sources(path: Path) -> Opened:
    """Join the sources of a configuration; particles need no class."""
    from elute.particles.fusing import join_unlabelled
    from elute.particles.joining import join
    from elute.particles.reading import read_source

    inputs = read_inputs(path)
    sources = sources_of(inputs, embedding_dim=1, where=path)
    if not inputs.sources:  # the original's keys say nothing of how many numbers are wanted: all are
        sources = tuple(source.model_copy(update={"first": None}) for source in sources)
    tables = [read_source(source) for source in sources]
    labelled = any(table.particles["label"].null_count() < len(table) for table in tables)
    joined = (join if labelled else join_unlabelled)(tables, EvaluationConfig())
    for note in joined.notes:
        console.say(note)
    sites: dict[str, Any] = {}
    for name, vectors in zip(map(site_name, joined.names), joined.vectors, strict=True):
        if name in sites:
            raise DataError(f"two sources would both be called {name!r}", where=path,
                            remedy="Give them names of letters and digits.")  # fmt: skip
        sites[name] = vectors
    return Opened(sites, joined.particles, joined.digests, joined.mark)


def _is_fused(path: Path) -> bool:
    from elute.particles.writing_fused import already

    return path.suffix.lower() in _HDF5 and path.is_file() and already(path) is not None


def _fused(path: Path, config: ParticleFeaturesConfig) -> Opened:
    """Read out-of-fold vectors; those of the last network where there are no others or they are asked for."""
    from elute.particles.reading_fused import FusedFile

    file = FusedFile(path)
    part = file.read()
    own = part.mu_oof if config.vector == "mu_oof" else None
    seen = 0 if own is not None else int(part.in_sample.sum())
    if own is None and seen and config.vector == "mu_oof":
        raise DataError("holds no out-of-fold vectors (mu_oof)", where=path,
                        remedy="Give --vector mu for the in-sample ones; all that is found is marked so.")  # fmt: skip
    marks = [
        file.told.get("mark"),
        f"in-sample: the network had learnt the classes of {seen:,} of these" if seen else None,
    ]
    vector = "mu" if own is None else "mu_oof"
    console.say(f"{path.name}: {vector} of {len(part):,} particles")
    mark = "; ".join(str(one) for one in marks if one) or None
    digests = {f"{path.name}, {vector}": files.digest_file(path)}
    return Opened({"fused": part.mu if own is None else own}, part.particles, digests, mark)


def site_name(name: str) -> str:
    """A source's name as a folder can have it."""
    made = "".join(letter if letter.isalnum() or letter in "_-" else "_" for letter in name)
    return made or "embedding"

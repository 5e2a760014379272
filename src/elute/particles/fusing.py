"""New particles, fused by a network that was trained before.

    elute particles fuse --model fusion.pt --inputs new.yaml --output new_fused.h5
    elute particles fuse --model fusion.pt --inputs cryolens=new.h5 --inputs tomotwin=new.parquet --output new_fused.h5

Sources are read and paired as for an evaluation, but a particle needs no class. Particles that the network had learnt
from are known again by their vectors, and their fused vectors are marked in-sample.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, near
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.particles.fused_layout import Layout
from elute.particles.settings import EvaluationConfig, InputsConfig, SourceConfig, read_inputs, sources_of

if TYPE_CHECKING:
    from elute.particles.fusion_file import FusionModel
    from elute.particles.table import Joined, ParticleTable

_YAML = (".yaml", ".yml")
_NOBODY = "unlabelled"


class FuseConfig(Section):
    """How new particles are paired and written."""

    tolerance: float = Field(10.0, gt=0)
    """Ångström between two coordinates of one particle, at most."""
    layout: Layout = "auto"
    """A group a particle, whole arrays (bulk), or both; groups up to 100,000 particles if auto."""


def fuse(model: Path | str, inputs: Sequence[str], output: Path | str, *, config: FuseConfig | None = None) -> Artifact:
    """Fuse new particles; `inputs` are one configuration file, or NAME=FILE for each source of the model."""
    from elute.particles.fusion_file import load_fusion
    from elute.particles.reading import read_source
    from elute.particles.writing_fused import free, write_fused

    config, output, path = config or FuseConfig(), Path(output), Path(model)
    found = load_fusion(path)
    tables = [read_source(source) for source in _sources(found, inputs)]
    for table, width in zip(tables, found.widths, strict=True):
        if table.width != width:
            raise DataError(f"{table.name} has {table.width} numbers a particle, the network was made for {width}",
                            where=path, remedy="Give vectors of the same kind, or first in a file.")  # fmt: skip
    joined = join_unlabelled(tables, EvaluationConfig(tolerance=config.tolerance))
    made_of = files.digest_json([
        found.told.get("made_of", ""), config.tolerance, *(table.digest for table in tables)
    ])  # fmt: skip
    seen = found.has_seen(joined.vectors)
    summary = {
        "n_samples": len(joined), "embedding_dim": found.width, "in_sample": int(seen.sum()),
        "pairing": {"by": joined.pairing, **joined.counts}, "mark": found.told.get("mark"),
    }  # fmt: skip
    if not free(output, made_of):
        return Artifact("fused", output, {**summary, "reused": True})
    told = {
        **{name: found.told.get(name) for name in ("fusion_method", "n_epochs", "random_seed", "mark", "sources")},
        "n_classes": len(found.classes), "made_of": made_of, "fused_by": found.told.get("made_of"),
        "pairing": joined.pairing, **{f"input_{name}": digest for name, digest in joined.digests.items()},
    }  # fmt: skip
    write_fused(
        output, joined.particles, _vectors(found, joined), told=told, classes=found.classes, width=found.width,
        in_sample=seen, layout=config.layout,
    )  # fmt: skip
    return Artifact("fused", output, {**summary, "reused": False})


def _vectors(model: FusionModel, joined: Joined) -> Iterator[tuple[Any, None]]:
    from elute.particles.writing_fused import PIECE

    for start in range(0, len(joined), PIECE):
        yield model.fuse([x[start : start + PIECE] for x in joined.vectors])[0], None


def _sources(model: FusionModel, inputs: Sequence[str]) -> list[SourceConfig]:
    """Return the model's sources in its order, as the inputs name them."""
    if not inputs:
        raise ConfigError("no inputs are given", remedy="Give --inputs CONFIG.yaml, or --inputs NAME=FILE each.")
    if len(inputs) == 1 and inputs[0].lower().endswith(_YAML):
        path = Path(inputs[0])
        given: InputsConfig = read_inputs(path)
        sources = sources_of(given, embedding_dim=1, where=path)
        if not given.sources:  # the original's keys: as many numbers as the network was made for
            sources = tuple(source.model_copy(update={"first": None}) for source in sources)
        known = {source.name: source for source in sources}
    else:
        known = {}
        for text in inputs:
            name, equals, file = text.partition("=")
            if not equals or not name or not file:
                raise ConfigError(f"--inputs {text!r} is not of the form NAME=FILE",
                                  remedy=f"The model's sources are {', '.join(model.names)}.")  # fmt: skip
            known[name] = SourceConfig(name=name, path=Path(file))
    for name in known:
        if name not in model.names:
            raise ConfigError(f"the model has no source {name!r}", remedy=near(name, model.names))
    if missing := [name for name in model.names if name not in known]:
        raise ConfigError(f"source {missing[0]!r} of the model is missing", remedy="Give a file of every source.")
    ordered = zip(model.names, model.widths, strict=True)
    return [known[name].model_copy(update={"first": known[name].first or width}) for name, width in ordered]


def join_unlabelled(tables: Sequence[ParticleTable], config: EvaluationConfig) -> Joined:
    """Pair the rows of sources whatever their classes are; the first source's classes are kept, where it has any."""
    import polars as pl

    from elute.particles.joining import join

    first = tables[0].particles
    alike = [replace(t, particles=t.particles.with_columns(label=pl.lit(_NOBODY))) for t in tables]
    # The number of each of its rows travels with the first source in place of a column that is put back afterwards.
    alike[0] = replace(alike[0], particles=alike[0].particles.with_columns(
        point_index=pl.Series(np.arange(len(first)), dtype=pl.Int64)
    ))  # fmt: skip
    joined = join(alike, config, judged=False)
    own = first[joined.particles["point_index"].to_list()]
    lost = own["label"].null_count()
    if lost:
        console.say(f"{lost:,} of {len(own):,} particles have no class, and need none")
    return replace(joined, particles=joined.particles.with_columns(own["label"], own["point_index"]))

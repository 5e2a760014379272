"""The settings of the evaluation of particle embeddings: light to import, for command lines.

A configuration file names the sources in one of two ways. That of CryoLens:

    cryolens_embeddings: embeddings.h5
    tomotwin_embeddings: tomotwin.parquet
    tomotwin_coords: coords.csv
    random_seed: 171717

or any two or more sources, the first being the one that a gain is measured against:

    sources:
      - {name: tomotwin, path: tomotwin.parquet, coords: coords.csv}
      - {name: cryolens, path: embeddings.h5, first: 32}
      - {name: shape, path: shape.csv, id_column: particle, label_column: class, run_column: tomogram}
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from elute.base.errors import ConfigError, near
from elute.base.recipe import Section, build, read_yaml

Kind = Literal["auto", "cryolens", "tomotwin", "table"]
Method = Literal["average", "concat", "weighted", "attention"]
GroupBy = Literal["run_name", "none"]
PairBy = Literal["key", "label"]
Unit = Literal["auto", "angstrom", "voxel"]

SEED = 171717
RESERVED = ("fusion", "concat", "pca", "knn", "average", "permuted_across", "permuted_within")


class SourceConfig(Section):
    """One table of vectors, and what its columns are called."""

    name: str = Field(min_length=1)
    """Name of the source, as tables and pictures show it."""
    path: Path
    """File of the vectors: HDF5, Parquet, CSV, TSV, NPZ or h5ad."""
    kind: Kind = "auto"
    """Layout of the file; told from what it holds if not given."""
    coords: Path | None = None
    """TomoTwin's CSV of what each particle is (protein, filepath)."""
    key: str | None = None
    """Array of the vectors where a file holds several, e.g. obsm/X_pca."""
    id_column: str | None = None
    """Column of the particle's id."""
    label_column: str | None = None
    """Column of the particle's class."""
    run_column: str | None = None
    """Column of the run (tomogram) that it was picked in."""
    coordinate_columns: tuple[str, ...] = ()
    """Columns of x, y and z."""
    unit: Unit = "auto"
    """Unit of the coordinates; ångström unless the file's layout says voxels."""
    voxel_spacing: float | None = Field(None, gt=0)
    """Ångström a voxel, where coordinates are in voxels and the file does not tell."""
    first: int | None = Field(None, ge=1)
    """Keep this many of the first numbers of each vector; all if not given."""

    @field_validator("name")
    @classmethod
    def _free(cls, value: str) -> str:
        if value in RESERVED or value.startswith("network_"):
            raise ValueError("is the name of a method; call the source something else")
        return value

    @field_validator("coordinate_columns")
    @classmethod
    def _three(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if value and len(value) != 3:
            raise ValueError("give the columns of x, y and z")
        return value


class InputsConfig(Section):
    """Where the embeddings lie: in CryoLens' own keys, or as sources."""

    sources: tuple[SourceConfig, ...] = ()
    """Two or more sources; the first is the one that a gain is measured against."""
    cryolens_embeddings: Path | None = None
    """CryoLens' HDF5, in either layout."""
    tomotwin_embeddings: Path | None = None
    """TomoTwin's Parquet."""
    tomotwin_coords: Path | None = None
    """TomoTwin's CSV of proteins and file paths."""
    random_seed: int | None = Field(None, ge=0)
    """Seed, where the command line gives none."""

    @field_validator("sources")
    @classmethod
    def _apart(cls, value: tuple[SourceConfig, ...]) -> tuple[SourceConfig, ...]:
        names = [source.name for source in value]
        if len(set(names)) < len(names):
            raise ValueError("two sources have the same name")
        return value


class EvaluationConfig(Section):
    """How sources are paired, fused and judged."""

    n_folds: int = Field(10, ge=2)
    """Parts of the particles; each is held out once."""
    fusion_method: Method = "average"
    """How the sources become one vector: average, concat, weighted or attention."""
    attention_epochs: int = Field(20, ge=1)
    """Passes over the training particles of the attention fusion."""
    embedding_dim: int = Field(32, ge=1)
    """Width of the fused vector, and numbers that are kept of each CryoLens and TomoTwin vector."""
    balance_classes: bool = False
    """Draw as many particles of each class as the rarest has."""
    random_seed: int = Field(SEED, ge=0)
    """Seed of the folds, the networks, and all draws."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
    group_by: GroupBy = "run_name"
    """Keep the particles of a run (tomogram) in one fold, or deal particles one by one."""
    pair_by: PairBy = "key"
    """Pair rows by particle, or at random within a class: the latter reproduces old numbers and is no evidence."""
    tolerance: float = Field(10.0, gt=0)
    """Ångström between two coordinates of one particle, at most."""
    inner_folds: int = Field(3, ge=2)
    """Parts of the training particles, each fused by a network that has not seen it, to fit the classifier on."""
    n_resamples: int = Field(1000, ge=100)
    """Draws of runs for an interval, and of exchanges for a permutation test."""

    def identity(self) -> dict[str, Any]:
        """What the result depends on; not where it is computed."""
        return self.model_dump(mode="json", exclude={"device"})


def read_inputs(path: Path) -> InputsConfig:
    """Read a configuration file; paths in it are looked for from here, then from the file's own folder."""
    found = build(InputsConfig, read_yaml(path), where=str(path))
    return found.model_copy(update={
        "sources": tuple(
            one.model_copy(update={"path": _located(one.path, path), "coords": _located(one.coords, path)})
            for one in found.sources
        ),
        **{name: _located(getattr(found, name), path) for name in _OLD},
    })  # fmt: skip


_OLD = ("cryolens_embeddings", "tomotwin_embeddings", "tomotwin_coords")


def _located(given: Path | None, config: Path) -> Path | None:
    if given is None or given.exists() or given.is_absolute():
        return given
    beside = config.parent / given
    return beside if beside.exists() else given


def sources_of(inputs: InputsConfig, *, embedding_dim: int, where: object = None) -> tuple[SourceConfig, ...]:
    """Return the sources that a configuration names: its own, or TomoTwin and CryoLens in the original's order."""
    old = {name: getattr(inputs, name) for name in _OLD}
    given = [name for name, value in old.items() if value is not None]
    if inputs.sources and given:
        raise ConfigError(f"both sources and {given[0]} are given", where=where, remedy="Name the inputs in one way.")
    if inputs.sources:
        if len(inputs.sources) < 2:
            raise ConfigError("one source only", where=where, remedy="Name two or more: there is nothing to fuse.")
        return inputs.sources
    missing = [name for name in _OLD if old[name] is None]
    if missing:
        remedy = f"Give {', '.join(missing)}, or a list of sources." if given else near("", ("sources", *_OLD))
        raise ConfigError(f"{missing[0]} is missing", where=where, remedy=remedy)
    return (
        SourceConfig(name="tomotwin", path=old["tomotwin_embeddings"], coords=old["tomotwin_coords"], kind="tomotwin",
                     first=embedding_dim),
        SourceConfig(name="cryolens", path=old["cryolens_embeddings"], kind="cryolens", first=embedding_dim),
    )  # fmt: skip

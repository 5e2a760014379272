"""Made-up particles on the disk, as a user's own would lie there: CryoLens' HDF5, TomoTwin's Parquet and CSV.

    FOLDER/cryolens.h5           /embeddings/{id}/mu, /metadata/{id} attributes
    FOLDER/tomotwin.parquet      filepath, and a column a number
    FOLDER/tomotwin.csv          protein, filepath, x, y, z (Å)
    FOLDER/classification.yaml   names the three, in CryoLens' own keys
    FOLDER/particles.parquet     the truth: which particle is which in either source
    FOLDER/truth.json            what the sources, and both, can tell at best
    FOLDER/run.json              the settings, and the digests of the files

The two sources share no id: as with real ones, a particle is the same where run and coordinates agree.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.particles.generator import SPACING, MadeParticles, make
from elute.particles.generator_settings import MadeConfig
from elute.particles.generator_truth import known_truth

if TYPE_CHECKING:
    import polars as pl

STAGE = "make"
CRYOLENS, TOMOTWIN, COORDS = "cryolens.h5", "tomotwin.parquet", "tomotwin.csv"
CONFIG, PARTICLES, TRUTH = "classification.yaml", "particles.parquet", "truth.json"
_WRITTEN = (CRYOLENS, TOMOTWIN, COORDS, CONFIG, PARTICLES, TRUTH)


def write_made(folder: Path, config: MadeConfig | None = None, *, anew: bool = False) -> Artifact:
    """Make particles up into a folder; what is there already, by these settings, is used as it is."""
    config, folder = config or MadeConfig(), Path(folder)
    files.make_folder(folder)
    with files.locked(folder, "making particles"):
        known = run.finished(folder, STAGE, config, inputs={})
        if known is not None and not anew and _intact(folder, known):
            console.say(f"{folder}: already made with these settings, used as it is")
            return Artifact("made", folder, {**known, "reused": True})
        summary = _write(folder, config)
        run.record(folder, STAGE, config, inputs={}, summary=summary)
    return Artifact("made", folder, {**summary, "reused": False})


def _intact(folder: Path, known: dict[str, Any]) -> bool:
    return all((folder / name).is_file() and files.digest_file(folder / name)[:16] == digest
               for name, digest in known["files"].items())  # fmt: skip


def _write(folder: Path, config: MadeConfig) -> dict[str, Any]:
    made, truth = make(config), known_truth(config)
    write_cryolens(folder / CRYOLENS, made)
    frame, coords = tomotwin_tables(made)
    tables: dict[str, Callable[[Any], object]] = {
        TOMOTWIN: frame.write_parquet, COORDS: coords.write_csv, PARTICLES: particle_table(made).write_parquet,
    }  # fmt: skip
    for name, write in tables.items():
        files.write_atomically(folder / name, write)
    files.write_json(folder / TRUTH, truth)
    text = f"cryolens_embeddings: {CRYOLENS}\ntomotwin_embeddings: {TOMOTWIN}\ntomotwin_coords: {COORDS}\n"
    files.write_atomically(folder / CONFIG, lambda handle: handle.write(text.encode()))
    return {
        "particles": len(made),
        "seen": [int(seen.sum()) for seen in made.seen],
        "both": int(made.both.sum()),
        "runs": config.runs,
        "classes": dict(zip(made.classes, np.bincount(made.label, minlength=config.classes).tolist(), strict=True)),
        "truth": truth,
        "files": {name: files.digest_file(folder / name)[:16] for name in _WRITTEN},
    }


def write_cryolens(path: Path, made: MadeParticles) -> None:
    """Write the first source as CryoLens does: a group a particle, and its attributes beside."""
    import h5py

    def fill(handle: Any) -> None:
        with h5py.File(handle.name, "w", libver=("earliest", "v110")) as file:
            embeddings, metadata = file.create_group("embeddings"), file.create_group("metadata")
            for i in np.flatnonzero(made.seen[0]).tolist():
                name = made.ids[i]
                embeddings.create_group(name).create_dataset("mu", data=made.vectors[0][i])
                told = metadata.create_group(name).attrs
                told["object_name"], told["run_name"] = made.labels[i], made.runs[i]
                told["coordinates"] = made.coordinates[0][i]
                told["picks_index"], told["point_index"] = 0, i % made.config.per_run
                told["voxel_spacing"] = SPACING

    files.write_atomically(path, fill)


def tomotwin_tables(made: MadeParticles) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the second source's two tables: embeddings by file path, and what each file holds."""
    import polars as pl

    rows = np.flatnonzero(made.seen[1])
    rows = rows[np.random.default_rng([made.config.seed, 3]).permutation(len(rows))]
    paths = [file_path(made, i) for i in rows.tolist()]
    vectors = {str(j): made.vectors[1][rows, j] for j in range(made.config.widths[1])}
    places = {axis: made.coordinates[1][rows, j].round(3) for j, axis in enumerate("xyz")}
    coords = pl.DataFrame({"protein": [made.labels[i] for i in rows.tolist()], "filepath": paths, **places})
    return pl.DataFrame({"filepath": [f"output/{path}" for path in paths], **vectors}), coords


def file_path(made: MadeParticles, i: int) -> str:
    """Where the second source keeps a particle's volume; the number in it is its own."""
    return f"{made.runs[i]}/{made.labels[i]}/pick_{i % made.config.per_run:05d}.mrc"


def particle_table(made: MadeParticles) -> pl.DataFrame:
    """The truth, a row a particle: its class and run, and what either source calls it; null where it has it not."""
    import polars as pl

    named = [name if has else None for name, has in zip(made.ids, made.seen[0].tolist(), strict=True)]
    filed = [file_path(made, i) if has else None for i, has in enumerate(made.seen[1].tolist())]
    return pl.DataFrame({"label": made.labels, "run": made.runs, "cryolens": named, "tomotwin": filed})

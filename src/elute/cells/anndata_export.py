"""The cells of a run with their features, as an .h5ad file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from elute.base import console, files
from elute.base.errors import ConfigError, GuardError
from elute.base.run import Artifact


def export_h5ad(
    folder: Path,
    output: Path,
    *,
    data: Path | None = None,
    site: str | None = None,
    pooling: Literal["mean", "max", "sum"] = "mean",
    overwrite: bool = False,
) -> Artifact:
    """Write a run's cells with .obsm["X_elute"]; with the file that they came from, all that it holds as well."""
    from elute.analysis.findings import Run
    from elute.analysis.to_anndata import KEY, READ

    output = Path(output)
    if output.suffix != ".h5ad":
        raise ConfigError("the output is an .h5ad file", where=output, remedy="Name it so.")
    if data is not None and output.exists() and output.resolve() == Path(data).resolve():
        raise ConfigError("the output is the input", where=output, remedy="Write another file.")
    if output.exists() and not overwrite:
        raise GuardError("is there already", where=output, remedy="Choose another name, or give --overwrite.")
    if data is not None and not Path(data).is_file():
        raise ConfigError("there is no such file", where=data, remedy="Check the path given to --data.")
    made = Run(folder).to_anndata(data, site=site, pooling=pooling)
    files.make_folder(output.parent)
    scratch = output.with_name(f".{output.stem}.part.h5ad")
    try:
        with files.disk_errors(output):
            made.write_h5ad(scratch)
            scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)
    cells, features = made.obsm[KEY].shape
    read = int(made.obs[READ].sum())
    console.say(f"{output}: .obsm[{KEY!r}], {cells:,} cells × {features:,} features that fire")
    told = {"cells": cells, "read": read, "features": features, "site": made.uns["elute"]["site"]}
    return Artifact("h5ad", output, {**told, "pooling": pooling, "genes": made.n_vars})

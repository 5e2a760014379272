"""elute: what a scientific model has learnt, feature by feature, with evidence and a control.

import elute
model = elute.load_model(module, sites={"hidden": "encoder.3"}, batches=batches)
elute.capture_to_store(model, data, "results/mine")
store = elute.open_store("results/mine")
elute.train("results/mine", "results/run")
sae = elute.load_dictionary("results/run")
run = elute.open("results/pbmc")             # what `elute cells run-pipeline` wrote
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elute.analysis.findings import open_run as open  # noqa: A004, F401  # a name of the face
    from elute.base.contracts import Site as Site
    from elute.base.errors import EluteError as EluteError
    from elute.dictionaries.files import load_dictionary as load_dictionary
    from elute.dictionaries.files import save_dictionary as save_dictionary
    from elute.engine.capture import CaptureConfig as CaptureConfig
    from elute.engine.capture import capture_to_store as capture_to_store
    from elute.engine.train import Training as Training
    from elute.engine.train import train as train
    from elute.models.cells.cellfile import CellsConfig as CellsConfig
    from elute.models.cells.cellfile import open_cells as open_cells
    from elute.models.edits import add as add
    from elute.models.edits import replace as replace
    from elute.models.edits import scale as scale
    from elute.models.load import load_model as load_model
    from elute.store.codes import open_codes as open_codes
    from elute.store.reader import open_store as open_store
    from elute.store.shuffle import ShuffleConfig as ShuffleConfig
    from elute.store.writer import StoreWriter as StoreWriter

# What users import, and where it is: nothing is loaded before it is asked for.
_FACE = {
    "CaptureConfig": "elute.engine.capture",
    "CellsConfig": "elute.models.cells.cellfile",
    "EluteError": "elute.base.errors",
    "ShuffleConfig": "elute.store.shuffle",
    "Site": "elute.base.contracts",
    "StoreWriter": "elute.store.writer",
    "Training": "elute.engine.train",
    "add": "elute.models.edits",
    "capture_to_store": "elute.engine.capture",
    "load_dictionary": "elute.dictionaries.files",
    "load_model": "elute.models.load",
    "open": "elute.analysis.findings:open_run",
    "open_cells": "elute.models.cells.cellfile",
    "open_codes": "elute.store.codes",
    "open_store": "elute.store.reader",
    "replace": "elute.models.edits",
    "save_dictionary": "elute.dictionaries.files",
    "scale": "elute.models.edits",
    "train": "elute.engine.train",
}


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is first used."""
    if name == "__version__":
        from importlib.metadata import version

        return version("elute")
    if name not in _FACE:
        raise AttributeError(f"elute has no {name!r}")
    from importlib import import_module

    module, _, called = _FACE[name].partition(":")
    return getattr(import_module(module), called or name)


def __dir__() -> list[str]:
    return sorted(_FACE)

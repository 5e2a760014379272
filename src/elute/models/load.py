"""One way to a model: by the name of a file behind the `models` door, a model's folder, or a user's own module."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from torch import nn

from elute.base import plugins
from elute.base.errors import ConfigError, DataError
from elute.models.module import TorchModel


def load_model(model: str | Path | nn.Module, **settings: Any) -> Any:
    """Return a model.

    A text is a name, with a size behind it where there are several (`tahoe-x1-70m`), or the path of a model's folder.
    A torch module comes with `sites=` and `batches=` (see TorchModel). Settings are those of the model's own file.
    """
    if isinstance(model, nn.Module):
        return TorchModel(model, **settings)
    if not isinstance(model, str | Path):
        raise ConfigError(f"a model is a name, a folder or a torch module, not a {type(model).__name__}")
    names = plugins.names("models")
    text = str(model)
    if isinstance(model, Path) or "/" in text or (text not in names and Path(text).exists()):
        return plugins.load("models", kind_of(Path(model)))(Path(model), **settings)
    head, _, size = text.rpartition("-")
    if text not in names and head in names:
        return plugins.load("models", head)(size=size, **settings)
    return plugins.load("models", text)(**settings)


def kind_of(folder: Path) -> str:
    """Say which of our models reads a folder, by the function `reads` of each file."""
    if not folder.is_dir():
        remedy = "Give a model's folder, or a name such as tahoe-x1-70m."
        raise DataError("is not a folder" if folder.exists() else "is not there", where=folder, remedy=remedy)
    for name in plugins.names("models"):
        module = importlib.import_module(plugins.load("models", name).__module__)
        if hasattr(module, "reads") and module.reads(folder):
            return name
    remedy = "A Tahoe-x1 folder holds model_config.yml; a Geneformer one a config.json with model_type bert."
    raise DataError("is no folder of a model that is known here", where=folder, remedy=remedy)

"""One way to a model: by the name of a file behind the `models` door, or from a user's own module."""

from __future__ import annotations

from typing import Any

from torch import nn

from elute.base import plugins
from elute.base.errors import ConfigError
from elute.models.module import TorchModel


def load_model(model: str | nn.Module, **settings: Any) -> Any:
    """Return a model: a name with its settings, or a torch module with `sites=` and `batches=` (see TorchModel)."""
    if isinstance(model, nn.Module):
        return TorchModel(model, **settings)
    if isinstance(model, str):
        return plugins.load("models", model)(**settings)
    raise ConfigError(f"a model is a name or a torch module, not a {type(model).__name__}")

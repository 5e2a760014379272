"""Tissue: an image encoder's embeddings, sparse codes, genes predicted from them, and which codes matter for which.

from elute.tissue import EmbeddingExporter
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from elute.tissue.exporter import EmbeddingExporter as EmbeddingExporter

# What users import, and where it is: nothing is loaded before it is asked for.
_FACE = {"EmbeddingExporter": "elute.tissue.exporter"}


def __getattr__(name: str) -> Any:
    """Import a name of the face when it is first used."""
    if name not in _FACE:
        raise AttributeError(f"elute.tissue has no {name!r}")
    from importlib import import_module

    return getattr(import_module(_FACE[name]), name)


def __dir__() -> list[str]:
    return sorted(_FACE)

"""A network in a folder of the transformers library: `config.json` beside `model.safetensors`.

Nothing is fetched, nothing in the folder is executed, and weights that are missing are an error, where the library
would draw them at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from elute.base import files
from elute.base.doctor import how_to_install
from elute.base.errors import DamagedError, DataError, MissingError
from elute.base.tensors import safetensors_header

SETTINGS, WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"{WEIGHTS}.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_EXTRA = "geneformer"
_SHOWN = 4


def library() -> Any:
    """Return the transformers library."""
    try:
        import transformers
    except ModuleNotFoundError as error:
        if error.name != "transformers":
            raise
        raise MissingError("transformers is not installed", remedy=f"Type: {how_to_install(_EXTRA)}") from None
    return transformers


def read_settings(folder: Path, what: str) -> dict[str, Any]:
    """Read what kind of network a folder holds; `what` says in an error what was expected."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "is not there"
        raise DataError(state, where=folder, remedy=f"{what} holds {SETTINGS} and {WEIGHTS}.")
    remedy = f"{what} holds {SETTINGS} and {WEIGHTS}."
    held = files.read_json(folder / SETTINGS, what="a network's settings", remedy=remedy)
    if not isinstance(held, dict) or not isinstance(held.get("model_type"), str):
        raise DataError("names no model_type", where=folder / SETTINGS, remedy=remedy)
    return held


def read_network(kind: Any, folder: Path, **settings: Any) -> Any:
    """Read a network of a class of the library, in single precision and for evaluation alone."""
    import torch

    _check_weights(folder)
    with _quiet():
        try:
            network, told = kind.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # told apart below, by name
                **settings,
            )
        except Exception as error:  # noqa: BLE001  # the library raises of every kind for a folder that it cannot read
            raise DataError(f"cannot be read ({_first(error)})", where=folder, remedy=f"Check {SETTINGS}.") from None
    _check_told(told, folder)
    return network.requires_grad_(False).eval()


def plain_settings(config: Any) -> dict[str, Any]:
    """Return what tells a network from others of the same weights, less what says who wrote and loaded it."""
    held: dict[str, Any] = config.to_dict()
    passing = ("transformers_version", "dtype", "torch_dtype", "architectures", "chunk_size_feed_forward")
    return {key: value for key, value in held.items() if key[:1] != "_" and key not in passing}


def _check_weights(folder: Path) -> None:
    """Refuse weights that are absent, pickled or cut short before the library sees them."""
    if (folder / WEIGHTS).exists():
        parts = [WEIGHTS]
    elif (folder / _INDEX).exists():
        index = files.read_json(folder / _INDEX, what="an index of weights", remedy="Fetch it anew.")
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not all(isinstance(n, str) and Path(n).name == n for n in named.values()):
            raise DamagedError(
                "is not an index of weights in its folder", where=folder / _INDEX, remedy="Fetch it anew."
            )
        parts = sorted(set(named.values()))
    elif any((folder / name).exists() for name in _PICKLED):
        remedy = "docs/guide/other-models.md says how to make safetensors of them."
        raise DataError(f"holds pickled weights alone and no {WEIGHTS}", where=folder, remedy=remedy)
    else:
        raise DataError(f"holds no {WEIGHTS}", where=folder, remedy="Fetch the weights too.")
    for part in parts:
        safetensors_header(folder / part)


def _check_told(told: Mapping[str, Any], folder: Path) -> None:
    if wrong := sorted(told["mismatched_keys"]):
        shapes = [f"{name} is {list(there)}, not {list(wanted)}" for name, there, wanted in wrong[:_SHOWN]]
        remedy = f"Check that {SETTINGS} and the weights are of one network."
        raise DataError("; ".join(shapes), where=folder / WEIGHTS, remedy=remedy)
    if missing := sorted(told["missing_keys"]):
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        what = f"{', '.join(missing[:_SHOWN])}{more} missing"
        raise DataError(
            what, where=folder / WEIGHTS, remedy=f"Check that {SETTINGS} and the weights are of one network."
        )


def _first(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:2])[:200]}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's tables and bars off a person's terminal: what they say that matters is an error here."""
    import logging as levels

    logging = library().utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()

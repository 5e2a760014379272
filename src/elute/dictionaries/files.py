"""A dictionary's file, `sae_final.pt` (docs/formats/dictionary.md): tensors and one string of JSON; nothing else.

Tensors are shaped as the field's users know them: W_enc [read, features], W_dec [features, write]. The file keeps
strides, and in memory W_enc is a row a feature, so the one is the other's transposed view.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pydantic import ValidationError

from elute.base import files
from elute.base.errors import ConfigError, DamagedError, DataError, VersionError
from elute.base.tensors import load_tensors, safetensors_header, write_safetensors
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec

if TYPE_CHECKING:
    from torch import Tensor, nn

SCHEMA = 1
NAME = "sae_final.pt"
_REMEDY = "Train it anew, or restore it from a copy."


def save_dictionary(dictionary: Dictionary, path: Path | str) -> Path:
    """Write a dictionary's file."""
    import torch

    path = Path(path)
    tensors = {name: tensor.cpu() for name, tensor in _named(dictionary).items()}
    content: dict[str, Any] = {"config": _config(dictionary), **tensors}

    def fill(handle: BinaryIO) -> None:
        torch.save(content, handle)

    files.write_atomically(path, fill)
    return path


def load_dictionary(path: Path | str) -> Dictionary:
    """Read a dictionary from its file, or from the folder of its run."""
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise DataError("there is no dictionary", where=path, remedy="Give the folder of a training run, or its file.")
    content = _from_safetensors(path) if path.suffix == ".safetensors" else load_tensors(path)
    if not isinstance(content, dict) or not isinstance(content.get("config"), str):
        remedy = "`elute arrays import-dictionary` reads those of other libraries."
        raise DamagedError("is not a dictionary of elute", where=path, remedy=remedy)
    dictionary = _described(content.pop("config"), path)
    _fill(dictionary, content, path)
    return dictionary.eval().requires_grad_(requires_grad=False)


def save_safetensors(dictionary: Dictionary, path: Path | str) -> Path:
    """Write a dictionary as one safetensors file: the same tensors, the description in its header."""
    path = Path(path)
    named = _named(dictionary).items()
    wide = {name: tensor.cpu().float() if tensor.dtype.itemsize < 4 else tensor.cpu() for name, tensor in named}
    arrays = {name: tensor.contiguous().numpy() for name, tensor in wide.items()}
    kinds = {name: f"F{8 * tensor.dtype.itemsize}" for name, tensor in wide.items()}
    write_safetensors(path, arrays, dtype=kinds, metadata={"config": _config(dictionary)})
    return path


def digest(dictionary: Dictionary) -> str:
    """Digest of a dictionary's description and weights, however it was stored."""
    import torch

    parts = [files.digest_bytes(_config(dictionary).encode())]
    for name, tensor in sorted(_named(dictionary).items()):
        content = tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()
        parts += [files.digest_bytes(name.encode()), files.digest_bytes(content)]
    return files.digest_bytes("".join(parts).encode())


def _config(dictionary: Dictionary) -> str:
    """The description as JSON: keys sorted, but for the sites, whose order is that of the columns."""
    told = {"schema_version": SCHEMA, **dictionary.spec.model_dump(mode="json")}
    for name in set(told) - {"reads", "writes"}:
        told[name] = json.loads(json.dumps(told[name], sort_keys=True))
    return json.dumps(dict(sorted(told.items())))


def _from_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    header = safetensors_header(path)[1]
    config = (header.get("__metadata__") or {}).get("config")
    try:
        return {"config": config, **load_file(path)}
    except (SafetensorError, ValueError, KeyError) as error:  # a type or shape that its bytes do not fit, or unknown
        raise DamagedError("its tensors are damaged", where=path, remedy=_REMEDY) from error


def _named(dictionary: Dictionary) -> dict[str, Tensor]:
    """Every tensor with its name and shape in the file."""
    named = {"b_dec": dictionary.b_dec.detach()}
    if dictionary.W_skip is not None:
        named["W_skip"] = dictionary.W_skip.detach().T
    for number, bank in enumerate(dictionary):
        suffix = f".{number}" if len(dictionary.banks) > 1 else ""
        named |= {f"W_enc{suffix}": bank.W_enc.detach().T, f"W_dec{suffix}": bank.W_dec.detach()}
        named[f"b_enc{suffix}"] = bank.b_enc.detach()
        named |= {f"{name}{suffix}": getattr(bank, name).detach() for name in bank.extra}
    return named


def _described(text: str, path: Path) -> Dictionary:
    """Make the dictionary that a file describes, without memory for its numbers: the file brings them."""
    import torch

    spec = _spec(text, path)
    try:
        with torch.device("meta"):
            return Dictionary(spec)
    except ConfigError as error:
        raise ConfigError(error.what, where=path, remedy=error.remedy) from error
    except RuntimeError as error:  # sizes that overflow
        raise DamagedError("its description is damaged", where=path, remedy=_REMEDY) from error


def _spec(text: str, path: Path) -> DictionarySpec:
    damaged = DamagedError("its description is damaged", where=path, remedy=_REMEDY)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise damaged from None
    schema = config.pop("schema_version", None) if isinstance(config, dict) else None
    if type(schema) is not int or schema < 1:
        raise damaged
    if schema > SCHEMA:
        raise VersionError("was written by a newer elute", where=path, remedy="Update elute.")
    try:
        return DictionarySpec.model_validate(config)
    except ValidationError:
        raise damaged from None


def _fill(dictionary: Dictionary, content: dict[str, Any], path: Path) -> None:
    """Put tensors in their places, without a copy where they lie as in memory."""
    import torch

    wanted = _named(dictionary)
    for name in sorted(wanted.keys() | content.keys(), key=str):
        have = content.get(name)
        if name not in wanted or not isinstance(have, torch.Tensor):
            what = f"holds {name!r}, which it does not describe" if name not in wanted else f"has no tensor {name!r}"
            raise DamagedError(what, where=path, remedy=_REMEDY)
        if have.shape != wanted[name].shape or not have.dtype.is_floating_point:
            what = f"{name} is {str(have.dtype).removeprefix('torch.')} {[*have.shape]}"
            raise DamagedError(f"{what}, its description says {[*wanted[name].shape]}", where=path, remedy=_REMEDY)
        if have.layout != torch.strided or have.device.type != "cpu":
            raise DamagedError(f"{name} is no plain tensor", where=path, remedy=_REMEDY)
    wide = torch.float64 if any(have.dtype == torch.float64 for have in content.values()) else torch.float32
    for name, have in content.items():
        content[name] = have.detach().to(wide)
        if not bool(torch.isfinite(content[name]).all()):
            raise DamagedError(f"{name} holds NaN or infinity", where=path, remedy=_REMEDY)
    _put(dictionary, "b_dec", content["b_dec"])
    if dictionary.W_skip is not None:
        _put(dictionary, "W_skip", content["W_skip"].T)
    for number, bank in enumerate(dictionary):
        suffix = f".{number}" if len(dictionary.banks) > 1 else ""
        for name in ("W_enc", "W_dec", "b_enc", *bank.extra):
            have = content[f"{name}{suffix}"]
            _put(bank, name, have.T if name == "W_enc" else have)


def _put(module: nn.Module, name: str, have: Tensor) -> None:
    """Replace a parameter or a buffer."""
    from torch import nn

    if name in dict(module.named_buffers(recurse=False)):
        module.register_buffer(name, have.contiguous())
    else:
        setattr(module, name, nn.Parameter(have.contiguous(), requires_grad=False))

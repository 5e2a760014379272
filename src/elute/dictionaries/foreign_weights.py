"""What the readers of other libraries' files share: checked tensors, checked settings, and what is folded into weights.

A dictionary of elute takes raw rows and subtracts nothing from them, so whatever another library does before its
encoder or after its decoder goes into the weights here. Sums over a row's width are taken in float64.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from pydantic import ValidationError

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.base.recipe import first_fault
from elute.base.tensors import safetensors_header
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T", bool, int, float, str)

REMEDY = "Save it again with the library that made it, or fetch it anew."
_PIECE = 1 << 24  # numbers in float64 at a time
_HIGHEST = 1e38  # a threshold that nothing reaches, with a finite logarithm
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}


@dataclass
class Weights:
    """A dictionary's tensors before it is one: a row a feature; what is not there is None."""

    W_enc: Tensor  # [features, read]
    W_dec: Tensor  # [features, write]
    b_enc: Tensor
    b_dec: Tensor
    W_skip: Tensor | None = None  # [write, read]
    threshold: Tensor | None = None  # a number, or one a feature
    r_mag: Tensor | None = None
    b_mag: Tensor | None = None

    def fold_centre(self, centre: Tensor) -> None:
        """Take raw rows where the weights were made for rows less a centre."""
        shift = product(self.W_enc, centre[:, None])[:, 0]
        self.b_enc = self.b_enc - shift
        if self.b_mag is not None and self.r_mag is not None:
            self.b_mag = self.b_mag - shift * self.r_mag.exp()

    def fold_norms(self) -> None:
        """Give values in units of reconstruction, where features compete by value times norm; thresholds stay."""
        norms = self.W_dec.norm(dim=1).clamp(min=1e-8)
        self.W_enc = self.W_enc * norms[:, None]
        self.b_enc = self.b_enc * norms
        self.W_dec = self.W_dec / norms[:, None]

    def fold_scale(self, scale: float) -> None:
        """Take and give raw rows where the weights were made for rows times a number."""
        self.W_enc, self.W_dec, self.b_dec = self.W_enc * scale, self.W_dec / scale, self.b_dec / scale

    def fold_whitening(self, mean: Tensor, *, matrix: Tensor, inverse: Tensor) -> None:
        """Take and give raw rows x where the weights were made for (x − mean) matrix."""
        self.W_enc = product(self.W_enc, matrix.T)
        self.fold_centre(mean)
        self.W_dec = product(self.W_dec, inverse)
        self.b_dec = product(self.b_dec[None], inverse)[0] + mean.to(self.b_dec.dtype)

    def dictionary(self, spec: DictionarySpec) -> Dictionary:
        """Build the dictionary, ready for use."""
        made = Dictionary(spec)
        (bank,) = list(made)
        found: dict[str, Any] = {"r_mag": self.r_mag, "b_mag": self.b_mag}
        found |= {"W_enc": self.W_enc, "W_dec": self.W_dec, "b_enc": self.b_enc}
        if self.threshold is not None:
            found["threshold"] = self.threshold.reshape(-1).clamp(-_HIGHEST, _HIGHEST)
            # A threshold of zero or less lets through all that is positive, as does the smallest number.
            tiny = torch.finfo(self.W_enc.dtype).tiny
            found["log_threshold"] = self.threshold.double().clamp(tiny, _HIGHEST).log()
        for name in ("W_enc", "W_dec", "b_enc", *bank.extra):
            getattr(bank, name).data = found[name].to(self.W_enc.dtype).contiguous()
        made.b_dec.data = self.b_dec.contiguous()
        if made.W_skip is not None and self.W_skip is not None:
            made.W_skip.data = self.W_skip.contiguous()
        return made.eval().requires_grad_(requires_grad=False)


def product(left: Tensor, right: Tensor) -> Tensor:
    """Multiply two matrices in float64, some rows at a time, into the type of the left one."""
    right = right.double()
    rows = max(1, _PIECE // max(1, left.shape[1]))
    pieces = (left[start : start + rows] for start in range(0, len(left), rows))
    return torch.cat([(piece.double() @ right).to(left.dtype) for piece in pieces])


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of a safetensors file whose header has been checked."""
    from safetensors import SafetensorError, safe_open

    safetensors_header(path)
    try:
        with safe_open(path, framework="pt") as handle:
            return {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, TypeError, KeyError, AttributeError, RuntimeError):
        raise DamagedError("is not a whole safetensors file", where=path, remedy=REMEDY) from None


def matched(tensors: dict[str, Tensor], shapes: Mapping[str, str], *, where: Path) -> dict[str, int]:
    """Hold tensors against shapes in words ("features read"); return what each word stands for.

    Half precision becomes float32; all then have the type of W_enc, or of the first one.
    """
    sizes: dict[str, int] = {}
    for name in sorted(tensors.keys() - shapes.keys()):
        raise DamagedError(f"holds a tensor {name!r}, which nothing here would use", where=where, remedy=REMEDY)
    for name, words in shapes.items():
        if name not in tensors:
            raise DamagedError(f"has no tensor {name!r}", where=where, remedy=REMEDY)
        tensor, dims = tensors[name], words.split()
        shape = [*tensor.shape]
        if not tensor.dtype.is_floating_point or len(shape) != len(dims) or 0 in shape:
            what = f"{name} is {str(tensor.dtype).removeprefix('torch.')} {shape}, not numbers [{', '.join(dims)}]"
            raise DamagedError(what, where=where, remedy=REMEDY)
        for dim, size in zip(dims, shape, strict=True):
            if sizes.setdefault(dim, size) != size:
                what = f"{name} is {shape}, not [{', '.join(dims)}] with {dim} = {sizes[dim]} as its neighbours have"
                raise DamagedError(what, where=where, remedy=REMEDY)
        # A feature is switched off by an infinite threshold; anything else that is not finite is damage.
        whole = ~tensor.isnan() if "threshold" in name else tensor.float().isfinite()
        if not bool(whole.all()):
            raise DamagedError(f"{name} holds NaN or infinity", where=where, remedy=REMEDY)
    kind = next(tensors[name].dtype for name in shapes)
    kind = torch.float32 if kind.itemsize < 4 else kind
    for name in shapes:
        tensors[name] = tensors[name].to(kind)
    return sizes


def agreed(config: Mapping[str, Any], name: str, size: int, *, where: Path) -> None:
    """Hold a size that a configuration names against that of the tensors."""
    if config.get(name, size) != size:
        what = f"{name} = {config[name]!r} in its configuration, but its tensors say {size}"
        raise DamagedError(what, where=where, remedy=REMEDY)


def setting(config: Mapping[str, Any], name: str, default: T, *, where: Path) -> T:
    """Return a setting of the default's type; what is absent or null is the default."""
    value = config.get(name)
    if value is None:
        return default
    kind = type(default)
    if kind is float and type(value) is int:
        value = float(value)
    if type(value) is not kind:
        raise ConfigError(f"{name} = {value!r} is not {_WORDS[kind]}", where=where)
    return value


def described(where: Path, **fields: Any) -> DictionarySpec:
    """Describe the dictionary; what cannot be one is said in one line."""
    try:
        return DictionarySpec(**fields)
    except ValidationError as error:
        key, what = first_fault(error)
        raise ConfigError(f"{key}: {what}" if key else what, where=where) from None


def read_config(path: Path, *, what: str) -> dict[str, Any]:
    """Read a configuration, which must be a JSON object."""
    from elute.base.files import read_json

    config = read_json(path, what=what, remedy=REMEDY)
    if not isinstance(config, dict):
        raise DataError(f"is not {what}, which is a JSON object", where=path, remedy=REMEDY)
    return config

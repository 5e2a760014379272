"""What a vision network is named by, and what comes of it: a torch module, its settings and its preprocessing.

    a folder             config.json beside model.safetensors: of the transformers library, or our own small ViT
    hf://owner/name      such a folder on a hub; owner/name will do where no folder has that name
    timm:NAME            a model of the timm library, where it is installed
    package.module:name  a function of yours that returns a torch module, or one and its settings

A user's own settings are a mapping with any of image_size, mean, std, prefix, blocks and sites.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from elute.base import console
from elute.base.doctor import how_to_install
from elute.base.errors import ConfigError, DataError, MissingError, near
from elute.base.hub.address import parse
from elute.base.hub.connection import Kind
from elute.base.hub.pull import in_cache, pull
from elute.models import pretrained
from elute.models.vision import small
from elute.models.vision.preprocessing import FILE, Preprocessing, read_preprocessing

if TYPE_CHECKING:
    from elute.base.hub.address import Address

FETCHED = Kind(
    "vision model",
    ("config.json", FILE, "model.safetensors", "model.safetensors.index.json", "model-*.safetensors"),
    ("config.json",),
)
SETTINGS = ("image_size", "mean", "std", "prefix", "blocks", "sites")
_WHAT = "A vision model's folder"
_IMPORTED = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
_OWNED = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
TIMM = "timm:"


@dataclass(frozen=True)
class Opened:
    """A network, and what is known of it."""

    module: nn.Module
    name: str
    preprocessing: Preprocessing | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    fresh: Callable[[], nn.Module] | None = None
    """Makes the same network before its training, by its own first weights."""
    coloured: bool = True
    """Whether it is known how its colours are normalised."""


def open_network(network: str | Path | nn.Module) -> Opened:
    """Open what a network is named by."""
    if isinstance(network, nn.Module):
        return of_module(network, type(network).__name__)
    text = str(network)
    if isinstance(network, Path) or Path(text).is_dir():
        return _folder(Path(network))
    if text.startswith(TIMM):
        return _timm(text.removeprefix(TIMM))
    if (address := parse(text)) is not None:
        return _folder(_fetched(address), name=text)
    if _IMPORTED.fullmatch(text):
        return _imported(text)
    if _OWNED.fullmatch(text) and not Path(text).parent.is_dir() and (address := parse(f"hf://{text}")) is not None:
        return _folder(_fetched(address), name=text)
    remedy = "Give a model's folder, hf://owner/name, timm:NAME, or package.module:function."
    raise DataError("is no vision model that is there", where=text, remedy=remedy)


def of_module(module: nn.Module, name: str, settings: Mapping[str, Any] | None = None) -> Opened:
    """Take a module that is there, with what it says of itself."""
    config = getattr(module, "config", None)
    told = {key: value for key in ("image_size", "mean", "std") if (value := _said(module, config, key)) is not None}
    told |= dict(settings or {})
    if unknown := [key for key in told if key not in SETTINGS]:
        raise ConfigError(f"a network's settings have no {unknown[0]!r}", where=name, remedy=near(unknown[0], SETTINGS))
    size = told.get("image_size")
    if size is not None and not isinstance(size, int):
        height, width = size
        if height != width:
            raise ConfigError(f"it reads pictures of {width} × {height}", where=name, remedy="Tiles are square.")
        size = told["image_size"] = int(height)
    known = "mean" in told and "std" in told
    if size is None:
        return Opened(module, name, None, told, coloured=known)
    made = Preprocessing(size)
    made = made.changed(size=None, crop=None, mean=told.get("mean"), std=told.get("std"))
    return Opened(module, name, made, told, coloured=known)


def _said(module: nn.Module, config: Any, key: str) -> Any:
    found = getattr(module, key, None)
    return getattr(config, key, None) if found is None or isinstance(found, (nn.Module, torch.Tensor)) else found


def _folder(folder: Path, name: str | None = None) -> Opened:
    held = pretrained.read_settings(folder, _WHAT)
    if held["model_type"] == small.MODEL_TYPE:
        network = small.load(folder)
        opened = of_module(network, name or folder.name)
        return Opened(
            network, opened.name, opened.preprocessing, opened.settings, lambda: small.SmallViT(network.config)
        )
    module, config = _of_library(folder)
    size = getattr(config, "image_size", None) or 224
    size = size if isinstance(size, int) else size[0]
    made = read_preprocessing(folder, size)
    if made is None:
        made = Preprocessing(size)
        console.warn(f"{folder}: no {FILE} says how pictures are read: {size} pixels, colours from -1 to 1")
    kind = type(module)
    return Opened(module, name or folder.name, made, {}, lambda: kind(config))


def _of_library(folder: Path) -> tuple[nn.Module, Any]:
    """Read a network of the transformers library; of one that also reads texts, the part that reads pictures."""
    try:
        kind = pretrained.library().AutoModel
    except MissingError as error:
        raise MissingError(error.what, where=folder, remedy=f"Type: {how_to_install('tissue')}") from None
    try:
        network = pretrained.read_network(kind, folder, trust_remote_code=False)
    except DataError as error:
        if "pooler" not in error.what:
            raise
        # A head that the weights do not have is left out, and not drawn at random.
        network = pretrained.read_network(kind, folder, add_pooling_layer=False, trust_remote_code=False)
    network = getattr(network, "vision_model", network)
    if getattr(network, "main_input_name", "pixel_values") != "pixel_values":
        what = f"a {type(network).__name__} reads {network.main_input_name}, not pictures"
        raise DataError(what, where=folder, remedy="Give the folder of a vision model.")
    return network, network.config


def _fetched(address: Address) -> Path:
    """The folder of a model on a hub; without a revision what was fetched first is used from then on."""
    if address.revision is None and (whole := in_cache(address, FETCHED)):
        return whole[0].folder
    found = pull(address, FETCHED)
    console.say(f"{found.address}: {found.folder}")
    return found.folder


def _imported(text: str) -> Opened:
    path, _, called = text.partition(":")
    top = path.partition(".")[0]
    here = str(Path.cwd())
    if here not in sys.path and any(Path(here, name).exists() for name in (top, f"{top}.py")):
        sys.path.append(here)  # a console script does not look where it is started; last, so that nothing is hidden
    try:
        module = importlib.import_module(path)
    except ModuleNotFoundError as error:
        if error.name is None or not (path == error.name or path.startswith(f"{error.name}.")):
            raise
        remedy = "Check the name; it is looked for in the current folder and among what is installed."
        raise ConfigError(f"there is no module {error.name!r}", where=text, remedy=remedy) from None
    function = getattr(module, called, None)
    if function is None:
        raise ConfigError(f"{path} has no {called!r}", where=text, remedy=near(called, vars(module)))
    made = function() if callable(function) and not isinstance(function, nn.Module) else function
    network, settings = made if isinstance(made, tuple) and len(made) == 2 else (made, {})
    if not isinstance(network, nn.Module) or not isinstance(settings, Mapping):
        what = f"{called} gave {type(network).__name__}, not a torch module"
        raise ConfigError(what, where=text, remedy="Return an nn.Module, or one and a mapping of settings.")
    return of_module(network.requires_grad_(requires_grad=False).eval(), text, settings)


def _timm(name: str) -> Opened:
    try:
        timm = importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name != "timm":
            raise
        raise MissingError(
            "timm is not installed", where=TIMM + name, remedy=f"Type: {how_to_install('timm')}"
        ) from None
    try:
        network = timm.create_model(name, pretrained=True, num_classes=0)
        data = timm.data.resolve_model_data_config(network)
    except Exception as error:  # noqa: BLE001  # the library raises of every kind for a name that it does not know
        lines = str(error).splitlines() or [type(error).__name__]
        raise DataError(f"timm cannot open it: {lines[0][:160]}", where=TIMM + name, remedy="Check the name.") from None
    size = int(data["input_size"][-1])
    filters = {"nearest": 0, "lanczos": 1, "bilinear": 2, "bicubic": 3}
    edge = round(size / float(data.get("crop_pct") or 1.0))
    made = Preprocessing(
        size,
        edge if edge > size else None,
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        resample=filters.get(data.get("interpolation", "bicubic"), 3),
    )
    network = network.requires_grad_(requires_grad=False).eval()
    return Opened(network, name, made, {}, lambda: timm.create_model(name, pretrained=False, num_classes=0))

"""Vision networks as models of elute: a vision transformer's tokens, or what any network of images gives.

    model = elute.load_model("vit", network="phikon/")            # see models/vision/opening.py for what it may be
    model.grid, model.prefix                                      # (14, 14), 1
    for batch, metadata in model.batches(tiles, per_token=True):  # pictures uint8 [height, width, 3]
        rows = model.capture(batch, ["blocks.11.hook_resid_post"])

Rows are those of patches, row by row; the tokens before them (class token, registers) are dropped. Sites are named as
models/blocks.py does, and `final_norm` is what the network's last norm gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from elute.base import console, files
from elute.base.contracts import Fingerprint, Site
from elute.base.device import choose
from elute.base.errors import ConfigError, DataError, SiteError, near
from elute.models.module import TorchModel
from elute.models.pretrained import SETTINGS, library, plain_settings
from elute.models.vision.batching import Batcher, Chunk, Views, chunks
from elute.models.vision.opening import open_network
from elute.models.vision.patches import Layout, lay_out
from elute.models.vision.preprocessing import Preprocessing
from elute.models.vision.redrawing import redrawn

if TYPE_CHECKING:
    import polars as pl

TYPES = (
    *("elute_vit", "vit", "deit", "beit", "data2vec-vision", "dinov2", "dinov2_with_registers", "dinov3_vit"),
    *("ijepa", "vit_msn", "clip_vision_model", "siglip_vision_model"),
)
_NUMBERS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Vit(TorchModel):
    """A network of images with its preprocessing."""

    def __init__(
        self,
        module: nn.Module,
        layout: Layout,
        preprocessing: Preprocessing,
        *,
        name: str | None = None,
        batch_size: int = 32,
        precision: str = "fp32",
    ) -> None:
        """Hold a network whose tokens lie as `layout` says."""
        config = getattr(module, "config", None)
        super().__init__(
            module,
            layout.sites,
            name=name,
            keep=lambda batch: batch.get("keep"),
            forward=self._run,
            config=plain_settings(config) if hasattr(config, "to_dict") else None,
        )
        self.layout, self.preprocessing = layout, preprocessing
        self.grid, self.prefix, self.last = layout.grid, layout.prefix, layout.last
        self.image_size, self.mean, self.std = preprocessing.size, preprocessing.mean, preprocessing.std
        self.batch_size, self.precision = batch_size, precision

    def batches(self, data: Any, **settings: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        """Yield batches of pictures with a row of metadata a patch, or with `per_token=False` a row a picture.

        `data` are tiles, an array of pictures or a list of them. Settings are batch_size, per_token, epochs, augment
        and seed. A picture's own row is that of the class token.
        """
        size = int(settings.pop("batch_size", self.batch_size))
        batcher = self.batcher(data, **settings)
        if not batcher.per_token and self.grid is not None and self.prefix == 0:
            what = "there is no class token to stand for a picture"
            raise ConfigError(what, where=self.name, remedy="Take the mean over its patches.")
        with ThreadPoolExecutor(1) as ahead:
            # While the network is at work on one batch, the pictures of the next are read.
            pending: Future[Tensor] | None = None
            for chunk, following in pairwise(chain(chunks(len(batcher), batcher.views, size), [None])):
                if chunk is None:
                    return
                pixels = (pending or ahead.submit(batcher.pixels, chunk)).result()
                pending = None if following is None else ahead.submit(batcher.pixels, following)
                yield self.batch(pixels, per_token=batcher.per_token), batcher.metadata(chunk)

    def batcher(
        self,
        data: Any,
        *,
        per_token: bool = True,
        epochs: tuple[int, ...] = (0,),
        augment: str = "none",
        seed: int = 0,
    ) -> Batcher:
        """Return what reads pictures for this network, chunk by chunk."""
        views = Views(tuple(epochs), augment, seed)
        return Batcher(data, views, preprocessing=self.preprocessing, grid=self.grid, per_token=per_token)

    def batch(self, pixels: Tensor, *, per_token: bool = True) -> dict[str, Any]:
        """Make a batch of pixels [n, 3, size, size] that are on the network's scale."""
        if pixels.dim() != 4 or tuple(pixels.shape[1:]) != (3, self.image_size, self.image_size):
            size = self.image_size
            raise DataError(
                f"pixels of shape {list(pixels.shape)}", where=self.name, remedy=f"[n, 3, {size}, {size}] are read."
            )
        keep = None
        if self.grid is not None:
            keep = torch.zeros(len(pixels), self.layout.tokens, dtype=torch.bool)
            if per_token:
                keep[:, self.prefix :] = True
            else:
                keep[:, 0] = True
        return {"pixel_values": pixels, "keep": keep}

    def read(self, batcher: Batcher, chunk: Chunk) -> dict[str, Any]:
        """Read the batch of a chunk."""
        return self.batch(batcher.pixels(chunk), per_token=batcher.per_token)

    def site_of(self, layer_name: str | None) -> str:
        """The site that a layer's name means: one of ours, or a module's path; the last block's where none is given."""
        if layer_name is None:
            return self.last
        if layer_name not in self.sites:
            parts = [path for path, _ in self.module.named_modules() if path]
            if layer_name not in parts:
                known = [*self.sites, *parts]
                raise SiteError(f"there is no layer {layer_name!r}", where=self.name, remedy=near(layer_name, known))
            self.sites = {**self.sites, layer_name: Site(layer_name)}
        return layer_name

    def fingerprint(self) -> Fingerprint:
        """Say what gives the rows: the network, and how pictures are brought to it."""
        found = super().fingerprint()
        told = [found.config, vars(self.preprocessing), self.precision, self.prefix]
        return Fingerprint(found.name, found.weights, files.digest_json(told), found.sites)

    def _run(self, module: nn.Module, batch: Mapping[str, Any]) -> Any:
        return _forward(module, batch["pixel_values"], self.precision)


def load(
    network: str | Path | nn.Module,
    *,
    image_size: int | None = None,
    crop: bool | None = None,
    mean: Any = None,
    std: Any = None,
    blocks: str | None = None,
    prefix: int | None = None,
    sites: Mapping[str, Site | str] | None = None,
    batch_size: int = 32,
    device: str | None = None,
    precision: str = "fp32",
    random_weights: bool = False,
    seed: int = 0,
    name: str | None = None,
) -> Vit:
    """Open a vision network; what is not given is what its folder says, or is found by running it once.

    `crop` says whether the middle of a picture is read or all of it. A module stays on its device unless one is named.
    """
    if precision not in _NUMBERS:
        raise ConfigError(f"precision is {precision!r}", where="vit", remedy=near(str(precision), _NUMBERS))
    opened = open_network(network)
    made = opened.preprocessing
    if made is None:
        if image_size is None:
            what = "the network does not say how large its pictures are"
            raise ConfigError(what, where=opened.name, remedy="Give image_size.")
        made = Preprocessing(image_size)
    if not opened.coloured and (mean is None or std is None):
        console.say(f"{opened.name}: does not say how its colours are normalised; they are from -1 to 1 (mean=, std=)")
    made = made.changed(size=image_size, crop=crop, mean=mean, std=std)
    module, called = opened.module, name or opened.name
    if random_weights:
        module, called = redrawn(module, seed, fresh=opened.fresh), f"{called} (random weights {seed})"
    if not isinstance(network, nn.Module) or device is not None:
        module = module.to(choose(device or "auto").device)
    layout = lay_out(
        module,
        _probe(module, made.size, precision),
        made.size,
        blocks=blocks or opened.settings.get("blocks"),
        prefix=opened.settings.get("prefix") if prefix is None else prefix,
        sites={**(opened.settings.get("sites") or {}), **(sites or {})},
    )
    return Vit(module, layout, made, name=called, batch_size=batch_size, precision=precision)


MODEL = load


def reads(folder: Path) -> bool:
    """Whether a folder holds a vision network."""
    path = folder / SETTINGS
    if not path.is_file():
        return False
    held = files.read_json(path, what="a network's settings")
    return isinstance(held, dict) and held.get("model_type") in TYPES


def example() -> tuple[Vit, Any]:
    """Return a tiny vision transformer with random weights and pictures for it, with which the contract is tested."""
    transformers = library()
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=32,
        patch_size=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = transformers.ViTModel(config, add_pooling_layer=False).requires_grad_(False).eval()
        pictures = torch.randint(0, 256, (5, 40, 40, 3), dtype=torch.uint8).numpy()
    return load(module, batch_size=2), pictures


def _probe(module: nn.Module, size: int, precision: str) -> Any:
    device = next((x.device for x in chain(module.parameters(), module.buffers())), torch.device("cpu"))
    pixels = torch.zeros(1, 3, size, size, device=device)

    def run() -> Any:
        try:
            return _forward(module, pixels, precision)
        except (SiteError, DataError):
            raise
        except Exception as error:
            lines = str(error).splitlines() or [""]
            what = f"it could not be run on a picture of {size} × {size} ({type(error).__name__}: {lines[0][:120]})"
            raise ConfigError(
                what, where=type(module).__name__, remedy="Give image_size, a size that it reads."
            ) from error

    return run


def _forward(module: nn.Module, pixels: Tensor, precision: str) -> Any:
    """Run a network on pixels, however it wants them handed over."""
    config = getattr(module, "config", None)
    given: dict[str, Any] = {}
    if getattr(module, "main_input_name", None) == "pixel_values" and _takes(module, "interpolate_pos_encoding"):
        said = getattr(config, "image_size", None)
        sides = tuple(said) if isinstance(said, (tuple, list)) else (said, said)
        given = {} if tuple(pixels.shape[2:]) == sides else {"interpolate_pos_encoding": True}
    number = _NUMBERS[precision]
    with torch.autocast(pixels.device.type, number, enabled=number is not torch.float32):
        return module(pixels, **given)


def _takes(module: nn.Module, argument: str) -> bool:
    from inspect import signature

    return argument in signature(module.forward).parameters

"""Any encoder of the transformers library as a model of elute, or a module laid out like one, with your own tokeniser.

    model = elute.load_model("encoder", network="my/folder", tokenise=tokenizer)
    for batch, metadata in model.batches(["MKTAYIAK", "GSHM"]):
        rows = model.capture(batch, ["blocks.3.hook_resid_post"])

`tokenise(item)` gives a mapping of what the network reads of one item, without a batch axis, or with one of length 1.
Items are put together and padded to the longest. `attention_mask` says which positions are rows, or `keep` in the
mapping where it is there, which the network does not get; where there is neither, all positions are. The sites are
those of models/blocks.py, and your own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
import torch
from torch import Tensor, nn

from elute.base.contracts import Site
from elute.base.device import choose
from elute.base.errors import ConfigError, DataError, SiteError
from elute.models.blocks import find_blocks, find_sites
from elute.models.module import TorchModel
from elute.models.pretrained import library, plain_settings, read_network, read_settings
from elute.models.rows import describe

if TYPE_CHECKING:
    Tokenise = Callable[[Any], Mapping[str, Any]]
    Metadata = Callable[[Any], Mapping[str, Any]] | Mapping[str, Sequence[Any]] | pl.DataFrame | None

_WHAT = "An encoder's folder"


class Encoder(TorchModel):
    """A network with a tokeniser, whose data are any items."""

    def __init__(
        self,
        module: nn.Module,
        sites: Mapping[str, Site | str],
        tokenise: Tokenise,
        *,
        metadata: Metadata = None,
        padding: Mapping[str, float] | None = None,
        batch_size: int = 16,
        name: str | None = None,
    ) -> None:
        """Name what a network reads. `metadata` is a function of an item, or columns with one row an item.

        A value that is a list gives one entry a kept position of the item. `padding` is what a key is filled up with:
        0, or the network's own padding for `input_ids`.
        """
        if not callable(tokenise):
            raise ConfigError("tokenise is no function", remedy="Give one that makes a mapping of tensors of an item.")
        if batch_size < 1:
            raise ConfigError(f"batch_size={batch_size}", remedy="A batch holds at least one item.")
        config = getattr(module, "config", None)
        super().__init__(
            module,
            sites,
            name=name,
            keep=lambda batch: batch.get("keep"),
            forward=_forward,
            config=plain_settings(config) if hasattr(config, "to_dict") else None,
        )
        self.tokenise, self.batch_size = tokenise, batch_size
        own = {"input_ids": getattr(config, "pad_token_id", None) or 0}
        self.padding: dict[str, float] = {**own, **(padding or {})}
        self._describe = metadata if metadata is None or callable(metadata) else self._frame(metadata)

    def batches(self, data: Iterable[Any], **settings: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        """Yield padded batches of items with one row of metadata a kept position; `batch_size=` sets another size."""
        return self._padded(iter(data), **{"batch_size": self.batch_size, **settings})

    def _padded(self, items: Iterator[Any], *, batch_size: int) -> Iterator[tuple[Any, pl.DataFrame]]:
        first = 0
        while chosen := list(islice(items, batch_size)):
            tokens = [read_item(self.tokenise(item), first + i) for i, item in enumerate(chosen)]
            batch = collate(tokens, self.padding, first=first)
            keep = self.keep(batch)
            if keep is not None:
                places = [row.nonzero()[:, 0].tolist() for row in keep]
            else:
                rows, over = divmod(self._count(batch), len(chosen))
                if over:
                    raise SiteError("its rows are not as many for each item", where=next(iter(self.sites)))
                places = [list(range(rows))] * len(chosen)
            frames = [self._rows(item, first + i, places[i]) for i, item in enumerate(chosen)]
            yield batch, pl.concat(frames, how="vertical_relaxed")  # nothing but nulls has no type of its own
            first += len(chosen)

    def _rows(self, item: Any, number: int, places: list[int]) -> pl.DataFrame:
        """The metadata of one item's rows."""
        if self._describe is None:
            told: Mapping[str, Any] = {}
        elif isinstance(self._describe, pl.DataFrame):
            if number >= self._describe.height:
                what = f"the metadata has {self._describe.height} rows, and there are more items"
                raise DataError(what, where=self.name, remedy="Give one row an item, in their order.")
            told = self._describe.row(number, named=True)
        else:
            told = self._describe(item)
        columns: dict[str, Any] = {"sample_id": str(number), "position": pl.Series(places, dtype=pl.Int32), **told}
        for key, value in columns.items():
            if isinstance(value, (list, tuple)) and len(value) != len(places):
                what = f"item {number} has {len(places)} rows, and {len(value)} of {key!r}"
                raise DataError(what, where=self.name, remedy="Give one a kept position, or one for the item.")
            if not isinstance(value, (list, tuple, pl.Series)):
                columns[key] = pl.Series([value] * max(1, len(places))).head(len(places))
        return pl.DataFrame(columns)


def load(
    network: str | Path | nn.Module,
    tokenise: Tokenise,
    *,
    metadata: Metadata = None,
    sites: Mapping[str, Site | str] | None = None,
    blocks: str | None = None,
    probe: Any = None,
    padding: Mapping[str, float] | None = None,
    batch_size: int = 16,
    device: str | None = None,
    name: str | None = None,
) -> Encoder:
    """Load an encoder from a folder, or take a module that is there.

    `blocks` is the list of blocks where there are several. `probe` is an item with which the network is run once, to
    see what its blocks give; without it, one is made up for networks that read tokens or images. `sites` adds to what
    is found, or stands alone where there are no blocks. A module stays on its device unless one is named.
    """
    if isinstance(network, nn.Module):
        module = network if device is None else network.to(choose(device).device)
    else:
        module = _read(Path(network)).to(choose(device or "auto").device)
    found: dict[str, Site] = {}
    if not sites or blocks is not None or _has_blocks(module):
        batch = _made_up(module) if probe is None else collate([read_item(tokenise(probe), 0)], padding or {}, first=0)
        found = find_sites(module, blocks=blocks, run=None if batch is None else _runner(module, batch))
    return Encoder(
        module,
        {**found, **(sites or {})},
        tokenise,
        metadata=metadata,
        padding=padding,
        batch_size=batch_size,
        name=name,
    )


MODEL = load


def read_item(made: Any, number: int) -> dict[str, Tensor]:
    """Turn what a tokeniser gave of an item into tensors without a batch axis."""
    if not isinstance(made, Mapping) or not made:
        what = f"tokenise gave {describe(made)} for item {number}"
        raise DataError(what, remedy="It must give a mapping of tensors, such as input_ids.")
    held: dict[str, Tensor] = {}
    for key, value in made.items():
        try:
            held[str(key)] = torch.as_tensor(value)
        except (TypeError, ValueError, RuntimeError) as error:
            what = f"{key!r} of item {number} is no tensor ({str(error).splitlines()[0][:80]})"
            raise DataError(what, remedy="Give numbers of one shape.") from None
    if all(x.dim() > 1 and len(x) == 1 for x in held.values()):
        held = {key: x[0] for key, x in held.items()}
    if "input_ids" in held and "attention_mask" not in held:
        held["attention_mask"] = torch.ones(len(held["input_ids"]), dtype=torch.long)
    if "keep" not in held and "attention_mask" in held:
        held["keep"] = held["attention_mask"].bool()
    return held


def collate(items: Sequence[Mapping[str, Tensor]], padding: Mapping[str, float], *, first: int) -> dict[str, Tensor]:
    """Put items together: what is as long as its item's mask is padded to the longest, all else is of one shape."""
    batch: dict[str, Tensor] = {}
    for key in items[0]:
        if not all(key in item for item in items):
            raise DataError(f"{key!r} is not there for every item", remedy="Give the same keys for each.")
        parts = [item[key] for item in items]
        if all(_long(item, key) for item in items):
            batch[key] = nn.utils.rnn.pad_sequence(parts, batch_first=True, padding_value=padding.get(key, 0))
            continue
        for i, part in enumerate(parts):
            if part.shape != parts[0].shape:
                what = f"{key!r} is {describe(part)} for item {first + i}, and {describe(parts[0])} for item {first}"
                raise DataError(what, remedy="Give an attention_mask of each item's length, or one shape for all.")
        batch[key] = torch.stack(parts)
    return batch


def example() -> tuple[Encoder, Any]:
    """Return a tiny protein model with random weights and sequences for it, with which the contract is tested."""
    transformers = library()
    letters = "ACDEFGHIKLMNPQRSTVWY"
    config = transformers.EsmConfig(
        vocab_size=len(letters) + 4,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        pad_token_id=1,
        mask_token_id=3,
        position_embedding_type="rotary",
        token_dropout=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = transformers.EsmModel(config, add_pooling_layer=False).requires_grad_(False).eval()

    def tokenise(sequence: str) -> dict[str, list[int]]:
        ids = [0, *(4 + letters.index(letter) for letter in sequence), 2]
        return {"input_ids": ids, "keep": [0, *(1 for _ in sequence), 0]}

    sequences = ["MKTAYIAKQR", "GSHM", "ACDEFGHIKLMNPQ"]
    described: Mapping[str, list[Any]] = {
        "sample_id": [f"protein{i}" for i in range(3)],
        "token": [list(text) for text in sequences],
    }
    return load(module, tokenise, metadata=described, batch_size=2), sequences


def _read(folder: Path) -> Any:
    read_settings(folder, _WHAT)
    kind = library().AutoModel
    options: dict[str, Any] = {"trust_remote_code": False}
    try:
        network = read_network(kind, folder, **options)
    except DataError as error:
        if "pooler." not in error.what:
            raise
        # A head that the weights do not have: it is left out, and not drawn at random.
        network = read_network(kind, folder, add_pooling_layer=False, **options)
    if getattr(network.config, "use_cache", False):
        network.config.use_cache = False  # kept keys and values are for writing text on
    return network


def _has_blocks(module: nn.Module) -> bool:
    try:
        return bool(find_blocks(module))
    except ConfigError:
        return False


def _made_up(module: nn.Module) -> dict[str, Tensor] | None:
    """Something that a network can read, where its settings say what that is."""
    config, reads = getattr(module, "config", None), getattr(module, "main_input_name", None)
    if config is None:
        return None
    if reads == "input_ids":
        token = 1 if getattr(config, "pad_token_id", None) == 0 else 0
        return {"input_ids": torch.full((1, 4), token), "attention_mask": torch.ones(1, 4, dtype=torch.long)}
    size = getattr(config, "image_size", None)
    if reads == "pixel_values" and size:
        height, width = (size, size) if isinstance(size, int) else size
        return {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), height, width)}
    return None


def _runner(module: nn.Module, batch: Mapping[str, Tensor]) -> Callable[[], Any]:
    device = next((x.device for x in module.parameters()), torch.device("cpu"))
    there = {key: x.to(device) for key, x in batch.items()}

    def run() -> Any:
        try:
            return _forward(module, there)
        except SiteError:
            raise
        except Exception as error:
            what = f"it could not be run on one item ({type(error).__name__}: {str(error).splitlines()[0][:120]})"
            raise ConfigError(
                what, where=type(module).__name__, remedy="Give probe=, an item that it reads."
            ) from error

    return run


def _forward(module: nn.Module, batch: Mapping[str, Any]) -> Any:
    return module(**{key: x for key, x in batch.items() if key != "keep"})


def _long(item: Mapping[str, Tensor], key: str) -> bool:
    """Whether a tensor of an item is as long as the item."""
    x, mask = item[key], item["keep"] if key == "keep" else item.get("attention_mask")
    return mask is not None and x.dim() > 0 and len(x) == len(mask)

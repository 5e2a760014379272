"""A network that reads cells, with its tokeniser, as a model of elute.

Beside what any model does it knows how cells become its batches, which sites are read where none are named, how a
cell's embedding is taken from its output, and what to do when a batch does not fit on the device: it is cut in half,
again and again, and later ones are cut at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from elute.base import console
from elute.base.contracts import Rows, Site
from elute.base.device import choose
from elute.base.errors import ConfigError, DataError, EluteError, near
from elute.base.files import digest_bytes
from elute.models.cells.batches import Survey, Tokenizer, survey, token_batches
from elute.models.cells.matching import Matched, match_genes
from elute.models.module import TorchModel

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from elute.models.cells.cellfile import Cells

Pooling = Literal["cls", "mean"]
_FRACTIONS = (0, 3 / 11, 6 / 11, 9 / 11, 1)  # blocks 0, 3, 6, 9, 11 of the smallest Tahoe-x1
_TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


class SiteTable(NamedTuple):
    """A network's sites, and those that are read where none are named."""

    sites: Mapping[str, Site]
    default: Sequence[str]


def default_sites(depth: int) -> list[str]:
    """Feed-forward outputs at the depths at which the published projects look."""
    blocks = dict.fromkeys(round(fraction * (depth - 1)) for fraction in _FRACTIONS)
    return [f"blocks.{block}.hook_mlp_out" for block in blocks]


class CellModel(TorchModel):
    """A model whose data are cells (see open_cells)."""

    def __init__(
        self,
        network: nn.Module,
        table: SiteTable,
        tokenizer: Tokenizer,
        *,
        forward: Callable[[nn.Module, Any], Any],
        embed: Callable[[Any, Any, str], Tensor],
        name: str,
        config: Mapping[str, Any],
        batch_size: int = 16,
        rows: Literal["genes", "all"] = "genes",
        gene_id_key: str | None = None,
        gene_map: Path | None = None,
        device: str = "auto",
        dtype: str = "auto",
        source: Mapping[str, str] | None = None,
    ) -> None:
        """Name what a network reads and gives.

        `rows` says which tokens are rows: those of genes, or all but padding. `gene_id_key` and `gene_map` say how the
        genes of a file are found in the vocabulary (see match_genes).
        """
        if rows not in ("genes", "all") or batch_size < 1:
            raise ConfigError(
                f"rows={rows!r}, batch_size={batch_size}", remedy="rows is genes or all; a batch holds cells."
            )
        self.compute = choose(device, dtype)
        super().__init__(
            network.to(self.compute.device),
            table.sites,
            None,
            name=name,
            keep="keep",
            forward=forward,
            config={**config, "tokens": tokenizer.settings(), "rows": rows, "dtype": self.compute.dtype},
        )
        self.tokenizer, self.default_sites, self.source = tokenizer, list(table.default), dict(source or {})
        self.batch_size, self.rows = batch_size, rows
        self.keys: tuple[str | None, Path | None] = (gene_id_key, gene_map)
        self._embed = embed
        self._most = 0  # cells of a batch that are known to fit, once one did not
        self._matched: tuple[pl.DataFrame, Matched] | None = None

    def __call__(self, batch: Any) -> Any:
        """Run the network on a batch in the device's number type."""
        with self._cast():
            return super().__call__(batch)

    def match(self, cells: Cells) -> Matched:
        """Find the genes of a file in the vocabulary; what was used and what was lost is said once."""
        if self._matched is None or self._matched[0] is not cells.var:  # which a subset shares
            key, gene_map = self.keys
            matched = match_genes(cells.var, self.tokenizer.vocabulary, key=key, gene_map=gene_map, where=cells.where)
            for line in matched.lines:
                console.say(line)
            for line in matched.warnings:
                console.warn(line)
            self._matched = cells.var, matched
        return self._matched[1]

    def provenance(self, cells: Cells) -> dict[str, str]:
        """Say where rows come from: the file and its chosen cells, the weights, which column is which token."""
        matched = self.match(cells)
        genes = f"{matched.matched} of {matched.given}, {digest_bytes(matched.tokens.tobytes())}"
        return {**cells.source, **self.source, "genes": genes}

    def survey(self, cells: Cells) -> Survey:
        """Count what a pass over the cells will give, without running the network."""
        return survey(cells, self.match(cells), self.tokenizer)

    def batches(self, data: Any, **settings: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        """Yield padded batches of cells with one row of metadata a kept token; `batch_size=` sets another size."""
        if not hasattr(data, "pieces"):
            raise DataError(f"a {type(data).__name__} is not cells", remedy="Open a file: elute.open_cells(path).")
        settings = {"batch_size": self.batch_size, "every": self.rows == "all", **settings}
        return token_batches(data, self.match(data), self.tokenizer, **settings)

    def capture(self, batch: Any, sites: Sequence[str] | None = None, *, grad: bool = False) -> Rows:
        """Return the rows of each site; a batch that does not fit on the device is read in halves."""
        if grad:
            return super().capture(batch, sites, grad=True)
        parts = self._fitting(batch, lambda part: super(CellModel, self).capture(part, sites))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if len(parts) > 1 else parts[0]

    def embed(self, batch: Any, pooling: Pooling = "cls") -> Tensor:
        """Return one vector a cell [cells, width]: its own token's, or the mean over its genes."""

        def one(part: Any) -> Tensor:
            with torch.no_grad():
                return self._embed(self(part), _on(part, self.device), pooling).float().cpu()

        return torch.cat(self._fitting(batch, one))

    def choose_sites(self, layers: str | None, kind: str = "mlp_out") -> list[str]:
        """Turn `0,3,last`, `all` or names of sites into names of sites; those of the model where none are named."""
        if layers is None:
            return [name.rpartition("hook_")[0] + f"hook_{kind}" for name in self.default_sites]
        depth = len({name.partition(".hook_")[0] for name in self.sites if ".hook_" in name})
        kinds = {name.rpartition("hook_")[2] for name in self.sites}
        if kind not in kinds:
            raise ConfigError(f"there is no site hook_{kind}", where=self.name, remedy=near(kind, kinds))
        chosen: list[str] = []
        for part in (piece.strip() for piece in layers.split(",")):
            blocks = list(range(depth)) if part == "all" else [depth - 1] if part == "last" else None
            if blocks is None and part.lstrip("-").isdecimal():
                if not 0 <= int(part) < depth:
                    remedy = f"It has layers 0 to {depth - 1}."
                    raise ConfigError(f"there is no layer {part}", where=self.name, remedy=remedy)
                blocks = [int(part)]
            chosen += [part] if blocks is None else [f"blocks.{block}.hook_{kind}" for block in blocks]
        for name in chosen:
            self._site(name)
        return list(dict.fromkeys(chosen))

    def _cast(self) -> AbstractContextManager[Any]:
        kind = _TYPES.get(self.compute.dtype)
        return nullcontext() if kind is None else torch.autocast(self.device.type, dtype=kind)

    def _fitting(self, batch: Any, run: Callable[[Any], Any]) -> list[Any]:
        """Run on a batch, or on parts of it that fit."""
        cells = len(batch["tokens"])
        if self._most and cells > self._most:
            return [part for piece in _cut(batch, self._most) for part in self._fitting(piece, run)]
        try:
            return [run(batch)]
        except torch.OutOfMemoryError:
            if cells == 1:
                what = f"one cell of {batch['tokens'].shape[1]} tokens does not fit into the memory of {self.device}"
                raise EluteError(what, remedy="Give a smaller --max-length, --dtype bf16, or --device cpu.") from None
        # Outside of the handler: inside, the traceback would keep the failed forward's tensors alive.
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        self._most = cells // 2
        console.warn(f"{cells} cells at once do not fit into the memory of {self.device}: going on with {self._most}")
        return self._fitting(batch, run)


def _cut(batch: Mapping[str, Any], size: int) -> Iterator[dict[str, Any]]:
    for at in range(0, len(batch["tokens"]), size):
        yield {key: x[at : at + size] if isinstance(x, Tensor) else x for key, x in batch.items()}


def _on(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    return {key: x.to(device) if isinstance(x, Tensor) else x for key, x in batch.items()}

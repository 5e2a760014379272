"""The one dictionary: some sites are read, sparse features fire, some sites are written.

dictionary = load_dictionary("results/mine/sae_final.pt")
codes = dictionary.encode(x)          # Codes; x is [rows, width], or one tensor a read site
x_hat = dictionary.decode(codes)      # a tensor for one written site, a dict for several
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast, get_args

import torch
from torch import nn

from elute.base import plugins
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError, near
from elute.base.tensors import as_tensor
from elute.dictionaries import ops
from elute.dictionaries.bank import Bank, Ranks
from elute.dictionaries.sparsity import Slots, Sparsity, fire
from elute.dictionaries.spec import DictionarySpec, Encoder, column_spans

if TYPE_CHECKING:
    from torch import Tensor

    Given = Tensor | Mapping[str, Tensor]


class Dictionary(nn.Module):
    """Some sites are read, sparse features fire, some sites are written."""

    def __init__(self, spec: DictionarySpec) -> None:
        super().__init__()
        self.spec = spec
        self.sparsity: Sparsity = plugins.load("dictionaries", spec.activation)
        if unknown := [name for name in spec.settings if name not in self.sparsity.settings]:
            what = f"activation {spec.activation!r} has no setting {unknown[0]!r}"
            raise ConfigError(what, remedy=near(unknown[0], self.sparsity.settings))
        if self.sparsity.tied and not spec.mirrored:
            what = f"activation {spec.activation!r} takes features from what is left over of what it read"
            raise ConfigError(what, remedy="Use it where the sites that are read are those that are written.")
        settings = {**self.sparsity.settings, **spec.settings}
        self.banks = nn.ModuleList(
            Bank(spec.n_features, span, tensors=self.sparsity.tensors, settings=settings) for span in spec.spans
        )
        self.b_dec = nn.Parameter(torch.zeros(spec.width_out))
        self.shards: Ranks | None = None  # set while features are spread over processes
        self.W_skip = nn.Parameter(torch.zeros(spec.width_out, spec.width_in)) if spec.skip else None

    @property
    def n_features(self) -> int:
        """Features of all banks."""
        return self.spec.total_features

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.b_dec.device

    def __iter__(self) -> Iterator[Bank]:
        """Its banks."""
        return iter(cast("list[Bank]", list(self.banks)))

    def __repr__(self) -> str:
        sites = " + ".join(self.spec.reads)
        sites += "" if self.spec.same else " → " + " + ".join(self.spec.writes)
        return (
            f"Dictionary({self.spec.kind}, {sites}, {self.n_features:,} features, {self.spec.activation} {self.spec.k})"
        )

    @torch.no_grad()
    def encode(self, x: Given, *, encoder: Encoder = "own", k: int | None = None) -> Codes:
        """Return which features fire in each row, and how strongly.

        Another `k` than the dictionary's own can be asked of activations that count, and of a pursuit.
        """
        self._askable(encoder, k)
        rows = self.columns(x, self.spec.reads)
        return self._codes([self._fire(bank, rows, encoder=encoder, k=k or self.spec.k) for bank in self])

    @torch.no_grad()
    def decode(self, codes: Codes, x: Given | None = None) -> Any:
        """Return what codes stand for: a tensor for one written site, a dict for several.

        A dictionary with a linear skip needs the rows as well.
        """
        if codes.n_features != self.n_features:
            raise DataError(f"codes of {codes.n_features} features, but the dictionary has {self.n_features}")
        y = self.b_dec.detach().repeat(len(codes), 1)
        if self.W_skip is not None:
            if x is None:
                raise DataError("a dictionary with a linear skip decodes codes and rows together", remedy="Pass x too.")
            rows = self.columns(x, self.spec.reads)
            if len(rows) != len(codes):
                raise DataError(f"codes of {len(codes)} rows, but {len(rows)} rows")
            y += rows @ self.W_skip.T
        indices, values = codes.indices.to(y.device), codes.values.to(device=y.device, dtype=y.dtype)
        if bool(((indices < 0) | (indices >= self.n_features)).any()):  # kernels trust what they are given
            raise DataError(f"codes name features outside 0 to {self.n_features - 1}")
        for number, bank in enumerate(self):
            idx, val = indices, values
            if len(self.banks) > 1:
                first = number * self.spec.n_features
                mine = (indices >= first) & (indices < first + self.spec.n_features)
                idx, val = torch.where(mine, indices - first, 0), torch.where(mine, values, 0)
            self._decode(bank, idx.contiguous(), val.contiguous(), y)
        return self.sites(y)

    def forward(self, x: Given) -> Any:
        """Reconstruct rows."""
        return self.decode(self.encode(x), x if self.W_skip is not None else None)

    def directions(self, site: str | None = None) -> Tensor:
        """Return what each feature writes into a site, [features, width]; zero where its bank does not write there."""
        names = list(self.spec.writes)
        if site is None and len(names) > 1:
            raise ConfigError("the dictionary writes several sites", remedy=f"Name one: {', '.join(names)}.")
        site = site or names[0]
        if site not in names:
            raise ConfigError(f"the dictionary does not write {site!r}", remedy=near(site, names))
        first, width = column_spans(self.spec.writes)[site].start, self.spec.writes[site]
        parts = []
        for bank in self:
            start, W_dec = first - bank.span.write.start, bank.W_dec.detach()
            parts.append(W_dec[:, start : start + width] if start >= 0 else W_dec.new_zeros(len(W_dec), width))
        return torch.cat(parts)

    def columns(self, given: Given, sites: Mapping[str, int]) -> Tensor:
        """Put sites side by side, on the weights' device and in their type; refuse other widths, NaN and infinity."""
        if not isinstance(given, Mapping):
            if len(sites) != 1:
                raise DataError(f"the dictionary has several sites ({', '.join(sites)})", remedy="Pass a dict of them.")
            given = {next(iter(sites)): given}
        parts = []
        for name, width in sites.items():
            if name not in given:
                raise DataError(f"rows of site {name!r} are missing", remedy=near(name, given))
            part = _tensor(given[name], name)
            if part.ndim != 2 or part.shape[1] != width or not part.dtype.is_floating_point:
                raise DataError(
                    f"the dictionary knows site {name!r} as floating point [rows, {width}], "
                    f"not {str(part.dtype).removeprefix('torch.')} {[*part.shape]}"
                )
            parts.append(part.to(device=self.device, dtype=self.b_dec.dtype))
        if len(lengths := {len(part) for part in parts}) > 1:
            raise DataError(f"the sites have different numbers of rows: {', '.join(map(str, sorted(lengths)))}")
        rows = parts[0].contiguous() if len(parts) == 1 else torch.cat(parts, dim=1)
        if not bool(torch.isfinite(rows.sum())) and not bool(torch.isfinite(rows).all()):
            bad = int((~torch.isfinite(rows)).any(1).nonzero()[0])
            raise DataError(f"row {bad} of what is encoded holds NaN or infinity", remedy="Drop such rows first.")
        return rows

    def sites(self, y: Tensor) -> Any:
        """Cut written columns into their sites: a tensor for one, a dict for several."""
        if len(self.spec.writes) == 1:
            return y
        return {name: y[:, span] for name, span in column_spans(self.spec.writes).items()}

    def _fire(self, bank: Bank, rows: Tensor, *, encoder: str, k: int) -> Slots:
        x = rows[:, bank.span.read].contiguous()
        if encoder == "own":
            return fire(self.sparsity, bank, x, k=k)
        from elute.dictionaries.matching_pursuit import pursue

        return pursue(bank, x, k)

    def _askable(self, encoder: str, k: int | None) -> None:
        """Refuse what this dictionary's codes cannot be asked for."""
        if encoder not in get_args(Encoder):
            raise ConfigError(f"encoder={encoder!r}", remedy="Choose 'own' or 'pursuit'.")
        if encoder == "pursuit" and (not self.spec.mirrored or self.sparsity.signed):
            what = "a pursuit reads codes out of dictionaries that write what they read, without sign"
            raise ConfigError(what, remedy="Use the dictionary's own encoder.")
        if k is None:
            return
        if not 1 <= k <= self.spec.n_features:
            raise ConfigError(
                f"k={k} of {self.spec.n_features} features", remedy=f"Choose 1 to {self.spec.n_features}."
            )
        if encoder == "own" and not self.sparsity.counts:
            what = f"activation {self.spec.activation!r} does not count features, so k={k} would change nothing"
            raise ConfigError(what, remedy="Leave k out, or encode by a pursuit.")

    def _codes(self, slots: list[Slots]) -> Codes:
        if len(slots) == 1:
            return Codes(*slots[0], self.n_features)
        shifted = [torch.where(val != 0, idx + i * self.spec.n_features, 0) for i, (idx, val) in enumerate(slots)]
        return Codes(torch.cat(shifted, 1), torch.cat([val for _, val in slots], 1), self.n_features)

    def _decode(self, bank: Bank, idx: Tensor, val: Tensor, y: Tensor) -> None:
        whole = bank.span.write == slice(0, self.spec.width_out)
        target = y if whole else y[:, bank.span.write].contiguous()
        ops.of(y).decode(idx, val, bank.W_dec.detach(), into=target)
        if not whole:
            y[:, bank.span.write] = target


def _tensor(given: Any, name: str) -> Tensor:
    """Take arrays too: also read-only ones, and those that lie backwards."""
    import numpy as np

    if isinstance(given, torch.Tensor):
        return given
    try:
        return as_tensor(np.ascontiguousarray(given))
    except (TypeError, ValueError) as error:
        what = f"rows of site {name!r} are a {type(given).__name__} that is no array of numbers"
        raise DataError(what, remedy="Pass a torch tensor or a numpy array.") from error

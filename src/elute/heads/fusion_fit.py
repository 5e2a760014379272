"""How fusion networks learn: through the one training loop, several side by side.

1. A part is one network's share: the rows that it sees, whose vectors stand in their place (controls), and which
   sources it has. Mean and spread of its sources are those of its rows.
2. Every network draws its rows in random order, each once, then again in another order, in batches of one size: none
   is left with a single row. All take the same number of steps, as many as give the one with most rows its epochs.
3. The loss is the cross-entropy of the head, each row alike; Adam, a constant rate.
4. What is left out of a step is drawn from the seed and the step's number: a run that was resumed goes on alike.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from elute.base import console, files
from elute.base.errors import DataError
from elute.base.tensors import as_tensor
from elute.engine import resume
from elute.engine.fit import Fit, FitConfig
from elute.engine.optimizers import Learnt
from elute.engine.parallel import Ranks
from elute.engine.tracking import Metrics, TrackConfig
from elute.heads.fusion import FusionNetworks, Standard
from elute.store.window import Batch

if TYPE_CHECKING:
    from elute.engine.optimizers import Adam
    from elute.heads.fusion_settings import FusionConfig

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Part:
    """What one network learns from."""

    rows: Ints
    partners: tuple[Ints | None, ...] | None = None  # [n] a source: whose vector stands in each row's place
    present: tuple[bool, ...] | None = None  # sources that it has; all if not given


def fit_networks(
    vectors: Sequence[NDArray[Any]],
    codes: Ints,
    parts: Sequence[Part],
    *,
    config: FusionConfig,
    n_classes: int | None = None,
    folder: Path | None = None,
) -> FusionNetworks:
    """Train one network a part, side by side; what was interrupted in `folder` goes on from its checkpoint.

    `vectors` are [n, width] a source, of the same n things; `codes` [n] are their classes from 0.
    """
    from elute.base.device import choose

    _check(vectors, codes, parts)
    classes = int(codes.max()) + 1 if n_classes is None else n_classes
    networks = FusionNetworks([x.shape[1] for x in vectors], classes, config=config, networks=len(parts))
    _standardise(networks, vectors, parts)
    where = choose(config.device, "fp32").device
    networks.to(torch.device(where))
    objective, stream = FusionObjective(networks, vectors, codes, parts=parts), FusionStream(parts, config)
    fitting = FitConfig(
        steps=stream.steps, batch_size=stream.size, lr=config.lr, warmup=0, decay=0, clip=0,
        seed=config.seed, checkpoint_seconds=config.checkpoint_seconds,
    )  # fmt: skip
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(TemporaryDirectory()))
        _run(Fit(objective, stream, fitting, folder=files.make_folder(place), steps=stream.steps), place,
             settings=_settings(config, vectors, codes, parts), where=where)  # fmt: skip
    return networks.eval().requires_grad_(requires_grad=False)


def _run(fit: Fit, folder: Path, *, settings: dict[str, Any], where: str) -> None:
    """Train to the end; a checkpoint of other settings is begun anew."""
    if not resume.belongs(folder, settings):
        (folder / resume.NAME).unlink(missing_ok=True)
    ranks = Ranks(device=where)
    begun = fit.resume(settings, ranks)
    if begun is not None:
        console.detail(f"{folder}: going on after step {begun + 1:,} of {fit.steps:,}")
    with Metrics(folder, TrackConfig(), settings=settings, resume_at=begun) as metrics:
        fitted = fit.run(settings, ranks=ranks, metrics=metrics, split=False)
        metrics.close(fitted.figures)
    (folder / resume.NAME).unlink(missing_ok=True)


def _settings(config: FusionConfig, vectors: Sequence[Any], codes: Ints, parts: Sequence[Part]) -> dict[str, Any]:
    """What a checkpoint was written under."""
    known = config.model_dump(mode="json", exclude={"device", "checkpoint_seconds"})
    seen = files.digest_bytes(codes.tobytes(), *(as_bytes(part) for part in parts))
    heads = [files.digest_bytes(np.ascontiguousarray(x[: 1 << 12]).tobytes()) for x in vectors]
    return {"fusion": known, "parts": seen, "vectors": [[*x.shape, h] for x, h in zip(vectors, heads, strict=True)]}


def as_bytes(part: Part) -> bytes:
    """Return a part as bytes, to tell it from others."""
    others = [b"-" if p is None else p.tobytes() for p in part.partners or ()]
    return b"|".join([part.rows.tobytes(), *others, repr(part.present).encode()])


def _check(vectors: Sequence[NDArray[Any]], codes: Ints, parts: Sequence[Part]) -> None:
    n = len(codes)
    if not vectors or any(x.ndim != 2 or len(x) != n for x in vectors):
        shapes = ", ".join(str([*x.shape]) for x in vectors) or "none"
        raise DataError(f"vectors {shapes} for {n} classes", remedy="Give one vector a row in every source.")
    if not parts:
        raise DataError("there is no network to train", remedy="Give one part or more.")
    for part in parts:
        if len(part.rows) < 2:
            raise DataError(f"{len(part.rows)} row is too few to train on", remedy="Give two or more.")
        if part.present is not None and not any(part.present):
            raise DataError("a network without sources", remedy="Give it one or more.")


def _standardise(networks: FusionNetworks, vectors: Sequence[NDArray[Any]], parts: Sequence[Part]) -> None:
    """Note mean and spread of each network's own rows."""
    known: dict[bytes, list[Standard]] = {}
    for m, part in enumerate(parts):
        key = as_bytes(Part(part.rows, part.partners))
        if key not in known:
            known[key] = [
                Standard.of(x, part.rows if of is None else of[part.rows])
                for x, of in zip(vectors, part.partners or [None] * len(vectors), strict=True)
            ]
        for s, standard in enumerate(known[key]):
            networks.get_buffer(f"mean{s}")[m] = torch.from_numpy(standard.mean).float()
            networks.get_buffer(f"spread{s}")[m] = torch.from_numpy(standard.spread).float()
        if part.present is not None:
            networks.get_buffer("present")[m] = torch.tensor(part.present, dtype=torch.float32)


class FusionStream:
    """Rows of every network, batch by batch: `rows` [batch, networks]."""

    def __init__(self, parts: Sequence[Part], config: FusionConfig) -> None:
        self.parts, self.seed, self.step = parts, config.seed, 0
        longest = max(len(part.rows) for part in parts)
        self.size = min(config.batch_size, longest)
        self.steps = math.ceil(longest * config.epochs / self.size)
        self._orders: dict[tuple[int, int], Ints] = {}

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches without end."""
        while True:
            places = np.arange(self.step * self.size, (self.step + 1) * self.size)
            self.step += 1
            drawn = {n: self._places(n, places) for n in {len(part.rows) for part in self.parts}}
            rows = np.stack([part.rows[drawn[len(part.rows)]] for part in self.parts], axis=1)
            yield Batch({"rows": torch.from_numpy(rows)}, torch.from_numpy(places))

    def state(self) -> dict[str, Any]:
        """Return the place after the last batch."""
        return {"step": self.step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a place."""
        self.step = int(state["step"])

    def _places(self, n: int, places: Ints) -> Ints:
        """Return what lies at some places of the endless order of n rows; networks of as many rows share it."""
        rounds, at = np.divmod(places, n)
        out = np.empty_like(places)
        for number in np.unique(rounds).tolist():
            here = rounds == number
            out[here] = self._order(n, number)[at[here]]
        return out

    def _order(self, n: int, number: int) -> Ints:
        """Return the order of a round; that of the round before is forgotten."""
        if (n, number) not in self._orders:
            self._orders = {key: order for key, order in self._orders.items() if key[0] != n or key[1] >= number - 1}
            self._orders[n, number] = np.random.default_rng([self.seed, 0, number]).permutation(n)
        return self._orders[n, number]


class FusionObjective:
    """Networks that learn to tell classes (see engine/fit.py)."""

    project = False
    re_norm_interval = 0

    def __init__(
        self, networks: FusionNetworks, vectors: Sequence[NDArray[Any]], codes: Ints, *, parts: Sequence[Part]
    ) -> None:
        self.networks, self.device = networks.train(), networks.device
        on_cpu = self.device.type == "cpu"
        self.vectors = [as_tensor(np.asarray(x, dtype=np.float32)) for x in vectors]
        self.vectors = self.vectors if on_cpu else [x.to(self.device) for x in self.vectors]
        self.codes = torch.from_numpy(np.asarray(codes, dtype=np.int64)).to(self.device)
        self.views = [self._view(parts, s) for s in range(len(vectors))]
        self.learnt: list[Learnt] = []
        self._flatten()

    def _flatten(self) -> None:
        """Lay all weights, and all gradients, side by side: one step of the optimizer moves them all."""
        parameters = list(self.networks.parameters())
        value = torch.cat([p.data.flatten() for p in parameters])
        grad = torch.zeros_like(value)
        begin = 0
        for p in parameters:
            end = begin + p.numel()
            p.data = value[begin:end].view_as(p)
            p.grad = grad[begin:end].view_as(p)  # autograd adds to what is there, in place
            begin = end
        self.learnt.append(Learnt("weights", value, grad))

    def _view(self, parts: Sequence[Part], s: int) -> tuple[Tensor, Tensor] | None:
        """Whose vector stands in each row's place: distinct maps, and which of them each network has."""
        maps: list[Ints] = [np.arange(len(self.codes))]
        which = []
        for part in parts:
            of = None if part.partners is None else part.partners[s]
            found = 0 if of is None else next((i for i, m in enumerate(maps) if m is of), -1)
            if found < 0:
                maps.append(np.asarray(of))
                found = len(maps) - 1
            which.append(found)
        if len(maps) == 1:
            return None
        return torch.from_numpy(np.stack(maps)).to(self.device), torch.tensor(which, device=self.device)

    def gradient(self, rows: Mapping[str, Tensor], *, step: int, total_rows: int) -> Mapping[str, float]:
        """Add a batch's gradient to the parameters' buffers; return the mean loss of the networks."""
        del total_rows  # each network's loss is the mean over its own rows
        at = rows["rows"].T.contiguous().to(self.device)
        sources = []
        for x, view in zip(self.vectors, self.views, strict=True):
            place = at if view is None else view[0][view[1][:, None], at]
            sources.append(x[place.reshape(-1)].view(*place.shape, -1))
        fused, _ = self.networks.fuse(sources, keep=self._kept(step, at.shape[1]))
        logits = self.networks.logits(fused).flatten(0, 1)
        loss = cross_entropy(logits, self.codes[at].flatten()) * len(at)  # each network's own mean, added up
        loss.backward()  # type: ignore[no-untyped-call]
        return {"loss": float(loss.detach()) / len(at)}

    def _kept(self, step: int, batch: int) -> list[Tensor]:
        """Draw which hidden units stay in this step: the same for every network."""
        config = self.networks.config
        drawn = torch.Generator().manual_seed((config.seed * 1_000_003 + step) % (1 << 62))
        kept = []
        for width, share in zip(config.layers(self.networks.widths), config.dropout, strict=True):
            stays = torch.rand(batch, width, generator=drawn) >= share
            kept.append((stays / (1 - share)).to(self.device))
        return kept

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Nothing follows an update."""

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """The mean loss of a step."""
        return {"loss": sums["loss"] / sums["steps"]}

    def tie(self) -> None:
        """No two parameters are one."""

    def state(self) -> dict[str, Any]:
        """Return what batch normalisation has gathered."""
        return {name: value for name, value in self.networks.named_buffers() if name.startswith("norm")}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, value in state.items():
            self.networks.get_buffer(name).copy_(value)

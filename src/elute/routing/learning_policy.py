"""What a policy learns from: REINFORCE with a baseline that several tours of one instance share.

R. Williams, 1992; Y.-D. Kwon et al., "POMO: policy optimization with multiple optima", 2020.

1. Instances are drawn anew for every step.
2. For each, tours are sampled from different first nodes, without a graph; the encoder runs once, with one.
3. All steps of these tours are computed again at once. Each tour's log-probability is weighed by its length less the
   mean over the tours of its instance.

Instances and tours follow from the seed and the numbers of the instances alone, and batch norm's running means are part
of the state: a training that was killed and resumed ends with the same bits as one left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch

from elute.base.files import digest_json
from elute.engine.optimizers import Learnt
from elute.models.routing.decoding import roll, sampler
from elute.models.routing.instances import coordinates, tour_lengths
from elute.store.window import Batch

if TYPE_CHECKING:
    from torch import Tensor

    from elute.engine.optimizers import Adam
    from elute.models.routing.policy import AttentionPolicy
    from elute.models.routing.settings import InstanceConfig


class PolicyStream:
    """Batches of new instances, without end."""

    def __init__(self, config: InstanceConfig, batch_size: int) -> None:
        self.config, self.batch_size, self.step = config, batch_size, 0

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches."""
        while True:
            numbers = range(self.step * self.batch_size, (self.step + 1) * self.batch_size)
            self.step += 1
            coords = torch.from_numpy(coordinates(self.config, numbers, training=True))
            index = torch.tensor(numbers)
            yield Batch({"coords": coords, "number": index}, index)

    def state(self) -> dict[str, Any]:
        """Return the place after the last batch."""
        return {"step": self.step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a place."""
        self.step = int(state["step"])


class PolicyObjective:
    """A policy that learns short tours (see engine/fit.py)."""

    project = False
    re_norm_interval = 0

    def __init__(
        self,
        policy: AttentionPolicy,
        *,
        starts: int,
        seed: int,
        epoch_steps: int,
        at_epoch: Callable[[int, int], dict[str, Any]],
    ) -> None:
        """`at_epoch(epoch, step)` is called when one has ended, and says what is to be remembered of it."""
        self.policy, self.starts, self.seed = policy.train(), starts, seed
        self.epoch_steps, self.at_epoch = epoch_steps, at_epoch
        self.history: list[dict[str, Any]] = []
        self.learnt: list[Learnt] = []
        for name, p in policy.named_parameters():
            p.grad = torch.zeros_like(p)  # autograd adds to what is there, in place
            self.learnt.append(Learnt(name, p.data, p.grad))

    def gradient(self, rows: Mapping[str, Tensor], *, step: int, total_rows: int) -> Mapping[str, float]:
        """Add a part's gradient to the parameters' buffers; return sums over its instances."""
        del step
        policy = self.policy
        device = policy.init_embed.weight.device
        coords = rows["coords"].to(device)
        count, n = coords.shape[:2]
        h = policy.encode(coords)
        nodes = policy.decoder.prepare(h)
        with torch.no_grad():
            generator = torch.Generator(device)
            generator.manual_seed(_seed(self.seed, int(rows["number"][0])))
            first = torch.arange(self.starts, device=device) * n // self.starts
            actions, _ = roll(policy.decoder, nodes, first.expand(count, -1), pick=sampler(generator))
            lengths = tour_lengths(coords, actions)
            advantage = lengths - lengths.mean(1, keepdim=True)
        log_probs = policy.along(nodes, actions).log_softmax(-1).gather(-1, actions[..., None])[..., 0].sum(-1)
        loss = (advantage * log_probs).mean(1).sum() / total_rows
        loss.backward()  # type: ignore[no-untyped-call]
        told = {"loss": loss.detach(), "length": lengths.mean(1).sum(), "best": lengths.amin(1).sum()}
        return {**{name: float(value) for name, value in told.items()}, "instances": float(count)}

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Close an epoch where one ends."""
        del optimizer
        if (step + 1) % self.epoch_steps == 0 or step + 1 == steps:
            self.history.append(self.at_epoch(-(-(step + 1) // self.epoch_steps) - 1, step + 1))

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Mean lengths of sampled tours, and of the best of each instance."""
        n = max(1.0, sums["instances"])
        mean, best = sums["length"] / n, sums["best"] / n
        return {"loss": sums["loss"] / sums["steps"], "tour_length": mean, "best_of_starts": best}

    def tie(self) -> None:
        """No two parameters are one."""

    def state(self) -> dict[str, Any]:
        """Return the running means of the norms, and the epochs so far."""
        return {"history": self.history, **{f"buffer.{name}": x.clone() for name, x in self.policy.named_buffers()}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        for name, x in self.policy.named_buffers():
            x.copy_(state[f"buffer.{name}"])
        self.history = list(state["history"])


def _seed(seed: int, number: int) -> int:
    return int(digest_json([seed, number])[:15], 16)

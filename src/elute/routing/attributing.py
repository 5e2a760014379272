"""What each feature of a dictionary does to a policy's decisions: to first order, and measured by taking it away.

1. The margin of an instance is the mean, over its steps with a choice, of the logit of the node that the policy takes
   less that of the runner-up. Its gradient at the written sites is that of the policy left alone.
2. A feature's attribution in an instance is Σ over rows of activation × (gradient · direction): by how much the margin
   would fall if the feature were taken away and all else were linear.
3. Taken away: activation × direction is subtracted at each row, what the dictionary leaves unexplained stays, and the
   policy is run on from there. Margin, divergence and agreement are measured along the policy's own tours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elute.base.errors import SiteError
from elute.models import sites as hooks
from elute.routing.measuring import Effect, Reference, effect, margins

if TYPE_CHECKING:
    import polars as pl

    from elute.base.codes import Codes
    from elute.base.contracts import Edit
    from elute.models.routing_policy import RoutingModel
    from elute.routing.cause_inputs import Subject


@dataclass(frozen=True, eq=False)
class Clean:
    """What a dictionary sees in one batch while the policy is left alone."""

    reference: Reference
    codes: Codes  # a row a node, or a step that has begun
    read: dict[str, Tensor]  # rows of the sites that are read, by the dictionary's names, beside the codes
    written: dict[str, Tensor]  # rows of the sites that are written, likewise
    kept: Tensor  # of the rows of the written sites, those that have codes
    nodes: Tensor  # int64: the node of each row of the codes
    instance: Tensor  # int64: and its instance in the batch

    @property
    def rows(self) -> int:
        """Rows of the written sites."""
        return len(self.kept)


def clean(subject: Subject, ref: Reference) -> Clean:
    """Run the policy as it is, and encode what it gives."""
    model, count, n = subject.model, len(ref.instances), ref.instances.nodes
    ((batch, metadata),) = model.batches(ref.instances, tours=ref.actions, batch_size=count)
    nodes_batch = {**batch, "actions": None}
    read = {name: _rows(model, nodes_batch, site) for name, site in subject.reads.items()}
    written = {name: _rows(model, batch, site) for name, site in subject.writes.items()}
    instance = torch.arange(count).repeat_interleave(n)
    nodes = torch.arange(n).repeat(count)
    kept = torch.ones(count * n, dtype=torch.bool)
    if subject.at_steps:
        from elute.routing.decoder_pairs import Beside

        read, kept = Beside(subject.dictionary.spec.reads)(read, rows=count * n, metadata=metadata)
        before = torch.cat([ref.actions[:, :1], ref.actions[:, :-1]], 1)
        nodes, instance = before.reshape(-1)[kept], instance[kept]
    codes = subject.dictionary.encode(read).to("cpu")
    return Clean(ref, codes, read, {name: x[kept] for name, x in written.items()}, kept, nodes, instance)


def _rows(model: RoutingModel, batch: dict[str, object], site: str) -> Tensor:
    if not site.startswith("decoder_"):
        batch = {**batch, "actions": None}
    return model.capture(batch, [site])[site]


def gradients(model: RoutingModel, ref: Reference, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return the gradient of the sum of the instances' margins at some sites, [rows, width] each."""
    found = {}
    device = model.device
    batch = {"coords": ref.instances.coords.to(device), "actions": ref.actions.to(device), "ids": ref.instances.ids}
    for site in dict.fromkeys(sites):  # one by one: an earlier site's gradient goes through the later ones
        got = hooks.capture(model.module, {site: model.sites[site]}, lambda: model(batch), grad=True, flat=True)
        with torch.enable_grad():
            logits = got.output["logits"]
            margin = margins(
                logits, ref.actions.to(device), runner_up=ref.runner_up.to(device), choice=ref.choice.to(device)
            ).sum()
        (gradient,) = torch.autograd.grad(margin, got.tensors[site])
        found[site] = gradient.detach()
    return found


def attributions(subject: Subject, seen: Clean) -> Tensor:
    """Return each feature's attribution in each instance, float64 [instances, features]."""
    slopes = gradients(subject.model, seen.reference, list(subject.writes.values()))
    total = torch.zeros(len(seen.codes), subject.dictionary.n_features, dtype=torch.float64)
    for name, site in subject.writes.items():
        directions = subject.dictionary.directions(name).double()
        total += slopes[site][seen.kept].double().cpu() @ directions.T.cpu()
    values = seen.codes.dense().double() * total
    found = torch.zeros(len(seen.reference.instances), values.shape[1], dtype=torch.float64)
    return found.index_add_(0, seen.instance, values)


def activations(seen: Clean, feature: int) -> Tensor:
    """Return a feature's activation in each row of the codes."""
    return torch.where(seen.codes.indices == feature, seen.codes.values, 0.0).sum(1)


def adding(subject: Subject, seen: Clean, amounts: Tensor, *, feature: int) -> dict[str, Edit]:
    """Return edits that add so much of a feature's directions at each row of the codes."""
    directions = {name: subject.dictionary.directions(name)[feature] for name in subject.writes}
    return pushing(subject, seen, {name: amounts[:, None] * d.cpu() for name, d in directions.items()})


def pushing(subject: Subject, seen: Clean, steps: dict[str, Tensor]) -> dict[str, Edit]:
    """Return edits that add rows [codes' rows, width] at the written sites; rows of zeros keep their bits."""
    return {subject.writes[name]: push(seen, step) for name, step in steps.items()}


def push(seen: Clean, step: Tensor) -> Edit:
    """Return the edit that adds rows [codes' rows, width] at one site."""
    whole = step.new_zeros(seen.rows, step.shape[1])
    whole[seen.kept] = step
    count = len(seen.reference.instances)

    def edit(x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        rows = whole
        if len(x) != len(whole):  # the decoder at one step: a row an instance
            if metadata is None:
                raise SiteError("the step of the tours is not told", where="decoder")
            rows = whole.view(count, -1, whole.shape[1])[:, int(metadata["position"][0])]
        moved = (rows != 0).any(1)
        if bool(moved.any()):
            x[moved] += rows[moved].to(x)
        return x

    return edit


def taken_away(subject: Subject, seen: Clean, feature: int, *, tours: bool = False) -> Effect:
    """Take a feature away everywhere, and measure what follows."""
    amounts = -activations(seen, feature)
    return effect(subject.model, seen.reference, adding(subject, seen, amounts, feature=feature), tours=tours)

"""Pairs from the encoder to the decoder: the node of a step beside the query that the policy makes of it.

A row is a step of a tour. What is read is the encoder's output at the node where the tour stands; what is written is
the decoder's context or query. Steps at which the tour has not begun stay as they are.

Both are affine in two nodes, the current one and the first, by construction (and in the mean of all nodes, where the
policy uses it). So a linear map of both explains them wholly, and one of the current node alone all but what the first
one says: `ceiling` measures how much that leaves for any dictionary that reads the current node.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from elute.base.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel

SOURCE = "encoder_output"


class Beside:
    """Brings rows of nodes beside rows of steps: those of the current node, or side by side of it and the first one."""

    def __init__(self, reads: Mapping[str, int]) -> None:
        self.reads = dict(reads)
        self.first: Tensor | None = None  # of each instance, once the tours stand there

    def __call__(
        self, noted: Mapping[str, Tensor], *, rows: int, metadata: pl.DataFrame
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Return what is read at each step that has begun, and which of the rows these are."""
        import torch

        count = metadata["sample_id"].n_unique()
        current = torch.from_numpy(metadata["current"].to_numpy().astype("int64"))
        position = torch.from_numpy(metadata["position"].to_numpy().astype("int64"))
        if rows % count or len(current) != rows:
            what = f"{rows} rows are no steps of {count} tours"
            raise ConfigError(what, where="decoder", remedy="Decode one tour an instance.")
        instance = torch.arange(count).repeat_interleave(rows // count)
        if bool((position == 1).any()):
            self.first = current[position == 1]
        kept = current >= 0
        found = {}
        for name, width in self.reads.items():
            h = noted[name].view(count, -1, noted[name].shape[-1])
            parts = [h[instance[kept], current[kept]]]
            if width == 2 * h.shape[-1]:
                first = self.first if self.first is not None else current[:count].clamp(min=0)
                parts.append(h[instance[kept], first[instance[kept]]])
            found[name] = torch.cat(parts, 1)
        return found, kept


def ceiling(model: RoutingModel, instances: Instances, site: str, *, batch: int = 250) -> dict[str, float]:
    """Return the share of a decoder site's variance that a linear map of the current node, and of both, explains.

    Maps are fitted to the first half of the instances and judged on the rest.
    """
    import torch

    from elute.dictionaries.spec import DictionarySpec
    from elute.engine.metrics import Reconstruction
    from elute.routing.linear_map import fit_rows

    width = int(model.sites[SOURCE].width)
    found = {}
    for name, times in (("current", 1), ("both", 2)):
        reads = {SOURCE: width * times}
        spec = DictionarySpec(kind="transcoder", reads=reads, writes={site: width}, n_features=1, k=1)
        parts: list[tuple[Tensor, Tensor]] = []
        for given, metadata in model.batches(instances, batch_size=batch):
            nodes = model.capture({**given, "actions": None}, [SOURCE])
            steps = model.capture(given, [site])[site]
            beside, kept = Beside(reads)(nodes, rows=len(steps), metadata=metadata)
            parts.append((beside[SOURCE].cpu(), steps[kept].cpu()))
        x, y = (torch.cat(side) for side in zip(*parts, strict=True))
        half = len(x) // 2
        maps = fit_rows([{SOURCE: x[:half].numpy(), site: y[:half].numpy()}], spec)
        judged = Reconstruction(width)
        judged.update((y[half:], maps[site]({SOURCE: x[half:]})))
        found[name] = float(judged.result().explained_variance)
    return found

"""A routing policy as a model: instances in, one row a node at the encoder's sites, one a step at the decoder's.

    model = elute.load_model("routing_policy", run="runs/tsp20")          # checkpoint="last", 3, or a file
    for batch, metadata in model.batches(draw(InstanceConfig(num_loc=20))):
        rows = model.capture(batch, ["encoder_layer_1.mlp.input", "encoder_layer_1.mlp"])
    with model.patch({"encoder_output": edit}):
        tours = decode(model, instances, how="multistart")

Sites:

    encoder_layer_i              what layer i gives; encoder_layer_i.input what it reads
    encoder_layer_i.attention    its attention, before it is added; encoder_layer_i.attention.input what that reads
    encoder_layer_i.mlp          its feed-forward part, likewise; encoder_layer_i.mlp.input
    encoder_output               what the decoder reads: the same as the last encoder_layer_i
    decoder_context              first and current node, joined; decoder_query with the mean of all nodes

Metadata: `sample_id` and `group` are the instance, `position` the node, or the step at the decoder's sites; `current`
is the node where the tour stands at step `position`, -1 where it has not begun. The decoder's rows are those along
tours that are given with the batch: unless told otherwise, the policy's own greedy ones. Where the first node is given,
the row of step 0 is there and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor, nn

from elute.base.contracts import Edit, Site
from elute.base.device import choose
from elute.base.errors import ConfigError, DataError, near
from elute.models import sites as hooks
from elute.models.module import TorchModel
from elute.models.routing import checkpoint as files
from elute.models.routing import rl4co
from elute.models.routing.decoding import Part, decode
from elute.models.routing.instances import Instances, draw
from elute.models.routing.policy import AttentionPolicy, begin
from elute.models.routing.settings import InstanceConfig, PolicyConfig

BATCH = 256


class RoutingModel(TorchModel):
    """A policy with named sites, which decodes under patches."""

    def __init__(self, policy: AttentionPolicy, *, name: str = "routing policy") -> None:
        super().__init__(policy, sites_of(policy.config), name=name, forward=self._run, config=policy.config)
        self.policy = policy
        self._parts: dict[int, Part] = {}  # of which part each patch is
        self._rows: dict[Part, Callable[[], pl.DataFrame]] = {}

    def batches(
        self, data: Any, *, tours: bool | Tensor = True, batch_size: int = BATCH, **settings: Any
    ) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
        """Yield batches of instances with a row of metadata a node.

        `tours` are those along which the decoder runs, [instances, nodes]; True for the policy's own greedy ones,
        False where the decoder's sites are not wanted.
        """
        if settings:
            remedy = near(next(iter(settings)), ("tours", "batch_size"))
            raise ConfigError(f"unknown setting {next(iter(settings))!r}", where=self.name, remedy=remedy)
        if not isinstance(data, Instances):
            what = f"the data are a {type(data).__name__}, not instances"
            raise DataError(what, where=self.name, remedy="Draw them, read a TSPLIB file, or use instances.of.")
        for low in range(0, len(data), batch_size):
            part = data.part(low, low + batch_size)
            given = tours[low : low + batch_size] if isinstance(tours, Tensor) else None
            if tours is True:
                given = decode(self, part, batch_size=len(part)).actions
            batch = {"coords": part.coords, "actions": given, "ids": part.ids}
            yield batch, rows_of(part.ids, part.nodes, given)

    @contextmanager
    def patch(
        self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None, batch: Any = None
    ) -> Iterator[None]:
        """Replace what sites give by `edit(x, metadata)`, in every call of the model and every decoding in the block.

        Without `metadata`, which is that of one batch, an edit gets that of the rows that it is given: while a policy
        decodes, those of the decoder's sites are the tours at one step.
        """
        del batch  # nothing is padded
        for name in edits:
            self._site(name)
        groups: dict[Part, dict[str, Edit]] = {"encoder": {}, "decoder": {}}
        for name, edit in edits.items():
            part = _part(name)
            groups[part][name] = edit if metadata is not None else self._told(edit, part)
        with ExitStack() as stack:
            for part, some in groups.items():
                if some:
                    stack.enter_context(self._held_patch(part, some, metadata))
            yield

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the network in evaluation mode for several forwards."""
        with hooks.evaluating(self.module):
            yield

    @contextmanager
    def forward_of(
        self,
        part: Part,
        *,
        instances: Instances,
        times: int = 1,
        actions: Tensor | None = None,
        at: tuple[int, Tensor] | None = None,
    ) -> Iterator[None]:
        """Mark one forward of a part, in which its patches apply.

        The rows are the instances, `times` views of them one after another; at the decoder they are those of one step,
        `at` which tours stand somewhere, or all along `actions`.
        """
        if part == "encoder":
            told = _frame(lambda: rows_of(instances.ids * times, instances.nodes, None))
        elif at is not None:
            told = _frame(lambda: _standing(instances.ids * times, instances.nodes, at=at))
        else:
            told = _frame(lambda: rows_of(instances.ids, instances.nodes, actions))
        with self._telling({part: told}), ExitStack() as stack:
            for active in self._of(part):
                stack.enter_context(active.forward())
            yield

    def _run(self, module: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Run a batch; __call__ has marked the forward of all patches."""
        coords, actions = batch["coords"], batch.get("actions")
        ids = batch.get("ids") or tuple(f"instance-{i}" for i in range(len(coords)))
        n = coords.shape[1]
        told: dict[Part, Callable[[], pl.DataFrame]] = {
            "encoder": _frame(lambda: rows_of(ids, n, None)),
            "decoder": _frame(lambda: rows_of(ids, n, actions)),
        }
        with self._telling(told):
            output: dict[str, Tensor] = module(coords, actions)
            return output

    def _told(self, edit: Edit, part: Part) -> Edit:
        return lambda x, _: edit(x, self._rows[part]())

    @contextmanager
    def _held_patch(self, part: Part, edits: Mapping[str, Edit], metadata: pl.DataFrame | None) -> Iterator[None]:
        patching = hooks.patch(self.module, edits, sites=self.sites, metadata=metadata, marked=True)
        with patching as active:
            entry = (active, False)
            self._patches.append(entry)
            self._parts[id(active)] = part
            try:
                yield
            finally:
                self._patches.remove(entry)
                del self._parts[id(active)]

    def _of(self, part: Part) -> list[hooks.Patch]:
        return [active for active, _ in self._patches if self._parts[id(active)] == part]

    @contextmanager
    def _telling(self, told: Mapping[Part, Callable[[], pl.DataFrame]]) -> Iterator[None]:
        before, self._rows = self._rows, {**self._rows, **told}
        try:
            yield
        finally:
            self._rows = before


def load(
    run: Path | str | None = None,
    *,
    checkpoint: str | int | Path = "last",
    policy: PolicyConfig | AttentionPolicy | None = None,
    random_weights: bool = False,
    seed: int = 0,
    device: str = "cpu",
    name: str | None = None,
) -> RoutingModel:
    """Load a policy from the folder of a run, ours or one of rl4co, or take one as it is.

    `random_weights`, drawn from `seed`, keep everything but what was learnt: the control of all that is found.
    """
    if (run is None) == (policy is None):
        raise ConfigError("a policy comes from a run or is given", where="routing_policy", remedy="Give one of both.")
    if isinstance(policy, AttentionPolicy):
        network, called = policy, "routing policy"
    elif policy is not None:
        network, called = files.random_like(policy, seed), f"random weights {seed}"
    else:
        folder = Path(str(run))
        path = files.find(folder, checkpoint)
        network = files.read(path) if files.ours(path) else rl4co.read(path, files.read_config(folder))
        called = f"{folder.name}, {path.stem}"
    if random_weights and policy is None:
        network, called = files.random_like(network.config, seed), f"{called} (random weights {seed})"
    return RoutingModel(network.to(torch.device(choose(device, "fp32").device)), name=name or called)


MODEL = load


def reads(folder: Path) -> bool:
    """Whether a folder is that of a policy's run."""
    return bool(files.epochs(folder)) and (folder / files.CONFIG).is_file()


def example() -> tuple[RoutingModel, Instances]:
    """Return a tiny policy with random weights and instances for it, with which the contract is tested."""
    config = PolicyConfig(
        embed_dim=16, num_encoder_layers=2, num_heads=2, feedforward_hidden=24, use_graph_context=True
    )
    instances = draw(InstanceConfig(num_instances=6, num_loc=7))
    return load(policy=begin(config, 0).requires_grad_(False).eval()), instances


def sites_of(config: PolicyConfig) -> dict[str, Site]:
    """Every site of a policy."""
    width = config.embed_dim
    found: dict[str, Site] = {}
    for i in range(config.num_encoder_layers):
        name, path = f"encoder_layer_{i}", f"encoder.layers.{i}"
        for part in ("", ".attention", ".mlp"):
            found[name + part] = Site(path + part, width=width)
            found[f"{name}{part}.input"] = Site(path + part, "input", width)
    found["encoder_output"] = Site("encoder", width=width)
    found["decoder_context"] = Site("decoder.context", width=width)
    found["decoder_query"] = Site("decoder.query", width=width)
    return found


def rows_of(ids: tuple[str, ...], nodes: int, actions: Tensor | None) -> pl.DataFrame:
    """Return the metadata of a batch: a row a node, or a step along tours [instances, nodes] or several an instance."""
    tours = 1 if actions is None or actions.ndim == 2 else int(actions.shape[1])
    names = pl.Series("sample_id", ids, pl.String).gather(_repeated(len(ids), nodes * tours))
    columns: dict[str, Any] = {
        "sample_id": names,
        "position": pl.Series(torch.arange(nodes).repeat(len(ids) * tours).numpy(), dtype=pl.Int32),
        "group": names,
    }
    if actions is not None:
        whole = actions.detach().cpu().reshape(-1, nodes)
        before = torch.cat([torch.full_like(whole[:, :1], -1), whole[:, :-1]], 1)
        columns["current"] = pl.Series(before.reshape(-1).numpy(), dtype=pl.Int32)
    return pl.DataFrame(columns)


def _standing(ids: tuple[str, ...], nodes: int, *, at: tuple[int, Tensor]) -> pl.DataFrame:
    """Return the metadata of one step: a row a tour that is being built."""
    step, current = at
    names = pl.Series("sample_id", ids, pl.String).gather(_repeated(len(ids), current.shape[1]))
    stand = current.where(current < nodes, -1).cpu().reshape(-1).numpy()
    columns = {"sample_id": names, "position": step, "group": names, "current": pl.Series(stand, dtype=pl.Int32)}
    return pl.DataFrame(columns).with_columns(pl.col("position").cast(pl.Int32))


def _repeated(count: int, times: int) -> Any:
    return torch.arange(count).repeat_interleave(times).numpy()


def _frame(make: Callable[[], pl.DataFrame]) -> Callable[[], pl.DataFrame]:
    """Make a table when somebody first asks for it."""
    made: list[pl.DataFrame] = []

    def give() -> pl.DataFrame:
        if not made:
            made.append(make())
        return made[0]

    return give


def _part(site: str) -> Part:
    return "decoder" if site.startswith("decoder_") else "encoder"

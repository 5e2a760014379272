"""What a policy's graph is made of: its transcoders, one instance, its tour, and the step that is explained.

    RUN/clt/clt_runs/<pair of all MLPs>/<time>/            the cross-layer transcoder (clt_training.py)
    RUN/clt/clt_runs/<pair of all MLPs>/<time>/layer_L/    a transcoder of each layer alone, trained beside it
    RUN/clt/clt_runs/<pair of one MLP>/<time>/             else those that were trained by themselves

All is computed in float64 on the processor: a policy is small, and edges are then what ablations give to many digits.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError, DataError, near
from elute.dictionaries.dictionary import Dictionary
from elute.graphs.layers import Layers
from elute.graphs.outputs import Outputs
from elute.graphs.replacement import Replacement
from elute.routing.cause_inputs import LATEST, find_dictionary, held_out, open_policy, open_subject, policy_site
from elute.routing.cause_settings import JudgedConfig
from elute.routing.pair_settings import PairSpec

if TYPE_CHECKING:
    import torch

    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel
    from elute.routing.cause_inputs import Subject
    from elute.routing.graph_settings import RoutingGraphConfig

TOKENS = "encoder_layer_0.input"
_SEEN = 100
_MOST = 10_000  # instances that are drawn, at most
_TRAIN = "Train them: elute routing train-clt --run-dir RUN."


@dataclass(frozen=True, eq=False)
class Stand:
    """Transcoders of one kind in the place of all MLPs of a policy."""

    kind: str  # clt or transcoder
    given: Dictionary | list[Dictionary]
    places: tuple[Path, ...]
    digests: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Choice:
    """One choice of the policy: an instance, its tour, and how many nodes of it there are when the next is chosen."""

    instances: Instances  # one
    tour: torch.Tensor  # int64 [1, nodes]
    step: int
    most: int = 10

    @property
    def name(self) -> str:
        """The instance's id."""
        return self.instances.ids[0]

    @property
    def current(self) -> int:
        """The node where the tour stands."""
        return int(self.tour[0, self.step - 1])

    @property
    def batch(self) -> dict[str, Any]:
        """The same for the model, in float64."""
        return {"coords": self.instances.coords.double(), "actions": self.tour, "ids": self.instances.ids}

    @property
    def words(self) -> list[str]:
        """What each node is called: where it stands in the tour so far."""
        n = self.instances.nodes
        place = {int(node): i for i, node in enumerate(self.tour[0, : self.step])}
        told = {0: " (first)", self.step - 1: " (current)"}
        if self.step == 1:
            told = {0: " (first, current)"}
        return [f"node {i}" + (told.get(place[i], " (visited)") if i in place else "") for i in range(n)]

    def outputs(self) -> Outputs:
        """The logits of the next node, which stand at the current one."""
        step = self.step
        labels = [f"node {i}" for i in range(self.instances.nodes)]
        return Outputs(lambda out: out["logits"][0, step], labels=labels, most=self.most, position=self.current)

    def replacement(self, model: RoutingModel, stand: Stand, layers: Layers) -> Replacement:
        """Put transcoders in the place of the MLPs, on this choice."""
        return Replacement.of(model, self.batch, stand.given, outputs=self.outputs(), tokens=TOKENS, layers=layers)


@dataclass(frozen=True, eq=False)
class Inputs:
    """All that graphs of a run are made of."""

    model: RoutingModel  # float64
    layers: Layers
    stands: tuple[Stand, ...]
    choices: tuple[Choice, ...]  # the one that is explained, then others
    seen: Instances  # on which features are looked at
    seen_tours: torch.Tensor
    weights: str  # digest of the policy's

    @property
    def digests(self) -> dict[str, str]:
        """What a graph depends on."""
        made = {f"{s.kind} {number}": digest for s in self.stands for number, digest in enumerate(s.digests)}
        return {"model": self.weights, "instance": self.choices[0].instances.source, **made}


def open_inputs(run: Path, config: RoutingGraphConfig, *, clt_run: str = LATEST, most: int = 10) -> Inputs:
    """Open what a graph is made of; what is not there is refused in one line."""
    from elute.models.routing.decoding import decode

    judged = JudgedConfig(
        instances=_MOST, num_loc=config.num_loc, distribution=config.distribution,
        instance_seed=config.instance_seed, checkpoint=config.checkpoint, device="cpu",
    )  # fmt: skip
    model = open_policy(run, judged)
    layers = Layers.of(model.sites)
    found = list(_stands(run, model, layers, asked=config.dictionaries, clt_run=clt_run))
    if not found:
        kind = "cross-layer transcoder" if config.dictionaries == "clt" else "transcoder"
        raise DataError(f"there is no {kind} of all {len(layers)} MLPs", where=run, remedy=_TRAIN)
    number = _number(config.instance, run, judged)
    drawn = judged.model_copy(update={"instances": max(_SEEN, number + config.others + 1)})
    pairs = {id(subject.rows): subject.rows for _, subjects in found for subject in subjects}
    every = held_out(run, drawn, pairs=pairs.values())
    weights = model.fingerprint().weights
    choices = [
        _choose(model, every.part(i, i + 1), config.step if i == number else None, most=most)
        for i in range(number, min(len(every), number + config.others + 1))
    ]
    seen = every.part(0, _SEEN)
    tours = decode(model, seen, batch_size=_SEEN).actions
    model.module.double().requires_grad_(False)
    return Inputs(model, layers, tuple(stand for stand, _ in found), tuple(choices), seen, tours, weights)


def _number(asked: str, run: Path, judged: JudgedConfig) -> int:
    """Find the number of an instance, which may be given as its id."""
    stem, _, last = asked.rpartition("-")
    if not last.isascii() or not last.isdecimal() or int(last) >= _MOST:
        remedy = f"Give a number from 0 to {_MOST - 1}, or an id."
        raise ConfigError(f"there is no instance {asked!r}", where="instance", remedy=remedy)
    if stem:
        known = held_out(run, judged.model_copy(update={"instances": 2})).ids[0].rpartition("-")[0]
        if stem != known:
            what = f"there is no instance {asked!r}: those that are drawn are called {known}-NUMBER"
            remedy = near(stem, [known]) + " --instance-seed, --num-loc and --distribution say which are drawn."
            raise ConfigError(what, where="instance", remedy=remedy.strip())
    return int(last)


def _choose(model: RoutingModel, one: Instances, step: int | None, *, most: int) -> Choice:
    """Let the policy build its tour, and choose the step."""
    from elute.models.routing.decoding import decode, replay

    tour = decode(model, one, batch_size=1).actions
    last = one.nodes - 1
    if step is not None and step >= last:
        what = f"with {step} of {one.nodes} nodes in the tour there is nothing to choose"
        raise ConfigError(what, where="step", remedy=f"Give 1 to {last - 1}.")
    if step is None:
        shares = replay(model, one, tour, batch_size=1)[0].double().softmax(-1)
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum(-1)
        step = 1 + int(entropy[1:last].argmax())
    return Choice(one, tour, step, most)


def _stands(
    run: Path, model: RoutingModel, layers: Layers, *, asked: str, clt_run: str
) -> Iterator[tuple[Stand, list[Subject]]]:
    """Find the transcoders that a run has: across layers, and of each layer alone."""
    whole = PairSpec(layers.reads, layers.writes).name
    home = _home(run, whole, clt_run)
    if home is not None and asked in ("both", "clt"):
        subject = open_subject(run, whole, model=model, clt_run=str(home))
        if subject.dictionary.spec.kind == "clt":
            yield _stand("clt", [subject]), [subject]
    if asked == "clt":
        return
    parts: list[Subject] = []
    for number, (read, write) in enumerate(zip(layers.reads, layers.writes, strict=True)):
        beside = None if home is None else home / f"layer_{number}"
        if beside is not None and (beside / "sae_final.pt").is_file():
            parts.append(open_subject(run, whole, model=model, clt_run=str(beside)))
            continue
        name = PairSpec((read,), (write,)).name
        if _home(run, name, LATEST) is None:
            return
        parts.append(open_subject(run, name, model=model))
    yield _stand("transcoder", parts), parts


def _home(run: Path, pair: str, which: str) -> Path | None:
    """Where a pair's dictionary lies, if there is one; one that is asked for by name has to be."""
    try:
        return find_dictionary(run, pair, which)
    except DataError:
        if which != LATEST:
            raise
        return None


def _stand(kind: str, subjects: list[Subject]) -> Stand:
    made = [_placed(subject) for subject in subjects]
    places = tuple(subject.home for subject in subjects)
    digests = tuple(subject.digest for subject in subjects)
    return Stand(kind, made[0] if kind == "clt" else made, places, digests)


def _placed(subject: Subject) -> Dictionary:
    """Return a dictionary by the policy's names of its sites, in float64."""
    made = subject.dictionary.double()
    sides = {
        "reads": {policy_site(name): width for name, width in made.spec.reads.items()},
        "writes": {policy_site(name): width for name, width in made.spec.writes.items()},
    }
    made.spec = made.spec.model_copy(update=sides)
    return made

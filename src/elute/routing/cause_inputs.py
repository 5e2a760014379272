"""What a test of cause is given: a policy, dictionaries of its pairs, and instances that neither has seen.

    RUN/clt/activations/<pair>/            rows of the pair, a store with the sites source_<a> and target_<b>
    RUN/clt/clt_runs/<pair>/<time>/        a dictionary; `latest` beside it is a link to a folder, or names one

A dictionary names the store's sites; without source_ and target_ they are those of the policy. One that was trained on
another policy, or on rows that were centred by a column, is refused: what it is given here would be other rows.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError, DataError, GuardError, near

if TYPE_CHECKING:
    from elute.dictionaries.dictionary import Dictionary
    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel
    from elute.routing.cause_settings import JudgedConfig
    from elute.routing.pairs import Pair

LATEST = "latest"
_PREFIXES = ("source_", "target_")
_TRAIN = "Train it: elute routing train-transcoder --run-dir RUN --pair PAIR."


@dataclass(frozen=True, eq=False)
class Subject:
    """A dictionary in its place in a policy."""

    pair: str
    model: RoutingModel
    dictionary: Dictionary
    rows: Pair
    home: Path  # of the dictionary
    digest: str  # of the dictionary

    @property
    def reads(self) -> dict[str, str]:
        """The policy's site of each site that is read."""
        return {name: policy_site(name) for name in self.dictionary.spec.reads}

    @property
    def writes(self) -> dict[str, str]:
        """The policy's site of each site that is written."""
        return {name: policy_site(name) for name in self.dictionary.spec.writes}

    @property
    def at_steps(self) -> bool:
        """Whether its rows are steps of the decoder, and not nodes."""
        return any(site.startswith("decoder_") for site in self.writes.values())


def policy_site(name: str) -> str:
    """Return the policy's name of a site of a pair."""
    for prefix in _PREFIXES:
        name = name.removeprefix(prefix)
    return name


def open_policy(run: Path, config: JudgedConfig) -> RoutingModel:
    """Open a run's policy."""
    from elute.models.routing_policy import load

    return load(run, checkpoint=config.checkpoint, device=config.device)


def open_subject(
    run: Path, pair: str, *, model: RoutingModel, clt_run: str = LATEST, other_policy: bool = False
) -> Subject:
    """Open a pair's dictionary; `other_policy` lets it be one of another policy than this one."""
    from elute.dictionaries.files import digest, load_dictionary
    from elute.routing.pairs import open_pair

    home = find_dictionary(run, pair, clt_run)
    dictionary = load_dictionary(home).to(model.device)
    source = dictionary.spec.source
    if source.get("centre"):
        what = f"was trained on rows centred by {source.get('centre_by')}, which a policy's rows here are not"
        raise GuardError(what, where=home, remedy="Train it without --center-by.")
    for name, width in {**dictionary.spec.reads, **dictionary.spec.writes}.items():
        site = model.sites.get(policy_site(name))
        if site is None:
            remedy = near(policy_site(name), model.sites)
            raise GuardError(f"the policy has no site {policy_site(name)!r}", where=home, remedy=remedy)
        if width % site.width:
            what = f"knows {policy_site(name)!r} as {width} wide, and the policy gives {site.width}"
            raise GuardError(what, where=home, remedy="Use the policy that it was trained on.")
    if not other_policy:
        _of_this_policy(source, model, home)
    return Subject(pair, model, dictionary, open_pair(run, pair), home, digest(dictionary))


def _of_this_policy(source: dict[str, Any], model: RoutingModel, home: Path) -> None:
    trained = source.get("model")
    if not trained:
        return
    here = model.fingerprint()
    if (trained["weights"], trained["config"]) != (here.weights, here.config):
        what = f"was trained on {trained['name']}, and {here.name} has other weights"
        remedy = "Give its --checkpoint, or ask how far it carries: elute routing generalise."
        raise GuardError(what, where=home, remedy=remedy)


def find_dictionary(run: Path, pair: str, which: str = LATEST) -> Path:
    """Return the folder of a pair's dictionary: the latest one, one by its folder's name, or a path as it is."""
    from elute.dictionaries.files import NAME

    base = run / "clt" / "clt_runs" / pair
    for place in (base / which, Path(which)):
        if which != LATEST and (place / NAME).is_file():
            return place
        if which != LATEST and place.is_file() and place.name == NAME:
            return place.parent
    if not base.is_dir():
        raise DataError(
            f"there is no dictionary of {pair!r}", where=run, remedy=near(pair, pairs_of(run)) + " " + _TRAIN
        )
    known = sorted(p.name for p in base.iterdir() if (p / NAME).is_file() and p.name != LATEST)
    if which != LATEST:
        raise DataError(f"there is no run {which!r}", where=base, remedy=near(which, known))
    pointed = _pointed(base / LATEST)
    if pointed is not None and (pointed / NAME).is_file():
        return pointed
    if not known:
        raise DataError("no training has ended here", where=base, remedy=_TRAIN)
    return base / known[-1]


def _pointed(link: Path) -> Path | None:
    """Follow a link, or a small file that names a folder."""
    if link.is_dir():
        return link.resolve()
    for path in (link, link.with_suffix(".json"), link.with_suffix(".txt")):
        if path.is_file() and path.stat().st_size < 4096:
            text = path.read_text(encoding="utf-8", errors="replace").strip()
            try:
                held = json.loads(text)
            except ValueError:
                held = text
            name = next(iter(held.values()), "") if isinstance(held, dict) else held
            if isinstance(name, str) and name:
                return link.parent / name
    return None


def pairs_of(run: Path) -> list[str]:
    """Names of the pairs of which there is a dictionary."""
    from elute.dictionaries.files import NAME

    base = run / "clt" / "clt_runs"
    if not base.is_dir():
        return []
    return sorted(p.name for p in base.iterdir() if p.is_dir() and any(p.glob(f"*/{NAME}")))


def held_out(run: Path, config: JudgedConfig, *, pairs: Iterable[Pair] = ()) -> Instances:
    """Draw instances to judge by; none that the rows of a pair come from."""
    from elute.models.routing import checkpoint
    from elute.models.routing.instances import draw
    from elute.models.routing.settings import InstanceConfig

    trained = checkpoint.read_config(run).get("policy_training", {})
    found = draw(
        InstanceConfig(
            num_instances=config.instances,
            num_loc=config.num_loc or int(trained.get("num_loc", 20)),
            distribution=config.distribution or trained.get("distribution", "uniform"),
            seed=config.instance_seed,
        )
    )
    for pair in pairs:
        if met := sorted(set(pair.ids()).intersection(found.ids)):
            what = f"{len(met)} instances are among those of its rows, the first {met[0]!r}"
            raise ConfigError(what, where=pair.folder, remedy="Give another --instance-seed.")
    return found


def cut(instances: Instances, size: int) -> Iterator[Instances]:
    """Cut instances into parts of about the same size, none of a single one: another instance has to be at hand."""
    parts = -(-len(instances) // size)
    if len(instances) // parts < 2:
        parts = max(1, parts - 1)
    edges = [len(instances) * i // parts for i in range(parts + 1)]
    for low, high in itertools.pairwise(edges):
        yield instances.part(low, high)

"""`elute routing generalise`: a dictionary of one policy, on other checkpoints, distributions, sizes and policies.

One thing is changed at a time from what it was trained on. On each condition's held-out instances:

    transcoder       the dictionary as it is
    linear map       the map that was fitted to the same training rows
    fitted anew      a linear map fitted to the first half of the condition's own instances: what could be had
    mean             of the dictionary's training rows

Explained variance is about the condition's own mean; tours and divergence are those of the condition's own policy when
each stands in the place of the layer. All are judged on the second half. A policy of random weights is the control: a
dictionary that does as well there says nothing of what was learnt.

    RUN/clt/generalise/<pair>/generalise.json, index.html
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import ConfigError, EluteError
from elute.base.run import Artifact
from elute.routing.cause_settings import GeneraliseConfig, JudgedConfig

if TYPE_CHECKING:
    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel
    from elute.routing.cause_inputs import Subject
    from elute.routing.linear_map import Affine

STAGE = "generalise"
ARMS = ("transcoder", "linear map", "fitted anew", "mean")
METRICS = ("drift", "kl", "agreement")


@dataclass(frozen=True)
class Condition:
    """Where a dictionary is tried."""

    what: str  # what was changed
    name: str
    run: str
    checkpoint: str
    distribution: str
    nodes: int
    random_weights: bool = False


def generalise_run(
    run_dir: Path | str, pair: str, judged: JudgedConfig | None = None, *, config: GeneraliseConfig | None = None,
    clt_run: str = "latest",
) -> Artifact:  # fmt: skip
    """Try a pair's dictionary elsewhere."""
    from elute.reports.routing.generalise_page import write_generalise_page
    from elute.routing.cause_inputs import find_dictionary, open_policy, open_subject

    folder, judged, config = Path(run_dir), judged or JudgedConfig(), config or GeneraliseConfig()
    model = open_policy(folder, judged)
    subject = open_subject(folder, pair, model=model, clt_run=clt_run)
    home = str(find_dictionary(folder, pair, clt_run))
    output = files.make_folder(folder / "clt" / STAGE / subject.pair)
    told = list(conditions(folder, judged, config))
    with files.locked(output, "trying a dictionary elsewhere"):
        parts = [_condition(output, folder, each, subject=subject, home=home, judged=judged) for each in told]
        summary = {
            "pair": subject.pair, "reads": list(subject.reads.values()), "writes": list(subject.writes.values()),
            "instances": judged.instances, "conditions": parts,
        }  # fmt: skip
        files.write_json(output / "generalise.json", summary)
        write_generalise_page(output / "index.html", summary)
    return Artifact(STAGE, output, summary)


def conditions(folder: Path, judged: JudgedConfig, config: GeneraliseConfig) -> Iterator[Condition]:
    """Yield what it was trained on, then every other condition."""
    from elute.models.routing import checkpoint as checkpoints

    trained = checkpoints.read_config(folder).get("policy_training", {})
    nodes = judged.num_loc or int(trained.get("num_loc", 20))
    usual = str(judged.distribution or trained.get("distribution", "uniform"))
    known = checkpoints.epochs(folder)
    if not known:
        raise ConfigError("the run has no checkpoints", where=folder, remedy="Give a policy's run.")
    base = checkpoints.find(folder, judged.checkpoint)
    here = Condition("as trained", "as trained", str(folder), str(base), usual, nodes)
    yield here
    others = list(config.checkpoints) or [str(e) for e in dict.fromkeys((known[0], known[len(known) // 2], known[-1]))]
    for text in others:
        path = checkpoints.find(folder, text)
        if path.resolve() != base.resolve():
            yield Condition("checkpoint", f"epoch {text}", str(folder), str(path), usual, nodes)
    for name in config.distributions:
        if name != usual:
            yield Condition("distribution", name, str(folder), str(base), name, nodes)
    for size in config.sizes or (max(5, nodes // 2), nodes, 2 * nodes):
        if size < 4:
            raise ConfigError(f"{size} nodes", where="sizes", remedy="Give 4 or more.")
        if size != nodes:
            yield Condition("size", f"{size} nodes", str(folder), str(base), usual, size)
    for other in config.runs:
        path = checkpoints.find(Path(other))
        yield Condition("policy", Path(other).name, other, str(path), usual, nodes)
    if config.random_weights:
        yield Condition("control", "random weights", str(folder), str(base), usual, nodes, random_weights=True)


def _condition(
    output: Path, folder: Path, condition: Condition, *, subject: Subject, home: str, judged: JudgedConfig
) -> dict[str, Any]:
    """Judge one condition, or return what was found before."""
    from elute.models.routing_policy import load
    from elute.routing.cause_inputs import held_out, open_subject

    try:
        model = load(
            condition.run, checkpoint=Path(condition.checkpoint), random_weights=condition.random_weights,
            seed=judged.seed, device=judged.device,
        )  # fmt: skip
        there = open_subject(folder, subject.pair, model=model, clt_run=home, other_policy=True)
    except EluteError as error:
        error.add_note(f"in the condition {condition.name!r}")
        raise
    drawn = judged.model_copy(update={"num_loc": condition.nodes, "distribution": condition.distribution})
    instances = held_out(folder, drawn, pairs=[subject.rows])
    inputs = {"model": model.fingerprint().weights, "instances": instances.source, "dictionary": subject.digest}
    place = output / f"{condition.what} {condition.name}".replace(" ", "_").replace("/", "_")
    done = run.finished(place, STAGE, drawn.identity(), inputs=inputs)
    if done is not None:
        console.say(f"{place}: already done, used as it is")
        return done
    summary = {
        "what": condition.what, "name": condition.name, "nodes": condition.nodes,
        "distribution": condition.distribution, "random_weights": condition.random_weights,
        **judge(there, model, instances, judged=drawn),
    }  # fmt: skip
    files.make_folder(place)
    run.record(place, STAGE, drawn.identity(), inputs=inputs, summary=summary, model=model.fingerprint())
    return summary


def judge(subject: Subject, model: RoutingModel, instances: Instances, *, judged: JudgedConfig) -> dict[str, Any]:
    """Judge the dictionary and its bars on one condition."""
    import torch

    from elute.engine.metrics import Reconstruction
    from elute.routing import replacing
    from elute.routing.attributing import clean
    from elute.routing.cause_inputs import cut
    from elute.routing.linear_map import fit
    from elute.routing.measuring import effect, reference

    half = len(instances) // 2
    maps = fit(subject.rows.store, subject.dictionary.spec)
    anew = _fitted_anew(subject, model, instances.part(0, half), batch=judged.batch)
    arms = {
        "transcoder": replacing.reconstruction(subject),
        "linear map": replacing.mapped(subject, maps),
        "fitted anew": replacing.mapped(subject, anew),
        "mean": replacing.held(subject, {name: one.mean for name, one in maps.items()}),
    }
    writes = subject.dictionary.spec.writes
    judges = {arm: {name: Reconstruction(width) for name, width in writes.items()} for arm in ARMS}
    found: dict[str, dict[str, list[torch.Tensor]]] = {arm: {m: [] for m in METRICS} for arm in ARMS}
    with console.progress("generalise", (len(instances) - half) * len(ARMS), unit="instances") as bar:
        for part in cut(instances.part(half, len(instances)), judged.batch):
            ref = reference(model, part)
            seen = clean(subject, ref)
            for name in writes:
                told = {
                    "transcoder": replacing.decoded(subject.dictionary, seen.read, name),
                    "linear map": maps[name](seen.read),
                    "fitted anew": anew[name](seen.read),
                    "mean": maps[name].mean.expand_as(seen.written[name]),
                }
                for arm in ARMS:
                    judges[arm][name].update((seen.written[name].cpu(), told[arm].cpu()))
            for arm, replacement in arms.items():
                each = effect(model, ref, replacing.edits([replacement]))
                for metric in METRICS:
                    found[arm][metric].append(getattr(each, metric))
                bar.advance(len(part))
    values = {arm: {metric: torch.cat(parts).numpy() for metric, parts in told.items()} for arm, told in found.items()}
    explained = {
        arm: sum(j.result().explained_variance for j in sites.values()) / len(sites) for arm, sites in judges.items()
    }
    return _summarised(values, explained, judged=judged)


def _fitted_anew(subject: Subject, model: RoutingModel, instances: Instances, *, batch: int) -> dict[str, Affine]:
    """Fit linear maps to the condition's own instances."""
    from elute.routing.attributing import clean
    from elute.routing.cause_inputs import cut
    from elute.routing.linear_map import fit_rows
    from elute.routing.measuring import reference

    learnt = []
    for part in cut(instances, batch):
        seen = clean(subject, reference(model, part))
        learnt.append({name: x.cpu().numpy() for name, x in {**seen.read, **seen.written}.items()})
    return fit_rows(learnt, subject.dictionary.spec)


def _summarised(
    values: dict[str, dict[str, Any]], explained: dict[str, float], *, judged: JudgedConfig
) -> dict[str, Any]:
    """Return each arm's means with intervals, and how the dictionary's divergence differs from the linear map's."""
    import numpy as np

    from elute.routing.intervals import differences, means, plain

    keys = [(arm, metric) for arm in ARMS for metric in METRICS]
    columns = np.stack([values[arm][metric] for arm, metric in keys], 1)
    table = dict(zip(keys, means(columns, resamples=judged.resamples, seed=judged.seed), strict=True))
    places = [(keys.index(("transcoder", "kl")), keys.index(("linear map", "kl")))]
    (apart,) = differences(columns, places, resamples=judged.resamples, seed=judged.seed)
    return {
        "arms": {
            arm: {
                "explained_variance": plain(explained[arm]),
                **{metric: table[arm, metric].as_json() for metric in METRICS},
            }
            for arm in ARMS
        },
        "kl_less_linear_map": apart.as_json(),
    }


def show(answer: dict[str, Any]) -> str:
    """Say it for people."""
    lines = [
        f"{answer['path']}: {answer['pair']}, {answer['instances']:,} instances a condition, judged on half of them"
    ]
    lines.append(f"  {'':<28}{'explained variance':^34}{'tours longer by':>22}")
    lines.append(f"  {'':<28}{'transcoder':>11}{'linear':>11}{'anew':>11}{'transcoder':>12}{'linear':>11}")
    for told in answer["conditions"]:
        arms = told["arms"]
        values = [arms[arm]["explained_variance"] for arm in ("transcoder", "linear map", "fitted anew")]
        ev = "".join(f"{value:>11.3f}" if value >= -1 else f"{'below -1':>11}" for value in values)
        drift = f"{arms['transcoder']['drift']['mean']:>12.2%}{arms['linear map']['drift']['mean']:>11.2%}"
        lines.append(f"  {told['what'] + ': ' + told['name']:<28.28}{ev}{drift}")
    return "\n".join([*lines, f"Open {answer['path']}/index.html in a browser."])

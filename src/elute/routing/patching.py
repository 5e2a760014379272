"""`elute routing patch`: layers replaced by what a dictionary makes of earlier ones, beside what is simpler.

Each arm stands in the place of the same sites, on the same held-out instances:

    transcoder            what the dictionary reconstructs
    transcoder + error    that and its error term: nothing may change, to the last bit
    linear map            the best affine map, fitted to the training rows: the bar
    passed through        the state before; a part that is added adds nothing
    mean                  the mean of the training rows
    another instance's    what the next instance gives at the same node

    RUN/clt/patch/<pair>/per_instance.parquet    an arm and instance a row
    RUN/clt/patch/<pair>/patch.json              means, intervals, and differences from the transcoder's arm
    RUN/clt/patch/index.html                     all pairs that were patched on these instances

A pair that is done with these settings is not done again, so a run that was interrupted goes on with the next one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import ConfigError
from elute.base.run import Artifact
from elute.routing.cause_settings import JudgedConfig, PatchConfig

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel
    from elute.routing.cause_inputs import Subject
    from elute.routing.linear_map import Affine
    from elute.routing.measuring import Effect, Reference
    from elute.routing.replacing import Replacement

STAGE = "patch"
OURS, EXACT = "transcoder", "transcoder + error"
CONTROLS = ("linear map", "passed through", "mean", "another instance's")
ARMS = (OURS, EXACT, *CONTROLS)
COMPARED = {"drift": True, "kl": True, "agreement": False}  # whether less is better
_TABLE = "per_instance.parquet"


@dataclass(frozen=True, eq=False)
class Group:
    """Dictionaries that stand in a policy at once."""

    name: str
    subjects: tuple[Subject, ...]
    maps: tuple[Mapping[str, Affine], ...]

    @property
    def sites(self) -> list[str]:
        """The policy's sites that are written."""
        return [site for subject in self.subjects for site in subject.writes.values()]


def patch_run(
    run_dir: Path | str, pairs: Sequence[str] = (), judged: JudgedConfig | None = None, *,
    config: PatchConfig | None = None, clt_run: str = "latest",
) -> Artifact:  # fmt: skip
    """Patch the pairs of a run, those that have a dictionary if none is named."""
    from elute.routing.cause_inputs import LATEST, held_out, open_policy, open_subject, pairs_of

    folder, judged, config = Path(run_dir), judged or JudgedConfig(), config or PatchConfig()
    names = list(dict.fromkeys(pairs or pairs_of(folder)))
    if not names:
        remedy = "Train one: elute routing train-transcoder --run-dir RUN --pair PAIR."
        raise ConfigError("there is no dictionary of any pair", where=folder, remedy=remedy)
    if clt_run != LATEST and len(names) > 1:
        raise ConfigError(f"{clt_run!r} is the run of one pair", where=folder, remedy="Name that pair alone.")
    model = open_policy(folder, judged)
    subjects = [open_subject(folder, name, model=model, clt_run=clt_run) for name in names]
    instances = held_out(folder, judged, pairs=[subject.rows for subject in subjects])
    output = files.make_folder(folder / "clt" / STAGE)
    with files.locked(output, "patching a policy"):
        told = {}
        for group in groups(subjects, together=config.together):
            told[group.name] = _part(output / group.name, group, model, judged=judged, instances=instances)
        apart = _page(output, folder, instances.source, judged=judged)
    told_all = {"instances": len(instances), "nodes": instances.nodes, "pairs": told, "same_layers": apart}
    return Artifact(STAGE, output, told_all)


def groups(subjects: Sequence[Subject], *, together: bool) -> list[Group]:
    """Return each dictionary by itself, then the layers and the feed-forward parts of all of them at once."""
    from elute.routing.linear_map import fit

    fitted = [fit(subject.rows.store, subject.dictionary.spec) for subject in subjects]
    found = [Group(s.pair, (s,), (maps,)) for s, maps in zip(subjects, fitted, strict=True)]
    if not together:
        return found
    kinds: dict[str, list[int]] = {}
    # Of several pairs that write one layer, the one that reads the nearest.
    for i in sorted(range(len(subjects)), key=lambda i: _depth(subjects[i]), reverse=True):
        subject = subjects[i]
        if len(subject.writes) > 1 or subject.at_steps:
            continue
        site = next(iter(subject.writes.values()))
        kind = site.rpartition(".")[2] if site.endswith((".mlp", ".attention")) else "layers"
        taken = {next(iter(subjects[j].writes.values())) for j in kinds.get(kind, [])}
        if site not in taken:
            kinds.setdefault(kind, []).append(i)
    for kind, members in kinds.items():
        if len(members) > 1:
            order = sorted(members)
            some = tuple(subjects[i] for i in order)
            found.append(Group(f"together_{kind}", some, tuple(fitted[i] for i in order)))
    return found


def _depth(subject: Subject) -> tuple[int, ...]:
    """Where a dictionary reads: the numbers in the names of its sites."""
    return tuple(int(number) for site in subject.reads.values() for number in re.findall(r"\d+", site))


def arms(group: Group, clean: Mapping[str, Tensor], nodes: int) -> dict[str, list[Replacement]]:
    """Return what stands in the place of a group's sites, by arm."""
    from elute.routing import replacing

    found: dict[str, list[Replacement]] = {name: [] for name in ARMS}
    for subject, maps in zip(group.subjects, group.maps, strict=True):
        found[OURS].append(replacing.reconstruction(subject))
        found[EXACT].append(replacing.reconstruction(subject, error=True))
        found["linear map"].append(replacing.mapped(subject, maps))
        found["passed through"].append(replacing.passed_through(subject))
        found["mean"].append(replacing.held(subject, {name: one.mean for name, one in maps.items()}))
        found["another instance's"].append(replacing.another(subject, clean, nodes))
    return found


def measured(
    group: Group, model: RoutingModel, instances: Instances, *, batch: int
) -> tuple[pl.DataFrame, dict[str, list[float]], bool]:
    """Return a row an arm and instance, each arm's divergence step by step, and whether the error term undid all."""
    import polars as pl
    import torch

    from elute.routing.cause_inputs import cut
    from elute.routing.measuring import effect, reference
    from elute.routing.replacing import edits

    frames: dict[str, list[pl.DataFrame]] = {name: [] for name in ARMS}
    steps = {name: torch.zeros(instances.nodes, dtype=torch.float64) for name in ARMS}
    identical = True
    with console.progress(f"patch {group.name}", len(instances) * len(ARMS), unit="instances") as bar:
        for part in cut(instances, batch):
            ref = reference(model, part)
            clean = captured(model, ref, group.sites)
            for name, replacements in arms(group, clean, part.nodes).items():
                found: Effect = effect(model, ref, edits(replacements))
                columns = {key: value.numpy() for key, value in found.columns().items()}
                frames[name].append(pl.DataFrame({"sample_id": list(part.ids), **columns}))
                steps[name] += found.kl_steps * len(part)
                identical &= found.identical or name != EXACT
                bar.advance(len(part))
    table = pl.concat([pl.concat(some).select(pl.lit(name).alias("arm"), pl.all()) for name, some in frames.items()])
    return table, {name: (total / len(instances)).tolist() for name, total in steps.items()}, identical


def captured(model: RoutingModel, ref: Reference, sites: Sequence[str]) -> dict[str, Tensor]:
    """Return the rows of sites while the policy is left alone, along its own tours."""
    decoder = any(site.startswith("decoder_") for site in sites)
    batches = model.batches(ref.instances, tours=ref.actions if decoder else False, batch_size=len(ref.instances))
    ((batch, _),) = batches
    found = {}
    for site in dict.fromkeys(sites):  # one by one: nodes and steps are different rows
        found.update(model.capture(batch, [site]))
    return found


def summarise(table: pl.DataFrame, *, resamples: int, seed: int) -> dict[str, Any]:
    """Return each arm's means, and how each control differs from the dictionary's arm, with paired intervals."""
    import numpy as np
    import polars as pl

    from elute.routing.intervals import differences, means, verdict
    from elute.routing.measuring import METRICS

    parts = {name: table.filter(pl.col("arm") == name) for name in ARMS}
    keys = [(arm, metric) for arm in ARMS for metric in METRICS]
    columns = np.stack([parts[arm][metric].to_numpy() for arm, metric in keys], 1)
    found = dict(zip(keys, means(columns, resamples=resamples, seed=seed), strict=True))
    asked = [(control, metric) for control in CONTROLS for metric in COMPARED]
    places = [(keys.index((OURS, metric)), keys.index((control, metric))) for control, metric in asked]
    apart = dict(zip(asked, differences(columns, places, resamples=resamples, seed=seed), strict=True))
    return {
        "arms": {arm: {metric: found[arm, metric].as_json() for metric in METRICS} for arm in ARMS},
        "differences": {
            control: {
                metric: apart[control, metric].as_json()
                | {"transcoder": verdict(apart[control, metric], less_is_better=less)}
                for metric, less in COMPARED.items()
            }
            for control in CONTROLS
        },
    }


def _part(
    folder: Path, group: Group, model: RoutingModel, *, judged: JudgedConfig, instances: Instances
) -> dict[str, Any]:
    """Patch one group, or return what was found before."""
    inputs = {
        "model": model.fingerprint().weights,
        "instances": instances.source,
        **{f"dictionary {subject.pair}": subject.digest for subject in group.subjects},
        **{f"rows {subject.pair}": subject.rows.store.manifest.store for subject in group.subjects},
    }
    done = run.finished(folder, STAGE, judged.identity(), inputs=inputs)
    if done is not None and (folder / _TABLE).is_file():
        console.say(f"{folder}: already patched with these settings, used as it is")
        return done
    table, steps, identical = measured(group, model, instances, batch=judged.batch)
    summary = {
        "pair": group.name,
        "reads": [site for subject in group.subjects for site in subject.reads.values()],
        "writes": group.sites,
        "instances": len(instances),
        "nodes": instances.nodes,
        "identical_with_error": identical,
        **summarise(table, resamples=judged.resamples, seed=judged.seed),
        "kl_steps": {arm: [float(f"{value:.6g}") for value in values] for arm, values in steps.items()},
    }
    if not identical:
        console.warn(f"{group.name}: with its error term the policy is not what it was; do not trust its other arms")
    files.make_folder(folder)
    files.write_atomically(folder / _TABLE, table.write_parquet)
    files.write_json(folder / "patch.json", summary)
    run.record(folder, STAGE, judged.identity(), inputs=inputs, summary=summary, model=model.fingerprint())
    return summary


def _page(output: Path, folder: Path, instances: str, *, judged: JudgedConfig) -> list[dict[str, Any]]:
    """Write a page about all pairs that were patched on these instances; return how those of the same layers differ."""
    from elute.reports.routing.patch_page import write_patch_page
    from elute.routing.patch_beside import beside

    parts = []
    for path in sorted(output.glob("*/run.json")):
        stage = run.read(path.parent)["stages"].get(STAGE)
        if stage is not None and stage["inputs"].get("instances") == instances:
            parts.append(stage["summary"])
    apart = beside(output, parts, table=_TABLE, arm=OURS, judged=judged)
    files.write_json(output / "patch.json", {"pairs": {part["pair"]: part for part in parts}, "same_layers": apart})
    write_patch_page(output / "index.html", folder.name, parts, apart=apart)
    return apart


def show(answer: dict[str, Any]) -> str:
    """Say it for people."""
    lines = [f"{answer['path']}: {answer['instances']:,} held-out instances of {answer['nodes']} nodes"]
    for name, told in answer["pairs"].items():
        lines.append(f"  {name}: replaced {', '.join(told['writes'])}")
        lines.append(f"    {'':<20}{'tours longer by':>32}{'KL a step':>10}{'same node':>11}  transcoder, by KL")
        for arm, each in told["arms"].items():
            drift = each["drift"]
            interval = f"{drift['mean']:.2%} [{drift['low']:.2%}, {drift['high']:.2%}]"
            apart = told["differences"].get(arm)
            word = "" if apart is None else apart["kl"]["transcoder"]
            lines.append(
                f"    {arm:<20}{interval:>32}{each['kl']['mean']:>10.4f}{each['agreement']['mean']:>11.1%}  {word}"
            )
        if not told["identical_with_error"]:
            lines.append("    with its error term the policy is NOT what it was: do not trust the other arms")
    same = answer["same_layers"]
    lines += [f"  {told['first']} beside {told['second']}, by KL: {told['kl']['first']}" for told in same]
    return "\n".join([*lines, f"Open {answer['path']}/index.html in a browser."])

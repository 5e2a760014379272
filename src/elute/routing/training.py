"""`elute routing train-policy`: a policy from nothing, and how good it is beside what needs none.

    RUN/config.json                          the policy's settings and those of its training
    RUN/checkpoints/checkpoint_epoch_N.ckpt  its weights after each epoch
    RUN/metrics.jsonl                        a line an epoch: gaps on held-out instances
    RUN/training_metrics.json                losses and lengths of sampled tours, step by step
    RUN/checkpoint.pt                        while training
    RUN/run.json                             settings, and the last policy's gaps with their controls

What was interrupted goes on, what is finished is used as it is, and no run is written over that has other settings.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.contracts import Fingerprint
from elute.base.errors import ConfigError
from elute.base.recipe import plain
from elute.base.run import Artifact
from elute.models.routing.settings import PolicyConfig
from elute.routing.policy_settings import STEPS, PolicyTrainConfig

if TYPE_CHECKING:
    from elute.base.recipe import Section
    from elute.engine.tracking import TrackConfig
    from elute.models.routing.policy import AttentionPolicy
    from elute.routing.learning_policy import PolicyObjective

STAGE = "train-policy"
KIND = "elute"  # what config.json says it was written by
_POLICY, _TRAINING = "policy", "policy_training"
_WARM, _TIMED = 3, 8  # steps
_WATCHED = 200  # held-out instances that are solved after each epoch


def train_policy(
    run_dir: Path | str,
    config: PolicyTrainConfig | None = None,
    policy: PolicyConfig | None = None,
    *,
    track: TrackConfig | None = None,
    anew: bool = False,
) -> Artifact:
    """Train a policy into the folder of a run."""
    from elute.engine import resume

    folder = Path(run_dir)
    config, policy = config or PolicyTrainConfig(), policy or PolicyConfig()
    asked: dict[str, Section] = {_POLICY: policy, _TRAINING: config.identity()}
    if not anew and (done := _finished(folder, asked)) is not None:
        console.say(f"{folder}: already trained with these settings, used as it is")
        return Artifact("policy", folder, {**done, "reused": True})
    files.make_folder(folder)
    with files.locked(folder, "training a policy"):
        before = _begun(folder, asked, anew=anew)
        job = _Job(folder, config, policy, steps=before or _steps(config, policy))
        files.write_json(folder / "config.json", {"written_by": KIND, "env": "tsp", "steps": job.steps, **plain(asked)})
        _train(job, track)
        summary = _judge(job)
        run.record(folder, STAGE, asked, inputs={}, summary=summary, model=Fingerprint(**summary["model"]))
        (folder / resume.NAME).unlink(missing_ok=True)
    return Artifact("policy", folder, {**summary, "reused": False})


def show(answer: dict[str, Any]) -> str:
    """Say what came of it, for people."""
    from elute.routing.scoring import table_lines

    head = f"{answer['path']}: {answer['parameters']:,} parameters, {answer['steps']:,} steps"
    more = f"; checkpoints of {console.count(answer['epochs'], 'epoch')} in checkpoints/"
    return "\n".join(["", head + more, "", *table_lines(answer["score"])])


@dataclass(frozen=True, eq=False)
class _Job:
    """One training in its place."""

    folder: Path
    config: PolicyTrainConfig
    policy: PolicyConfig
    steps: int

    @property
    def epoch_steps(self) -> int:
        """Steps of an epoch; the last one may have fewer."""
        return math.ceil(self.steps / min(self.config.epochs, self.steps))

    @property
    def settings(self) -> dict[str, Any]:
        """What a checkpoint to go on from was written under."""
        return {**plain({_POLICY: self.policy, _TRAINING: self.config.identity()}), "steps": self.steps}


def _finished(folder: Path, asked: dict[str, Section]) -> dict[str, Any] | None:
    """Return what these very settings gave, if the weights are still those."""
    from elute.models.routing import checkpoint

    summary = run.finished(folder, STAGE, asked, inputs={})
    if summary is None:
        return None
    path = checkpoint.path_of(folder, summary["epochs"] - 1)
    if not path.is_file() or files.digest_file(path) != summary["weights"]:
        return None
    (folder / "checkpoint.pt").unlink(missing_ok=True)  # left where it was killed between its record and its end
    return summary


def _begun(folder: Path, asked: dict[str, Section], *, anew: bool) -> int | None:
    """Return the steps that a training of these settings was begun with; others' work is not written over."""
    from elute.engine import resume
    from elute.models.routing import checkpoint

    epochs = checkpoint.epochs(folder)
    if not (folder / checkpoint.CONFIG).exists():
        if epochs:
            remedy = "Choose another --run-dir."
            raise ConfigError("holds checkpoints of a policy, without its config.json", where=folder, remedy=remedy)
        return None
    held = checkpoint.read_config(folder)
    if held.get("written_by") != KIND:
        what = "holds a run that elute did not train"
        raise ConfigError(what, where=folder, remedy="It can be analysed as it is; train into another --run-dir.")
    if anew:
        for path in (*(checkpoint.path_of(folder, e) for e in epochs), folder / resume.NAME, folder / "run.json"):
            path.unlink(missing_ok=True)
        return None
    try:
        resume.same_settings(folder, {name: held.get(name) for name in asked}, plain(asked))
    except resume.OtherSettingsError as error:
        remedy = "Give the same settings to go on, --anew to start over, or another --run-dir."
        raise ConfigError(error.what, where=folder, remedy=remedy) from None
    steps = held.get("steps")
    return steps if isinstance(steps, int) and steps > 0 else None


def _steps(config: PolicyTrainConfig, policy: PolicyConfig) -> int:
    """Updates of the whole run; those of some minutes are told by timing a few."""
    if config.minutes is None:
        return config.steps or STEPS
    objective, network = _objective(config, policy, at_epoch=lambda *_: {}, epoch_steps=1 << 40)
    from elute.routing.learning_policy import PolicyStream

    began = 0.0
    for step, batch in enumerate(PolicyStream(config.instances(), config.batch_size)):
        if step == _WARM:
            began = time.perf_counter()
        if step == _WARM + _TIMED:
            break
        objective.gradient(batch.rows, step=step, total_rows=config.batch_size)
    del network
    steps = max(1, int(config.minutes * 60 * _TIMED / max(1e-6, time.perf_counter() - began)))
    console.say(f"about {steps:,} steps in {config.minutes:g} minutes here")
    return steps


def _objective(
    config: PolicyTrainConfig, policy: PolicyConfig, *, at_epoch: Any, epoch_steps: int
) -> tuple[PolicyObjective, AttentionPolicy]:
    from elute.base.device import choose
    from elute.models.routing.policy import begin
    from elute.routing.learning_policy import PolicyObjective

    network = begin(policy, config.seed).to(choose(config.device, "fp32").device)
    starts = config.starts or config.num_loc
    return PolicyObjective(
        network, starts=starts, seed=config.seed, epoch_steps=epoch_steps, at_epoch=at_epoch
    ), network


def _train(job: _Job, track: TrackConfig | None) -> None:
    """Train to the end; every epoch leaves its checkpoint and a line."""
    from elute.base.device import choose
    from elute.engine.fit import Fit, FitConfig
    from elute.engine.parallel import Ranks
    from elute.engine.tracking import Metrics, TrackConfig
    from elute.models.routing import checkpoint, instances
    from elute.models.routing.decoding import decode
    from elute.models.routing_policy import RoutingModel
    from elute.routing import scoring
    from elute.routing.learning_policy import PolicyStream

    config = job.config
    watched = instances.draw(config.instances(min(_WATCHED, config.held_out)))
    best, _ = scoring.shortest(watched)

    def at_epoch(epoch: int, step: int) -> dict[str, Any]:
        digest = checkpoint.write(checkpoint.path_of(job.folder, epoch), network, epoch=epoch, step=step)
        told: dict[str, Any] = {"epoch": epoch, "step": step, "checkpoint": digest}
        for how in scoring.QUICK:
            told[how] = scoring.gap(decode(RoutingModel(network), watched, how).lengths, best)
        lines = [json.dumps(line) + "\n" for line in (*objective.history, told)]
        files.write_atomically(job.folder / checkpoint.METRICS, lambda handle: handle.write("".join(lines).encode()))
        console.say(f"epoch {epoch}, step {step:,}: greedy {told['greedy']['gap']:.2%}, "
                    f"best of starts {told['multistart']['gap']:.2%} longer than the reference")  # fmt: skip
        return told

    objective, network = _objective(config, job.policy, at_epoch=at_epoch, epoch_steps=job.epoch_steps)
    fitting = FitConfig(
        steps=job.steps, batch_size=config.batch_size, lr=config.lr, warmup=0.02, decay=0.98, seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
    )  # fmt: skip
    fit = Fit(objective, PolicyStream(config.instances(), config.batch_size), fitting, folder=job.folder,
              steps=job.steps)  # fmt: skip
    ranks = Ranks(device=choose(config.device, "fp32").device)
    if (begun := fit.resume(job.settings, ranks)) is not None:
        console.say(f"{job.folder}: going on after step {begun + 1:,} of {job.steps:,}")
    with Metrics(job.folder, track or TrackConfig(), settings=job.settings, resume_at=begun) as metrics:
        fitted = fit.run(job.settings, ranks=ranks, metrics=metrics, split=True)
        metrics.close(fitted.figures)


def _judge(job: _Job) -> dict[str, Any]:
    """Read the last checkpoint, and solve held-out instances beside what needs no policy."""
    from elute.models.routing import checkpoint, instances
    from elute.models.routing_policy import load
    from elute.routing import scoring

    last = checkpoint.find(job.folder)
    model = load(job.folder, checkpoint=last, device=job.config.device)
    n = job.config.num_loc
    count = min(job.config.held_out, max(50, job.config.held_out * 400 // n**2))  # larger ones take longer
    return {
        "steps": job.steps,
        "epochs": len(checkpoint.epochs(job.folder)),
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "model": model.fingerprint().as_json(),
        "weights": files.digest_file(last),
        "score": scoring.score(model, instances.draw(job.config.instances(count))),
    }

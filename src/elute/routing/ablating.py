"""`elute routing steer`: features taken away, turned up and transplanted, beside as large random changes.

Of each feature, at every row where it fires, activation × (factor − 1) × direction is added to what the policy has;
what the dictionary leaves unexplained stays. Factor 0 takes it away; factor 1 changes nothing, to the last bit.

The control adds as much along random directions: the same amounts at the same rows, another way. What a feature does
more than that is its own: it is told apart where few of the directions give as large a slope. The slope is the
least-squares line of the margin over the factors from 0 to 1, in each instance; to first order it is the feature's
attribution. Beyond 1 a policy sees what it has never seen.

    RUN/clt/steer/<pair>/doses.parquet       feature, factor, direction, its number and instance a row
    RUN/clt/steer/<pair>/transplants.parquet feature, way and instance a row
    RUN/clt/steer/<pair>/steer.json, index.html
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import ConfigError
from elute.base.run import Artifact
from elute.routing.cause_settings import DoseConfig, JudgedConfig

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.models.routing.instances import Instances
    from elute.routing.attributing import Clean
    from elute.routing.cause_inputs import Subject

STAGE = "steer"
OURS, RANDOM = "feature", "random direction"
METRICS = ("drift", "kl", "agreement", "margin")


def steer_run(
    run_dir: Path | str, pair: str, judged: JudgedConfig | None = None, *, config: DoseConfig | None = None,
    clt_run: str = "latest",
) -> Artifact:  # fmt: skip
    """Turn features of a pair's dictionary up and down, and transplant them."""
    from elute.reports.routing.steer_page import write_steer_page
    from elute.routing.cause_inputs import held_out, open_policy, open_subject

    folder, judged, config = Path(run_dir), judged or JudgedConfig(), config or DoseConfig()
    model = open_policy(folder, judged)
    subject = open_subject(folder, pair, model=model, clt_run=clt_run)
    _known(subject, config.features)
    instances = held_out(folder, judged, pairs=[subject.rows])
    output = files.make_folder(folder / "clt" / STAGE / subject.pair)
    settings = {"judged": judged.identity(), "steer": config}
    inputs = {"model": model.fingerprint().weights, "instances": instances.source, "dictionary": subject.digest}
    with files.locked(output, "steering features"):
        done = run.finished(output, STAGE, settings, inputs=inputs)
        if done is not None and (output / "index.html").is_file():
            console.say(f"{output}: already done with these settings, used as it is")
            return Artifact(STAGE, output, {**done, "reused": True})
        doses, transplants, chosen = _measured(subject, instances, judged=judged, config=config)
        summary = {
            "pair": subject.pair, "writes": list(subject.writes.values()), "instances": len(instances),
            "nodes": instances.nodes, "features": [f for f, _ in chosen],
            "doses": responses(doses, dict(chosen), judged=judged),
            "transplants": moved(transplants, judged=judged) if len(transplants) else [],
        }  # fmt: skip
        files.write_atomically(output / "doses.parquet", doses.write_parquet)
        files.write_atomically(output / "transplants.parquet", transplants.write_parquet)
        files.write_json(output / "steer.json", summary)
        write_steer_page(output / "index.html", summary)
        run.record(output, STAGE, settings, inputs=inputs, summary=summary, model=model.fingerprint())
    return Artifact(STAGE, output, {**summary, "reused": False})


def _known(subject: Subject, features: Sequence[int]) -> None:
    most = subject.dictionary.n_features
    if bad := [f for f in features if not 0 <= f < most]:
        what = f"there is no feature {bad[0]}"
        raise ConfigError(what, where=subject.pair, remedy=f"They are numbered from 0 to {most - 1}.")


def _measured(
    subject: Subject, instances: Instances, *, judged: JudgedConfig, config: DoseConfig
) -> tuple[pl.DataFrame, pl.DataFrame, list[tuple[int, float]]]:
    """Return doses, transplants, and the features with their mean attributions."""
    import numpy as np
    import polars as pl

    from elute.routing.attributing import attributions, clean
    from elute.routing.cause_inputs import cut
    from elute.routing.measuring import reference
    from elute.routing.transplanting import transplants

    seen = [clean(subject, reference(subject.model, part)) for part in cut(instances, judged.batch)]
    found = np.concatenate([attributions(subject, part).numpy() for part in seen])
    ranked = np.argsort(-np.abs(found).mean(0), kind="stable").tolist()
    chosen = list(config.features) or ranked[: config.strongest]
    frames, others = [], []
    with console.progress("steer", len(chosen) * len(seen), unit="features") as bar:
        for feature in chosen:
            for part in seen:
                frames += doses(subject, part, feature, config=config, seed=judged.seed)
                others += transplants(subject, part, feature, seed=judged.seed)
                bar.advance()
    for part in seen:
        others += transplants(subject, part, None, seed=judged.seed)
    schema = {"feature": pl.Int64, "way": pl.String, "sample_id": pl.String, **dict.fromkeys(METRICS, pl.Float64)}
    told = [(f, float(found[:, f].mean())) for f in chosen]
    return pl.concat(frames), pl.concat([pl.DataFrame(schema=schema), *others]), told


def doses(subject: Subject, seen: Clean, feature: int, *, config: DoseConfig, seed: int) -> list[pl.DataFrame]:
    """Measure one feature on one batch: at every factor, along its own direction and along random ones."""
    import polars as pl

    from elute.routing.attributing import activations, adding, pushing
    from elute.routing.measuring import effect

    fires = activations(seen, feature)
    tours = not subject.at_steps  # a tour that is another one would need the codes of other steps
    frames = []
    for factor in config.factors:
        amounts = (factor - 1.0) * fires
        edits = adding(subject, seen, amounts, feature=feature)
        found = [(OURS, 0, effect(subject.model, seen.reference, edits, tours=tours))]
        for number in range(config.random_directions):
            edits = pushing(subject, seen, _along(subject, amounts, feature, seed=(seed, number)))
            # Tours take the most time: those of one random direction are enough.
            found.append((RANDOM, number, effect(subject.model, seen.reference, edits, tours=tours and number == 0)))
            if factor == 1.0:
                break  # nothing is added, whatever the direction
        for name, number, change in found:
            columns = {m: getattr(change, m).numpy() for m in METRICS}
            frame = pl.DataFrame({"sample_id": list(seen.reference.instances.ids), **columns})
            frames.append(
                frame.select(
                    pl.lit(feature, pl.Int64).alias("feature"), pl.lit(float(factor)).alias("factor"),
                    pl.lit(name).alias("direction"), pl.lit(number, pl.Int64).alias("number"), "sample_id",
                    pl.col("drift") if number == 0 else pl.lit(None, pl.Float64).alias("drift"),
                    *METRICS[1:],
                )
            )  # fmt: skip
    return frames


def _along(subject: Subject, amounts: Tensor, feature: int, *, seed: tuple[int, int]) -> dict[str, Tensor]:
    """Return as large steps as the feature's along a random direction of each written site."""
    import torch

    steps = {}
    for place, name in enumerate(subject.writes):
        direction = subject.dictionary.directions(name)[feature].cpu()
        generator = torch.Generator().manual_seed(((seed[0] * 8191 + seed[1]) * 8191 + place) * 65_537 + feature)
        drawn = torch.randn(len(direction), generator=generator)
        steps[name] = amounts[:, None] * (drawn * (direction.norm() / drawn.norm()))
    return steps


def responses(table: pl.DataFrame, attributed: dict[int, float], *, judged: JudgedConfig) -> list[dict[str, Any]]:
    """Return each feature's doses with intervals, and the slope of its margin beside the controls' and attribution."""
    import numpy as np
    import polars as pl

    from elute.routing.intervals import means, plain

    told = []
    for feature in table["feature"].unique(maintain_order=True).to_list():
        mine = table.filter(pl.col("feature") == feature)
        factors = sorted(mine["factor"].unique().to_list())
        cube = {
            name: np.stack([_column(mine, name, factor) for factor in factors], 1) for name in (OURS, RANDOM)
        }  # [instances, factors, metrics]
        flat = np.concatenate([cube[name].reshape(len(cube[name]), -1) for name in (OURS, RANDOM)], 1)
        found = means(flat, resamples=judged.resamples, seed=judged.seed)
        curves, at = {}, 0
        for name in (OURS, RANDOM):
            curves[name] = [
                {"factor": factor, **{m: found[at + i * len(METRICS) + j].as_json() for j, m in enumerate(METRICS)}}
                for i, factor in enumerate(factors)
            ]
            at += len(factors) * len(METRICS)
        low = [i for i, factor in enumerate(factors) if factor <= 1.0]
        low = low if len(low) > 1 else list(range(len(factors)))
        margin = METRICS.index("margin")
        slopes = np.stack([slope(np.array(factors)[low], cube[name][:, low, margin]) for name in cube], 1)
        each = means(slopes, resamples=judged.resamples, seed=judged.seed)
        told.append(
            {
                "feature": feature, "attribution": plain(attributed[feature]), "curves": curves,
                "slope": each[0].as_json(), "slope_random": each[1].as_json(),
                **_beside_each(mine, [factors[i] for i in low], float(each[0].mean)),
                "unchanged_at_1": all(
                    curves[OURS][factors.index(1.0)][m]["mean"] == (1.0 if m == "agreement" else 0.0) for m in METRICS
                ) if 1.0 in factors else None,
            }
        )  # fmt: skip
    return told


def _column(mine: pl.DataFrame, direction: str, factor: float) -> Any:
    """Return the metrics of each instance, the mean of a control's directions."""
    import polars as pl

    rows = mine.filter((pl.col("direction") == direction) & (pl.col("factor") == factor))
    return rows.group_by("sample_id").agg(pl.col(METRICS).mean()).sort("sample_id").select(METRICS).to_numpy()


def _beside_each(mine: pl.DataFrame, factors: list[float], observed: float) -> dict[str, Any]:
    """Hold a slope against that of each random direction: how many are as large, and p, which counts the feature in."""
    import numpy as np
    import polars as pl

    from elute.base.statistics.nulls import empirical_p
    from elute.routing.intervals import plain

    random = mine.filter(pl.col("direction") == RANDOM)
    numbers = sorted(random["number"].unique().to_list())
    found = {(number, factor): value for number, factor, value in
             random.group_by("number", "factor").agg(pl.col("margin").mean()).iter_rows()}  # fmt: skip
    curves = np.array([[found.get((number, factor), 0.0) for factor in factors] for number in numbers])
    slopes = slope(np.array(factors), curves)
    as_large = int((np.abs(slopes) >= abs(observed)).sum())
    p = float(empirical_p(abs(observed), np.abs(slopes))[0])
    return {
        "random_slopes": [plain(value) for value in slopes.tolist()], "as_large": as_large, "p": plain(p),
        "told_apart": p <= 0.05,
    }  # fmt: skip


def slope(factors: Any, values: Any) -> Any:
    """Return the least-squares slope of values [instances, factors] over the factors."""
    import numpy as np

    off = np.asarray(factors, np.float64) - np.mean(factors)
    spread = float((off * off).sum())
    return (values @ off) / spread if spread > 0 else np.zeros(len(values))


def moved(table: pl.DataFrame, *, judged: JudgedConfig) -> list[dict[str, Any]]:
    """Return what transplants did, by feature and way, and how two ways differ."""
    import numpy as np
    import polars as pl

    from elute.routing.intervals import differences, means, verdict
    from elute.routing.transplanting import ANY, NEAREST, WAYS

    told = []
    for feature in table["feature"].unique(maintain_order=True).to_list():
        here = pl.col("feature").is_null() if feature is None else pl.col("feature") == feature
        parts = [table.filter(here & (pl.col("way") == way)).sort("sample_id")["kl"].to_numpy() for way in WAYS]
        columns = np.stack(parts, 1)
        found = means(columns, resamples=judged.resamples, seed=judged.seed)
        places = [(WAYS.index(NEAREST), WAYS.index(ANY))]
        (apart,) = differences(columns, places, resamples=judged.resamples, seed=judged.seed)
        told.append(
            {
                "feature": feature, "kl": {way: each.as_json() for way, each in zip(WAYS, found, strict=True)},
                "nearest_less_any": apart.as_json(), "place_matters": verdict(apart) == "better",
            }
        )  # fmt: skip
    return told


def show(answer: dict[str, Any]) -> str:
    """Say it for people."""
    lines = [f"{answer['path']}: {len(answer['features'])} features on {answer['instances']:,} held-out instances"]
    lines.append("  feature   margin a factor [95%]        of random directions   attribution   KL when taken away")
    for told in answer["doses"]:
        one, others = told["slope"], told["random_slopes"]
        away = next((c["kl"]["mean"] for c in told["curves"][OURS] if c["factor"] == 0.0), float("nan"))
        lines.append(
            f"  {told['feature']:>7}   {one['mean']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]   "
            f"{min(others):+.4f} to {max(others):+.4f}, {told['as_large']} of {len(others)} as large   "
            f"{told['attribution']:+.4f}       {away:.4f}"
        )
    for told in answer["transplants"]:
        what = "whole code" if told["feature"] is None else f"feature {told['feature']}"
        ways = ", ".join(f"{way} {each['mean']:.4f}" for way, each in told["kl"].items())
        lines.append(f"  {what} from another instance: KL {ways}")
    return "\n".join([*lines, f"Open {answer['path']}/index.html in a browser."])

"""A small policy learns the travelling salesman, and its layers are held to account, in some minutes.

    FOLDER               a run as `elute routing train-policy` makes one: 20 nodes, three layers
    FOLDER/clt           pairs, transcoders, evaluation and patching, as the other commands make them

1. A policy is trained until its tours are within some 5% of the shortest.
2. Pairs are collected and looked at: what each feed-forward part reads and gives, and two pairs of layers.
3. A transcoder is trained for each.
4. The features of one are drawn, taken away and held against what nodes are for a tour.
5. Layers are replaced by what transcoders make of them, beside the linear map, the layer passed through, the mean and
   another instance's activations, on held-out instances.

Every step that is there already, and right, is used as it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from elute.base import console, run
from elute.base.device import few_threads
from elute.base.run import Artifact
from elute.routing.cause_settings import JudgedConfig, PairEvalConfig, PatchConfig, RoutingDemoConfig

STAGE = "demo"
LAYERS = 3
PAIRS = (
    *(f"encoder_layer_{i}.mlp.input:encoder_layer_{i}.mlp" for i in range(LAYERS)),
    "encoder_layer_0:encoder_layer_1",
    "encoder_layer_1:encoder_layer_2",
)
SHOWN = "encoder_layer_1.mlp.input:encoder_layer_1.mlp"


def demonstrate(output: Path | str, config: RoutingDemoConfig | None = None, *, anew: bool = False) -> Artifact:
    """Do everything into a folder."""
    from elute.models.routing.settings import PolicyConfig
    from elute.routing.clt_settings import EpochsConfig, Settings, TranscoderConfig
    from elute.routing.collecting import collect_pairs
    from elute.routing.evaluating import evaluate_run
    from elute.routing.inspecting import inspect_pairs
    from elute.routing.learning import train_transcoder
    from elute.routing.pair_settings import PairsConfig, parse_one
    from elute.routing.patching import patch_run
    from elute.routing.policy_settings import PolicyTrainConfig
    from elute.routing.training import train_policy

    folder, config = Path(output), config or RoutingDemoConfig()
    names = {text: parse_one(text).name for text in PAIRS}
    with few_threads():
        learning = PolicyTrainConfig(
            num_loc=config.num_loc, steps=config.steps, seed=config.seed, epochs=3, device="cpu"
        )
        policy = train_policy(folder, learning, PolicyConfig(num_encoder_layers=LAYERS), anew=anew)
        collecting = PairsConfig(
            layer_pairs=",".join(PAIRS), num_instances_per_pair=config.pair_instances, recapture=anew
        )
        collect_pairs(folder, collecting, device="cpu")
        inspected = inspect_pairs(folder, pairs=list(names.values()), anew=anew)
        settings = Settings(
            transcoder=TranscoderConfig(normalize_source="standard", normalize_target="standard"),
            epochs=EpochsConfig(num_epochs=config.epochs, save_freq=config.epochs, seed=config.seed, device="cpu"),
        )
        for number, name in enumerate(names.values()):
            console.say(f"transcoder {number + 1} of {len(names)}: {name}")
            with console.hushed():
                train_transcoder(folder, name, settings, anew=anew)
        judged = JudgedConfig(instances=config.judged, device="cpu", seed=config.seed)
        few = judged.model_copy(update={"instances": min(300, config.judged)})
        looked = evaluate_run(folder, names[SHOWN], few, config=PairEvalConfig(ablated=24, permutations=199, top=8))
        patched = patch_run(folder, list(names.values()), judged, config=PatchConfig())
    summary = {
        "policy": {row["tours"]: row for row in policy.summary["score"]["rows"]},
        "linear_r2": {name: _bar(told) for name, told in inspected.summary["pairs"].items()},
        "eval": {key: value for key, value in looked.summary.items() if key != "reused"},
        "patch": {name: _brief(told) for name, told in patched.summary["pairs"].items()},
        "instances": patched.summary["instances"], "shown": names[SHOWN],
    }  # fmt: skip
    run.record(folder, STAGE, config, inputs={"policy": policy.summary["weights"]}, summary=summary)
    return Artifact(STAGE, folder, summary)


def _bar(told: Mapping[str, Any]) -> float | None:
    """Explained variance of the linear map on held-out instances, from what inspect-pairs says."""
    found = told.get("explained", {}).get("linear", {})
    value = found.get("explained_variance", found.get("r2"))
    return value if isinstance(value, float) else None


def _brief(told: Mapping[str, Any]) -> dict[str, Any]:
    return {"arms": told["arms"], "differences": told["differences"], "identical": told["identical_with_error"]}


def show(answer: dict[str, Any]) -> str:
    """Say what was done, what came of it, and beside what."""
    folder, policy = answer["path"], answer["policy"]
    gaps = ", ".join(f"{name} {row['gap']:.2%}" for name, row in policy.items())
    looked = answer["eval"]
    lines = [
        "",
        "A policy learnt to build tours. How much longer they are than the shortest, on held-out instances:",
        f"  {gaps}",
        "",
        f"Layers replaced on {answer['instances']:,} held-out instances: how much longer the tours become, [95%]",
        f"  {'':<30}{'transcoder':^24}{'linear map':^24}{'passed':>9}{'other':>9}  by divergence, beside",
        f"  {'':<30}{'':24}{'':24}{'through':>9}{'instance':>9}  the linear map",
    ]
    for name, told in answer["patch"].items():
        arms = told["arms"]
        cells = "".join(f"{_interval(arms[arm]['drift']):^24}" for arm in ("transcoder", "linear map"))
        rest = "".join(f"{arms[arm]['drift']['mean']:>9.1%}" for arm in ("passed through", "another instance's"))
        lines.append(f"  {name:<30.30}{cells}{rest}  {told['differences']['linear map']['kl']['transcoder']}")
    wrong = ", ".join(name for name, told in answer["patch"].items() if not told["identical"])
    exact = "With the error term added, nothing changed, to the last bit."
    ours, bar = (looked[name]["explained_variance"] for name in ("transcoder", "linear_map"))
    meant, fire = looked["meaning"]["node"], f"{looked['l0']:.0f} of {looked['dictionary']['features']} fire"
    lines += [
        "",
        exact if not wrong else f"With the error term something changed: do not trust the other numbers of {wrong}.",
        "",
        f"Features of {answer['shown']}: explained variance {ours:.3f} (linear map {bar:.3f}), {fire}.",
        f"  {meant['follow']} of {meant['tested']} tested follow a quantity of nodes (p of the whole table < 0.05).",
    ]
    told = looked["attribution"]
    if told["spearman"] is not None:
        lines.append(f"  attribution against what taking a feature away does: Spearman {told['spearman']:.2f}.")
    return "\n".join([*lines, "", *_places(folder, answer["shown"])])


def _interval(told: Mapping[str, float]) -> str:
    return f"{100 * told['mean']:.2f}% [{100 * told['low']:.2f}, {100 * told['high']:.2f}]"


def _places(folder: str, shown: str) -> list[str]:
    return [
        "Where to look:",
        f"  {folder}/clt/patch/index.html             layers replaced, each arm with its interval",
        f"  {folder}/clt/eval/{shown}/index.html      features, drawn on instances",
        f"  elute routing paths --run-dir {folder} --pair {shown}",
        f"  elute routing generalise --run-dir {folder} --pair {shown}",
    ]

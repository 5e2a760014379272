"""Particles are made up, fused and judged, and what was measured is held against what could be.

    FOLDER/data/            particles whose truth is known                     generator_files.py
    FOLDER/evaluation/      as `elute particles evaluate_classification` writes it
    FOLDER/fused/           fused_embeddings.h5 and fusion.pt
    FOLDER/features/        sparse features of the fused embeddings            features.py
    FOLDER/recovery.json    measured beside what is possible

The best that any classifier could do is known exactly, so the gain that fusion can bring is known too. A classifier
that learns from some thousand particles stays below it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.run import Artifact
from elute.particles.demo_settings import DemoConfig
from elute.particles.generator import SOURCES
from elute.particles.generator_settings import MadeConfig
from elute.particles.settings import EvaluationConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

RECOVERY = "recovery.json"


def run_demo(
    folder: Path | str, made: MadeConfig | None = None, config: DemoConfig | None = None, *, anew: bool = False
) -> Artifact:
    """Do everything into a folder; what is there already and still right is used as it is."""
    from elute.particles.classification import evaluate_classification
    from elute.particles.features import find_features
    from elute.particles.generator_files import CONFIG, TRUTH, write_made

    folder, made, config = Path(folder), made or MadeConfig(), config or DemoConfig()
    data = write_made(folder / "data", made, anew=anew)
    settings = EvaluationConfig(
        n_folds=config.n_folds, fusion_method="attention", attention_epochs=config.attention_epochs,
        random_seed=made.seed, n_resamples=config.n_resamples, embedding_dim=min(made.widths),
    )  # fmt: skip
    fused = folder / "fused" / "fused_embeddings.h5"
    told = evaluate_classification(
        folder / "data" / CONFIG, folder / "evaluation", settings, seed_given=True, save=fused, anew=anew
    ).summary
    truth = files.read_json(folder / "data" / TRUTH, what="the truth of made-up particles")
    results = files.read_json(folder / "evaluation" / "classification_results.json", what="results")
    found = held_against(truth, results["evaluation"])
    files.write_json(folder / RECOVERY, found)
    summary: dict[str, Any] = {
        "particles": data.summary["particles"], "both": data.summary["both"], "runs": made.runs,
        "recovery": found, "methods": told["methods"], "features": "not run",
    }  # fmt: skip
    if config.features:
        summary["features"] = find_features(fused, folder / "features").summary["sites"]
    return Artifact("demo", folder, summary)


def held_against(truth: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Put what was measured beside what is possible, in macro average precision."""
    from elute.reports.particles import wording
    from elute.reports.particles.original import FUSION, comparison

    methods = plain["methods"]
    best = max(SOURCES, key=lambda name: truth["alone"][name]["macro_ap"])
    gain = comparison(plain, FUSION, best)
    across = wording.control(plain)
    within, fusion = (methods[name]["overall"]["map"]["estimate"] for name in (wording.WITHIN, FUSION))
    return {
        "possible": {**{n: truth["alone"][n]["macro_ap"] for n in SOURCES}, FUSION: truth["both"]["macro_ap"]},
        "measured": {name: methods[name]["overall"]["map"] for name in (*SOURCES, FUSION)},
        "best_source": best,
        "gain": {"possible": truth["gain"]["macro_ap"], "measured": None if gain is None else gain["difference"]},
        "control": None if across is None else across["difference"],
        "control_gains": wording.leaks(plain),
        "invented": {"possible": truth["invented"]["macro_ap"], "measured": within - fusion},
    }


def show(answer: Mapping[str, Any]) -> str:
    """Say what was made, what could be found, and what was."""
    from elute.reports.particles import wording

    found, folder = answer["recovery"], answer["path"]
    lines = [
        "",
        f"{answer['particles']:,} particles in {answer['runs']} tomograms; both sources have {answer['both']:,}.",
        "Both see one part of what tells classes apart, with the same noise; each sees another part alone.",
        "",
        f"{'macro average precision':<30}{'at best':>8}   measured on tomograms held out (95%)",
    ]
    for name, possible in found["possible"].items():
        lines.append(f"{name:<30}{possible:>8.3f}   {wording.with_interval(found['measured'][name])}")
    gain, invented = found["gain"], found["invented"]
    measured = "–" if gain["measured"] is None else wording.with_interval(gain["measured"], sign=True)
    lines.append(f"{'gain over ' + found['best_source']:<30}{gain['possible']:>+8.3f}   {measured}")
    if found["control"] is not None:
        held = wording.permuted({"difference": found["control"]})
        lines.append(f"{'gain, one source permuted':<30}{0:>8.3f}   "
                     f"{wording.with_interval(found['control'], sign=True)}: {held}")  # fmt: skip
    lines += [
        f"{'invented by pairing by label':<30}{invented['possible']:>+8.3f}   {wording.signed(invented['measured'])}",
        "",
        "Where to look:",
        f"  {folder}/evaluation/report.html    in a browser",
        f"  {folder}/fused/fused_embeddings.h5    fused embeddings; judge by mu_oof, not by mu",
    ]
    if isinstance(answer["features"], dict):
        lines.append(f"  {folder}/features/dashboard.html    sparse features of the fused embeddings")
    return "\n".join(
        [*lines, "  elute particles evaluate_classification --config FILE.yaml --output-dir FOLDER    yours"]
    )

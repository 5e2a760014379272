"""`evaluate_classification`: from a configuration to numbers, a picture, a page and, if asked for, fused embeddings.

    OUTPUT/classification_results.json       reports/particles/original.py
    OUTPUT/classification_performance.png    reports/particles/figure.py
    OUTPUT/report.html                       reports/particles/page.py
    OUTPUT/predictions.parquet               a row a particle: what each method takes it for
    OUTPUT/folds.parquet, folds/             evaluating.py
    FUSED.h5, fusion.pt                      final.py

A folder that holds results of other inputs or settings is refused; one of the same goes on, or is used as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files, run
from elute.base.errors import ConfigError
from elute.base.recipe import read_yaml
from elute.base.run import Artifact
from elute.particles.fused_layout import Layout
from elute.particles.settings import EvaluationConfig, read_inputs

if TYPE_CHECKING:
    from elute.particles.results import Evaluation
    from elute.particles.table import Joined

STAGE = "evaluate_classification"
PREDICTIONS = "predictions.parquet"
_MADE = ("classification_results.json", "classification_performance.png", "report.html", PREDICTIONS, "folds.parquet")


def evaluate_classification(
    config: Path,
    output: Path,
    settings: EvaluationConfig | None = None,
    *,
    seed_given: bool = False,
    save: Path | None = None,
    layout: Layout = "auto",
    anew: bool = False,
) -> Artifact:
    """Evaluate the fusion of the sources that a configuration names, into a folder.

    Where no seed was given, that of the configuration counts. `save` is a file for fused embeddings of all particles.
    """
    from elute.particles.reading import read_joined

    config, output = Path(config), Path(output)
    inputs = read_inputs(config)
    settings = settings or EvaluationConfig()
    if inputs.random_seed is not None and not seed_given:
        settings = settings.model_copy(update={"random_seed": inputs.random_seed})
    save = _savable(save, settings)
    if output.exists() and not output.is_dir():
        raise ConfigError("is a file", where=output, remedy="Name a folder with --output-dir.")
    files.make_folder(output)
    with files.locked(output, "evaluate_classification"):
        joined = read_joined(inputs, settings, where=config)
        for note in joined.notes:
            console.say(note)
        if save is not None:
            _refuse_other(joined, save, settings, anew=anew)
        told = _evaluated(output, joined, settings, config=config, anew=anew)
        if save is not None:
            from elute.particles.final import train_final_fusion_and_save

            _, saved = train_final_fusion_and_save(joined, save, settings, evaluated=output, layout=layout)
            told = {**told, "fused": saved}
    return Artifact("classification", output, told)


def _savable(save: Path | None, settings: EvaluationConfig) -> Path | None:
    """Say at once where nothing can be saved: the original warned and went on, which old command lines rely on."""
    from elute.particles.final import ATTENTION_ALONE

    if save is not None and settings.fusion_method != "attention":
        console.warn(f"{ATTENTION_ALONE}: {settings.fusion_method} learns nothing, so {save} is not written")
        return None
    return save


def _refuse_other(joined: Joined, save: Path, settings: EvaluationConfig, *, anew: bool) -> None:
    """Refuse files that are there before hours of work; anew, fused embeddings and their network are written over."""
    from elute.particles.final import outputs_of
    from elute.particles.fusion_file import NAME
    from elute.particles.writing_fused import already

    if anew and already(save) is not None:
        for path in (save, save.with_name(NAME)):
            path.unlink(missing_ok=True)
    outputs_of(joined, save, settings)


def _evaluated(
    output: Path, joined: Joined, settings: EvaluationConfig, *, config: Path, anew: bool
) -> dict[str, Any]:  # fmt: skip
    """Evaluate and write what was found, unless it lies there."""
    from elute.particles.evaluating import evaluate

    inputs = {**{f"source {name}": digest for name, digest in joined.digests.items()}, "pairing": joined.pairing}
    identity = settings.model_copy(update={"device": "auto"})
    if anew:
        shutil.rmtree(output / "folds", ignore_errors=True)
    known = run.read(output)["stages"].get(STAGE)
    if known is not None and not anew:
        if known["inputs"] != inputs or known["config"] != identity.model_dump(mode="json"):
            raise ConfigError("holds results of other inputs or settings", where=output,
                              remedy="Name another --output-dir, or write over them with --anew.")  # fmt: skip
        if all(_digest(output / name) == digest for name, digest in known["summary"]["files"].items()):
            console.say(f"{output}: evaluated already with these inputs and settings, used as it is")
            return {**known["summary"], "reused": True}
    elif known is None and (output / _MADE[0]).exists() and not anew:
        raise ConfigError("holds results that this command did not write, or did not finish", where=output / _MADE[0],
                          remedy="Name another --output-dir, or write over them with --anew.")  # fmt: skip
    found = evaluate(joined, settings, output)
    summary = _written(output, found, settings, config=config)
    run.record(output, STAGE, identity, inputs=inputs, summary=summary)
    return {**summary, "reused": False}


def _written(output: Path, found: Evaluation, settings: EvaluationConfig, *, config: Path) -> dict[str, Any]:
    """Write predictions, numbers, the picture and the page; return what was found in short."""
    from elute.reports.particles import figure, fused_map, original, page

    plain = found.plain()
    _write_predictions(output / PREDICTIONS, found)
    given = {"configuration": files.digest_file(config)}
    figure.performance_figure(output / figure.NAME, plain)
    places = fused_map.lay_out(found.fused, found.joined.codes, seed=settings.random_seed)
    page.write_page(output / page.NAME, plain, places=places, codes=found.joined.codes, inputs=given)
    content = original.results(plain, settings=settings.identity(), config=_plain(read_yaml(config)), inputs=given)
    files.write_json(output / original.NAME, content)
    return {**in_short(plain), "files": {name: d for name in _MADE if (d := _digest(output / name)) is not None}}


def in_short(plain: Mapping[str, Any]) -> dict[str, Any]:
    """What an evaluation found, for a terminal."""
    from elute.reports.particles import wording

    methods = {
        name: {"title": one["title"], "kind": one["kind"], **{m: one["overall"][m] for m in ("map", "accuracy")}}
        for name, one in plain["methods"].items()
    }
    return {
        "n_samples": plain["n_samples"], "classes": plain["classes"], "n_folds": plain["n_folds"],
        "grouped_by": plain["grouped_by"], "pairing": plain["pairing"]["by"], "mark": plain["mark"],
        "counts": {name: plain["pairing"][name] for name in ("matched", "unmatched", "ambiguous")},
        "methods": methods, "said": wording.lead(plain),
    }  # fmt: skip


def _write_predictions(path: Path, found: Evaluation) -> None:
    """A row a particle: its class, run and fold, what each method takes it for, and the fusion's probabilities."""
    import polars as pl

    classes = pl.Series(found.classes, dtype=pl.String)
    columns = [found.joined.particles["id"], found.joined.particles["label"], found.joined.particles["run"],
               pl.Series("fold", found.folds)]  # fmt: skip
    columns += [classes[one.predicted.tolist()].alias(f"predicted:{name}") for name, one in found.methods.items()]
    p = found.methods["fusion"].probabilities
    columns += [pl.Series(f"p:{label}", np.ascontiguousarray(p[:, c])) for c, label in enumerate(found.classes)]
    frame = pl.DataFrame(columns)
    told = {"mark": found.joined.mark} if found.joined.mark else None
    files.write_atomically(path, lambda handle: frame.write_parquet(handle, statistics=False, metadata=told))


def _plain(value: Any) -> Any:
    """A configuration as JSON has it: YAML knows dates and other things."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)


def _digest(path: Path) -> str | None:
    return files.digest_file(path)[:16] if path.is_file() else None


def _paired(counts: Mapping[str, Any]) -> str:
    """How many particles found their partners, and how many did not."""
    left = ", ".join(f"{n:,} of {name}" for name, n in counts["unmatched"].items())
    doubtful = ", ".join(f"{n:,} of {name}" for name, n in counts["ambiguous"].items() if n)
    return f"Matched {counts['matched']:,}; without a partner {left}; ambiguous {doubtful or 'none'}."


def show(answer: Mapping[str, Any]) -> str:
    """Say what was found, and where it lies."""
    from elute.reports.particles import wording

    heads = f"{'':<46}{'macro average precision (95%)':<32}{'accuracy (95%)'}"
    lines = [""]
    lines += [f"*** {answer['mark']} ***", ""] if answer["mark"] else []
    dealt = "folds of whole runs" if answer["grouped_by"] == "run" else "folds, particles dealt one by one"
    told = f"{answer['n_samples']:,} particles of {len(answer['classes'])} classes, paired by {answer['pairing']}"
    lines += [f"{told}; {answer['n_folds']} {dealt}.", _paired(answer["counts"]), "", heads]
    for one in answer["methods"].values():
        title = one["title"] if len(one["title"]) < 45 else f"{one['title'][:43]}…"
        lines.append(f"{title:<46}{wording.with_interval(one['map']):<32}{wording.with_interval(one['accuracy'])}")
    lines += ["", *answer["said"], "", f"Open {answer['path']}/report.html in a browser."]
    if "fused" in answer:
        fused = answer["fused"]
        lines.append(f"Fused embeddings: {fused['output_path']}; the network for new particles: {fused['model_path']}")
        lines.append("Judge nothing by mu, which is in-sample: use mu_oof.")
    return "\n".join(lines)

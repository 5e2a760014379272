"""Tissue is painted, an encoder learns it, and a whole run is held against what was planted.

    FOLDER/cohort/       painted tiles of twelve patients, counts, and the truth                painting_files.py
    FOLDER/encoder/      a small vision transformer that learnt other patients' tiles           pretraining.py
    FOLDER               a run as `elute tissue run` makes one, with its controls and pages     pipeline.py
    FOLDER/recovery.parquet, recovery_permuted.parquet                                          recovery.py

The encoder learns from patients of its own, painted like the others: nothing that it knows comes from a tile on which
genes are predicted. Every stage that is there already, and right, is used as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elute.base import console, files, run
from elute.base.device import few_threads
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.plan import Plan
from elute.tissue.pretrain_settings import PretrainConfig

STAGE = "demo"
COHORT, ENCODER = "cohort", "encoder"
_OTHERS = 8  # patients that the encoder learns from
_APART = 1_000_000  # seeds of the two cohorts lie so far from each other
_CODES, _FIRE, _STEPS, _BATCH = 128, 8, 1500, 1024


def run_demo(
    output: Path | str, *, seed: int = 0, anew: bool = False, paint: PaintConfig | None = None,
    pretrain: PretrainConfig | None = None, sections: dict[str, Section] | None = None, permutations: int = 20,
) -> Artifact:  # fmt: skip
    """Do everything into a folder; what is there already and still right is reused.

    `paint` and `pretrain` are other settings than the usual ones, `sections` those of the run by name.
    """
    from elute.tissue.painting_files import write_painted
    from elute.tissue.pipeline import alone, run_tissue
    from elute.tissue.recovery import recover

    folder = Path(output)
    cohort = paint or PaintConfig(seed=seed)
    learning = pretrain or PretrainConfig(seed=seed, patch=cohort.patch)
    plan = demo_plan(folder, seed=seed, anew=anew, sections=sections)
    with few_threads():
        painted = write_painted(folder / COHORT, cohort, anew=anew)
        learnt = learn(folder / ENCODER, cohort, learning, anew=anew)
        told = run_tissue(plan).summary
        found = recover(plan, folder / COHORT, permutations=permutations)
    summary = {
        "tiles": painted.summary["tiles"], "patients": painted.summary["patients"],
        "labels": painted.summary["labels"], "encoder": {k: v for k, v in learnt.summary.items() if k != "reused"},
        "recovery": found, "scores": told["train_heads"]["scores"],
    }  # fmt: skip
    with alone(folder):
        run.record(
            folder, STAGE, cohort, inputs={"painted": painted.summary["tables"]["truth.parquet"]}, summary=summary
        )
    return Artifact(STAGE, folder, summary)


def demo_plan(folder: Path, *, seed: int = 0, anew: bool = False, sections: dict[str, Section] | None = None) -> Plan:
    """The settings of the run."""
    from elute.heads.settings import HeadConfig
    from elute.store.splitting import SplitConfig
    from elute.tissue.embed_settings import EmbeddingConfig, EncoderConfig
    from elute.tissue.painting_files import TABLE, TARGETS, TILES
    from elute.tissue.settings import CrpConfig, SaeConfig, TargetsConfig
    from elute.tissue.tile_settings import TilesConfig

    cohort = folder / COHORT
    usual: dict[str, Section] = {
        "tiles": TilesConfig(images=cohort / TILES, table=cohort / TABLE, microns_per_pixel=1.0),
        "encoder": EncoderConfig(encoder=str(folder / ENCODER), device="cpu", seed=seed),
        "embedding": EmbeddingConfig(recapture=anew),
        "split": SplitConfig(seed=seed),
        "sae": SaeConfig(
            dict_size=str(_CODES), top_k=_FIRE, steps=_STEPS, train_batch_size=_BATCH, seed=seed, device="cpu"
        ),
        "targets": TargetsConfig(counts=cohort / TARGETS, genes="all", library="library"),
        "heads": HeadConfig(folds=4, seed=seed),
        "crp": CrpConfig(gene=_planted(), codes="top20", k=20),
    }
    return Plan.of(folder, {**usual, **(sections or {})})


def _planted() -> tuple[str, ...]:
    from elute.tissue.painting_genes import PLANTED

    return tuple(PLANTED)


def learn(folder: Path, cohort: PaintConfig, config: PretrainConfig, *, anew: bool = False) -> Artifact:
    """Train the encoder on patients of its own, who are painted in memory."""
    from elute.tissue import pretraining
    from elute.tissue.painting import paint

    others = cohort.model_copy(update={"seed": cohort.seed + _APART, "patients": min(_OTHERS, cohort.patients)})
    inputs = {"painted": files.digest_json(others.model_dump(mode="json"))}
    done = None if anew else pretraining.finished(folder, config, inputs)
    if done is not None:
        return Artifact("model", folder, {**done, "reused": True})
    console.say(f"painting {others.patients} more patients, whose tiles the encoder learns from")
    return pretraining.pretrain(paint(others).pictures, folder, config, inputs=inputs, anew=anew)


def show(answer: dict[str, Any]) -> str:
    """Say what was planted, what came back, and what the controls gave."""
    from elute.tissue.demo_telling import lines

    return "\n".join(lines(answer, codes=_CODES, fire=_FIRE))

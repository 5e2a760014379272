"""From cells to a small model of Tahoe-x1's kind, and what it has learnt beside what less would have given.

    OUTPUT/model.safetensors, model_config.yml, collator_config.yml, vocab.json     what `--model OUTPUT` reads
    OUTPUT/corpus/                   the cells as tokens, used again by the next run on the same cells
    OUTPUT/training_metrics.json     loss and share of the variance told, step by step
    OUTPUT/checkpoint.pt             while training
    OUTPUT/run.json                  settings, digests of the inputs, held-out errors

1. Cells are split, whole donors where there is a donor column; the vocabulary is the genes seen in training cells.
2. The network learns to tell hidden values (masked.py), with Adam, a short rise and a long fall of the rate. There is a
   plateau at the genes' means before it learns from other genes: a few hundred steps show nothing yet.
3. What was written is read again, and its guesses on test cells are held against simpler ones (baselines.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from elute.base import console, files, run
from elute.base.recipe import Section
from elute.base.run import Artifact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from elute.cells.corpus import Corpus
    from elute.cells.masked import Scale
    from elute.engine.fit import Fitted
    from elute.models.cells.cellfile import Cells
    from elute.models.tahoe.model import TahoeX1

STAGE = "pretrain"
BINS = 51
_AROUND = 0.1  # how far a cell's hidden share may be from the middle
_TIMES = 3  # most draws of one cell


class PretrainConfig(Section):
    """A small model, and how it learns."""

    d_model: int = Field(64, ge=2)
    """Width of the model."""
    layers: int = Field(4, ge=1)
    """Blocks of the model."""
    heads: int = Field(4, ge=1)
    """Attention heads of a block; they divide the width."""
    max_length: int = Field(128, ge=8)
    """Tokens of a cell that are read at once: its own, and a random sample of its genes."""
    max_genes: int = Field(20_000, ge=2)
    """Most genes of the vocabulary: those that vary most over training cells."""
    mask_share: float = Field(0.4, ge=0.15, le=0.85)
    """Share of a cell's genes that is hidden, give or take 0.1."""
    steps: int = Field(1236, ge=1)
    """Updates."""
    batch_size: int = Field(16, ge=1)
    """Cells of one update."""
    lr: float = Field(3e-3, gt=0)
    """Highest learning rate; it rises over the first 5% of the steps, then falls to nothing."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the split, the order of cells and the masks."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between two checkpoints; 0 writes one a step."""

    def identity(self) -> PretrainConfig:
        """What the result depends on; not where it is computed, and how often it is kept."""
        return self.model_copy(update={"device": "auto", "checkpoint_seconds": 60.0})


def pretrain(cells: Cells, output: Path | str, config: PretrainConfig | None = None, *, anew: bool = False) -> Artifact:
    """Train a small model on cells; what was interrupted goes on, what is finished is used as it is."""
    from elute.engine import resume

    config, output = config or PretrainConfig(), Path(output)
    inputs = _inputs(cells)
    if not anew and (done := _finished(output, config, inputs)) is not None:
        console.say(f"{output}: already trained with these settings, used as it is")
        return Artifact("model", output, {**done, "reused": True})
    files.make_folder(output)
    with files.locked(output, "training"):
        if anew:
            (output / resume.NAME).unlink(missing_ok=True)
        job = _prepare(cells, output, config, inputs)
        _train(job)
        summary = {**job.told, **_judge(job)}
        run.record(output, STAGE, config.identity(), inputs=inputs, summary=summary)
        (output / resume.NAME).unlink(missing_ok=True)
    return Artifact("model", output, {**summary, "reused": False})


def show(answer: dict[str, Any]) -> str:
    """Say what came of it, for people."""
    found = answer["cells"]
    held = "whole donors" if answer["by_donor"] else "random cells"
    lines = [
        "",
        f"{answer['path']}: {answer['parameters']:,} parameters, {answer['genes']:,} genes, {answer['steps']:,} steps",
        f"trained on {found['train']:,} cells; {found['test']:,} were held out to judge it, {held}",
        f"ridge and readout were fitted on {answer['ridge']['cells']:,} of the training cells",
        "",
        *table_lines(answer["held_out"]),
        "",
        answer["verdict"],
    ]
    if answer["by_donor"]:
        lines.append("Cells of one donor are alike: for other donors the intervals are too narrow.")
    return "\n".join(lines)


def table_lines(table: list[dict[str, Any]]) -> list[str]:
    """Held-out errors as a table."""
    width = max(len(row["name"]) for row in table)
    lines = [f"{'values hidden in cells it never saw (40%)':<{width}} {'MSE':>8} {'R²':>7}   the model less it (95%)"]
    width = max(width, len("values hidden in cells it never saw (40%)"))
    for row in table:
        line = f"{row['name']:<{width}} {row['mse']:>8.1f} {row['r2']:>7.3f}"
        if "low" in row:
            line += f"   {row['difference']:+.1f} ({row['low']:+.1f} to {row['high']:+.1f})"
        lines.append(line)
    return lines


@dataclass(frozen=True, eq=False)
class _Job:
    """One training in its place."""

    output: Path
    config: PretrainConfig
    corpus: Corpus
    vocabulary: dict[str, int]
    scale: Scale
    counts: NDArray[np.int64]
    settings: dict[str, Any]  # what a checkpoint was written under
    told: dict[str, Any]

    def network(self) -> TahoeX1:
        """The network before training."""
        from elute.cells.masked import begin

        c = self.config
        size = len(self.vocabulary)
        return begin(d_model=c.d_model, layers=c.layers, heads=c.heads, vocabulary=size, seed=c.seed)


def _inputs(cells: Cells) -> dict[str, str]:
    keys = {"donor_key": cells.config.donor_key, "gene_id_key": cells.config.gene_id_key}
    return {**cells.source, **{name: key for name, key in keys.items() if key is not None}}


def _finished(output: Path, config: PretrainConfig, inputs: dict[str, str]) -> dict[str, Any] | None:
    """Return what these very settings gave, if its weights are still there; others' work is not written over."""
    from elute.engine import resume
    from elute.models.tahoe.config import WEIGHTS_FILE

    known = run.read(output)["stages"].get(STAGE)
    if known is None or not (output / WEIGHTS_FILE).exists():
        return None
    before, now = {**known["config"], **known["inputs"]}, {**config.identity().model_dump(mode="json"), **inputs}
    if before != now and (output / resume.NAME).exists():
        return None
    resume.same_settings(output, before, now)
    summary: dict[str, Any] = known["summary"]
    if files.digest_file(output / WEIGHTS_FILE) != summary["weights"]:
        return None
    (output / resume.NAME).unlink(missing_ok=True)  # left where it was killed between its record and its end
    return summary


def _prepare(cells: Cells, output: Path, config: PretrainConfig, inputs: dict[str, str]) -> _Job:
    """Split, choose the genes, and write the cells as tokens."""
    from elute.cells.corpus import SPLITS, look_through, split_cells, write_corpus
    from elute.cells.masked import Scale
    from elute.cells.vocabulary import choose_genes, identifiers
    from elute.models.cells.matching import match_genes

    splits = split_cells(cells, seed=config.seed)
    seen = look_through(cells, splits)
    column = identifiers(cells)
    vocabulary, kept = choose_genes(cells, seen, column=column, most=config.max_genes)
    matched = match_genes(cells.var, vocabulary, key=column, where=cells.where)
    where = "the index" if column == "index" else f"column {column!r}"
    console.say(f"genes: {len(kept):,} of {len(cells.var):,} were seen in training cells and are taken, by {where}")
    corpus = write_corpus(
        cells, matched, output / "corpus", splits=splits, entries=int(seen.entries[kept].sum()), bins=BINS
    )
    counts = corpus.counts("train", len(vocabulary), BINS)
    scale = Scale.of(counts.sum(0))
    told = {
        "bins": scale._asdict(),
        "cells": {name: len(corpus.of(name)) for name in SPLITS},
        "by_donor": "group" in cells.metadata.columns,
        "held_out_donors": _donors(cells, splits),
        "genes": len(kept),
        "identifiers": column,
        "values": cells.kind,
        "steps": config.steps,
    }
    settings = {STAGE: config.identity().model_dump(mode="json"), "corpus": corpus.identity, **inputs}
    return _Job(output, config, corpus, vocabulary, scale, counts, settings, told)


def _donors(cells: Cells, splits: NDArray[np.uint8]) -> list[str]:
    from elute.cells.corpus import SPLITS

    if "group" not in cells.metadata.columns:
        return []
    groups = cells.metadata["group"].to_numpy()[splits == SPLITS.index("test")]
    return sorted({str(group) for group in groups})[:50]


def _train(job: _Job) -> Fitted:
    """Train to the end, and write the model's folder."""
    import torch

    from elute.base.device import choose
    from elute.cells.masked import MaskedObjective, MaskedStream, fold
    from elute.engine.fit import Fit, FitConfig
    from elute.engine.parallel import Ranks
    from elute.engine.tracking import Metrics, TrackConfig
    from elute.models.tahoe.config import CollatorConfig
    from elute.models.tahoe.load import write_folder

    config = job.config
    device = choose(config.device, "fp32").device
    network = job.network().to(torch.device(device))
    objective = MaskedObjective(network, job.scale)
    stream = MaskedStream(
        job.corpus,
        job.corpus.of("train"),
        max_length=config.max_length,
        batch_size=config.batch_size,
        share=(config.mask_share - _AROUND, config.mask_share + _AROUND),
        seed=config.seed,
    )
    fitting = FitConfig(
        steps=config.steps, batch_size=config.batch_size, lr=config.lr, warmup=0.05, decay=0.95, seed=config.seed,
        checkpoint_seconds=config.checkpoint_seconds,
    )  # fmt: skip
    fit = Fit(objective, stream, fitting, folder=job.output, steps=config.steps)
    ranks = Ranks(device=device)
    if (begun := fit.resume(job.settings, ranks)) is not None:
        console.say(f"{job.output}: going on after step {begun + 1:,} of {config.steps:,}")
    with Metrics(job.output, TrackConfig(), settings=job.settings, resume_at=begun) as metrics:
        fitted = fit.run(job.settings, ranks=ranks, metrics=metrics, split=True)
        metrics.close(fitted.figures)
    job.told["parameters"] = sum(p.numel() for p in network.parameters())
    collator = CollatorConfig(
        max_length=config.max_length, num_bins=BINS, mlm_probability=config.mask_share, keep_first_n_tokens=1
    )
    write_folder(job.output, fold(network, job.scale), collator, vocabulary=job.vocabulary)
    return fitted


def _judge(job: _Job) -> dict[str, Any]:
    """Read what was written, and hold its guesses against others'."""
    from elute.cells import baselines as b
    from elute.cells.masked import fold
    from elute.models.tahoe.config import WEIGHTS_FILE
    from elute.models.tahoe.load import read_folder

    most, drawn = b.Limits(), {}
    for split, limit in (("train", most.fit), ("validation", most.validation), ("test", most.test)):
        times = min(_TIMES, max(1, limit // max(1, len(job.corpus.of(split)))))
        drawn[split] = b.examples(
            job.corpus, split, most=limit, times=times, max_length=job.config.max_length, seed=job.config.seed
        )
    fit, choose, test = drawn["train"], drawn["validation"], drawn["test"]
    means = b.gene_means(job.counts)
    place, tokens = test.hidden
    ridge, penalty = b.best_ridge(job.corpus, means, fit, choose=choose)
    guesses = {
        b.MEAN: means[tokens] * 0 + job.scale.mean,
        b.GENE: means[tokens],
        b.OFFSET: b.moved_by_cell(test, means),
        b.RIDGE: ridge(test, [penalty])[0],
        b.RANDOM: b.readout(fold(job.network(), job.scale), job.scale, fit, choose=choose, asked=test),
        b.MODEL: b.by_network(read_folder(job.output).network, test),
    }
    table = b.compare(test, guesses, seed=job.config.seed)
    return {
        "held_out": table,
        "verdict": b.verdict(table),
        "hidden_values": len(place),
        "ridge": {"penalty": penalty, "cells": len(set(fit.cells.tolist())), "shown": len(fit.cells)},
        "weights": files.digest_file(job.output / WEIGHTS_FILE),
    }

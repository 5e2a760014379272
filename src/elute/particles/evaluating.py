"""The evaluation: every method in the same folds, every fit inside the training part of its fold.

    OUTPUT/folds.parquet               which particle is held out when                                   folding.py
    OUTPUT/folds/fold_03.safetensors   what every method predicts of the fold's particles, their fused vectors

1. Folds are drawn (folding.py). Fold by fold each method is fitted to the training part and predicts the rest
   (fold_work.py).
2. What a fold gave is kept in a file that names all that it depends on: a run that was killed goes on after the last
   finished fold, and ends with the bytes of one left alone.
3. Scores, intervals and comparisons come from those predictions alone (judging.py, comparing.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.base import console, files
from elute.heads.fusion import align
from elute.particles.comparing import compare, corrected
from elute.particles.fold_files import FoldFiles
from elute.particles.fold_work import Fold, anchor_rows, work
from elute.particles.folding import draw_folds, write_folds
from elute.particles.judging import Judge
from elute.particles.methods import methods_of, questions
from elute.particles.results import Evaluation

if TYPE_CHECKING:
    from elute.particles.fold_work import FoldResult
    from elute.particles.folding import Folds
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

Floats32 = NDArray[np.float32]


def evaluate(joined: Joined, config: EvaluationConfig, folder: Path) -> Evaluation:
    """Evaluate the fusion of joined sources, and all that it is held against; finished folds are not done again.

    Classes are to be balanced before, if at all (joining.balanced).
    """
    from elute.base.device import choose

    folds = draw_folds(joined, config)
    methods = methods_of(joined, config)
    config = config.model_copy(update={"device": choose(config.device, "fp32").device})
    files.make_folder(folder)
    for note in folds.notes:
        console.warn(note)
    write_folds(folder, joined, folds)
    kept = FoldFiles(folder / "folds", joined, folds, config, methods=[one.name for one in methods.run])
    found: list[FoldResult] = []
    with console.progress("folds", folds.n, unit="folds", done=kept.finished()) as bar:
        for number in range(folds.n):
            result = kept.read(number)
            if result is None:
                result = work(Fold(joined, folds, config, number, folder=kept.scratch(number)), methods)
                kept.write(number, result)
                bar.advance()
            found.append(result)
    kept.tidy()
    return _judged(joined, config, folds, found=found)


def _judged(joined: Joined, config: EvaluationConfig, folds: Folds, *, found: list[FoldResult]) -> Evaluation:
    """Score and compare what the folds gave."""
    methods = methods_of(joined, config)
    judge = Judge(joined.codes, joined.classes, folds, config.n_resamples, config.random_seed)
    judged = {
        one.name: judge.judge(
            one.name, gathered(folds, [r.probabilities[one.name] for r in found]), title=one.title, kind=one.kind
        )
        for one in methods.run
    }
    asked = [(judged[a], judged[b], text) for a, b, text in questions(joined, methods)]
    comparisons = [one for a, b, text in asked for one in compare(judge, a, b, question=text)]
    gates = [r.gates for r in found if r.gates is not None]
    return Evaluation(
        joined=joined,
        config=config,
        folds=folds.of,
        grouped_by=folds.grouped_by,
        n_groups=folds.n_groups,
        methods={name: one.result for name, one in judged.items()},
        comparisons=corrected(comparisons),
        fused=_one_space(joined, config, folds, found=found),
        gates=gathered(folds, gates) if gates else None,
        not_run=methods.not_run,
        notes=(*joined.notes, *folds.notes),
    )


def gathered(folds: Folds, parts: list[Any]) -> Any:
    """Put what the folds gave of their particles into the particles' order."""
    out = np.empty((len(folds.of), parts[0].shape[1]), dtype=parts[0].dtype)
    for number, part in enumerate(parts):
        out[folds.of == number] = part
    return out


def _one_space(joined: Joined, config: EvaluationConfig, folds: Folds, *, found: list[FoldResult]) -> Floats32:
    """Return out-of-fold fused vectors, those of later folds turned into the first one's space."""
    if found[0].anchors is None:
        return np.asarray(gathered(folds, [r.fused for r in found]))
    return turned_to(found[0].anchors, joined, config, folds=folds, found=found)


def turned_to(
    target: Floats32, joined: Joined, config: EvaluationConfig, *, folds: Folds, found: list[FoldResult]
) -> Floats32:
    """Return out-of-fold fused vectors in the space of a network that gave `target` for the anchor rows.

    Each fold's turn is found from anchor rows that its network has learnt from; none that is held out is looked at.
    """
    rows = anchor_rows(len(joined), config.random_seed)
    parts = []
    for number, result in enumerate(found):
        assert result.anchors is not None  # noqa: S101  # a learnt fusion has them
        seen = folds.of[rows] != number
        parts.append(align(result.anchors[seen], target[seen]).apply(result.fused))
    return np.asarray(gathered(folds, parts))

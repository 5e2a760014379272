"""What a gene's score is worth, in words: the sparse head beside the baselines that had the same patients held out.

1. Without a score, or with an interval that holds 0, or no better than shuffled patients or the mean: not predicted.
2. No better than codes of an encoder with random weights: no better than a control.
3. Above each control's number, and yet intervals overlap, or are over samples, since there are fewer than three
   patients: not told apart.
4. Above the upper end of every control's interval: above its controls.

Two further baselines are no controls, and are said beside the verdict: the dense embedding, which the codes were made
from, and the neighbours' mean, which sees what was measured next to a sample, as no head does. Intervals are those of
each score, not of differences, so that "not told apart" is the careful word.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from elute.reports.tissue.reading import BASELINES, SPARSE
from elute.reports.validation_svg import number

MODELS = {
    SPARSE: "Sparse codes",
    "dense_pca_ridge": "Dense embedding",
    "random_encoder": "Random-weight encoder",
    "neighbours": "Spatial neighbours",
    "shuffled": "Shuffled patients",
    "mean": "Mean predictor",
}
TOLD = {
    SPARSE: "the head that this report explains",
    "dense_pca_ridge": "the same embedding, not made sparse: 256 principal components and ridge",
    "random_encoder": "codes of an encoder with random weights: colour and texture alone",
    "neighbours": "the mean of what was measured in a sample’s neighbours, which no head sees",
    "shuffled": "the same head on codes of other samples, of any patient: what chance gives",
    "mean": "what is predicted without codes, from the training patients",
}
SHORT = {
    "dense_pca_ridge": "Dense",
    "random_encoder": "Random encoder",
    "neighbours": "Neighbours",
    "shuffled": "Shuffled",
    "mean": "Mean",
}
NOTHING = ("mean", "shuffled")  # what knows nothing of the image
CONTROLS = (*NOTHING, "random_encoder")
ABOVE, APART, NO_BETTER, NOT, UNHELD, UNSCORED = (
    *("above its controls", "not told apart", "no better than a control"),
    *("not predicted", "controls not run", "not scored"),
)
VERDICTS = (ABOVE, APART, NO_BETTER, NOT, UNHELD, UNSCORED)
MARKS = {ABOVE: "●", APART: "◐", NO_BETTER: "○", NOT: "○", UNHELD: "?", UNSCORED: "–"}


@dataclass(frozen=True)
class Score:
    """One model's R² on held-out patients, with its interval, and whatever else was counted."""

    model: str
    r2: float | None
    low: float | None
    high: float | None
    row: dict[str, Any]

    @property
    def written(self) -> str:
        """R² as a sentence has it, with its interval."""
        return r2(self.r2, self.low, self.high)

    @property
    def top(self) -> float | None:
        """The upper end of the interval, or the number itself."""
        return self.high if self.high is not None else self.r2


@dataclass(frozen=True)
class Verdict:
    """A word to sort by, and the sentence."""

    word: str
    sentence: str
    beside: str  # the dense embedding and the neighbours

    @property
    def mark(self) -> str:
        """A sign of the word, which does not rest on colour."""
        return MARKS[self.word]

    @property
    def predicted(self) -> bool:
        """Whether there is anything to explain."""
        return self.word not in (NOT, UNSCORED)


def r2(value: float | None, low: float | None, high: float | None) -> str:
    """A score with its interval; two places, which is more than most of them bear."""
    if value is None:
        return "not run"
    ends = f" ({_end(low)} to {_end(high)})" if low is not None and high is not None else ""
    return f"{two(value)}{ends}"


def _end(value: float) -> str:
    """An end of an interval, which keeps its sign where it rounds to zero: whether it holds 0 is what counts."""
    return f"−{two(value)}" if -0.005 <= value < 0 else two(value)


def two(value: float | None) -> str:
    """A score with two places."""
    if value is None:
        return "?"
    if abs(value) >= 100:
        return number(value, 2)
    text = f"{value:.2f}".replace("-", "−")
    return "0.00" if text == "−0.00" else text


def scores_of(frame: pl.DataFrame) -> dict[str, Score]:
    """The scores of one gene's rows, the sparse head first; what is no number is nothing."""
    found = {}
    for row in frame.iter_rows(named=True):
        clean = {key: _finite(value) if isinstance(value, float) else value for key, value in row.items()}
        model = str(row["model"])
        found[model] = Score(model, clean.get("r2"), clean.get("r2_low"), clean.get("r2_high"), clean)
    return {name: found[name] for name in (SPARSE, *BASELINES) if name in found}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def verdict(scores: dict[str, Score]) -> Verdict:
    """Judge a gene's sparse head by its controls."""
    mine = scores.get(SPARSE)
    if mine is None or mine.r2 is None:
        return Verdict(UNSCORED, "It was not scored on held-out patients.", "")
    beside = f"{_dense(mine, scores.get('dense_pca_ridge'))} {_near(mine, scores.get('neighbours'))}".strip()
    held = {name: scores[name] for name in CONTROLS if name in scores and scores[name].r2 is not None}
    head = f"R² on held-out patients is {mine.written}."
    if mine.low is not None and mine.low <= 0:
        told = (
            "The interval holds 0: there is no evidence that it is predicted at all, and what follows explains noise."
        )
        return Verdict(NOT, f"{head} {told}", beside)
    if below := [name for name in NOTHING if name in held and not _more(mine, held[name])]:
        told = f"No better than {_listed(held, below)}: what follows explains noise."
        return Verdict(NOT, f"{head} {told}", beside)
    if not held:
        told = "Controls were not run, so that it cannot be said what it is worth."
        return Verdict(UNHELD, f"{head} {told}", beside)
    if below := [name for name in held if not _more(mine, held[name])]:
        why = "Colour and texture, as an untrained network sees them, do as well."
        return Verdict(NO_BETTER, f"{head} No better than {_listed(held, below)}. {why}", beside)
    missing = [MODELS[name].lower() for name in CONTROLS if name not in held]
    less = f" Not run: {', '.join(missing)}." if missing else ""
    if close := [name for name in held if not _clear(mine, held[name])]:
        told = f"Higher than {_listed(held, close)}, but the intervals overlap."
        return Verdict(APART, f"{head} {told}{less}", beside)
    names = _listed(held, sorted(held, key=lambda name: -(held[name].r2 or 0.0))[:1])
    if mine.row.get("interval") == "samples":
        told = f"Higher than every control, of which the best is {names}; but of so few patients nothing can be said."
        return Verdict(APART, f"{head} {told}{less}", beside)
    return Verdict(ABOVE, f"{head} The interval lies above every control; the best is {names}.{less}", beside)


def _more(mine: Score, other: Score) -> bool:
    return mine.r2 is not None and other.r2 is not None and mine.r2 > other.r2


def _clear(mine: Score, other: Score) -> bool:
    """Whether the interval lies above the other's; without an interval the number stands for it."""
    low = mine.low if mine.low is not None else mine.r2
    return low is not None and other.top is not None and low > other.top


def _listed(held: dict[str, Score], names: Sequence[str]) -> str:
    parts = [f"{MODELS[name][0].lower()}{MODELS[name][1:]}, {held[name].written}" for name in names]
    return parts[0] if len(parts) == 1 else f"{'; '.join(parts[:-1])}; and {parts[-1]}"


def _dense(mine: Score, dense: Score | None) -> str:
    """What the codes keep of what the embedding knows."""
    if dense is None or dense.r2 is None or mine.r2 is None:
        return "The dense embedding was not run beside it."
    told = f"The dense embedding gives {dense.written}"
    if dense.r2 <= 0:
        return f"{told}."
    if mine.r2 > dense.r2:
        return f"{told}: the codes give more."
    return f"{told}: the codes keep {max(0.0, mine.r2 / dense.r2):.0%} of it."


def _near(mine: Score, other: Score | None) -> str:
    """What a sample's neighbours tell: they see what was measured, so that more is no fault of the head."""
    if other is None or other.r2 is None or mine.r2 is None:
        return ""
    if other.r2 > mine.r2:
        return f"What was measured in a sample’s neighbours, which the head never sees, tells more: {other.written}."
    return f"It is more than a sample’s neighbours tell, whose measured values the head never sees: {other.written}."

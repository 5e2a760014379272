"""What an evaluation found, as numbers: each method's predictions, its scores with intervals, and who beats whom.

Methods by name, in the order in which they are shown:

    <source>             each source alone                                        kind "source"
    fusion               the fusion that was asked for                            kind "fusion"
    concat, pca, knn, average                                                     kind "baseline"
    network_<source>     a source alone through the network of attention fusion   kind "baseline"
    permuted_across      the fusion, the last source's rows permuted across all classes within the fold   kind "control"
    permuted_within      the same within each class: what pairing by label would have invented   kind "control"

All are of the same particles in the same folds. `plain()` gives the whole as plain numbers and text, for JSON, for the
picture and for the page; arrays a particle (probabilities, fused vectors) are not in it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MethodKind = Literal["source", "fusion", "baseline", "control"]

METRICS = ("map", "accuracy", "balanced_accuracy", "log_loss", "brier", "ece")
"""Macro average precision, accuracy, balanced accuracy; and three that are better the smaller they are."""
CLASS_METRICS = ("ap", "precision", "recall")


@dataclass(frozen=True)
class Interval:
    """A number with its 95% interval by bootstrap over runs; no interval where there are fewer than two runs."""

    estimate: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Bin:
    """Particles whose most probable class has about this probability, and how often it was the right one."""

    n: int
    confidence: float
    accuracy: float


@dataclass(frozen=True, eq=False)
class MethodResult:
    """One method on held-out particles."""

    name: str
    title: str
    kind: MethodKind
    probabilities: Floats  # [n, classes], each row from the fold that held it out
    overall: dict[str, Interval]  # METRICS, over all held-out particles
    folds: dict[str, list[float | None]]  # METRICS, fold by fold
    per_class: dict[str, dict[str, Interval]]  # class → CLASS_METRICS
    class_folds: dict[str, dict[str, list[float | None]]]  # class → CLASS_METRICS, fold by fold
    confusion: Ints  # [true class, predicted class]
    calibration: list[Bin]

    @property
    def predicted(self) -> Ints:
        """The most probable class of each particle."""
        return np.asarray(self.probabilities.argmax(axis=1), dtype=np.int64)

    def plain(self) -> dict[str, Any]:
        """All but the predictions, ready for JSON."""
        return {
            "title": self.title,
            "kind": self.kind,
            "overall": {name: asdict(value) for name, value in self.overall.items()},
            "folds": self.folds,
            "per_class": {c: {m: asdict(v) for m, v in of.items()} for c, of in self.per_class.items()},
            "class_folds": self.class_folds,
            "confusion": self.confusion.tolist(),
            "calibration": [asdict(part) for part in self.calibration],
        }


@dataclass(frozen=True)
class Comparison:
    """One method held against another on the same particles and folds: the first less the second."""

    first: str
    second: str
    metric: str
    question: str
    difference: Interval
    per_fold: list[float | None]
    mean_per_fold: float | None
    t: float | None  # corrected resampled t-test over folds
    p_t: float | None
    p_permutation: float  # methods exchanged run by run
    p_t_holm: float | None = None
    p_permutation_holm: float | None = None


@dataclass(frozen=True, eq=False)
class Evaluation:
    """An evaluation as a whole."""

    joined: Joined
    config: EvaluationConfig
    folds: Ints  # [n], the fold that holds each particle out
    grouped_by: str  # "run" or "particle": what folds and intervals keep together
    n_groups: int
    methods: dict[str, MethodResult]
    comparisons: list[Comparison]
    fused: NDArray[np.float32]  # [n, d]: each particle by the fusion of the fold that held it out
    gates: NDArray[np.float32] | None  # [n, sources], of attention
    not_run: dict[str, str] = field(default_factory=dict)  # method → why
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of probabilities' columns."""
        return self.joined.classes

    @property
    def n_folds(self) -> int:
        """Folds that there are; fewer than asked for where there are fewer runs."""
        return int(self.folds.max()) + 1

    def plain(self) -> dict[str, Any]:
        """The whole but for arrays a particle, ready for JSON."""
        n = len(self.classes)
        return {
            "evidence": self.joined.evidence,
            "mark": self.joined.mark,
            "pairing": {"by": self.joined.pairing, **self.joined.counts},
            "sources": {
                name: {"width": width, "digest": self.joined.digests.get(name, "")}
                for name, width in zip(self.joined.names, self.joined.widths, strict=True)
            },
            "classes": list(self.classes),
            "class_sizes": np.bincount(self.joined.codes, minlength=n).tolist(),
            "n_samples": len(self.joined),
            "n_folds": self.n_folds,
            "fold_sizes": np.bincount(self.folds).tolist(),
            "grouped_by": self.grouped_by,
            "n_groups": self.n_groups,
            "methods": {name: found.plain() for name, found in self.methods.items()},
            "comparisons": [asdict(one) for one in self.comparisons],
            "gates": self._gates(),
            "not_run": dict(self.not_run),
            "notes": list(self.notes),
        }

    def _gates(self) -> dict[str, Any] | None:
        """Mean gate of each source: over all particles and class by class."""
        if self.gates is None:
            return None
        codes = self.joined.codes
        means = [self.gates[codes == c].mean(axis=0).astype(float).tolist() for c in range(len(self.classes))]
        return {
            "sources": list(self.joined.names),
            "mean": self.gates.mean(axis=0).astype(float).tolist(),
            "per_class": dict(zip(self.classes, means, strict=True)),
        }

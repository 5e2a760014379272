"""One fold: every method fitted to its training part, and what each predicts of the particles that are held out.

A learnt fusion is used as follows, so that the classifier never sees vectors that their network has fitted:

1. The training part is cut into inner parts of whole runs. For each a network learns from the other inner parts and
   fuses this one; a last network learns from the whole training part and fuses the particles that are held out.
2. What an inner network fused is turned into the last one's space by the rows that both have learnt from (Procrustes:
   no label, and no row that is judged).
3. The classifier is fitted to the inner parts' vectors and applied to those held out.

The networks of all variants (the fusion, its two controls, each source alone) learn side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.heads import fusion
from elute.heads.fusion_settings import FusionConfig
from elute.particles import baselines
from elute.particles.controls import shuffled_rows
from elute.particles.folding import inner_folds
from elute.particles.methods import ACROSS, FUSION, WITHIN

if TYPE_CHECKING:
    from elute.heads.fusion import FusionNetworks
    from elute.particles.folding import Folds
    from elute.particles.methods import Methods
    from elute.particles.settings import EvaluationConfig
    from elute.particles.table import Joined

Floats = NDArray[np.float64]
Floats32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Partners = tuple[Ints | None, ...]

ALIGNED_BY = 4096  # rows at most


@dataclass(frozen=True, eq=False)
class FoldResult:
    """What a fold gave."""

    probabilities: dict[str, Floats]  # method → [held out, classes]
    fused: Floats32  # [held out, width]
    gates: Floats32 | None  # [held out, sources]
    anchors: Floats32 | None  # [ALIGNED_BY or fewer, width]: the same rows by every fold's network, to align them


@dataclass(frozen=True, eq=False)
class Variant:
    """One way to fuse: whose rows stand where, and which sources there are."""

    partners: Partners | None = None
    present: tuple[bool, ...] | None = None


@dataclass(frozen=True, eq=False)
class Fold:
    """The setting of one fold."""

    joined: Joined
    folds: Folds
    config: EvaluationConfig
    number: int
    folder: Path | None = None  # where networks keep their checkpoint

    @property
    def held_out(self) -> NDArray[np.bool_]:
        """Which particles are held out."""
        return np.asarray(self.folds.of == self.number)

    @property
    def train(self) -> Ints:
        """The rows that are learnt from."""
        return np.flatnonzero(~self.held_out)

    @property
    def test(self) -> Ints:
        """The rows that are predicted."""
        return np.flatnonzero(self.held_out)

    def fusion_config(self) -> FusionConfig:
        """The network's settings: every fold begins with the same weights."""
        c = self.config
        return FusionConfig(width=c.embedding_dim, epochs=c.attention_epochs, seed=c.random_seed, device=c.device)


def work(fold: Fold, methods: Methods) -> FoldResult:
    """Fit every method and predict the particles that are held out."""
    wanted = {one.name for one in methods.run}
    variants = {name: v for name, v in _variants(fold).items() if name in wanted}
    alone = {name: _logistic(fold, [x]) for name, x in zip(fold.joined.names, fold.joined.vectors, strict=True)}
    plain = {**alone, **_baselines(fold, wanted)}
    gates: Floats32 | None = None
    anchors: Floats32 | None = None
    if fold.config.fusion_method == "attention":
        probabilities, fused, gates, anchors = _learnt(fold, variants)
    else:
        probabilities, fused = _fixed(fold, variants)
    every = {**plain, **probabilities}
    return FoldResult({one.name: every[one.name] for one in methods.run}, fused, gates, anchors)


def anchor_rows(n: int, seed: int) -> Ints:
    """Return the rows by which the spaces of different networks are aligned."""
    rng = np.random.default_rng([seed, *b"anchors"])
    return np.sort(rng.permutation(n)[:ALIGNED_BY])


def _variants(fold: Fold) -> dict[str, Variant]:
    """The fusion, its controls, and what it gives from fewer sources."""
    names = fold.joined.names
    others: tuple[None, ...] = (None,) * (len(names) - 1)
    out = {FUSION: Variant()}
    for i, name in enumerate(names):
        out[f"network_{name}"] = Variant(present=tuple(j == i for j in range(len(names))))
    out["without_last"] = Variant(present=(*(True for _ in others), False))
    for name, how in ((ACROSS, "across"), (WITHIN, "within")):
        rows = shuffled_rows(fold.joined.codes, fold.held_out, how=how, seed=fold.config.random_seed,  # type: ignore[arg-type]
                             fold=fold.number)  # fmt: skip
        out[name] = Variant(partners=(*others, rows))
    return out


def _logistic(fold: Fold, vectors: Sequence[NDArray[Any]]) -> Floats:
    joined = np.concatenate(vectors, axis=1) if len(vectors) > 1 else vectors[0]
    codes, k = fold.joined.codes[fold.train], len(fold.joined.classes)
    return baselines.logistic(joined[fold.train], codes, joined[fold.test], n_classes=k)


def _baselines(fold: Fold, wanted: set[str]) -> dict[str, Floats]:
    """Those that are the same whatever the fusion is."""
    vectors, k = fold.joined.vectors, len(fold.joined.classes)
    codes = fold.joined.codes[fold.train]
    out = {}
    train = baselines.standardised(vectors, fold.train, fold.train)
    test = baselines.standardised(vectors, fold.train, fold.test)
    if "average" in wanted:
        out["average"] = baselines.logistic(fusion.average(train), codes, fusion.average(test), n_classes=k)
    both, held = fusion.concat(train), fusion.concat(test)
    if "concat" in wanted:
        out["concat"] = baselines.logistic(both, codes, held, n_classes=k)
    if "pca" in wanted:
        parts = baselines.principal(both, held, width=fold.config.embedding_dim)
        out["pca"] = baselines.logistic(parts[0], codes, parts[1], n_classes=k)
    if "knn" in wanted:
        out["knn"] = baselines.nearest(both, codes, held, n_classes=k)
    return out


def _fixed(fold: Fold, variants: dict[str, Variant]) -> tuple[dict[str, Floats], Floats32]:
    """Fuse by a rule that learns nothing but means and spreads."""
    out, kept = {}, None
    codes, k = fold.joined.codes[fold.train], len(fold.joined.classes)
    for name, variant in variants.items():
        vectors = [
            x if p is None else x[p]
            for x, p in zip(fold.joined.vectors, variant.partners or (None,) * len(fold.joined.names), strict=True)
        ]
        vectors = [x for x, there in zip(vectors, variant.present or (True,) * len(vectors), strict=True) if there]
        train, test = (
            rule(fold.config.fusion_method, baselines.standardised(vectors, fold.train, rows))
            for rows in (fold.train, fold.test)
        )
        out[name] = baselines.logistic(train, codes, test, n_classes=k)
        if name == FUSION:
            kept = test.astype(np.float32)
    assert kept is not None  # noqa: S101  # the fusion is always among the methods
    return out, kept


def rule(method: str, parts: Sequence[Floats]) -> Floats:
    """Fuse standardised vectors by a rule."""
    if method == "concat" or len(parts) == 1:
        return np.asarray(fusion.concat(parts), dtype=np.float64)
    weights = [1.0] * len(parts) if method == "average" else list(fusion.default_weights(len(parts)))
    return np.asarray(fusion.weighted(parts, weights), dtype=np.float64)


def _learnt(
    fold: Fold, variants: dict[str, Variant]
) -> tuple[dict[str, Floats], Floats32, Floats32, Floats32]:  # fmt: skip
    """Fuse by networks: one an inner part and one of the whole training part, for every variant."""
    from elute.heads.fusion_fit import Part, fit_networks

    joined, train = fold.joined, fold.train
    inner = inner_folds(
        joined.codes[train], fold.folds.groups[train], n=fold.config.inner_folds, seed=fold.config.random_seed
    )
    cuts = [train[inner != i] for i in range(int(inner.max()) + 1)]
    parts = [Part(rows, v.partners, v.present) for v in variants.values() for rows in (*cuts, train)]
    networks = fit_networks(
        joined.vectors, joined.codes, parts, config=fold.fusion_config(), n_classes=len(joined.classes),
        folder=fold.folder,
    )  # fmt: skip
    out: dict[str, Floats] = {}
    fused = gates = anchors = np.zeros((0, 0), np.float32)
    for place, (name, variant) in enumerate(variants.items()):
        first = place * (len(cuts) + 1)
        inside, test, gate = _held_out(fold, networks, variant, first=first, inner=inner, cuts=cuts)
        codes = joined.codes[train]
        out[name] = baselines.logistic(inside, codes, test, n_classes=len(joined.classes))
        if name == FUSION:
            fused, gates = test, gate
            rows = anchor_rows(len(joined), fold.config.random_seed)
            anchors, _ = fusion.fuse_rows(networks, joined.vectors, rows, which=first + len(cuts))
    return out, fused, gates, anchors


def _held_out(
    fold: Fold, networks: FusionNetworks, variant: Variant, *, first: int, inner: Ints, cuts: list[Ints]
) -> tuple[Floats32, Floats32, Floats32]:
    """Return fused vectors of the training rows, each by a network that has not seen it, and of the rows held out."""
    whole = first + len(cuts)

    def made(rows: Ints, which: int) -> tuple[Floats32, Floats32]:
        return fusion.fuse_rows(networks, fold.joined.vectors, rows, which=which, partners=variant.partners)

    inside = np.empty((len(fold.train), networks.config.width), np.float32)
    for i, seen in enumerate(cuts):
        by = seen[np.linspace(0, len(seen) - 1, min(len(seen), ALIGNED_BY)).astype(np.int64)]
        turn = fusion.align(made(by, first + i)[0], made(by, whole)[0])
        inside[inner == i] = turn.apply(made(fold.train[inner == i], first + i)[0])
    test, gates = made(fold.test, whole)
    return inside, test, gates

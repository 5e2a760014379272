"""What a model's guesses of hidden values are held against, all on the same cells, genes and masks.

    the mean            of all values of training cells
    the gene's mean     over the training cells that have the gene: as it is, or moved by what the cell's visible genes
                        are off by on average
    ridge               for each gene a linear map from the values of the other genes that the model is given, too
    random weights      the same network before training, with the best linear map from its last vectors to values

What is fitted is chosen by the error on validation cells. The error is squared, in bins; its difference from the
model's has an interval by drawing test cells with replacement.

The ridge is computed in its dual form (A. Hoerl, R. Kennard, Technometrics 12, 1970; G. Saunders et al., ICML 1998):
all genes share one matrix of inner products of cells, less the gene's own column, so that 20,000 genes are no trouble.
A gene that is hidden counts as its mean; one that was not drawn as 0, or as its mean if that is better.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import torch
from scipy import linalg, sparse

from elute.base import console
from elute.base.errors import DataError
from elute.base.statistics.nulls import bootstrap_groups
from elute.cells.masked import draw, predict

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.cells.corpus import Corpus
    from elute.cells.masked import Scale
    from elute.models.tahoe.model import TahoeX1

    Floats = NDArray[np.float64]
    Singles = NDArray[np.float32]

MEAN, GENE, OFFSET, RIDGE, RANDOM, MODEL = (
    "the mean of all values",
    "the gene's mean",
    "the gene's mean, moved by the cell",
    "ridge on the other genes",
    "random weights, linear readout",
    "the model",
)
HIDDEN = 0.4  # the share of genes that is hidden where models are compared
PENALTIES: tuple[float, ...] = tuple(10.0 ** (i / 2) for i in range(4, 9))
_AT_ONCE = 32
_GENES = 100  # on which the ridge's penalty is chosen


class Limits(NamedTuple):
    """Most cells that are read where models are compared, drawn at random where there are more."""

    fit: int = 2000  # times that training cells are shown to what is fitted here
    validation: int = 500
    test: int = 2000


class Examples(NamedTuple):
    """Cells with some of their values hidden."""

    rows: dict[str, Tensor]
    cells: NDArray[np.int64]  # a cell may come several times

    @property
    def hidden(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Example and token of each hidden value, in the order of all guesses."""
        place, column = np.nonzero(self.rows["generated"].numpy())
        return place, self.rows["tokens"].numpy()[place, column]

    @property
    def truth(self) -> Floats:
        """The hidden values."""
        return np.asarray(self.rows["values"].numpy()[self.rows["generated"].numpy()], np.float64)

    def drawn(self, means: Floats, *, hidden: bool) -> sparse.csr_array:
        """Bins of the genes that were drawn, [examples, vocabulary]; hidden ones as their means, or left out."""
        shown = self.rows["tokens"].numpy() > 0
        shown[:, 0] = False
        asked = self.rows["generated"].numpy()
        place, column = np.nonzero(shown if hidden else shown & ~asked)
        tokens = self.rows["tokens"].numpy()[place, column]
        values = np.where(asked[place, column], means[tokens], self.rows["values"].numpy()[place, column])
        return sparse.csr_array((values, (place, tokens)), shape=(len(self.cells), len(means)))


def examples(
    corpus: Corpus, split: str, *, most: int, times: int, max_length: int, seed: int
) -> Examples:  # fmt: skip
    """Draw up to `most` cells of a split, each with so many draws of its genes and masks."""
    rng = np.random.default_rng([seed, 2, len(split)])
    cells = corpus.of(split)
    if not len(cells):
        raise DataError(f"no {split} cell has two genes of the vocabulary", where=corpus.folder)
    cells = np.repeat(np.sort(rng.permutation(cells)[:most]), times)
    return Examples(draw(corpus, cells, rng, max_length=max_length, share=(HIDDEN, HIDDEN)), cells)


def gene_means(counts: NDArray[np.int64]) -> Floats:
    """Mean bin of each token, from how often it has each; that of all where a token never comes."""
    bins = np.arange(counts.shape[1])
    every = float((counts.sum(0) * bins).sum() / max(1, counts.sum()))
    each: Floats = np.where(counts.sum(1) > 0, (counts * bins).sum(1) / np.maximum(counts.sum(1), 1), every)
    return each


def moved_by_cell(asked: Examples, means: Floats) -> Floats:
    """Guess a gene's mean and what the cell's visible genes are off by on average."""
    place, tokens = asked.hidden
    seen = asked.drawn(means, hidden=False)
    off = [float((seen.data[a:b] - means[seen.indices[a:b]]).mean()) for a, b in itertools.pairwise(seen.indptr)]
    moved: Floats = means[tokens] + np.array(off)[place]
    return moved


def by_network(network: TahoeX1, asked: Examples) -> Floats:
    """Guess with a network that reads and predicts bins."""
    return np.concatenate([guess[hidden].double().cpu().numpy() for hidden, guess, _ in _forward(network, asked)])


def _forward(network: TahoeX1, asked: Examples) -> Any:
    with torch.no_grad():
        for at in range(0, len(asked.cells), _AT_ONCE):
            part = {name: x[at : at + _AT_ONCE] for name, x in asked.rows.items()}
            hidden, _, output = predict(network, part, None)
            yield hidden, output.expr_preds, output.gene_emb


def readout(network: TahoeX1, scale: Scale, fit: Examples, *, choose: Examples, asked: Examples) -> Floats:
    """Guess by the best linear map from a network's last vectors to hidden values."""
    vectors = [
        np.concatenate([last[hidden].double().cpu().numpy() for hidden, _, last in _forward(network, part)])
        for part in (fit, choose, asked)
    ]
    middle, spread = vectors[0].mean(0), np.maximum(vectors[0].std(0), 1e-9)
    x, x_choose, x_asked = ((v - middle) / spread for v in vectors)
    gram, along = x.T @ x, x.T @ (fit.truth - scale.mean)

    def guesses(penalty: float) -> tuple[Floats, Floats]:
        weight = linalg.solve(gram + penalty * np.eye(len(gram)), along, assume_a="pos")
        return x_choose @ weight + scale.mean, x_asked @ weight + scale.mean

    return _best(guesses, choose.truth)[1]


class Ridge:
    """Each gene's ridge regression on the other genes that were drawn; one that was not counts as 0, or as its mean."""

    def __init__(self, corpus: Corpus, means: Floats, fit: Examples, *, absent: Literal["zero", "mean"]) -> None:
        self.means, self.about = means, means if absent == "mean" else np.zeros_like(means)
        drawn = self._given(fit)
        self.unit = float(drawn.data.std()) or 1.0
        self.given = drawn * (1 / self.unit)
        self.middle = np.asarray(self.given.mean(0)).ravel()
        self.inner = self._inner(self.given)
        self.by_gene = self.given.tocsc()
        self.answers = _answers(corpus, fit.cells, means)

    def _given(self, asked: Examples) -> sparse.csr_array:
        drawn = asked.drawn(self.means, hidden=True)
        return sparse.csr_array((drawn.data - self.about[drawn.indices], drawn.indices, drawn.indptr), drawn.shape)

    def _inner(self, others: sparse.csr_array) -> Singles:
        """Inner products with what it was fitted on, both less the mean; only then are single digits enough."""
        found = (others @ self.given.T).toarray() - (others @ self.middle)[:, None]
        found -= self.given @ self.middle - self.middle @ self.middle
        single: Singles = found.astype(np.float32)
        return single

    def choose(self, asked: Examples) -> tuple[float, float]:
        """Return the penalty with the least error on some cells, and that; where genes are many, on some of them."""
        genes = np.unique(asked.hidden[1])
        genes = genes[:: 1 + len(genes) // _GENES]
        chosen = np.isin(asked.hidden[1], genes)
        guess = self(asked, PENALTIES, genes=genes)
        errors = ((guess - asked.truth)[:, chosen] ** 2).mean(1)
        return PENALTIES[int(errors.argmin())], float(errors.min())

    def __call__(
        self, asked: Examples, penalties: Sequence[float], *, genes: NDArray[np.int64] | None = None
    ) -> Floats:
        """Guess with each penalty, [penalties, hidden values]; genes that are not asked for stay at their mean."""
        place, tokens = asked.hidden
        across = self._inner(self._given(asked) * (1 / self.unit))
        guess = np.repeat(self.means[tokens][None], len(penalties), 0)
        at = _by_gene(tokens)
        genes = np.array([gene for gene in sorted(at) if genes is None or gene in genes])
        with console.progress("ridge", len(genes), unit="genes") as bar:
            for gene in genes.tolist():
                part = slice(self.answers.indptr[gene], self.answers.indptr[gene + 1])
                rows, y = self.answers.indices[part], self.answers.data[part]
                if len(rows) > 1:
                    own = (self.by_gene[:, [gene]].toarray()[rows, 0] - self.middle[gene]).astype(np.float32)
                    kernel = self.inner[np.ix_(rows, rows)] - own[:, None] * own[None, :]
                    asking = (self.means[gene] - self.about[gene]) / self.unit - self.middle[gene]
                    mine = across[place[at[gene]]][:, rows] - own * np.float32(asking)
                    mine -= kernel.mean(0)
                    kernel -= kernel.mean(0) + kernel.mean(1)[:, None] - kernel.mean()
                    for i, dual in enumerate(_duals(kernel, (y - y.mean()).astype(np.float32), penalties)):
                        guess[i, at[gene]] += mine @ dual
                bar.advance()
        return guess


def best_ridge(corpus: Corpus, means: Floats, fit: Examples, *, choose: Examples) -> tuple[Ridge, float]:
    """Fit both kinds of ridge, and take the one and the penalty with the least error on cells that are to choose by."""
    made = [Ridge(corpus, means, fit, absent="zero"), Ridge(corpus, means, fit, absent="mean")]
    found = [ridge.choose(choose) for ridge in made]
    best = min(range(2), key=lambda i: found[i][1])
    return made[best], found[best][0]


def _answers(corpus: Corpus, cells: NDArray[np.int64], means: Floats) -> sparse.csc_array:
    """All values of some cells less the gene's mean; one that is the mean is kept as an entry."""
    held = [corpus.cell(int(cell)) for cell in cells]
    tokens = np.concatenate([tokens for tokens, _ in held])
    values = np.concatenate([bins for _, bins in held]) - means[tokens]
    ends = np.cumsum([0, *(len(tokens) for tokens, _ in held)])
    return sparse.csr_array((values, tokens, ends), shape=(len(cells), len(means))).tocsc()


def _by_gene(tokens: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    order = np.argsort(tokens, kind="stable")
    names, first = np.unique(tokens[order], return_index=True)
    return dict(zip(names.tolist(), np.split(order, first[1:]), strict=True))


def _duals(kernel: Singles, y: Singles, penalties: Sequence[float]) -> Iterator[Singles]:
    """Solve (K + penalty · 1) a = y for each penalty; PyTorch's threads sleep while they wait, SciPy's do not."""
    for penalty in penalties:
        held = torch.from_numpy(kernel.copy())
        held.diagonal().add_(penalty)
        yield torch.cholesky_solve(torch.from_numpy(y)[:, None], torch.linalg.cholesky(held))[:, 0].numpy()


def _best(guesses: Callable[[float], tuple[Floats, Floats]], truth: Floats) -> tuple[Floats, Floats]:
    """Take the penalty with the least error on the first of two sets."""
    return min((guesses(penalty) for penalty in PENALTIES), key=lambda pair: float(((pair[0] - truth) ** 2).mean()))


def compare(asked: Examples, guesses: Mapping[str, Floats], *, seed: int) -> list[dict[str, Any]]:
    """Give each one's error and R² on hidden values, and the model's error less it, with a 95% interval over cells."""
    names, (place, _) = list(guesses), asked.hidden
    cells, code = np.unique(asked.cells, return_inverse=True)
    of = code[place]
    counts = np.bincount(of, minlength=len(cells)).astype(np.float64)
    errors = np.stack([np.bincount(of, (g - asked.truth) ** 2, len(cells)) for g in guesses.values()], axis=1)
    at = names.index(MODEL)

    def statistic(rows: NDArray[np.int64]) -> Floats:
        error = errors[rows].sum(0) / counts[rows].sum()
        return np.concatenate([error, error[at] - error])

    found = bootstrap_groups(statistic, np.arange(len(cells)), seed=seed)
    n, floor = len(names), float(found.estimate[names.index(MEAN)])
    table = []
    for i, name in enumerate(names):
        row: dict[str, Any] = {
            "name": name,
            "mse": float(found.estimate[i]),
            "r2": 1 - float(found.estimate[i]) / floor,
        }
        if i != at:
            low, high = float(found.low[n + i]), float(found.high[n + i])
            word = "beaten" if high < 0 else "beats it" if low > 0 else "tie"
            row |= {"difference": float(found.estimate[n + i]), "low": low, "high": high, "verdict": word}
        table.append(row)
    return table


def verdict(table: Sequence[Mapping[str, Any]]) -> str:
    """Say in words what the model beats, what it ties with, and what beats it."""

    words = {"beaten": "The model beats", "tie": "It ties with", "beats it": "It is beaten by"}
    named = {word: [str(row["name"]) for row in table if row.get("verdict") == word] for word in words}
    parts = [f"{words[word]}: {'; '.join(names)}" for word, names in named.items() if names]
    return ". ".join(parts) + "."

"""Terms beside the squared error: each against its formula written out by hand, and their gradients by differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from elute.base.errors import ConfigError
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.losses import by_autograd
from elute.dictionaries.spec import DictionarySpec
from elute.dictionaries.terms import TermsConfig, charge, check

WIDTH, N, ROWS, SPREAD = 6, 10, 7, 3.0


def made(kind: Any = "transcoder", sites: int = 1) -> Dictionary:
    reads = {f"x{i}": WIDTH for i in range(sites)}
    writes = {f"y{i}": WIDTH for i in range(sites)}
    dictionary = Dictionary(DictionarySpec(kind=kind, reads=reads, writes=writes, n_features=N, k=3)).double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in dictionary.parameters():
            p.normal_(generator=random)
    return dictionary


def given(dictionary: Dictionary) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    values = [torch.randn(ROWS, N, generator=random, dtype=torch.float64).relu() for _ in dictionary]
    values[0][2] = 0  # a row in which nothing fires
    width = dictionary.spec.width_out
    y, y_hat = (torch.randn(ROWS, width, generator=random, dtype=torch.float64) for _ in range(2))
    return values, y, y_hat, torch.linspace(-1, 1, width, dtype=torch.float64)


@torch.no_grad()
def charged(dictionary: Dictionary, **terms: Any) -> float:
    values, y, y_hat, mean = given(dictionary)
    return float(
        charge(dictionary, TermsConfig(**terms), values=values, y=y, y_hat=y_hat, mean=mean, spread=SPREAD, rows=ROWS)
    )


def by_hand(dictionary: Dictionary) -> dict[str, float]:
    """Every term in loops, for dictionaries of one bank."""
    values, y, y_hat, mean = (part[0].numpy() if isinstance(part, list) else part.numpy() for part in given(dictionary))
    bank = next(iter(dictionary))
    W, E = bank.W_dec.detach().numpy(), bank.W_enc.detach().numpy()
    length = [float(np.sqrt(sum(w * w for w in row))) for row in W]
    sized = [[abs(z) * length[i] for i, z in enumerate(row)] for row in values]
    a, b = y - mean, y_hat - mean
    cosines = [float(p @ q / np.sqrt((p @ p) * (q @ q))) for p, q in zip(a, b, strict=True)]
    pairs = [(W[i] @ W[j] / (length[i] * length[j])) ** 2 for i in range(N) for j in range(N) if i != j]
    return {
        "l1": sum(map(sum, sized)) / ROWS,
        "l2": sum(x * x for row in (*W, *E) for x in row) / N,
        "tokens": sum(np.sqrt(sum(z * z for z in row)) for row in sized) / ROWS,
        "heads": sum(np.sqrt(sum(x * x for x in row[h : h + 2])) for row in W for h in (0, 2, 4)) / N,
        "alignment": sum(1 - c for c in cosines) / ROWS,
        "energy": sum((np.linalg.norm(p) - np.linalg.norm(q)) ** 2 for p, q in zip(a, b, strict=True)) / ROWS / SPREAD,
        "orthogonality": sum(pairs) / len(pairs),
    }


@pytest.mark.parametrize("term", ["l1", "l2", "alignment", "energy", "orthogonality", "tokens", "heads"])
def test_a_term_is_its_formula(term: str) -> None:
    dictionary = made()
    asked = {"group_lasso": 0.5, "group_by": term, "heads": 3} if term in ("tokens", "heads") else {term: 0.5}
    assert charged(dictionary, **asked) == pytest.approx(0.5 * by_hand(dictionary)[term], rel=1e-12)
    assert charged(dictionary) == 0


@torch.no_grad()
def test_parts_of_a_batch_add_up() -> None:
    dictionary = made("clt", 2)
    values, y, y_hat, mean = given(dictionary)
    for by in ("tokens", "heads"):
        terms = TermsConfig(
            l1=1, l2=2, group_lasso=3, group_by=by, heads=3, alignment=4, orthogonality=5, energy=6
        )  # fmt: skip
        found = [
            charge(
                dictionary, terms, values=[v[cut] for v in values], y=y[cut], y_hat=y_hat[cut], mean=mean,
                spread=SPREAD, rows=ROWS,
            )
            for cut in (slice(None), slice(0, 3), slice(3, None))
        ]  # fmt: skip
        assert float(found[0]) == pytest.approx(float(found[1] + found[2]), rel=1e-12)


@torch.no_grad()
def test_the_heads_of_a_cross_layer_transcoder_are_those_of_each_site() -> None:
    """Bank 0 writes two sites of 6 columns: three heads each; bank 1 writes the second alone."""
    dictionary = made("clt", 2)
    expected = 0.0
    for bank in dictionary:
        W = bank.W_dec.detach()
        assert W.shape[1] in (WIDTH, 2 * WIDTH)
        expected += sum(float(W[:, h : h + 2].norm(dim=1).sum()) for h in range(0, W.shape[1], 2))
    assert charged(dictionary, group_lasso=1.0, heads=3) == pytest.approx(expected / (2 * N), rel=1e-12)


def test_the_gradient_is_that_of_the_loss() -> None:
    dictionary = made()
    random = torch.Generator().manual_seed(2)
    x, y = (torch.randn(20, WIDTH, generator=random, dtype=torch.float64) for _ in range(2))
    terms = TermsConfig(
        l1=0.1, l2=0.2, group_lasso=0.3, group_by="tokens", alignment=0.4, orthogonality=0.5, energy=0.6
    )
    mean = y.mean(0)

    def more(values: list[torch.Tensor], y_hat: torch.Tensor) -> torch.Tensor:
        return charge(dictionary, terms, values=values, y=y, y_hat=y_hat, mean=mean, spread=SPREAD, rows=20)

    def loss() -> float:
        for p in dictionary.parameters():
            p.grad = None
        told = by_autograd(dictionary, x, y, k=3, weight=0.05, terms=more)
        assert told.terms > 0
        return told.loss + told.penalty + told.terms

    loss()
    for p in list(dictionary.parameters()):
        slope = p.grad
        assert slope is not None
        slope = slope.clone()
        flat = p.data.view(-1)
        for place in range(0, len(flat), 7):
            kept, step = float(flat[place]), 1e-6
            flat[place] = kept + step
            high = loss()
            flat[place] = kept - step
            low = loss()
            flat[place] = kept
            assert (high - low) / (2 * step) == pytest.approx(float(slope.view(-1)[place]), rel=1e-4, abs=1e-7)


def test_columns_that_do_not_fall_into_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="the 6 columns of 'y0' do not fall into 4 heads. Change --heads"):
        check(made(), TermsConfig(group_lasso=1.0, heads=4))
    check(made(), TermsConfig(group_lasso=1.0, heads=4, group_by="tokens"))


def test_one_matrix_needs_as_many_columns_on_both_sides() -> None:
    wide = Dictionary(DictionarySpec(kind="transcoder", reads={"x": 4}, writes={"y": 5}, n_features=8, k=2))
    with pytest.raises(ConfigError, match="one matrix cannot read 4 columns and write 5. Leave --tied out"):
        check(wide, TermsConfig(tied=True))

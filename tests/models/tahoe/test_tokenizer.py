"""Tokens are those of the published code where it is asked for, and reproducible a cell at a time where not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from elute.base.errors import ConfigError, DataError
from elute.models.cells.batches import Cell
from elute.models.tahoe.config import CollatorConfig, read_config
from elute.models.tahoe.tokenizer import TahoeTokenizer, bin_values

VOCABULARY = {name: i for i, name in enumerate(["<pad>", "<cls>", "<drug>", *(f"g{i}" for i in range(500))])}


def cell(name: str, values: list[float]) -> Cell:
    n = len(values)
    tokens, columns = np.arange(3, 3 + n, dtype=np.int32), np.arange(n, dtype=np.int32)
    return Cell(0, name, tokens, np.array(values, np.float32), columns, total=sum(values))


def golden_cells(folder: Path, vocabulary: dict[str, int]) -> list[Cell]:
    with np.load(folder / "tok_counts.npz") as held:  # noqa: TID251
        indptr, indices, data = held["indptr"], held["indices"], held["data"]
    found = []
    for i in range(len(indptr) - 1):
        cut = slice(indptr[i], indptr[i + 1])
        tokens = np.array([vocabulary.get(f"ENSG{column:011d}", -1) for column in indices[cut]], np.int32)
        known = tokens >= 0
        arrays = tokens[known], data[cut][known].astype(np.float32), indices[cut][known].astype(np.int32)
        found.append(Cell(i, str(i), *arrays, total=float(data[cut].sum())))
    return found


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("batches", "collator"),
    [("tok_counts_full", "config_70m_collator.yml"), ("tok_counts_3b_chem", "config_3b_collator.yml")],
)
def test_tokens_are_the_published_ones(real_data: Path, batches: str, collator: str) -> None:
    folder = real_data / "tahoe-golden"
    vocabulary = json.loads((folder / "tok_vocab.json").read_text())
    config = read_config(folder / collator, CollatorConfig)
    tokenizer = TahoeTokenizer(vocabulary, config, max_length=1024, upstream_exact=True)
    cells, held, generator = (
        golden_cells(folder, vocabulary),
        load_file(folder / f"{batches}.safetensors"),
        tokenizer.start(),
    )
    for i in range(3):
        made = tokenizer.collate(cells[8 * i : 8 * i + 8], generator)
        assert torch.equal(made.batch["tokens"], held[f"batch{i}.gene"])
        assert torch.equal(made.batch["values"], held[f"batch{i}.expr"])
        assert ("drugs" in made.batch) == (f"batch{i}.drug_ids" in held)
        raw = held[f"batch{i}.expr_raw"]
        for row, (own, kept) in enumerate(zip(cells[8 * i : 8 * i + 8], made.kept, strict=True)):
            n = tokenizer.special + len(kept)
            np.testing.assert_array_equal(own.values[kept], raw[row, tokenizer.special : n].numpy())


@pytest.mark.real_data
def test_bins_are_the_published_ones(real_data: Path) -> None:
    held = json.loads((real_data / "tahoe-golden" / "binning_cases.json").read_text())
    for name, row in held["rows"].items():
        for side in ("left", "right"):
            got = bin_values(np.array(row, np.float32), 51, right=side == "right")
            assert got.astype(int).tolist() == held["binned"][f"{name}.{side}"], (name, side)


def test_bins_worked_by_hand() -> None:
    # Fifty edges from 1 to 9; a value's bin is one more than the edges below it.
    assert bin_values(np.array([1, 1, 1, 1, 2, 2, 3, 9], np.float32), 51).tolist() == [1, 1, 1, 1, 29, 29, 43, 50]
    assert bin_values(np.array([0, 0], np.float32), 51).tolist() == [1, 1]
    assert bin_values(np.array([0, 0], np.float32), 51, right=True).tolist() == [0, 0]


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.floats(0.1, 50))
@settings(max_examples=50, deadline=None)
def test_bins_keep_the_order_and_hardly_the_scale(counts: list[int], factor: float) -> None:
    x = np.array(counts, np.float32)
    bins = bin_values(x, 51)
    assert ((bins >= 1) & (bins <= 50)).all()
    assert all(bins[i] <= bins[j] for i in range(len(x)) for j in range(len(x)) if x[i] <= x[j])
    # Ties stay ties under any rising function, so that log-normalised values give nearly the same tokens.
    other = bin_values(np.log1p(x * np.float32(factor)), 51)
    assert len(set(zip(x.tolist(), other.tolist(), strict=True))) == len(set(x.tolist()))


def test_a_long_cell_gives_the_same_sample_in_any_company() -> None:
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig(max_length=20), seed=3)
    long, other = cell("long", list(range(1, 101))), cell("other", list(range(1, 51)))
    alone = tokenizer.collate([long], tokenizer.start())
    generator = tokenizer.start()
    tokenizer.collate([other], generator)
    together = tokenizer.collate([other, long], generator)
    assert torch.equal(alone.batch["tokens"][0], together.batch["tokens"][1])
    assert alone.batch["tokens"].shape == (1, 20)
    assert alone.batch["tokens"][0, 0] == VOCABULARY["<cls>"]
    assert np.array_equal(alone.kept[0], np.sort(alone.kept[0]))
    # Bins are taken over the whole cell, before genes are left out: the sample keeps those bins.
    whole = bin_values(long.values, 51)
    np.testing.assert_array_equal(alone.batch["values"][0, 1:].numpy(), whole[alone.kept[0]])
    another = TahoeTokenizer(VOCABULARY, CollatorConfig(max_length=20), seed=4).collate([long], tokenizer.start())
    assert not torch.equal(alone.batch["tokens"], another.batch["tokens"])


def test_a_sample_is_fair() -> None:
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig(max_length=11))
    seen = np.zeros(50)
    for i in range(400):
        made = tokenizer.collate([cell(f"cell{i}", list(range(1, 51)))], tokenizer.start())
        seen[made.kept[0]] += 1
    # Each gene is drawn with probability 1/5: 80 of 400, standard deviation 8.
    assert abs(seen - 80).max() < 5 * 8


def test_the_drug_stands_second_and_is_nobody() -> None:
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig(use_chem_token=True, keep_first_n_tokens=2))
    made = tokenizer.collate([cell("a", [5, 1]), cell("b", [2])], tokenizer.start())
    assert made.batch["tokens"].tolist() == [[1, 2, 3, 4], [1, 2, 3, 0]]
    assert made.batch["values"].tolist() == [[-2, -2, 50, 1], [-2, -2, 1, -2]]
    assert made.batch["drugs"].tolist() == [0, 0]
    assert made.present.tolist() == [[True] * 4, [True] * 3 + [False]]


def test_without_the_drug_the_published_code_keeps_the_first_gene_raw() -> None:
    config = CollatorConfig(keep_first_n_tokens=2)
    ours = TahoeTokenizer(VOCABULARY, config)
    theirs = TahoeTokenizer(VOCABULARY, config, upstream_exact=True)
    one = cell("a", [7, 1, 3])
    assert ours.collate([one], ours.start()).batch["values"].tolist() == [[-2, 50, 1, 26]]
    assert theirs.collate([one], theirs.start()).batch["values"].tolist() == [[-2, 7, 1, 50]]
    with pytest.raises(DataError, match="cell 'b' has no gene to take quantiles of"):
        theirs.collate([cell("b", [4])], theirs.start())
    assert ours.collate([cell("b", [4])], ours.start()).batch["values"].tolist() == [[-2, 1]]


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ConfigError, match="a cell of 1 tokens holds no gene"):
        TahoeTokenizer(VOCABULARY, CollatorConfig(), max_length=1)
    with pytest.raises(DataError, match="holds no token <cls>"):
        TahoeTokenizer({"g1": 5}, CollatorConfig())

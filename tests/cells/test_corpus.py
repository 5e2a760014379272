"""Cells on disk: tokens and bins as the tokeniser makes them, whole donors held out, rebuilt only when needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from elute.base import files
from elute.base.errors import ConfigError, DataError, SpaceError
from elute.cells.corpus import SPLITS, Corpus, look_through, split_cells, write_corpus
from elute.models.cells.cellfile import Cells, CellsConfig, open_cells
from elute.models.cells.matching import match_genes
from elute.models.tahoe.tokenizer import bin_values

GENES = [f"ENSG{i:011d}" for i in range(1, 31)]
VOCABULARY = {"<pad>": 0, "<cls>": 1, "<eoc>": 2, **{gene: 3 + i for i, gene in enumerate(GENES[:25])}}


def counts(n: int = 80) -> np.ndarray[Any, np.dtype[np.float32]]:
    x = np.random.default_rng(0).poisson(2.0, (n, len(GENES))).astype(np.float32)
    x[4] = 0
    x[4, 29] = 1  # none of its genes is in the vocabulary
    return x


def opened(x: np.ndarray[Any, Any], *, donors: int = 0, **settings: Any) -> Cells:
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(len(x))])
    if donors:
        obs["donor"] = [f"d{i % donors}" for i in range(len(x))]
        settings["donor_key"] = "donor"
    adata = anndata.AnnData(csr_matrix(x), obs, pd.DataFrame(index=GENES))
    return open_cells(adata, CellsConfig(**settings))


def written(cells: Cells, folder: Path) -> Corpus:
    matched = match_genes(cells.var, VOCABULARY)
    return write_corpus(cells, matched, folder, splits=split_cells(cells, seed=0), entries=1000)


def test_tokens_and_bins_are_the_tokenisers(tmp_path: Path) -> None:
    x = counts()
    corpus = written(opened(x), tmp_path)
    assert len(corpus) == 80
    assert corpus.tokens.dtype == np.uint16
    for i in range(80):
        tokens, bins = corpus.cell(i)
        there = np.flatnonzero(x[i, :25])
        assert tokens.tolist() == [3 + g for g in there]
        assert bins.tolist() == bin_values(x[i, there], 51).tolist()
    every = np.concatenate([corpus.of(split) for split in SPLITS])
    assert sorted(every) == [i for i in range(80) if i != 4]


def test_logarithms_give_the_bins_of_counts(tmp_path: Path) -> None:
    x = counts()
    log = np.log1p(x / x.sum(1, keepdims=True) * 1e4)
    first, second = written(opened(x), tmp_path / "a"), written(opened(log, accept_normalised=True), tmp_path / "b")
    assert first.bins.tolist() == second.bins.tolist()
    assert first.identity != second.identity


def test_it_is_used_again_and_rebuilt_when_the_source_changed(tmp_path: Path) -> None:
    x = counts()
    written(opened(x), tmp_path)
    before = (tmp_path / "tokens.bin").stat().st_ino
    written(opened(x), tmp_path)
    assert (tmp_path / "tokens.bin").stat().st_ino == before
    x[0, 0] += 100
    assert written(opened(x), tmp_path).cell(0)[1].tolist() == bin_values(x[0, :25][x[0, :25] > 0], 51).tolist()
    assert (tmp_path / "tokens.bin").stat().st_ino != before


def test_what_was_cut_short_is_rebuilt(tmp_path: Path) -> None:
    whole = written(opened(counts()), tmp_path)
    bins = whole.bins.tolist()
    (tmp_path / "bins.bin").write_bytes(b"1")
    assert written(opened(counts()), tmp_path).bins.tolist() == bins


def test_whole_donors_are_held_out(tmp_path: Path) -> None:
    cells = opened(counts(), donors=8)
    splits = split_cells(cells, seed=1)
    by_donor = {(name, split) for name, split in zip(cells.metadata["group"], splits.tolist(), strict=True)}
    assert len(by_donor) == 8
    assert {split for _, split in by_donor} == {0, 1, 2}
    with pytest.raises(DataError, match=r"2 groups cannot fill 3 splits.*--donor-key"):
        split_cells(opened(counts(), donors=2), seed=0)


@pytest.mark.parametrize("many", [False, True])
def test_random_cells_are_held_out_in_their_shares(many: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if many:
        monkeypatch.setattr("elute.cells.corpus._BUCKETS", 100)
    x = np.repeat(counts(), 25, axis=0)
    cells = opened(x)
    splits = split_cells(cells, seed=0)
    shares = np.bincount(splits, minlength=3) / len(x)
    assert np.abs(shares - [0.8, 0.1, 0.1]).max() < 0.01
    assert (splits != split_cells(cells, seed=1)).any()
    order = np.random.default_rng(1).permutation(len(x))  # a cell's split follows its name, not its place
    adata = anndata.AnnData(csr_matrix(x), pd.DataFrame(index=cells.names), pd.DataFrame(index=GENES))[order]
    again = open_cells(adata.copy(), CellsConfig())
    assert split_cells(again, seed=0).tolist() == splits[order].tolist()


def test_genes_are_measured_on_training_cells_alone() -> None:
    x = counts()
    cells = opened(x)
    splits = split_cells(cells, seed=0)
    seen = look_through(cells, splits)
    mine = x[splits == 0]
    log = np.log1p(mine / mine.sum(1, keepdims=True) * 1e4)
    assert seen.training.tolist() == (mine > 0).sum(0).tolist()
    assert seen.entries.tolist() == (x > 0).sum(0).tolist()
    np.testing.assert_allclose(seen.variance, log.var(0, dtype=np.float64), rtol=1e-4)


def test_counts_of_bins(tmp_path: Path) -> None:
    corpus = written(opened(counts()), tmp_path)
    found = corpus.counts("test", len(VOCABULARY), 51)
    wanted = np.zeros_like(found)
    for i in np.flatnonzero(np.asarray(corpus.splits) == 2):
        for token, number in zip(*corpus.cell(i), strict=True):
            wanted[token, int(number)] += 1
    assert found.tolist() == wanted.tolist()
    assert found.sum() > 0


def test_no_room_is_told_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 100)
    with pytest.raises(SpaceError, match=r"take about 3.7 kB, and there is room for 100 B"):
        written(opened(counts()), tmp_path)
    assert not (tmp_path / "tokens.bin").exists()


def test_a_bin_fits_into_a_byte(tmp_path: Path) -> None:
    cells = opened(counts())
    matched = match_genes(cells.var, VOCABULARY)
    with pytest.raises(ConfigError, match="from 2 to 255"):
        write_corpus(cells, matched, tmp_path, splits=split_cells(cells, seed=0), entries=1, bins=300)

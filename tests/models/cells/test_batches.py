"""Cells become batches whose rows are named, whatever the batch size."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.base.errors import DataError
from elute.models.cells import batches as module
from elute.models.cells.batches import survey, token_batches
from elute.models.cells.cellfile import Piece
from elute.models.tahoe.config import CollatorConfig
from elute.models.tahoe.tokenizer import TahoeTokenizer

GENES = [f"g{i}" for i in range(30)]
VOCABULARY = {name: i for i, name in enumerate(["<pad>", "<cls>", *GENES[:20]])}
MATCHED: Any = SimpleNamespace(
    tokens=np.array([VOCABULARY.get(gene, -1) for gene in GENES]), names=[g if g in VOCABULARY else None for g in GENES]
)


class Table:
    """Cells of known counts: cell i has value 100·i + j for gene j, zeros stored where j divides 7."""

    where = "table"

    def __init__(self, lengths: list[int], piece: int = 7) -> None:
        rng = np.random.default_rng(0)
        self.columns = [np.sort(rng.choice(30, n, replace=False)) for n in lengths]
        self.names = [f"cell{i}" for i in range(len(lengths))]
        self.metadata = pl.DataFrame({"sample_id": self.names, "label": [f"type{i % 3}" for i in range(len(lengths))]})
        self.piece = piece

    def values(self, i: int) -> np.ndarray[Any, Any]:
        return np.where(self.columns[i] % 7 == 0, 0, 100 * i + self.columns[i]).astype(np.float32)

    def pieces(self, cells: int) -> Iterator[Piece]:
        for at in range(0, len(self.names), min(cells, self.piece)):
            own = range(at, min(at + min(cells, self.piece), len(self.names)))
            indptr = np.concatenate([[0], np.cumsum([len(self.columns[i]) for i in own])])
            indices = np.concatenate([self.columns[i] for i in own])
            yield Piece(at, indptr, indices, np.concatenate([self.values(i) for i in own]))


def made(cells: Table, tokenizer: TahoeTokenizer, **settings: Any) -> list[tuple[dict[str, Any], pl.DataFrame]]:
    return list(token_batches(cells, MATCHED, tokenizer, **{"batch_size": 4, **settings}))  # type: ignore[arg-type]


def expected(cells: Table) -> set[tuple[str, str, float]]:
    return {
        (cells.names[i], GENES[c], float(v))
        for i in range(len(cells.names))
        for c, v in zip(cells.columns[i], cells.values(i), strict=True)
        if v != 0 and c < 20
    }


@pytest.mark.parametrize("piece", [1, 7, 100])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_known_gene_of_every_cell_is_a_row(piece: int, batch_size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WINDOW", 8)
    cells = Table([5, 12, 1, 30, 9, 17, 3, 8, 22, 10, 4], piece)
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig())
    got = made(cells, tokenizer, batch_size=batch_size)
    table = pl.concat([metadata for _, metadata in got])
    assert set(table.select("sample_id", "token", "value").iter_rows()) == expected(cells)
    assert len(table) == len(expected(cells)) == survey(cells, MATCHED, tokenizer).rows  # type: ignore[arg-type]
    for batch, metadata in got:
        tokens = batch["tokens"][batch["keep"]]
        assert [VOCABULARY[gene] for gene in metadata["token"]] == tokens.tolist()
        assert batch["padded"] == bool((batch["tokens"] == 0).any())
        assert (batch["tokens"][:, 0] == VOCABULARY["<cls>"]).all()
    labels = dict(zip(cells.names, cells.metadata["label"], strict=True))
    assert all(labels[name] == label for name, label in table.select("sample_id", "label").iter_rows())
    # The order of rows is that of any other batch size and any other pieces: a capture can be taken up with another.
    alone = made(Table([5, 12, 1, 30, 9, 17, 3, 8, 22, 10, 4]), tokenizer, batch_size=3)
    assert table.equals(pl.concat([metadata for _, metadata in alone]))


def test_short_cells_stand_together(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    cells = Table(rng.integers(1, 30, 200).tolist(), 200)
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig())
    padded = TahoeTokenizer(VOCABULARY, CollatorConfig())
    padded.ordered = True

    def waste(got: list[tuple[dict[str, Any], pl.DataFrame]]) -> float:
        whole = sum(batch["tokens"].numel() for batch, _ in got)
        return 1 - sum(int((batch["tokens"] != 0).sum()) for batch, _ in got) / whole

    assert waste(made(cells, tokenizer, batch_size=8)) < 0.1
    assert waste(made(cells, padded, batch_size=8)) > 0.25


def test_the_cells_own_token_can_be_a_row_too() -> None:
    cells = Table([5, 12])
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig())
    (batch, metadata), *_ = made(cells, tokenizer, every=True)
    assert int(batch["keep"].sum()) == len(metadata) == len(expected(cells)) + 2
    own = metadata.filter(pl.col("token").is_null())
    assert sorted(own["sample_id"]) == ["cell0", "cell1"]
    assert own["value"].null_count() == 2


def test_a_long_cell_is_cut_and_counted() -> None:
    cells = Table([30, 2, 0, 25])
    tokenizer = TahoeTokenizer(VOCABULARY, CollatorConfig(), max_length=6)
    found = survey(cells, MATCHED, tokenizer)  # type: ignore[arg-type]
    table = pl.concat([metadata for _, metadata in made(cells, tokenizer)])
    assert found.cut == 2
    assert found.rows == len(table)
    assert set(table.select("sample_id", "token", "value").iter_rows()) < expected(cells)
    assert table.group_by("sample_id").len()["len"].max() == 5
    assert found.cells + found.without == 4


def test_stored_zeros_are_tokens_only_as_the_published_code_has_it() -> None:
    cells = Table([30])
    exact = TahoeTokenizer(VOCABULARY, CollatorConfig(), upstream_exact=True)
    ours = TahoeTokenizer(VOCABULARY, CollatorConfig())
    assert len(made(cells, exact)[0][1]) == 20
    assert len(made(cells, ours)[0][1]) == 17  # genes 0, 7 and 14 are stored as zeros
    assert made(cells, exact)[0][0]["values"][0, 1] == 1


def test_the_published_order_is_the_files() -> None:
    cells = Table([9, 2, 5])
    exact = TahoeTokenizer(VOCABULARY, CollatorConfig(), upstream_exact=True)
    table = pl.concat([metadata for _, metadata in made(cells, exact, batch_size=1)])
    assert table["sample_id"].unique(maintain_order=True).to_list() == ["cell0", "cell1", "cell2"]


def test_cells_without_known_genes_are_an_error_only_if_all_are() -> None:
    cells = Table([2, 3])
    cells.columns = [np.array([21, 25]), np.array([22, 23, 29])]
    with pytest.raises(DataError, match="no cell has a gene that the model knows"):
        survey(cells, MATCHED, TahoeTokenizer(VOCABULARY, CollatorConfig()))  # type: ignore[arg-type]


def test_a_cells_total_counts_what_the_model_does_not_know() -> None:
    cells = Table([30, 11])
    (window,) = module._windows(cells, MATCHED, TahoeTokenizer(VOCABULARY, CollatorConfig()))  # type: ignore[arg-type]
    assert [cell.total for cell in window] == [float(cells.values(i).sum()) for i in range(2)]
    assert isinstance(window[0].tokens, np.ndarray)
    assert torch.from_numpy(window[0].tokens).dtype == torch.int32

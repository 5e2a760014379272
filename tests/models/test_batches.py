"""Batches of a user's own module: which positions are rows, and what each row comes from."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence

from elute.base.contracts import Site
from elute.base.errors import ConfigError, DataError
from elute.models.module import TorchModel

IDS = torch.tensor([[1, 2, 0], [3, 4, 5]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
BATCH = {"ids": IDS, "mask": MASK}


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)

    def forward(self, ids, mask=None):
        return self.embed(ids), mask


@pytest.fixture
def text():
    return Text()


@pytest.fixture
def model(text):
    return TorchModel(text, {"embed": "embed"}, keep="mask")


# what a batch may be


def test_batches_of_every_shape_reach_the_module():
    class Sum(nn.Module):
        def forward(self, a, b=0.0):
            return a + 10 * b

    model, a, b = TorchModel(Sum(), {"sum": ""}), torch.ones(2, 1), torch.full((2, 1), 2.0)
    pair = namedtuple("pair", ["x", "y"])
    for batch in ((a, b), [a, b], {"b": b, "a": a}, pair(a, b)):
        assert torch.equal(model(batch), a + 20)
    assert torch.equal(model(a), a)
    with pytest.raises(ConfigError) as error:
        model(SimpleNamespace(a=a))
    assert str(error.value) == "a batch is a SimpleNamespace. Pass forward=, which runs the module on one."
    other = TorchModel(Sum(), {"sum": ""}, forward=lambda module, batch: module(batch.a, b=batch.b))
    assert torch.equal(other.capture(SimpleNamespace(a=a, b=b))["sum"], a + 20)


def test_a_packed_sequence_is_one_argument():
    lstm = nn.LSTM(3, 4)
    packed = pack_padded_sequence(torch.randn(5, 2, 3), torch.tensor([5, 2]))
    model = TorchModel(lstm, {"h": Site("", select=1)})
    assert torch.equal(model(packed)[0].data, lstm(packed)[0].data)


def test_batches_are_moved_to_where_the_weights_are():
    meta = TorchModel(nn.Linear(3, 2, device="meta"), {"out": ""}, forward=lambda _, batch: batch)
    pair = namedtuple("pair", ["x", "y"])
    moved = meta({"a": torch.ones(2), "b": [torch.ones(3), pair("text", torch.ones(1))]})
    assert meta.device.type == "meta"
    assert moved["b"][1].x == "text"
    assert {x.device.type for x in (moved["a"], moved["b"][0], moved["b"][1].y)} == {"meta"}
    assert TorchModel(nn.Identity(), {"out": ""}).device.type == "cpu"
    assert TorchModel(nn.BatchNorm1d(3, affine=False, device="meta"), {"out": ""}).device.type == "meta"


# padding


@given(mask=st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4))
@settings(max_examples=30, deadline=None)
def test_rows_metadata_and_mask_agree_for_any_padding(mask):
    keep = torch.tensor(mask)
    x = torch.arange(float(keep.numel() * 2)).reshape(*keep.shape, 2)
    model = TorchModel(nn.Identity(), {"x": ""}, keep=lambda _: keep)
    ((batch, metadata),) = model.batches([x])
    rows = model.capture(batch)["x"]
    assert metadata.height == len(rows) == sum(map(sum, mask))
    assert rows.tolist() == [x[i, j].tolist() for i, row in enumerate(mask) for j, kept in enumerate(row) if kept]


def test_a_mask_may_be_integers_a_function_or_nothing(text):
    assert TorchModel(text, {"e": "embed"}, keep="mask").keep(BATCH).tolist() == MASK.bool().tolist()
    assert TorchModel(text, {"e": "embed"}, keep=lambda b: b["ids"] > 2).keep(BATCH).sum() == 3
    assert TorchModel(text, {"e": "embed"}, keep=lambda _: None).keep(BATCH) is None
    assert TorchModel(text, {"e": "embed"}).keep(BATCH) is None


def test_what_is_no_mask_is_refused(text):
    with pytest.raises(DataError) as error:
        TorchModel(text, {"e": "embed"}, keep=lambda b: b["mask"].float()).keep(BATCH)
    assert str(error.value) == (
        "Text: keep gave float32 [2, 3], not a mask. Return bool, or integers of which 0 is padding."
    )
    with pytest.raises(DataError) as error:
        TorchModel(text, {"e": "embed"}, keep="masks").keep(BATCH)
    assert str(error.value) == (
        "Text: the batch, a dict of 'ids': int64 [2, 3], 'mask': int64 [2, 3], has no 'masks'. Did you mean 'mask'?"
    )
    with pytest.raises(DataError, match=r"the batch, int64 \[2, 3\], has no 'mask'. Pass a function."):
        TorchModel(text, {"e": "embed"}, keep="mask").keep(IDS)


# batches


def test_metadata_is_made_by_running_number(model):
    found = list(model.batches([BATCH, BATCH]))
    assert [batch is BATCH for batch, _ in found] == [True, True]
    assert [metadata["sample_id"].to_list() for _, metadata in found] == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]


def test_rows_are_counted_by_one_forward_for_each_new_shape():
    runs = []

    class Halve(nn.Module):
        """Gives one row for two positions, as patches of an image do."""

        def forward(self, x):
            runs.append(len(x))
            return x.reshape(len(x), -1, 4)

    model = TorchModel(Halve(), {"out": ""})
    data = [torch.randn(2, 4, 2), torch.randn(2, 4, 2), torch.randn(1, 4, 2)]
    found = [metadata["sample_id"].to_list() for _, metadata in model.batches(data)]
    assert found == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert runs == [2, 1]


def test_metadata_of_ones_own_and_settings(text):
    def batches(data, *, size):
        for start in range(0, len(data), size):
            part = data[start : start + size]
            yield (part,), {"gene": [f"g{i}" for i in part.flatten().tolist()], "id": part.flatten()}

    model = TorchModel(text, {"e": "embed"}, batches)
    found = list(model.batches(IDS, size=1))
    assert [metadata["gene"].to_list() for _, metadata in found] == [["g1", "g2", "g0"], ["g3", "g4", "g5"]]
    assert [metadata["id"].to_list() for _, metadata in found] == [[1, 2, 0], [3, 4, 5]]
    assert model.capture(found[0][0])["e"].shape == (3, 4)


def test_a_pair_is_a_batch_unless_its_second_item_is_a_table(text):
    frame = pl.DataFrame({"n": range(6)})
    model = TorchModel(text, {"e": "embed"})
    data = [(IDS, MASK), (IDS, frame), (IDS, MASK)]
    found = list(model.batches(data))
    assert [isinstance(batch, tuple) for batch, _ in found] == [True, False, True]
    assert found[1][1] is frame
    assert found[2][1]["sample_id"].to_list() == list(range(12, 18))


def test_metadata_that_does_not_fit_is_refused(model):
    with pytest.raises(DataError) as error:
        list(model.batches([(BATCH, {"n": [1, 2, 3, 4, 5, 6]})]))
    assert str(error.value) == (
        "Text: a batch has 6 rows of metadata but keeps 5 positions. Give one row a kept position, in row-major order."
    )
    with pytest.raises(DataError, match="Text: the metadata of a batch is no table: "):
        list(model.batches([(BATCH, {"n": [1, 2, 3], "m": [1, 2]})]))

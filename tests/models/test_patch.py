"""What a patch does to a forward, against forwards written out by hand."""

from __future__ import annotations

import threading
from contextlib import suppress

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elute.base.contracts import Site
from elute.base.errors import SiteError
from elute.models.edits import add, scale
from elute.models.rows import same_bits
from elute.models.sites import capture, patch


def test_a_patched_input_leaves_the_callers_tensor_alone(net, x):
    before = x.clone()

    def ruin(rows, _):
        rows.zero_()
        return rows

    with patch(net, {Site("first", "input"): ruin}):
        assert torch.allclose(net(x), net.finish(net.first.bias.expand(4, 5)))
    assert torch.equal(x, before)


def test_an_edit_sees_the_rows_and_decides_the_output(net, x):
    seen = []

    def edit(rows, metadata):
        seen.append((rows.clone(), metadata))
        return rows * 2 + 1

    with patch(net, {"first": edit}):
        output = net(x)
    assert torch.equal(seen[0][0], net.hidden(x))
    assert seen[0][1] is None
    assert torch.allclose(output, net.finish(net.hidden(x) * 2 + 1))


@given(
    seed=st.integers(0, 2**31),
    shape=st.lists(st.integers(1, 4), min_size=0, max_size=3),
    data=st.data(),
)
@settings(max_examples=60, deadline=None)
def test_with_any_mask_an_edit_touches_the_kept_rows_alone(seed, shape, data):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(*shape, 3, generator=generator)
    keep = torch.rand(shape, generator=generator) < data.draw(st.sampled_from([0.0, 0.5, 1.0]))
    net = nn.Sequential(nn.Identity(), nn.Identity())
    factor = torch.randn(int(keep.sum()), 1, generator=generator)
    with patch(net, {"0": lambda rows, _: rows * factor}, keep=keep):
        got = net(x)
    expected, i = x.clone().reshape(-1, 3), 0
    for row, kept in enumerate(keep.reshape(-1).tolist()):
        if kept:
            expected[row] = expected[row] * factor[i]
            i += 1
    assert same_bits(got, expected.reshape(x.shape))


@given(
    values=st.lists(st.sampled_from([0.0, -0.0, 1.5, float("nan"), float("inf"), -float("inf"), 1e-42]), min_size=1),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.bfloat16, torch.float16]),
    masked=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_an_edit_that_returns_its_x_leaves_the_very_tensor(values, dtype, masked):
    x = torch.tensor(values, dtype=dtype)[:, None]
    net = nn.Sequential(nn.Identity())
    keep = torch.ones(len(x), dtype=torch.bool) if masked else None
    with patch(net, {"0": lambda rows, _: rows}, keep=keep):
        assert net(x) is x


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_patched_forward_without_changes_is_the_plain_one_to_the_bit(dtype):
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).to(dtype)
    x, keep = torch.randn(3, 7, 16, dtype=dtype), torch.rand(3, 7) < 0.7
    paths = ["layers.0", "layers.1.linear1", "layers.1.norm2"]
    plain = net(x)
    for mask in (None, keep):
        with patch(net, {path: lambda rows, _: rows for path in paths}, keep=mask):
            assert same_bits(net(x), plain)


def test_another_memory_layout_does_not_change_a_bit_of_what_follows():
    class Turned(nn.Module):
        def __init__(self):
            super().__init__()
            self.turn, self.last = nn.Identity(), nn.Linear(31, 29)

        def forward(self, x):
            return self.last(self.turn(x.transpose(0, 1)))

    net, x = Turned(), torch.randn(31, 64)
    plain = net(x)
    with patch(net, {"turn": lambda rows, _: rows.clone()}):
        assert same_bits(net(x), plain)
    strides = []
    with patch(net, {"turn": scale(1.0)}):
        net.last.register_forward_pre_hook(lambda _, args: strides.append(args[0].stride()))
        net(x)
    assert strides == [(1, 64)]


def test_an_edit_in_place_counts_even_through_data(net, x):
    def in_place(rows, _):
        rows.data[:, 0] = 7.0
        return rows

    h = net.hidden(x).detach()
    h[:, 0] = 7.0
    with patch(net, {"first": in_place}):
        assert torch.allclose(net(x), net.finish(h))


def test_nested_patches_compose_in_order_of_entry_and_a_capture_sees_the_result(net, x):
    with patch(net, {"first": add(1.0)}):
        with patch(net, {"first": scale(3.0)}):
            output, got = capture(net, {"h": Site("first")}, lambda: net(x))
            assert torch.allclose(got["h"], (net.hidden(x) + 1) * 3)
            assert torch.allclose(output, net.finish((net.hidden(x) + 1) * 3))
        assert torch.allclose(net(x), net.finish(net.hidden(x) + 1))
    assert torch.equal(net(x), net.finish(net.hidden(x)))


def test_the_networks_own_input_and_output_can_be_patched(net, x):
    with patch(net, {Site("", "input"): scale(2.0), Site(""): add(1.0)}):
        assert torch.allclose(net(x), net.finish(net.hidden(2 * x)) + 1)


def test_gradients_flow_through_an_edit(net, x):
    vector = torch.zeros(5, dtype=torch.float64, requires_grad=True)
    net.double()
    x = x.double()
    keep = torch.tensor([True, False, True, True])

    def loss(v):
        with patch(net, {"first": add(v, rows=torch.tensor([0, 2]))}, keep=keep):
            return net(x).square().sum()

    (gradient,) = torch.autograd.grad(loss(vector), vector)
    step = 1e-6
    for j in range(5):
        unit = torch.zeros(5, dtype=torch.float64)
        unit[j] = step
        slope = (loss(unit) - loss(-unit)) / (2 * step)
        assert gradient[j].item() == pytest.approx(slope.item(), abs=1e-6)
    with torch.no_grad(), patch(net, {"first": add(vector)}):
        assert not net(x).requires_grad


@pytest.mark.parametrize(
    ("edit", "returned"),
    [
        (lambda x, _: x[:2], "float32 [2, 5]"),
        (lambda x, _: x.double(), "float64 [4, 5]"),
        (lambda x, _: x.sum(), "float32 []"),
        (lambda *_: None, "None"),
        (lambda x, _: x.to("meta"), "float32 [4, 5]"),
    ],
)
def test_an_edit_that_returns_something_else_is_refused(net, x, edit, returned, hooks):
    with pytest.raises(SiteError) as error, patch(net, {"first": edit}):
        net(x)
    message = f"the output of 'first': the edit got float32 [4, 5] and returned {returned}. "
    assert str(error.value) == message + "Return the same shape and dtype, on cpu."
    assert hooks(net) == 0


def test_an_error_in_an_edit_says_where_and_the_next_forward_is_counted_afresh(net, x, hooks):
    fails = [True]

    def edit(rows, _):
        if fails.pop():
            raise ZeroDivisionError("mine")
        return rows + 1

    with patch(net, {"first": edit}):
        with pytest.raises(ZeroDivisionError, match="mine") as error:
            net(x)
        assert error.value.__notes__ == ["in the edit of the output of 'first'"]
        fails.append(False)
        assert torch.allclose(net(x), net.finish(net.hidden(x) + 1))
    assert hooks(net) == 0


def test_an_interrupt_that_was_caught_inside_the_block_is_not_passed_over(net, x, hooks):
    def interrupt(rows, _):
        raise KeyboardInterrupt

    def go_on():
        with patch(net, {"last": interrupt}), suppress(KeyboardInterrupt):
            net(x)

    with pytest.raises(SiteError, match=r"a forward was interrupted in this block\. Enter the patch again"):
        go_on()
    assert hooks(net) == 0


def test_metadata_has_one_row_a_kept_row(net):
    x, keep = torch.randn(2, 2, 3), torch.tensor([[True, True], [True, False]])
    metadata = pl.DataFrame({"gene": ["a", "b", "a"]})
    edit = scale(0.0, rows=lambda m: m["gene"] == "a")
    with patch(net, {"first": edit}, keep=keep, metadata=metadata):
        got = net(x)
    h = net.hidden(x).detach()
    h[0, 0] = h[1, 0] = 0.0
    assert torch.allclose(got, net.finish(h))
    with pytest.raises(SiteError) as error, patch(net, {"first": edit}, metadata=metadata):
        net(x)
    assert str(error.value) == (
        "the output of 'first': it gives 4 rows but the metadata has 3. "
        "Pass the metadata of this batch, and a keep mask where it has padding."
    )


def test_parts_that_run_by_themselves_are_marked(net, x):
    with patch(net, {"first": scale(2.0)}) as active:
        for _ in range(2):
            with active.forward():
                assert torch.equal(net.first(x), 2 * net.hidden(x))
        assert torch.equal(net(x), net.finish(2 * net.hidden(x)))
        with active.forward(keep=torch.tensor([True, False, False, False])):
            assert torch.equal(net.first(x)[1:], net.hidden(x)[1:])
        with active.forward():
            assert torch.equal(net.first(x), 2 * net.hidden(x))
        with pytest.raises(SiteError, match=r"it ran outside of a forward of what is patched\. Call the patched"):
            net.first(x)
        with pytest.raises(SiteError, match="it never ran"), active.forward():
            net.last(torch.relu(net.hidden(x)))


def test_a_forward_inside_a_forward_is_part_of_it(x):
    class Tree(nn.Module):
        def __init__(self):
            super().__init__()
            self.leaf = nn.Linear(3, 3)

        def forward(self, x, depth=1):
            return self.leaf(x) if depth == 0 else self(x, 0) + self(x, 0)

    net = Tree()
    with patch(net, {Site("leaf", call=1): scale(0.0)}):
        assert torch.equal(net(x), net.leaf.forward(x))
    with pytest.raises(SiteError, match="ran 2 times"), patch(net, {"leaf": scale(0.0)}):
        net(x)


def test_a_forward_in_another_thread_is_refused(net, x):
    errors = []

    def other():
        try:
            net(x)
        except SiteError as error:
            errors.append(str(error))

    def both():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return net(x)

    _, got = capture(net, {"h": Site("first")}, both)
    assert torch.equal(got["h"], net.hidden(x))
    assert errors == ["site 'h', the output of 'first': the network ran in another thread. Give each thread a copy."]


def test_a_misspelt_name_of_a_patch_names_its_neighbours(net):
    misspelt = patch(net, {"hiden": scale(1.0)}, sites={"hidden": Site("first")})
    with pytest.raises(SiteError, match=r"there is no site 'hiden'\. Did you mean 'hidden'\?"):
        misspelt.__enter__()

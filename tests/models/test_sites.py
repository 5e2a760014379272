"""Captures against forwards written out by hand; sites that are wrong; and that no hook stays."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from elute.base.contracts import Site
from elute.base.errors import SiteError
from elute.models.edits import add, scale
from elute.models.sites import capture, evaluating, patch


def test_several_sites_at_once_give_what_a_forward_by_hand_gives(net, x, hooks):
    sites = {"in": Site("last", "input"), "out": Site("last"), "whole": Site(""), "x": Site("", "input")}
    output, got = capture(net, sites, lambda: net(x))
    h = torch.relu(net.hidden(x))
    assert torch.equal(got["x"], x)
    assert torch.allclose(got["in"], h)
    assert torch.allclose(got["out"], net.finish(net.hidden(x)))
    assert torch.equal(got["whole"], output)
    assert hooks(net) == 0


@pytest.mark.parametrize("grad", [False, True])
def test_a_later_inplace_operation_does_not_change_what_was_captured(net, x, grad):
    _, got = capture(net, {"h": Site("first")}, lambda: net(x), grad=grad)
    assert (net.hidden(x) < 0).any()
    assert torch.equal(got["h"], net.hidden(x))


def test_without_grad_there_is_no_graph_and_with_grad_the_callers_mode_comes_back(net, x):
    output, got = capture(net, {"h": Site("first")}, lambda: net(x))
    assert not output.requires_grad
    assert not got["h"].requires_grad
    with torch.no_grad():
        output, got = capture(net, {"h": Site("first")}, lambda: net(x), grad=True)
        assert not torch.is_grad_enabled()
    assert output.requires_grad
    assert got["h"].requires_grad
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_the_gradient_with_respect_to_a_site_is_the_finite_difference(net, x, frozen, flat):
    net.double().requires_grad_(not frozen)
    x = x.double()
    output, got = capture(net, {"h": Site("first")}, lambda: net(x), grad=True, flat=flat)
    (gradient,) = torch.autograd.grad(output.square().sum(), got["h"])
    h, step = net.hidden(x).detach(), 1e-6
    for i, j in [(0, 0), (1, 3), (3, 4)]:
        up, down = h.clone(), h.clone()
        up[i, j] += step
        down[i, j] -= step
        slope = (net.finish(up).square().sum() - net.finish(down).square().sum()) / (2 * step)
        assert gradient[i, j].item() == pytest.approx(slope.item(), abs=1e-6)


def test_a_gradient_goes_from_a_later_site_to_an_earlier_one(net, x):
    _, got = capture(net, {"h": Site("first"), "o": Site("last")}, lambda: net(x), grad=True, flat=True)
    (gradient,) = torch.autograd.grad(got["o"][:, 0].sum(), got["h"])
    assert torch.allclose(gradient, (net.hidden(x) > 0) * net.last.weight[0])


def test_gradients_under_inference_mode_are_refused(net, x):
    with torch.inference_mode(), pytest.raises(SiteError, match=r"under torch\.inference_mode\. Leave it"):
        capture(net, {"h": Site("first")}, lambda: net(x), grad=True)


def test_rows_are_flattened_and_padding_dropped_in_row_major_order(net):
    x, keep = torch.randn(2, 3, 3), torch.tensor([[True, False, True], [False, True, True]])
    _, flat = capture(net, {"h": Site("first")}, lambda: net(x), flat=True)
    _, kept = capture(net, {"h": Site("first")}, lambda: net(x), keep=keep)
    h = net.hidden(x)
    assert torch.equal(flat["h"], torch.stack([h[i, j] for i in range(2) for j in range(3)]))
    assert torch.equal(kept["h"], torch.stack([h[0, 0], h[0, 2], h[1, 1], h[1, 2]]))


def test_a_mask_that_does_not_fit_is_refused(net):
    x = torch.randn(2, 3, 3)
    with pytest.raises(SiteError) as error:
        capture(net, {"h": Site("first")}, lambda: net(x), keep=torch.ones(3, 2, dtype=torch.bool))
    assert str(error.value) == (
        "site 'h', the output of 'first': it gives float32 [2, 3, 5], so keep must be bool [2, 3], not bool [3, 2]"
    )
    with pytest.raises(SiteError, match=r"keep must be bool \[2, 3\], not int64 \[2, 3\]"):
        capture(net, {"h": Site("first")}, lambda: net(x), keep=torch.ones(2, 3, dtype=torch.long))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.shared, self.idle = nn.Linear(3, 3), nn.Linear(3, 3)

    def forward(self, x):
        return self.shared(self.shared(x))


def test_a_module_that_runs_twice_needs_to_say_which_call(x, hooks):
    net = Twice()
    once = net.shared(x)
    plain = net.shared(once)
    sites = {f"call{i}": Site("shared", call=i) for i in range(2)}
    _, got = capture(net, sites, lambda: net(x))
    net.again = net.shared
    assert torch.equal(capture(net, {"s": Site("again", call=1)}, lambda: net(x)).tensors["s"], plain)
    assert torch.equal(got["call0"], once)
    assert torch.equal(got["call1"], plain)
    with patch(net, {Site("shared", call=1): add(1.0)}):
        assert torch.equal(net(x), plain + 1)
        with pytest.raises(SiteError, match="it ran outside of a forward"):
            net.shared(once)
        assert torch.equal(net(x), plain + 1)
    message = "the output of 'shared': it ran 2 times in one forward. Declare which is meant, call=0 to call=1, "
    with pytest.raises(SiteError) as error:
        capture(net, {"shared": Site("shared")}, lambda: net(x))
    assert str(error.value) == message + "or mark each forward of its own."
    with pytest.raises(SiteError, match="it ran 2 times in one forward"), patch(net, {"shared": scale(2.0)}):
        net(x)
    for use in (lambda: capture(net, {"s": Site("shared", call=2)}, lambda: net(x)), lambda: patched(net, 2, x)):
        with pytest.raises(SiteError, match="it ran 2 times in this forward, so there is no call=2"):
            use()
    assert hooks(net) == 0


def patched(net, call, x):
    with patch(net, {Site("shared", call=call): scale(2.0)}):
        net(x)


def test_a_site_that_never_ran_is_an_error(net, x, hooks):
    twice = Twice()
    message = (
        "site 'i', the output of 'idle': it never ran in this forward. "
        "One that is compiled, scripted, skipped, or read by its parent for its weights gives nothing."
    )
    with pytest.raises(SiteError) as error:
        capture(twice, {"i": Site("idle")}, lambda: twice(x))
    assert str(error.value) == message
    with pytest.raises(SiteError, match="it never ran"), patch(twice, {"idle": scale(2.0)}):
        twice(x)
    with pytest.raises(SiteError, match="it never ran"), patch(net, {"first": scale(2.0)}):
        net.finish(net.hidden(x))
    attention, y = nn.MultiheadAttention(4, 2), torch.randn(2, 1, 4)
    with pytest.raises(SiteError, match="read by its parent for its weights"):
        capture(attention, {"o": Site("out_proj")}, lambda: attention(y, y, y))
    assert hooks(twice) == hooks(net) == hooks(attention) == 0


def test_a_scripted_module_is_refused(net, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.Sequential(nn.Linear(3, 2)))
    for use in (
        lambda: capture(scripted, {"h": Site("0")}, lambda: scripted(x)),
        lambda: patch(scripted, {"0": scale(1.0)}).__enter__(),
    ):
        with pytest.raises(SiteError, match=r"a scripted module takes no hooks\. Use the module it was made from\."):
            use()


def test_a_compiled_module_is_refused_when_its_hooks_do_not_run(x):
    class Compiled(nn.Module):
        """Runs its part without its hooks, as compiled code does."""

        def __init__(self):
            super().__init__()
            self.part = nn.Linear(3, 3)

        def forward(self, x):
            return self.part.forward(x)

    net = Compiled()
    with pytest.raises(SiteError, match="it never ran"):
        capture(net, {"p": Site("part")}, lambda: net(x))
    with pytest.raises(SiteError, match="it never ran"), patch(net, {"part": scale(0.0)}):
        net(x)


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (Site("frist"), "the output of 'frist': Net has no submodule 'frist'. Did you mean 'first'?"),
        (Site("zzz"), "the output of 'zzz': Net has no submodule 'zzz'. There are: first, last, relu."),
        (Site("first.input"), ("the output of 'first.input': Net has no submodule 'first.input'. "
                              "For the input of 'first', write Site('first', 'input').")),
        (Site("first", "inside"), "the inside of 'first': at='inside' is neither 'input' nor 'output'"),
        (Site("first", call=-1), "the output of 'first': width=0 and call=-1 count from 0"),
        (Site("first", width=-2), "the output of 'first': width=-2 and call=None count from 0"),
        (Site("first", width=6), "the output of 'first': its width is 5, not 6 as declared or seen before"),
    ],
)  # fmt: skip
def test_a_wrong_site_is_named_with_the_remedy(net, x, site, message, hooks):
    with pytest.raises(SiteError) as error:
        capture(net, {"last": Site("last"), site.path: site}, lambda: net(x))
    assert str(error.value) == message
    with pytest.raises(SiteError) as error, patch(net, {"last": scale(1.0), site: scale(1.0)}):
        net(x)
    assert str(error.value) == message
    assert hooks(net) == 0


@pytest.mark.parametrize("stop", [ValueError, KeyboardInterrupt, SystemExit])
def test_hooks_are_gone_however_the_forward_ends(net, x, stop, hooks):
    def fail(*_):
        raise stop("here")

    with pytest.raises(stop):
        capture(net, {"h": Site("first"), "i": Site("last", "input")}, fail)
    assert hooks(net) == 0
    with pytest.raises(stop), patch(net, {"first": scale(1.0), Site("last", "input"): fail}):
        net(x)
    assert hooks(net) == 0
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("error", [None, ValueError, KeyboardInterrupt])
def test_training_flags_come_back_to_each_submodule(error):
    net = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Sequential(nn.Dropout(0.5)))
    net.train()
    net[0].eval()
    before = [part.training for part in net.modules()]
    x = torch.randn(4, 3)
    mean = net[0].running_mean.clone()
    try:
        with evaluating(net):
            assert not any(part.training for part in net.modules())
            assert torch.equal(net(x), net(x))
            if error is not None:
                raise error
    except (ValueError, KeyboardInterrupt):
        pass
    assert [part.training for part in net.modules()] == before == [True, False, True, True, True]
    assert torch.equal(net[0].running_mean, mean)

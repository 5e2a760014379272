"""A user's own module as a model: batches, rows, patches and padding, against forwards by hand."""

from __future__ import annotations

import polars as pl
import pytest
import torch
from torch import nn

from elute.base.contracts import Site
from elute.base.errors import ConfigError, SiteError
from elute.base.plugins import load, names
from elute.models.edits import add, scale
from elute.models.module import TorchModel
from elute.models.rows import same_bits


class Text(nn.Module):
    """Embeds tokens, mixes and scores them; drops out and normalises, so that its mode matters."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.drop = nn.Dropout(0.5)
        self.norm = nn.BatchNorm1d(4)
        self.score = nn.Linear(4, 2)

    def forward(self, ids, mask=None):
        h = self.drop(self.embed(ids))
        h = self.norm(h.transpose(1, 2)).transpose(1, 2)
        return {"logits": self.score(h), "mask": mask}


IDS = torch.tensor([[1, 2, 0], [3, 4, 5]])
MASK = torch.tensor([[1, 1, 0], [1, 1, 1]])
BATCH = {"ids": IDS, "mask": MASK}
KEPT = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]


@pytest.fixture
def text():
    torch.manual_seed(1)
    module = Text()
    module.norm.running_mean.uniform_(-1, 1)
    return module.train()


@pytest.fixture
def model(text):
    return TorchModel(text, {"embed": "embed", "score": Site("score", width=2)}, keep="mask")


def test_it_is_behind_the_door():
    assert "module" in names("models")
    assert load("models", "module") is TorchModel
    model = load("models", "module")(module=nn.Linear(2, 2), sites={"out": ""})
    assert model.name == "Linear"


# running


def test_every_forward_is_in_evaluation_mode_and_leaves_the_flags(model, text):
    text.norm.eval()
    flags = [part.training for part in text.modules()]
    mean = text.norm.running_mean.clone()
    first, second = model(BATCH)["logits"], model(BATCH)["logits"]
    model.capture(BATCH)
    with model.patch({"embed": scale(2.0)}):
        model(BATCH)
    assert torch.equal(first, second)
    assert torch.equal(text.norm.running_mean, mean)
    assert [part.training for part in text.modules()] == flags == [True, True, True, False, True]


def test_gradients_are_the_callers_choice(model):
    assert model(BATCH)["logits"].requires_grad
    with torch.no_grad():
        assert not model(BATCH)["logits"].requires_grad


def test_the_fused_kernel_setting_comes_back():
    def fail(*_):
        assert not torch.backends.mha.get_fastpath_enabled()
        raise ValueError("mine")

    before = torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ValueError, match="mine"):
        TorchModel(nn.Identity(), {"out": ""}, forward=fail)(torch.ones(1))
    assert torch.backends.mha.get_fastpath_enabled() == before


# capture


def test_rows_are_those_of_a_forward_by_hand(model, text):
    rows = model.capture(BATCH)
    text.eval()
    logits = text(IDS)["logits"]
    assert list(rows) == ["embed", "score"]
    assert torch.equal(rows["embed"], torch.stack([text.embed.weight[IDS[i, j]] for i, j in KEPT]))
    assert torch.equal(rows["score"], torch.stack([logits[i, j] for i, j in KEPT]))
    assert not rows["score"].requires_grad
    assert list(model.capture(BATCH, sites=["score"])) == ["score"]


def test_gradients_from_one_site_to_another(model, text):
    rows = model.capture(BATCH, grad=True)
    (gradient,) = torch.autograd.grad(rows["score"][:, 1].sum(), rows["embed"])
    slope = text.score.weight[1] * text.norm.weight / torch.sqrt(text.norm.running_var + text.norm.eps)
    assert torch.allclose(gradient, slope.expand(5, 4))


def test_the_width_is_learnt_then_held(model, text):
    assert model.sites["embed"].width == 0
    before = model.fingerprint()
    model.capture(BATCH)
    assert model.sites == {"embed": Site("embed", width=4), "score": Site("score", width=2)}
    assert model.fingerprint() == before
    text.embed = nn.Embedding(7, 5)
    with pytest.raises(SiteError, match="the output of 'embed': its width is 5, not 4 as declared or seen before"):
        model.capture(BATCH, ["embed"])


def test_a_patch_learns_the_width_too(model):
    with model.patch({"embed": scale(1.0)}):
        model(BATCH)
    assert model.sites["embed"].width == 4


def test_sites_with_other_numbers_of_rows_are_captured_apart():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.each, self.all = nn.Identity(), nn.Identity()

        def forward(self, x):
            return self.all(self.each(x).mean(1))

    model = TorchModel(Pool(), {"each": "each", "all": "all"})
    with pytest.raises(SiteError) as error:
        model.capture(torch.randn(2, 3, 4))
    assert str(error.value) == (
        "Pool: sites give different numbers of rows: 'each' 6, 'all' 2. "
        "Capture them apart: one row of metadata must stand for one row of each."
    )
    assert model.capture(torch.randn(2, 3, 4), ["all"])["all"].shape == (2, 4)


# patch


def test_without_a_change_the_forward_is_the_same_to_the_bit():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = TorchModel(
        nn.TransformerEncoder(layer, 2),
        {"mlp": "layers.0.linear2", "out": "layers.1"},
        keep=lambda batch: ~batch["src_key_padding_mask"],
    )
    batch = {"src": torch.randn(2, 3, 8), "src_key_padding_mask": MASK == 0}
    with torch.no_grad():
        plain = model(batch)
        with model.patch({"mlp": lambda x, _: x, "out": lambda x, _: x}):
            assert same_bits(model(batch), plain)
        assert model.capture(batch)["out"].shape == (5, 8)


def test_padding_follows_each_batch_and_nested_patches_compose(model, text):
    other = {"ids": IDS, "mask": torch.tensor([[1, 0, 0], [0, 0, 0]])}
    plain = model.capture(BATCH)["embed"]
    with model.patch({"embed": add(1.0)}), model.patch({"embed": scale(2.0)}):
        assert torch.equal(model.capture(BATCH)["embed"], (plain + 1) * 2)
        assert torch.equal(model.capture(other)["embed"], (plain[:1] + 1) * 2)
        kept = model(other)["logits"]
    text.eval()
    assert torch.equal(kept[1], text(IDS)["logits"][1])
    assert not torch.equal(kept[0, 0], text(IDS)["logits"][0, 0])
    assert torch.equal(model.capture(BATCH)["embed"], plain)


def test_rows_are_chosen_by_metadata(model):
    metadata = pl.DataFrame({"token": ["a", "b", "a", "b", "b"]})
    plain = model.capture(BATCH)["embed"]
    with model.patch({"embed": scale(0.0, rows=lambda m: m["token"].is_in(["a"]))}, metadata=metadata):
        rows = model.capture(BATCH)["embed"]
    assert rows[[0, 2]].abs().sum() == 0
    assert torch.equal(rows[[1, 3, 4]], plain[[1, 3, 4]])
    with pytest.raises(SiteError, match="it gives 5 rows but the metadata has 3"):
        with_metadata(model, metadata[:3])


def with_metadata(model, metadata, **more):
    with model.patch({"embed": scale(0.0)}, metadata=metadata, **more):
        return model(BATCH)


def test_the_padding_of_a_given_batch_holds(model):
    narrow = {"ids": IDS, "mask": torch.tensor([[1, 0, 0], [0, 0, 0]])}
    seen = []
    with model.patch({"embed": lambda x, _: seen.append(len(x)) or x}, batch=narrow):
        model(BATCH)
    assert seen == [1]


def test_the_module_itself_is_not_run_while_its_model_is_patched(model, text, hooks):
    with pytest.raises(SiteError, match=r"it ran outside of a forward of what is patched\. Call the patched model"):
        with_module(model, text)
    assert hooks(text) == 0
    assert model(BATCH)["logits"].shape == (2, 3, 2)


def with_module(model, text):
    with model.patch({"embed": scale(1.0)}):
        text(IDS)


def test_a_forward_of_several_runs_counts_them_together():
    torch.manual_seed(0)
    layer = nn.Linear(3, 3)
    model = TorchModel(
        layer, {"left": Site("", call=0), "right": Site("", call=1)}, forward=lambda m, batch: m(batch[0]) - m(batch[1])
    )
    pair = (torch.randn(2, 3), torch.randn(2, 3))
    rows = model.capture(pair)
    left = layer(pair[0])
    assert torch.equal(rows["right"], layer(pair[1]))
    with model.patch({"right": scale(0.0)}):
        for _ in range(2):
            assert torch.equal(model(pair), left)


def test_an_error_leaves_no_hook_and_no_patch(model, text, hooks):
    def fail(*_):
        raise ZeroDivisionError

    plain = model.capture(BATCH)["embed"]
    for use in (lambda: model(BATCH), lambda: model.capture(BATCH)):
        with pytest.raises(ZeroDivisionError), model.patch({"embed": fail}):
            use()
        assert hooks(text) == 0
    assert text.training
    assert torch.equal(model.capture(BATCH)["embed"], plain)


# construction


@pytest.mark.parametrize(
    ("error", "message", "settings"),
    [
        (SiteError, "site 'h', the output of 'emebd': Text has no submodule 'emebd'. Did you mean 'embed'?",
         {"sites": {"h": "emebd"}}),
        (SiteError, ("site 'h', the output of 'embed.output': Text has no submodule 'embed.output'. "
         "For the output of 'embed', write Site('embed', 'output')."), {"sites": {"h": "embed.output"}}),
        (ConfigError, 'no site is named. Name one, as in {"hidden": "encoder.3"}.', {"sites": {}}),
        (ConfigError, "a dict is not a torch module. Pass an nn.Module.", {"module": {}}),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_when_it_is_made(error, message, settings):
    with pytest.raises(error) as raised:
        TorchModel(**{"module": Text(), "sites": {"h": "embed"}, **settings})
    assert str(raised.value) == message


def test_a_misspelt_site_names_its_neighbours(model):
    message = "Text: there is no site 'embd'. Did you mean 'embed'?"
    for use in (
        lambda: model.capture(BATCH, ["embd"]),
        lambda: model.patch({"embd": scale(1.0)}).__enter__(),
    ):
        with pytest.raises(SiteError) as error:
            use()
        assert str(error.value) == message
    with pytest.raises(ConfigError, match=r"sites='embed' is one text\. Write a list: \['embed'\]"):
        model.capture(BATCH, "embed")


def test_the_fingerprint_is_read_anew_each_time(model, text):
    before = model.fingerprint()
    assert model.fingerprint() == before
    text.embed.weight.data[3, 1] += 1
    after = model.fingerprint()
    assert after.weights != before.weights
    assert (after.name, after.config, after.sites) == (before.name, before.config, before.sites)
    assert TorchModel(text, {"e": "embed"}, name="mine", config={"a": 1}).fingerprint().name == "mine"

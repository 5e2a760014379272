"""What cannot be attributed is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.graphs.conftest import crosslayer, drawn, transcoders
from tests.graphs.planted import WIDTH, Planted, plant

from elute.base.errors import ConfigError, DataError, EluteError, GuardError, SiteError
from elute.dictionaries.spec import DictionarySpec
from elute.graphs import attribution
from elute.graphs.attribution import attribute
from elute.graphs.downstream import onto
from elute.graphs.interventions import change_of, check_edges
from elute.graphs.layers import Layers
from elute.graphs.outputs import Outputs
from elute.graphs.replacement import Replacement

TOKENS = torch.tensor([[0, 3, 5]])
READ = Outputs(lambda out: out[0, -1])


def of(known: Planted, coders: Any = None, **settings: Any) -> Replacement:
    given = {"outputs": READ, "tokens": "embedding", **settings}
    return Replacement.of(known.model, TOKENS, known.transcoders if coders is None else coders, **given)


def sae(_: Planted) -> Any:
    return [drawn(DictionarySpec(kind="sae", reads={"a": 4}, writes={"a": 4}, n_features=8, k=2))] * 3


def circular(known: Planted) -> Any:
    return crosslayer(Layers.of(known.model.sites), WIDTH, skip=True)


CASES: dict[str, tuple[Callable[[Planted], Any], type[EluteError], str]] = {
    "no such token site": (lambda k: of(k, tokens="embeding"), SiteError, "there is no site 'embeding'.*embedding"),
    "no such layer": (
        lambda k: of(k, layers=Layers(("blocks.9.hook_mlp_in",), ("blocks.0.hook_mlp_out",))),
        SiteError,
        "there is no site 'blocks.9.hook_mlp_in'",
    ),
    "another width": (
        lambda k: of(k, transcoders(Layers.of(k.model.sites), 5)),
        GuardError,
        f"the model gives {WIDTH} columns and the dictionary has 5",
    ),
    "too few": (lambda k: of(k, k.transcoders[:2]), ConfigError, "stand for 2 layers, and 3 are named"),
    "in another order": (
        lambda k: of(k, k.transcoders[::-1]),
        GuardError,
        "the dictionary reads 'blocks.2.hook_mlp_in'",
    ),
    "an autoencoder": (lambda k: of(k, sae(k)), ConfigError, "a sae cannot stand for the MLP"),
    "one transcoder": (lambda k: of(k, k.transcoders[0]), ConfigError, "a transcoder cannot stand for"),
    "a skip back": (lambda k: of(k, circular(k)), ConfigError, "so that effects go in circles"),
    "no vector": (lambda k: of(k, outputs=Outputs(lambda out: out)), DataError, r"what is read is \[1, 3, 4\]"),
    "no tensor": (lambda k: of(k, outputs=Outputs(lambda _: 3)), DataError, "what is read is a int"),
    "no number": (
        lambda k: of(k, outputs=Outputs(lambda out: out[0, -1] * float("nan"))),
        DataError,
        "NaN or infinity",
    ),
    "no such output": (
        lambda k: of(k, outputs=Outputs(READ.read, weights={9: 1.0})),
        DataError,
        "there is no number 9 among the 4",
    ),
    "no weight": (lambda _: Outputs(READ.read, weights={1: -1.0}), ConfigError, "weights must be numbers above 0"),
    "a constant": (
        lambda k: of(k, outputs=Outputs(lambda _: torch.arange(4.0, dtype=torch.float64))),
        DataError,
        "nothing that is explained depends on the layers",
    ),
    "after a softmax": (
        lambda k: of(k, outputs=Outputs(lambda out: torch.ones(2, dtype=torch.float64) + 0 * out[0, -1, :2].detach())),
        DataError,
        "before any softmax",
    ),
    "twice": (lambda _: Layers(("a",), ("a",)), ConfigError, "'a' is named twice"),
    "no pairs": (lambda _: Layers(("a",), ()), ConfigError, "1 sites are read and 0 written"),
    "no names": (lambda k: Layers.of({"embedding": k.model.sites["embedding"]}), SiteError, "no MLP is known by"),
}


@pytest.mark.parametrize("name", CASES)
def test_refused_in_one_line(known: Planted, name: str) -> None:
    run, kind, line = CASES[name]
    with pytest.raises(kind, match=line) as told:
        run(known)
    assert "\n" not in str(told.value)


def test_an_activation_that_is_no_number_is_refused() -> None:
    known = plant(5)
    known.model.module.blocks[1].mlp[2].bias[3] = float("inf")
    with pytest.raises(DataError, match=r"site 'blocks.1.hook_mlp_out': row 0 holds NaN or infinity|read holds NaN"):
        of(known)
    known.model.module.blocks[1].mlp[2].bias[3] = 0
    known.model.module.embed.weight[3, 0] = float("nan")
    with pytest.raises(DataError, match="NaN or infinity"):
        of(known)


def test_a_model_that_does_not_repeat_itself_is_refused() -> None:
    known = plant(6)
    known.model.module.head.register_forward_hook(lambda _, __, out: out + torch.randn_like(out))
    with pytest.raises(DataError, match="the model does not repeat itself"):
        of(known)


def test_graphs_and_nodes_that_do_not_fit(known: Planted, monkeypatch: pytest.MonkeyPatch) -> None:
    replacement = of(known)
    graph = attribute(replacement)
    with pytest.raises(DataError, match="there is no node '9_9_9'"):
        graph.numbers(["9_9_9"])
    with pytest.raises(ConfigError, match="is an output, which causes nothing"):
        change_of(replacement, graph, len(graph) - 1)
    with pytest.raises(ConfigError, match="factor=1 changes nothing"):
        check_edges(replacement, graph, factor=1.0)
    longer = Replacement.of(
        known.model, torch.tensor([[0, 3, 5, 1]]), known.transcoders, outputs=READ, tokens="embedding"
    )
    with pytest.raises(GuardError, match="the graph is of 3 layers and 3 positions"):
        check_edges(longer, graph)
    with pytest.raises(ConfigError, match="prompt has 1 entries for 3 positions"):
        attribute(replacement, prompt=["a"])
    with pytest.raises(ConfigError, match="max_features=0"):
        attribute(replacement, max_features=0)
    with pytest.raises(SiteError, match="what an MLP writes are features and an error"):
        onto(replacement, graph, "blocks.1.hook_mlp_out")
    with pytest.raises(ConfigError, match=f"{WIDTH} columns are not 7 heads"):
        onto(replacement, graph, "blocks.1.hook_mlp_in", heads=7)
    monkeypatch.setattr(attribution, "_NUMBERS", 100)
    with pytest.raises(ConfigError, match="more effects than can be held"):
        attribute(replacement)


def test_a_sample_in_which_nothing_fires_is_a_graph_of_errors(known: Planted) -> None:
    silent = [drawn(one.spec) for one in known.transcoders]
    for one in silent:
        (bank,) = one
        bank.b_enc.data.fill_(-1e6)
    graph = attribute(of(known, silent))
    assert not graph.of("feature").any()
    assert graph.scores().replacement < 0.5
    assert check_edges(of(known, silent), graph)["difference"].max() < 1e-6
    graph.kept(graph.prune())

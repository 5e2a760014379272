"""Paths are predicted as loops over rows would, measured as cutting them by hand would, and done once."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from tests.routing.trained import (  # noqa: F401
    CLT,
    MLP,
    SMALL,
    STEPS,
    own_trained,
    subject_of,
    trained_model,
    trained_reference,
    trained_run,
)

from elute.base.errors import ConfigError
from elute.dictionaries.files import load_dictionary
from elute.engine.fit import FitConfig
from elute.engine.settings import DictionaryConfig, LearnConfig
from elute.engine.train import Training, train
from elute.models.routing_policy import RoutingModel
from elute.routing import linear_map
from elute.routing.attributing import clean
from elute.routing.cause_settings import PathsConfig
from elute.routing.measuring import Reference, effect
from elute.routing.pairs import open_pair
from elute.routing.path_effects import measured, paths_run, show
from elute.routing.paths import Chain, Seen, by_weights, candidates, chain, drawn, encoder_rows, predictions, see, whole

pytestmark = pytest.mark.usefixtures("one_thread")
READ, WRITE = "source_encoder_layer_1.mlp.input", "target_encoder_layer_1.mlp"
FEW = PathsConfig(strongest=4, drawn=4, whole=6, sae_expansion=2, sae_k=3, sae_steps=60)
JUDGED = SMALL.model_copy(update={"instances": 12})


@cache
def saes(run: Path, place: Path) -> tuple[Path, Path]:
    folders = []
    for site in (READ, WRITE):
        training = Training(
            dictionary=DictionaryConfig(reads=(site,), n_features=20, k=3),
            learn=LearnConfig(normalise="standard", device="cpu"), fit=FitConfig(steps=80, batch_size=128),
        )  # fmt: skip
        train(open_pair(run, MLP).folder, place / site, training)
        folders.append(place / site)
    return folders[0], folders[1]


_place: list[Path] = []


@pytest.fixture
def links(trained: Path, model: RoutingModel, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    if not _place:
        _place.append(tmp_path_factory.mktemp("saes"))
    one, two = (load_dictionary(path) for path in saes(trained, _place[0]))
    subject = subject_of(trained, model, MLP)
    linear = linear_map.fit(subject.rows.store, subject.dictionary.spec)
    return chain(subject, one, two, read=None, write=None, linear=linear)


@pytest.fixture
def seen(links: Chain, ref: Reference) -> list[Seen]:
    return [see(links, clean(links.subject, ref))]


def by_hand(links: Chain, part: Seen, path: tuple[int, int, int]) -> float:
    s, c, t = path
    D_s, D_c, D_t = links.source.directions()[s], links.subject.dictionary.directions()[c], links.target.directions()[t]
    (bank,), (last,) = links.subject.dictionary, links.target
    one, two = float(D_s @ bank.W_enc[c]), float(D_c @ last.W_enc[t])
    total = 0.0
    for row in range(len(part.s)):
        if part.c[row, c] != 0 and part.t[row, t] != 0:
            total += float(part.s[row, s]) * one * two * float(part.slope[row] @ D_t.double())
    return total / len(part.clean.reference.instances)


def test_predictions_are_loops_over_rows(links: Chain, seen: list[Seen]) -> None:
    paths = drawn(seen, count=6, seed=0)
    assert len(paths) == 6
    found = predictions(links, seen, paths)
    for path, value in zip(paths.tolist(), found, strict=True):
        assert value == pytest.approx(by_hand(links, seen[0], tuple(path)), rel=1e-4, abs=1e-9)


def test_drawn_paths_fire_together(links: Chain, seen: list[Seen]) -> None:
    for s, c, t in drawn(seen, count=10, seed=1).tolist():
        part = seen[0]
        assert bool(((part.s[:, s] != 0) & (part.c[:, c] != 0) & (part.t[:, t] != 0)).any())


def test_the_paths_of_a_feature_add_up_to_its_whole(links: Chain, seen: list[Seen]) -> None:
    feature = int((seen[0].s != 0).sum(0).argmax())
    every = np.array([(feature, c, t) for c in range(24) for t in range(20)])
    assert predictions(links, seen, every).sum() == pytest.approx(whole(links, seen)["paths"][feature], rel=1e-6)


def test_whole_by_the_other_ways(links: Chain, seen: list[Seen]) -> None:
    part, feature = seen[0], 4
    count = len(part.clean.reference.instances)
    D = links.source.directions()[feature].double()
    found = whole(links, seen)
    gradient = float((part.s[:, feature] * (part.slope_source @ D)).sum()) / count
    assert found["gradient"][feature] == pytest.approx(gradient, rel=1e-6)
    carried = (D @ links.linear.weight.double()) @ part.slope.T
    assert found["linear map"][feature] == pytest.approx(float((part.s[:, feature] * carried).sum()) / count, rel=1e-6)


def test_weights_alone_are_right_where_firing_is_independent(links: Chain, seen: list[Seen]) -> None:
    """With every gate open in every row, the prediction is that of the means' product up to their covariance."""
    first, then, often = by_weights(links, seen)
    part = seen[0]
    s, c, t = drawn(seen, count=1, seed=3)[0].tolist()
    one, other = links.weights()
    both = (part.c[:, c] != 0).double()
    assert float(often[c]) == pytest.approx(float(both.mean()))
    assert float(first[s, c]) == pytest.approx(float((part.s[:, s] * both).mean() * one[s, c]), rel=1e-6)
    slope = (part.slope @ links.target.directions()[t].double()) * (part.t[:, t] != 0)
    assert float(then[c, t]) == pytest.approx(float((slope * both).mean() * other[c, t]), rel=1e-6)


def test_the_strongest_paths_are_those_of_all(links: Chain, seen: list[Seen]) -> None:
    first, then, often = by_weights(links, seen)
    with np.errstate(divide="ignore", invalid="ignore"):
        every = np.nan_to_num((first[:, :, None] * then[None] / often[None, :, None]).numpy())
    paths, values = candidates(first, then, often, most=5)
    order = np.argsort(-np.abs(every).ravel())[:5]
    assert np.allclose(np.abs(values), np.abs(every).ravel()[order])
    assert all(every[tuple(path)] == pytest.approx(value) for path, value in zip(paths, values, strict=True))


def test_a_path_is_cut_as_by_hand(links: Chain, seen: list[Seen], model: RoutingModel, ref: Reference) -> None:
    s, c, t = drawn(seen, count=1, seed=5)[0].tolist()
    part = seen[0]
    x = part.x - part.s[:, s, None].float() * links.source.directions()[s]
    dictionary = links.subject.dictionary
    change = dictionary.encode(x).dense()[:, c] - dictionary.encode(part.x).dense()[:, c]
    y = part.y + change[:, None] * dictionary.directions()[c]
    change = links.target.encode(y).dense()[:, t] - links.target.encode(part.y).dense()[:, t]
    step = change[:, None] * links.target.directions()[t]
    expected = effect(model, ref, {"encoder_layer_1.mlp": lambda rows, _: rows + step}, tours=False).margin
    mean, error = measured(links, seen, (s, c, t))
    assert mean == pytest.approx(-float(expected.mean()), rel=1e-3, abs=1e-7)
    assert error == pytest.approx(float(expected.std() / len(expected) ** 0.5), rel=1e-3, abs=1e-7)


def test_encoder_rows_of_one_layer_of_several(trained: Path, model: RoutingModel) -> None:
    dictionary = subject_of(trained, model, CLT).dictionary
    found = encoder_rows(dictionary, "source_encoder_layer_1.mlp.input")
    banks = list(dictionary)
    assert found.shape == (72, 16)
    assert torch.equal(found[24:48], banks[1].W_enc.double())
    assert float(found[:24].abs().max()) == float(found[48:].abs().max()) == 0


def test_the_whole_is_done_once(own: Path) -> None:
    first = paths_run(own, MLP, JUDGED, config=FEW)
    output = own / "clt" / "paths" / MLP
    before = {p.name: p.read_bytes() for p in output.iterdir() if p.name != ".lock"}
    assert paths_run(own, MLP, JUDGED, config=FEW).summary["reused"]
    (output / "run.json").unlink()
    paths_run(own, MLP, JUDGED, config=FEW)
    assert {p.name: p.read_bytes() for p in output.iterdir() if p.name != ".lock"} == before
    table = pl.read_parquet(output / "paths.parquet")
    told = first.summary["paths"]["all"]["with_gates"]["rho"]
    assert told == pytest.approx(stats.spearmanr(table["with_gates"], table["measured"]).statistic, abs=1e-5)
    wholes = pl.read_parquet(output / "whole.parquet")
    assert wholes["feature"].n_unique() == len(wholes) == FEW.whole
    assert "gradient" in show({**first.summary, "path": "x"})
    assert (own / "clt" / "saes" / MLP / READ / "sae_final.pt").is_file()
    assert "<script" not in (output / "index.html").read_text()


def test_a_cross_layer_dictionary_is_followed_from_one_layer_to_a_later_one(own: Path) -> None:
    config = FEW.model_copy(update={"read": "encoder_layer_0.mlp.input", "write": "encoder_layer_2.mlp"})
    told = paths_run(own, CLT, JUDGED, config=config).summary
    assert (told["read"], told["write"]) == ("encoder_layer_0.mlp.input", "encoder_layer_2.mlp")


def test_what_does_not_fit_is_refused(trained: Path, model: RoutingModel, links: Chain) -> None:
    linear = {WRITE: links.linear}
    with pytest.raises(ConfigError, match="paths are followed from node to node"):
        chain(subject_of(trained, model, STEPS), links.source, links.target, read=None, write=None, linear=linear)
    with pytest.raises(ConfigError, match="is not an autoencoder of 'source_encoder_layer_1.mlp.input'"):
        chain(links.subject, links.target, links.target, read=None, write=None, linear=linear)
    with pytest.raises(ConfigError, match="the dictionary has no site 'encoder_layer_7'"):
        chain(links.subject, links.source, links.target, read="encoder_layer_7", write=None, linear=linear)

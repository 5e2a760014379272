"""Relevance from genes to codes: closed form, conservation, conditions, streams in parts, and what is refused."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elute.analysis import relevance_stream
from elute.analysis.relevance import Relevance, RelevancePass, crp_relmax, explanations
from elute.analysis.relevance_explain import embedding_relevance
from elute.analysis.relevance_head import LATENT, POOL, Encoder, Explained
from elute.analysis.relevance_rules import Rule, Rules
from elute.analysis.relevance_stream import StoredTokens, whole_samples
from elute.analysis.relevance_totals import like_codes
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError, EluteError, GuardError
from elute.heads.regression import fit_head

K, GENES = 24, ("EPCAM", "VIM", "PTPRC")
Batch = tuple[Codes, pl.DataFrame]


def tokens(seed: int = 0, samples: int = 7, *, most: int = 6, cut: int | None = None) -> list[Batch]:
    """Samples of 1 to `most` tokens with codes of either sign, cut into batches wherever `cut` falls."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, most + 1, samples)
    n = int(lengths.sum())
    dense = rng.normal(size=(n, K)) * (rng.random((n, K)) < 0.25)
    codes = Codes.from_dense(torch.from_numpy(dense), 12, by="magnitude")
    of = np.repeat(np.arange(samples), lengths)
    place = np.concatenate([np.arange(length) for length in lengths])
    weights = rng.random(n)
    frame = pl.DataFrame(
        {
            "sample_id": [f"s{i:02d}" for i in of],
            "tile_id": [f"t{i // 3}" for i in place],
            "token_rc": pl.Series([[int(i) // 2, int(i) % 2] for i in place % 3], dtype=pl.Array(pl.Int32, 2)),
            "attention": weights / np.bincount(of, weights=weights)[of],
        }
    )
    step = cut or n
    return [(codes[a : a + step], frame[a : a + step]) for a in range(0, n, step)]


def linear(pool: str = "mean", seed: int = 1) -> Explained:
    rng = np.random.default_rng(seed)
    return Explained.of([(rng.normal(size=(3, K)), rng.normal(size=3))], genes=GENES, pool=pool)


def perceptron(pool: str = "mean", seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(K, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 6), nn.ReLU(), nn.Linear(6, 3))


def by_hand(head: Explained, batches: list[Batch], gene: int) -> tuple[dict[tuple[str, int], float], dict[str, float]]:
    """Relevance of each sample and code, and what is explained, token by token in plain loops."""
    w, b = head.layers[0].weight[gene], head.layers[0].bias[gene]
    rows: dict[str, list[tuple[dict[int, float], float]]] = {}
    for codes, frame in batches:
        for i, row in enumerate(frame.iter_rows(named=True)):
            fired = {int(c): float(v) for c, v in zip(codes.indices[i], codes.values[i], strict=True) if v != 0}
            rows.setdefault(row["sample_id"], []).append((fired, row["attention"]))
    found: dict[tuple[str, int], float] = {}
    for name, here in rows.items():
        for code in {c for fired, _ in here for c in fired}:
            values = [fired.get(code, 0.0) for fired, _ in here]
            pooled = {
                "mean": sum(values) / len(values),
                "max": max(values),
                "attention": sum(v * a for v, (_, a) in zip(values, here, strict=True)),
            }[head.pool]
            found[name, code] = w[code] * pooled
    return found, {name: b + sum(r for (s, _), r in found.items() if s == name) for name in rows}


@pytest.mark.parametrize("pool", ["mean", "max", "attention"])
@pytest.mark.parametrize("cut", [None, 1, 3])
def test_a_linear_head_gives_weight_times_code(pool: str, cut: int | None) -> None:
    head, batches = linear(pool), tokens(cut=cut)
    expected, output = by_hand(head, batches, 1)
    found = crp_relmax(head, batches, {"y": "VIM"}, per_sample=None)
    assert found.samples is not None
    table = {(s, c): r for s, c, r in found.samples.table().iter_rows()}
    told = {pair: r for pair, r in expected.items() if r}
    assert set(table) == set(told)
    assert list(table.values()) == pytest.approx([told[pair] for pair in table], rel=1e-6)
    assert found.samples.output.tolist() == pytest.approx([output[s] for s in found.samples.sample_ids])
    sums = {code: sum(r for (_, c), r in expected.items() if c == code) for code in range(K)}
    assert found.codes["relevance"].to_list() == pytest.approx(list(sums.values()), rel=1e-6, abs=1e-12)
    assert found.codes["share"].sum() == pytest.approx(1)
    assert found.conservation["worst_relative"] < 1e-10
    assert found.conservation["n"] == 7


@pytest.mark.parametrize("rule", ["epsilon", "gamma", "zplus", Rule("epsilon", 0.25), Rules(pool=0.1)])
@pytest.mark.parametrize("pool", ["mean", "max", "attention"])
def test_what_is_explained_is_what_arrives_and_what_was_kept(rule: Any, pool: str) -> None:
    head = Explained.of(perceptron(), genes=GENES, pool=pool)
    conditions = {"y": ["VIM", "PTPRC"], "model.head.0": [0, 2, 3, 4, 7], LATENT: list(range(9))}
    for found in explanations(head, tokens(cut=5), conditions, rule=rule):
        arrived = np.asarray(found.token_codes().sum(1)).reshape(-1)
        arrived = np.bincount(found.tokens.sample, weights=arrived)
        total = arrived + found.bias + found.epsilon + found.masked
        np.testing.assert_allclose(total, found.output, rtol=1e-8)
        assert np.abs(found.masked).max() > 0
        own = head.eta(found.pairs.matrix().toarray(), np.array([1, 2])).sum(1)
        np.testing.assert_allclose(found.output, own, rtol=1e-6)
    worst = crp_relmax(head, tokens(), {"y": "VIM"}, rule=rule).conservation
    assert worst["worst_relative"] < 1e-4
    assert worst["epsilon_share"] > 1e-3 or rule in ("epsilon", "gamma", "zplus")


@settings(max_examples=8, deadline=None)
@given(st.sets(st.integers(0, K - 1), min_size=2, max_size=8), st.integers(0, 99))
def test_conditions_on_codes_add(chosen: set[int], seed: int) -> None:
    head = Explained.of(perceptron(seed=seed), genes=GENES)
    one, rest = min(chosen), sorted(chosen)[1:]

    def relevance(codes: list[int]) -> np.ndarray:
        return crp_relmax(head, tokens(seed), {"y": 0, LATENT: codes}, per_sample=0).codes["relevance"].to_numpy()

    np.testing.assert_allclose(relevance([one]) + relevance(rest), relevance(sorted(chosen)), rtol=1e-9, atol=1e-12)


def test_genes_within_a_condition_add_and_layers_intersect() -> None:
    head = Explained.of(perceptron(), genes=GENES)

    def of(conditions: dict[str, Any]) -> np.ndarray:
        return crp_relmax(head, tokens(), conditions, per_sample=0).codes["relevance"].to_numpy()

    np.testing.assert_allclose(of({"y": ["EPCAM"]}) + of({"y": 1}), of({"y": ["VIM", "EPCAM"]}), rtol=1e-9, atol=1e-12)
    units = [of({"y": 0, "model.head.0": [j]}) for j in range(10)]
    np.testing.assert_allclose(sum(units), of({"y": 0}), rtol=1e-6, atol=1e-9)
    both = of({"y": 0, "model.head.0": [2, 3], LATENT: [1, 2, 3]})
    np.testing.assert_allclose(both[[1, 2, 3]], (units[2] + units[3])[[1, 2, 3]], rtol=1e-6, atol=1e-9)
    assert not both[4:].any()
    assert np.array_equal(of({"y": 0, POOL: [4, 5]}), of({"y": 0, LATENT: [4, 5]}))


def test_a_fitted_head_of_counts_is_explained_before_the_exponential() -> None:
    rng = np.random.default_rng(3)
    x = np.abs(rng.normal(size=(80, 8))) * (rng.random((80, 8)) < 0.6)
    offset = rng.normal(size=80) * 0.5
    y = rng.poisson(np.exp(offset[:, None] + 0.5 * x[:, :2] + 0.3))
    fitted = fit_head(x, y, loss="poisson", model="ridge", penalty=0.1, offset=offset)
    found = crp_relmax(Explained.of(fitted, genes=["A", "B"], pool="none"), x, {"y": "A"}, per_sample=None)
    assert found.samples is not None
    np.testing.assert_allclose(found.samples.output, fitted.eta(x)[:, 0], rtol=1e-9)
    dense = found.samples.codes.dense().numpy()
    np.testing.assert_allclose(dense.sum(1), np.log(fitted.mean(x)[:, 0]) - fitted.bias[0], rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(dense, x * fitted.weights[0], rtol=1e-6, atol=1e-9)


def test_codes_hand_relevance_to_embeddings() -> None:
    rng = np.random.default_rng(4)
    encoder = Encoder.topk(rng.normal(size=(K, 10)), rng.normal(size=K), k=5, centre=rng.normal(size=10), signed=True)
    head = Explained.of([(rng.normal(size=(3, K)), rng.normal(size=3))], pool="mean", encoder=encoder)
    x = rng.normal(size=(4, 6, 10))
    (found,) = explanations(head, x, {"y": 0})
    heat = embedding_relevance(head, found, Rules())
    z, u = found.tokens.codes.dense().numpy(), (x.reshape(-1, 10) - encoder.centre) @ encoder.weight.T + encoder.bias
    np.testing.assert_allclose(z[z != 0], u[z != 0], rtol=1e-12)
    slope = head.layers[0].weight[0] / 6 * (z != 0)
    np.testing.assert_allclose(heat, (x.reshape(-1, 10) - encoder.centre) * (slope @ encoder.weight), rtol=1e-6)
    raw = encoder.behind(scale := rng.random(10) + 0.5, shift := rng.normal(size=10))
    before = (x.reshape(-1, 10) - shift) / scale
    np.testing.assert_allclose(before @ raw.weight.T + raw.bias, u, rtol=1e-9, atol=1e-9)
    other = Explained.of(
        head.layers and [head.layers[0]], pool="mean", encoder=Encoder.topk(encoder.weight, encoder.bias + 1, k=5)
    )
    (wrong,) = explanations(
        other, [(found.tokens.codes, np.repeat(["a", "b"], 12).tolist(), x.reshape(-1, 10))], {"y": 0}
    )
    with pytest.raises(GuardError, match="not what their dictionary gives"):
        embedding_relevance(other, wrong, Rules())


def test_relevance_can_start_at_codes() -> None:
    head = Explained.of(perceptron(), genes=GENES)
    (found,) = explanations(head, tokens(), {LATENT: [3, 4]}, start=LATENT)
    whole = found.token_codes().toarray()
    codes = Codes.concatenate([codes for codes, _ in tokens()]).dense().numpy()
    np.testing.assert_allclose(whole[:, [3, 4]], codes[:, [3, 4]])
    assert not np.delete(whole, [3, 4], axis=1).any()
    (from_hidden,) = explanations(head, tokens(), {"model.head.0": [2]}, start="model.head.0")
    given = head.run(from_hidden.pairs.matrix())[0]
    np.testing.assert_allclose(from_hidden.output, np.maximum(given[:, 2], 0))
    assert list(crp_relmax(head, tokens(), {"model.head.0": [2]}, start="model.head.0").hidden) == ["model.head.0"]


def run(head: Explained, batches: Any, **more: Any) -> RelevancePass:
    made = RelevancePass(head, {"y": 0}, k=3, **more)
    for part in whole_samples(batches, head):
        made.update(part)
    return made


def same(a: Relevance, b: Relevance) -> None:
    assert a.samples is not None
    assert b.samples is not None
    for mine, other in ((a.codes, b.codes), (a.references, b.references), (a.samples.table(), b.samples.table())):
        assert mine.columns == other.columns
        for name in mine.columns:
            if mine[name].dtype.is_float():
                np.testing.assert_allclose(mine[name].to_numpy(), other[name].to_numpy(), rtol=1e-9, atol=1e-12)
            else:
                assert mine[name].to_list() == other[name].to_list()
    assert a.conservation == pytest.approx(b.conservation, abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 20), st.integers(0, 50), st.booleans())
def test_parts_in_any_order_give_the_whole(cut: int, seed: int, module: bool) -> None:
    head = Explained.of(perceptron(), genes=GENES) if module else linear()
    whole = run(head, tokens(seed, 9))
    codes, frame = tokens(seed, 9)[0]
    borders = {0, len(frame), *np.flatnonzero((frame["sample_id"] != frame["sample_id"].shift(1)).to_numpy()).tolist()}
    cuts = sorted(b for b in borders if b in (0, len(frame)) or b % 2)
    parts = [run(head, [(codes[a:b], frame[a:b])]) for a, b in pairwise(cuts)]
    np.random.default_rng(seed).shuffle(parts)
    first, *others = parts
    for part in others:
        first.merge(part)
    back = RelevancePass(head, {"y": 0}, k=3).resume(first.state())
    same(whole.result(), back.result())
    same(whole.result(), run(head, tokens(seed, 9, cut=cut)).result())


@pytest.mark.parametrize("cut", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("least", [1, 4, 9])
def test_a_batch_holds_whole_samples(cut: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relevance_stream, "ROWS", least)
    (whole,) = tokens(3, 20)
    codes, frame = whole
    parts = list(whole_samples(tokens(3, 20, cut=cut)))
    assert [name for part in parts for name in part.samples] == frame["sample_id"].unique(maintain_order=True).to_list()
    assert torch.equal(Codes.concatenate([part.codes for part in parts]).dense(), codes.dense())
    first = 0
    for part in parts:
        rows = frame[first : first + len(part)]
        first += len(part)
        assert rows["sample_id"].to_list() == [part.samples[i] for i in part.sample]
        named = [f"{s}\0{t}" for s, t in rows.select("sample_id", "tile_id").iter_rows()]
        assert named == [part.places[i] for i in part.place]
        assert part.spots.tolist() == rows["token_rc"].to_list()
        assert part.weights is not None
        assert part.weights.tolist() == rows["attention"].to_list()
        assert len(part) <= least + cut + 6
    assert len(parts) > 1 or cut == 100


def test_a_state_survives_json() -> None:
    made = run(linear(), tokens())
    text = json.dumps(made.state(), default=lambda a: a.tolist())
    # JSON has no minus infinity of its own, but Python's reads what it writes
    same(made.result(), RelevancePass(linear(), {"y": 0}, k=3).resume(json.loads(text)).result())


def test_controls_are_other_codes_of_like_activity() -> None:
    strength = np.concatenate([[0.0], np.random.default_rng(0).permutation(np.arange(1, 60)).astype(float)])
    drawn = like_codes(strength, seed=1)
    assert drawn[0] == -1
    live = np.arange(1, 60)
    assert (drawn[live] != live).all()
    assert (np.abs(strength[drawn[live]] - strength[live]) <= 8).all()
    assert not np.array_equal(drawn, like_codes(strength, seed=2))
    assert (like_codes(np.array([0.0, 3.0]), seed=0) == -1).all()
    table = crp_relmax(linear(), tokens(), {"y": 0}, seed=4).codes.drop_nulls("control")
    whole = dict(zip(table["code"], table["relevance"], strict=True))
    assert table["control_relevance"].to_list() == pytest.approx([whole[c] for c in table["control"]])


def test_top_codes_are_found_first_and_their_references_kept() -> None:
    head, batches = linear(), tokens()
    whole = crp_relmax(head, batches, {"y": 0})
    found = crp_relmax(head, batches, {"y": 0}, codes="top4")
    assert found.references["code"].unique().sort().to_list() == sorted(whole.top(4).tolist())
    strongest = whole.codes.sort("mean_absolute", descending=True)["code"][:4].to_list()
    assert whole.top(4).tolist() == strongest
    assert whole.top(2, sign="-").tolist() == whole.codes.sort("relevance")["code"][:2].to_list()
    np.testing.assert_array_equal(
        whole.references_of(strongest).sort("code", maintain_order=True)["score"], found.references["score"]
    )
    with pytest.raises(DataError, match="two passes are needed"):
        crp_relmax(head, iter(batches), {"y": 0}, codes="top4")
    for wrong in ("top", "top0", "best"):
        with pytest.raises(DataError, match="topN as in top20"):
            crp_relmax(head, batches, {"y": 0}, codes=wrong)


@pytest.mark.parametrize(
    ("conditions", "told"),
    [
        ({"y": "EPCAN"}, "the head has no gene 'EPCAN'. Did you mean 'EPCAM'?"),
        ({"y": 3}, "'y' has no unit 3. Choose 0 to 2."),
        ({"y": []}, "names no gene"),
        (
            {"y": 0, "model.sae.latents": [1]},
            "there is no layer 'model.sae.latents' to set a condition on. Did you mean",
        ),
        ({"y": 0, LATENT: [K]}, f"'model.sae.latent' has no unit {K}. Choose 0 to {K - 1}."),
        ({"y": 0, LATENT: [-1]}, "has no unit -1"),
        ({"y": 0, LATENT: [1.5]}, "names 1.5. Give whole numbers."),
        ({"y": 0, LATENT: [True]}, "names True"),
        ({"y": 0, LATENT: []}, "names no unit"),
        ({"y": 0, LATENT: "7"}, "Give a list of whole numbers"),
        ({LATENT: [1]}, "the conditions say nothing of 'y'. Name a gene."),
    ],
)
def test_conditions_that_cannot_be_are_one_line(conditions: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        crp_relmax(linear(), tokens(), conditions)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_explained_is_refused() -> None:
    head, (batch,) = linear(), tokens()
    codes, frame = batch
    cases: list[tuple[Any, Any, type[EluteError], str]] = [
        (head, [(codes, frame.drop("sample_id"))], DataError, "no column 'sample_id'"),
        (head, [(codes, frame[:-1])], DataError, "metadata of"),
        (head, [(codes, frame), (codes, frame)], DataError, "comes again after other samples"),
        (head, [], DataError, "no samples to explain"),
        (head, [3], DataError, "a batch is a int"),
        (head, 3, DataError, "cannot be read from a int"),
        (head, [(Codes(codes.indices, codes.values, K + 1), frame)], GuardError, "but the head reads"),
        (head.with_pool("none"), [batch], DataError, "nothing pools them"),
        (head.with_pool("attention"), [(codes, frame.drop("attention"))], DataError, "no attention weights"),
        (nn.Sequential(nn.Linear(K, 3), nn.GELU(), nn.Linear(3, 3)), [batch], DataError, "GELU at place 1"),
        ("head", [batch], DataError, "a str is no head"),
        ([(np.ones((3, K)), np.ones(2))], [batch], DataError, "must be [out, in] and [out]"),
    ]
    for top, inputs, kind, told in cases:
        with pytest.raises(kind) as caught:
            crp_relmax(top, inputs, {"y": 0})
        assert told in str(caught.value), told
    with pytest.raises(ConfigError, match="there is no rule 'epsilom'. Did you mean 'epsilon'"):
        crp_relmax(head, [batch], {"y": 0}, rule="epsilom")
    with pytest.raises(ConfigError, match="pool='average'"):
        head.with_pool("average")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="'VIM' is named twice"):
        Explained.of(head.layers and [head.layers[0]], genes=["VIM", "VIM", "B"])


def test_a_head_whose_forward_is_another_is_found_out() -> None:
    class Altered(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(K, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.first(x) * 1.01

    with pytest.raises(GuardError, match="is off by .* of what is explained"):
        crp_relmax(Altered(), tokens(), {"y": 0})


def test_a_gene_without_weights_has_no_codes() -> None:
    found = crp_relmax([(np.zeros((1, K)), np.array([2.0]))], tokens(), {"y": 0}, codes="top5")
    assert found.references.is_empty()
    assert found.top(5).size == 0
    assert found.conservation["bias_share"] == pytest.approx(1)


def test_stored_codes_are_read_with_their_metadata(tmp_path: Any) -> None:
    from elute.store.codes import StoredCodes
    from elute.store.codes_writer import CodesWriter
    from elute.store.reader import Store
    from elute.store.writer import StoreWriter

    (codes, frame), head = tokens()[0], linear()
    with StoreWriter(tmp_path / "store", sites={"embedding": 4}, rows_per_shard=5) as writer:
        writer.append({"embedding": torch.zeros(len(frame), 4)}, frame.drop("attention"))
    store = Store(tmp_path / "store")
    with CodesWriter(
        tmp_path / "codes", store=store, dictionary="d", n_features=K, sites=["embedding"], dtype="fp32"
    ) as out:
        for shard in range(out.done, out.shards):
            out.append_shard(codes[store.starts[shard] : store.starts[shard + 1]].to(dtype=torch.float32))
    stored = StoredTokens(StoredCodes(tmp_path / "codes"), store, size=4)
    a, b = crp_relmax(head, stored, {"y": 0}), crp_relmax(head, [(codes, frame)], {"y": 0})
    np.testing.assert_allclose(a.codes["relevance"].to_numpy(), b.codes["relevance"].to_numpy(), rtol=1e-5, atol=1e-7)
    columns = ["code", "kind", "target", "sign", "rank", "sample_id", "tile_id", "row", "col"]
    assert a.references.select(columns).equals(b.references.select(columns))
    some = StoredTokens(StoredCodes(tmp_path / "codes"), store, where=store.select(sample=["s01", "s04"]), size=3)
    mine = frame["sample_id"].is_in(["s01", "s04"]).to_numpy()
    c, d = crp_relmax(head, some, {"y": 0}), crp_relmax(head, [(codes[mine], frame.filter(mine))], {"y": 0})
    assert c.conservation["n"] == 2
    np.testing.assert_allclose(c.codes["relevance"].to_numpy(), d.codes["relevance"].to_numpy(), rtol=1e-5, atol=1e-7)

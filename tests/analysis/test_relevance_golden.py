"""Relevance equals another program's to 1e-5, on every network that a folder of golden data holds.

A file says in its `meta` what it is, so that one that is put beside the others is checked with them. Where the folder is
absent, networks of the same kinds are derived message by message in numpy (relevance_made.py) and checked alike.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.analysis.relevance_made import made

from elute.analysis.relevance import crp_relmax, explanations
from elute.analysis.relevance_explain import embedding_relevance
from elute.analysis.relevance_head import LATENT, POOL, Encoder, Explained
from elute.analysis.relevance_rules import Rule, Rules
from elute.base.codes import Codes

RULES = {
    "eps1e-9": Rules(pool=1e-9),
    "eps0.25": Rules(Rule("epsilon", 0.25), Rule("epsilon", 0.25), pool=1e-9),
    "gamma0.25": Rules(Rule("gamma", gamma=0.25), pool=1e-9),
    "zplus": Rules(Rule("zplus"), pool=1e-9),
    "eps_then_flat": Rules(Rule(), Rule("flat"), pool=1e-9),
}
NAMES = ("A_linear_signed", "B_mlp_signed", "B_mlp_relu", "C_tokens_mean_linear", "C_tokens_attn_mlp")
FOLDER = Path(os.environ.get("ELUTE_TEST_DATA", "")) / "crp-golden"
FILES = sorted(FOLDER.glob("*.npz")) if os.environ.get("ELUTE_TEST_DATA") else []


def chain(held: dict[str, Any]) -> list[str]:
    """The head's matrices from the codes up, whatever they are called: each reads what the one before it gives."""
    left = [k for k in held if k.endswith(".weight") and k.startswith("w/") and not k.startswith(("w/sae.", "w/pool."))]
    width, found = held["w/sae.enc.weight"].shape[0], []
    while left:
        found.append(next(key for key in left if held[key].shape[1] == width))
        left.remove(found[-1])
        width = held[found[-1]].shape[0]
    return found


class Case:
    """A file: the network as the program takes it, and what is recorded of it."""

    def __init__(self, held: dict[str, Any]) -> None:
        self.held, self.meta = held, json.loads(str(held["meta"]))
        self.conditions = json.loads(str(held["conditions"]))
        matrices = chain(held)
        layers = [(held[key], held.get(f"{key[:-7]}.bias", np.zeros(len(held[key])))) for key in matrices]
        self.hidden = [f"model.{key[2:-7]}" for key in matrices[:-1]]
        encoder = Encoder.topk(
            held["w/sae.enc.weight"], held["w/sae.enc.bias"],
            k=self.meta["topk"], centre=held["w/sae.b_dec"], signed=self.meta["signed"],
        )  # fmt: skip
        pool = {None: "none", "mean": "mean"}.get(self.meta["pool"], "attention")
        self.explained = Explained.of(layers, pool=pool, encoder=encoder, hidden=self.hidden)

    def inputs(self, n: int | None = None) -> list[Any]:
        """Embeddings beside what they came from; attention weights are constants of the file."""
        x = self.held["x"][:n]
        tokens = x.shape[1] if x.ndim == 3 else 1
        names = np.repeat([f"{i:05d}" for i in range(len(x))], tokens)
        frame = pl.DataFrame({"sample_id": names})
        z = self.held["z"][:n].reshape(-1, self.explained.n_codes)
        if "pool_a" in self.held:
            frame = frame.with_columns(pl.Series("attention", self.held["pool_a"][: len(x)].reshape(-1)))
        codes = Codes.from_dense(torch.from_numpy(z), self.meta["topk"], by="magnitude")
        return [(codes, frame, x.reshape(-1, x.shape[-1]))]

    def path(self, recorded: str, width: int) -> str | None:
        """Which layer of ours a recorded name is."""
        known = {"sae.latent": LATENT, "pool": POOL}
        if recorded in known:
            return known[recorded]
        if f"model.{recorded}" in self.hidden:
            return f"model.{recorded}"
        alike = [path for path in self.hidden if self.explained.width(path) == width]
        return alike[0] if alike else None

    def condition(self, i: int) -> dict[str, Any]:
        found = {}
        for key, units in self.conditions[i].items():
            found[key if key == "y" else self.path(key, 0) or self.hidden[0]] = units
        return found


def check_attributions(case: Case) -> int:
    checked = 0
    for key, theirs in case.held.items():
        parts = key.split("/", 3)
        if parts[0] != "attr":
            continue
        rules, i = RULES[parts[1]], int(parts[2])
        (found,) = explanations(case.explained, case.inputs(len(theirs)), case.condition(i), rule=rules)
        if parts[3] == "heatmap":
            ours = embedding_relevance(case.explained, found, rules)
        else:
            recorded = parts[3].removeprefix("rel/")
            path = case.path(recorded, theirs.shape[-1])
            if path is None:
                continue  # the output itself
            ours = {
                LATENT: lambda found=found: found.token_codes().toarray(),
                POOL: lambda found=found: pooled(found),
            }.get(path, lambda found=found, path=path: found.hidden[path])()
        np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-9, err_msg=key)
        checked += 1
    return checked


def pooled(found: Any) -> np.ndarray:
    table = np.zeros(found.pairs.shape)
    table[found.pairs.sample, found.pairs.code] = found.above
    return table


def check_start_layer(case: Case) -> None:
    theirs = case.held["start_layer/heatmap"]
    (found,) = explanations(
        case.explained, case.inputs(len(theirs)), {LATENT: [int(case.held["start_layer/code"])]},
        rule=RULES["eps1e-9"], start=LATENT,
    )  # fmt: skip
    ours = embedding_relevance(case.explained, found, RULES["eps1e-9"])
    np.testing.assert_allclose(ours.reshape(theirs.shape), theirs, rtol=1e-5, atol=1e-9)


def lists_of(case: Case, genes: str, kind: str, path: str, *, normed: bool) -> list[pl.DataFrame]:
    """Our lists of each gene; those of activation do not depend on it."""
    chosen = (
        range(len(case.explained.genes))
        if genes == "all" and kind == "RelMax"
        else [int(genes[1:] or 0) if genes != "all" else 0]
    )
    name = kind.lower() + "_normed" * normed
    found = []
    for gene in chosen:
        relevance = crp_relmax(case.explained, case.inputs(), {"y": gene}, k=40, kinds=(name,), rule=RULES["eps1e-9"])
        table = relevance.references if path == LATENT else relevance.hidden[path]
        found.append(table.filter((pl.col("target") == "sum") & (pl.col("sign") == "+")))
    return found


def before_relu(case: Case, path: str, scores: np.ndarray, *, normed: bool) -> bool:
    """Whether a file's activations of a hidden layer are those before its ReLU."""
    given = case.explained.run(case.held["z"])[case.hidden.index(path)]
    for table, before in ((np.maximum(given, 0), False), (given, True)):
        ranked = table / (np.abs(table).sum(1, keepdims=True) + 1e-10) if normed else table
        if np.allclose(-np.sort(-ranked, axis=0)[: len(scores)], scores, rtol=1e-5, atol=1e-9):
            return before
    raise AssertionError("activations of a hidden layer are neither those before nor those after its ReLU")


def check_references(case: Case) -> int:
    """Scores are those above 0, best first, and samples are theirs wherever a score is not tied."""
    checked = 0
    for key, scores in case.held.items():
        parts = key.split("/")
        if parts[0] != "relmax" or parts[-1] != "rel":
            continue
        _, norm, genes, kind, recorded, _ = parts
        path = case.path(recorded, scores.shape[1])
        ids = case.held[key.replace("/rel", "/data")]
        found = lists_of(case, genes, kind, path, normed=norm == "normed")
        if kind == "ActMax" and path != LATENT and before_relu(case, path, scores, normed=norm == "normed"):
            continue  # recorded before the ReLU, where ours are after it
        for unit in range(scores.shape[1]):
            mine = pl.concat([table.filter(pl.col("code") == unit) for table in found])
            mine = mine.sort("score", descending=True).head(40)
            told = scores[:, unit][scores[:, unit] > 1e-12]
            np.testing.assert_allclose(mine["score"].to_numpy()[: len(told)], told, rtol=1e-5, atol=1e-9, err_msg=key)
            assert len(mine) == len(told)
            tied = np.isclose(told[:, None], told[None], rtol=1e-9).sum(1) > 1
            ours = mine["sample_id"].cast(pl.Int64).to_numpy()
            if len(told) == 40:
                tied[-1] = True  # it may be tied with what is not shown
            np.testing.assert_array_equal(ours[~tied], ids[: len(told), unit][~tied], err_msg=key)
        checked += 1
    return checked


@pytest.mark.parametrize("name", NAMES)
def test_networks_of_every_kind_as_derived_message_by_message(name: str) -> None:
    case = Case(made(name))
    assert check_attributions(case) >= 30
    if case.meta["pool"] is None:
        np.testing.assert_allclose(case.explained.run(case.held["z"])[-1], case.held["pred"], rtol=1e-10)


@pytest.mark.real_data
def test_golden_data_is_there_or_this_says_so(real_data: Path) -> None:
    folder = real_data / "crp-golden"
    if not list(folder.glob("*.npz")):
        pytest.skip(f"no golden data of relevance: {folder} holds no .npz")


@pytest.mark.real_data
@pytest.mark.parametrize("path", FILES, ids=lambda p: p.stem)
def test_golden_data(path: Path) -> None:
    with np.load(path, allow_pickle=False) as held:  # noqa: TID251  # arrays of numbers and text alone
        case = Case({key: held[key] for key in held.files})
    z = case.explained.encoder.encode(torch.from_numpy(case.held["x"].reshape(-1, case.held["x"].shape[-1])))
    np.testing.assert_allclose(z.dense().numpy().reshape(case.held["z"].shape), case.held["z"], rtol=1e-9, atol=1e-12)
    assert check_attributions(case) > 10
    if "start_layer/heatmap" in case.held:
        check_start_layer(case)
    if any(key.startswith("relmax/") for key in case.held):
        assert check_references(case) > 4

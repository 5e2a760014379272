"""Networks from codes to genes, explained message by message: an independent derivation in plain numpy, float64.

Relevance is written as messages R_{i←j} over whole [out, in] tables of each sample and token, without any of the
factorings that the program uses. The same names as in the golden data: a case can be checked by the same test.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np

RULES = ("eps1e-9", "eps0.25", "gamma0.25", "zplus", "eps_then_flat")
Table = dict[str, Any]


def sign(z: np.ndarray) -> np.ndarray:
    return np.where(z >= 0, 1.0, -1.0)


def messages(rule: str, a: np.ndarray, w: np.ndarray, b: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Relevance of the inputs [in] of one layer for one sample."""
    z = w * a[None]
    out = z.sum(1) + b
    stabiliser = 0.25 if rule == "eps0.25" else 1e-9
    if rule == "zplus":
        z, bias = np.maximum(z, 0), np.maximum(b, 0)
    elif rule == "gamma0.25":
        agreeing = np.where(out[:, None] > 0, np.maximum(z, 0), np.minimum(z, 0))
        bias = b + 0.25 * np.where(out > 0, np.maximum(b, 0), np.minimum(b, 0))
        z = z + 0.25 * agreeing
    else:
        bias = b
    below = z.sum(1) + bias
    given = z / (below + stabiliser * sign(below))[:, None] * relevance[:, None]
    if rule == "gamma0.25":
        given = np.where(out[:, None] == 0, 0, given)
    return given.sum(0)


def encode(case: Table, meta: Table, x: np.ndarray) -> np.ndarray:
    u = (x - case["w/sae.b_dec"]) @ case["w/sae.enc.weight"].T + case["w/sae.enc.bias"]
    if not meta["signed"]:
        u = np.maximum(u, 0)
    strongest = np.argsort(-np.abs(u), axis=-1, kind="stable")[..., : meta["topk"]]
    z = np.zeros_like(u)
    np.put_along_axis(z, strongest, np.take_along_axis(u, strongest, -1), -1)
    return z


def to_embedding(case: Table, rule: str, x: np.ndarray, z: np.ndarray, relevance: np.ndarray) -> np.ndarray:
    """Relevance of one embedding [D], of the codes that were kept."""
    weight, bias = case["w/sae.enc.weight"], case["w/sae.enc.bias"]
    if rule == "eps_then_flat":
        ones = np.ones_like(weight)
        return (ones / (ones.sum(1) + 1e-9)[:, None] * relevance[:, None]).sum(0)
    return messages(
        "eps0.25" if rule == "eps0.25" else "eps1e-9",
        x - case["w/sae.b_dec"],
        weight,
        bias,
        np.where(z != 0, relevance, 0),
    )


def layers(case: Table) -> list[tuple[np.ndarray, np.ndarray]]:
    names = [
        key[2:-7] for key in case if key.startswith("w/") and key.endswith(".weight") and key != "w/sae.enc.weight"
    ]
    return [(case[f"w/{name}.weight"], case[f"w/{name}.bias"]) for name in names]


def run(case: Table, pooled: np.ndarray) -> list[np.ndarray]:
    """What each layer reads, and the prediction."""
    given = [pooled]
    parts = layers(case)
    for i, (w, b) in enumerate(parts):
        out = given[-1] @ w.T + b
        given.append(out if i == len(parts) - 1 else np.maximum(out, 0))
    return given


def explained(case: Table, meta: Table, rule: str, condition: dict[str, list[int]]) -> dict[str, np.ndarray]:
    """Relevance at the hidden layer, the pool, the codes and the embedding, of the first six samples."""
    parts, told = layers(case), {"hidden": [], "pool": [], "sae.latent": [], "heatmap": []}
    for s in range(6):
        z = np.atleast_2d(case["z"][s])
        a = case["pool_a"][s] if "pool_a" in case else np.ones(1)
        pooled = (a[:, None] * z).sum(0)
        given = run(case, pooled[None])
        relevance = np.zeros(given[-1].shape[1])
        relevance[condition["y"]] = given[-1][0, condition["y"]]
        for depth in range(len(parts) - 1, -1, -1):
            relevance = messages(rule, given[depth][0], *parts[depth], relevance)
            if depth:
                relevance = masked(relevance, condition.get("hidden"))
                told["hidden"].append(relevance)
        told["pool"].append(relevance)
        tokens = masked(
            a[:, None] * z / (pooled + 1e-9 * sign(pooled))[None] * relevance[None], condition.get("sae.latent")
        )
        if "pool_a" not in case:
            tokens = masked(relevance, condition.get("sae.latent"))[None]
        told["sae.latent"].append(tokens.reshape(case["z"][s].shape))
        x = np.atleast_2d(case["x"][s])
        heat = np.stack([to_embedding(case, rule, x[t], z[t], tokens[t]) for t in range(len(x))])
        told["heatmap"].append(heat.reshape(case["x"][s].shape))
    return {name: np.stack(each) for name, each in told.items() if each}


def masked(relevance: np.ndarray, units: list[int] | None) -> np.ndarray:
    if units is None:
        return relevance
    keep = np.zeros(relevance.shape[-1])
    keep[units] = 1
    return relevance * keep


def made(name: str, *, seed: int = 0) -> Table:
    """A network of one of the golden names with everything that its file holds."""
    rng = np.random.default_rng(seed)
    tokens, mlp = name.startswith("C_"), "mlp" in name
    meta = {
        "name": name, "head": "mlp" if mlp else "linear", "signed": "relu" not in name,
        "pool": ("attention" if "attn" in name else "mean") if tokens else None, "topk": 6,
    }  # fmt: skip
    d, k, g, h = 16, 32, 5, 12
    case: Table = {
        "w/sae.b_dec": rng.normal(size=d) * 0.3,
        "w/sae.enc.weight": rng.normal(size=(k, d)) / 4,
        "w/sae.enc.bias": rng.normal(size=k) * 0.1,
    }
    if tokens:
        case["w/pool.score"] = rng.normal(size=k) * 0.3
    if mlp:
        case |= {"w/hidden.weight": rng.normal(size=(h, k)) / 3, "w/hidden.bias": rng.normal(size=h) * 0.3}
    case |= {"w/out.weight": rng.normal(size=(g, h if mlp else k)) / 3, "w/out.bias": rng.normal(size=g) * 0.3}
    case["x"] = rng.normal(size=(12, 9, d) if tokens else (60, d))
    case["z"] = encode(case, meta, case["x"])
    if tokens:
        scores = case["z"] @ case["w/pool.score"] if "attn" in name else np.zeros(case["z"].shape[:2])
        case["pool_a"] = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        pooled = (case["pool_a"][..., None] * case["z"]).sum(1)
    else:
        pooled = case["z"]
    case["pred"] = run(case, pooled)[-1]
    conditions: list[dict[str, list[int]]] = [{"y": [0]}, {"y": [2]}, {"y": [0, 1]}]
    if not tokens:
        used = np.flatnonzero(case["z"][:6].any(0))
        conditions += [{"y": [2], "sae.latent": used[:2].tolist()}]
    if mlp:
        conditions += [{"y": [2], "hidden": [3, 5, 6]}]
    if mlp and not tokens:
        conditions += [{"y": [1], "hidden": [3, 5, 6], "sae.latent": used[:9].tolist()}]
    for rule in RULES:
        for i, condition in enumerate(conditions):
            found = explained(case, meta, rule, condition)
            case[f"attr/{rule}/{i}/heatmap"] = found.pop("heatmap")
            if not tokens:
                found.pop("pool")
            case |= {f"attr/{rule}/{i}/rel/{layer}": values for layer, values in found.items()}
    case["meta"], case["conditions"] = json.dumps(meta), json.dumps(conditions)
    return case

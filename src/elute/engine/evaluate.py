"""How good a dictionary is on the rows of a store, each number beside what nothing would give.

`explained_variance` stands beside that of as many principal directions as features fire, which is the best that so few
linear directions can do for all rows at once; recovery of planted directions stands beside that of random ones. Where
the dictionary was trained on centred rows, all of it is about rows centred in the same way (see centring.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base import console
from elute.base.accumulate import Covariance
from elute.base.errors import DataError
from elute.base.tensors import load_npy
from elute.engine.centred import as_trained, told
from elute.engine.encode import match
from elute.engine.metrics import Firing, Reconstruction, decoder_redundancy
from elute.engine.recovery import recovery
from elute.store.reader import Store

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.settings import EvalConfig


def evaluate(
    dictionary: Dictionary, store: Store, config: EvalConfig, *, beside: Path | str | None = None
) -> dict[str, Any]:
    """Judge a dictionary on a store's rows; `beside` is its file or folder, where rows are centred first."""
    match(dictionary, store)
    store = as_trained(dictionary, store, beside=beside)
    split = config.split
    if split is None and "split" in store.manifest.columns and store.manifest.split is not None:
        split = "test" if store.manifest.split.rows.get("test") else None
    where = store.select(split=split)
    sites = {**dictionary.spec.reads, **dictionary.spec.writes}
    judged = {name: Reconstruction(width) for name, width in dictionary.spec.writes.items()}
    spread = {name: Covariance(width) for name, width in dictionary.spec.writes.items()}
    firing = Firing(dictionary.n_features)
    total = min(where.rows, config.rows or where.rows)
    if not total:
        raise DataError("there are no rows to judge", where=store.folder)
    read = 0
    with console.progress("eval", total) as bar:
        for rows, _ in store.batches(8192, where=where, sites=list(sites), columns=["sample_id"]):
            given = {name: x[: total - read].float() for name, x in rows.items()}
            codes, y_hat = _through(dictionary, given, config)
            firing.update(codes)
            for name, part in y_hat.items():
                judged[name].update((given[name], part))
                spread[name].update(given[name])
            read += len(codes)
            bar.advance(len(codes))
            if read >= total:
                break
    fired = firing.result()
    per_site = {name: _site(judged[name], spread[name], round(fired.l0)) for name in judged}
    answer: dict[str, Any] = {
        "rows": read, **told(store, where), "split": split, "encoder": config.encoder,
        **{key: _mean(per_site, key) for key in ("explained_variance", "fvu", "cosine", "mse", "norm_ratio")},
        "l0": fired.l0, "dead_fraction": fired.dead_fraction,
        "control": {"explained_variance_pca": _mean(per_site, "explained_variance_pca")},
    }  # fmt: skip
    if dictionary.spec.n_features > 1:
        answer["redundancy"] = decoder_redundancy(next(iter(dictionary)).W_dec.detach()).mean
    if len(per_site) > 1:
        answer["sites"] = per_site
    if config.truth is not None:
        found, control = against(dictionary, config.truth, config)
        answer |= found
        answer["control"] |= control
    return answer


def against(dictionary: Dictionary, truth: Path, config: EvalConfig) -> tuple[dict[str, float], dict[str, float]]:
    """Compare directions with planted ones: what was found, and what as many random directions give.

    Where codes have a sign, a direction and its opposite are the same feature.
    """
    found, absolute = dictionary.directions(), dictionary.sparsity.signed
    planted = load_npy(truth)
    if planted.ndim != 2 or planted.dtype.kind != "f" or planted.shape[1] != found.shape[1]:
        what = f"holds {planted.dtype} {[*planted.shape]}, the dictionary writes [{found.shape[1]}]"
        raise DataError(what, where=truth, remedy="Give planted directions as floating point [features, width].")
    beside = truth.with_name(f"{truth.stem}_counts.npy")
    counts = np.array(load_npy(beside)) if beside.exists() else None
    directions = torch.from_numpy(np.array(planted, np.float32))
    drawn = torch.randn(found.shape, generator=torch.Generator().manual_seed(0))
    both = [
        recovery(f, directions, counts, at=config.at, least=config.least, absolute=absolute) for f in (found, drawn)
    ]
    told = [
        {"mean_max_cosine": r.mean_max_cosine, "recovered_fraction": r.recovered_fraction, "uniqueness": r.uniqueness}
        for r in both
    ]
    return {**told[0], "planted_considered": len(both[0].planted)}, told[1]


def _through(dictionary: Dictionary, given: dict[str, Tensor], config: EvalConfig) -> Any:
    codes = dictionary.encode(given, encoder=config.encoder, k=config.k)
    y = dictionary.decode(codes, given)
    y = y if isinstance(y, dict) else {next(iter(dictionary.spec.writes)): y}
    return codes.to("cpu"), {name: part.cpu() for name, part in y.items()}


def _site(judged: Reconstruction, spread: Covariance, l0: int) -> dict[str, float]:
    """One written site's figures, beside what its first principal directions explain."""
    result = judged.result()
    values = np.sort(np.linalg.eigvalsh(spread.result().covariance))[::-1].clip(min=0)
    best = float(values[: max(0, l0)].sum() / values.sum()) if values.sum() > 0 else 1.0
    names = ("explained_variance", "fvu", "cosine", "mse", "norm_ratio")
    return {**{name: float(getattr(result, name)) for name in names}, "explained_variance_pca": best}


def _mean(per_site: dict[str, dict[str, float]], key: str) -> float:
    return float(np.mean([site[key] for site in per_site.values()]))

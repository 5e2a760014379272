"""A small run of tissue, made up in the formats of docs/formats/tissue.md: painted tiles, and findings that fit them.

What a tile holds is known, codes fire on it patch by patch, genes follow codes, and scores are computed from the numbers
that are written. So a page can be held against truth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from elute.analysis.token_maps import safe_name

KINDS = ("epithelium", "stroma", "lymphocytes", "adipose")
GRID = 7
CODES = {17: (0, 1.0), 41: (1, 0.8), 128: (2, 1.0), 311: (3, 0.9), 402: (0, 0.4), 477: (2, 0.5), 500: (None, 0.6)}
# Weights of codes, noise of what is measured, and how much other models tell of it.
GENES: dict[str, tuple[dict[int, float], float, dict[str, float]]] = {
    "KRT19": ({17: 2.0, 402: 0.8, 41: -0.7}, 0.25, {"dense_pca_ridge": 1.05, "random_encoder": 0.4, "neighbours": 0.5}),
    "COL1A1": ({41: 1.6, 128: -0.5}, 0.3, {"dense_pca_ridge": 1.0, "random_encoder": 0.5, "neighbours": 0.6}),
    "CD3E": ({128: 1.4, 477: 0.6, 311: -0.3}, 0.5, {"dense_pca_ridge": 1.1, "random_encoder": 0.6, "neighbours": 0.7}),
    "ADIPOQ": ({311: 1.2, 17: -0.4}, 0.4, {"dense_pca_ridge": 0.9, "random_encoder": 0.95, "neighbours": 0.6}),
    "PGR": ({402: 0.5, 500: 0.3}, 0.6, {"dense_pca_ridge": 1.2, "random_encoder": 0.7, "neighbours": 1.6}),
    "ACTB": ({500: 0.02}, 1.0, {"dense_pca_ridge": 0.5, "random_encoder": 0.2, "neighbours": 0.2}),
}
HOSTILE = (
    "<img src=x onerror=document.title='HIT'>",
    "</script><script>document.title='HIT'</script>",
    "\u202eתאים של רקמה 🧬",
    "G" * 10_000,
)


@dataclass(frozen=True)
class Made:
    """Where the run lies, and the tiles of it."""

    folder: Path
    tiles: dict[tuple[str, str], np.ndarray[Any, Any]]
    asked: list[tuple[str, str]] = field(default_factory=list)

    def images(self, keys: Sequence[tuple[str, str]]) -> list[np.ndarray[Any, Any]]:
        """Give tiles as whoever has them would."""
        self.asked.extend(keys)
        return [self.tiles[key] for key in keys]


def make_run(
    folder: Path,
    *,
    side: int = 6,
    sections: int = 4,
    pixels: int = 56,
    hostile: bool = False,
    per_token: bool = True,
    paint: Callable[..., np.ndarray[Any, Any]] | None = None,
) -> Made:
    """Write a run of `sections` × side² samples of half as many patients."""
    draw = np.random.default_rng(4)
    genes = dict(GENES)
    if hostile:
        genes |= {name: ({17: 0.5 + i / 10, 41: -0.3}, 0.5, {"neighbours": 0.5}) for i, name in enumerate(HOSTILE)}
    tiles, patches = _samples(draw, side, sections, hostile)
    painted = {
        (sample, tile): (paint or paint_tile)(np.random.default_rng(i), patches[i], pixels)
        for i, (sample, tile) in enumerate(tiles.select("sample_id", "tile_id").iter_rows())
    }
    for name in ("heads", "relevance", "refs", "token_maps", "faithfulness"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    tiles.write_parquet(folder / "tiles.parquet")
    activations = {code: _activation(draw, patches, code) for code in CODES}
    values = _values(draw, genes, activations)
    _heads(folder, draw, tiles, genes, values)
    _relevance(folder, tiles, genes, activations, per_token=per_token)
    usage = [{"code": code, "frequency": float((one > 0).mean())} for code, one in activations.items()]
    pl.DataFrame(usage).write_parquet(folder / "sae_usage.parquet")
    told = {"scale": "counts", "notes": ["neighbours: not run (some samples have no place)"], "without_targets": 3}
    heads = {"pool": "mean", "model": "elastic_net", "loss": "nb"}
    curve = {
        "gain": 0.21,
        "gain_low": 0.18,
        "gain_high": 0.24,
        "control": 0.0,
        "control_low": -0.02,
        "control_high": 0.02,
    }
    faithful = {unit: {**curve, "samples": 64} for unit in ("codes", "patches")}
    crp = {"explained": {gene: {"faithful": faithful} for gene in genes}}
    stages = {
        "train_heads": {"config": {"heads": heads}, "inputs": {}, "summary": told},
        "crp_relmax": {"config": {}, "inputs": {}, "summary": crp},
    }
    seen = {"schema_version": 1, "grid": [GRID, GRID], "seen": [0.0, 0.0, 1.0, 1.0]}
    (folder / "encoder.json").write_text(json.dumps(seen))
    (folder / "run.json").write_text(json.dumps({"schema": 1, "stages": stages}))
    return Made(folder, painted)


def _samples(draw: Any, side: int, sections: int, hostile: bool) -> tuple[pl.DataFrame, Any]:
    rows, all_patches = [], []
    for section in range(sections):
        group = f"P{section // 2 + 1}"
        centres = draw.uniform(0, side, (len(KINDS), 2))
        for i in range(side * side):
            x, y = i % side + (0.5 if (i // side) % 2 else 0.0), i // side
            near = np.exp(-((np.array([x, y]) - centres) ** 2).sum(1) / (0.12 * side * side))
            share = (near + 0.03) / (near + 0.03).sum()
            patch = _patches(draw, share)
            all_patches.append(patch)
            sample = f"S{section + 1}_{i % side}x{i // side}"
            if hostile and i == 0:
                sample = f"{HOSTILE[section % 4]}{section}"
            label = KINDS[int(np.bincount(patch.ravel(), minlength=4).argmax())]
            rows.append(
                {
                    "sample_id": sample,
                    "tile_id": f"{sample}_0",
                    "group": HOSTILE[0] if hostile and section > 1 else group,
                    "section": HOSTILE[2] if hostile and section == 1 else f"{group}-{section % 2 + 1}",
                    "x": 200.0 + 150 * x,
                    "y": 300.0 + 130 * y,
                    "size_px": 112,
                    "microns_per_pixel": 0.5,
                    "label": HOSTILE[0] if hostile and i % 5 == 0 else label,
                }
            )
    return pl.DataFrame(rows), np.array(all_patches)


def _patches(draw: Any, share: Any) -> Any:
    """Which kind each patch of a tile is of: a few seeds, each patch as the nearest one."""
    seeds = draw.uniform(0, GRID, (5, 2))
    kinds = draw.choice(len(KINDS), 5, p=share)
    rows, cols = np.mgrid[0:GRID, 0:GRID] + 0.5
    far = (rows[..., None] - seeds[:, 0]) ** 2 + (cols[..., None] - seeds[:, 1]) ** 2
    return kinds[far.argmin(-1)]


def paint_tile(draw: Any, patch: Any, pixels: int) -> np.ndarray[Any, Any]:
    """Paint what patches hold in the colours of haematoxylin and eosin."""
    grounds = np.array([[206, 150, 196], [236, 176, 200], [214, 178, 216], [250, 240, 246]], float)
    at = np.minimum((np.arange(pixels) * GRID) // pixels, GRID - 1)
    kinds = patch[at[:, None], at[None, :]]
    image = grounds[kinds] + draw.normal(0, 7, (pixels, pixels, 1))
    for kind, count, radius in ((0, 60, 2.6), (1, 18, 1.6), (2, 140, 1.7), (3, 5, 1.2)):
        size = radius * pixels / 56
        reach = int(size) + 1
        for y, x in draw.integers(reach, pixels - reach, (count, 2)):
            if kinds[y, x] == kind:
                rows, cols = np.mgrid[-reach : reach + 1, -reach : reach + 1]
                window = image[y - reach : y + reach + 1, x - reach : x + reach + 1]
                window[rows**2 + cols**2 < size**2] = np.array([96, 58, 138]) + draw.normal(0, 8, 3)
    return np.clip(image, 0, 255).astype(np.uint8)


def _activation(draw: Any, patches: Any, code: int) -> Any:
    """[samples, GRID, GRID]: a code fires where its structure is."""
    kind, strength = CODES[code]
    there = draw.random(patches.shape) < 0.1 if kind is None else patches == kind
    return np.where(there, strength * draw.uniform(0.5, 1.0, patches.shape), 0.0)


def _values(draw: Any, genes: Any, activations: Any) -> dict[str, tuple[Any, Any]]:
    """Measured and predicted values of each gene."""
    found = {}
    for gene, (weights, noise, _) in genes.items():
        signal = sum(weight * activations[code].mean((1, 2)) for code, weight in weights.items())
        spread = float(signal.std()) or 1e-3
        measured = 2.0 + signal + draw.normal(0, noise * spread * 1.6, len(signal))
        if gene == "ACTB":
            measured = 2.0 + draw.normal(0, 0.4, len(signal))
        found[gene] = (measured, 2.0 + 0.9 * (signal - signal.mean()) + signal.mean())
    return found


def r2(measured: Any, predicted: Any) -> float:
    """The share of the variance that is told."""
    return float(1 - ((measured - predicted) ** 2).sum() / ((measured - measured.mean()) ** 2).sum())


def _score(gene: str, model: str, measured: Any, predicted: Any, rank: int) -> dict[str, Any]:
    value = r2(measured, predicted)
    moves = np.ptp(predicted) > 0
    pearson = float(np.corrcoef(measured, predicted)[0, 1]) if moves else None
    return {
        "gene": gene, "model": model, "r2": value, "r2_low": value - 0.09, "r2_high": value + 0.08,
        "spearman": pearson, "pearson": pearson, "deviance_explained": value, "calibration_slope": 1.02,
        "calibration_intercept": 0.01, "r2_within": value - 0.05, "pearson_within": pearson and pearson - 0.06,
        "variance_rank": rank, "n": len(measured),
    }  # fmt: skip


def _heads(folder: Path, draw: Any, tiles: pl.DataFrame, genes: Any, values: Any) -> None:
    metrics, baselines, weights, predictions = [], [], [], []
    for rank, gene in enumerate(genes):
        measured, predicted = values[gene]
        metrics.append(_score(gene, "sparse", measured, predicted, rank + 1))
        own = metrics[-1]["r2"]
        for model, part in genes[gene][2].items():
            other = metrics[-1] | {"model": model, "r2": own * part, "r2_low": own * part - 0.09}
            baselines.append(other | {"r2_high": own * part + 0.08})
        baselines.append(_score(gene, "shuffled", measured, draw.permutation(predicted), rank + 1))
        baselines.append(_score(gene, "mean", measured, np.full(len(measured), measured.mean() + 0.02), rank + 1))
        order = sorted(genes[gene][0].items(), key=lambda item: -abs(item[1]))
        for place, (code, weight) in enumerate(order):
            ends = {"low": weight - 0.2, "high": weight + 0.25}
            told = {"stability": 1.0 if abs(weight) > 0.3 else 0.6, "rank": place + 1, "sign": int(np.sign(weight))}
            weights.append({"gene": gene, "code": code, "coefficient": weight, **ends, **told})
        predictions.append(
            tiles.select(
                "sample_id",
                fold=pl.col("group").rank("dense").cast(pl.Int32) - 1,
                gene=pl.lit(gene),
                measured=pl.Series(measured),
                predicted=pl.Series(predicted),
            )
        )
    pl.DataFrame(metrics).write_parquet(folder / "heads/metrics.parquet")
    pl.DataFrame(baselines, infer_schema_length=None).write_parquet(folder / "heads/baselines.parquet")
    pl.DataFrame(weights).write_parquet(folder / "heads/coefficients.parquet")
    pl.concat(predictions).write_parquet(folder / "heads/predictions.parquet")


def _relevance(folder: Path, tiles: pl.DataFrame, genes: Any, activations: Any, *, per_token: bool) -> None:
    conserved, index = [], []
    for gene in list(genes)[:-1] if len(genes) == len(GENES) else genes:  # one gene is left unexplained
        weights = genes[gene][0]
        maps = {code: weight * activations[code] / GRID**2 for code, weight in weights.items()}
        sums = {code: one.sum((1, 2)) for code, one in maps.items()}
        total = sum(np.abs(one).sum() for one in sums.values())
        rows = [
            {
                "gene": gene, "code": code, "relevance": float(one.sum()), "positive": float(one[one > 0].sum()),
                "negative": float(one[one < 0].sum()), "share": float(np.abs(one).sum() / total),
                "samples": int((one != 0).sum()), "mean_activation": float(activations[code].mean()),
                "mean_absolute": float(np.abs(one).mean()), "control_mean_absolute": float(np.abs(one).mean()) / 20,
            }
            for code, one in sums.items()
        ]  # fmt: skip
        refs = [row for code in weights for row in _references(gene, code, tiles, maps[code], activations[code])]
        of_samples = [
            {"gene": gene, "sample_id": sample, "code": code, "relevance": float(one[i])}
            for i, sample in enumerate(tiles["sample_id"])
            for code, one in sums.items()
            if one[i]
        ]
        name = safe_name(gene)
        pl.DataFrame(rows).write_parquet(folder / "relevance" / f"{name}.parquet")
        pl.DataFrame(of_samples).write_parquet(folder / "relevance" / f"{name}.samples.parquet")
        pl.DataFrame(refs, infer_schema_length=None).write_parquet(folder / "refs" / f"{name}.parquet")
        _removal(folder, gene)
        told = {"worst_relative": 3e-9, "bias_share": 0.62, "epsilon_share": 1e-12, "n": len(tiles)}
        conserved.append({"gene": gene, **told})
        if per_token:
            index += _token_maps(folder, gene, refs, maps, tiles)
    pl.DataFrame(conserved).write_parquet(folder / "relevance/conservation.parquet")
    known = {row["gene"]: {"linear": True, "rule": "epsilon", "files": safe_name(row["gene"])} for row in conserved}
    (folder / "relevance/index.json").write_text(json.dumps({"linear": True, "genes": known}))
    if index:
        pl.DataFrame(index).write_parquet(folder / "token_maps/index.parquet")


def _removal(folder: Path, gene: str) -> None:
    """What the head gives while codes and patches are removed."""
    removed = np.linspace(0, 1, 21)
    bends = {"most": 0.4, "random": 1.0, "least": 2.5}
    rows = [
        {"gene": gene, "unit": unit, "order": order, "removed": x, "output": 2.5 - 1.2 * x**bend}
        for unit in ("codes", "patches")
        for order, bend in bends.items()
        for x in removed.tolist()
    ]
    pl.DataFrame(rows).write_parquet(folder / "faithfulness" / f"{safe_name(gene)}.parquet")


def _references(gene: str, code: int, tiles: pl.DataFrame, relevance: Any, activation: Any) -> list[dict[str, Any]]:
    found = []
    ids = tiles.select("sample_id", "tile_id").rows()
    for kind, source in (("relmax", relevance), ("actmax", activation)):
        for target, pooled in (("sum", source.sum((1, 2))), ("max", source.reshape(len(source), -1))):
            for sign in "+-":
                factor = 1.0 if sign == "+" else -1.0
                scores = (factor * pooled) if target == "sum" else (factor * pooled).max(1)
                order = [i for i in np.lexsort((tiles["sample_id"].to_numpy(), -scores)) if scores[i] > 0][:12]
                for rank, i in enumerate(order):
                    row, col = np.unravel_index(int((factor * source[i]).argmax()), source[i].shape)
                    found.append(
                        {
                            "gene": gene, "code": code, "kind": kind, "target": target, "sign": sign, "rank": rank + 1,
                            "sample_id": ids[i][0], "tile_id": ids[i][1], "row": int(row), "col": int(col),
                            "relevance": float(relevance[i].sum()), "activation": float(activation[i].mean()),
                        }
                    )  # fmt: skip
    return found


def _token_maps(folder: Path, gene: str, refs: Any, maps: Any, tiles: pl.DataFrame) -> list[dict[str, Any]]:
    place = folder / "token_maps" / safe_name(gene)
    place.mkdir(exist_ok=True)
    where = {sample: i for i, sample in enumerate(tiles["sample_id"])}
    index = []
    for code, values in maps.items():
        mine = [row for row in refs if row["code"] == code and (row["kind"], row["target"]) == ("relmax", "sum")]
        keys = list(dict.fromkeys((row["sample_id"], row["tile_id"]) for row in mine))
        if not keys:
            continue
        stack = np.stack([values[where[sample]] for sample, _ in keys]).astype(np.float32)
        np.savez_compressed(place / f"{code}.npz", maps=stack)
        for at, (sample, tile) in enumerate(keys):
            ends = {"low": float(stack[at].min()), "high": float(stack[at].max())}
            name = f"{safe_name(gene)}/{code}.npz"
            known = {"gene": gene, "code": code, "rank": at + 1, "sample_id": sample, "tile_id": tile}
            index.append({**known, "file": name, "at": at, **ends})
    return index

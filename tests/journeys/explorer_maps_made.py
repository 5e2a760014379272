"""An Explorer of made-up cells and features, packed by hand: as many as a test wants, whose answers are known."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

from elute.reports.explorer import pack
from elute.reports.explorer.write import SCRIPTS, STYLES

PAGE = Path(pack.__file__).parent / "page"
TYPES = ("B cell", "T cell CD4", "T cell CD8", "NK cell", "Monocyte", "Dendritic cell", "Plasma cell", "Megakaryocyte")
GROUP = 256


def write(path: Path, blocks: dict[str, dict[str, pack.Column]], info: dict[str, Any]) -> Path:
    """Put blocks into the page."""
    style = "\n".join((PAGE / f"{name}.css").read_text() for name in STYLES)
    program = "\n".join((PAGE / f"{name}.js").read_text() for name in SCRIPTS)
    digest = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, program)]
    parts = {
        "policy": f"default-src 'none'; style-src 'sha256-{digest[0]}'; script-src 'sha256-{digest[1]}'; img-src data: blob:",
        "title": "made up",
        "style": style,
        "script": program,
        "info": f'<script type="application/json" id="info">{json.dumps(info).replace("<", chr(92) + "u003c")}</script>',
        "blocks": "\n".join(
            f'<script type="text/plain" id="block-{html.escape(name)}">{pack.pack(columns)}</script>'
            for name, columns in blocks.items()
        ),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], (PAGE / "page.html").read_text())
    path.write_text(page)
    return path


def make(path: Path, *, cells: int = 600, features: int = 60, names: dict[str, str] | None = None) -> dict[str, Any]:
    """Write a page; return what it holds: places, labels, and codes as a table of cells by features.

    Feature i is high in cells of type i mod 8 and fires by chance elsewhere; the last feature is silent.
    """
    random = np.random.default_rng(3)
    names = names or {}
    label = np.arange(cells) * 7919 % len(TYPES)
    turn = 2 * np.pi * np.arange(len(TYPES)) / len(TYPES)
    middle = np.stack([0.5 + 0.36 * np.cos(turn), 0.5 + 0.36 * np.sin(turn)], axis=1)
    places = np.clip(middle[label] + random.normal(0, 0.035, (cells, 2)), 0, 1)
    sort = np.arange(features) % len(TYPES)
    spots = np.clip(middle[sort] + random.normal(0, 0.04, (features, 2)), 0, 1)
    donor = random.integers(0, 4, cells)
    words = {
        "label": [names.get(name, name) for name in TYPES],
        "donor": [names.get(f"D{i}", f"D{i}") for i in range(4)],
    }
    fires = random.random((cells, features)) < np.where(label[:, None] == sort[None], 0.8, 0.05)
    strength = random.integers(40, 255, (cells, features))
    codes = np.where(fires, strength, 0)
    codes[:, -1] = 0
    share = (codes > 0).mean(axis=0)
    genes = [names.get(f"G{i}", f"G{i}") for i in range(20)]
    told = [names.get(f"name {i}", f"marks {words['label'][kind]}") if i % 3 else None for i, kind in enumerate(sort)]
    columns: dict[str, pack.Column] = {
        "feature": pack.whole(np.arange(features) * 2),
        "alive": pack.flags([bool(value) for value in share]),
        "frequency": pack.numbers(share / 10),
        "cell_frequency": pack.numbers(share),
        "kind": pack.texts([("cell state", "gene identity", "depth")[i % 3] for i in range(features)]),
        "cell_type": pack.Words(sort.astype(np.int64), words=words["label"]),
        "auroc": pack.linear(np.linspace(0.6, 0.95, features)),
        "auroc_shown": pack.linear(np.linspace(0.55, 0.9, features)),
        "stability": pack.linear(np.linspace(0.2, 0.99, features)),
        "module": pack.whole(np.where(np.arange(features) % 5, np.arange(features) % 4, np.nan)),
        "name": pack.texts(told),
        "name_confidence": pack.linear(np.linspace(0, 1, features)),
        "top_genes": pack.Lists(
            np.arange(features + 1) * 2,
            pack.Words(np.arange(2 * features) % len(genes), dictionary="s0-genes"),
        ),
    }
    blocks: dict[str, dict[str, pack.Column]] = {
        "s0-genes": {"word": pack.Words(None, words=genes)},
        "s0-features": columns,
        "s0-map": {"x": pack.linear(np.where(share > 0, spots[:, 0], np.nan)), "y": pack.linear(spots[:, 1])},
        "s0-cells": {
            "x": pack.linear(places[:, 0]),
            "y": pack.linear(places[:, 1]),
            "cell": pack.Words(None, words=[names.get("cell", "cell") + f"-{i}" for i in range(cells)]),
            "label": pack.Words(label.astype(np.int64), words=words["label"]),
            "donor": pack.Words(donor.astype(np.int64), words=words["donor"]),
            "total": pack.whole(random.integers(900, 9000, cells)),
            "obs:tissue": pack.Words(np.zeros(cells, np.int64), words=[names.get("tissue", "blood")]),
        },
        "s0-expression-0": coded(strength[:, : len(genes)] * (label[:, None] == np.arange(len(genes))[None] % 8), 4.5),
    }
    blocks["s0-expression-0"]["gene"] = pack.Words(np.arange(len(genes)), dictionary="s0-genes")
    for first in range(0, features, GROUP):
        blocks[f"s0-codes-{first // GROUP}"] = coded(codes[:, first : first + GROUP], 12.0)
    site = {
        "name": "resid_post_6",
        "key": "s0",
        "features": features,
        "shown": features,
        "alive": int((share > 0).sum()),
        "fdr": 0.05,
        "cells": {"of": 3 * cells, "shown": cells, "sampled": True, "map": "UMAP of the cells, made by hand"},
        "feature_map": "UMAP of the features' directions, made by hand",
        "group": GROUP,
        "controls": {},
        "databases": [],
        "columns": {},
        "expression": "The value is log(1 + counts per 10,000).",
    }
    about: dict[str, Any] = {
        "model": "made up",
        "rows": 10,
        "cells": cells,
        "donors": 4,
        "splits": [],
        "made_of": [],
        "licences": [],
    }
    write(path, blocks, {"schema": 1, "run": "made up", "version": "0", "sites": [site], "about": about})
    return {
        "codes": codes,
        "label": label,
        "donor": donor,
        "places": places,
        "spots": spots,
        "sort": sort,
        "words": words,
        "share": share,
    }


def coded(codes: Any, top: float) -> dict[str, pack.Column]:
    """Columns of codes: a row a feature, its cells as differences."""
    cells, levels, ends, most = [], [], [0], []
    for column in codes.T:
        at = np.flatnonzero(column)
        cells.append(np.diff(at, prepend=0))
        levels.append(column[at])
        ends.append(ends[-1] + len(at))
        most.append(top if len(at) else 0.0)
    return {
        "top": pack.exact(np.array(most)),
        "cells": pack.Lists(np.array(ends), pack.Numbers(np.concatenate(cells).astype(np.uint32))),
        "values": pack.Lists(np.array(ends), pack.Numbers(np.concatenate(levels).astype(np.uint8))),
    }

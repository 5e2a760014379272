"""Where in a sample a code is relevant: maps over patches, of the reference samples that a pass has found.

A second pass over the same inputs explains those samples alone. A map holds R_{t,j} of one code in every patch of one
tile (equation 7 down to tokens; equation 9 is its sum), NaN where there is no row for a patch.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from elute.analysis.relevance_explain import Explanation, explain
from elute.analysis.relevance_head import Explained
from elute.analysis.relevance_result import CodeMaps, Map, Relevance, Spot, again
from elute.analysis.relevance_stream import SEPARATOR, whole_samples
from elute.base.errors import ConfigError, DataError

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.")
_TAKEN = ("conservation", "index")  # names of files beside those of genes
_LONGEST = 160
_ZOOM, _SIDE = 8, 256  # pixels a patch, while the picture is no wider than that
_HIGH, _LOW, _NONE, _BLANK = ((178, 24, 43), (33, 102, 172), (247, 247, 247), (128, 128, 128))


def safe_name(text: str) -> str:
    """Return a file's name for any text, no two alike: letters, digits, - _ and . stay, others are percent-coded."""
    name = "".join(c if c in _PLAIN else "".join(f"%{byte:02X}" for byte in _bytes(c)) for c in text)
    if not name or name.startswith(".") or name.lower() in _TAKEN:
        name = f"%{ord(name[0]):02X}{name[1:]}" if name else "%"
    head, dot, tail = name.rpartition(".")
    if dot and tail.lower() == "samples":
        name = f"{head}%2E{tail}"
    if len(name) > _LONGEST:
        name = f"{name[: _LONGEST - 18]}%%{hashlib.sha256(_bytes(text)).hexdigest()[:16]}"
    return name


def token_maps(
    top_module: Any,
    inputs: Any,
    relevances: Sequence[Relevance],
    *,
    codes: Sequence[Sequence[int]] | None = None,
    most: int = 12,
    signs: Sequence[str] = ("+", "-"),
    grid: tuple[int, int] | None = None,
) -> list[CodeMaps]:
    """Draw the maps of each gene's codes in their RelMax references (sum), in one more pass.

    codes: of each gene, those to draw; else all that have references. A tile stands once among the maps of a code.
    inputs: as they were explained, from the beginning again. Rows without `token_rc` give no maps.
    """
    explained = Explained.of(top_module)
    again(inputs)
    wanted = [
        _wanted(relevance, None if codes is None else codes[i], most=most, signs=signs)
        for i, relevance in enumerate(relevances)
    ]
    drawn: list[dict[Spot, Map]] = [{} for _ in relevances]
    named = {spot.sample_id for spots in wanted for spot in spots}
    for tokens in whole_samples(inputs, explained):
        chosen = [i for i, name in enumerate(tokens.samples) if name in named]
        if not chosen or (tokens.spots < 0).any():
            continue
        part = tokens.only(chosen)
        place = {name: i for i, name in enumerate(part.samples)}
        for gene, spots in enumerate(wanted):
            mine = [spot for spot in spots if spot.sample_id in place]
            if mine:
                few = part.only(sorted({place[spot.sample_id] for spot in mine}))
                found = explain(explained, few, relevances[gene].asked, rules=relevances[gene].rules)
                drawn[gene].update(_drawn(found, mine, grid))
    return [
        each
        for relevance, spots, maps in zip(relevances, wanted, drawn, strict=True)
        for each in _by_code(relevance.gene, spots, maps)
    ]


def _wanted(relevance: Relevance, codes: Sequence[int] | None, *, most: int, signs: Sequence[str]) -> list[Spot]:
    import polars as pl

    lists = relevance.references if codes is None else relevance.references_of(codes)
    lists = lists.filter(
        (pl.col("kind") == "relmax")
        & (pl.col("target") == "sum")
        & pl.col("sign").is_in(list(signs))
        & (pl.col("rank") <= most)
    ).unique(["code", "sample_id", "tile_id"], keep="first", maintain_order=True)
    return [Spot(*row) for row in lists.select("code", "sign", "rank", "sample_id", "tile_id").iter_rows()]


def _drawn(found: Explanation, spots: Sequence[Spot], grid: tuple[int, int] | None) -> dict[Spot, Map]:
    tokens, pairs = found.tokens, found.pairs
    relevance = found.entries()
    number = {name: i for i, name in enumerate(tokens.samples)}
    pair_of = {(s, c): i for i, (s, c) in enumerate(zip(pairs.sample.tolist(), pairs.code.tolist(), strict=True))}
    tiles = [place.partition(SEPARATOR)[2] or None for place in tokens.places]
    made = {}
    for spot in spots:
        sample = number[spot.sample_id]
        rows = np.arange(*tokens.starts[sample : sample + 2])
        rows = rows[[tiles[place] == spot.tile_id for place in tokens.place[rows].tolist()]]
        at = tokens.spots[rows]
        shape = grid or tuple((at.max(0) + 1).tolist())
        if (at >= np.array(shape)).any():
            raise ConfigError(f"a patch at {at.max(0).tolist()} lies outside a grid of {shape[0]} × {shape[1]}")
        drawn = np.full(shape, np.nan, np.float32)
        drawn[at[:, 0], at[:, 1]] = 0
        pair = pair_of.get((sample, spot.code))
        if pair is not None:
            entries = np.arange(*pairs.starts[pair : pair + 2])
            entries = entries[np.isin(pairs.row[entries], rows)]
            where = tokens.spots[pairs.row[entries]]
            drawn[where[:, 0], where[:, 1]] = relevance[entries]
        made[spot] = drawn
    return made


def _by_code(gene: str, spots: Sequence[Spot], maps: dict[Spot, Map]) -> list[CodeMaps]:
    given = []
    for code in sorted({spot.code for spot in spots}):
        mine = tuple(spot for spot in spots if spot.code == code and spot in maps)
        if not mine:
            continue
        shape = np.max([maps[spot].shape for spot in mine], axis=0)
        stack = np.full((len(mine), *shape), np.nan, np.float32)
        for i, spot in enumerate(mine):
            drawn = maps[spot]
            stack[i, : drawn.shape[0], : drawn.shape[1]] = drawn
        given.append(CodeMaps(gene, code, mine, stack))
    return given


def png(drawn: Map, most: float | None = None) -> bytes:
    """Paint a map, red where relevance is positive and blue where it is negative, grey where there is no patch."""
    peak = most if most is not None else float(np.nanmax(np.abs(drawn), initial=0))
    if peak < 0:
        raise DataError(f"the largest relevance of a map cannot be {peak}")
    level = np.clip(np.nan_to_num(drawn / peak if peak else drawn * 0), -1, 1)[..., None]
    middle, ends = np.array(_NONE, float), np.where(level >= 0, np.array(_HIGH, float), np.array(_LOW, float))
    colour = np.where(np.isnan(drawn)[..., None], np.array(_BLANK, float), middle + np.abs(level) * (ends - middle))
    zoom = max(1, min(_ZOOM, _SIDE // max(drawn.shape)))
    pixels = np.round(colour).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
    height, width = pixels.shape[:2]
    lines = b"".join(b"\0" + line.tobytes() for line in pixels)
    parts = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(lines, 9)),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


__all__ = ["CodeMaps", "Map", "Spot", "png", "safe_name", "token_maps"]

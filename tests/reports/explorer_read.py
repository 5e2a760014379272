"""Reading an Explorer's file again, by the format's page alone (docs/formats/explorer.md): nothing of elute is used."""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

_SIZES = {"u8": ("B", 1), "u16": ("H", 2), "u32": ("I", 4), "i32": ("i", 4), "f32": ("f", 4)}
Blocks = dict[str, "Block"]


class Block:
    """A block's columns as Python values."""

    def __init__(self, text: str, blocks: Blocks | None = None) -> None:
        data = zlib.decompress(base64.b64decode(text, validate=True))
        (length,) = struct.unpack_from("<I", data)
        self.head: dict[str, Any] = json.loads(data[4 : 4 + length])
        self.body = data[-(-(4 + length) // 8) * 8 :]
        self.rows: int = self.head["rows"]
        self.blocks = {} if blocks is None else blocks
        self.names = list(self.head["columns"])

    def column(self, name: str) -> list[Any]:
        return self._read(self.head["columns"][name], self.rows)

    def _plain(self, kind: str, at: int, count: int) -> list[Any]:
        letter, size = _SIZES[kind]
        planes = [self.body[at + i * count : at + (i + 1) * count] for i in range(size)]
        joined = b"".join(bytes(each) for each in zip(*planes, strict=True))
        return list(struct.unpack(f"<{count}{letter}", joined))

    def _read(self, spec: dict[str, Any], rows: int) -> list[Any]:
        count = spec.get("rows", rows)
        if spec["kind"] == "bool":
            return [{0: False, 1: True, 2: None}[v] for v in self._plain("u8", spec["at"], count)]
        if spec["kind"] == "list":
            offsets = [0, *itertools.accumulate(self._plain(spec["type"], spec["at"], count))]
            inner = self._read(spec["of"], -1)
            assert offsets[-1] == len(inner)
            return [inner[a:b] for a, b in itertools.pairwise(offsets)]
        if spec["kind"] == "text":
            words = self._words(spec)
            codes = range(count) if spec["codes"] == "row" else self._plain(spec["codes"], spec["at"], count)
            told = [None if code == spec["null"] else words[code] for code in codes]
            return self._filled(told, spec["filled"]) if "filled" in spec else told
        if spec.get("sum"):
            return list(itertools.accumulate(self._plain(spec["type"], spec["at"], count)))
        return [self._number(spec, stored) for stored in self._plain(spec["type"], spec["at"], count)]

    def _filled(self, told: list[Any], where: dict[str, Any]) -> list[Any]:
        """Words that stand in a list of another block, at the rank of the row."""
        lists = self.blocks[where["block"]].column(where["list"])
        starts, ranks = self.column(where["from"]), self.column(where["rank"])
        for i, (a, b) in enumerate(itertools.pairwise(starts)):
            for k in range(a, b):
                if told[k] is None and ranks[k] is not None:
                    told[k] = lists[where["first"] + i][ranks[k] - 1]
        return told

    def _words(self, spec: dict[str, Any]) -> list[str]:
        if spec["dictionary"] is not None:
            found: list[str] = self.blocks[spec["dictionary"]].column("word")
            return found
        ends = self._plain("u32", spec["offsets"], spec["entries"] + 1)
        text = self.body[spec["bytes"] : spec["bytes"] + spec["length"]].decode().encode("utf-16-le")
        return [text[2 * a : 2 * b].decode("utf-16-le") for a, b in itertools.pairwise(ends)]

    @staticmethod
    def _number(spec: dict[str, Any], stored: float) -> float | None:
        if stored == spec.get("null") or (isinstance(stored, float) and math.isnan(stored)):
            return None
        if "scale" not in spec:
            return stored
        value: float = spec["zero"] + spec["scale"] * stored
        return value if not spec.get("log") else 0.0 if stored == 0 else math.exp(value)


def read_page(path: Path) -> tuple[dict[str, Any], Blocks]:
    """Return what a page says at once, and its blocks by name."""
    text = path.read_text(encoding="utf-8")
    told = re.search(r'<script type="application/json" id="info">(.*?)</script>', text, re.DOTALL)
    assert told is not None
    blocks: Blocks = {}
    for name, content in re.findall(r'<script type="text/plain" id="block-([^"]+)">([^<]*)</script>', text):
        blocks[name] = Block(content, blocks)
    return json.loads(told[1]), blocks


def undelta(steps: list[int]) -> list[int]:
    """Places from the first and then differences."""
    found: list[int] = []
    for step in steps:
        found.append(step + (found[-1] if found else 0))
    return found

"""The maps' plain functions in Node, held against other implementations of the same: outlines, codes, contrasts, colours."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elute.reports.explorer import pack
from elute.reports.explorer.write import SCRIPTS

PAGE = Path(pack.__file__).parent / "page"
NODE = shutil.which("node")
pytestmark = pytest.mark.skipif(NODE is None, reason="no Node here: install the package nodejs")

# How cones that lack one kind of pigment see linear red, green and blue: Machado, Oliveira, Fernandes, 2009, severity 1.
BLIND = (
    ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
)
TO_LMS = (
    (0.4122214708, 0.5363325363, 0.0514459929),
    (0.2119034982, 0.6806995451, 0.1073969566),
    (0.0883024619, 0.2817188376, 0.6299787005),
)
TO_LAB = ((0.2104542553, 0.7936177850, -0.0040720468), (1.9779984951, -2.4285922050, 0.4505937099), (0.0259040371, 0.7827717662, -0.8086757660))  # fmt: skip


def node(expression: str, *files: str, before: str = "", given: Any = None) -> Any:
    """What an expression is, after these files of the page; `given` are its data."""
    source = "\n".join([before, *((PAGE / f"{name}.js").read_text() for name in files)])
    program = (
        "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        f"{source}\n(async () => process.stdout.write(JSON.stringify(await ({expression}))))();"
    )
    done = subprocess.run(
        [str(NODE), "-e", program], input=json.dumps(given), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


def test_all_files_are_one_program_and_none_is_long(tmp_path: Path) -> None:
    whole = tmp_path / "page.mjs"
    whole.write_text("\n".join((PAGE / f"{name}.js").read_text() for name in SCRIPTS))
    done = subprocess.run([str(NODE), "--check", str(whole)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[:500]
    for path in PAGE.glob("*.js"):
        text = path.read_text()
        assert text.count("\n") <= 300, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path.name
        )
        begins = [
            i
            for i, line in enumerate(text.splitlines())
            if re.match(r"(?:async )?function |  (?:async |get )?\w+\(.*\) \{$", line)
        ]
        ends = [i for i, line in enumerate(text.splitlines()) if re.match(r"(?:  )?\}$", line)]
        for begin in begins:
            assert min((end for end in ends if end > begin), default=begin) - begin < 60, (
                f"{path.name}, line {begin + 1}"
            )


def linear(colours: list[str]) -> Any:
    """Red, green and blue as amounts of light."""
    told = np.array([[int(one[i : i + 2], 16) / 255 for i in (1, 3, 5)] for one in colours])
    return np.where(told <= 0.04045, told / 12.92, ((told + 0.055) / 1.055) ** 2.4)


def lab(light: Any) -> Any:
    return np.cbrt(np.clip(light, 0, None) @ np.array(TO_LMS).T) @ np.array(TO_LAB).T


def nearest(colours: list[str], sight: Any = None) -> float:
    """How far the two that are most alike are from one another in OKLab."""
    light = linear(colours)
    seen = lab(light if sight is None else np.clip(light @ np.array(sight).T, 0, 1))
    apart = np.linalg.norm(seen[:, None] - seen[None], axis=2)
    return float(apart[np.triu_indices(len(colours), 1)].min())


@pytest.mark.parametrize(("theme", "ground"), [("dark", "#0e1217"), ("light", "#ffffff")])
def test_colours_can_be_told_apart_in_both_themes_and_by_the_colour_blind(theme: str, ground: str) -> None:
    told = node(f"MAP_THEMES.{theme}", "palette")
    groups, ramp = told["groups"], told["ramp"]
    assert len(groups) == 20
    assert nearest(groups) > 0.09
    assert nearest([*groups[:8], told["others"]]) > 0.1
    for sight in BLIND:
        assert nearest(groups[:8], sight) > 0.07, "the first ones are the largest groups"
        assert nearest(groups, sight) > 0.043
        steps = lab(np.clip(linear(ramp) @ np.array(sight).T, 0, 1))
        assert np.linalg.norm(np.diff(steps, axis=0), axis=1).min() > 0.03
    bright = linear([*groups, ground]) @ np.array([0.2126, 0.7152, 0.0722]) + 0.05
    ratio = np.maximum(bright[:-1], bright[-1]) / np.minimum(bright[:-1], bright[-1])
    assert ratio.min() > (3 if theme == "dark" else 2)
    lightness = lab(linear(ramp))[:, 0]
    assert (np.diff(lightness) > 0.02).all() if theme == "dark" else (np.diff(lightness) < -0.02).all()
    away = np.abs(lightness - lab(linear([ground]))[0, 0])
    assert away[-1] > away[0], "what is high stands out of the ground"
    assert nearest([told["none"], ramp[0]]) > 0.15


def test_levels_of_numbers_and_what_has_none() -> None:
    told = node(
        "{levels: [...mapLevelsOf(Float32Array.from([0, 1, 2, 3, NaN, 9]), {low: 1, high: 3, aboveZero: true})],"
        " all: [...mapLevelsOf(Float32Array.from([0, -5, 5]), {low: 0, high: 0, aboveZero: false})],"
        " table: [...mapRampTable('dark')].slice(0, 8), last: [...mapRampTable('light')].slice(-4),"
        " themes: ['rgb(14, 18, 23)', 'rgb(255, 255, 255)', 'rgba(0, 0, 0, 0)', 'oops', 'color(srgb 1 1 1)'].map(mapThemeOf)}",
        "palette",
    )
    assert told["levels"] == [0, 1, 128, 255, 0, 255]
    assert told["all"] == [255, 255, 255], "one value for all has one colour"
    assert told["table"] == [0x33, 0x3D, 0x49, 255, 0x04, 0x4F, 0xA3, 255]
    assert told["last"] == [0x32, 0x00, 0x62, 255]
    assert told["themes"][:4] == ["dark", "light", "light", "light"]


def test_the_largest_groups_have_colours_and_high_values_lie_on_top() -> None:
    random = np.random.default_rng(0)
    counts = random.permutation(np.arange(30)).tolist()
    ranks = random.integers(0, 6, 1000).tolist()
    told = node(
        "{...mapSlotsOf(given.counts), order: [...mapSlotsOf(given.counts).order], slots: [...mapSlotsOf(given.counts).slots],"
        " drawn: [...mapOrderOf(Uint16Array.from(given.ranks), 6)], strides: [0, 1, 2, 3, 10, 997].map(mapStride)}",
        "palette",
        given={"counts": counts, "ranks": ranks},
    )
    by_size = sorted((i for i in range(30) if counts[i]), key=lambda i: -counts[i])
    assert told["order"] == by_size
    assert [told["slots"][i] for i in by_size] == [*range(1, 21), *[0] * 9]
    drawn = told["drawn"]
    assert sorted(drawn) == list(range(1000))
    assert [ranks[i] for i in drawn] == sorted(ranks)
    assert max(abs(a - b) for a, b in pairwise(drawn)) > 300, "mixed within a rank"


def turns(path: Any, point: Any) -> int:
    """How often an outline runs around a point: by the angles under which its corners are seen."""
    angles = np.arctan2(path[:, 1] - point[1], path[:, 0] - point[0])
    steps = np.diff(np.append(angles, angles[0]))
    return round(float(((steps + math.pi) % (2 * math.pi) - math.pi).sum()) / (2 * math.pi))


def test_an_outline_holds_what_it_runs_around() -> None:
    random = np.random.default_rng(1)
    points = random.random((400, 2))
    for corners in (3, 7, 60):
        turn = np.sort(random.random(corners)) * 2 * np.pi
        path = 0.5 + (0.1 + 0.4 * random.random((corners, 1))) * np.stack([np.cos(turn), np.sin(turn)], axis=1)
        told = node(
            "(() => { const {flags, count} = mapInside({x: given.x, y: given.y}, given.path); return {flags: [...flags], count}; })()",
            "lasso",
            given={"x": points[:, 0].tolist(), "y": points[:, 1].tolist(), "path": path.ravel().tolist()},
        )
        assert told["flags"] == [abs(turns(path, point)) % 2 for point in points]
        assert told["count"] == sum(told["flags"])
    bow = [0, 0, 1, 1, 1, 0, 0, 1]
    inside = node(
        f"given.map(([x, y]) => mapInPolygon({bow}, x, y))",
        "lasso",
        given=[[0.1, 0.5], [0.9, 0.5], [0.5, 0.1], [0.5, 0.9]],
    )
    assert inside == [True, True, False, False]


def test_an_outline_in_an_address_is_the_outline() -> None:
    turn = np.linspace(0, 2 * np.pi, 3000, endpoint=False)
    path = np.stack([0.5 + 0.3 * np.cos(turn), 0.4 + 0.2 * np.sin(3 * turn) * np.sin(turn)], axis=1).ravel()
    told = node(
        "(() => { const text = mapWriteLasso('cells', given.path), far = mapWriteLasso('features', [-5, 0, 9, 0, 0, 9]);"
        " return {text, read: mapReadLasso(text), far: mapReadLasso(far), none: given.hostile.map((one) => mapReadLasso(one))}; })()",
        "lasso",
        given={
            "path": path.tolist(),
            "hostile": ["", None, "cells:", "cells:abc", "genes:" + "0" * 18, "cells:" + "<img src=x>" * 9, "cells:" + "0" * 6000, "cells:000000000000000"],
        },
    )  # fmt: skip
    assert len(told["text"]) <= 700
    assert told["read"]["side"] == "cells"
    read = np.array(told["read"]["path"]).reshape(-1, 2)
    gap = np.linalg.norm(path.reshape(-1, 1, 2) - read[None], axis=2).min(axis=1)
    assert gap.max() < 0.02
    assert np.allclose(told["far"]["path"], [-0.2, 0, 1.2, 0, 0, 1.2], atol=1e-4), "what lies far out is cut"
    assert told["none"] == [None] * 8


@pytest.fixture(scope="module")
def coded() -> dict[str, Any]:
    """Codes of 300 cells by 40 features, as a block and as they are."""
    random = np.random.default_rng(2)
    codes = np.where(random.random((300, 40)) < random.random(40) * 0.6, random.integers(1, 256, (300, 40)), 0)
    codes[:, 5] = 0
    codes[:50, 7] = 250
    inside = random.random(300) < 0.2
    inside[:50] = True
    top = random.random(40).astype(np.float32) * 9 + 1
    at = [np.flatnonzero(column) for column in codes.T]
    ends = np.cumsum([0, *map(len, at)])
    block = {
        "top": pack.exact(top),
        "cells": pack.Lists(ends, pack.whole(np.concatenate([np.diff(one, prepend=0) for one in at]))),
        "values": pack.Lists(ends, pack.Numbers(np.concatenate([codes[one, i] for i, one in enumerate(at)]).astype(np.uint8))),
    }  # fmt: skip
    return {"block": pack.pack(block), "codes": codes, "top": top, "inside": inside}


OPENED = "globalThis.document = {getElementById: (id) => (id === 'info' ? {textContent: '{}'} : id === 'block-b' ? {textContent: given.block} : null)};"


def run_codes(coded: dict[str, Any], expression: str, **given: Any) -> Any:
    """What an expression says of the decoded codes."""
    return node(
        f"openBlock('b').then((block) => {{ const codes = mapDecode(block), flags = Uint8Array.from(given.inside ?? []); return {expression}; }})",
        "pack",
        "lasso",
        before=OPENED,
        given={"block": coded["block"], **given},
    )


def test_lists_of_cells_that_are_kept_as_differences(coded: dict[str, Any]) -> None:
    told = run_codes(coded, "Array.from({length: 40}, (_, row) => [...mapSpread(codes, row, 300)])")
    assert np.allclose(np.array(told).T, coded["codes"] * coded["top"] / 255, rtol=1e-5)


def test_features_inside_a_lasso_against_all_of_them_worked_out(coded: dict[str, Any]) -> None:
    inside = coded["inside"]
    told = run_codes(
        coded,
        "{rows: mapStrongest(mapContrasts(codes, {flags, count: given.count, first: 256}), 30),"
        " chance: mapByChance(codes, {count: given.count, first: 256, draws: [flags]})}",
        inside=inside.astype(int).tolist(),
        count=int(inside.sum()),
    )
    values = coded["codes"] * coded["top"] / 255
    expected = []
    for i, column in enumerate(values.T):
        here, rest = column[inside], column[~inside]
        if not column.any():
            continue
        prior = 3 * column.var(ddof=1)
        error = sum((part.var() * len(part) + prior) / (len(part) + 2) / len(part) for part in (here, rest))
        expected.append(((here.mean() - rest.mean()) / math.sqrt(error), i, here, rest))
    expected = sorted((row for row in expected if row[0] > 0), key=lambda row: -row[0])[:30]
    assert [row["place"] - 256 for row in told["rows"]] == [i for _, i, _, _ in expected]
    assert told["rows"][0]["place"] == 256 + 7, "the one that was made for it"
    for row, (contrast, _, here, rest) in zip(told["rows"], expected, strict=True):
        assert row["contrast"] == pytest.approx(contrast, rel=1e-6)
        assert row["mean"] == pytest.approx(here.mean(), rel=1e-6)
        assert row["meanRest"] == pytest.approx(rest.mean(), rel=1e-6)
        assert (row["fires"], row["firesRest"]) == ((here > 0).sum(), (rest > 0).sum())
    assert told["chance"] == pytest.approx(expected[0][0])


def test_how_strongly_chosen_features_fire_in_cells(coded: dict[str, Any]) -> None:
    chosen = np.zeros(296, int)
    chosen[[256 + 3, 256 + 5, 256 + 7, 256 + 30]] = 1
    told = run_codes(
        coded,
        "(() => { const sums = new Float32Array(300); return {fire: mapAddStrength(codes, {flags: given.chosen, first: 256, sums}), sums: [...sums]}; })()",
        chosen=chosen.tolist(),
    )
    assert told["fire"] == 3, "one of them never does"
    assert np.allclose(told["sums"], coded["codes"][:, [3, 7, 30]].sum(axis=1) / 255, rtol=1e-5)


def test_cells_drawn_at_random_are_as_many_and_the_same_each_time() -> None:
    told = node("[1, 2, 3, 4].map((seed) => [...mapDraw(1000, 137, seed)]).concat([[...mapDraw(1000, 137, 1)], [...mapDraw(5, 5, 1)], [...mapDraw(5, 0, 1)]])", "lasso")  # fmt: skip
    assert [sum(flags) for flags in told] == [137, 137, 137, 137, 137, 5, 0]
    assert told[4] == told[0] != told[1]
    both = np.array(told[:4]).sum(axis=0)
    quarters = [sum(both[i : i + 250]) for i in range(0, 1000, 250)]
    assert min(quarters) > 90
    assert max(quarters) < 185


def test_the_nearest_point_is_the_nearest_point() -> None:
    random = np.random.default_rng(4)
    points = np.round(random.random((500, 2)), 3)
    points[::50] = -9  # these have no place
    asked = random.random((200, 2)) * 1.2 - 0.1
    told = node(
        "(() => { const grid = mapGrid({x: Float32Array.from(given.x), y: Float32Array.from(given.y)});"
        " return given.asked.map(([x, y]) => mapNearest(grid, x, y, 0.04)); })()",
        "grid",
        given={"x": points[:, 0].tolist(), "y": points[:, 1].tolist(), "asked": asked.tolist()},
    )
    found = 0
    for place, i in zip(asked, told, strict=True):
        away = np.linalg.norm(points - place, axis=1)
        if i < 0:
            assert away.min() > 0.04 - 1e-6
            continue
        found += 1
        assert away[i] == pytest.approx(away.min(), abs=1e-6)
    assert 100 < found < 200


def test_points_keep_their_shape_and_those_without_a_place_stay_out() -> None:
    told = node("(({x, y, width, height}) => ({x: [...x], y: [...y], width, height}))(mapUnits({x: [0, 4, NaN, 2], y: [10, 12, 3, 11]}))", "grid")  # fmt: skip
    assert (told["width"], told["height"]) == (1, 0.5)
    assert told["x"] == [0, 1, -9, 0.5]
    assert told["y"] == [0.5, 0, -9, 0.25], "y points up in the data, and down on a screen"

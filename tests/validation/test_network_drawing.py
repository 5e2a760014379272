"""The drawing: whole, readable, safe whatever genes are called, and the same each time."""

from __future__ import annotations

import itertools
import re
from typing import Any
from xml.etree import ElementTree as ET

import networkx as nx
import numpy as np
import polars as pl
import pytest

from elute.base.errors import DataError
from elute.validation.background import Background
from elute.validation.network import Network, SubNetwork, network_of, sub_network
from elute.validation.network_drawing import MOST, NAMED, draw, layout
from elute.validation.network_modules import modules_of

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ET.Element:
    return ET.fromstring(svg)  # noqa: S314


def network(graph: Any, *, more: int = 0, called: dict[int, str] | None = None, score: float = 0.9) -> Network:
    names = [(called or {}).get(i, f"GENE{i}") for i in range(len(graph) + more)]
    table = pl.DataFrame(
        [(names[a], names[b], score) for a, b in graph.edges()], schema=["gene", "label", "score"], orient="row"
    )
    return network_of(table, Background(tuple(names), "made up"))


def whole(known: Network) -> SubNetwork:
    return sub_network(known, range(len(known.names)))


def fifty() -> SubNetwork:
    """50 genes: three dense modules, links between them, pairs of their own, and genes without any."""
    graph = nx.disjoint_union_all([nx.complete_graph(14), nx.complete_graph(10), nx.path_graph(9), nx.star_graph(6)])
    graph.add_edges_from([(0, 14), (1, 15), (3, 24), (13, 30), (40, 41), (42, 43)])
    return whole(network(graph, more=6))


def test_a_drawing_is_whole() -> None:
    sub = fifty()
    modules = modules_of(sub)
    svg = draw(sub, modules, title="Feature 7", p=[0.005] * len(modules.sizes))
    root = parse(svg)
    texts = [text.text or "" for text in root.iter(f"{SVG}text")]
    labels = [text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"]
    linked = [sub.names[i] for i in np.flatnonzero(sub.inside)]
    assert sorted(map(str, labels)) == sorted(linked)
    assert texts[0] == "Feature 7"
    assert "module 1: 14 genes, p = 0.005" in texts
    assert {"score 0.7", "score 1"} <= set(texts)
    alone = " ".join(texts[texts.index("score 1") + 1 :])
    assert alone == "No interaction of 0.7 or more here: " + ", ".join(np.array(sub.names)[sub.inside == 0])
    ends = [line for line in root.iter(f"{SVG}line") if "x1" in line.attrib and line.get("x1") != "0"]
    assert len(ends) == sub.inside.sum() // 2
    assert root.get("aria-label") == "Feature 7: 50 genes, 156 interactions"
    assert root.get("role") == "img"
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert f"GENE0: {sub.inside[0]} interactions here, {sub.inside[0]} in all, module 1" in titles


def test_lines_lie_between_the_genes_that_interact() -> None:
    sub = fifty()
    root = parse(draw(sub, modules_of(sub)))
    places = {(f"{p.x:.1f}", f"{p.y:.1f}"): p.gene for p in layout(sub, modules_of(sub), np.flatnonzero(sub.inside))}
    lines = [tuple(line.get(k, "") for k in ("x1", "y1", "x2", "y2")) for line in root.iter(f"{SVG}line")]
    found = {frozenset((places[x[:2]], places[x[2:]])) for x in lines if x[:2] in places}
    links = sub.scores.tocoo()
    assert found == {frozenset(pair) for pair in zip(links.row.tolist(), links.col.tolist(), strict=True)}


@pytest.mark.parametrize("graph", [nx.complete_graph(50), nx.path_graph(50), nx.empty_graph(0), nx.star_graph(49)])
def test_no_marks_or_labels_overlap_and_all_lie_inside(graph: Any) -> None:
    sub = fifty() if not len(graph) else whole(network(graph))
    modules = modules_of(sub)
    places = layout(sub, modules, np.flatnonzero(sub.inside))
    boxes = []
    for p in places:
        half = max(p.radius, 3.6 * len(sub.names[p.gene]))
        boxes.append((p.x - half, p.y - p.radius, p.x + half, p.y + p.radius + 16))
    for one, other in itertools.combinations(boxes, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (one, other)
    root = parse(draw(sub, modules))
    _, _, width, height = map(float, (root.get("viewBox") or "").split())
    assert width <= 1400
    assert height <= 1400
    assert min(box[0] for box in boxes) >= 0
    assert max(box[2] for box in boxes) <= width


def test_a_drawing_is_the_same_each_time() -> None:
    sub = fifty()
    assert draw(sub, modules_of(sub)) == draw(fifty(), modules_of(fifty()))


EVIL = {0: '<script>alert("1")</script>', 1: "a&b'c", 2: "x\x00\x1b[31m\ny", 3: "]]></svg>"}


def test_names_cannot_break_out() -> None:
    sub = whole(network(nx.complete_graph(4), more=1, called={**EVIL, 4: "<img src=x>"}))
    svg = draw(sub, modules_of(sub), title="<b>&\x07 title")
    root = parse(svg)
    assert {element.tag for element in root.iter()} == {
        SVG + name for name in ("svg", "style", "g", "text", "line", "circle", "title")
    }
    labels = {text.text for text in root.iter(f"{SVG}text") if text.get("class") == "name"}
    assert labels == {EVIL[0], EVIL[1], "x  [31m y", EVIL[3]}
    assert "<script" not in svg


def test_modules_differ_by_colour_and_by_shape() -> None:
    graph = nx.disjoint_union_all([nx.complete_graph(9 - i) for i in range(7)])
    sub = whole(network(graph))
    svg = draw(sub, modules_of(sub))
    root = parse(svg)
    colours = dict(re.findall(r"\.mark\.m(\d) \{ fill: (#\w{6}) \}", svg))
    assert len(set(colours.values())) == 7
    shapes = {}
    for mark in [*root.iter(f"{SVG}circle"), *root.iter(f"{SVG}polygon")]:
        points = [tuple(map(float, point.split(","))) for point in (mark.get("points") or "").split()]
        turned = bool(points) and len({x for x, _ in points}) > 2
        upwards = bool(points) and points[0][1] < points[1][1]
        shapes.setdefault(mark.get("class"), (len(points), turned, upwards))
    assert len({shapes[f"mark m{i}"] for i in range(6)}) == 6
    assert "1 more module: 3 genes" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_page_s_own_rules_for_svg_do_not_reach_it() -> None:
    """Pages say `svg line { stroke: … }`: what is told by attributes would be lost, so all is told by class."""
    svg = draw(fifty(), modules_of(fifty()))
    assert not re.search(r" (stroke|fill)=", svg)
    rules = re.findall(r"^(svg\S.*?) \{", svg, re.MULTILINE)
    assert len(rules) > 15
    assert all(rule.startswith("svg.elute-network") for rule in rules)
    # What does not know of light-dark shows the colours for a light page.
    for declared in re.findall(r"(\w+): light-dark\((#\w+), (#\w+)\)", svg):
        assert f"{declared[0]}: {declared[1]}; {declared[0]}: light-dark(" in svg


def test_lists_without_interactions_and_very_long_ones_can_be_drawn() -> None:
    graph = nx.random_regular_graph(4, 200, seed=1)
    known = network(graph, more=100)
    none = sub_network(known, range(200, 300))
    words = " ".join(text.text or "" for text in parse(draw(none, modules_of(none))).iter(f"{SVG}text"))
    assert words.startswith("No interaction of 0.7 or more here: GENE200, GENE201")
    assert words.endswith(f"and {100 - NAMED} more")
    sub = whole(known)
    root = parse(draw(sub, modules_of(sub)))
    assert sum(text.get("class") == "name" for text in root.iter(f"{SVG}text")) == MOST
    assert "80 genes with the fewest interactions not drawn" in [text.text for text in root.iter(f"{SVG}text")]
    one = whole(network(nx.path_graph(2), score=1.0))
    assert 'stroke-width="2.50"' in draw(one, modules_of(one))


def test_modules_of_another_list_are_refused() -> None:
    sub = fifty()
    other = sub_network(sub.network, range(20))
    with pytest.raises(DataError, match="the modules are not of this sub-network"):
        draw(other, modules_of(sub))
    with pytest.raises(DataError, match="the modules are not of this sub-network"):
        draw(sub, modules_of(sub), p=[0.1])

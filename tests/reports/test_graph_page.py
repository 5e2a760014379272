"""The page of an attribution graph: what lies in it, what is worked out, and what is refused."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.graphs.schema import cantor, faults
from elute.graphs.scores import Scores
from elute.reports.graphs.checks import checks_of
from elute.reports.graphs.write import EXPLORER, PAGE, SCRIPTS, SHARED, write_graph_page

HOSTILE = "</script><img src=x onerror=\"document.title='owned'\">\u2028{{style}}\u202e"
NODE = shutil.which("node")


def node_of(kind: str, layer: int, place: int, *, position: int = 0, **told: Any) -> dict[str, Any]:
    """A node as graph files have it."""
    last = f"{place}_{position}"
    stands = {
        "feature": (f"{layer}_{last}", cantor(layer, max(place, 0)), str(layer), "cross layer transcoder"),
        "error": (f"{layer}_-1_{position}", -1, str(layer), "mlp reconstruction error"),
        "token": (f"E_{last}", position, "E", "embedding"),
        "logit": (f"{layer}_{last}", place, str(layer), "logit"),
    }
    name, feature, where, full = stands[kind]
    spot = {"feature": f"{layer}_{place}-0", "error": f"{layer}_{position}-e", "token": f"E_{place}-{position}"}
    return {
        "node_id": name,
        "feature": feature,
        "layer": where,
        "ctx_idx": position,
        "feature_type": full,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": spot.get(kind, f"L_{place}-{position}"),
        "clerp": "",
        **told,
    }


def content_of(nodes: list[dict[str, Any]], links: list[tuple[str, str, float]], **metadata: Any) -> dict[str, Any]:
    """A graph file's content."""
    prompt = [f"node {i}" for i in range(1 + max(one["ctx_idx"] for one in nodes))]
    known = {"slug": "made", "scan": "made up", "transcoder_list": [], "prompt_tokens": prompt, "prompt": "a tour"}
    params = {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""}
    told = [{"source": a, "target": b, "weight": w} for a, b, w in links]
    return {"metadata": {**known, "schema_version": 1, **metadata}, "qParams": params, "nodes": nodes, "links": told}


def worked() -> dict[str, Any]:
    """The small graph whose scores are known by hand: two features, two errors, two tokens, one output."""
    nodes = [
        node_of("feature", 0, 0, activation=2.0),
        node_of("feature", 1, 0, activation=1.0, clerp="goes on"),
        node_of("error", 0, -1),
        node_of("error", 1, -1),
        node_of("token", -1, 0, position=0),
        node_of("token", -1, 1, position=1),
        node_of("logit", 3, 4, token_prob=1.0, is_target_logit=True, clerp='Output "node 4" (p=1.000)'),
    ]
    names = [one["node_id"] for one in nodes]
    links = [(4, 0, 2.0), (0, 1, 1.0), (5, 1, 1.0), (2, 1, 0.5), (1, 6, 3.0), (3, 6, 1.0)]
    return content_of(nodes, [(names[a], names[b], w) for a, b, w in links])


def made(*, layers: int = 6, positions: int = 12, features: int = 160, links: int = 2500, seed: int = 0, hostile: bool = False) -> dict[str, Any]:  # fmt: skip
    """A graph of random features and links, all of which lead upwards and onwards."""
    rng = np.random.default_rng(seed)
    name = HOSTILE if hostile else ""
    nodes = [node_of("token", -1, 100 + p, position=p, clerp=f"node {p}{name}") for p in range(positions)]
    nodes += [node_of("error", layer, -1, position=p) for layer in range(layers) for p in range(positions)]
    spots: set[tuple[int, int, int]] = set()
    while len(spots) < features:
        spots.add((int(rng.integers(layers)), int(rng.integers(400)), int(positions * rng.beta(1.5, 1.0))))
    for layer, feature, p in sorted(spots):
        label = f"near the {feature}th place{name}" if feature % 3 else ""
        nodes.append(node_of("feature", layer, feature, position=p, activation=float(rng.exponential(2)), clerp=label))
    chances = rng.dirichlet(np.ones(5) / 2)
    for i, chance in enumerate(sorted(chances.tolist(), reverse=True)):
        clerp = f'Output "node {i + 3}" (p={chance:.3f})'
        place = positions - 1
        nodes.append(node_of("logit", layers + 1, i + 3, position=place, token_prob=chance, is_target_logit=i == 0, clerp=clerp))  # fmt: skip
    height = [-1 if one["layer"] == "E" else int(one["layer"]) for one in nodes]
    where = [one["ctx_idx"] for one in nodes]
    found: dict[tuple[int, int], float] = {}
    kinds = [one["feature_type"] for one in nodes]
    while len(found) < links:
        drawn = rng.integers(len(nodes), size=(4 * links, 2)).tolist()
        sizes = (rng.normal(size=4 * links) * rng.exponential(size=4 * links)).tolist()
        for (a, b), size in zip(drawn, sizes, strict=True):
            fits = height[a] < height[b] and where[a] <= where[b] and kinds[a] != "logit"
            if fits and kinds[b] in ("cross layer transcoder", "logit") and len(found) < links:
                found[a, b] = size
    names = [one["node_id"] for one in nodes]
    return content_of(nodes, [(names[a], names[b], w) for (a, b), w in sorted(found.items())])


def tour(positions: int = 12, seed: int = 3) -> dict[str, Any]:
    """An instance beside a graph."""
    rng = np.random.default_rng(seed)
    return {"kind": "tour", "coords": rng.uniform(size=(positions, 2)), "tour": rng.permutation(positions), "at": 4}


def checked(name: str = "cross-layer transcoder") -> dict[str, Any]:
    """Checks as a run has them."""
    edges = pl.DataFrame({"source": ["a", "a", "b"], "target": ["b", "c", "c"], "difference": [1e-7, 3e-6, 2e-9]})
    agreement = {"features": 100.0, "change": 0.61, "change_p": 1e-9, "control_change": 0.22, "control_change_p": 0.03}
    agreement |= {"kl": 0.58, "kl_p": 1e-8, "control_kl": 0.19, "control_kl_p": 0.06}
    agreement |= {"within": 0.41, "control_within": float("nan")}
    return checks_of(name, scores=Scores(0.62, 0.84), kept=Scores(0.55, 0.8), edges=edges, agreement=agreement, nodes=249, links=2500)  # fmt: skip


def inside(path: Path) -> dict[str, Any]:
    """What the page is given."""
    text = re.search(r'<script type="text/plain" id="data">([^<]*)</script>', path.read_text())
    assert text is not None
    found: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(text[1])))
    return found


def test_the_file_lies_in_the_page_whole_with_what_follows_from_it(tmp_path: Path) -> None:
    content = worked()
    assert list(faults(content)) == []
    told = inside(write_graph_page(tmp_path / "graphs" / "graph.html", content, title="Tour 1"))
    assert told["content"] == content
    assert told["flow"] == pytest.approx([0.3, 0.75, 0.15, 0.25, 0.3, 0.3, 0.0])
    assert told["scores"] == pytest.approx({"replacement": 0.6, "completeness": 0.868852}, abs=1e-6)
    wanted = [0.5122, 0.3659, 1, 0.9268, 0.6585, 0.8049]
    assert told["cumulative"][:6] == pytest.approx(wanted, abs=1e-4)
    assert told["cumulative"][6] is None
    assert told["features"] == [0, 0, -1, -1, 0, 1, 4]
    assert told["checks"] is None
    assert told["beside"] == {}


def test_a_file_without_influence_gets_what_its_flow_adds_up_to(tmp_path: Path) -> None:
    content = worked()
    for node, told in zip(content["nodes"], [0.9, 0.8, 1.0, 1.0, 0.95, 1.0, None], strict=True):
        node["influence"] = told
    told = inside(write_graph_page(tmp_path / "graph.html", content, title="t"))
    assert told["cumulative"] == [0.9, 0.8, 1.0, 1.0, 0.95, 1.0, None], "the file's own, of the graph before pruning"
    content["nodes"][2]["influence"] = None
    told = inside(write_graph_page(tmp_path / "graph.html", content, title="t"))
    assert told["cumulative"][1] == pytest.approx(0.3659, abs=1e-4)


def test_a_file_and_its_content_give_the_same_page_and_again(tmp_path: Path) -> None:
    content = made(features=30, links=200)
    (tmp_path / "made.json").write_text(json.dumps(content))
    given: dict[str, Any] = {"title": "Tour 1", "checks": checked(), "beside": tour()}
    first = write_graph_page(tmp_path / "a.html", content, **given).read_bytes()
    assert write_graph_page(tmp_path / "b.html", tmp_path / "made.json", **given).read_bytes() == first
    assert b"\r" not in first


def test_nothing_in_a_name_becomes_html_and_only_this_program_may_run(tmp_path: Path) -> None:
    content = made(features=30, links=200, hostile=True)
    content["metadata"]["prompt_tokens"] = [HOSTILE] * 12
    content["qParams"]["supernodes"] = [[HOSTILE, content["nodes"][-6]["node_id"]]]
    content["metadata"]["info"] = {"bad": float("nan"), HOSTILE: HOSTILE, "half": "\ud800"}
    beside = {**tour(), "features": {HOSTILE: {"label": HOSTILE, "examples": [{"what": HOSTILE, "value": 1.0}]}}}
    path = write_graph_page(tmp_path / "graph.html", content, title=HOSTILE, checks=checked(HOSTILE), beside=beside)
    text = path.read_text()
    assert "<img" not in text
    assert text.count("<script") == 2
    assert text.count("</script>") == 2
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy is not None
    for kind in ("style", "script"):
        held = re.search(rf"<{kind}(?: type=\"module\")?>(.*?)</{kind}>", text, re.DOTALL)
        assert held is not None
        digest = base64.b64encode(hashlib.sha256(held[1].encode()).digest()).decode()
        assert f"{kind}-src &#x27;sha256-{digest}&#x27;" in policy[1]
    for rule in ("default-src &#x27;none&#x27;", "connect-src &#x27;none&#x27;"):
        assert rule in policy[1]
    told = inside(path)
    assert told["content"]["qParams"]["supernodes"][0][0] == HOSTILE
    assert told["content"]["metadata"]["info"]["bad"] is None


def test_checks_are_told_beside_their_controls_and_what_was_published(tmp_path: Path) -> None:
    checks = checked()
    json.dumps(checks, allow_nan=False)
    assert checks["edges"] == {"edges": 3, "sources": 2, "largest": 3e-6, "tolerance": 1e-4}
    assert checks["agreement"]["control_within"] is None
    checks["others"] = [checked("per-layer transcoders")]
    mean = {"change": 0.5, "control_change": 0.3, "within": 0.2, "control_within": 0.1}
    checks["elsewhere"] = {"inputs": [{"instance": "a"}, {"instance": "b"}], "mean": mean}
    told = inside(write_graph_page(tmp_path / "graph.html", worked(), title="t", checks=checks))["checks"]
    assert told["name"] == "cross-layer transcoder"
    assert (told["scores"]["replacement"], told["kept"]["completeness"]) == (0.62, 0.8)
    assert (told["agreement"]["change"], told["agreement"]["control_change"]) == (0.61, 0.22)
    assert told["further"] == {**mean, "kl": None, "control_kl": None, "inputs": 2}
    names = [one["name"] for one in told["others"]]
    assert names == ["per-layer transcoders", "published, cross-layer", "published, per layer"]
    assert told["others"][1]["agreement"]["kl"] == 0.72
    for broken in ([], {"others": 3}, {"others": [3]}):
        with pytest.raises(ConfigError, match="checks"):
            write_graph_page(tmp_path / "graph.html", worked(), title="t", checks=broken)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("beside", "fault"),
    [
        ({"kind": "map"}, "of kind 'map'"),
        ({"kind": "tour", "coords": [[0, 1, 2]], "tour": []}, "no pairs of numbers"),
        ({"kind": "tour", "coords": [[0, 1]], "tour": [1]}, "no place of 1"),
        ({"kind": "tour", "coords": [[0, 1]], "tour": [0], "at": 4}, "no place of 1"),
        ({"kind": "genes", "genes": ["A"], "values": []}, "1 genes and 0 values"),
        ({"kind": "genes", "genes": ["A"] * 9, "values": [1.0] * 9}, "the graph 2 positions"),
        ({"kind": "genes", "genes": "AB", "values": [1.0, 2.0]}, "genes that are no list"),
        ({"features": {"0_0": {"link": "javascript:alert(1)"}}}, "leads to no page"),
        ({"features": {"0_0": {"link": "//elsewhere.org/a"}}}, "leads to no page"),
        ({"features": {"0_0": {"examples": [{"what": "x", "value": "high"}]}}}, "which is no number"),
        ({"features": [1]}, "features that are no object"),
    ],
)
def test_what_cannot_stand_beside_a_graph_is_refused(tmp_path: Path, beside: dict[str, Any], fault: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(fault)):
        write_graph_page(tmp_path / "graph.html", worked(), title="t", beside=beside)
    assert not (tmp_path / "graph.html").exists()


def test_what_stands_beside_may_be_arrays(tmp_path: Path) -> None:
    features = {"0_0": {"label": "far", "facts": {"density": np.float32(0.5), "kind": "local"}, "link": "../f/1.html"}}
    told = inside(write_graph_page(tmp_path / "g.html", made(), title="t", beside={**tour(), "features": features}))
    beside = told["beside"]
    assert beside["positions"] == list(range(12))
    assert sorted(beside["tour"]) == list(range(12))
    assert beside["features"]["0_0"]["facts"] == {"density": 0.5, "kind": "local"}
    genes = {"kind": "genes", "genes": np.array(["CD19", "MS4A1"]), "values": np.array([1.5, np.nan])}
    told = inside(write_graph_page(tmp_path / "g.html", worked(), title="t", beside=genes))
    assert told["beside"]["values"] == [1.5, None]


def test_what_is_no_graph_is_refused_in_one_line(tmp_path: Path) -> None:
    content = worked()
    content["links"].append({"source": "1_0_0", "target": "0_0_0", "weight": 1.0})
    with pytest.raises(DamagedError, match="its links go in circles"):
        write_graph_page(tmp_path / "graph.html", content, title="t")
    content["links"][-1]["target"] = "9_9_9"
    with pytest.raises(DataError, match="'9_9_9', which is no node"):
        write_graph_page(tmp_path / "graph.html", content, title="t")
    (tmp_path / "broken.json").write_text("[1")
    with pytest.raises(DamagedError, match="is not a graph file"):
        write_graph_page(tmp_path / "graph.html", tmp_path / "broken.json", title="t")
    assert not (tmp_path / "graph.html").exists()


def test_a_large_graph_is_some_megabytes(tmp_path: Path) -> None:
    path = write_graph_page(tmp_path / "graph.html", made(features=900, links=20_000), title="t")
    assert path.stat().st_size < 1_500_000


@pytest.mark.skipif(NODE is None, reason="no Node here: install the package nodejs")
def test_all_files_are_one_program_and_none_is_long(tmp_path: Path) -> None:
    whole = tmp_path / "page.mjs"
    places = [*(EXPLORER / f"{name}.js" for name in SHARED), *(PAGE / f"{name}.js" for name in SCRIPTS)]
    assert {place.name for place in places[len(SHARED) :]} == {place.name for place in PAGE.glob("*.js")}
    whole.write_text("\n".join(place.read_text() for place in places))
    done = subprocess.run([str(NODE), "--check", str(whole)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr[:500]
    for path in PAGE.glob("*.js"):
        text = path.read_text()
        assert text.count("\n") <= 300, path.name
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            path.name
        )

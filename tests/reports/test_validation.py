"""The report of a validated run: what its file holds, that nothing in it can break out, and that its numbers are the tables'."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
import time
import xml.etree.ElementTree as ET
import zlib
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import DamagedError, DataError
from elute.reports import validation_charts, validation_chunks, validation_encoding, validation_tree
from elute.reports.validation import write_charts, write_report
from elute.reports.validation_svg import LONGEST, chance, cut, number, plain, ticks
from elute.reports.validation_tables import read_site
from elute.reports.validation_volcano import volcano
from elute.validation import library, snapshots
from elute.validation.reading.obo import Ontology, read_obo

HOSTILE = "</script><img src=x onerror=document.title='owned'>"
GENES = (  # noqa: SIM905 a list of words is read more easily
    "MYH7 TNNT2 TTN LMNA MYBPC3 TPM1 ACTC1 TNNI3 MYL2 MYL3 PLN RYR2 DES NPPA NPPB CD79A MS4A1 CD79B CD19 BANK1 LYZ CST3 "
    "S100A8 S100A9 CD14 FCGR3A NKG7 GNLY GZMB PRF1 CD3D CD3E CD2 IL7R CCR7 LEF1 TCF7 HBB HBA1 HBA2 ALAS2 COL1A1 COL1A2 "
    "COL3A1 DCN LUM VWF PECAM1 CDH5 KDR HLA-DRA CD74 MALAT1 TMSB4X RPS24 RPL13 EEF1A1 MKI67 TOP2A CDK1 CCNB1 PCNA STMN1"
).split()
TERMS = ("Striated muscle contraction", "Cardiac conduction", "Neutrophil degranulation", "TCR signaling")
DOES = ("Regulation of", "Signaling by", "Assembly of", "Degradation of", "Transport of", "Activation of", "Defective")
WHAT = (
    "the proteasome",
    "ERBB2",
    "mRNA splicing",
    "mitochondrial translation",
    "the inflammasome",
    "Rho GTPases",
    "iron",
)
# Each term, what it is called, and what it lies below.
TREE = (
    ("HP:0000001", "All", ""),
    ("HP:0000118", "Phenotypic abnormality", "HP:0000001"),
    ("HP:0001626", "Abnormality of the cardiovascular system", "HP:0000118"),
    ("HP:0030680", "Abnormal cardiovascular system morphology", "HP:0001626"),
    ("HP:0001627", "Abnormal heart morphology", "HP:0030680"),
    ("HP:0001637", "Abnormal myocardium morphology", "HP:0001627"),
    ("HP:0001638", "Cardiomyopathy", "HP:0001637"),
    ("HP:0001644", "Dilated cardiomyopathy", "HP:0001638"),
    ("HP:0001639", "Hypertrophic cardiomyopathy", "HP:0001638"),
    ("HP:0001871", "Abnormality of blood", "HP:0000118"),
    ("HP:0001877", "Abnormal erythrocyte morphology", "HP:0001871"),
    ("HP:0001903", "Anemia", "HP:0001877"),
)
PHENOTYPES = [TREE[i] for i in (2, 4, 5, 6, 7, 8, 11)]
SNAPSHOTS = {"reactome": "Reactome 2021-12", "go": "Gene Ontology 2025-03", "hpo": "HPO 2025-01-16"}


def ontology(folder: Path) -> Ontology:
    """A small piece of HPO."""
    stanzas = [f"[Term]\nid: {t}\nname: {name}\n" + (f"is_a: {up}\n" if up else "") for t, name, up in TREE]
    path = folder / "hp.obo"
    path.write_text("format-version: 1.2\nontology: hp\n\n" + "\n".join(stanzas))
    return read_obo(path)


def make_validated(
    folder: Path,
    *,
    features: int = 160,
    terms: int = 60,
    names: dict[str, str] | None = None,
    held: bool = True,
    sources: tuple[str, ...] = ("reactome", "go", "hpo"),
) -> Path:
    """Write one site as validation leaves it; `names` replaces genes, terms and titles, to see what becomes of them."""
    names = names or {}
    rng = np.random.default_rng(3)
    (folder / "validation").mkdir(parents=True, exist_ok=True)
    genes = [names.get(g, g) for g in GENES] + [f"GENE{i}" for i in range(200 if features < 1000 else 6000)]
    weights = np.log(1 / np.arange(3, len(genes) + 3))
    picks = np.argsort(rng.gumbel(size=(features, len(genes))).astype(np.float32) + weights, axis=1)[:, -50:]
    alive = np.arange(features) % 17 != 16
    lists = [[genes[g] for g in row] if live else [] for row, live in zip(picks.tolist(), alive, strict=True)]
    tables = {source: table_of(rng, source, lists, terms, names=names, held=held) for source in sources}
    for source, table in tables.items():
        table.write_parquet(folder / "validation" / f"{source}.parquet")
    best = tables[sources[0]].sort("q", "term").unique("feature", keep="first").filter(pl.col("q") <= 0.05)
    called = dict(best.select("feature", "label").iter_rows())
    rows = [
        {
            "feature": f, "alive": bool(alive[f]), "frequency": float(rng.uniform(1e-4, 0.2)) if alive[f] else 0.0,
            "kind": "cell state" if alive[f] else "silent", "cell_type": "CD14+ monocyte" if alive[f] else None,
            "auroc": 0.91, "auroc_shown": 0.87 if held else None, "cell_type_donors": 8 if held else None,
            "top_genes": lists[f][:10], "name": called.get(f), "name_confidence": round(float(rng.uniform(0.2, 0.9)), 2),
            "name_reason": f"8 of its 50 genes are in {called[f]}." if f in called else None,
            "name_source": sources[0] if f in called else None, "name_term": "R-HSA-390522" if f in called else None,
        }
        for f in range(features)
    ]  # fmt: skip
    kinds: dict[str, Any] = {"feature": pl.Int32, "cell_type_donors": pl.Int32, "auroc_shown": pl.Float64}
    kinds |= {"name": pl.String, "name_reason": pl.String, "name_source": pl.String, "name_term": pl.String}
    pl.DataFrame(rows, schema_overrides=kinds, infer_schema_length=None).write_parquet(folder / "features.parquet")
    listed = pl.DataFrame(
        {"feature": range(features), "symbol": lists}, {"feature": pl.Int32, "symbol": pl.List(pl.String)}
    )
    listed = listed.filter(pl.col("symbol").list.len() > 0).explode("symbol")
    listed.with_columns(rank=pl.int_range(1, pl.len() + 1).over("feature")).write_parquet(
        folder / "feature_genes.parquet"
    )
    edges = rng.poisson(9, features)
    network = {
        "feature": np.arange(features, dtype=np.int32), "genes": np.full(features, 31, np.int32), "edges": edges.astype(np.int32),
        "expected": np.full(features, 8.7), "p": np.exp(-edges / 3.0), "q": np.exp(-edges / 4.0),
        "null_p": np.exp(-edges / 5.0), "q_null": np.exp(-edges / 3.5), "hubs": [row[:3] for row in lists],
    }  # fmt: skip
    pl.DataFrame(network).write_parquet(folder / "validation" / "string-db.parquet")
    told = {"at": 0.8, "databases": databases(tables, features, names=names, held=held), "fdr": 0.05, "top_n_genes": 50}
    told |= {"kin": [["hpo", "omim"], ["reactome"], ["hpo", "go"]], "notes": ["random weights: not run"]}
    (folder / "validation" / "summary.json").write_text(json.dumps(told))
    return folder


def table_of(
    rng: np.random.Generator, source: str, lists: list[list[str]], terms: int, *, names: dict[str, str], held: bool
) -> pl.DataFrame:
    """Rows of one database: a ninth of the features have terms that pass."""
    if source == "hpo":
        ids, labels = [each[0] for each in PHENOTYPES], [each[1] for each in PHENOTYPES]
    else:
        ids = [f"R-HSA-{390522 + i}" if source == "reactome" else f"GO:{6000 + i:07d}" for i in range(terms)]
        made = [f"{does} {what}, form {i}" for i in range(terms // 49 + 1) for does in DOES for what in WHAT]
        labels = [*(names.get(term, term) for term in TERMS), *made][:terms]
    rows: list[dict[str, Any]] = []
    for f, genes in enumerate(lists):
        if not genes or (source == "hpo" and f % 5):
            continue
        strong = f % 9 == 0
        for j, t in enumerate(rng.choice(len(ids), min(8, len(ids)), replace=False).tolist()):
            k, n = int(rng.integers(2, 14 if strong else 6)), int(rng.integers(20, 400))
            p = float(10 ** -(rng.uniform(3, 30) if strong and j < 4 else rng.exponential(0.5) + 0.3))
            odds = k * (7262 - n + k) / ((50 - k) * (n - k))
            endless = t == 3 and j == 0
            like = None if t % 5 == 4 else p * 3 if j % 3 else 0.3  # its p among like genes
            both = max(p, like or 0.0)
            rows.append(
                {
                    "feature": f, "term": ids[t], "label": labels[t], "group": "go_bp" if source == "go" else None,
                    "overlap": k, "list_size": 50, "term_size": n, "background": 7312, "expected": 50 * n / 7312,
                    "odds": math.inf if endless else odds, "odds_low": odds / 2.2, "odds_high": math.inf if endless else odds * 2.2,
                    "p": p, "null_p": like, "q": min(1.0, both * 40), "q_plain": min(1.0, p * 40),
                    "p_shown": p * 20 if held and both < 0.001 else None, "q_shown": min(1.0, p * 200) if held and both < 0.001 else None,
                    "auc": 0.71, "q_rank": min(1.0, p * 100), "p_parent": 0.013 if source != "reactome" else None,
                    "folded_under": "HP:0001644" if ids[t] == "HP:0001638" else None, "genes": genes[:k],
                }
            )  # fmt: skip
    kinds: dict[str, Any] = dict.fromkeys(("group", "folded_under"), pl.String)
    kinds |= dict.fromkeys(("null_p", "p_shown", "q_shown", "p_parent"), pl.Float64)
    return pl.DataFrame(rows, schema_overrides={**kinds, "feature": pl.Int32}, infer_schema_length=None)


def databases(tables: dict[str, pl.DataFrame], features: int, *, names: dict[str, str], held: bool) -> dict[str, Any]:
    """What summary.json says of each."""
    told: dict[str, Any] = {}
    for source, table in tables.items():
        found, plainly = (table.filter(pl.col(q) <= 0.05)["feature"].n_unique() for q in ("q", "q_plain"))
        mean = 2.1 if source != "go" else found + 2.0  # of one the count is what chance gives
        null = {"kind": "matched lists", "draws": 20, "mean": mean, "low": max(0, mean - 2), "high": mean + 3}
        told[source] = {
            "title": SNAPSHOTS[source].rsplit(" ", 1)[0], "snapshot": names.get("title", SNAPSHOTS[source]), "taken": "2026-01-20",
            "licence": "CC0", "status": "run", "why": "", "background": f"7,312 genes: measured, annotated in {source}",
            "genes": 7312, "terms": 1200, "tests": features * 1200, "features": features, "significant": found, "plain": plainly, "null": null,
            "excess": found - mean, "excess_low": found - mean - 3, "excess_high": found - mean + 2,
            "controls": {"permuted cells": {"significant": 1, "of": features}, "random weights": "not run"},
            "again": 7 if held else None, "notes": ["12 terms of fewer than 5 genes fell out."],
        }  # fmt: skip
    string = {
        "title": "STRING",
        "snapshot": "STRING 12.0",
        "significant": 40,
        "plain": None,
        "terms": 1,
        "tests": features,
        "again": None,
    }
    same = {"kind": "lists of the same degrees", "draws": 999, "mean": 1.5, "low": 0, "high": 5}
    told["string-db"] = {
        **next(iter(told.values())),
        **string,
        "null": same,
        "evidence": {"keeps": "a combined score of 0.7 or more"},
    }
    whys = {
        "disgenet": names.get("why", "no key: set DISGENET_API_KEY"),
        "omim": "not installed: elute databases import omim FILE",
    }
    for name, why in whys.items():
        told[name] = {"title": name.upper(), "snapshot": "", "taken": "", "status": "not run", "why": why}
    return told


class Parts(HTMLParser):
    """Every tag of a page, and the text of what has a name."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside: dict[str, str] = {}
        self.policy = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        assert not [name for name in given if name.startswith("on") or name == "style"], given
        self.policy = (given.get("content") or "") if given.get("http-equiv") else self.policy
        self._in = given.get("id") or self._in

    def handle_data(self, data: str) -> None:
        self.inside[self._in] = self.inside.get(self._in, "") + data


def words(path: Path) -> str:
    """What a reader sees of the summary, in one line."""
    text = path.read_text().split('<section id="features"')[0].split("<body>")[1]
    return " ".join(re.sub(r"<[^>]+>", " ", text).replace("&#x27;", "'").split())


def blocks(path: Path) -> dict[str, Any]:
    """The data of a page, opened as its program opens it."""
    found = re.findall(r'<script type="text/plain" id="(\w+)">([^<]*)</script>', path.read_text())
    return {name: json.loads(zlib.decompress(base64.b64decode(text))) for name, text in found}


def rows_of(data: dict[str, Any], feature: int, source: str) -> list[dict[str, Any]]:
    """A feature's rows of a source, with the names of its terms and genes."""
    index = data["index"]
    place = index["feature"].index(feature)
    chunk, i = data[f"c{place // index['chunk']}"]["sources"][source], place % index["chunk"]
    first = sum(chunk["n"][:i])
    told = next(each for each in index["sources"] if each["name"] == source)
    rows = []
    for at in range(first, first + chunk["n"][i]):
        row = {key: values[at] for key, values in chunk.items() if key not in ("n", "stored")}
        row["label"], row["term"] = told["labels"][row["term"]], told["terms"][row["term"]]
        mine = index["lists"][place]
        row["genes"] = [index["symbols"][mine[g] if g >= 0 else -1 - g] for g in row["genes"]]
        rows.append(row)
    return rows


@pytest.fixture(autouse=True)
def data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database of a person's is seen."""
    monkeypatch.setenv("ELUTE_DATA", str(tmp_path / "data"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_validated(tmp_path_factory.mktemp("made") / "pbmc")


def test_each_headline_says_what_it_is_held_against(made: Path) -> None:
    found = pl.read_parquet(made / "validation" / "reactome.parquet").filter(pl.col("q") <= 0.05)["feature"].n_unique()
    text = words(write_report(made))
    assert (
        f"Reactome 2021-12: {found} of 160 features have a term at q ≤ 0.05; matched lists 2.1 (0.1–5.1); excess"
        f" {number(found - 2.1)} ({number(found - 5.1)}–{number(found - 0.1)}); again on other donors 7 of {found};"
        " permuted cells 1 of 160; random weights not run."
    ) in text
    assert "no more than chance gives" in text, "of Gene Ontology"
    assert "160 features × 1,200 terms = 192,000 tests, corrected together" in text
    assert (
        "STRING 12.0: 40 of 160 features have genes that interact at q ≤ 0.05; lists of the same degrees 1.5 (0–5)"
        in text
    )
    assert "HPO and Gene Ontology take over one another’s rows: that they agree is one witness, not 2." in text
    assert "OMIM take" not in text, "it did not run, so it agrees with nothing"
    assert "no key: set DISGENET_API_KEY. Type: elute databases import disgenet FILE" in text
    assert text.count("elute databases import omim FILE") == 2, "in the chart and in words, and not told twice over"
    assert text.index("random weights: not run") < text.index("Counts beside what chance gives")


def test_what_was_not_run_is_never_a_number(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", held=False, sources=("reactome",))
    told = json.loads((folder / "validation" / "summary.json").read_text())
    for record in told["databases"].values():
        for lost in ("null", "excess", "excess_low", "excess_high", "controls", "tests"):
            record.pop(lost, None)
    (folder / "validation" / "summary.json").write_text(json.dumps(told))
    text = words(write_report(folder))
    assert "matched lists not run; excess not run; again on other cells not run; controls not run." in text
    assert "Family of tests not run" in text
    assert "nan" not in text.lower().replace("finance", "")
    index = blocks(folder / "validation" / "report.html")["index"]
    assert set(index["q_shown"]) == {None}
    assert index["others"] == "other cells"


def test_a_page_holds_the_rows_of_the_tables(made: Path) -> None:
    path = write_report(made)
    data = blocks(path)
    frame = pl.read_parquet(made / "validation" / "reactome.parquet")
    levels = set()
    for feature in (0, 27, 158):
        rows = rows_of(data, feature, "reactome")
        found = frame.filter(pl.col("feature") == feature)
        whole = sorted(found.to_dicts(), key=lambda row: (max(row["p"], row["null_p"] or 0.0), row["term"]))
        assert [row["term"] for row in rows] == [row["term"] for row in whole]
        for mine, theirs in zip(rows, whole, strict=True):
            assert mine["genes"] == theirs["genes"]
            assert mine["label"] == theirs["label"]
            for name in ("overlap", "list_size", "term_size", "background"):
                assert mine[name] == theirs[name]
            for name in ("p", "q", "expected", "null_p", "p_shown", "q_shown", "auc", "q_rank", "odds", "odds_high"):
                value = "inf" if theirs[name] == math.inf else theirs[name]
                assert mine[name] == (value if value in (None, "inf") else pytest.approx(value, rel=5e-3))
            assert mine["level"] == (1 if theirs["q"] <= 0.05 else 2 if theirs["q_plain"] <= 0.05 else 0)
            levels.add(mine["level"])
    assert levels == {0, 1, 2}
    index = data["index"]
    assert index["feature"] == [f for f in range(160) if f % 17 != 16]
    assert index["of"] == 160
    place = index["feature"].index(27)
    known = frame.filter(pl.col("feature") == 27, pl.col("q") <= 0.05)
    assert {
        index["sources"][0]["terms"][t]
        for s, t in zip(index["sources_"][place], index["terms_"][place], strict=True)
        if s == 0
    } == set(known["term"])
    assert index["again"][place] == 2 * (known["q_shown"] <= 0.05).any() or index["again"][place] == 1
    assert write_report(made).read_bytes() == path.read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.none(), st.floats(allow_nan=False, width=64)), max_size=20))
def test_numbers_keep_three_digits_and_are_json(values: list[float | None]) -> None:
    texts = validation_encoding.real(pl.Series(values, dtype=pl.Float64)).to_list()
    for text, value in zip(texts, values, strict=True):
        told = json.loads(text)
        if value is None or not math.isfinite(value):
            assert told == (None if value is None else "inf")
        elif abs(value) < 1e-306:
            assert abs(told) < 1e-305
        else:
            assert told == pytest.approx(value, rel=5.1e-3)


def test_rounding_moves_nothing_over_the_rate(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", features=12, sources=("reactome",))
    path = folder / "validation" / "reactome.parquet"
    frame = pl.read_parquet(path).filter(pl.col("feature") == 1).head(3)
    q, plainly = pl.Series([0.05, 0.0500001, 0.0500001]), pl.Series([0.05, 0.0500001, 0.05])
    frame = frame.with_columns(
        q=q, q_plain=plainly, p=pl.Series([1e-4, 2e-4, 1e-5]), null_p=pl.Series([0.0, 0.0, 3e-4])
    )
    frame.write_parquet(path)
    data = blocks(write_report(folder))
    assert [row["level"] for row in rows_of(data, 1, "reactome")] == [1, 0, 2]
    assert len(data["index"]["terms_"][1]) == 1
    frame.drop("q_plain").write_parquet(path)
    without = blocks(write_report(folder))
    assert [row["level"] for row in rows_of(without, 1, "reactome")] == [1, 0, 0], "nothing is known to be in doubt"


def test_what_grows_too_large_is_cut_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_validated(tmp_path / "run", features=40)
    site = read_site(folder)
    sizes = [len(rows) for rows in (source.rows for source in site.sources) if rows is not None]
    monkeypatch.setattr(validation_chunks, "MOST_ROWS", sum(sizes) // 2)
    data = blocks(write_report(folder))
    assert data["index"]["most"] < 8
    rows = rows_of(data, 0, "reactome")
    assert len(rows) == data["index"]["most"]
    assert data["c0"]["sources"]["reactome"]["stored"][0] == 8, "how many there are is told"
    best = pl.read_parquet(folder / "validation" / "reactome.parquet").filter(pl.col("feature") == 0)
    best = best.sort(pl.max_horizontal("p", "null_p"))
    assert [row["term"] for row in rows] == best["term"].head(len(rows)).to_list()


def test_hostile_names_end_nothing_and_turn_nothing(tmp_path: Path) -> None:
    names = {
        "MYH7": HOSTILE,
        "TNNT2": "x" * 3000,
        "TTN": "\u202egnp.exe\u2066",
        TERMS[0]: HOSTILE,
        TERMS[1]: "T" * 3000,
        TERMS[2]: "a\u2028b\x00c\ud800".encode(errors="replace").decode(),
        "title": f"{HOSTILE} 2021",
        "why": f"{HOSTILE}\u202e",
    }
    folder = make_validated(tmp_path / "<b>run", features=60, names=names)
    path = write_report(folder)
    text = path.read_text()
    parts = Parts(text)
    assert not {"img", "b", "iframe", "object", "foreignobject"} & set(parts.tags)
    assert text.count("</script>") == parts.tags.count("script"), "no name ends a script"
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", text)
    index = blocks(path)["index"]
    assert HOSTILE in index["symbols"]
    assert f"{'x' * LONGEST}… (3,000 characters)" in index["symbols"]
    assert "gnp.exe" in index["symbols"]
    assert {HOSTILE, f"{'T' * LONGEST}… (3,000 characters)"} <= set(index["sources"][0]["labels"])
    for drawing in write_charts(folder, tmp_path / "charts"):
        root = ET.fromstring(drawing.read_text())  # noqa: S314 our own file
        assert {element.tag.rpartition("}")[2] for element in root.iter()} <= {
            *("svg", "title", "rect", "line", "text", "circle", "path", "g"),
        }


def test_the_policy_allows_this_program_alone(made: Path) -> None:
    text = write_report(made).read_text()
    policy = Parts(text).policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert script is not None
    assert style is not None
    for kind, found in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"^(import|export) ", script[1], re.MULTILINE)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://(?!www\.w3\.org)", text)


def test_a_volcano_leaves_no_pair_out(made: Path) -> None:
    source = read_site(made).sources[0]
    drawing = volcano(source, 0.05)
    assert drawing is not None
    assert source.rows is not None
    passing = source.rows.filter(pl.col("q") <= 0.05)
    doubt = source.rows.filter(pl.col("q") > 0.05, pl.col("q_plain") <= 0.05)
    told = f"{len(passing)} at q ≤ 0.05, {len(doubt)} only by a plain test"
    assert f"{len(source.rows):,} pairs of a feature and a term, {told}" in drawing.title
    drawn = circles(drawing.marks)[:-3]  # without the key's
    assert len(drawn) == min(len(passing) + len(doubt), 150)
    assert "∞" in drawing.marks
    cells = drawing.marks.count("M")
    assert 0 < cells <= len(source.rows) - len(drawn)


def circles(marks: str) -> list[tuple[str, float]]:
    """Of which kind each circle is, and how far down it stands."""
    return [(kind, float(y)) for kind, y in re.findall(r'<circle class="(\w+)"[^>]* cy="([\d.]+)"', marks)]


def test_the_line_of_q_parts_the_pairs(made: Path) -> None:
    """It did not while p alone was drawn: q is made from the larger of both p-values."""
    source = read_site(made).sources[0]
    drawing = volcano(source, 0.05)
    assert drawing is not None
    assert source.rows is not None
    passing = source.rows.filter(pl.col("q") <= 0.05)
    bound = max(max(p, like or 0.0) for p, like in passing.select("p", "null_p").iter_rows())
    assert f"q ≤ 0.05: p ≤ {chance(bound)}<" in drawing.marks
    found = re.search(r'<line class="mark"[^>]* y1="([\d.]+)"', drawing.marks)
    assert found is not None
    line, drawn = float(found[1]), circles(drawing.marks)[:-3]
    assert {kind for kind, _ in drawn} == {"observed", "doubt"}
    for kind, y in drawn:
        assert (y <= line + 0.1) if kind == "observed" else (y > line), (kind, y, line)
    plainly = passing["p"].max()
    assert source.rows.filter(pl.col("q") > 0.05, pl.col("p") < plainly).height, "by p alone the two kinds are mixed"
    none = volcano(source, 1e-90)
    assert none is not None
    assert "q ≤ 1e-90: none" in none.marks
    assert none.marks.count('<line class="mark"') == 1, "the key alone"


def test_what_a_plain_test_would_have_called_stands_beside_the_count(made: Path) -> None:
    text = write_report(made).read_text()
    frames = [pl.read_parquet(made / "validation" / f"{source}.parquet") for source in SNAPSHOTS]
    plainly = [frame.filter(pl.col("q_plain") <= 0.05)["feature"].n_unique() for frame in frames]
    found = [frame.filter(pl.col("q") <= 0.05)["feature"].n_unique() for frame in frames]
    assert found != plainly
    cells = re.findall(r'<td data-label="By a plain test">([^<]*)</td>', text)
    assert cells == [*map(str, plainly), "–"], "STRING has no such test"
    assert "How to read this" in text
    assert "By a plain test: how many features would count if the test against any genes were all." in text
    assert "matched lists do as well" not in text


def test_a_p_below_what_a_double_tells_has_its_place(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", features=12, sources=("reactome",))
    path = folder / "validation" / "reactome.parquet"
    frame = pl.read_parquet(path).with_columns(p=pl.lit(0.0), q=pl.lit(0.0), odds=pl.lit(None, pl.Float64))
    frame.write_parquet(path)
    write_report(folder)
    assert volcano(read_site(folder).sources[0], 0.05) is None, "it has no odds"
    frame.with_columns(odds=pl.lit(8.0), log_p=pl.lit(-1000.0)).write_parquet(path)
    drawing = volcano(read_site(folder).sources[0], 0.05)
    assert drawing is not None
    assert "scale of roots" in drawing.marks
    assert "p &lt; 1 e-300" in drawing.marks
    assert rows_of(blocks(write_report(folder)), 0, "reactome")[0]["p"] == 0


def test_a_tree_is_folded_by_hand(tmp_path: Path) -> None:
    def grown(
        known: Ontology | None, *terms: str, under: dict[str, str] | None = None
    ) -> list[tuple[str, int, int, bool]]:
        rows = pl.DataFrame(
            {
                "feature": [7] * len(terms), "term": list(terms), "label": list(terms),
                "q": [10.0 ** -(9 - i) for i in range(len(terms))], "folded_under": [(under or {}).get(t) for t in terms],
            },
            {"feature": pl.Int64, "term": pl.String, "label": pl.String, "q": pl.Float64, "folded_under": pl.String},
        )  # fmt: skip
        found = validation_tree.grow(rows, 0.05, known)
        return [(node.term, node.depth, node.skipped, node.q is not None) for node in found.nodes[7]]

    hpo = ontology(tmp_path)
    dilated, hypertrophic, anemia, whole = "HP:0001644", "HP:0001639", "HP:0001903", "HP:0000118"
    assert grown(hpo, hypertrophic, anemia, dilated) == [
        (whole, 0, 0, False),
        ("HP:0001638", 1, 4, False),  # heart, its morphology, the myocardium: no way parts there
        (hypertrophic, 2, 0, True),
        (dilated, 2, 0, True),
        (anemia, 1, 2, True),
    ]
    assert grown(hpo, dilated, "HP:0001626") == [
        (whole, 0, 0, False),
        ("HP:0001626", 1, 0, True),
        (dilated, 2, 4, True),
    ]
    assert grown(hpo, dilated, "HP:0001638", under={"HP:0001638": dilated}) == [
        (whole, 0, 0, False),
        ("HP:0001638", 1, 4, True),
        (dilated, 2, 0, True),
    ]
    assert grown(None, dilated, "HP:0001638", under={"HP:0001638": dilated}) == [
        ("HP:0001638", 0, 0, True),
        (dilated, 1, 0, True),
    ]


def test_the_ontology_is_that_of_the_snapshot(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", features=40)
    path = write_report(folder)
    assert not any(
        node
        for chunk in (blocks(path)["c0"],)
        for node in chunk["trees"]["hpo"]["nodes"]
        if node and node[0][0] is None
    )
    without = path.read_bytes()
    ontology(tmp_path)
    genes = tmp_path / "genes_to_phenotype.txt"
    head = "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id"
    genes.write_text(f"{head}\n4625\tMYH7\tHP:0001644\tDilated cardiomyopathy\t-\tOMIM:613426\n")
    given = {"genes_to_phenotype": genes, "ontology": tmp_path / "hp.obo"}
    snapshots.install(library.database("hpo"), given, how="imported", version="2031-01-01")
    assert write_report(folder).read_bytes() == without, "another version says nothing of this one"
    snapshots.install(library.database("hpo"), given, how="imported", version="2025-01-16")
    data = blocks(write_report(folder))
    labels = next(source["labels"] for source in data["index"]["sources"] if source["name"] == "hpo")
    assert "Phenotypic abnormality" in labels
    captions = [text for text in data["c0"]["trees"]["hpo"]["captions"] if text]
    assert captions
    assert all("HPO 2025-01-16 at q ≤ 0.05, and where the terms above them part" in text for text in captions)
    written = write_charts(folder, tmp_path / "charts", features=[0])
    assert "tree-hpo-0.svg" in [path.name for path in written]


def test_networks_are_drawn_of_the_snapshot_that_was_tested(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", features=9, names={"TTN": HOSTILE})
    assert blocks(write_report(folder))["networks"] == {}
    edges = tmp_path / "edges.tsv"
    pairs = [(a, b) for i, a in enumerate(GENES[:30]) for b in GENES[i + 1 : 30]]
    edges.write_text("gene1\tgene2\tcombined_score\n" + "".join(f"{a}\t{b}\t900\n" for a, b in pairs))
    snapshots.install(library.database("string-db"), {"edges": edges}, how="imported", version="12.0")
    data = blocks(write_report(folder))
    drawn = data["networks"]
    assert drawn
    assert data["index"]["drawn"] == sorted(map(int, drawn))
    network = pl.read_parquet(folder / "validation" / "string-db.parquet")
    passing = set(network.filter(pl.col("q_null") <= 0.05)["feature"].to_list())
    assert set(map(int, drawn)) <= passing
    for text in drawn.values():
        assert ET.fromstring(text).tag.endswith("svg")  # noqa: S314 our own drawing
    written = [path.name for path in write_charts(folder, tmp_path / "charts", features=[int(min(drawn, key=int))])]
    assert [name for name in written if name.startswith("network-")]


def test_charts_as_files_stand_alone(made: Path, tmp_path: Path) -> None:
    paths = write_charts(made, tmp_path / "charts")
    names = {path.name for path in paths}
    assert names == {"counts.svg", *(f"{kind}-{source}.svg" for kind in ("volcano", "dots") for source in SNAPSHOTS)}
    for path in paths:
        text = path.read_text()
        root = ET.fromstring(text)  # noqa: S314 our own file
        assert root.get("width")
        assert root.get("role") == "img"
        assert "<a " not in text, "a file leads nowhere"
        assert "var(" not in text, "no program but a browser knows of variables"
    with pytest.raises(DataError, match="has no feature 999"):
        write_charts(made, tmp_path / "charts", features=[999])


def test_columns_of_dots_are_shared_among_terms() -> None:
    kept = pl.DataFrame(
        {"term": ["a"] * 40 + ["b"] * 2, "feature": [*range(40), 3, 77], "p_larger": [1e-9] * 40 + [1e-3] * 2}
    )
    chosen = validation_charts._spread(kept, ["a", "b"])
    assert len(chosen) == 24
    assert 77 in chosen, "the term that most features have does not take all columns"


def test_faults_are_told_in_one_line(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", features=12, sources=("reactome",))
    summary, table = folder / "validation" / "summary.json", folder / "validation" / "reactome.parquet"
    told, whole = summary.read_text(), table.read_bytes()
    table.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        DamagedError, match=rf"reactome.parquet: cannot be read: .* elute cells validate --results {folder}$"
    ):
        write_report(folder)
    pl.DataFrame({"feature": [1], "term": ["a"]}).write_parquet(table)
    with pytest.raises(DamagedError, match=r"reactome.parquet: has no column 'p'"):
        write_report(folder)
    pl.DataFrame({"feature": [1], "term": ["a"], "p": [0.1], "genes": [7]}).write_parquet(table)
    with pytest.raises(DamagedError, match=r"reactome.parquet: is no table of terms"):
        write_report(folder)
    table.unlink()
    assert "Its table validation/reactome.parquet is not here" in words(write_report(folder))
    for text in ("{", "[]", "{}", '{"databases": [1]}'):
        summary.write_text(text)
        with pytest.raises(
            DataError, match=r"summary.json: (is not|holds no databases).* elute cells validate --results"
        ):
            write_report(folder)
    summary.unlink()
    with pytest.raises(DataError, match=r"holds no validation/summary.json. Type: elute cells validate"):
        write_report(folder)
    with pytest.raises(DataError, match="there is no such folder"):
        write_report(tmp_path / "nowhere")
    summary.write_text(json.dumps({"databases": {}}))
    assert "No database was run" in words(write_report(folder))
    assert json.loads(told)


def test_a_table_without_much_still_gives_a_page(tmp_path: Path) -> None:
    folder = make_validated(tmp_path / "run", features=12, sources=("reactome",))
    table = folder / "validation" / "reactome.parquet"
    pl.DataFrame({"feature": [1, 3], "term": ["a_b", None], "p": [0.001, 0.1]}).write_parquet(table)
    pl.DataFrame({"feature": range(12)}).write_parquet(folder / "features.parquet")
    (folder / "feature_genes.parquet").unlink()
    data = blocks(write_report(folder))
    (row,) = rows_of(data, 1, "reactome")
    assert (row["label"], row["q"], row["odds"], row["genes"], row["level"]) == ("a_b", None, None, [], 0)
    assert data["index"]["named"] is False


def test_names_in_capitals_are_read(tmp_path: Path) -> None:
    folder = make_validated(
        tmp_path / "run", features=60, sources=("reactome",), names={TERMS[0]: "REACTOME_MUSCLE_CONTRACTION"}
    )
    frame = pl.read_parquet(folder / "validation" / "reactome.parquet")
    assert "REACTOME_MUSCLE_CONTRACTION" in frame["label"].to_list()
    labels = blocks(write_report(folder))["index"]["sources"][0]["labels"]
    assert "Muscle contraction" in labels
    assert "TCR signaling" in labels, "what is written as people write is left alone"


def test_a_run_of_several_sites_has_a_page_that_leads_to_each(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for site in ("blocks.10 #a", "blocks.2"):
        make_validated(run / site, features=12, sources=("reactome",))
    make_validated(run / "blocks.3", features=12, sources=("reactome",))
    (run / "blocks.3" / "validation" / "summary.json").write_text(json.dumps({"at": 0.8}))
    (run / "activations").mkdir()
    path = write_report(run)
    assert path == run / "validation" / "report.html"
    text = path.read_text()
    links = re.findall(r'href="([^"]+)"', text)
    assert links == ["../blocks.2/validation/report.html", "../blocks.10%20%23a/validation/report.html"]
    assert (run / "blocks.2" / "validation" / "report.html").is_file()
    assert "not run: it was not validated against databases" in text
    assert "Reactome 2021-12: " in text
    for site in ("blocks.10 #a", "blocks.2"):
        (run / site / "validation" / "summary.json").unlink()
    with pytest.raises(DataError, match="no site holds validation/summary.json"):
        write_report(run)


def test_numbers_are_written_as_people_write_them() -> None:
    told = {2.1: "2.1", 38.9: "38.9", 1234567: "1,234,567", 0.05: "0.05", -2.0: "−2", 1.2e-7: "1.2 e-7", 0.0: "0"}
    told |= {0.000999: "1.0 e-3", 12345.6: "12,346", math.inf: "∞", 2.5e7: "25,000,000", 123456789.5: "1.2 e8"}
    assert {value: number(value) for value in told} == told
    assert (number(None), chance(None), chance(0.0), chance(0.0123)) == ("not run", "not run", "< 1 e-300", "0.012")
    assert ticks(0, 10, 5) == [0, 2, 4, 6, 8, 10]
    assert cut("short", 100) == "short"
    assert cut("W" * 50, 100).endswith("…")
    assert plain("a\u202eb\x07c") == "abc"


def make_large(folder: Path, features: int = 16_384, terms: int = 8) -> Path:
    """A site of many features with random values, so that its size is an upper bound."""
    rng = np.random.default_rng(5)
    symbols = pl.Series([f"GENE{i}" for i in range(6000)])
    make_validated(folder, features=2, sources=("reactome",))
    picks = rng.integers(0, 6000, (features, 50))
    n = features * terms
    lists = pl.DataFrame(
        {"feature": np.repeat(np.arange(features, dtype=np.int32), 50), "symbol": symbols.gather(picks.ravel())}
    )
    lists.with_columns(rank=pl.int_range(1, pl.len() + 1).over("feature")).write_parquet(
        folder / "feature_genes.parquet"
    )
    names = pl.Series([f"a term of the {i}th kind" for i in range(2000)]).gather(rng.integers(0, 2000, features))
    whole = {"feature": np.arange(features, dtype=np.int32), "frequency": rng.uniform(size=features), "name": names}
    pl.DataFrame({**whole, "name_confidence": rng.uniform(size=features)}).write_parquet(folder / "features.parquet")
    p, which = 10 ** -rng.exponential(1.0, n), rng.integers(0, 2000, n)
    numbers = {name: 10 ** -rng.exponential(0.7, n) for name in ("null_p", "p_shown", "q_shown", "p_parent", "q_rank")}
    odds = {name: rng.exponential(8.0, n) for name in ("odds", "odds_low", "odds_high")}
    counts = {
        "overlap": rng.integers(1, 12, n),
        "term_size": rng.integers(5, 900, n),
        "list_size": np.full(n, 50),
        "background": np.full(n, 7312),
    }
    shared = picks[
        np.repeat(np.arange(features), terms)[:, None], rng.integers(0, 42, n)[:, None] + np.arange(8)
    ].ravel()
    genes = (
        pl.DataFrame({"row": np.repeat(np.arange(n), 8), "genes": symbols.gather(shared)})
        .group_by("row", maintain_order=True)
        .agg("genes")
    )
    labels = {
        "term": pl.Series([f"R-HSA-{i}" for i in range(2000)]).gather(which),
        "label": pl.Series([f"a term of the {i}th kind" for i in range(2000)]).gather(which),
    }
    rows = {
        "feature": np.repeat(np.arange(features, dtype=np.int32), terms),
        **labels,
        "p": p,
        "q": np.minimum(1, p * 30),
        "auc": rng.uniform(size=n),
    }
    pl.DataFrame({**rows, **numbers, **odds, **counts, "genes": genes["genes"]}).write_parquet(
        folder / "validation" / "reactome.parquet"
    )
    return folder


def test_a_large_run_is_some_megabytes(tmp_path: Path) -> None:
    folder = make_large(tmp_path / "run")
    began = time.process_time()
    path = write_report(folder)
    took, size = time.process_time() - began, path.stat().st_size
    print(f"16,384 features × 8 terms: {size / 1e6:.1f} MB in {took:.1f} s")
    assert size < 9e6
    assert took < 60
    data = blocks(path)
    assert len(data["index"]["feature"]) == 16_384
    assert len(rows_of(data, 16_383, "reactome")) == 8
    assert len(path.read_text().split('<section id="features"')[0]) < 400_000, "what is read at once"

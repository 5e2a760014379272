"""The Explorer's file: one, closed, harmless, and what the tables say. What it does in a browser: journeys."""

from __future__ import annotations

import base64
import hashlib
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.reports import explorer_made as made
from tests.reports.explorer_read import Block, Blocks, read_page, undelta

from elute.base.errors import ConfigError, DamagedError, DataError, GuardError
from elute.reports.explorer import cell_values, pack, pooled_codes, site
from elute.reports.explorer.tables import MOST
from elute.reports.explorer.write import write_explorer

FEATURES = 520
Page = tuple[dict[str, Any], Blocks]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.make_run(tmp_path_factory.mktemp("made") / "pbmc", features=FEATURES, cells=300)
    write_explorer(folder)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 40 features, for what is written many times."""
    folder = made.make_run(tmp_path_factory.mktemp("made") / "pbmc")
    write_explorer(folder)
    return folder


@pytest.fixture(scope="module")
def page(run: Path) -> Page:
    return read_page(run / "dashboard.html")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = made.make_run(tmp_path_factory.mktemp("made") / "run <b>&amp;", hostile=True)
    write_explorer(folder)
    return folder


def table(run: Path, name: str) -> pl.DataFrame:
    return pl.read_parquet(run / f"{name}.parquet", glob=False)


def rows_of(blocks: Blocks, name: str, feature: int) -> list[dict[str, Any]]:
    """The rows of a table of a feature, whose place is its number where all are shown."""
    block = blocks[f"s0-detail-{feature // site.GROUP}"]
    starts = block.column(f"{name}_from")
    a, b = starts[feature % site.GROUP], starts[feature % site.GROUP + 1]
    columns = {
        key.removeprefix(f"{name}."): block.column(key)[a:b] for key in block.names if key.startswith(f"{name}.")
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def close(told: list[Any], wanted: list[Any], within: float) -> None:
    assert len(told) == len(wanted)
    for a, b in zip(told, wanted, strict=True):
        assert (a is None) == (b is None), (a, b)
        assert a is None or a == pytest.approx(b, rel=within, abs=within), (a, b)


def test_every_column_of_features_is_there(run: Path, page: Page) -> None:
    info, blocks = page
    frame, block = table(run, "features"), blocks["s0-features"]
    elsewhere = {
        "histogram",
        "near",
        "near_cosine",
        "together",
        "together_score",
        "top_genes_z",
        "top_genes_raw",
        "name_reason",
        "explanation",
    }
    assert set(block.names) == set(frame.columns) - elsewhere == set(info["sites"][0]["columns"])
    assert block.rows == FEATURES
    for name in block.names:
        wanted = frame[name].to_list()
        if frame[name].dtype.is_float():
            spread = [v for v in wanted if v is not None]
            near = [None if v is None else v for v in block.column(name)]
            if min(v for v in spread if v > 0) < 1e-4:
                close(
                    [None if v is None else np.log1p(v * 1e300) for v in near],
                    [None if v is None else np.log1p(v * 1e300) for v in wanted],
                    0.03,
                )
            else:
                close(near, wanted, max(spread) / 1000)
        elif name == "top_genes":
            assert block.column(name) == [v or [] for v in wanted]
        else:
            assert block.column(name) == wanted, name


def test_what_is_significant_stays_so(run: Path, page: Page) -> None:
    frame, block = table(run, "features"), page[1]["s0-features"]
    for name in ("q", "q_shown", "q_donors"):
        told = [None if v is None else v <= 0.05 for v in block.column(name)]
        assert told == [None if v is None else v <= 0.05 for v in frame[name].to_list()]


def test_genes_of_a_feature(run: Path, page: Page) -> None:
    frame = table(run, "feature_genes")
    known = dict(zip(page[1]["s0-genes"].column("word"), page[1]["s0-genes"].column("gene"), strict=True))
    for feature in (0, 5, 300):
        rows = rows_of(page[1], "genes", feature)
        mine = frame.filter(feature=feature)
        mine = mine.filter((pl.col("rank") <= 50) | (pl.col("rank_raw") <= 25)).sort(
            "rank", "rank_raw", nulls_last=True
        )
        for key in ("rank", "rank_raw"):
            assert [row[key] for row in rows] == mine[key].to_list()
        assert [row["gene"] for row in rows] == mine["symbol"].to_list()
        assert [known[row["gene"]] for row in rows] == mine["gene"].to_list()
        for key in ("z", "z_shown", "token_z"):
            close([row[key] for row in rows], mine[key].to_list(), 0.2)
    often = page[1]["s0-genes"].column("word")
    counts = frame.filter((pl.col("rank") <= 50) | (pl.col("rank_raw") <= 25))["symbol"].value_counts()
    assert counts.filter(symbol=often[0])["count"][0] == counts["count"].max()


def test_cells_of_a_feature(run: Path, page: Page) -> None:
    names = page[1]["s0-cells"].column("cell")
    assert names == table(run, "cells")["cell"].to_list()
    rows = rows_of(page[1], "cells", 3)
    mine = table(run, "feature_cells").filter(pl.col("feature") == 3, pl.col("rank") <= 20)
    assert [names[row["place"]] for row in rows] == mine["cell"].to_list()
    assert all(row["name"] is None and row["row"] is None for row in rows)
    assert [(row["label"], row["donor"]) for row in rows] == mine.select("label", "donor").rows()
    close([row["max"] for row in rows], mine["max"].to_list(), 0.05)


def test_levels_numbers_and_donors_of_a_feature(run: Path, page: Page) -> None:
    mine = table(run, "feature_groups").filter(feature=2).sort(-(pl.col("auroc") - 0.5).abs())
    nth = pl.int_range(pl.len()).over("column")
    turn = pl.when(pl.col("column") == "label").then(nth // 3).otherwise(nth)
    mine = mine.with_columns(turn=turn).sort("turn", "column", maintain_order=True)  # three of label, one other, …
    assert mine["column"][:5].to_list() == ["label"] * 3 + ["obs:tissue", "label"]
    rows = rows_of(page[1], "groups", 2)
    assert [(row["column"], row["level"], row["donors"]) for row in rows] == mine.select(
        "column", "level", "donors"
    ).rows()
    close([row["auroc"] for row in rows], mine["auroc"].to_list(), 0.001)
    for key in ("q", "q_shown", "q_donors"):
        assert [row[key] <= 0.05 for row in rows] == [v <= 0.05 for v in mine[key]]
    numbers = rows_of(page[1], "numbers", 2)
    assert {row["column"] for row in numbers} == {"total", "genes", "obs:percent_mito"}
    dots = table(run, "feature_donors").filter(feature=2)
    told = sorted(
        (row["donor"], row["level"], row["cells_inside"], row["cells_outside"]) for row in rows_of(page[1], "donors", 2)
    )
    assert told == sorted(dots.select("donor", "level", "cells_inside", "cells_outside").rows())


def test_neighbours_and_histogram(run: Path, page: Page) -> None:
    frame = table(run, "features")
    rows = rows_of(page[1], "near", 7)
    assert [row["feature"] for row in rows] == frame["near"][7].to_list()
    close([row["cosine"] for row in rows], frame["near_cosine"][7].to_list(), 0.001)
    assert [row["feature"] for row in rows_of(page[1], "together", FEATURES - 1)] == frame["together"][
        FEATURES - 1
    ].to_list()
    told = page[1]["s0-detail-0"].column("histogram")[7]
    for a, b in zip(told, frame["histogram"][7].to_list(), strict=True):
        assert a == pytest.approx(b, rel=0.07)
        assert (a == 0) == (b == 0)
    assert page[1]["s0-detail-0"].column("name_reason") == frame["name_reason"][:256].to_list()


def test_terms_of_a_feature(run: Path, page: Page) -> None:
    info, blocks = page
    terms = {key: blocks["s0-terms"].column(key) for key in ("term", "label", "group", "source", "size")}
    sources = {source: table(run, f"validation/{source}") for source in made.SOURCES}
    names = [each["name"] for each in info["sites"][0]["databases"]]
    assert names == ["go", "hpo", "reactome", "omim"]
    found = {key: blocks["s0-found"].column(key) for key in ("terms", "libs", "best_q")}
    checked = 0
    for feature in range(0, FEATURES, 7):
        rows = rows_of(blocks, "terms", feature)
        told = [(terms["source"][row["term"]], terms["term"][row["term"]]) for row in rows]
        wanted, passing, least = [], [], []
        for source, frame in sources.items():
            mine = frame.filter(feature=feature).with_columns(
                late=pl.col("q") > 0.05,
                folded=pl.col("folded_under").is_not_null(),
                larger=pl.max_horizontal("p", "null_p"),
            )
            wanted += [(source, term) for term in mine.sort("late", "folded", "larger")["term"].head(12)]
            passing += [(row["q"], source, row["term"]) for row in mine.filter(~pl.col("late")).iter_rows(named=True)]
            least += mine["q"].to_list()
        assert {*told} == {*wanted}
        assert [source for source, _ in told] == [source for source, _ in wanted]  # database by database
        here = [(terms["source"][i], terms["term"][i]) for i in found["terms"][feature]]
        assert here == [(source, term) for _, source, term in sorted(passing)]
        assert {names[i] for i in found["libs"][feature]} == {source for _, source, _ in passing}
        assert (found["best_q"][feature] is None) == (not least)
        if rows:
            checked += 1
            source, term = told[0]
            row = sources[source].filter(feature=feature, term=term).row(0, named=True)
            assert rows[0]["genes"] == row["genes"]
            assert (terms["label"][rows[0]["term"]], terms["size"][rows[0]["term"]]) is not None
            assert (rows[0]["overlap"], rows[0]["list_size"], rows[0]["folded"]) == (
                row["overlap"],
                48,
                row["folded_under"] is not None,
            )
            assert (rows[0]["q"] <= 0.05) == (row["q"] <= 0.05)
    assert checked > 10


def pooled_by_hand(run: Path, features: int) -> dict[int, dict[int, float]]:
    """The largest value of each feature in each cell, one row after another."""
    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

    codes = StoredCodes(run / "codes").read()
    names = Store(run / "activations").metadata(columns=["sample_id"])["sample_id"].to_list()
    place = {name: i for i, name in enumerate(table(run, "cells")["cell"].to_list())}
    found: dict[int, dict[int, float]] = {feature: {} for feature in range(features)}
    for name, mine, values in zip(names, codes.indices.tolist(), codes.values.tolist(), strict=True):
        for feature, value in zip(mine, values, strict=True):
            if value:
                found[feature][place[name]] = max(found[feature].get(place[name], 0.0), value)
    return found


def test_codes_are_the_largest_of_each_cell(run: Path, page: Page) -> None:
    wanted = pooled_by_hand(run, FEATURES)
    for group in range(3):
        block = page[1][f"s0-codes-{group}"]
        columns = {name: block.column(name) for name in ("cells", "values", "top", "fires", "floor")}
        assert set(columns["floor"]) == {0.0}
        for i, steps in enumerate(columns["cells"]):
            mine = wanted[group * site.GROUP + i]
            assert undelta(steps) == sorted(mine)
            assert columns["fires"][i] == len(mine)
            assert columns["top"][i] == pytest.approx(max(mine.values(), default=0.0), rel=2e-3)
            told = [v / 255 * columns["top"][i] for v in columns["values"][i]]
            assert all(v >= 1 for v in columns["values"][i])
            close(told, [mine[cell] for cell in sorted(mine)], 0.08 * columns["top"][i])


def test_expression_of_genes(run: Path, page: Page) -> None:
    from elute.store.reader import Store

    rows = Store(run / "activations").metadata(columns=["sample_id", "token", "value", "total"])
    genes = dict(table(run, "genes").select("symbol", "gene").iter_rows())
    names = table(run, "cells")["cell"].to_list()
    block = page[1]["s0-expression-0"]
    shown, cells, values, top = (block.column(name) for name in ("gene", "cells", "values", "top"))
    assert page[0]["sites"][0]["genes_shown"] == sum(page[1][n].rows for n in page[1] if n.startswith("s0-expression"))
    for i in range(0, len(shown), 5):
        mine = rows.filter(token=genes[shown[i]])
        wanted = {
            names.index(n): np.log1p(v / t * 1e4) for n, v, t in mine.select("sample_id", "value", "total").iter_rows()
        }
        assert undelta(cells[i]) == sorted(wanted)
        close([v / 255 * top[i] for v in values[i]], [wanted[cell] for cell in sorted(wanted)], 0.08 * top[i])


def test_cells_and_maps(run: Path, page: Page) -> None:
    info, blocks = page
    frame, block = table(run, "cells"), blocks["s0-cells"]
    for name in ("label", "donor", "batch", "split", "obs:tissue", "genes"):
        assert block.column(name) == frame[name].to_list()
    close(block.column("total"), frame["total"].to_list(), 0.01)
    x, y = block.column("x"), block.column("y")
    assert max(x + y) == pytest.approx(1, abs=1e-4)
    assert min(x) == min(y) == 0
    alive = table(run, "features")["alive"].to_list()
    assert [v is not None for v in blocks["s0-map"].column("x")] == alive
    told = info["sites"][0]
    assert "principal directions" in told["cells"]["map"]
    assert told["cells"] | {"map": None} == {"of": 300, "shown": 300, "sampled": False, "donors": 6, "map": None}
    assert (
        told["feature_map"]
        == "the first two principal directions of the directions that features write, by their cosine"
    )


def test_what_is_said_of_the_run(run: Path, page: Page) -> None:
    info = page[0]
    told = info["sites"][0]
    assert (info["run"], info["schema"], told["name"], told["features"], told["shown"]) == (
        "pbmc",
        1,
        made.SITE,
        FEATURES,
        FEATURES,
    )
    assert told["alive"] == table(run, "features")["alive"].sum()
    assert told["controls"]["follow"]["another seed"]["found again"] == 0.61
    assert "databases" not in told["controls"]
    assert told["explained"] == {
        "n_features": FEATURES,
        "k": 8,
        "explained": 0.81,
        "explained_pca": 0.72,
        "explained_on": "test",
    }
    assert len(told["edges"]) == 41
    about = info["about"]
    assert (about["model"], about["data"], about["rows"], about["cells"], about["donors"]) == (
        "a-model",
        "made.h5ad",
        2400,
        300,
        6,
    )
    assert {"title": "Gene Ontology 2025-03", "licence": "CC BY 4.0"} in about["licences"]
    assert not [each for each in about["licences"] if each["title"].startswith("OMIM")]  # it was not run
    assert ["made.h5ad", "ab" * 32] in about["made_of"]


class Parts(HTMLParser):
    """The text of each element that is a whole of its own, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside: dict[str, str] = {}
        self.policy = ""
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            self.policy = given["content"] or ""
        self._in = given.get("id") or given.get("type") or tag

    def handle_data(self, data: str) -> None:
        self.inside[self._in] = self.inside.get(self._in, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._in = ""


@pytest.mark.parametrize("which", ["run", "hostile"])
def test_the_file_runs_one_program_and_fetches_nothing(which: str, request: pytest.FixtureRequest) -> None:
    text = (request.getfixturevalue(which) / "dashboard.html").read_text(encoding="utf-8")
    parts = Parts(text)
    for name, kind in (("style", "style-src"), ("module", "script-src")):
        digest = base64.b64encode(hashlib.sha256(parts.inside[name].encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in parts.policy
    for rule in (
        "default-src 'none'",
        "connect-src 'none'",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
    ):
        assert rule in parts.policy
    kinds = re.findall(r'<script type="([^"]+)"', text)
    assert kinds.count("module") == kinds.count("application/json") == 1
    assert {"iframe", "img", "object", "embed", "form"} & set(parts.tags) <= {"form"}
    assert "{{" not in re.sub(r"<(script|style).*?</\1>", "", text, flags=re.DOTALL)
    assert not re.search(
        r"""(?:src|href)=["']?(?!#|data:)[a-z]+:""", re.sub(r"<(script|style)\b.*?</\1>", "", text, flags=re.DOTALL)
    )


def test_hostile_texts_stay_texts(hostile: Path) -> None:
    text = (hostile / "dashboard.html").read_text(encoding="utf-8")
    assert "<img" not in text
    assert "alert(2)" not in re.sub(r"<script type=\"application/json\".*?</script>", "", text, flags=re.DOTALL)
    info, blocks = read_page(hostile / "dashboard.html")
    assert info["run"] == "run <b>&amp;"
    words = blocks["s0-genes"].column("word")
    for symbol in (made.HOSTILE, made.CLOSING, made.EMOJI, made.RIGHT, made.NUL, "__proto__"):
        assert symbol in words
    long = [word for word in words if word.startswith("ΩΩ")]
    assert [word[-19:] for word in long] == ["… (10,000 characters)"[-19:]]
    features = blocks["s0-features"]
    assert {made.HOSTILE, "__proto__", "constructor"} <= set(features.names)
    assert not {"a struct", "nothing"} & set(features.names)
    assert features.column("auroc")[:6] == [None, np.inf, -np.inf, np.inf, 0.0, 0.0]
    assert info["sites"][0]["databases"][0]["title"] == made.HOSTILE
    assert info["sites"][0]["databases"][0]["excess"] is None
    assert info["sites"][0]["databases"][2]["title"] == "half ? a character"
    labels = [label for label in blocks["s0-cells"].column("label") if label]
    assert made.CLOSING in labels
    assert sorted(blocks["s0-cells"].column("cell"))[:1] == sorted(
        name if len(name) <= 300 else name[:300] for name in table(hostile, "cells")["cell"].to_list()
    )[:1]  # fmt: skip


def test_several_sites(tmp_path: Path) -> None:
    folder = made.make_run(tmp_path / "run", sites=3, hostile=True)
    told = write_explorer(folder).summary
    info, blocks = read_page(folder / "dashboard.html")
    assert [one["key"] for one in info["sites"]] == ["s0", "s1", "s2"]
    assert [one["name"] for one in info["sites"]] == list(told["features"])
    assert {name.split("-")[0] for name in blocks} == {"s0", "s1", "s2"}
    assert blocks["s0-features"].column("mean") != blocks["s1-features"].column("mean")


def test_the_most_frequent_alone(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    write_explorer(folder, top_n_features=300)
    info, blocks = read_page(folder / "dashboard.html")
    numbers = blocks["s0-features"].column("feature")
    frame = table(run, "features").sort("frequency", "feature", descending=[True, False]).head(300)
    assert numbers == sorted(frame["feature"].to_list())
    assert (info["sites"][0]["shown"], info["sites"][0]["features"]) == (300, FEATURES)
    wanted = pooled_by_hand(run, FEATURES)
    assert [undelta(each) for each in blocks["s0-codes-1"].column("cells")] == [
        sorted(wanted[f]) for f in numbers[256:]
    ]
    starts = blocks["s0-detail-1"].column("near_from")
    near = blocks["s0-detail-1"].column("near.feature")
    assert near[starts[3] : starts[4]] == table(run, "features")["near"][numbers[259]].to_list()
    assert len(blocks["s0-map"].column("x")) == 300


def test_a_sample_of_cells(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elute.reports.explorer import cell_sample

    monkeypatch.setattr(cell_sample, "SAMPLE", 100)
    folder = shutil.copytree(run, tmp_path / "run")
    assert write_explorer(folder).summary["cells"] == 100
    info, blocks = read_page(folder / "dashboard.html")
    assert info["sites"][0]["cells"] | {"map": None} == {
        "of": 300,
        "shown": 100,
        "sampled": True,
        "donors": 6,
        "map": None,
    }
    names = blocks["s0-cells"].column("cell")
    every = table(run, "cells")["cell"].to_list()
    wanted = pooled_by_hand(run, FEATURES)
    for steps, feature in zip(blocks["s0-codes-0"].column("cells"), range(256), strict=True):
        assert [names[i] for i in undelta(steps)] == [
            name for i, name in enumerate(every) if name in names and i in wanted[feature]
        ]
    rows = rows_of(blocks, "cells", 3)
    mine = table(run, "feature_cells").filter(pl.col("feature") == 3, pl.col("rank") <= 20)
    assert [names[row["place"]] if row["name"] is None else row["name"] for row in rows] == mine["cell"].to_list()
    assert [row["row"] for row in rows if row["name"]] == mine.filter(~pl.col("cell").is_in(names))["row"].to_list()
    write_explorer(folder, all_cells=True)
    assert len(read_page(folder / "dashboard.html")[1]["s0-cells"].column("cell")) == 300


def test_the_same_run_gives_the_same_bytes(small: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "pbmc")
    before = (folder / "dashboard.html").read_bytes()
    kept = (folder / "map_features.parquet").stat().st_mtime_ns
    write_explorer(folder)
    assert (folder / "dashboard.html").read_bytes() == before
    assert (folder / "map_features.parquet").stat().st_mtime_ns == kept  # it was not made anew


def test_every_table_but_that_of_features_may_be_missing(small: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    table(small, "features").select("feature", "frequency", "kind").write_parquet(folder / "features.parquet")
    told = write_explorer(folder).summary
    assert (told["features"], told["cells"]) == ({"run": 40}, 0)
    info, blocks = read_page(folder / "dashboard.html")
    assert {name.rsplit("-", 1)[0] if name[-1].isdigit() else name for name in blocks} == {"s0-features", "s0-labels", "s0-genes", "s0-detail"} - (
        {"s0-detail"} if "s0-detail-0" not in blocks else set()
    )  # fmt: skip
    assert info["sites"][0]["cells"] is None
    assert info["sites"][0]["databases"] == []


@pytest.mark.parametrize("lost", ["feature_genes", "feature_cells", "feature_groups", "feature_donors", "cells", "genes", "codes", "activations", "sae_final.pt", "validation", "run.json"])  # fmt: skip
def test_what_was_not_made_is_not_there(small: Path, tmp_path: Path, lost: str) -> None:
    folder = shutil.copytree(small, tmp_path / "run")
    path = folder / (lost if (folder / lost).exists() else f"{lost}.parquet")
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_explorer(folder)
    _, blocks = read_page(folder / "dashboard.html")
    names = {name.removeprefix("s0-") for name in blocks} | set(blocks["s0-detail-0"].names)
    gone = {"feature_genes": "genes_from", "feature_cells": "cells_from", "feature_groups": "groups_from", "feature_donors": "donors_from",
            "cells": "cells", "codes": "codes-0", "activations": "expression-0", "sae_final.pt": "map", "validation": "found"}  # fmt: skip
    assert gone.get(lost) not in names
    assert blocks["s0-features"].rows == 40


@pytest.mark.parametrize("name", ["features", "feature_genes", "feature_groups", "cells", "validation/go"])
def test_a_damaged_table_is_told_in_one_line(small: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(small, tmp_path / "run")
    (folder / f"{name}.parquet").write_bytes(b"PAR1 and then nothing")
    before = (folder / "dashboard.html").read_bytes()
    with pytest.raises(DamagedError) as error:
        write_explorer(folder)
    assert f"{name}.parquet" in error.value.line()
    assert "\n" not in error.value.line()
    assert (folder / "dashboard.html").read_bytes() == before


def test_what_is_asked_for_wrongly(tmp_path: Path, small: Path) -> None:
    with pytest.raises(DataError, match="holds no features.parquet"):
        write_explorer(tmp_path)
    with pytest.raises(ConfigError, match="a page of 0 features"):
        write_explorer(small, top_n_features=0)
    twice = tmp_path / "twice"
    twice.mkdir()
    frame = table(small, "features").head(2).with_columns(feature=pl.lit(1))
    frame.write_parquet(twice / "features.parquet")
    with pytest.raises(DataError, match="does not number its features one by one"):
        write_explorer(twice)


def test_codes_of_other_cells_are_refused(small: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(small, tmp_path / "run")
    cells = table(small, "cells")
    cells.with_columns(cell=pl.col("cell") + "x").write_parquet(folder / "cells.parquet")
    with pytest.raises(GuardError, match="has codes, and is not in cells.parquet"):
        write_explorer(folder)


def test_a_large_run_tells_fewer_rows_of_a_feature(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = shutil.copytree(run, tmp_path / "run")
    full = read_page(folder / "dashboard.html")[0]["sites"][0]["most"]
    room = 230_000
    from elute.reports.explorer import write

    size = sum(len(name) for name in (write._script(), write._style()))
    monkeypatch.setattr(write, "ROOM", room + size + 200_000)
    write_explorer(folder)
    info, blocks = read_page(folder / "dashboard.html")
    most = info["sites"][0]["most"]
    assert most["genes"] < full["genes"] == 50
    assert "filled" in blocks["s0-detail-0"].head["columns"]["genes.gene"]  # what stands in the list is not repeated
    rows = rows_of(blocks, "genes", 2)
    mine = table(run, "feature_genes").filter(feature=2)
    for key in ("rank", "rank_raw"):
        told = {row[key]: row["gene"] for row in rows if row[key]}
        assert told == dict(mine.filter(pl.col(key).is_in(list(told))).select(key, "symbol").iter_rows())
    assert {row["rank"] for row in rows if row["rank"]} >= set(range(1, most["genes"] + 1))
    assert max(min(row["rank"] or 99, 2 * (row["rank_raw"] or 99)) for row in rows) <= most["genes"] + 1
    assert len(rows_of(blocks, "groups", 2)) == min(
        most["groups"], table(run, "feature_groups").filter(feature=2).height
    )


def test_values_are_shares_of_the_largest() -> None:
    rows = cell_values.Rows(np.array([0, 3, 3, 4]), np.array([2, 7, 9, 0]), np.array([1e-9, 4.0, 2.0, 0.5], np.float32))
    columns = cell_values.value_columns(rows)
    block_cells, values = columns["cells"], columns["values"]
    assert block_cells.of.stored.tolist() == [2, 5, 2, 0]  # type: ignore[attr-defined]
    stored = values.of.stored.tolist()  # type: ignore[attr-defined]
    assert (stored[0], stored[1], stored[3]) == (1, 255, 255)
    assert stored[2] == pytest.approx(127, abs=10)
    close(Block(pack.pack({"top": columns["top"]})).column("top"), [4.0, 0.0, 0.5], 1e-3)


def test_fair_shares() -> None:
    assert pooled_codes.fair_share(np.array([5, 1, 9]), 100) == 9
    assert pooled_codes.fair_share(np.array([5, 1, 9]), 11) == 5  # 5 + 1 + 5
    assert pooled_codes.fair_share(np.array([5, 1, 9]), 9) == 4
    assert pooled_codes.fair_share(np.array([3, 3, 3]), 2) == 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        counts, budget = rng.integers(0, 40, 12), int(rng.integers(0, 300))
        share = pooled_codes.fair_share(counts, budget)
        assert np.minimum(counts, share).sum() <= budget or counts.sum() <= budget
        assert share == counts.max() or np.minimum(counts, share + 1).sum() > budget


def test_every_file_of_the_page_is_in_it() -> None:
    from elute.reports.explorer import write

    assert {path.stem for path in write.PAGE.glob("*.js")} <= set(write.SCRIPTS)
    assert {path.stem for path in write.PAGE.glob("*.css")} <= set(write.STYLES)
    assert all((write.PAGE / f"{name}.js").is_file() for name in write.SCRIPTS)


def test_the_formats_page_names_every_block_and_column(page: Page) -> None:
    told = (Path(__file__).parents[2] / "docs" / "formats" / "explorer.md").read_text()
    named = set(re.findall(r"`([\w.:-]+)`", told))
    for name, block in page[1].items():
        kind = re.sub(r"-\d+$", "-G", name.removeprefix("s0-"))
        assert kind in named
        columns = {column.split(".")[-1].removesuffix("_shown") for column in block.names if ":" not in column}
        known = named | {"name_reason", "explanation"} | {f"{table}_from" for table in MOST}
        assert kind == "features" or columns <= known
    assert set(page[0]) | set(page[0]["about"]) | set(page[0]["sites"][0]) <= named

"""The report of a tissue run: what its pages hold, what they say of scores, what they refuse, and how large they become."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import importlib.util
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import polars as pl
import pytest
from PIL import Image

from elute.analysis.token_maps import safe_name
from elute.base.errors import DamagedError, DataError
from elute.reports.tissue import charts, gallery, palette, pictures, section_maps, token_maps, verdicts, wording
from elute.reports.tissue.document import SCRIPTS, script
from elute.reports.tissue.predictions import open_predictions
from elute.reports.tissue.reading import read_findings
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.verdicts import Score, verdict
from elute.reports.tissue.write import write_reports

_SPEC = importlib.util.spec_from_file_location("tissue_made", Path(__file__).with_name("tissue_made.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = made_up
_SPEC.loader.exec_module(made_up)

HOSTILE = made_up.HOSTILE


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run with its report."""
    made = made_up.make_run(tmp_path_factory.mktemp("made") / "breast")
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    return made


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The same with names that would do harm, if they were HTML."""
    made = made_up.make_run(tmp_path_factory.mktemp("made") / "hostile", side=5, hostile=True)
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    return made


class Read(html.parser.HTMLParser):
    """Elements with their attributes, and the text of each page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.inside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self.inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self.inside.pop()

    def handle_data(self, data: str) -> None:
        if not self.inside:
            self.text += data + " "

    def all(self, tag: str, **having: str) -> list[dict[str, str | None]]:
        return [told for name, told in self.elements if name == tag and having.items() <= told.items()]


def pages(folder: Path) -> Iterator[tuple[Path, str]]:
    for path in sorted((folder / "report").rglob("*.html")):
        yield path, path.read_text()


def words(page: str) -> str:
    return " ".join(Read(page).text.split())


def test_there_is_a_page_a_gene_and_a_code_and_every_link_leads_to_one(run: Any) -> None:
    found = read_findings(run.folder)
    names = {path.relative_to(run.folder / "report").as_posix() for path, _ in pages(run.folder)}
    assert names == {
        "index.html",
        *(f"genes/{gene}.html" for gene in made_up.GENES),
        *(f"codes/{code}.html" for code in found.codes),
    }
    assert set(found.codes) == {code for weights, _, _ in list(made_up.GENES.values())[:-1] for code in weights}
    for path, text in pages(run.folder):
        for link in Read(text).all("a"):
            where = link["href"] or ""
            if not where.startswith("#"):
                assert (path.parent / unquote(where)).resolve().is_file(), (path, where)


def test_every_page_holds_all_that_it_shows_and_allows_no_other_program(run: Any) -> None:
    for path, text in pages(run.folder):
        read = Read(text)
        policy = next(
            told["content"] for told in read.all("meta") if told.get("http-equiv") == "Content-Security-Policy"
        )
        assert policy is not None
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        programs = re.findall(r"<script(?: type=\"module\")?>(.*?)</script>", text, re.DOTALL)
        styles = re.findall(r"<style>(.*?)</style>", text, re.DOTALL)
        for part, many in ((programs, 2), (styles, 1)):
            assert len(part) == many
            for one in part:
                digest = base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()
                assert f"'sha256-{digest}'" in policy, path
        for name, told in read.elements:
            assert "style" not in told, "the policy would not let it be"
            assert not [key for key in told if key.startswith("on")]
            where = (told.get("src") or "") + (told.get("href") or "" if name in ("link", "image") else "")
            assert not where or where.startswith("data:image/"), where
        assert "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text
        images = read.all("img", **{"class": "tile"})
        assert all(image["alt"] for image in images)
        assert len(read.all("h1")) == 1
        assert read.all("main")
        assert read.all("html")[0]["lang"] == "en"


def test_the_same_run_gives_the_same_bytes_and_takes_away_pages_of_an_earlier_one(run: Any) -> None:
    before = dict(pages(run.folder))
    (run.folder / "report/genes/OLD.html").write_text("of another run")
    write_reports(run.folder, config=TissueReportConfig(), images=run.images)
    assert dict(pages(run.folder)) == before


def test_the_scores_stand_beside_their_baselines_with_the_numbers_of_the_tables(run: Any) -> None:
    metrics = pl.read_parquet(run.folder / "heads/metrics.parquet")
    baselines = pl.read_parquet(run.folder / "heads/baselines.parquet")
    for gene in made_up.GENES:
        page = (run.folder / f"report/genes/{gene}.html").read_text()
        table = re.search(r"<tbody>(.*?)</tbody>", page, re.DOTALL)
        assert table is not None
        shown = table[1]
        for row in pl.concat([metrics, baselines]).filter(pl.col("gene") == gene).iter_rows(named=True):
            told = f"{row['r2']:.2f} ({row['r2_low']:.2f} to {row['r2_high']:.2f})".replace("-", "−")
            at = shown.index(verdicts.MODELS[row["model"]])
            assert told.replace("−0.00 (", "0.00 (") in shown[at : shown.index("</tr>", at)], (gene, row["model"])
        assert [shown.index(verdicts.MODELS[name]) for name in verdicts.MODELS] == sorted(
            shown.index(verdicts.MODELS[name]) for name in verdicts.MODELS
        )


def test_the_index_counts_what_is_above_its_controls_beside_chance(run: Any) -> None:
    text = words((run.folder / "report/index.html").read_text())
    found = read_findings(run.folder)
    judged = {gene: verdict(verdicts.scores_of(found.scores.filter(pl.col("gene") == gene))) for gene in found.genes}
    above = sum(one.word == verdicts.ABOVE for one in judged.values())
    assert 0 < above < len(judged)
    assert f"{above} of 6 genes are predicted better than by every control" in text
    assert "with shuffled patients 0 of 6 have" in text
    assert "neighbours: not run (some samples have no place)" in text
    assert "3 samples have tiles and no targets" in text
    assert judged["ACTB"].word == verdicts.NOT
    assert judged["ADIPOQ"].word == verdicts.APART
    order = re.findall(
        r'<th scope="row" class="is-gene"[^>]*><a href="genes/(\w+)\.html"',
        (run.folder / "report/index.html").read_text(),
    )
    r2 = {row["gene"]: row["r2"] for row in pl.read_parquet(run.folder / "heads/metrics.parquet").iter_rows(named=True)}
    assert order == sorted(r2, key=lambda gene: -r2[gene])


def score(model: str, r2: float, half: float = 0.1) -> Score:
    return Score(model, r2, r2 - half, r2 + half, {})


@pytest.mark.parametrize(
    ("own", "others", "word", "told"),
    [
        (0.5, {"mean": 0.0, "shuffled": -0.1, "random_encoder": 0.1}, verdicts.ABOVE, "above every control"),
        (0.5, {"mean": 0.0, "shuffled": -0.1}, verdicts.ABOVE, "Not run: random-weight encoder"),
        (0.5, {"mean": 0.0, "random_encoder": 0.35}, verdicts.APART, "intervals overlap"),
        (0.5, {"mean": 0.0, "random_encoder": 0.5}, verdicts.NO_BETTER, "an untrained network"),
        (0.5, {"shuffled": 0.6}, verdicts.NOT, "explains noise"),
        (0.05, {"mean": 0.0}, verdicts.NOT, "holds 0"),
        (0.5, {}, verdicts.UNHELD, "not run"),
        (0.5, {"neighbours": 0.9}, verdicts.UNHELD, "not run"),
    ],
)
def test_a_score_is_worth_what_its_controls_say(own: float, others: dict[str, float], word: str, told: str) -> None:
    found = verdict({"sparse": score("sparse", own), **{name: score(name, r2) for name, r2 in others.items()}})
    assert found.word == word
    assert told in found.sentence


def test_of_two_patients_nothing_is_above_its_controls() -> None:
    """An interval over samples is too narrow to tell a head from its controls."""
    scores = {"sparse": score("sparse", 0.5), "mean": score("mean", 0.0), "shuffled": score("shuffled", -0.1)}
    assert verdict(scores).word == verdicts.ABOVE
    few = Score("sparse", 0.5, 0.4, 0.6, {"interval": "samples"})
    found = verdict({**scores, "sparse": few})
    assert found.word == verdicts.APART
    assert "of so few patients nothing can be said" in found.sentence
    assert verdict({**scores, "sparse": Score("sparse", 0.5, 0.4, 0.6, {"interval": "groups"})}).word == verdicts.ABOVE


def test_what_sees_more_than_a_head_is_no_control_but_is_told() -> None:
    scores = {
        "sparse": score("sparse", 0.4),
        "mean": score("mean", 0.0),
        "dense_pca_ridge": score("dense_pca_ridge", 0.5),
    }
    found = verdict({**scores, "neighbours": score("neighbours", 0.8)})
    assert found.word == verdicts.ABOVE
    assert "the codes keep 80% of it" in found.beside
    assert "which the head never sees, tells more: 0.80 (0.70 to 0.90)" in found.beside
    assert "the codes give more" in verdict({**scores, "dense_pca_ridge": score("dense_pca_ridge", 0.3)}).beside
    assert verdict({}).word == verdicts.UNSCORED


def test_codes_stand_by_what_they_add_with_their_control_and_their_interval(run: Any) -> None:
    relevance = pl.read_parquet(run.folder / "relevance/KRT19.parquet")
    page = (run.folder / "report/genes/KRT19.html").read_text()
    raises, lowers = page.index("Codes that raise"), page.index("Codes that lower")
    codes = [(match.start(), int(match[1])) for match in re.finditer(r"<h4><a[^>]*>Code (\d+)</a></h4>", page)]
    assert [code for at, code in codes if raises < at < lowers] == [17, 402]
    assert [code for at, code in codes if at > lowers] == [41]
    share = relevance.filter(pl.col("code") == 17)["share"][0]
    assert f"{100 * share:.0f} % of the relevance (a code as active: " in page
    assert "coefficient 2.0 (1.8 to 2.2), same sign in 100 % of folds" in page
    assert "off by at most 3.0 e-9 of it" in page
    assert "area between random order and by relevance 0.21 (0.18 to 0.24)" in page
    text = words(page)
    assert "The head is linear in the codes." in text
    assert "the same samples in the same order for 2 of 2 such codes" in text
    assert "Its codes were not explained" in words((run.folder / "report/genes/ACTB.html").read_text())


def test_tiles_are_those_of_the_lists_with_the_tissue_beside_its_frequency(run: Any) -> None:
    refs = pl.read_parquet(run.folder / "refs/KRT19.parquet")
    first = (
        refs.filter(
            (pl.col("code") == 17)
            & (pl.col("kind") == "relmax")
            & (pl.col("target") == "sum")
            & (pl.col("sign") == "+")
        )
        .sort("rank")
        .head(8)
    )
    page = (run.folder / "report/genes/KRT19.html").read_text()
    strip = page[page.index(">Code 17<") : page.index(">Code 402<")]
    alts = re.findall(r'<img src="data:image/webp[^>]*alt="Tile (\S+) of (\S+), (\w+)"', strip)
    assert [(sample, tile) for tile, sample, _ in alts] == first.select("sample_id", "tile_id").rows()
    tiles = pl.read_parquet(run.folder / "tiles.parquet")
    share = tiles["label"].value_counts(normalize=True).filter(pl.col("label") == "epithelium")["proportion"][0]
    assert f"({share:.0%} of all tiles)" in strip
    assert "20 µm" in strip
    assert "side of the tile" in strip
    assert strip.count('class="peak"') == 8


def test_a_picture_is_the_tile_and_its_map_is_the_relevance(run: Any) -> None:
    page = (run.folder / "report/genes/KRT19.html").read_text()
    strip = page[page.index(">Code 17<") : page.index(">Code 402<")]
    first = re.search(r'<img src="data:image/webp;base64,([^"]+)" alt="Tile (\S+) of (\S+),', strip)
    assert first is not None
    shown = np.asarray(Image.open(io.BytesIO(base64.b64decode(first[1]))).convert("RGB"), float)
    true = run.tiles[(first[3], first[2])].astype(float)
    assert shown.shape == true.shape
    assert np.abs(shown - true).mean() < 8
    over = re.search(r'<image href="data:image/png;base64,([^"]+)"', strip)
    assert over is not None
    alpha = np.asarray(Image.open(io.BytesIO(base64.b64decode(over[1]))))[..., 3] / 255
    index = pl.read_parquet(run.folder / "token_maps/index.parquet")
    row = index.filter((pl.col("gene") == "KRT19") & (pl.col("code") == 17) & (pl.col("tile_id") == first[2])).row(
        0, named=True
    )
    with np.load(run.folder / "token_maps" / row["file"]) as archive:  # noqa: TID251  # of this test's own making
        values = archive["maps"][row["at"]]
    most = np.abs(np.load(run.folder / "token_maps" / row["file"])["maps"][:8]).max()  # noqa: TID251
    assert np.abs(alpha - np.abs(values) / most).max() < 0.02


def test_hostile_names_are_text(hostile: Any) -> None:
    for path, text in pages(hostile.folder):
        read = Read(text)
        assert not [told for _, told in read.elements if "onerror" in told], path
        assert "x" not in [told.get("src") for told in read.all("img")]
        assert len(re.findall(r"<script", text)) in (2, 3), path  # the map's data is the third
        assert "\u202e" not in text, "nothing turns the direction of what stands around it"
        assert "G" * 400 not in text
    names = {path.name for path, _ in pages(hostile.folder)}
    assert {f"{safe_name(name)}.html" for name in HOSTILE} <= names
    text = words((hostile.folder / f"report/genes/{safe_name(HOSTILE[0])}.html").read_text())
    assert HOSTILE[0][:40] in text


def test_a_budget_is_kept_and_what_was_reduced_is_told(run: Any) -> None:
    sizes = {}
    for budget in (20.0, 1.5, 1.1, 0.02):
        done = write_reports(run.folder, config=TissueReportConfig(size_budget_mb=budget), images=run.images)
        total = sum(len(text.encode()) for _, text in pages(run.folder))
        assert done.summary["bytes"] == total
        sizes[budget] = (done.summary["tile_side"], done.summary["tiles_per_code"])
        said = done.summary["reduced"]
        assert said in words((run.folder / "report/index.html").read_text())
        if budget > 1:
            assert total < budget * 1e6
            assert bool(said) == (budget < 20)
        else:
            assert "Tiles are left out" in said
            assert "Maps are left out" in said
            assert "more than was asked for" in said
    assert sizes[20.0] == (256, 8)
    assert sizes[20.0] > sizes[1.5] > sizes[1.1] > sizes[0.02] == (0, 0)
    write_reports(run.folder, config=TissueReportConfig(), images=run.images)


def test_tiles_are_encoded_as_well_as_there_is_room_for() -> None:
    draw = np.random.default_rng(0)
    tiles = {("s", str(i)): draw.integers(0, 255, (64, 64, 3), dtype=np.uint8) for i in range(6)}

    def images(keys: Any) -> list[Any]:
        return [tiles[key] for key in keys]

    def places(most: int) -> dict[tuple[str, str], int]:
        return dict.fromkeys(list(tiles)[:most], 2)

    rich = pictures.make_album(images, places, most=6, room=1e6)
    poor = pictures.make_album(images, places, most=6, room=32_000)
    none = pictures.make_album(images, places, most=6, room=100)
    assert rich.told == ""
    assert len(rich.tiles) == 6
    assert 0 < len(poor.tiles) < 6 or poor.side < 64
    assert "reduced" in poor.told
    assert not none.tiles
    assert "left out" in none.told
    with pytest.raises(DataError, match="not uint8"):
        pictures.make_album(lambda keys: [np.zeros((4, 4)) for _ in keys], places, most=1, room=1e6)


def test_without_places_maps_and_explanations_there_is_a_report_all_the_same(tmp_path: Path) -> None:
    made = made_up.make_run(tmp_path / "bare", side=4, sections=2, per_token=False)
    tiles = pl.read_parquet(made.folder / "tiles.parquet")
    tiles.with_columns(
        x=pl.lit(None), y=pl.lit(None), label=pl.lit(None), microns_per_pixel=pl.lit(None)
    ).write_parquet(made.folder / "tiles.parquet")
    for name in ("heads/baselines.parquet", "sae_usage.parquet", "encoder.json", "run.json"):
        (made.folder / name).unlink()
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    text = words((made.folder / "report/genes/KRT19.html").read_text())
    assert "the places of the samples in a section are not known" in text
    assert "Controls were not run" in text
    assert (
        "µm"
        not in (made.folder / "report/genes/KRT19.html").read_text().split("<body")[1].split('<script type="module"')[0]
    )
    assert "shuffled patients were not run, so that chance is not known" in words(
        (made.folder / "report/index.html").read_text()
    )


def test_what_is_missing_or_damaged_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        read_findings(tmp_path / "nothing")
    made = made_up.make_run(tmp_path / "run", side=3, sections=2)

    def refused(match: str) -> None:
        with pytest.raises(DataError, match=match) as caught:
            write_reports(made.folder, config=TissueReportConfig(), images=made.images)
        assert "\n" not in caught.value.line()

    place = made.folder / "token_maps/KRT19/17.npz"
    kept = place.read_bytes()
    place.write_bytes(kept[:-30])
    refused("is not an archive of maps")
    with zipfile.ZipFile(place, "w") as archive:
        out = io.BytesIO()
        np.save(out, np.array([[[{"a": 1}]]], dtype=object), allow_pickle=True)
        archive.writestr("maps.npy", out.getvalue())
    refused("is not an archive of maps")
    place.write_bytes(kept)
    index = made.folder / "token_maps/index.parquet"
    whole = pl.read_parquet(index)
    whole.with_columns(file=pl.lit("../../secret.npz")).write_parquet(index)
    refused("leads out of the run")
    whole.write_parquet(index)
    metrics = made.folder / "heads/metrics.parquet"
    kept = metrics.read_bytes()
    metrics.write_bytes(kept[:100])
    refused("cannot be read")
    pl.DataFrame({"name": ["KRT19"]}).write_parquet(metrics)
    refused("has no column 'gene'")
    metrics.unlink()
    refused("elute tissue train_heads")
    metrics.write_bytes(kept)
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)


def test_predictions_are_read_from_a_long_table_and_from_matrices(run: Any, tmp_path: Path) -> None:
    from elute.base.tensors import write_safetensors

    long = pl.read_parquet(run.folder / "heads/predictions.parquet")
    first = long.filter(pl.col("gene") == "CD3E")
    heads = tmp_path / "heads"
    heads.mkdir()
    genes = list(made_up.GENES)
    both = {
        name: np.stack([long.filter(pl.col("gene") == gene)[name].to_numpy() for gene in genes], 1).astype(np.float32)
        for name in ("measured", "predicted")
    }
    first.select("sample_id", "fold").write_parquet(heads / "predictions.parquet")
    write_safetensors(heads / "predictions.safetensors", both, dtype="F32", metadata={"genes": json.dumps(genes)})
    read = open_predictions(tmp_path)
    assert read.samples == len(first)
    assert read.of("CD3E")["predicted"].to_list() == pytest.approx(first["predicted"].to_list(), rel=1e-6)
    assert read.of("CD3E")["sample_id"].to_list() == first["sample_id"].to_list()
    assert read.of("nothing").is_empty()
    write_safetensors(heads / "predictions.safetensors", both, dtype="F32", metadata={"genes": json.dumps(genes[1:])})
    with pytest.raises(DamagedError, match="is not 144 samples × 5 genes"):
        open_predictions(tmp_path)


def maps_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="map-data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    told: dict[str, Any] = json.loads(found[1])
    return told


def unpacked(text: str) -> Any:
    return np.frombuffer(base64.b64decode(text), "<u2").astype(float)


def test_maps_hold_the_values_of_every_sample_at_its_place(run: Any) -> None:
    told = maps_of((run.folder / "report/genes/KRT19.html").read_text())
    values = pl.read_parquet(run.folder / "heads/predictions.parquet").filter(pl.col("gene") == "KRT19")
    tiles = pl.read_parquet(run.folder / "tiles.parquet").select("sample_id", "x", "y", "section")
    frame = values.join(tiles, on="sample_id").sort("section", "sample_id")
    assert told["ids"] == frame["sample_id"].to_list()
    assert [part["n"] for part in told["sections"]] == [36] * 4
    for name in ("measured", "predicted"):
        each = told["values"][name]
        shown = each["low"] + unpacked(each["steps"]) / 65_534 * (each["high"] - each["low"])
        assert shown == pytest.approx(frame[name].to_numpy(), abs=1e-4)
    places = unpacked(told["places"]).reshape(-1, 2)[:36]
    first = frame.head(36)
    true = first.select("x", "y").to_numpy() - first.select(pl.min("x", "y")).to_numpy()
    assert places / 65_535 * true.max() == pytest.approx(true, abs=0.05)
    both = np.concatenate([frame["measured"].to_numpy(), frame["predicted"].to_numpy()])
    assert told["scales"]["value"]["low"] == pytest.approx(np.quantile(both, 0.01))
    assert told["scales"]["residual"]["low"] == -told["scales"]["residual"]["high"]
    assert told["sections"][0]["microns"] == 0.5


def test_sections_without_room_are_named_not_drawn(run: Any) -> None:
    write_reports(run.folder, config=TissueReportConfig(spots_per_page=100), images=run.images)
    page = (run.folder / "report/genes/KRT19.html").read_text()
    assert [part["name"] for part in maps_of(page)["sections"]] == ["P1-1", "P1-2"]
    assert "Not drawn, to keep the page small (2): P2-1, P2-2" in words(page)
    write_reports(run.folder, config=TissueReportConfig(), images=run.images)


def test_numbers_of_a_section_are_those_of_its_samples(run: Any) -> None:
    frame = pl.read_parquet(run.folder / "heads/predictions.parquet").filter(pl.col("gene") == "CD3E")
    tiles = pl.read_parquet(run.folder / "tiles.parquet").filter(pl.col("section") == "P2-1")
    mine = frame.join(tiles.select("sample_id"), on="sample_id")
    page = (run.folder / "report/genes/CD3E.html").read_text()
    row = page[page.index('<th scope="row"><bdi class="name">P2-1</bdi>') :].split("</tr>")[0]
    pearson = np.corrcoef(mine["measured"], mine["predicted"])[0, 1]
    error = float(np.sqrt(((mine["measured"] - mine["predicted"]) ** 2).mean()))
    assert f">{pearson:.2g}<" in row
    assert f">{error:.2g}<" in row


def test_a_map_is_painted_by_sign_and_size_and_its_extent_counted() -> None:
    values = np.array([[1.0, -0.5], [0.0, 0.49]], np.float32)
    pixels = np.asarray(Image.open(io.BytesIO(token_maps.paint(values, 2.0))))
    assert pixels[..., 3].tolist() == [[128, 64], [0, 62]]
    assert tuple(pixels[0, 0, :3]) == token_maps.RAISES
    assert tuple(pixels[0, 1, :3]) == token_maps.LOWERS
    assert token_maps.half_of_strongest(values) == 1
    assert token_maps.half_of_strongest(np.array([[-1.0, -0.5, 0.6]], np.float32)) == 2
    assert token_maps.half_of_strongest(np.zeros((2, 2), np.float32)) == 0


@pytest.mark.parametrize(("side", "length"), [(112.0, 20.0), (56.0, 20.0), (448.0, 100.0), (10.0, 2.0), (0.5, 0.2)])
def test_a_scale_bar_is_a_round_length(side: float, length: float) -> None:
    assert gallery.scale_length(side) == pytest.approx(length)


def test_numbers_are_written_with_the_digits_that_count() -> None:
    assert [wording.amount(x) for x in (1.0, 0.41, -12.0, 0.0, 371.0, None)] == ["1.0", "0.41", "−12", "0", "371", "–"]
    assert [wording.share(x) for x in (0.683, 0.021, 0.0004, 0.0, None)] == ["68 %", "2.1 %", "< 0.1 %", "0 %", "–"]
    assert verdicts.r2(-0.001, -0.002, 0.004) == "0.00 (−0.00 to 0.00)"


def test_scales_hold_99_in_100_and_zero_in_the_middle() -> None:
    values = np.append(np.linspace(0, 1, 999), 500.0)
    assert section_maps.scale_of(values, "").high < 1.1
    zero = section_maps.about_zero(values - 0.5, "")
    assert zero.low == -zero.high
    assert section_maps.scale_of(np.array([np.nan]), "").high > section_maps.scale_of(np.array([np.nan]), "").low
    low, high = charts.span([-30.0, 0.4])
    assert low > -1.2
    assert high >= 0.4


def test_colours_are_the_explorers_and_paper_is_light() -> None:
    dark, light = palette.variables()
    assert "color-scheme: dark" in dark
    assert "color-scheme: light" in light
    style = palette.style()
    assert style.index(light) < style.index(dark), "what is printed, and a reader without a wish, is light"
    used = set(re.findall(r"var\((--[a-z]+)", style))
    own = {"--over", "--swatch", "--ramp", "--length"}
    assert used - own <= set(re.findall(r"(--[a-z]+):", dark)), "every colour that is used is there"


def test_programs_read_no_html_and_are_short() -> None:
    for name in {name for names in SCRIPTS.values() for name in names} | {"theme"}:
        text = (palette.PAGE / f"{name}.js").read_text()
        assert text.count("\n") <= 300
        assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", text), (
            name
        )


def test_what_was_explained_has_its_tiles_before_other_genes_have_maps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_up.make_run(tmp_path / "many", side=5, sections=2, pixels=28)
    for name in ("metrics", "predictions"):
        path = made.folder / f"heads/{name}.parquet"
        table = pl.read_parquet(path)
        one = table.filter(pl.col("gene") == "CD3E")
        pl.concat([table, *(one.with_columns(gene=pl.lit(f"OTHER{i}")) for i in range(30))]).write_parquet(path)
    monkeypatch.setattr(section_maps.Sections, "bytes_of", lambda *_: 150_000)  # as of a large cohort
    less = write_reports(made.folder, config=TissueReportConfig(size_budget_mb=8), images=made.images).summary
    assert (less["tiles_per_code"], less["tile_side"]) == (8, 256)
    assert 5 <= less["maps"] < 36
    assert f"Maps are left out of the pages of {36 - less['maps']} genes" in less["reduced"]
    assert "Maps are left out" in words((made.folder / "report/genes/OTHER29.html").read_text())
    assert maps_of((made.folder / "report/genes/KRT19.html").read_text())["ids"]


def test_programs_are_whole_and_their_colours_are_told_apart_by_everybody() -> None:
    from tests.reports.test_explorer_scripts import BLIND, NODE, lab, linear

    if NODE is not None:
        for kind in SCRIPTS:
            done = subprocess.run(
                [NODE, "--input-type=module", "--check", "-"],
                input=script(kind),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 0, done.stderr[:500]
    text = (palette.PAGE / "map_data.js").read_text()
    ramps = [re.findall(r"#[0-9a-f]{6}", line) for line in text.splitlines() if re.match(r"  (light|dark): \[", line)]
    assert [len(ramp) for ramp in ramps] == [5, 5]
    over = [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in (token_maps.RAISES, token_maps.LOWERS)]
    for sight in (np.eye(3), *map(np.array, BLIND)):

        def far(a: str, b: str, sight: Any = sight) -> float:
            one, two = lab(np.clip(linear([a, b]) @ sight.T, 0, 1))
            return float(np.linalg.norm(one - two))

        for ramp in ramps:
            assert far(ramp[0], ramp[-1]) > 0.2, "below and above zero"
            assert far(ramp[1], ramp[3]) > 0.1
        assert far(*over) > 0.2

"""Painted tissue: that pictures, truth and counts are of one cohort, and differ where they should."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from elute.tissue.painting import Painted, paint, paint_one
from elute.tissue.painting_cells import place
from elute.tissue.painting_genes import BY_PATIENT, GENES, PLANTED, draw_counts
from elute.tissue.painting_layout import LUMEN, STRUCTURES, lay_out, scattered, smooth_noise
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.painting_stain import draw_stain

CONFIG = PaintConfig(seed=3, patients=4, side=6)


@pytest.fixture(scope="module")
def cohort() -> Painted:
    return paint(CONFIG)


def test_tiles_are_cut_as_they_are_named(cohort: Painted) -> None:
    section = paint_one(CONFIG, 2)
    row = cohort.table.row(2 * 36 + 1 * 6 + 4, named=True)
    assert (row["group"], row["section"], row["x"], row["y"]) == ("patient02", "section02", 4.5 * 64, 1.5 * 64)
    want = section.image[64:128, 256:320]
    assert np.array_equal(cohort.tiles.image(2 * 36 + 10), want)
    structure = section.structure[64:128, 256:320]
    patch = structure[8:16, 24:32]
    mine = cohort.truth.filter(pl.col("sample_id") == row["sample_id"], pl.col("row") == 1, pl.col("col") == 3)
    assert mine.select(STRUCTURES).row(0) == pytest.approx([(patch == i).mean() for i in range(5)])
    shares = [(structure == i).mean() for i in range(5)]
    assert row["label"] == STRUCTURES[int(np.argmax(shares))]


def test_shares_add_up_to_what_is_no_lumen(cohort: Painted) -> None:
    section = paint_one(CONFIG, 0)
    lumen = (section.structure == LUMEN).mean()
    assert lumen > 0
    assert section.shares().sum(2).mean() == pytest.approx(1 - lumen)
    assert cohort.truth.height == 4 * 36 * 64


def test_a_section_depends_on_the_seed_and_its_number_alone(cohort: Painted) -> None:
    again = paint_one(CONFIG.model_copy(update={"patients": 9}), 1)
    assert np.array_equal(again.tiles(), cohort.pictures[36:72])
    assert not np.array_equal(paint_one(CONFIG, 0).image, again.image)
    other = paint_one(CONFIG.model_copy(update={"seed": 4}), 1)
    assert not np.array_equal(other.image, again.image)


def test_structures_look_different_and_patients_are_stained_apart() -> None:
    section = paint_one(CONFIG.model_copy(update={"stain": 0.0}), 0)
    dark = 255 - section.image.astype(float).mean(2)
    by = {name: dark[section.structure == i] for i, name in enumerate(STRUCTURES)}
    assert by["lymphocytes"].mean() > 1.15 * by["epithelium"].mean()
    assert by["adipose"].mean() < 0.5 * min(by[name].mean() for name in STRUCTURES if name != "adipose")
    assert by["necrosis"].std() > by["adipose"].std()
    stains = [draw_stain(1.0, np.random.default_rng(i)) for i in range(30)]
    alike = [draw_stain(0.0, np.random.default_rng(i)) for i in range(3)]
    assert np.std([each.amounts for each in stains], axis=0).min() > 0.1
    assert all(np.array_equal(each.dyes, alike[0].dyes) for each in alike)


def test_nuclei_lie_in_their_structures() -> None:
    rng = np.random.default_rng(0)
    layout = lay_out(384, np.zeros(5), rng)
    nuclei = place(layout, rng)
    row, column = nuclei.at.astype(int).T
    where = layout.structure[row, column]
    assert set(where[nuclei.kind == 0]) == {0}  # epithelial
    assert set(where[nuclei.kind == 3]) == {3}  # of fat
    assert set(where[nuclei.kind == 4]) == {4}  # debris
    assert (where[nuclei.kind == 2] == 2).mean() > 0.8  # lymphocytes, some of them elsewhere
    area = np.bincount(layout.structure.ravel(), minlength=6)[:5]
    count = np.bincount(where, minlength=6)[:5]
    assert (count / area).argsort()[-1] in (2, 4)


def test_smooth_noise_has_the_spread_and_width_that_it_says() -> None:
    noise = np.stack([smooth_noise(256, 12.0, np.random.default_rng(i)) for i in range(8)])
    assert noise.mean() == pytest.approx(0, abs=0.15)
    assert noise.std() == pytest.approx(1, abs=0.15)

    def lag(d: int) -> float:
        return float((noise[:, :, d:] * noise[:, :, :-d]).mean() / (noise**2).mean())

    # Noise under a Gaussian kernel of width w has the correlation exp(-d² / 4 w²).
    for d in (6, 12, 24):
        assert lag(d) == pytest.approx(np.exp(-(d**2) / (4 * 12.0**2)), abs=0.1)


def test_scattered_points_keep_apart_and_fill() -> None:
    points = scattered(300, 10.0, np.random.default_rng(0))
    away = np.linalg.norm(points[:, None] - points[None], axis=2) + 1e9 * np.eye(len(points))
    assert away.min(1).min() > 2
    assert away.min(1).max() < 15
    assert len(points) == pytest.approx(300 * 300 / (10 * 8.66), rel=0.05)


def test_counts_follow_what_was_planted() -> None:
    config = PaintConfig(seed=1, patients=6, side=20, patient_spread=0.0)
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.full(5, 0.4), 6 * 400)
    patient = np.repeat(np.arange(6), 400)
    drawn = draw_counts(shares, patient, config)
    rate = drawn.counts / drawn.library[:, None]
    for gene, structure in PLANTED.items():
        i = STRUCTURES.index(structure)
        g = GENES.index(gene)
        slope, base = np.polyfit(shares[:, i], rate[:, g], 1)
        assert slope / base == pytest.approx(config.effect, rel=0.35)
        others = [abs(stats.spearmanr(shares[:, j], rate[:, g])[0]) for j in range(5) if j != i]
        assert stats.spearmanr(shares[:, i], rate[:, g])[0] > 2 * max(others)
    for gene in GENES[len(PLANTED) :]:
        g = GENES.index(gene)
        means = np.array([rate[patient == p, g].mean() for p in range(6)])
        assert (means.max() / means.min() > 8) == (gene in BY_PATIENT)
        if gene not in BY_PATIENT:
            assert max(abs(stats.spearmanr(shares[:, j], rate[:, g])[0]) for j in range(5)) < 0.1


def test_counts_are_negative_binomial() -> None:
    config = PaintConfig(seed=2, patients=2, side=200, patient_spread=0.0, dispersion=0.4)
    n = 40_000
    drawn = draw_counts(np.tile([0.0, 1.0, 0.0, 0.0, 0.0], (n, 1)), np.zeros(n, dtype=np.int64), config)
    g = GENES.index("ACTB")
    # Within a narrow band of libraries the rate is one number: variance = mean + dispersion · mean².
    band = np.abs(drawn.library - np.median(drawn.library)) < 0.02 * np.median(drawn.library)
    counts = drawn.counts[band, g]
    assert band.sum() > 500
    assert counts.var() == pytest.approx(counts.mean() + 0.4 * counts.mean() ** 2, rel=0.2)


def test_patches_must_tile_a_tile() -> None:
    with pytest.raises(ValueError, match="do not tile"):
        PaintConfig(tile_size=64, patch=10)

"""Files of fused embeddings: what is written comes back as it was, whatever ids are called and however many there are."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, VersionError
from elute.particles import fused_layout
from elute.particles.cryolens_files import read_cryolens
from elute.particles.fused_layout import link_name
from elute.particles.reading_fused import FusedFile
from elute.particles.table import particle_frame
from elute.particles.writing_fused import write_fused

AWKWARD = [
    "a/b",
    "a%2Fb",
    ".",
    "..",
    "",
    "./x",
    "class_names",
    "naïve β",
    "/lead",
    "x" * 3000,
    "sample_0",
    "%",
    "a ",
]
CLASSES = ["apoferritin", "β-amylase", "ribosome"]


def made(n: int = 7, *, ids: list[str] | None = None, width: int = 5, gaps: bool = True) -> dict[str, Any]:
    """Particles with vectors; some things are not known of some."""
    rng = np.random.default_rng(n)
    ids = ids or [f"sample_{i}" for i in range(n)]
    none = [None if gaps and i % 3 == 0 else i for i in range(n)]
    frame = particle_frame(
        {
            "id": ids, "label": [CLASSES[i % 3] for i in range(n)], "run": [f"TS_{i % 2}" for i in range(n)],
            "x": rng.normal(size=n), "y": rng.normal(size=n), "z": rng.normal(size=n),
            "voxel_spacing": [None if v is None else 10.012 for v in none],
            "object_name": [None if v is None else "Ribosome" for v in none], "picks_index": [0] * n, "point_index": none,
        }, n,
    )  # fmt: skip
    mu = rng.normal(size=(n, width)).astype(np.float32)
    return {"particles": frame, "mu": mu, "oof": mu + 1, "fold": np.arange(n) % 3}


def written(path: Path, of: dict[str, Any], piece: int = 3, **more: Any) -> Path:
    parts = range(0, len(of["mu"]), piece)
    vectors = [(of["mu"][i : i + piece], None if of.get("oof") is None else of["oof"][i : i + piece]) for i in parts]
    told = {"fusion_method": "attention", "n_epochs": 20, "random_seed": 1, "n_classes": 3, "made_of": "these"}
    write_fused(
        path, of["particles"], vectors, **{"told": told, "classes": CLASSES, "width": of["mu"].shape[1], "fold": of.get("fold"), **more}
    )  # fmt: skip
    return path


def test_the_originals_snippet(tmp_path: Path) -> None:
    path = written(tmp_path / "fused_embeddings.h5", made())
    with h5py.File(path, "r") as f:
        sample_emb = f["embeddings"]["sample_0"]["mu"][:]
        n_samples = f["metadata"].attrs["n_samples"]
        class_names = f["metadata"]["class_names"][:]
        assert f["metadata"].attrs["random_seed"] == 1
    assert np.array_equal(sample_emb, made()["mu"][0])
    assert sample_emb.dtype == np.float32
    assert n_samples == 7
    assert [name.decode() for name in class_names] == CLASSES


def test_cryolens_reader_finds_classes_where_it_looks(tmp_path: Path) -> None:
    """As the original reads: vectors by key, the class from an attribute of /metadata/{id}."""
    of = made()
    with h5py.File(written(tmp_path / "f.h5", of), "r") as f:
        for i, sample in enumerate(f["embeddings"].keys()):
            assert f["metadata"][sample].attrs["object_type"] == of["particles"]["label"][i]
            attrs = f["embeddings"][sample].attrs
            assert (attrs["run_name"], attrs["structure_name"]) == (
                of["particles"]["run"][i],
                of["particles"]["label"][i],
            )
            assert attrs["coordinates"].tolist() == list(of["particles"].select("x", "y", "z").row(i))
            assert ("voxel_spacing" in attrs) == (i % 3 != 0)


@pytest.mark.parametrize("layout", ["groups", "bulk", "both"])
def test_all_comes_back(tmp_path: Path, layout: str) -> None:
    of = made(ids=AWKWARD, n=len(AWKWARD))
    path = written(tmp_path / "f.h5", of, layout=layout)
    file = FusedFile(path)
    found = file.read()
    assert_frame_equal(found.particles, of["particles"])
    assert np.array_equal(found.mu, of["mu"])
    assert found.mu_oof is not None
    assert found.fold is not None
    assert np.array_equal(found.mu_oof, of["oof"])
    assert np.array_equal(found.fold, of["fold"])
    assert found.in_sample.all()
    assert file.classes == CLASSES
    some = file.find([AWKWARD[3], AWKWARD[0], AWKWARD[3]])
    assert np.array_equal(some.mu, of["mu"][[3, 0, 3]])
    assert [len(part) for part in file.parts(4)] == [4, 4, 4, 1]
    with pytest.raises(DataError, match="holds no particle 'nobody'"):
        file.find(["nobody"])


@pytest.mark.parametrize("layout", ["groups", "bulk"])
def test_the_projects_reader_of_sources_has_the_same(tmp_path: Path, layout: str) -> None:
    of = made(ids=AWKWARD, n=len(AWKWARD))
    table = read_cryolens(written(tmp_path / "f.h5", of, layout=layout), name="fused")
    assert np.array_equal(table.vectors, of["oof"]), "of the two, the vectors that can be judged by"
    same = ["id", "label", "run", "x", "y", "z", "picks_index", "point_index"]
    assert_frame_equal(table.particles.select(same), of["particles"].select(same))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12),
        unique=True,
        min_size=2,
        max_size=40,
    )
)
def test_two_ids_never_have_one_name(ids: list[str]) -> None:
    names = [link_name(sample) for sample in ids]
    assert len(set(names)) == len(names)
    assert not [name for name in names if "/" in name or "\0" in name or name in (".", "..", "", "class_names")]


def test_marks_say_what_can_be_judged_by(tmp_path: Path) -> None:
    of = made()
    seen = np.arange(7) % 2 == 0
    with h5py.File(written(tmp_path / "f.h5", of, in_sample=seen), "r") as f:
        for i, sample in enumerate(f["embeddings"]):
            node = f["embeddings"][sample]
            assert node["mu"].attrs["in_sample"] == seen[i]
            assert node["mu_oof"].attrs["in_sample"] == 0
            assert node["mu_oof"].attrs["fold"] == of["fold"][i]
        assert "in-sample" in f["metadata"].attrs["mu"]
        assert "evaluation" in f["metadata"].attrs["mu_oof"]
    alone = made()
    alone |= {"oof": None, "fold": None}
    found = FusedFile(written(tmp_path / "g.h5", alone, in_sample=seen, layout="both")).read()
    assert found.mu_oof is None
    assert np.array_equal(found.in_sample, seen)


@pytest.mark.parametrize("layout", ["groups", "bulk"])
def test_the_same_content_is_the_same_bytes(tmp_path: Path, layout: str) -> None:
    one = written(tmp_path / "a.h5", made(), layout=layout)
    time.sleep(1.1)  # HDF5 counts time in seconds
    two = written(tmp_path / "b.h5", made(), piece=2, layout=layout)
    assert one.read_bytes() == two.read_bytes()


def test_very_many_are_whole_arrays_and_groups_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fused_layout.MOST_GROUPS == 100_000
    monkeypatch.setattr(fused_layout, "MOST_GROUPS", 6)
    few = made(6)
    with h5py.File(written(tmp_path / "few.h5", few)) as f:
        assert set(f) == {"embeddings", "metadata"}
    many = made(7)
    with h5py.File(written(tmp_path / "many.h5", many)) as f:
        assert set(f) == {"fused", "metadata"}
        assert np.array_equal(f["fused/mu"][:], many["mu"])
        by_id = [f["fused/sample_id"][int(i)] for i in f["fused/by_id"]]
        assert by_id == sorted(by_id)
    with h5py.File(written(tmp_path / "both.h5", many, layout="both")) as f:
        assert set(f) == {"embeddings", "fused", "metadata"}
        assert np.array_equal(f["embeddings/sample_3/mu"][:], many["mu"][3])


@pytest.mark.parametrize("layout", ["bulk", "groups"])
def test_memory_does_not_grow_with_the_vectors(tmp_path: Path, layout: str) -> None:
    n, width = (30_000, 256) if layout == "bulk" else (1000, 8192)
    frame = particle_frame({"id": [f"s{i}" for i in range(n)], "label": ["a"] * n}, n)

    def vectors() -> Iterator[tuple[np.ndarray[Any, Any], None]]:
        step = 2048 if layout == "bulk" else 64
        for start in range(0, n, step):
            yield np.full((min(step, n - start), width), start, np.float32), None

    path = tmp_path / "f.h5"
    tracemalloc.start()
    write_fused(path, frame, vectors(), told={}, classes=["a"], width=width, layout=layout)
    total = 0.0
    for part in FusedFile(path).parts(2048 if layout == "bulk" else 64):
        total += float(part.mu[0, 0])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total > 0
    assert peak < n * width * 4 / 3


def test_a_file_that_is_there_is_used_or_refused(tmp_path: Path) -> None:
    path = written(tmp_path / "f.h5", made())
    before = path.read_bytes()
    told = {"made_of": "these"}
    again = write_fused(path, made()["particles"], [], told=told, classes=CLASSES, width=5)
    assert again.summary["reused"]
    for other in ({"made_of": "others"}, {}):
        with pytest.raises(ConfigError, match=r"f\.h5: there is a file already\. Give another name"):
            write_fused(path, made()["particles"], [], told=other, classes=CLASSES, width=5)
    assert path.read_bytes() == before
    text = tmp_path / "notes.h5"
    text.write_text("mine")
    with pytest.raises(ConfigError, match="there is a file already"):
        written(text, made())
    assert text.read_text() == "mine"


def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    of = made()
    bad: list[tuple[str, dict[str, Any]]] = [
        ("4 vectors for 7 particles", {**of, "mu": of["mu"][:4], "oof": of["oof"][:4]}),
        ("more vectors than the 3", {**of, "particles": of["particles"][:3], "fold": of["fold"][:3]}),
        ("given twice", {**of, "particles": of["particles"].with_columns(id=pl.lit("one"))}),
        ("id holds a NUL", {**of, "particles": of["particles"].with_columns(id=pl.col("id") + "\0")}),
        ("run holds a NUL", {**of, "particles": of["particles"].with_columns(run=pl.col("run") + "\0")}),
        ("6 folds for 7", {**of, "fold": of["fold"][:6]}),
    ]
    for text, given_ in bad:
        with pytest.raises(DataError, match=text):
            written(tmp_path / "f.h5", given_)
    with pytest.raises(DataError, match="where 9 numbers are expected"):
        written(tmp_path / "f.h5", of, width=9)
    with pytest.raises(DataError, match="half a character"):
        link_name("\ud800")
    with pytest.raises(DataError, match="holds a NUL"):
        link_name("a\0")
    with pytest.raises(DataError, match="has 20,000 bytes"):
        link_name("x" * 20_000)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("layout", ["groups", "bulk"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.98])
def test_a_file_cut_short_is_one_line(tmp_path: Path, layout: str, share: float) -> None:
    path = written(tmp_path / "f.h5", made(60), layout=layout)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(DamagedError) as told:
        FusedFile(path).read()
    assert "\n" not in str(told.value)
    assert "is not a whole HDF5 file" in str(told.value)


def _newer(f: h5py.File) -> None:
    f["metadata"].attrs["schema"] = 99


def _wide(f: h5py.File) -> None:
    del f["embeddings/sample_2/mu"]
    f["embeddings/sample_2"]["mu"] = np.zeros(500_000, np.float32)


def _lost(f: h5py.File) -> None:
    del f["embeddings/sample_2"]


def _words(f: h5py.File) -> None:
    f["embeddings/sample_2"].attrs["run_name"] = np.arange(5)


def _bare(f: h5py.File) -> None:
    del f["metadata"]


@pytest.mark.parametrize(
    ("spoil", "error", "text"),
    [(_newer, VersionError, "newer elute"), (_wide, DamagedError, "where 5 numbers"), (_lost, DamagedError, "holds 6 particles"),
     (_words, DamagedError, "not a whole"), (_bare, DataError, "no file of fused embeddings")],
)  # fmt: skip
def test_a_spoilt_file_is_one_line(tmp_path: Path, spoil: Any, error: type[EluteError], text: str) -> None:
    path = written(tmp_path / "f.h5", made())
    with h5py.File(path, "r+") as f:
        spoil(f)
    with pytest.raises(error, match=text):
        FusedFile(path).read()

"""Files as users have them become particles: both CryoLens layouts, TomoTwin's two tables, any table of vectors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError
from elute.particles.reading import read_joined, read_source
from elute.particles.settings import EvaluationConfig, InputsConfig, SourceConfig, read_inputs, sources_of

RNG = np.random.default_rng(0)


def by_particle(
    path: Path, samples: dict[str, Any], told: dict[str, dict[str, Any]] | None = None, **where: bool
) -> Path:
    with h5py.File(path, "w") as file:
        group, metadata = file.create_group("embeddings"), file.create_group("metadata")
        for name, x in samples.items():
            if where.get("bare"):
                group[name] = x
            else:
                group.create_group(name)["mu"] = x
            if told is not None and name in told:
                at = group[name] if where.get("own") else metadata.create_group(name)
                at.attrs.update(told[name])
    return path


def source(path: Path, **more: Any) -> SourceConfig:
    return SourceConfig(name=more.pop("name", "s"), path=path, **more)


TOLD = {
    "b_run2_picks_1": {"object_name": "Beta-Amylase", "run_name": "TS_7", "coordinates": [1.0, 2.0, 3.0],
                       "picks_index": 4, "point_index": 9, "voxel_spacing": 10.0},
    "a_run1_picks_0": {"object_type": b"VLP", "coordinates": np.array([[4.0, 5.0, 6.0]])},
}  # fmt: skip


@pytest.mark.parametrize("own", [False, True])
def test_a_group_a_particle_with_attributes_in_either_place(tmp_path: Path, own: bool) -> None:
    x = {"b_run2_picks_1": RNG.normal(size=(2, 3)).astype("f4"), "a_run1_picks_0": RNG.normal(size=(2, 3)).astype("f4")}
    table = read_source(source(by_particle(tmp_path / "e.h5", x, TOLD, own=own)))
    rows = {row["id"]: (i, row) for i, row in enumerate(table.particles.iter_rows(named=True))}
    i, b = rows["b_run2_picks_1"]
    assert (b["label"], b["object_name"], b["run"]) == ("beta_amylase", "Beta-Amylase", "TS_7")
    assert (b["x"], b["y"], b["z"], b["voxel_spacing"], b["picks_index"], b["point_index"]) == (1, 2, 3, 10, 4, 9)
    np.testing.assert_array_equal(table.vectors[i], x["b_run2_picks_1"].ravel())
    a = rows["a_run1_picks_0"][1]
    assert (a["label"], a["run"], a["x"], a["z"]) == ("virus_like_particle", "run1", 4, 6)
    assert a["voxel_spacing"] is None
    assert a["object_name"] is None
    assert len(table.digest) == 64


def test_bare_data_sets_whose_ids_tell_class_and_run(tmp_path: Path) -> None:
    x = {f"ribosome_run{i}_picks_{i}": np.full(4, i, "f4") for i in range(3)}
    table = read_source(source(by_particle(tmp_path / "e.h5", x, bare=True), kind="cryolens", first=2))
    assert table.particles["label"].to_list() == ["ribosome"] * 3
    assert table.particles["run"].to_list() == ["run0", "run1", "run2"]
    assert table.vectors.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert table.notes == ("s: the first 2 of 4 numbers are kept",)


def by_run(path: Path, runs: int = 2, n: int = 3, width: int = 5) -> Path:
    with h5py.File(path, "w") as file:
        for r in range(runs):
            group = file.create_group(f"TS_{r}")
            group["embeddings"] = np.arange(n * width).reshape(n, width) + 100 * r
            group["structure_labels"] = np.array(["Apo-Ferritin"] * n, "S")
            group["coordinates_angstrom"] = np.arange(n * 3).reshape(n, 3) * 1.0
            group["voxel_spacings"] = np.full(n, 7.5)
    return path


def test_whole_arrays_a_group_a_run(tmp_path: Path) -> None:
    table = read_source(source(by_run(tmp_path / "e.h5")))
    assert len(table) == 6
    assert table.particles["run"].to_list() == ["TS_0"] * 3 + ["TS_1"] * 3
    assert table.particles["label"].unique().to_list() == ["apoferritin"]
    assert table.vectors[3, 0] == 100
    assert table.particles["z"].to_list() == [2, 5, 8] * 2
    assert table.particles["id"].null_count() == 6
    assert table.particles["voxel_spacing"][0] == 7.5


def test_coordinates_in_voxels_become_angstrom(tmp_path: Path) -> None:
    path = by_run(tmp_path / "e.h5")
    assert read_source(source(path, unit="voxel")).particles["z"][0] == 2 * 7.5
    assert read_source(source(path, unit="voxel", voxel_spacing=10.0)).particles["z"][0] == 20
    bare = by_particle(tmp_path / "b.h5", {"a_1": np.ones(2)}, {"a_1": {"coordinates": [1.0, 2.0, 3.0]}})
    with pytest.raises(DataError, match="no voxel spacing is known. Give voxel_spacing"):
        read_source(source(bare, unit="voxel"))


def tomotwin(folder: Path, n: int = 6, prefix: str = "output/", **more: Any) -> SourceConfig:
    paths = [f"run{i % 2}/beta-amylase/{i}.mrc" for i in range(n)]
    vectors = {str(j): np.arange(n) * 10.0 + j for j in range(4)}
    frame = pl.DataFrame({"filepath": [prefix + p for p in paths], **vectors, "__index_level_0__": np.arange(n)})
    frame.reverse().write_parquet(folder / "t.parquet")
    pl.DataFrame({"protein": ["Beta-Amylase"] * n, "filepath": paths, **more.pop("columns", {})}).write_csv(
        folder / "c.csv"
    )
    return source(folder / "t.parquet", coords=folder / "c.csv", **more)


@pytest.mark.parametrize("prefix", ["output/", ""])
def test_tomotwins_two_tables_are_put_together(tmp_path: Path, prefix: str) -> None:
    table = read_source(tomotwin(tmp_path, prefix=prefix))
    assert table.width == 4  # pandas' index is no number of the vector
    assert table.vectors[:, 0].tolist() == [0, 10, 20, 30, 40, 50]
    assert table.particles["run"].to_list() == ["run0", "run1"] * 3
    assert table.particles["id"][2] == "run0/beta-amylase/2.mrc"
    assert table.particles["label"][0] == "beta_amylase"
    assert not table.has("x")


def test_tomotwins_csv_may_hold_coordinates_and_ids(tmp_path: Path) -> None:
    columns = {"X": [1.5] * 6, "Y": [2.0] * 6, "Z": [3.0] * 6, "particle_id": [f"p{i}" for i in range(6)]}
    table = read_source(tomotwin(tmp_path, columns=columns))
    assert table.has("x", "y", "z")
    assert table.particles["id"].to_list() == [f"p{i}" for i in range(6)]
    voxels = read_source(tomotwin(tmp_path, columns=columns, unit="voxel", voxel_spacing=10.0))
    assert voxels.particles["x"].to_list() == [15.0] * 6


def test_what_only_one_of_tomotwins_tables_has_is_counted(tmp_path: Path) -> None:
    config = tomotwin(tmp_path)
    pl.read_csv(tmp_path / "c.csv").head(4).write_csv(tmp_path / "c.csv")
    table = read_source(config)
    assert len(table) == 4
    assert table.notes == ("s: 2 embeddings have no row in c.csv",)
    pl.DataFrame({"protein": ["a"], "filepath": ["elsewhere/1.mrc"]}).write_csv(tmp_path / "c.csv")
    with pytest.raises(DataError, match="no file path is in both tables: 'elsewhere/1.mrc'"):
        read_source(config)


def test_any_table_of_vectors(tmp_path: Path) -> None:
    x = RNG.normal(size=(5, 3)).astype("f4")
    known = {"particle": [f"p{i}" for i in range(5)], "class": list("aabbc"), "tomogram": ["t1"] * 5,
             "x": np.arange(5.0), "y": np.ones(5), "z": np.ones(5)}  # fmt: skip
    frame = pl.DataFrame({**known, **{f"v{j}": x[:, j] for j in range(3)}})
    frame.write_csv(tmp_path / "t.csv")
    frame.write_csv(tmp_path / "t.tsv", separator="\t")
    frame.write_parquet(tmp_path / "t.parquet")
    pl.DataFrame({**known, "embedding": x.tolist()}).write_parquet(tmp_path / "lists.parquet")
    arrays = {k: np.asarray(v) for k, v in known.items()}
    np.savez(tmp_path / "t.npz", vectors=x, **arrays)
    for name in ("t.csv", "t.tsv", "t.parquet", "lists.parquet", "t.npz"):
        table = read_source(source(tmp_path / name))
        np.testing.assert_allclose(table.vectors, x, rtol=1e-6)
        assert table.particles["id"].to_list() == known["particle"], name
        assert table.particles["label"].to_list() == list("aabbc"), name
        assert table.particles["run"].to_list() == ["t1"] * 5
        assert table.particles["x"].to_list() == [0, 1, 2, 3, 4]


def test_columns_of_any_name(tmp_path: Path) -> None:
    frame = pl.DataFrame(
        {"who": ["a", "b"], "what": ["c", "d"], "px": [1.0, 2], "py": [1.0, 2], "pz": [1.0, 2], "v": [0.5, 1]}
    )
    frame.write_csv(tmp_path / "t.csv")
    given = {"id_column": "who", "label_column": "what", "coordinate_columns": ("px", "py", "pz")}
    table = read_source(source(tmp_path / "t.csv", **given, unit="voxel", voxel_spacing=2.0))
    assert table.width == 1
    assert table.particles["id"].to_list() == ["a", "b"]
    assert table.particles["x"].to_list() == [2.0, 4.0]
    with pytest.raises(ConfigError, match="has no column 'wha'. Did you mean 'what'"):
        read_source(source(tmp_path / "t.csv", label_column="wha"))


def test_an_anndata_files_components(tmp_path: Path) -> None:
    anndata = pytest.importorskip("anndata")
    import pandas as pd

    obs = pd.DataFrame({"cell_type": ["t", "b", "t"]}, index=["c1", "c2", "c3"])
    x = RNG.normal(size=(3, 2)).astype("f4")
    anndata.AnnData(np.ones((3, 4), "f4"), obs=obs, obsm={"X_pca": x}).write_h5ad(tmp_path / "c.h5ad")
    table = read_source(source(tmp_path / "c.h5ad", key="obsm/X_pca"))
    np.testing.assert_array_equal(table.vectors, x)
    assert table.particles["id"].to_list() == ["c1", "c2", "c3"]
    assert table.particles["label"].to_list() == ["t", "b", "t"]


def test_of_fused_vectors_those_are_read_that_were_made_out_of_sample(tmp_path: Path) -> None:
    path = tmp_path / "f.h5"
    with h5py.File(path, "w") as file:
        for i in range(3):
            group = file.create_group(f"embeddings/sample_{i}")
            group["mu"], group["mu_oof"] = np.full(2, 9.0), np.full(2, i)
            group.attrs["structure_name"] = "CD4 T"
    table = read_source(source(path))
    assert table.vectors[:, 0].tolist() == [0, 1, 2]
    assert "mu_oof" in table.notes[0]
    assert table.particles["label"].to_list() == ["CD4 T"] * 3  # as it was written
    assert read_source(source(path, key="mu")).vectors[:, 0].tolist() == [9, 9, 9]


def broken(tmp_path: Path, kind: str) -> SourceConfig:
    good = {f"a_run1_{i}": np.ones(3, "f4") for i in range(4)}
    path = tmp_path / f"{kind}.h5"
    if kind == "truncated":
        by_particle(path, good)
        path.write_bytes(path.read_bytes()[:-900])
    elif kind == "nan":
        by_particle(path, {**good, "a_run1_2": np.array([1, np.nan, 2], "f4")})
    elif kind == "widths":
        by_particle(path, {**good, "a_run1_2": np.ones(2, "f4")})
    elif kind == "text":
        path.write_text("no HDF5 at all")
    elif kind == "no mu":
        with h5py.File(path, "w") as file:
            file.create_group("embeddings/a_1")["sigma"] = np.ones(3)
    elif kind == "no embeddings":
        with h5py.File(path, "w") as file:
            file["other"] = np.ones(3)
    elif kind == "empty":
        with h5py.File(path, "w") as file:
            file.create_group("embeddings")
    elif kind == "words":
        with h5py.File(path, "w") as file:
            file.create_group("embeddings/a_1")["mu"] = "words"
    return source(path, kind="cryolens")


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("truncated", DamagedError, "is not a whole HDF5 file"),
        ("text", DamagedError, "is not a whole HDF5 file"),
        ("nan", DataError, "1 of 4 vectors hold NaN or infinity, the first in row 2"),
        ("widths", DataError, "the vector of 'a_run1_2' has 2 numbers, those before it 3"),
        ("no mu", DataError, "holds sigma for a particle, not mu"),
        ("no embeddings", DataError, "holds neither /embeddings nor /RUN/embeddings"),
        ("empty", DataError, "holds no particle under /embeddings"),
        ("words", DataError, "not numbers"),
        ("absent", DataError, "there is no such file"),
    ],
)
def test_what_cannot_be_read_is_told_in_one_line(tmp_path: Path, kind: str, error: type[EluteError], text: str) -> None:
    with pytest.raises(error) as found:
        read_source(broken(tmp_path, kind))
    assert text in found.value.line()
    assert str(tmp_path) in found.value.line()
    assert "\n" not in found.value.line()


def test_tables_that_cannot_be_read_are_told_in_one_line(tmp_path: Path) -> None:
    config = tomotwin(tmp_path)
    pl.read_csv(tmp_path / "c.csv").rename({"protein": "proteins"}).write_csv(tmp_path / "c.csv")
    with pytest.raises(DataError, match="has no column 'protein'. Did you mean 'proteins'"):
        read_source(config)
    with pytest.raises(DataError, match="table of proteins and file paths is missing"):
        read_source(source(tmp_path / "t.parquet", kind="tomotwin"))
    tomotwin(tmp_path)
    (tmp_path / "t.parquet").write_bytes((tmp_path / "t.parquet").read_bytes()[:300])
    with pytest.raises(DamagedError, match="cannot be read as Parquet"):
        read_source(config)
    pl.DataFrame({"id": ["a", "b"], "v": [1.0, None]}).write_csv(tmp_path / "n.csv")
    with pytest.raises(DataError, match="1 numbers of the vectors are missing or NaN"):
        read_source(source(tmp_path / "n.csv"))
    pl.DataFrame({"id": ["a", "a"], "v": [1.0, 2.0]}).write_csv(tmp_path / "d.csv")
    with pytest.raises(DataError, match="id 'a' is given twice"):
        read_source(source(tmp_path / "d.csv"))
    with pytest.raises(ConfigError, match="vectors of 4 numbers, and the first 32 are asked for"):
        read_source(tomotwin(tmp_path, first=32))


def test_the_configuration_of_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    by_particle(tmp_path / "e.h5", {"a_run1_0": np.ones(3)})
    text = "cryolens_embeddings: e.h5\ntomotwin_embeddings: t.parquet\ntomotwin_coords: c.csv\nrandom_seed: 5\n"
    (tmp_path / "config.yaml").write_text(text)
    monkeypatch.chdir(tmp_path.parent)
    inputs = read_inputs(tmp_path / "config.yaml")
    assert inputs.random_seed == 5
    assert inputs.cryolens_embeddings == tmp_path / "e.h5"  # beside the configuration, where it is not here
    first, second = sources_of(inputs, embedding_dim=32)
    assert (first.name, first.coords, first.first) == ("tomotwin", inputs.tomotwin_coords, 32)
    assert (second.name, second.kind) == ("cryolens", "cryolens")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("cryolens_embeddings: a.h5\ntomotwin_embeddings: b.parquet\n", "tomotwin_coords is missing"),
        ("cryolens_embedding: a.h5\n", "Did you mean 'cryolens_embeddings'"),
        ("random_seed: 3\n", "cryolens_embeddings is missing"),
        ("sources:\n  - {name: a, path: a.csv}\n", "one source only"),
        ("sources:\n  - {name: a, path: a.csv}\n  - {name: a, path: b.csv}\n", "two sources have the same name"),
        ("sources:\n  - {name: fusion, path: a.csv}\n  - {name: b, path: b.csv}\n", "is the name of a method"),
        ("sources:\n  - {name: a, path: a}\n  - {name: b, path: b}\ntomotwin_coords: c.csv\n", "both sources and"),
    ],
)
def test_a_configuration_that_says_too_little_or_too_much(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        sources_of(read_inputs(tmp_path / "c.yaml"), embedding_dim=32, where=tmp_path / "c.yaml")
    assert told in error.value.line()


def test_all_sources_of_a_configuration_are_read_and_joined(tmp_path: Path) -> None:
    for name in "ab":
        frame = pl.DataFrame({"id": [f"p{i}" for i in range(9)], "label": list("xxxxxxyyy"), "v": np.arange(9.0)})
        frame.write_csv(tmp_path / f"{name}.csv")
    inputs = InputsConfig(sources=tuple(source(tmp_path / f"{n}.csv", name=n) for n in "ab"))
    assert len(read_joined(inputs, EvaluationConfig())) == 9
    even = read_joined(inputs, EvaluationConfig(balance_classes=True))
    assert even.particles["label"].to_list().count("x") == 3
    assert "balanced: 3 particles each of 9" in even.notes[-1]

"""Targets: how a file is read, aligned with tiles and cut down to genes, and what of it is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from elute.base.errors import ConfigError, DataError, EluteError
from elute.heads.settings import HeadConfig
from elute.tissue.plan import Plan
from elute.tissue.preparing import Targets, prepare_targets, read_targets
from elute.tissue.settings import TargetsConfig
from elute.tissue.targets import open_targets

SAMPLES = pl.DataFrame(
    {"sample_id": [f"s{i}" for i in range(12)], "group": [f"p{i // 3}" for i in range(12)],
     "split": ["train"] * 6 + ["validation"] * 3 + ["test"] * 3}
)  # fmt: skip
GENES = ["QUIET", "LOUD", "RARE", "ELSE"]


def values() -> np.ndarray[Any, Any]:
    """LOUD varies among training samples, RARE is met in one of them, ELSE varies among the others alone."""
    rng = np.random.default_rng(0)
    x = np.full((12, 4), 100.0)
    x[:6, 1] = [1, 200, 5, 300, 2, 150]
    x[:, 2] = 0
    x[0, 2] = 500
    x[6:, 3] = rng.integers(0, 2000, 6)
    return x


def write(path: Path, y: np.ndarray[Any, Any], names: list[str] | None = None, **more: Any) -> Path:
    held = {"sample_id": names or SAMPLES["sample_id"].to_list(), **{g: y[:, i] for i, g in enumerate(GENES)}, **more}
    frame = pl.DataFrame(held)
    frame.write_csv(path) if path.suffix == ".csv" else frame.write_parquet(path)
    return path


def write_h5ad(path: Path, x: np.ndarray[Any, Any], **layers: Any) -> Path:
    anndata, pd = pytest.importorskip("anndata"), pytest.importorskip("pandas")
    obs = pd.DataFrame(
        {"size": x.sum(1) * 2, "spot": SAMPLES["sample_id"].to_list()}, index=[f"obs{i}" for i in range(12)]
    )
    anndata.AnnData(x, obs, pd.DataFrame(index=GENES), layers=layers).write_h5ad(path)
    return path


def prepared(folder: Path, path: Path, *, loss: Any = "mse", score: Any = None, **asked: Any) -> Targets:
    plan = Plan.of(folder / "run", {"targets": TargetsConfig(counts=path, **{"genes": "all", **asked}),
                                    "heads": HeadConfig(loss=loss)})  # fmt: skip
    (folder / "run").mkdir(exist_ok=True)
    return prepare_targets(plan, SAMPLES, rows="a store", score=score)


@pytest.mark.parametrize("kind", ["targets.csv", "targets.parquet"])
def test_a_table(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    order = [3, 0, 11, 7, 1, 2, 4, 5, 6, 8, 9, 10]  # not that of the tiles
    names = [f"s{i}" for i in order]
    path = write(tmp_path / kind, values()[order], names, x=[0.5] * 12, note=["n"] * 12)
    found = prepared(tmp_path, path)
    assert found.names == GENES
    assert found.samples["sample_id"].to_list() == SAMPLES["sample_id"].to_list()
    np.testing.assert_allclose(found.values, values())
    np.testing.assert_allclose(found.library, values().sum(1))
    assert found.scale == "log1p"
    assert "2 columns are no genes (x, note)" in capsys.readouterr().err


def test_an_h5ad_with_counts_in_a_layer_and_a_column_of_library_sizes(tmp_path: Path) -> None:
    x = values()
    path = write_h5ad(tmp_path / "t.h5ad", np.log1p(x), counts=x, scaled=x - 100)
    found = prepared(tmp_path, path, sample_column="spot", library="size")
    np.testing.assert_allclose(found.values, x)
    np.testing.assert_allclose(found.library, np.log1p(x).sum(1) * 2, rtol=1e-5)
    named = prepared(tmp_path, path, sample_column="spot", layer="X")
    np.testing.assert_allclose(named.values, np.log1p(x), rtol=1e-6)
    assert named.scale == "values"
    with pytest.raises(DataError, match=r"targets hold -99 in sample 's0', gene 'LOUD'"):
        prepared(tmp_path, path, sample_column="spot", layer="layers/scaled")
    with pytest.raises(ConfigError, match=r"no matrix 'layers/count'.*'layers/counts'"):
        prepared(tmp_path, path, layer="layers/count")
    with pytest.raises(ConfigError, match=r"no obs column 'spots'.*'spot'"):
        prepared(tmp_path, path, sample_column="spots")


def test_what_either_side_lacks_is_counted_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"s{i}" for i in range(10)] + ["other1", "other2"]
    found = prepared(tmp_path, write(tmp_path / "t.csv", values(), names))
    assert found.samples["sample_id"].to_list() == names[:10]
    missing = pl.read_parquet(tmp_path / "run" / "targets" / "missing.parquet")
    assert sorted(missing.iter_rows()) == [
        ("other1", "tiles"),
        ("other2", "tiles"),
        ("s10", "targets"),
        ("s11", "targets"),
    ]
    assert "10 samples have tiles and targets; 2 have tiles alone, 2 targets alone" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            [f"x{i}" for i in range(12)],
            r"no sample of the tiles has targets: the tiles have 's0', 's1', 's2', …; the targets 'x0'",
        ),
        ([f"S{i}" for i in range(12)], r"\(12 are alike but for upper and lower case\)"),
        ([f"run/s{i}.png" for i in range(12)], r"\(12 are alike but for what stands before the last /"),
        (["s1", *[f"s{i}" for i in range(1, 12)]], r"1 sample id stand in several rows \('s1'\)"),
    ],
)
def test_ids_that_do_not_fit(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message) as told:
        prepared(tmp_path, write(tmp_path / "t.csv", values(), names))
    assert "\n" not in str(told.value)
    assert "--sample-column" in str(told.value)


@pytest.mark.parametrize(
    ("change", "loss", "message"),
    [
        (-1.0, "mse", r"targets hold -1 in sample 's4', gene 'RARE'\. Counts are 0 or more"),
        (float("nan"), "mse", r"targets hold nan in sample 's4', gene 'RARE'"),
        (float("inf"), "mse", r"targets hold inf in sample 's4'"),
        (
            0.5,
            "poisson",
            r"targets are no counts \(say 0.5 in sample 's4', gene 'RARE'\), which a loss of poisson or nb",
        ),
        (0.5, "nb", r"targets are no counts"),
        (-1.0, "nb", r"targets hold -1"),
    ],
)
def test_numbers_that_are_no_targets(tmp_path: Path, change: float, loss: str, message: str) -> None:
    x = values()
    x[4, 2] = change
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, write(tmp_path / "t.parquet", x), loss=loss)
    if change == -1.0 and loss == "mse":
        assert prepared(tmp_path, tmp_path / "t.parquet", transform="none").scale == "values"


def test_a_missing_count(tmp_path: Path) -> None:
    frame = pl.read_parquet(write(tmp_path / "t.parquet", values()))
    frame.with_columns(pl.when(pl.col("sample_id") == "s2").then(None).otherwise("LOUD").alias("LOUD")).write_parquet(
        tmp_path / "n.parquet"
    )
    with pytest.raises(DataError, match=r"targets hold nan in sample 's2', gene 'LOUD'"):
        prepared(tmp_path, tmp_path / "n.parquet")


@pytest.mark.parametrize("how", ["no counts", "library of 0", "no library"])
def test_samples_in_which_nothing_was_counted_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], how: str
) -> None:
    """As if they had not been there: of the training samples one, of the others one."""
    x, names = values(), SAMPLES["sample_id"].to_list()
    sizes: list[float | None] = x.sum(1).tolist()
    for i in (5, 9):
        sizes[i] = 0 if how == "library of 0" else None if how == "no library" else sizes[i]
        x[i] = 0 if how == "no counts" else x[i]
    library = "total" if how == "no counts" else "library_size"
    path = write(tmp_path / "t.parquet", x, library_size=sizes)
    found = prepared(tmp_path, path, library=library)
    assert found.samples["sample_id"].to_list() == [name for name in names if name not in ("s5", "s9")]
    missing = pl.read_parquet(tmp_path / "run" / "targets" / "missing.parquet")
    assert missing.rows() == [("s5", "counts"), ("s9", "counts")]
    assert found.summary["without_counts"] == 2
    assert "nothing was counted in 2 samples ('s5', 's9'), left out" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    kept = [i for i in range(12) if i not in (5, 9)]
    less = write(
        tmp_path / "less.parquet", x[kept], [names[i] for i in kept], library_size=[float(sizes[i] or 0) for i in kept]
    )
    without = prepared(tmp_path / "other", less, library=library)
    np.testing.assert_array_equal(without.values, found.values)
    np.testing.assert_array_equal(without.library, found.library)
    assert without.genes.equals(found.genes)


def test_a_file_in_which_nothing_was_counted(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in no sample that has tiles was anything counted.*--layer"):
        prepared(tmp_path, write(tmp_path / "t.parquet", values() * 0))
    sizes = [100.0] * 11 + [-1.0]
    with pytest.raises(DataError, match=r"1 library sizes that are no numbers of 0 or more\. .*sample 's11'"):
        prepared(tmp_path, write(tmp_path / "n.parquet", values(), library_size=sizes), library="library_size")
    x = values()
    x[1:6] = 0
    with pytest.raises(DataError, match=r"1 samples with targets are of training patients"):
        prepared(tmp_path, write(tmp_path / "f.parquet", x))


def test_variable_genes_are_those_of_training_samples(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", values())
    found = prepared(tmp_path, path, genes="hvg:2")
    assert found.names == ["RARE", "LOUD"]  # ELSE varies among the others alone
    everything = prepared(tmp_path, path)
    table = dict(zip(everything.names, everything.genes["variance"], strict=True))
    x = np.log1p(values() / values().sum(1, keepdims=True) * 1e6)[:6]
    np.testing.assert_allclose([table[g] for g in GENES], x.var(0), rtol=1e-5, atol=1e-9)
    assert everything.genes["detected"].to_list() == pytest.approx([1, 1, 1 / 6, 1])
    strict = prepared(tmp_path, path, genes="hvg:2", least_detected=0.5)
    assert strict.names[0] == "LOUD"
    assert "RARE" not in strict.names  # counted in a sixth of the training samples
    assert strict.genes["reason"].to_list() == ["hvg 1", "hvg 2"]


def test_predictable_genes_are_scored_on_training_samples(tmp_path: Path) -> None:
    seen: list[Any] = []

    def score(samples: pl.DataFrame, y: Any) -> Any:
        seen.append((samples["sample_id"].to_list(), y))
        return -np.arange(y.shape[1])[::-1]

    found = prepared(
        tmp_path, write(tmp_path / "t.parquet", values()), genes="predictable:1", least_detected=0.5, score=score
    )
    assert found.names == ["ELSE"]
    assert seen[0][0] == [f"s{i}" for i in range(6)]
    np.testing.assert_allclose(seen[0][1][:, 1], np.log1p(values()[:6, 1] / values()[:6].sum(1) * 1e6), rtol=1e-5)


def test_genes_by_name_and_from_a_file(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", values())
    assert prepared(tmp_path, path, genes="LOUD, QUIET").names == ["LOUD", "QUIET"]
    listed = tmp_path / "genes.txt"
    listed.write_text("# mine\nELSE\nLOUD\n\n")
    assert prepared(tmp_path, path, genes=str(listed)).names == ["ELSE", "LOUD"]
    with pytest.raises(DataError, match=r"no gene 'LUOD'.*'LOUD'"):
        prepared(tmp_path, path, genes="LUOD")
    with pytest.raises(DataError, match=r"nowhere.txt: cannot be read as a list of genes"):
        prepared(tmp_path, path, genes="nowhere.txt")
    with pytest.raises(ConfigError, match=r"Write it with a number: hvg:50"):
        prepared(tmp_path, path, genes="hvg")
    with pytest.raises(DataError, match=r"no gene varies and is counted in 100% of the training samples"):
        flat = np.full((12, 4), 3.0)
        prepared(tmp_path, write(tmp_path / "flat.parquet", flat), genes="hvg:2", least_detected=1.0)


def test_nothing_is_prepared_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "t.parquet", values())
    first = prepared(tmp_path, path, genes="hvg:2")
    written = tmp_path / "run" / "targets" / "counts.safetensors"
    before = written.stat().st_mtime_ns
    again = prepared(tmp_path, path, genes="hvg:2")
    assert written.stat().st_mtime_ns == before
    assert "align_targets was done already" in capsys.readouterr().err
    assert again.digest == first.digest
    np.testing.assert_array_equal(again.values, first.values)
    written.write_bytes(written.read_bytes()[:-4] + b"\0\0\0\1")
    np.testing.assert_array_equal(prepared(tmp_path, path, genes="hvg:2").values, first.values)
    assert read_targets(Plan.of(tmp_path / "run")).names == first.names


def test_files_that_cannot_be_targets(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no targets are given.*--counts"):
        open_targets(TargetsConfig())
    write(tmp_path / "counts.parquet", values())
    with pytest.raises(DataError, match=r"count.parquet: there is no such file.*'counts.parquet'"):
        open_targets(TargetsConfig(counts=tmp_path / "count.parquet"))
    with pytest.raises(ConfigError, match=r"has no column 'sample'.*sample_id.*--sample-column"):
        open_targets(TargetsConfig(counts=tmp_path / "counts.parquet", sample_column="sample"))
    (tmp_path / "bad.h5ad").write_bytes(b"no HDF5")
    with pytest.raises(EluteError, match=r"bad.h5ad"):
        open_targets(TargetsConfig(counts=tmp_path / "bad.h5ad"))
    with pytest.raises(ConfigError, match=r"not turned into counts per million"):
        prepared(tmp_path, write(tmp_path / "half.parquet", values() + 0.5), transform="log1p")

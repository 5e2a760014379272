"""From tiles to pages in one go: what is written, what the controls give, what is reused, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.tissue.tiles_made import GENES, tiles, write_encoder, write_files

from elute.base import run as records
from elute.base.errors import BusyError, DataError, EluteError, GuardError
from elute.base.files import locked
from elute.base.recipe import resolve
from elute.cli.tissue import TISSUE
from elute.heads.files import load_heads
from elute.tissue.pipeline import STAGES, run_stage, run_tissue
from elute.tissue.plan import Plan
from elute.tissue.preparing import read_targets
from elute.tissue.telling import lines


def planned(path: Path, output: Path, **changes: dict[str, Any]) -> Plan:
    sections: dict[str, Any] = resolve(TISSUE, path)
    for name, change in changes.items():
        held = sections[name]
        sections[name] = type(held).model_validate({**held.model_dump(), **change})
    return Plan.of(output, sections)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("tissue"))


@pytest.fixture(scope="module")
def done(config: Path) -> tuple[Plan, dict[str, Any]]:
    plan = planned(config, config.parent / "run")
    return plan, run_tissue(plan).summary


def test_it_writes_what_the_design_names(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, summary = done
    names = {
        "config.yaml", "run.json", "tiles.parquet", "embeddings", "folds.parquet", "sae.pt", "sae_scaler.json",
        "sae_usage.parquet", "codes", "targets", "heads", "relevance", "refs", "token_maps", "report",
    }  # fmt: skip
    assert names <= {path.name for path in plan.output.iterdir()}
    heads = {"heads.pt", "metrics.parquet", "baselines.parquet", "coefficients.parquet", "predictions.parquet"}
    assert {path.name for path in (plan.output / "heads").iterdir()} == heads
    assert (plan.output / "report" / "index.html").exists()
    assert (plan.output / "report" / "genes" / "RED1.html").exists()
    assert set(summary) == set(STAGES)
    told = "\n".join(lines("run", {**summary, "path": str(plan.output)}))
    assert "4 genes on 48 samples of 6 patients, 3 folds" in told
    assert "report/index.html" in told
    mean = next(line for line in told.splitlines() if line.startswith("  mean "))
    assert mean.split(None, 1)[1].startswith("R² 0.000, Pearson –, Spearman – (– is not defined")
    assert set(resolve(TISSUE, plan.output / "config.yaml")) >= {"sae", "heads", "crp"}


def test_colours_are_found_and_controls_stand_beside(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    own = pl.read_parquet(plan.output / "heads" / "metrics.parquet")
    beside = pl.read_parquet(plan.output / "heads" / "baselines.parquet")
    assert own["gene"].to_list() == GENES
    assert set(beside["model"]) == {"mean", "dense_pca_ridge", "shuffled", "neighbours", "random_encoder"}
    assert own.columns[:4] == ["gene", "model", "r2", "r2_low"]
    coloured = own.filter(pl.col("gene") != "FLAT")
    assert coloured["pearson"].min() > 0.4  # type: ignore[operator]
    shuffled = beside.filter((pl.col("model") == "shuffled") & (pl.col("gene") != "FLAT"))
    assert shuffled["r2"].max() < 0.3  # type: ignore[operator]
    assert (beside.filter(model="mean")["r2"] == 0).all()
    assert beside.filter(model="mean").select("calibration_slope", "calibration_intercept").null_count().row(0) == (
        4,
        4,
    )
    assert beside.filter(model="shuffled")["calibration_slope"].null_count() == 0
    random = records.read(plan.output / "controls" / "random_encoder")["stages"]
    assert random["embed_export"]["config"]["encoder"]["random_weights"] is True


def test_scores_are_those_of_the_predictions(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    table = pl.read_parquet(plan.output / "heads" / "predictions.parquet")
    _, frame, counts = tiles()
    library = counts.sum(1)
    red = table.filter(gene="RED1").join(
        frame.select(sample_id="spot"), on="sample_id", how="right", maintain_order="right"
    )
    np.testing.assert_allclose(red["measured"], np.log1p(counts[:, 0] / library * 1e6), rtol=1e-6)
    y, guess, fold = (red[name].to_numpy() for name in ("measured", "predicted", "fold"))
    reference = np.array([y[fold != f].mean() for f in fold])
    r2 = 1 - ((y - guess) ** 2).sum() / ((y - reference) ** 2).sum()
    own = pl.read_parquet(plan.output / "heads" / "metrics.parquet").filter(gene="RED1")
    assert own["r2"][0] == pytest.approx(r2, rel=1e-6)


def test_folds_hold_patients_out(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    folds = pl.read_parquet(plan.output / "folds.parquet")
    assert folds.columns == ["sample_id", "group", "fold", "split"]
    assert folds.select("group", "fold").unique().height == folds["group"].n_unique() == 6
    assert folds["fold"].n_unique() == 3


def test_relevance_adds_up_to_what_the_head_gives(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, summary = done
    head = load_heads(plan.output / "heads")
    kept = pl.read_parquet(plan.output / "relevance" / "conservation.parquet")
    assert set(kept["gene"]) == set(GENES)
    assert kept["worst_relative"].max() < 1e-6  # type: ignore[operator]
    codes = pl.read_parquet(plan.output / "relevance" / "RED1.parquet")
    table = pl.read_parquet(plan.output / "heads" / "predictions.parquet").filter(gene="RED1")
    total = codes["relevance"].sum() + len(table) * head.final.bias[0]
    measured = read_targets(plan)
    y = np.log1p(measured.values[:, 0] / measured.library * 1e6)
    assert total / len(table) == pytest.approx(y.mean(), rel=1e-3)  # a ridge's mean fit is the mean
    refs = pl.read_parquet(plan.output / "refs" / "RED1.parquet")
    assert refs.filter(kind="relmax", target="sum", sign="+")["rank"].max() <= 3  # type: ignore[operator]
    chosen = summary["crp_relmax"]["explained"]["RED1"]["codes"]
    assert len(chosen) <= 3
    assert set(refs["code"]) <= set(chosen)


def test_reference_tiles_of_a_red_gene_are_red(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    pictures, frame, _ = tiles()
    red = {
        name: float((p[..., 0].astype(int) - p[..., 2] > 60).mean())
        for name, p in zip(frame["spot"], pictures, strict=True)
    }
    coefficients = pl.read_parquet(plan.output / "heads" / "coefficients.parquet").filter(gene="RED1", sign="+")
    refs = pl.read_parquet(plan.output / "refs" / "RED1.parquet").filter(kind="relmax", target="sum", sign="+")
    top = next(code for code in coefficients["code"] if code in set(refs["code"]))
    shown = [red[name] for name in refs.filter(code=top)["sample_id"]]
    assert min(shown) > np.mean(list(red.values()))


def test_nothing_is_done_twice(done: tuple[Plan, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    plan, summary = done
    before = {path: path.stat().st_mtime_ns for path in plan.output.rglob("*.pt")}
    page = (plan.output / "report" / "index.html").stat().st_mtime_ns
    again = run_tissue(plan).summary
    assert {path: path.stat().st_mtime_ns for path in plan.output.rglob("*.pt")} == before
    assert (plan.output / "report" / "index.html").stat().st_mtime_ns == page
    assert again["train_heads"]["scores"] == summary["train_heads"]["scores"]
    told = capsys.readouterr().err
    for stage in ("train_sae", "extract_codes", "align_targets", "train_heads", "crp_relmax", "make_reports"):
        assert f"{stage} was done already" in told
    assert "already captured" in told


def test_genes_are_added_beside_others(done: tuple[Plan, dict[str, Any]], tmp_path: Path) -> None:
    plan, _ = done
    copy = Plan.of(tmp_path / "run", plan.sections())
    shutil.copytree(plan.output, copy.output)
    sections: Any = copy.sections()
    asked = sections["crp"].model_copy(update={"gene": ("BLUE1",), "codes": "1,3"})
    one = Plan.of(copy.output, {**sections, "crp": asked})
    found = run_stage(one, "crp_relmax").summary
    assert found["genes"] == sorted(GENES)
    assert found["explained"]["BLUE1"]["codes"] == [1, 3]
    assert set(pl.read_parquet(copy.output / "refs" / "BLUE1.parquet")["code"]) <= {1, 3}
    assert (copy.output / "refs" / "RED1.parquet").read_bytes() == (plan.output / "refs" / "RED1.parquet").read_bytes()
    assert run_stage(one, "crp_relmax").summary["reused"] is True
    index = json.loads((copy.output / "relevance" / "index.json").read_text())
    assert set(index["genes"]) == set(GENES)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gene": ("RED3",)}, r"the heads have no gene 'RED3'.*'RED1'"),
        ({"codes": "1,64"}, r"there is no code 64 in 64 codes\. Choose 0 to 63"),
    ],
)
def test_an_unknown_gene_or_code(done: tuple[Plan, dict[str, Any]], change: dict[str, Any], message: str) -> None:
    plan, _ = done
    crp = plan.crp.model_copy(update={"gene": ("RED1",), **change})
    with pytest.raises(DataError, match=message):
        run_stage(Plan.of(plan.output, {**plan.sections(), "crp": crp}), "crp_relmax")


def test_heads_and_folds_that_were_changed(done: tuple[Plan, dict[str, Any]], tmp_path: Path) -> None:
    plan, _ = done
    copy = Plan.of(tmp_path / "run", plan.sections())
    shutil.copytree(plan.output, copy.output)
    folds = copy.output / "folds.parquet"
    kept = folds.read_bytes()
    folds.unlink()
    with pytest.raises(GuardError, match=r"folds are not those that the heads were judged on"):
        run_stage(copy, "crp_relmax")
    folds.write_bytes(kept)
    other = load_heads(copy.output / "heads")
    from elute.heads.files import save_heads

    save_heads(copy.output / "heads" / "heads.pt", other.final, genes=other.genes)
    with pytest.raises(GuardError, match=r"are not the heads that were fitted in this run"):
        run_stage(copy, "crp_relmax")


def test_a_fine_tuned_encoder(config: Path, tmp_path: Path) -> None:
    write_encoder(tmp_path / "encoder", seed=3)
    plan = planned(
        config, tmp_path / "run", encoder={"encoder": str(tmp_path / "encoder")}, controls={"controls": "none"}
    )
    for stage in STAGES[:4]:
        run_stage(plan, stage)
    first = (plan.output / "sae.pt").read_bytes()
    scores = (plan.output / "heads" / "metrics.parquet").read_bytes()
    write_encoder(tmp_path / "encoder", seed=4)
    with pytest.raises(GuardError, match=r"weights.*--recapture") as told:
        run_stage(plan, "embed_export")
    assert "\n" not in str(told.value)
    anew = planned(config, plan.output, encoder={"encoder": str(tmp_path / "encoder")}, embedding={"recapture": True},
                   controls={"controls": "none"})  # fmt: skip
    run_stage(anew, "embed_export")
    with pytest.raises(GuardError, match=r"the dictionary was trained on .*, the rows are from .* with other weights"):
        run_stage(plan, "extract_codes")
    for stage in STAGES[1:4]:
        run_stage(plan, stage)
    assert (plan.output / "sae.pt").read_bytes() != first
    assert (plan.output / "heads" / "metrics.parquet").read_bytes() != scores


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": {"per_token": False, "pooled": True, "pooling": "cls"}},
        {"heads": {"pool": "max", "loss": "nb"}},
        {"heads": {"pool": "attention", "attention_heads": 2}, "attention": {"epochs": 1, "width": 4}},
        {"codes": {"cache": False}, "heads": {"loss": "poisson"}},
        {"targets": {"genes": "predictable:2"}, "sae": {"signed_codes": True}},
    ],
    ids="+".join,
)
def test_other_ways(config: Path, tmp_path: Path, change: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    change.setdefault("controls", {"controls": "none"})
    plan = planned(config, tmp_path / "run", crp={"curve_samples": 5, "most_genes": 2}, **change)
    summary = run_tissue(plan, stages_to_do=STAGES[:5]).summary
    assert summary["crp_relmax"]["worst_relative"] < 1e-4
    scores = summary["train_heads"]["scores"]["sparse"]
    assert scores["pearson"] > 0.3
    assert (plan.output / "heads" / "attention.safetensors").exists() == ("attention" in change)
    assert (plan.output / "codes").exists() == ("codes" not in change)
    if "targets" in change:
        assert any("did not choose the genes" in note for note in summary["train_heads"]["notes"])
        assert pl.read_parquet(plan.output / "heads" / "metrics.parquet")["n"].max() < 48  # type: ignore[operator]
    if "embedding" not in change:
        assert (plan.output / "token_maps" / "index.parquet").exists()


def test_relevance_down_to_pixels(done: tuple[Plan, dict[str, Any]], tmp_path: Path) -> None:
    plan, _ = done
    copy = Plan.of(tmp_path / "run", plan.sections())
    shutil.copytree(plan.output, copy.output)
    crp = plan.crp.model_copy(update={"gene": ("RED1",), "codes": "top1", "through_encoder": True})
    run_stage(Plan.of(copy.output, {**plan.sections(), "crp": crp}), "crp_relmax")
    table = pl.read_parquet(copy.output / "pixel_maps" / "RED1" / "index.parquet")
    maps = np.load(copy.output / "pixel_maps" / "RED1" / table["file"][0])["maps"]  # noqa: TID251  # a test's own file
    assert maps.shape == (len(table), 32, 32)
    assert set(table["method"]) == {"lrp"}
    assert table["gap"].max() < 1e-4  # type: ignore[operator]
    refs = pl.read_parquet(copy.output / "refs" / "RED1.parquet").filter(kind="relmax", target="sum", sign="+")
    both = table.join(refs.select("code", "rank", "relevance"), on=["code", "rank"])
    assert len(both) == len(table)


def test_two_runs_into_one_folder(config: Path, tmp_path: Path) -> None:
    plan = planned(config, tmp_path)
    with (
        locked(tmp_path, "elute tissue", name=".run.lock"),
        pytest.raises(BusyError, match=r"elute tissue.*is writing here"),
    ):
        run_tissue(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": {"counts": None}}, r"no targets are given.*--counts"),
        ({"targets": {"sample_column": "spots"}}, r"has no column 'spots'.*'spot'"),
        ({"heads": {"folds": 9}}, r"6 patients or sites cannot fill 9 folds\. Take --folds 6"),
        ({"targets": {"genes": "hvg:2", "least_detected": 1.0, "counts": "EMPTY"}}, r"no gene varies"),
    ],
)
def test_what_heads_refuse(
    done: tuple[Plan, dict[str, Any]], config: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    plan, _ = done
    shutil.copytree(
        plan.output, tmp_path / "run", ignore=shutil.ignore_patterns("heads", "targets", "folds*", "controls", "report")
    )
    if change.get("targets", {}).get("counts") == "EMPTY":
        frame = pl.read_parquet(config.parent / "counts.parquet")
        frame.with_columns(pl.lit(3).alias(g) for g in GENES).write_parquet(tmp_path / "flat.parquet")
        change["targets"]["counts"] = tmp_path / "flat.parquet"
    with pytest.raises(EluteError, match=message) as told:
        run_stage(planned(config, tmp_path / "run", **change), "train_heads")
    assert "\n" not in str(told.value)


def test_rows_of_samples_that_lie_apart(tmp_path: Path) -> None:
    """A loop that shuffles its tiles stores them so: relevance reads the rows of a sample together all the same."""
    from tests.tissue import rows_made

    from elute.tissue.code_stream import CodeStream
    from elute.tissue.learning import opened, trained
    from elute.tissue.pooled_codes import features

    (tmp_path / "run").mkdir()
    tiles = rows_made.table(sections=1).with_columns(
        sample_id=pl.col("section") + (pl.int_range(pl.len()) // 2 % 6).cast(pl.String)
    )
    mixed = tiles[np.random.default_rng(0).permutation(len(tiles)).tolist()]
    planted = rows_made.write_embeddings(tmp_path / "run", mixed)
    samples = mixed["sample_id"].unique(maintain_order=True)
    mean = np.stack(
        [planted[(mixed["sample_id"] == name).to_numpy()].mean((0, 1), keepdims=True)[0] for name in samples]
    )
    path = rows_made.write_targets(tmp_path / "counts.parquet", samples.to_frame(), rows_made.counts(mean))
    plan = rows_made.planned(tmp_path, path, sae=rows_made.small_sae(steps=20))
    for stage in STAGES[1:5]:
        run_stage(plan, stage)
    store = opened(plan)
    dictionary, known = trained(plan, store)
    names = read_targets(plan).samples["sample_id"].to_list()
    stream = CodeStream(plan, store, dictionary, known, names)
    assert not stream.together
    runs = pl.concat([frame for _, frame in stream])["sample_id"].rle()
    assert len(runs) == len(names) == 36
    from elute.tissue.controls import Setting

    setting = Setting(read_targets(plan).samples, np.zeros((36, 1)), None, plan.heads)
    pooled = features(plan, store, dictionary, known=known, setting=setting).final().toarray()
    dense = np.concatenate([codes.dense().numpy() for codes, _ in stream]).reshape(36, -1, pooled.shape[1]).mean(1)
    np.testing.assert_allclose(dense, pooled, rtol=1e-5, atol=1e-6)

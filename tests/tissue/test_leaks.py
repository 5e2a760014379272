"""What leaks between splits and folds is refused, at every stage, in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.tissue.rows_made import made

from elute.base.errors import DataError, EluteError, GuardError
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.tissue.coding import extract_codes
from elute.tissue.learning import opened, train_sae, trained
from elute.tissue.plan import Plan
from elute.tissue.splitting import NAME, folds_of, no_leak, samples_of, split_digest


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    return made(tmp_path)


def frame(**columns: list[str]) -> pl.DataFrame:
    return pl.DataFrame(
        {"sample_id": ["a", "b", "c"], "group": ["p", "p", "q"], "split": ["train", "train", "test"], **columns}
    )


def test_no_leak_is_no_error() -> None:
    no_leak(frame(), where="here")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"split": ["train", "test", "test"]}, r"here: a leak: group 'p' lies in 'test' and 'train' \(1 such groups\)"),
        ({"sample_id": ["a", "b", "a"]}, r"a leak: sample 'a' lies in 'test' and 'train'"),
        ({"sample_id": ["a", "b", "a"], "split": ["train"] * 3}, r"a leak: sample 'a' lies in 'p' and 'q'"),
    ],
)
def test_a_leak(columns: dict[str, list[str]], message: str) -> None:
    with pytest.raises(GuardError, match=message):
        no_leak(frame(**columns), where="here")


def test_a_store_without_patients_or_split(tmp_path: Path) -> None:
    import torch

    from elute.store.writer import StoreWriter

    with StoreWriter(tmp_path / "s", sites={"embedding": 2}) as writer:
        writer.append({"embedding": torch.zeros(3, 2)}, {"sample_id": ["a", "b", "c"]})
    with pytest.raises(GuardError, match="the rows have no group"):
        samples_of(Store(tmp_path / "s"))


def test_folds_are_drawn_once(plan: Plan) -> None:
    samples = samples_of(Store(plan.embeddings))
    first = folds_of(plan.output, samples, folds=3, seed=0)
    assert first["fold"].n_unique() == 3
    assert first.select("group", "fold").unique()["group"].is_unique().all()
    written = (plan.output / NAME).read_bytes()
    assert folds_of(plan.output, samples.reverse(), folds=3, seed=0).sort("sample_id").equals(first.sort("sample_id"))
    assert (plan.output / NAME).read_bytes() == written
    with pytest.raises(GuardError, match=r"stored folds were drawn for folds 3, not 2.*Delete folds.parquet"):
        folds_of(plan.output, samples, folds=2, seed=0)
    with pytest.raises(GuardError, match=r"drawn for seed 0, not 1"):
        folds_of(plan.output, samples, folds=3, seed=1)
    with pytest.raises(GuardError, match=r"drawn for other samples or splits"):
        folds_of(plan.output, samples.head(30), folds=3, seed=0)
    with pytest.raises(DataError, match=r"6 patients or sites cannot fill 7 folds\. Take --folds 6"):
        folds_of(plan.output / "embeddings", samples, folds=7, seed=0)


def test_folds_that_were_edited(plan: Plan) -> None:
    samples = samples_of(Store(plan.embeddings))
    table = folds_of(plan.output, samples, folds=3, seed=0)
    path = plan.output / NAME
    tags = pl.read_parquet_metadata(path)
    own = {key: tags[key] for key in ("folds", "seed", "split", "digest")}
    moved = table.with_columns(fold=((pl.col("fold") + 1) % 3).cast(pl.Int32))
    moved.write_parquet(path, metadata=own)
    with pytest.raises(GuardError, match=r"not those that were drawn here"):
        folds_of(plan.output, samples, folds=3, seed=0)
    first = pl.int_range(pl.len()) == 0
    table.with_columns(fold=pl.when(first).then(pl.col("fold") + 5).otherwise("fold")).write_parquet(path, metadata=own)
    with pytest.raises(GuardError, match=r"a leak: group 'p0' lies in two folds"):
        folds_of(plan.output, samples, folds=3, seed=0)
    path.write_bytes(b"no table")
    with pytest.raises(EluteError, match=r"is not a table of folds"):
        folds_of(plan.output, samples, folds=3, seed=0)


def test_a_split_that_was_drawn_again(plan: Plan) -> None:
    train_sae(plan)
    extract_codes(plan)
    store = opened(plan)
    before = split_digest(samples_of(store))
    for seed in range(1, 20):
        split_store(plan.embeddings, SplitConfig(fractions={"train": 0.6, "validation": 0.2, "test": 0.2}, seed=seed))
        if split_digest(samples_of(opened(plan))) != before:
            break
    with pytest.raises(GuardError, match=r"sae.pt: was trained under another split.*train_sae"):
        trained(plan, opened(plan))
    with pytest.raises(GuardError, match=r"was trained under another split"):
        extract_codes(plan)
    train_sae(plan)  # trained anew on the new training patients
    assert trained(plan, opened(plan))
    assert (plan.output / "sae" / "earlier-1" / "sae_final.pt").exists()


def test_another_dictionary_and_another_encoder(plan: Plan, tmp_path: Path) -> None:
    train_sae(plan)
    other = made(tmp_path / "other", sae=plan.sae.model_copy(update={"seed": 5}))
    train_sae(other)
    mine = plan.dictionary.read_bytes()
    plan.dictionary.write_bytes(other.dictionary.read_bytes())
    with pytest.raises(GuardError, match=r"is not the dictionary that was trained in this run"):
        extract_codes(plan)
    plan.dictionary.write_bytes(mine)
    assert extract_codes(plan).summary["rows"] == 1296


def test_a_stage_before_its_time(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"there are no embeddings yet.*embed_export"):
        train_sae(Plan.of(tmp_path / "run"))
    plan = made(tmp_path / "made")
    with pytest.raises(DataError, match=r"there is no dictionary yet.*train_sae"):
        extract_codes(plan)
    train_sae(plan)
    from elute.tissue.coding import coded_rows

    dictionary, known = trained(plan, opened(plan))
    with pytest.raises(DataError, match=r"there are no codes yet.*extract_codes"):
        next(coded_rows(plan, opened(plan), dictionary, known=known))


def test_codes_on_the_fly_are_those_on_disk(plan: Plan) -> None:
    import torch

    from elute.tissue.coding import coded_rows
    from elute.tissue.settings import CodesConfig

    train_sae(plan)
    extract_codes(plan)
    dictionary, known = trained(plan, opened(plan))
    kept = [(c.dense(), f) for c, f in coded_rows(plan, opened(plan), dictionary, known=known)]
    fly = Plan.of(plan.output, {**plan.sections(), "codes": CodesConfig(cache=False)})
    assert extract_codes(fly).summary == {"rows": 1296, "cached": False}
    assert not plan.coded.exists()
    live = [(c.dense(), f) for c, f in coded_rows(fly, opened(fly), dictionary, known=known)]
    torch.testing.assert_close(torch.cat([c for c, _ in live]), torch.cat([c for c, _ in kept]))
    assert pl.concat([f for _, f in live]).equals(pl.concat([f for _, f in kept]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"l1": 0.1, "signed_codes": True}, "Leave --l1 out, or --signed-codes"),
        ({"top_k": 40}, "top_k = 40 is more than the 16 codes"),
    ],
)
def test_a_dictionary_that_cannot_be(plan: Plan, change: dict[str, Any], message: str) -> None:
    with pytest.raises(EluteError, match=message):
        train_sae(Plan.of(plan.output, {**plan.sections(), "sae": plan.sae.model_copy(update=change)}))


@pytest.mark.parametrize(("change", "kind"), [({"l1": 0.05}, "relu"), ({"signed_codes": True}, "signed-topk")])
def test_other_kinds_of_codes(plan: Plan, change: dict[str, Any], kind: str) -> None:
    asked = Plan.of(plan.output, {**plan.sections(), "sae": plan.sae.model_copy(update=change)})
    assert train_sae(asked).summary["activation"] == kind
    found = extract_codes(asked).summary
    assert found["k"] == 3 if kind == "signed-topk" else found["k"] > 0
    usage = pl.read_parquet(plan.output / "sae_usage.parquet")
    assert {"code", "frequency", "lifetime", "alive"} <= set(usage.columns)
    assert (usage["lifetime"] <= 60).all()

"""A gene taken from a run's held-out cells: computed once, beside genes like it, and what cannot be asked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.analysis.changes import CancelledError
from elute.base.errors import ConfigError, DataError, EluteError
from elute.cells import mock, reopening
from elute.cells.feature_settings import FeatureConfig
from elute.cells.hiding import rounds
from elute.cells.perturbing import PerturbConfig, perturb
from elute.cells.pipeline import Stages, run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig, SitesConfig
from elute.cli.main import main
from elute.models.cells.cellfile import CellsConfig

SITE = "blocks.1.hook_resid_post"
FEW: dict[str, Any] = {"cells": 12, "controls": 3, "control_cells": 6}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cells")
    mock.write_cells(place / "cells.h5ad")
    mock.write_model(place / "model")
    sections: dict[str, Any] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=place / "model", device="cpu"),
        "sites": SitesConfig(layers="last", site="resid_post"),
        "training": FeatureConfig(steps=20, d_sae="32", k="4", train_batch_size=256, device="cpu"),
    }
    run_pipeline(Plan.of(place / "cells.h5ad", place / "run", sections), Stages(validation=True, dashboard=True))
    return place / "run"


@pytest.fixture(scope="module")
def opened(run: Path) -> reopening.Reopened:
    return reopening.reopen(run)


def common(opened: reopening.Reopened) -> str:
    """A gene that every cell has."""
    return str(opened.genes["symbol"][-1])


def test_it_writes_which_features_change_beside_like_genes(run: Path, opened: reopening.Reopened) -> None:
    gene = common(opened)
    heard: list[tuple[int, int]] = []
    made = perturb(run, gene=gene.lower(), told=lambda done, of: heard.append((done, of)), **FEW)
    assert made.path.parent == run / "effects"
    assert made.path.name.startswith(f"perturb_{gene}_")
    found = made.summary["summary"]
    assert heard[-1][0] == heard[-1][1] == 4 * (12 + 3 * 6)
    assert (found["n_cells"], found["units"], found["n_units"]) == (12, "donors", 2)
    assert len(found["like"]) == 3
    assert gene not in found["like"]
    assert found["detected"] == found["looked"] == 160
    frame = pl.read_parquet(made.path)
    features, genes = (frame.filter(pl.col("kind") == kind) for kind in ("feature", "gene"))
    assert features["feature"].to_list() == list(range(32))
    assert features["change"].abs().max() > 0
    assert features["p_genes"].min() >= 1 / 4
    assert gene not in genes["symbol"].to_list()
    assert genes["change"].abs().max() > 0
    again = perturb(run, gene=gene, config=PerturbConfig(**FEW))
    assert again.summary == {**made.summary, "reused": True}


def test_absence_is_the_cell_without_that_token(opened: reopening.Reopened) -> None:
    """The same as reading a cell that never had it."""
    from elute.cells.perturbing import _perturbing

    place = reopening.showing(opened.recorded, most=1, seed=0)
    batch, frame, _, gene = next(reopening.located(opened, place))
    own = torch.from_numpy(gene == gene[5])
    changed = _perturbing(opened, PerturbConfig(), 0.0).alter({**batch, "padded": True}, own)
    kept = torch.ones(batch["tokens"].shape[1], dtype=torch.bool)
    kept[1 + 5] = False
    short = {name: batch[name][:, kept] for name in ("tokens", "values", "keep")}
    assert torch.allclose(
        opened.model.capture(changed, [SITE])[SITE], opened.model.capture(short, [SITE])[SITE], atol=1e-5
    )
    assert len(frame) == len(opened.model.capture(changed, [SITE])[SITE]) + 1


@pytest.mark.parametrize(("how", "sign"), [("up", 1), ("down", -1)])
def test_a_value_goes_one_way_alone(opened: reopening.Reopened, how: Any, sign: int) -> None:
    from elute.cells.perturbing import _perturbing

    batch, frame, _, gene = next(reopening.located(opened, reopening.showing(opened.recorded, most=8, seed=0)))
    own = gene == len(opened.genes) - 1
    value = float(np.median(frame["read"].to_numpy()[own]))
    changed = _perturbing(opened, PerturbConfig(how=how), value).alter(batch, torch.from_numpy(own))
    moved = (changed["values"] - batch["values"])[batch["keep"]].numpy() * sign
    assert (moved[own] >= 0).all()
    assert (moved[own] > 0).any()
    assert (moved[~own] == 0).all()
    assert torch.equal(changed["tokens"], batch["tokens"])
    found = perturb("", gene=common(opened), opened=opened, how=how, **FEW).summary["summary"]
    assert 0 < found["value"] <= 50


def test_a_share_of_each_cells_values_is_hidden_whatever_the_batch(opened: reopening.Reopened) -> None:
    places = reopening.showing(opened.recorded, most=9, seed=0)

    def hidden(size: int) -> set[tuple[str, str]]:
        seen: set[tuple[str, str]] = set()
        for batch, frame in opened.model.batches(opened.cells.subset(places), batch_size=size):
            gene = np.arange(len(frame))
            never = frame["token"].to_numpy() == opened.genes["gene"][-1]
            one, two = rounds(opened.model, batch, frame, gene=gene, hide=0.4, seed=0, coded=True, visible=never)
            assert (two.valued, two.coded, one.coded) == (None, True, False)
            assert int(one.batch["generated"].sum()) == int(one.valued.sum())
            assert not one.valued.numpy()[never].any()
            chosen = frame.filter(pl.Series(one.valued.numpy()))
            seen |= set(chosen.select("sample_id", "token").rows())
            share = one.valued.numpy().mean()
            assert 0.33 < share < 0.42
        return seen

    assert hidden(9) == hidden(2)


def test_it_stops_where_it_is_asked_to(run: Path, opened: reopening.Reopened) -> None:
    before = sorted((run / "effects").iterdir())
    with pytest.raises(CancelledError):
        perturb("", gene=common(opened), opened=opened, seed=9, cancel=lambda: True, **FEW)
    assert sorted((run / "effects").iterdir()) == before


@pytest.mark.parametrize(
    ("asked", "error", "says"),
    [
        ({"gene": "NOSUCH"}, ConfigError, "the model knows no gene 'NOSUCH'"),
        ({"how": "gone"}, ConfigError, "'absent', 'up' or 'down'"),
        ({"quantile": 0.4}, ConfigError, "quantile"),
        ({"cell_type": "type 9"}, ConfigError, "there is no cell type 'type 9'"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    opened: reopening.Reopened, asked: dict[str, Any], error: type[EluteError], says: str
) -> None:
    with pytest.raises(error) as told:
        perturb("", **{"gene": common(opened), "opened": opened, **FEW, **asked})
    assert says in str(told.value)
    assert "\n" not in str(told.value)


def test_a_gene_that_too_few_cells_have(opened: reopening.Reopened) -> None:
    places = reopening.showing(opened.recorded, most=2000, seed=0)
    seen = np.zeros(len(opened.genes), int)
    for _, _, _, gene in reopening.located(opened, places):
        np.add.at(seen, gene, 1)
    rare = int(np.argmin(seen))
    assert seen[rare] < 3, "the made cells have no gene that is rare enough"
    with pytest.raises(DataError, match=r"held-out ones that were looked at have .*: too few"):
        perturb("", gene=opened.genes["symbol"][rare], opened=opened, **FEW)


def test_a_model_of_ranks_is_refused(opened: reopening.Reopened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opened.model, "tokenizer", object())
    with pytest.raises(ConfigError, match="reads genes in the order of their values"):
        perturb("", gene=common(opened), opened=opened, seed=4, **FEW)


def test_the_command_says_it_in_words_and_in_json(
    run: Path, opened: reopening.Reopened, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cells", "perturb", "--results", str(run), "--gene", common(opened), "--how", "down", "--cells", "12",
             "--controls", "3", "--control-cells", "6"]  # fmt: skip
    main(words)
    said = capsys.readouterr().out
    assert f"{common(opened)} down to" in said
    assert "in the cells' other rows" in said
    assert "beside genes: size" in said
    main([*words, "--json"])
    assert json.loads(capsys.readouterr().out)["reused"] is True

"""Numbers of pairs against independent implementations and cases that are worked by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats
from sklearn.linear_model import LinearRegression

from elute.base.errors import DataError, GuardError, MissingError
from elute.routing import inspecting
from elute.routing.collecting import collect_pairs
from elute.routing.inspect_plots import draw
from elute.routing.inspecting import inspect_pairs, lines, measure_pair
from elute.routing.pair_measures import Explained, Joint, canonical, correlations, linear_map, spectrum
from elute.routing.pair_settings import InspectConfig, PairsConfig
from elute.routing.pairs import open_pair

pytestmark = pytest.mark.usefixtures("one_thread")


def joint(x: np.ndarray, y: np.ndarray) -> Joint:
    both = np.concatenate([x, y], 1)
    return Joint(len(x), both.mean(0), np.cov(both.T, bias=True), x.shape[1])


@pytest.fixture(scope="module")
def rows() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 5)) @ rng.standard_normal((5, 5)) + 3
    y = x @ rng.standard_normal((5, 4)) + rng.standard_normal((400, 4)) * [0.1, 1, 5, 30]
    return x, y


@pytest.fixture(scope="module")
def measured(tiny_pairs: Path) -> dict[str, Any]:
    return measure_pair(open_pair(tiny_pairs, "clt_L0_to_L2"))


def test_spectra_that_are_known() -> None:
    flat = spectrum(np.eye(8) * 3)
    assert (flat.effective, flat.participation) == (pytest.approx(8), pytest.approx(8))
    assert (flat.alive, flat.most, flat.nearly_all) == (8, 8, 8)
    two = spectrum(np.diag([0.9, 0.1, 0, 0]))
    assert two.effective == pytest.approx(np.exp(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1))))
    assert two.participation == pytest.approx(1 / (0.81 + 0.01))
    assert (two.alive, two.most, two.nearly_all) == (2, 1, 2)
    assert two.shares == pytest.approx((0.9, 0.1, 0, 0))
    assert spectrum(np.zeros((3, 3))).effective == 0


def test_canonical_correlations_are_those_of_a_qr_decomposition(rows: tuple[np.ndarray, np.ndarray]) -> None:
    """Björck & Golub: the singular values of Qx' Qy, of the centred data themselves."""
    x, y = rows
    one, two = (np.linalg.qr(side - side.mean(0))[0] for side in (x, y))
    want = np.linalg.svd(one.T @ two, compute_uv=False)
    found = canonical(joint(x, y))
    np.testing.assert_allclose(found.correlations, want, atol=1e-9)
    seen = [np.corrcoef(x @ found.source[:, i], y @ found.target[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(seen, want, atol=1e-9)
    np.testing.assert_allclose(found.on(joint(x, y)), want, atol=1e-9)
    rng = np.random.default_rng(1)
    x2, y2 = rng.standard_normal((300, 5)), rng.standard_normal((300, 4))
    apart = [np.corrcoef(x2 @ found.source[:, i], y2 @ found.target[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(found.on(joint(x2, y2)), apart, atol=1e-9)


def test_a_side_that_varies_in_few_directions_has_few_canonical_ones() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 2)) @ rng.standard_normal((2, 6))
    found = canonical(joint(x, x[:, :3] * 2 + 1))
    np.testing.assert_allclose(found.correlations, [1, 1], atol=1e-6)


def test_the_linear_map_is_that_of_least_squares(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    found = linear_map(joint(x, y), 0.0)
    want = LinearRegression().fit(x, y)
    np.testing.assert_allclose(found.weight, want.coef_.T, rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(found.bias, want.intercept_, rtol=1e-6, atol=1e-6)
    explained = Explained(y.mean(0))
    explained.update(y, found(x), [f"i{i // 10}" for i in range(400)])
    off = ((y - y.mean(0)) ** 2).sum()
    assert explained.r2 == pytest.approx(1 - ((y - want.predict(x)) ** 2).sum() / off, rel=1e-9)
    for i in range(4):
        assert explained.dimensions[i] == pytest.approx(
            stats.pearsonr(want.predict(x)[:, i], y[:, i])[0] ** 2, rel=1e-6
        )


def test_a_ridge_pulls_the_map_towards_nothing(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    sizes = [float(np.linalg.norm(linear_map(joint(x, y), ridge).weight)) for ridge in (0, 0.1, 10, 1e6)]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 1e-3 * sizes[0]


def test_r2_is_about_the_mean_of_the_training_rows_and_joins_batches() -> None:
    y = np.array([[1.0, 0.0], [3.0, 0.0], [5.0, 0.0], [7.0, 0.0]])
    guess = y + np.array([[1.0, 0.0]])
    found, whole = Explained(np.array([2.0, 0.0])), Explained(np.array([2.0, 0.0]))
    for i in range(4):
        found.update(y[i : i + 1], guess[i : i + 1], ["ab"[i // 2]])
    whole.update(y, guess, ["a", "a", "b", "b"])
    assert found.r2 == whole.r2 == pytest.approx(1 - 4 / (1 + 1 + 9 + 25))
    assert found.dimensions.tolist() == [pytest.approx(1 - 4 / 36), 0.0]
    assert found.errors == {"a": 2.0, "b": 2.0}
    assert found.squares == {"a": 2.0, "b": 34.0}
    low, high = found.interval(0)
    assert (low, high) == (pytest.approx(0.0), pytest.approx(1 - 4 / 68))  # twice a, and twice b


def test_an_interval_covers_the_truth_as_often_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of instances with a known R² of 0.75; of 40 intervals of 95%, 33 and more cover it."""
    monkeypatch.setattr("elute.routing.pair_measures.RESAMPLES", 300)
    rng, covered = np.random.default_rng(0), 0
    for _ in range(40):
        y = rng.standard_normal((300, 1)) * np.repeat(rng.choice([1.0, 2.0], 60), 5)[:, None]
        found = Explained(np.zeros(1))
        found.update(y, y - 0.5 * np.abs(y), [str(i // 5) for i in range(300)])
        found.errors = {k: v * rng.uniform(0.6, 1.4) for k, v in found.errors.items()}
        low, high = found.interval(0)
        covered += low <= 0.75 <= high
    assert covered >= 33


def test_correlations_of_single_dimensions(rows: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = rows
    r = np.abs(np.corrcoef(x.T, y.T)[:5, 5:])
    told = correlations(joint(x, y))
    assert told["mean"] == pytest.approx(r.mean())
    assert told["best_mean"] == pytest.approx(r.max(0).mean())
    assert told["largest"] == pytest.approx(r.max())
    assert told["same"] is None
    assert correlations(joint(x, x))["same"] == pytest.approx(1)
    still = correlations(joint(np.ones((10, 2)), np.random.default_rng(0).standard_normal((10, 2))))
    assert still["largest"] == 0


def test_numbers_of_a_pair_are_those_of_its_rows(tiny_pairs: Path, measured: dict[str, Any]) -> None:
    """Everything anew from whole arrays, by other programs."""
    pair = open_pair(tiny_pairs, "clt_L0_to_L2")
    x, y = (side.double().numpy() for side in pair.read("train")[:2])
    x2, y2 = (side.double().numpy() for side in pair.read("test")[:2])
    want = LinearRegression().fit(x, y)
    off = ((y2 - y.mean(0)) ** 2).sum()
    linear = measured["explained"]["linear"]
    assert linear["r2"] == pytest.approx(1 - ((y2 - want.predict(x2)) ** 2).sum() / off, abs=1e-4)
    assert linear["low"] < linear["r2"] < linear["high"]
    assert measured["explained"]["passed through"]["r2"] == pytest.approx(1 - ((y2 - x2) ** 2).sum() / off)
    shuffled = LinearRegression().fit(np.roll(x, 8, 0), y)
    assert measured["explained"]["shuffled"]["r2"] == pytest.approx(
        1 - ((y2 - shuffled.predict(x2)) ** 2).sum() / off, abs=1e-3
    )
    assert measured["explained"]["shuffled"]["r2"] < 0.1 < 0.5 < linear["r2"]
    for side, part in (("source", x), ("target", y)):
        told = measured["sides"][side]
        norms = np.linalg.norm(part, axis=1)
        assert told["norms"]["mean"] == pytest.approx(norms.mean())
        assert told["norms"]["median"] == pytest.approx(np.median(norms))
        assert sum(told["norms"]["counts"]) == len(part)
        hoyer = (4 - np.abs(part).sum(1) / norms) / 3
        assert told["sparsity"]["hoyer"] == pytest.approx(hoyer.mean())
        assert told["sparsity"]["excess_kurtosis"] == pytest.approx(stats.kurtosis(part).mean(), rel=1e-6)
        assert told["sparsity"]["zeros"] == 0
        shares = np.linalg.svd(part - part.mean(0), compute_uv=False) ** 2
        assert told["rank"]["effective"] == pytest.approx(np.exp(stats.entropy(shares)), rel=1e-6)
    assert measured["cosine"] == pytest.approx(
        ((x * y).sum(1) / np.linalg.norm(x, axis=1) / np.linalg.norm(y, axis=1)).mean()
    )
    assert measured["rows"] == {"train": 384, "test": 48}
    assert measured["checked_instances"] == 4


def test_a_target_that_is_a_linear_map_is_explained_wholly(tiny_pairs: Path) -> None:
    """The query is linear in two nodes; of the current one alone it is so but for the first."""
    found = measure_pair(open_pair(tiny_pairs, "clt_output_to_query"))
    assert 0.1 < found["explained"]["linear"]["r2"] < 1
    assert found["rows"]["test"] == 6 * 7


def test_rows_that_are_not_the_policys_are_refused(own_pairs: Path) -> None:
    pair = open_pair(own_pairs, "clt_L0_to_L2")
    path = next(pair.folder.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    size, width = 480 * 16 * 4, 16 * 4
    rows = np.frombuffer(data, np.uint8)[-size:].copy().reshape(480, width)
    data[-size:] = rows[::-1].tobytes()  # the target's rows, last first
    path.write_bytes(bytes(data))
    with pytest.raises(GuardError, match="are not what the policy gives: their order differs. Collect it anew"):
        measure_pair(open_pair(own_pairs, "clt_L0_to_L2"))


def test_a_policy_that_is_not_there_any_more_is_told(own_pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.rmtree(own_pairs / "checkpoints")
    found = measure_pair(open_pair(own_pairs, "clt_L0_to_L2"))
    assert found["checked_instances"] is None
    assert "its rows were not computed anew" in capsys.readouterr().err


def test_what_was_measured_is_used_and_written_the_same_again(
    own_pairs: Path, monkeypatch: pytest.MonkeyPatch, measured: dict[str, Any]
) -> None:
    told = inspect_pairs(own_pairs, pairs=["clt_L0_to_L2"])
    home = own_pairs / "clt" / "inspect"
    assert told.path == home
    assert json.loads(json.dumps(measured)) == json.loads((home / "clt_L0_to_L2" / "inspection.json").read_text())
    names = sorted(p.name for p in (home / "clt_L0_to_L2").iterdir())
    assert names == ["config.yaml", "inspection.json", "inspection.svg", "run.json"]
    before = {p: p.read_bytes() for p in home.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(inspecting, "measure_pair", None)
        again = inspect_pairs(own_pairs, pairs=["clt_L0_to_L2"])
    assert again.summary["pairs"] == json.loads(json.dumps(told.summary["pairs"]))
    inspect_pairs(own_pairs, pairs=["clt_L0_to_L2"], anew=True)
    assert {p: p.read_bytes() for p in home.rglob("*") if p.is_file()} == before
    with pytest.raises(DataError, match="no rows in the split 'tests'"):
        inspect_pairs(own_pairs, InspectConfig(held_out="tests"), pairs=["clt_L0_to_L2"])


def test_all_pairs_make_a_table(tiny_pairs: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(tiny_pairs, tmp_path / "tiny"))
    told = inspect_pairs(own, InspectConfig(plots=False, check_instances=1))
    table = [line.split("\t") for line in (own / "clt" / "inspect" / "pairs.tsv").read_text().splitlines()]
    assert [row[0] for row in table[1:]] == sorted(told.summary["pairs"])
    assert len({len(row) for row in table}) == 1
    at = table[0].index("r2_linear")
    for row in table[1:]:
        assert float(row[at]) == pytest.approx(told.summary["pairs"][row[0]]["explained"]["linear"]["r2"], rel=1e-5)
    text = lines({"path": "there", **told.summary})
    assert len(text) == 7
    assert "clt_L0_to_L2" in "\n".join(text)
    assert not list((own / "clt").rglob("*.svg"))


def test_a_drawing_is_the_same_bytes_and_missing_matplotlib_is_told(
    measured: dict[str, Any], own_pairs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    one = draw(measured)
    assert one == draw(json.loads(json.dumps(measured)))
    for word in (b"effective rank", b"canonical correlation", b"passed through", b"norm of a row"):
        assert word in one

    def missing(_: Any) -> bytes:
        raise MissingError("drawing needs matplotlib")

    monkeypatch.setattr("elute.routing.inspect_plots.draw", missing)
    inspect_pairs(own_pairs, pairs=["clt_L0_to_L2"])
    assert "not drawn: drawing needs matplotlib" in capsys.readouterr().err
    assert (own_pairs / "clt" / "inspect" / "clt_L0_to_L2" / "inspection.json").is_file()


def test_few_rows_are_told_and_sides_may_have_other_widths(
    own_run: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    two = "encoder_layer_0.mlp.input+encoder_layer_1.mlp.input:encoder_layer_1.mlp+encoder_layer_2.mlp"
    one = "encoder_layer_0+encoder_layer_1:encoder_layer_2"
    collect_pairs(own_run, PairsConfig(layer_pairs=f"{two},{one}", num_instances_per_pair=20, nodes_per_instance=2))
    found = measure_pair(open_pair(own_run, "clt_L0-L1_to_L2"))
    assert "32 training rows for 32 columns are few" in capsys.readouterr().err
    assert "passed through" not in found["explained"]
    assert found["cosine"] is None
    draw(found)
    assert "passed through" in measure_pair(open_pair(own_run, "clt_L0-L1_mlp_input_to_L1-L2_mlp"))["explained"]


def test_the_command_prints_a_table(own_pairs: Path) -> None:
    from elute.cli.main import elute as program

    words = ["routing", "inspect-pairs", "--run_dir", str(own_pairs), "--pair", "clt_L0_to_L2", "--no-plots"]
    done = CliRunner().invoke(program, words, catch_exceptions=False)
    assert "R² of the target on held-out instances; the linear map is the bar" in done.stdout
    told = json.loads(CliRunner().invoke(program, [*words, "--json"], catch_exceptions=False).stdout)
    assert torch.isfinite(torch.tensor(told["pairs"]["clt_L0_to_L2"]["explained"]["linear"]["r2"]))


def test_nothing_to_look_at_is_one_line(own_run: Path) -> None:
    with pytest.raises(DataError, match="there are no pairs to look at.*collect-pairs"):
        inspect_pairs(own_run)

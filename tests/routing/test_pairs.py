"""What a pair is called, what it refuses to be, and that what is opened is what was collected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from elute.base.errors import ConfigError, DamagedError, DataError, GuardError, SpaceError, VersionError
from elute.base.tensors import load_tensors
from elute.routing import pair_places
from elute.routing.collecting import collect_pairs
from elute.routing.pair_settings import PairPlan, PairsConfig, PairSpec, parse, parse_one
from elute.routing.pair_sources import check_order
from elute.routing.pair_tensors import read_tensors, write_tensors
from elute.routing.pairs import check_same_rows, open_pair
from elute.routing.whitening import scaled_batches, scaler
from elute.store.layout import tensors_path
from elute.store.reader import Store

pytestmark = pytest.mark.usefixtures("one_thread")
SITES = (
    *(f"encoder_layer_{i}{part}" for i in range(3) for part in ("", ".input", ".attention", ".attention.input", ".mlp", ".mlp.input")),
    "encoder_output", "decoder_context", "decoder_query",
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("encoder_layer_0:encoder_layer_2", "clt_L0_to_L2"),
        ("encoder_layer_1:encoder_output", "clt_L1_to_output"),
        (" encoder_layer_0.mlp.input : encoder_layer_0.mlp ", "clt_L0_mlp_input_to_L0_mlp"),
        ("encoder_layer_10.input:encoder_layer_11.attention", "clt_L10_input_to_L11_attention"),
        ("encoder_output:decoder_query", "clt_output_to_query"),
        ("encoder_layer_0.mlp.input+encoder_layer_1.mlp.input:encoder_layer_0.mlp+encoder_layer_1.mlp",
         "clt_L0-L1_mlp_input_to_L0-L1_mlp"),
        ("encoder_layer_0+encoder_layer_1.mlp:encoder_output", "clt_L0-L1_mlp_to_output"),
    ],
)  # fmt: skip
def test_a_pair_has_one_name(text: str, name: str) -> None:
    spec = parse_one(text)
    assert spec.name == name
    assert parse_one(spec.text) == spec


def test_short_forms_name_all_pairs_that_say_something() -> None:
    layers = [spec.name for spec in parse("layers", layers=3)]
    assert layers == ["clt_L0_to_L1", "clt_L0_to_L2", "clt_L1_to_L2"]
    mlp = [spec.name for spec in parse("mlp", layers=2)]
    assert mlp == ["clt_L0_mlp_input_to_L0_mlp", "clt_L1_mlp_input_to_L1_mlp"]
    assert len(parse("all", layers=3)) == 6
    assert len(parse("all,layers,encoder_layer_0:encoder_layer_1", layers=3)) == 6
    for spec in parse("all", layers=3):
        spec.check(SITES, layers=3)


@pytest.mark.parametrize("text", ["encoder_layer_0", "a:b:c", ":encoder_output", "encoder_layer_0:", "a+a:b", " , "])
def test_what_is_no_pair_is_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text, layers=3)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("encoder_layer_2:encoder_output", "encoder_output is what encoder_layer_2 gives: the pair is the identity"),
        ("encoder_layer_0:encoder_layer_1.input", "identity"),
        ("encoder_layer_1.input:encoder_layer_1.attention.input", "identity"),
        ("encoder_layer_0:encoder_layer_0", "identity"),
        ("encoder_layer_2:encoder_layer_1", "Did you mean encoder_layer_1:encoder_layer_2?"),
        ("encoder_layer_0.mlp:encoder_layer_0.mlp.input", "is computed before"),
        ("encoder_layer_0:encoder_layer_3", "no layer 'encoder_layer_3'. Did you mean 'encoder_layer_2'"),
        ("decoder_context:decoder_query", "identity"),
        ("decoder_query:encoder_output", "is computed before"),
    ],
)
def test_a_pair_that_says_nothing_is_refused_with_the_reason(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_one(text).check(SITES, layers=3, graph_context=False)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_the_query_is_more_than_the_context_where_the_mean_of_all_nodes_is_added() -> None:
    parse_one("decoder_context:decoder_query").check(SITES, layers=3, graph_context=True)


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match="go together"):
        PairPlan(layers="a:b", nodes_per_instance=3)
    with pytest.raises(ValueError, match="give one of them"):
        PairPlan(layers="a:b", k=3, k_ratio=0.1)
    for wrong in ({"train": 0.5}, {"a": 0.5, "b": 0.5}, {"train": 1.2, "test": -0.2}):
        with pytest.raises(ValueError, match="fractions"):
            PairsConfig(fractions=wrong)
    assert PairPlan(layers="a:b", k_ratio=0.1, expansion_factor=4).sparsity == {"k_ratio": 0.1, "expansion_factor": 4}


def test_what_is_opened_says_what_it_is(tiny_pairs: Path) -> None:
    pair = open_pair(tiny_pairs, "clt_L0_to_L2")
    assert open_pair(str(tiny_pairs), "encoder_layer_0:encoder_layer_2").name == pair.name
    assert open_pair(tiny_pairs, PairSpec(("encoder_layer_0",), ("encoder_layer_2",))).folder == pair.folder
    assert (pair.source, pair.target) == ("encoder_layer_0", "encoder_layer_2")
    assert pair.store.sites == {"source_encoder_layer_0": 16, "target_encoder_layer_2": 16}
    assert pair.widths == (16, 16)
    assert pair.folder == tiny_pairs / "clt" / "activations" / "clt_L0_to_L2"
    assert pair.splits == ("train", "validation", "test")
    assert [len(pair.ids(split)) for split in pair.splits] == [48, 6, 6]
    assert pair.ids() == tuple(f"uniform-8-s0-{i}" for i in range(60))
    x, y, frame = pair.read("test")
    assert x.shape == y.shape == (48, 16)
    assert frame["sample_id"].unique(maintain_order=True).to_list() == list(pair.ids("test"))
    few, _, some = pair.read("test", most=10)
    assert torch.equal(few, x[:10])
    assert len(some) == 10
    assert pair.instances("test").ids == pair.ids("test")
    with pytest.raises(DataError, match="no rows in the split 'tset'. Did you mean 'test'"):
        pair.select("tset")


def test_instances_drawn_again_are_those_of_the_rows(tiny_pairs: Path) -> None:
    pair = open_pair(tiny_pairs, "clt_L0_to_L2")
    instances, model = pair.instances("validation"), pair.model()
    ((batch, _),) = model.batches(instances, tours=False)
    rows = model.capture(batch, ["encoder_layer_2"])["encoder_layer_2"]
    torch.testing.assert_close(rows, pair.read("validation")[1], rtol=1e-4, atol=1e-4)


def test_statistics_are_of_training_rows_alone(tiny_pairs: Path) -> None:
    pair = open_pair(tiny_pairs, "clt_L0_to_L2")
    for site, side in ((pair.source_site, 0), (pair.target_site, 1)):
        rows = pair.read("train")[side].double()
        span = pair.statistics[site]
        np.testing.assert_allclose(span.mean, rows.mean(0), rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(span.std, rows.std(0, correction=0), rtol=1e-9)
        every = pair.read()[side].double()
        assert np.abs(np.array(span.mean) - every.mean(0).numpy()).max() > 1e-4
    told = json.loads((pair.folder / "metadata.json").read_text())
    assert told["statistics"]["split"] == "train"
    assert told["splits"] == {
        "train": {"instances": 48, "rows": 384}, "validation": {"instances": 6, "rows": 48},
        "test": {"instances": 6, "rows": 48},
    }  # fmt: skip
    assert told["shapes"] == {"source_encoder_layer_0": [480, 16], "target_encoder_layer_2": [480, 16]}


def test_no_instance_lies_in_two_splits(tiny_pairs: Path) -> None:
    for name in pair_places.collected(tiny_pairs):
        pair = open_pair(tiny_pairs, name)
        parts = [set(pair.ids(split)) for split in pair.splits]
        assert sum(map(len, parts)) == len(set.union(*parts)) == 60
        frame = pair.store.metadata(columns=["sample_id", "split"])
        assert frame.unique().height == 60


def test_scaled_rows_are_scaled_by_the_training_rows(own_pairs: Path) -> None:
    pair = open_pair(own_pairs, "clt_L0_to_L2")
    x, y, _ = pair.read("train")
    batches = list(scaled_batches(pair, source="standard", target="center", split="train", size=50))
    xs, ys = torch.cat([b[0] for b in batches]), torch.cat([b[1] for b in batches])
    torch.testing.assert_close(xs, (x - x.mean(0)) / x.std(0, correction=0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ys, y - y.mean(0), rtol=1e-4, atol=1e-4)
    for method in ("none", "center", "standard"):
        one = scaler(pair, [pair.source_site], method)
        torch.testing.assert_close(one.invert(one.apply(x)), x, rtol=1e-4, atol=1e-4)
    with pytest.raises(ConfigError, match="no whitening was measured"):
        scaler(pair, [pair.source_site], "pca")
    with pytest.raises(ConfigError, match="no scaling 'pac'. Did you mean 'pca'"):
        scaler(pair, [pair.source_site], "pac")  # type: ignore[arg-type]


def test_whitened_rows_are_white_where_they_were_measured(own_run: Path) -> None:
    settings = PairsConfig(layer_pairs="encoder_layer_0:encoder_layer_1", num_instances_per_pair=60, scaling="pca")
    collect_pairs(own_run, settings, device="cpu")
    pair = open_pair(own_run, "clt_L0_to_L1")
    white = torch.cat([x for x, _, _ in scaled_batches(pair, source="pca", split="train")]).double()
    assert torch.allclose(white.T @ white / len(white), torch.eye(white.shape[1]).double(), atol=1e-2)
    one, (x, _, _) = scaler(pair, [pair.source_site], "pca"), pair.read("test")
    torch.testing.assert_close(one.invert(one.apply(x)), x, rtol=1e-2, atol=1e-2)


def test_two_files_hold_the_rows_in_their_order(own_pairs: Path) -> None:
    pair = open_pair(own_pairs, "clt_L1_to_output")
    write_tensors(pair)
    sources, targets = read_tensors(pair)
    x, y, _ = pair.read()
    assert torch.equal(sources, x)
    assert torch.equal(targets, y)
    assert torch.equal(load_tensors(pair.folder / "sources.pt"), x)
    assert not list(pair.folder.glob(".*.tmp"))
    before = (pair.folder / "sources.pt").stat().st_mtime_ns
    write_tensors(pair)
    assert (pair.folder / "sources.pt").stat().st_mtime_ns == before
    torch.save(y.flip(0), pair.folder / "targets.pt")
    with pytest.raises(GuardError, match=r"targets\.pt: the order of its rows differs: row 0 is not that"):
        read_tensors(pair)
    torch.save(y[1:], pair.folder / "targets.pt")
    with pytest.raises(DamagedError, match=r"is \[479, 16\], not \[480, 16\]"):
        read_tensors(pair)
    torch.save({"rows": y}, pair.folder / "targets.pt")
    with pytest.raises(DamagedError, match="is dict, not"):
        read_tensors(pair)


class _Hostile:
    def __reduce__(self) -> tuple[object, ...]:
        return (print, ("executed",))


def test_a_pickle_is_never_executed(own_pairs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pair = open_pair(own_pairs, "clt_L1_to_output")
    write_tensors(pair)
    torch.save(_Hostile(), pair.folder / "sources.pt")
    with pytest.raises(DamagedError, match="would run code when read"):
        read_tensors(pair)
    assert "executed" not in capsys.readouterr().out


def test_pairs_in_another_order_are_told_apart(own_pairs: Path) -> None:
    first, second = (open_pair(own_pairs, name) for name in ("clt_L0_to_L2", "clt_L1_to_output"))
    check_same_rows(first, second)
    assert first.store.manifest.store != second.store.manifest.store
    with pytest.raises(
        GuardError, match="clt_L0_to_L2 and of clt_output_to_query differs: row 0 is node 0 of .* and node 1 of"
    ):
        check_same_rows(first, open_pair(own_pairs, "clt_output_to_query"))
    frame = pl.DataFrame({"sample_id": ["a", "a", "b"], "node": [0, 1, 0]})
    check_order(frame, frame, where="a:b")
    with pytest.raises(DataError, match="row 1 is node 1 of a in the source, node 0 of b in the target"):
        check_order(frame, frame[[0, 2, 1]], where="a:b")
    with pytest.raises(DataError, match="the source has 3 rows and the target 2"):
        check_order(frame, frame[:2], where="a:b")


def test_a_store_whose_rows_were_changed_is_refused(own_pairs: Path) -> None:
    from elute.store.splitting import SplitConfig, split_store

    pair = open_pair(own_pairs, "clt_L0_to_L2")
    split_store(pair.folder, SplitConfig(seed=5))
    with pytest.raises(GuardError, match="order or splits were changed after the pair was collected"):
        open_pair(own_pairs, pair.name)
    other = open_pair(own_pairs, "clt_L1_to_output")
    shutil.rmtree(pair.folder)
    shutil.copytree(other.folder, pair.folder)
    record = json.loads((other.folder / "metadata.json").read_text())
    (pair.folder / "metadata.json").write_text(json.dumps({**record, "store": "another"}))
    with pytest.raises(GuardError, match="holds other rows than its metadata.json describes"):
        open_pair(own_pairs, pair.name)
    (pair.folder / "metadata.json").write_text(json.dumps({**record, "sources": ["encoder_layer_0"]}))
    with pytest.raises(GuardError, match="has no site 'source_encoder_layer_0'"):
        open_pair(own_pairs, pair.name)
    (pair.folder / "metadata.json").write_text(json.dumps({**record, "schema": 99}))
    with pytest.raises(VersionError, match="newer elute"):
        open_pair(own_pairs, pair.name)
    for text in ("[]", '{"schema": 1}', "{"):
        (pair.folder / "metadata.json").write_text(text)
        with pytest.raises(DamagedError):
            open_pair(own_pairs, pair.name)


def test_what_is_not_there_is_one_line(own_pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no pair 'clt_L0_to_L3'. Did you mean 'clt_L0_to_L2'"):
        open_pair(own_pairs, "clt_L0_to_L3")
    with pytest.raises(DataError, match="there is no such run"):
        open_pair(tmp_path / "nowhere", "clt_L0_to_L2")
    (own_pairs / "clt" / "activations" / "clt_L0_to_L2" / "metadata.json").unlink()
    with pytest.raises(DataError, match="was not collected to its end"):
        open_pair(own_pairs, "clt_L0_to_L2")
    shutil.rmtree(own_pairs / "clt" / "activations" / "clt_L0_to_L2")
    with pytest.raises(DataError, match="the rows of clt_L0_to_L2 lay there, and are gone"):
        open_pair(own_pairs, "clt_L0_to_L2")
    with pytest.raises(SpaceError, match="the storage of clt_L0_to_L2 is gone"):
        collect_pairs(own_pairs, PairsConfig(layer_pairs="encoder_layer_0:encoder_layer_2"))
    (own_pairs / "clt" / "activation_store.json").write_text('{"pairs": [1]}')
    with pytest.raises(DamagedError, match="does not say where pairs lie"):
        open_pair(own_pairs, "clt_L1_to_output")


def test_a_run_that_is_moved_keeps_its_pairs(own_pairs: Path, tmp_path: Path) -> None:
    moved = own_pairs.rename(tmp_path / "elsewhere")
    pair = open_pair(moved, "clt_L0_to_L2")
    assert pair.folder.is_relative_to(moved)
    told = json.loads((moved / "clt" / "activation_store.json").read_text())
    assert told["activations_dir"] == "clt/activations"
    assert pair.model().fingerprint().weights == Store(pair.folder).manifest.model.weights  # type: ignore[union-attr]


def test_rows_are_mapped_and_not_read(tiny_pairs: Path) -> None:
    """A batch of the store shares its memory with the file's mapping; what is copied is a batch at most."""
    pair = open_pair(tiny_pairs, "clt_L0_to_L2")
    rows = pair.store.read(0, 5)[pair.source_site]
    assert rows.untyped_storage().nbytes() > rows.numel() * rows.element_size()
    assert tensors_path(pair.folder, 0).stat().st_size >= 2 * 480 * 16 * 4
    assert all(len(x) <= 32 for x, _, _ in pair.batches(32))

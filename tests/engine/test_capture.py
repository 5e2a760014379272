"""From a model to a store: the same rows however often it was stopped, and never rows of another model."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
import torch
from torch import nn

from elute.base.errors import DataError, GuardError
from elute.engine.capture import CaptureConfig, capture_to_store
from elute.models.module import TorchModel
from elute.store.reader import Store
from elute.store.verify import verify

SMALL = CaptureConfig(rows_per_shard=50)


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 5))


def batches(data: torch.Tensor) -> Iterator[tuple[torch.Tensor, dict[str, object]]]:
    for start in range(0, len(data), 32):
        piece = data[start : start + 32]
        yield (
            piece,
            {"sample_id": [f"s{start + i}" for i in range(len(piece))], "group": [f"g{start // 64}"] * len(piece)},
        )


def model(seed: int = 0, **settings: object) -> TorchModel:
    return TorchModel(network(seed), {"hidden": "1", "out": "2"}, batches, **settings)


DATA = torch.randn(200, 3, generator=torch.Generator().manual_seed(7))


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


def test_every_row_is_what_the_network_computes(tmp_path: Path) -> None:
    artifact = capture_to_store(model(), DATA, tmp_path / "s", config=SMALL)
    store = Store(tmp_path / "s")
    net = network()
    assert artifact.summary == {"rows": 200, "sites": {"hidden": 8, "out": 5}, "bad_rows": 0, "reused": False}
    torch.testing.assert_close(store.read()["hidden"], net[:2](DATA).detach())
    torch.testing.assert_close(store.read()["out"], net(DATA).detach())
    assert store.metadata()["sample_id"].to_list() == [f"s{i}" for i in range(200)]
    assert store.manifest.model is not None
    store.expect(model=model().fingerprint(), sites=["hidden"])


def test_the_sites_asked_for_alone(tmp_path: Path) -> None:
    capture_to_store(model(), DATA, tmp_path / "s", sites=["out"])
    assert Store(tmp_path / "s").sites == {"out": 5}


def test_a_second_capture_reuses_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    capture_to_store(model(), DATA, tmp_path / "s", config=SMALL)
    before = content(tmp_path / "s")
    calls = []
    real = TorchModel.capture
    monkeypatch.setattr(TorchModel, "capture", lambda self, *a, **k: calls.append(1) or real(self, *a, **k))
    assert capture_to_store(model(), DATA, tmp_path / "s", config=SMALL).summary["reused"]
    assert len(calls) == 1, "one batch tells the widths; the others need not run"
    assert content(tmp_path / "s") == before


def test_a_record_that_a_kill_left_out_is_written(tmp_path: Path) -> None:
    first = TorchModel(network(), {"hidden": "1"}, batches)
    capture_to_store(first, DATA, tmp_path / "s")
    before = {name: (tmp_path / "s" / name).read_bytes() for name in ("run.json", "config.yaml")}
    for name in before:
        (tmp_path / "s" / name).unlink()
    assert capture_to_store(first, DATA, tmp_path / "s").summary["reused"]
    assert {name: (tmp_path / "s" / name).read_bytes() for name in before} == before


def test_fine_tuning_is_found_and_recapture_writes_anew(tmp_path: Path) -> None:
    tuned = model()
    capture_to_store(tuned, DATA, tmp_path / "s", config=SMALL)
    with torch.no_grad():
        tuned.module[0].weight.data[0, 0] += 1e-3
    with pytest.raises(GuardError, match=r"weights \(fine-tuned\?\) have changed\. .*--recapture"):
        capture_to_store(tuned, DATA, tmp_path / "s", config=SMALL)
    capture_to_store(tuned, DATA, tmp_path / "s", config=SMALL.model_copy(update={"recapture": True}))
    torch.testing.assert_close(Store(tmp_path / "s").read()["out"], tuned.module(DATA).detach())


def test_another_input_is_refused(tmp_path: Path) -> None:
    capture_to_store(model(), DATA, tmp_path / "s", source={"cells.h5ad": "1"})
    with pytest.raises(GuardError, match="the input cells.h5ad changed"):
        capture_to_store(model(), DATA, tmp_path / "s", source={"cells.h5ad": "2"})


@pytest.mark.parametrize("stop", [0, 1, 2, 4, 6])
def test_stopped_at_any_batch_it_ends_the_same(tmp_path: Path, stop: int) -> None:
    capture_to_store(model(), DATA, tmp_path / "whole", config=SMALL)

    def breaking(data: torch.Tensor) -> Iterator[object]:
        yield from itertools.islice(batches(data), stop + 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_to_store(
            TorchModel(network(), {"hidden": "1", "out": "2"}, breaking), DATA, tmp_path / "s", config=SMALL
        )
    assert len(Store(tmp_path / "s")) == min(200, 32 * (stop + 1))
    assert not Store(tmp_path / "s").complete
    capture_to_store(model(), DATA, tmp_path / "s", config=SMALL)
    assert content(tmp_path / "s") == content(tmp_path / "whole")


def test_stored_batches_are_not_computed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaking(data: torch.Tensor) -> Iterator[object]:
        yield from itertools.islice(batches(data), 4)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        capture_to_store(
            TorchModel(network(), {"hidden": "1", "out": "2"}, breaking), DATA, tmp_path / "s", config=SMALL
        )
    seen: list[int] = []
    real = TorchModel.capture
    monkeypatch.setattr(
        TorchModel, "capture", lambda self, batch, *a, **k: seen.append(len(batch)) or real(self, batch, *a, **k)
    )
    capture_to_store(model(), DATA, tmp_path / "s", config=SMALL)
    assert len(seen) == 1 + 3, "one for the widths, and the three batches that were not stored"


def test_a_model_that_changes_meanwhile(tmp_path: Path) -> None:
    changing = model()

    def training(data: torch.Tensor) -> Iterator[object]:
        for item in batches(data):
            yield item
            with torch.no_grad():
                changing.module[0].bias.data += 1

    changing._batches = training
    with pytest.raises(GuardError, match="the model's weights changed while it was captured"):
        capture_to_store(changing, DATA, tmp_path / "s", config=SMALL)
    assert not Store(tmp_path / "s").complete


def test_metadata_that_does_not_fit_the_rows(tmp_path: Path) -> None:
    def short(data: torch.Tensor) -> Iterator[object]:
        yield data[:4], {"sample_id": ["a", "b"]}

    with pytest.raises(DataError, match="site 'hidden' gave 4 rows for 2 rows of metadata"):
        capture_to_store(TorchModel(network(), {"hidden": "1"}, short), DATA, tmp_path / "s")


def test_no_batch_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the data gave no batch"):
        capture_to_store(TorchModel(network(), {"hidden": "1"}, lambda _: iter(())), DATA, tmp_path / "s")


def test_padding_never_becomes_a_row(tmp_path: Path) -> None:
    def padded(_: object) -> Iterator[object]:
        x = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(1))
        mask = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 0]]).bool()
        yield {"input": x, "mask": mask}, {"sample_id": ["a"] * 2 + ["b"] * 3, "position": [0, 1, 0, 1, 2]}

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 4)

        def forward(self, input: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            return self.inner(input)

    net = Net()
    capture_to_store(TorchModel(net, {"inner": "inner"}, padded, keep="mask"), None, tmp_path / "s")
    store = Store(tmp_path / "s")
    batch, _ = next(iter(padded(None)))  # type: ignore[misc]
    torch.testing.assert_close(store.read()["inner"], net.inner(batch["input"])[batch["mask"]].detach())


def test_killed_at_any_moment_it_ends_the_same(tmp_path: Path) -> None:
    """One SIGKILL here; the journeys do ten at random moments."""
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_capture as t
def killed(data):
    for i, item in enumerate(t.batches(data)):
        if i == 5:
            os.kill(os.getpid(), 9)
        yield item
model = t.TorchModel(t.network(), {{"hidden": "1", "out": "2"}}, killed)
t.capture_to_store(model, t.DATA, {str(tmp_path / "s")!r}, config=t.SMALL)
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert not Store(tmp_path / "s").complete
    capture_to_store(model(), DATA, tmp_path / "s", config=SMALL)
    capture_to_store(model(), DATA, tmp_path / "whole", config=SMALL)
    assert content(tmp_path / "s") == content(tmp_path / "whole")
    assert verify(tmp_path / "s") == []


def test_metadata_may_be_a_frame(tmp_path: Path) -> None:
    def framed(data: torch.Tensor) -> Iterator[object]:
        yield data, pl.DataFrame({"sample_id": [f"s{i}" for i in range(len(data))]})

    capture_to_store(TorchModel(network(), {"out": "2"}, framed), DATA[:5], tmp_path / "s")
    assert len(Store(tmp_path / "s")) == 5

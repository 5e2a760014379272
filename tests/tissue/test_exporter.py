"""The exporter in a loop of one's own: the same rows as the export, nothing when off, resumed, and frozen."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from tests.tissue.pictures_made import picture, small_vit, tiles_in_memory
from torch import nn

import elute.tissue
from elute.base.errors import ConfigError, DataError, GuardError
from elute.models.vision import small
from elute.models.vit import load
from elute.store import layout
from elute.store.reader import Store
from elute.store.splitting import SplitConfig
from elute.tissue.embed_settings import EmbeddingConfig, EncoderConfig
from elute.tissue.exporter import EmbeddingExporter
from elute.tissue.exporting import embed_export

SPLIT = SplitConfig(fractions={"train": 0.5, "validation": 0.25, "test": 0.25})
N = 12


@pytest.fixture(autouse=True)
def _threads(one_thread: None) -> None: ...


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_vit(tmp_path_factory.mktemp("vit"))


def floats(numbers: list[int]) -> torch.Tensor:
    """Pictures on the scale of the small encoder, as a loop has them."""
    x = torch.from_numpy(np.stack([picture(i) for i in numbers])).permute(0, 3, 1, 2).float()
    return (x / 255 - 0.5) / 0.25


def meta(numbers: list[int], **more: Any) -> dict[str, Any]:
    return {"sample_id": [f"s{i}" for i in numbers], "group": [f"p{i % 4}" for i in numbers], **more}


def batches(size: int = 5) -> list[list[int]]:
    return [list(range(start, min(start + size, N))) for start in range(0, N, size)]


def loop(exporter: EmbeddingExporter, *, epochs: int = 1, **more: Any) -> None:
    for epoch in range(epochs):
        for numbers in batches():
            exporter(floats(numbers), meta(numbers, epoch=epoch, **more))


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != ".lock"}  # fmt: skip


def test_the_face_offers_it() -> None:
    assert elute.tissue.EmbeddingExporter is EmbeddingExporter
    with pytest.raises(AttributeError, match="elute.tissue has no 'Exporter'"):
        _ = elute.tissue.Exporter


def test_a_loop_writes_what_the_export_writes(vit: Path, tmp_path: Path) -> None:
    embed_export(tiles_in_memory(N), tmp_path / "export", encoder=EncoderConfig(encoder=str(vit)),
                 embedding=EmbeddingConfig(pooled=True), split=SPLIT)  # fmt: skip
    config = {"embedding_source": {"per_token": True, "pooled": True}, "output": str(tmp_path / "loop")}
    with EmbeddingExporter(config, encoder=small.load(vit), split=SPLIT) as exporter:
        loop(exporter, x=3.0)
    for name in ("embeddings", "embeddings_pooled"):
        one, other = Store(tmp_path / "export" / name), Store(tmp_path / "loop" / name)
        torch.testing.assert_close(one.read()["embedding"], other.read()["embedding"])
        columns = sorted(one.manifest.columns)
        assert one.metadata(columns=columns).equals(other.metadata(columns=columns))
        assert json.loads((other.folder / "embed_stats.json").read_text())["split"] == "train"
    tiles = pl.read_parquet(tmp_path / "loop" / "tiles.parquet")
    assert tiles["x"].to_list() == [3.0] * N
    assert tiles.drop("x").equals(pl.read_parquet(tmp_path / "export" / "tiles.parquet").drop("x"))
    assert (tmp_path / "loop" / "encoder.json").read_bytes() != b""


def test_switched_off_it_does_nothing(tmp_path: Path) -> None:
    exporter = EmbeddingExporter({"output_embeddings": False, "output": str(tmp_path / "none")})
    assert not exporter.active
    assert exporter("no pictures", None) == 0
    exporter.close()
    assert list(tmp_path.iterdir()) == []


def test_pictures_of_8_bits_are_brought_to_the_encoder_s_scale(vit: Path, tmp_path: Path) -> None:
    numbers = list(range(N))
    given = [
        np.stack([picture(i) for i in numbers]),
        [picture(i) for i in numbers],
        torch.from_numpy(np.stack([picture(i) for i in numbers])).permute(0, 3, 1, 2),
        torch.from_numpy(np.stack([picture(i) for i in numbers])),
        floats(numbers),
    ]
    rows = []
    for i, images in enumerate(given):
        with EmbeddingExporter({}, folder=tmp_path / str(i), encoder=str(vit), split=SPLIT) as exporter:
            assert exporter(images, meta(numbers)) == N * 16
        rows.append(Store(tmp_path / str(i) / "embeddings").read()["embedding"])
    for other in rows[1:]:
        torch.testing.assert_close(rows[0], other)


def test_only_the_epochs_asked_for_and_the_splits_that_came(vit: Path, tmp_path: Path) -> None:
    with EmbeddingExporter({"epochs": [1, 2], "per_token": False}, folder=tmp_path, encoder=load(vit)) as exporter:
        for epoch in range(4):
            for numbers in batches():
                tags = ["train" if i % 4 < 3 else "held-out" for i in numbers]
                exporter(
                    floats(numbers), meta(numbers, epoch=epoch, split_tag=tags, augment_seed=[epoch * 9] * len(numbers))
                )
    frame = Store(tmp_path / "embeddings").metadata()
    assert frame["epoch"].to_list() == [1] * N + [2] * N
    assert frame["augment_seed"].unique().to_list() == [9, 18]
    assert dict(frame.select("group", "split").unique().iter_rows()) == {f"p{i}": "train" if i < 3 else "held-out" for i in range(4)}  # fmt: skip


def test_a_leaking_split_is_refused(vit: Path, tmp_path: Path) -> None:
    exporter = EmbeddingExporter({}, folder=tmp_path, encoder=load(vit))
    numbers = list(range(8))
    with pytest.raises(DataError, match="group 'p[0-3]' falls in two splits"):
        exporter(floats(numbers), meta(numbers, split_tag=["train"] * 4 + ["test"] * 4))


@pytest.mark.parametrize("after", [1, 2])
def test_a_loop_that_was_stopped_is_run_again(
    vit: Path, tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "DEFAULT_SHARD_BYTES", 16 * 16 * 4 * 3)  # three pictures a shard
    with EmbeddingExporter({}, folder=tmp_path / "whole", encoder=load(vit), split=SPLIT) as exporter:
        loop(exporter)
    with (
        pytest.raises(KeyboardInterrupt),
        EmbeddingExporter({}, folder=tmp_path / "again", encoder=load(vit), split=SPLIT) as exporter,
    ):
        for numbers in batches()[:after]:
            exporter(floats(numbers), meta(numbers))
        raise KeyboardInterrupt
    ran: list[int] = []
    model = load(vit)
    model.module.register_forward_hook(lambda _m, args, _out: ran.append(len(args[0])))
    with EmbeddingExporter({}, folder=tmp_path / "again", encoder=model, split=SPLIT) as exporter:
        loop(exporter)
    assert content(tmp_path / "again") == content(tmp_path / "whole")
    assert sum(ran) <= N - 5 * after + 1, "what was stored was not run again"


def test_a_complete_export_is_used_as_it_is(vit: Path, tmp_path: Path) -> None:
    held: dict[str, bytes] = {}
    for first in (True, False):
        with EmbeddingExporter({}, folder=tmp_path, encoder=load(vit), split=SPLIT) as exporter:
            loop(exporter)
            assert exporter.active == first
        held = content(tmp_path) if first else held
    assert content(tmp_path) == held
    tuned = small.load(vit)
    tuned.norm.weight.data += 1
    with (
        pytest.raises(GuardError, match="fine-tuned"),
        EmbeddingExporter({}, folder=tmp_path, encoder=tuned) as exporter,
    ):
        loop(exporter)
    with EmbeddingExporter({"recapture": True}, folder=tmp_path, encoder=tuned, split=SPLIT) as exporter:
        loop(exporter)
    assert Store(tmp_path / "embeddings").complete


def test_an_encoder_that_learns_in_the_loop_is_refused(vit: Path, tmp_path: Path) -> None:
    net = small.load(vit).train()
    exporter = EmbeddingExporter({}, folder=tmp_path, encoder=net, split=SPLIT)
    exporter(floats([0, 1]), meta([0, 1]))
    assert net.training, "its own mode is left as it was"
    net.norm.weight.data += 1e-3
    with pytest.raises(GuardError, match="weights changed while it was exported. Freeze it"):
        exporter.close()
    assert not Store(tmp_path / "embeddings").complete


def test_the_loop_s_gradients_are_left_alone(vit: Path, tmp_path: Path) -> None:
    net = small.load(vit)
    head = nn.Linear(16, 1)
    with EmbeddingExporter({}, folder=tmp_path, encoder=net, split=SPLIT) as exporter:
        for numbers in batches():
            x = floats(numbers).requires_grad_()
            loss = head(net(x).mean(1)).sum()
            exporter(x, meta(numbers))
            loss.backward()
            assert x.grad is not None
    assert head.weight.grad is not None


def test_settings_from_a_file(vit: Path, tmp_path: Path) -> None:
    path = tmp_path / "cfg.yaml"
    path.write_text(
        f"output: {tmp_path / 'run'}\nencoder:\n  encoder: {vit}\nembedding:\n  per_token: false\nsae:\n  top_k: 3\n"
        "split:\n  fractions: {train: 0.5, test: 0.5}\n"
    )
    with EmbeddingExporter(path) as exporter:
        loop(exporter)
    store = Store(tmp_path / "run" / "embeddings")
    assert len(store) == N
    assert set(store.metadata()["split"]) == {"train", "test"}


WRONG = [
    ({"group": ["p"] * 2}, "meta: has no sample_id"),
    ({"sample_id": ["a", "b"]}, "meta: has no group: the patient or site"),
    ({"sample_id": ["a"], "group": "p"}, "meta: sample_id has 1 values for 2 pictures"),
    ({"sample_id": ["a", None], "group": "p"}, "meta: sample_id is missing for picture 1"),
    ({"sample_id": ["a", "b"], "group": "p", "epoch": "first"}, "meta: epoch holds 'first', which is no number"),
    ({"sample_id": ["a", "b"], "group": "p", "patient": "q"}, "meta: patient and group are both given"),
    (
        {"sample_id": ["a", "a"], "group": "p"},
        "sample 'a', tile 'a' comes twice in epoch 0. Give each picture a tile_id",
    ),
    (7, "meta: is a int. Give a mapping of columns"),
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_what_is_said_of_pictures_is_checked(vit: Path, tmp_path: Path, given: Any, told: str) -> None:
    exporter = EmbeddingExporter({}, folder=tmp_path, encoder=load(vit))
    with pytest.raises(DataError, match=told):
        exporter(floats([0, 1]), given)


def test_what_else_cannot_be(vit: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no folder is named. Give folder=, or the key output"):
        EmbeddingExporter({})
    with pytest.raises(ConfigError, match="unknown key 'output_embedings'. Did you mean 'output_embeddings'"):
        EmbeddingExporter({"output_embedings": True})
    with pytest.raises(ConfigError, match="no encoder is named. Give encoder=, or attach one"):
        EmbeddingExporter({}, folder=tmp_path)(floats([0]), meta([0]))
    with pytest.raises(ConfigError, match="exporter of its own"):
        EmbeddingExporter({"pooled": True, "pooling": "cls"}, folder=tmp_path)
    exporter = EmbeddingExporter({}, folder=tmp_path / "run", split=SPLIT).attach(small.load(vit))
    with pytest.raises(DataError, match=r"pixels of shape \[1, 3, 31, 32\]"):
        exporter(floats([0])[:, :, :31], meta([0]))
    loop(exporter)
    with pytest.raises(ConfigError, match="rows of another encoder are written already"):
        exporter.attach(small.load(vit))
    exporter.close()
    with pytest.raises(ConfigError, match="the exporter is closed"):
        exporter(floats([0]), meta([0]))


def test_metadata_may_come_as_rows_or_as_a_frame(vit: Path, tmp_path: Path) -> None:
    rows = [{"sample_id": i, "patient": f"p{i // 2}"} for i in range(4)]
    frame = pl.DataFrame(rows)
    told = []
    for i, given in enumerate(
        (rows, frame, {"sample_id": torch.arange(4), "site": np.array(["p0", "p0", "p1", "p1"])})
    ):
        split = SplitConfig(fractions={"train": 0.5, "test": 0.5})
        with EmbeddingExporter(
            {"per_token": False}, folder=tmp_path / str(i), encoder=load(vit), split=split
        ) as exporter:
            exporter(floats([0, 1, 2, 3]), given)
        told.append(Store(tmp_path / str(i) / "embeddings").metadata())
    assert told[0].equals(told[1])
    assert told[0].equals(told[2])
    assert told[0]["sample_id"].to_list() == ["0", "1", "2", "3"]

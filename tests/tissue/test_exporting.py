"""Embeddings on disk: the encoder's own numbers, splits by patient, training statistics, resumed to the same bytes."""

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

from elute.base.errors import ConfigError, DataError, GuardError, SiteError
from elute.base.recipe import build
from elute.models.vision import small
from elute.models.vit import load
from elute.store import layout
from elute.store.reader import Store
from elute.store.splitting import SplitConfig
from elute.tissue.embed_settings import EmbeddingConfig, EncoderConfig
from elute.tissue.exporting import embed_export
from elute.tissue.tile_settings import TilesConfig
from elute.tissue.tiles import Tiles, open_tiles

SPLIT = SplitConfig(fractions={"train": 0.5, "validation": 0.25, "test": 0.25})
N = 12


@pytest.fixture(autouse=True)
def _threads(one_thread: None) -> None: ...


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_vit(tmp_path_factory.mktemp("vit"))


def export(tiles: Tiles, folder: Path, vit: Path, *, split: SplitConfig = SPLIT, **embedding: Any) -> Any:
    config = build(EmbeddingConfig, embedding, where="embedding")
    return embed_export(
        tiles, folder, encoder=EncoderConfig(encoder=str(vit), batch_size=5), embedding=config, split=split
    )


def by_hand(vit: Path, numbers: range, block: int = 1) -> torch.Tensor:
    """What the block adds up to, [pictures, tokens, width], by the module's own parts."""
    net = small.load(vit)
    x = torch.from_numpy(np.stack([picture(i) for i in numbers])).permute(0, 3, 1, 2).float() / 255
    x = (x - 0.5) / 0.25
    with torch.no_grad():
        x = net.embed(x).flatten(2).transpose(1, 2) + net.positions[:, 1:]
        x = torch.cat([(net.cls + net.positions[:, :1]).expand(len(x), -1, -1), x], 1)
        for i in range(block + 1):
            x = net.blocks[i](x)
    return x


def content(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and p.name != ".lock"}  # fmt: skip


def test_a_row_a_patch_is_what_the_encoder_computes(vit: Path, tmp_path: Path) -> None:
    told = export(tiles_in_memory(N, x=[float(i) for i in range(N)]), tmp_path, vit).summary
    store = Store(tmp_path / "embeddings")
    assert (len(store), store.sites) == (N * 16, {"embedding": 16})
    torch.testing.assert_close(store.read()["embedding"].view(N, 16, 16), by_hand(vit, range(N))[:, 1:])
    frame = store.metadata()
    assert frame["sample_id"].to_list() == [f"s{i}" for i in range(N) for _ in range(16)]
    assert frame["token_rc"].to_list() == [[r, c] for r in range(4) for c in range(4)] * N
    assert set(frame["epoch"]) == set(frame["augment_seed"]) == {0}
    assert frame.select(pl.col("split").n_unique().over("group")).to_series().max() == 1
    assert frame["split"].n_unique() == 3
    assert told["splits"] == {"train": {"groups": 2, "tiles": 6}, "validation": {"groups": 1, "tiles": 3},
                              "test": {"groups": 1, "tiles": 3}}  # fmt: skip
    tiles = pl.read_parquet(tmp_path / "tiles.parquet")
    assert tiles.columns == [
        "sample_id",
        "tile_id",
        "group",
        "section",
        "x",
        "y",
        "size_px",
        "microns_per_pixel",
        "label",
    ]
    assert tiles["x"].to_list() == [float(i) for i in range(N)]
    record = json.loads((tmp_path / "encoder.json").read_text())
    assert (record["grid"], record["prefix"], record["layer"]) == ([4, 4], 1, "blocks.1.hook_resid_post")
    assert record["seen"] == [0, 0, 1, 1]


def test_the_scaling_is_that_of_training_rows_alone(vit: Path, tmp_path: Path) -> None:
    export(tiles_in_memory(N), tmp_path, vit)
    store = Store(tmp_path / "embeddings")
    train = (store.metadata()["split"] == "train").to_numpy()
    rows = store.read()["embedding"].double().numpy()[train]
    held = json.loads((tmp_path / "embeddings" / "embed_stats.json").read_text())["sites"]["embedding"]
    assert held["rows"] == 6 * 16
    np.testing.assert_allclose(held["mean"], rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(held["std"], rows.std(0), rtol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_row_a_tile_beside_or_alone(vit: Path, tmp_path: Path, pooling: str) -> None:
    x = by_hand(vit, range(N), block=0)
    wanted = x[:, 0] if pooling == "cls" else x[:, 1:].mean(1)
    source = {"layer_name": "blocks.0.hook_resid_post", "per_token": True, "pooled": True}
    export(tiles_in_memory(N), tmp_path / "both", vit, embedding_source=source, pooling=pooling)
    export(tiles_in_memory(N), tmp_path / "alone", vit, layer_name="blocks.0.hook_resid_post", per_token=False,
           pooling=pooling)  # fmt: skip
    beside, alone = Store(tmp_path / "both" / "embeddings_pooled"), Store(tmp_path / "alone" / "embeddings")
    for store in (beside, alone):
        torch.testing.assert_close(store.read()["embedding"], wanted)
        assert store.metadata()["tile_id"].to_list() == [f"s{i}" for i in range(N)]
        assert "token_rc" not in store.manifest.columns
    assert beside.manifest.model == alone.manifest.model
    assert not (tmp_path / "alone" / "embeddings_pooled").exists()


def test_epochs_are_views_of_the_same_tiles_in_the_same_split(vit: Path, tmp_path: Path) -> None:
    export(tiles_in_memory(N), tmp_path, vit, epochs=[0, 3], augment="flips", per_token=False)
    frame = Store(tmp_path / "embeddings").metadata()
    assert frame["epoch"].to_list() == [0] * N + [3] * N
    assert frame.filter(epoch=3)["augment_seed"].n_unique() == N
    assert frame["split"][:N].to_list() == frame["split"][N:].to_list()
    export(tiles_in_memory(N), tmp_path / "plain", vit, per_token=False)
    rows = [Store(folder / "embeddings").read()["embedding"] for folder in (tmp_path, tmp_path / "plain")]
    torch.testing.assert_close(rows[0][:N], rows[1])
    assert (rows[0][N:] != rows[0][:N]).any(1).sum() >= N - 4, "views that are not turned are rare"
    with pytest.raises(ConfigError, match="epochs 0, 1 are the same rows again"):
        export(tiles_in_memory(N), tmp_path / "more", vit, epochs=[0, 1])


@pytest.mark.parametrize("at", [0, 7, 30])
def test_an_export_that_was_stopped_goes_on_to_the_same_bytes(
    vit: Path, tmp_path: Path, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layout, "DEFAULT_SHARD_BYTES", 16 * 4 * 50)
    settings = {"pooled": True, "epochs": [0, 1, 2], "augment": "stain"}
    export(tiles_in_memory(N), tmp_path / "whole", vit, **settings)
    read: list[int] = []

    def failing(number: int) -> np.ndarray:
        read.append(number)
        if len(read) - 1 == at:
            raise KeyboardInterrupt
        return picture(number)

    plain = tiles_in_memory(N)
    with pytest.raises(KeyboardInterrupt):
        export(Tiles.of(plain.table, failing, {"images": "made"}), tmp_path / "again", vit, **settings)
    assert not (tmp_path / "again" / "run.json").exists()
    export(Tiles.of(plain.table, failing, {"images": "made"}), tmp_path / "again", vit, **settings)
    assert content(tmp_path / "again") == content(tmp_path / "whole")
    if at == 30:
        assert len(read) < 31 + 3 * N - 15, "what was stored was not read again"


def test_a_complete_export_reads_no_picture(vit: Path, tmp_path: Path) -> None:
    tiles = tiles_in_memory(N)
    export(tiles, tmp_path, vit, pooled=True)
    before = content(tmp_path)

    def none(number: int) -> np.ndarray:
        raise AssertionError(f"tile {number} was read")

    again = export(Tiles.of(tiles.table, none, {"images": "made"}), tmp_path, vit, pooled=True)
    assert again.summary["reused"]
    assert content(tmp_path) == before


def test_another_encoder_s_cache_is_refused_until_it_is_asked_for(vit: Path, tmp_path: Path) -> None:
    tuned = small.load(vit)
    tuned.norm.weight.data += 0.1
    small.write_folder(tmp_path / "tuned", tuned)
    run = tmp_path / "run"
    export(tiles_in_memory(N), run, vit)
    before = content(run)
    with pytest.raises(GuardError, match=r"weights \(fine-tuned\?\) have changed.*--recapture"):
        export(tiles_in_memory(N), run, tmp_path / "tuned")
    with pytest.raises(GuardError, match="its sites have changed"):
        export(tiles_in_memory(N), run, vit, layer_name="blocks.0.hook_resid_post")
    with pytest.raises(GuardError, match="the input views changed"):
        export(tiles_in_memory(N), run, vit, epochs=[1], augment="flips")
    with pytest.raises(GuardError, match="the input split changed"):
        export(tiles_in_memory(N), run, vit, split=SplitConfig(fractions={"train": 0.25, "test": 0.75}))
    with pytest.raises(GuardError, match="the input split, tiles changed"):
        export(tiles_in_memory(N, groups=6), run, vit)
    assert content(run) == before, "what was refused has changed nothing"
    export(tiles_in_memory(N), run, tmp_path / "tuned", recapture=True)
    assert Store(run / "embeddings").manifest.model != json.loads(before["embeddings/manifest.json"])["model"]


def test_an_encoder_that_learns_meanwhile_is_refused(vit: Path, tmp_path: Path) -> None:
    model = load(vit, batch_size=5)
    plain = tiles_in_memory(N)

    def image(number: int) -> np.ndarray:
        if number == N - 1:
            model.module.norm.weight.data += 1
        return picture(number)

    with pytest.raises(GuardError, match="weights changed while it was captured"):
        embed_export(Tiles.of(plain.table, image, {}), tmp_path, encoder=EncoderConfig(batch_size=5),
                     embedding=EmbeddingConfig(), split=SPLIT, model=model)  # fmt: skip


def test_a_scaling_may_be_kept_and_used_elsewhere(vit: Path, tmp_path: Path) -> None:
    path = tmp_path / "norms" / "mine.json"
    export(tiles_in_memory(N), tmp_path / "a", vit, embed_norm_path=path, normalise="pca")
    first = json.loads((tmp_path / "a" / "embeddings" / "embed_stats.json").read_text())
    held = json.loads(path.read_text())
    assert {k: v for k, v in held.items() if k != "encoder"} == first
    export(tiles_in_memory(8), tmp_path / "b", vit, embed_norm_path=path)
    assert json.loads((tmp_path / "b" / "embeddings" / "embed_stats.json").read_text()) == first
    before = content(tmp_path / "b")
    export(tiles_in_memory(8), tmp_path / "b", vit, embed_norm_path=path)
    assert content(tmp_path / "b") == before
    with pytest.raises(GuardError, match=r"mine.json: was measured on the rows of another encoder, layer"):
        export(tiles_in_memory(8), tmp_path / "c", vit, embed_norm_path=path, layer_name="final_norm")
    held.pop("encoder")
    held["sites"]["embedding"]["mean"].pop()
    path.write_text(json.dumps(held))
    with pytest.raises(DataError, match="scales 15 numbers of site 'embedding', and the embeddings have 16"):
        export(tiles_in_memory(8), tmp_path / "d", vit, embed_norm_path=path)
    path.write_text("[1]")
    with pytest.raises(DataError, match="is no scaling of embeddings. Delete it"):
        export(tiles_in_memory(8), tmp_path / "e", vit, embed_norm_path=path)


def test_switched_off_it_writes_nothing(vit: Path, tmp_path: Path) -> None:
    told = export(tiles_in_memory(N), tmp_path / "none", vit, output_embeddings=False)
    assert told.summary == {"output_embeddings": False}
    assert not (tmp_path / "none").exists()


def test_what_cannot_be_exported(vit: Path, tmp_path: Path) -> None:
    nameless = Tiles.of({"sample_id": ["a", "b"], "tile_id": ["a", "b"], "group": ["p", None]}, picture, {})
    with pytest.raises(
        DataError, match="1 of 2 tiles have no patient or site, the first is 'b'. Name the table's column"
    ):
        export(nameless, tmp_path, vit)
    with pytest.raises(DataError, match="2 groups cannot fill 3 splits"):
        export(tiles_in_memory(4, groups=2), tmp_path, vit)
    with pytest.raises(ConfigError, match="there is no split named train"):
        export(tiles_in_memory(N), tmp_path, vit, split=SplitConfig(fractions={"trian": 0.5, "test": 0.5}))
    with pytest.raises(DataError, match="there is no column 'lable'. Did you mean 'label'"):
        export(tiles_in_memory(N), tmp_path, vit, split=SplitConfig(stratify="lable"))
    with pytest.raises(
        SiteError, match=r"no layer 'blocks.9.hook_resid_post'. Did you mean 'blocks.1.hook_resid_post'"
    ):
        export(tiles_in_memory(N), tmp_path, vit, layer_name="blocks.9.hook_resid_post")
    with pytest.raises(ConfigError, match="no encoder is named"):
        embed_export(tiles_in_memory(N), tmp_path, encoder=EncoderConfig(), embedding=EmbeddingConfig(), split=SPLIT)
    with pytest.raises(ConfigError, match="embedding_source has no 'per_tokn'. Did you mean 'per_token'"):
        build(EmbeddingConfig, {"embedding_source": {"per_tokn": True}}, where="embedding")
    pooled = load(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 4)), image_size=32)
    with pytest.raises(ConfigError, match=r"no tokens of patches. Read a row a tile: per_token: false"):
        embed_export(tiles_in_memory(N), tmp_path, encoder=EncoderConfig(), embedding=EmbeddingConfig(), split=SPLIT,
                     model=pooled)  # fmt: skip
    assert not any(tmp_path.glob("embeddings*/*.safetensors"))


def test_labels_are_spread_over_the_splits(vit: Path, tmp_path: Path) -> None:
    labels = ["rare" if i % 6 == 0 else "usual" for i in range(12)]
    tiles = tiles_in_memory(12, groups=12, label=labels)
    split = SplitConfig(fractions={"train": 0.5, "test": 0.5}, stratify="label")
    export(tiles, tmp_path, vit, split=split, per_token=False)
    frame = Store(tmp_path / "embeddings").metadata().join(tiles.table.select("sample_id", "label"), on="sample_id")
    assert frame.filter(label="rare")["split"].sort().to_list() == ["test", "train"]


def test_a_network_without_tokens_gives_a_row_a_tile(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = load(net, image_size=32, mean=0.5, std=0.5)
    embed_export(tiles_in_memory(N), tmp_path, encoder=EncoderConfig(), embedding=EmbeddingConfig(per_token=False),
                 split=SPLIT, model=model)  # fmt: skip
    x = torch.from_numpy(np.stack([picture(i) for i in range(N)])).permute(0, 3, 1, 2).float() / 127.5 - 1
    torch.testing.assert_close(Store(tmp_path / "embeddings").read()["embedding"], net(x).detach())


@pytest.mark.real_data
def test_real_tiles_are_exported(real_data: Path, vit: Path, tmp_path: Path) -> None:
    home = real_data / "tissue" / "her2st_tiles"
    columns = {"sample": "section+spot", "patient": "patient", "section": "section", "x": "pixel_x", "y": "pixel_y"}
    config = build(TilesConfig, {"images": home / "tiles_jpeg112.bin", "table": home / "tiles.csv", "columns": columns,
                                 "max_tiles": 300}, where="tiles")  # fmt: skip
    told = export(
        open_tiles(config), tmp_path, vit, split=SplitConfig(fractions={"train": 0.7, "test": 0.3}), dtype="fp16"
    )
    assert told.summary["rows"] == 300 * 16
    store = Store(tmp_path / "embeddings")
    assert dict(store.metadata().select("group", "split").unique().iter_rows()) == {"C": "train", "B": "test"}
    assert store.read()["embedding"].float().std(0).min() > 0

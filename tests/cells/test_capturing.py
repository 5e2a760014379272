"""From a file of cells to a store, by the library and by the command line; and to .obsm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import torch

from elute.base import files
from elute.base.errors import ConfigError, EluteError, GuardError, SpaceError
from elute.cells.capturing import capture_cells
from elute.cells.embedding import embed_cells
from elute.cells.settings import EmbedConfig, ModelConfig, SitesConfig
from elute.cli.main import main
from elute.engine.capture import CaptureConfig
from elute.models.cells.cellfile import CellsConfig, open_cells
from elute.models.tahoe_x1 import load
from elute.store.reader import Store
from elute.store.verify import verify


def run(data: Path, folder: Path, output: Path, **settings: Any) -> Any:
    return capture_cells(
        data,
        output,
        cells=CellsConfig(donor_key="donor", **settings.pop("cells", {})),
        model=ModelConfig(model=folder, device="cpu", **settings.pop("model", {})),
        sites=SitesConfig(**settings.pop("sites", {})),
        capture=CaptureConfig(**settings),
    )


def test_a_store_holds_what_the_model_gives(cells_file: Path, model_folder: Path, tmp_path: Path) -> None:
    made = run(cells_file, model_folder, tmp_path / "s", sites={"layers": "0,last", "site": "resid_post"})
    store = Store(tmp_path / "s")
    assert not verify(tmp_path / "s")
    assert store.sites == {"blocks.0.hook_resid_post": 16, "blocks.1.hook_resid_post": 16}
    adata = anndata.read_h5ad(cells_file)
    counts = adata.X.toarray()  # type: ignore[union-attr]
    expected = {
        (adata.obs_names[i], adata.var_names[j], counts[i, j]) for i, j in zip(*counts[:, :36].nonzero(), strict=True)
    }
    (rows, metadata), *rest = list(store.batches(10_000))
    assert not rest
    assert set(metadata.select("sample_id", "token", "value").iter_rows()) == expected
    assert len(metadata) == made.summary["rows"] == len(expected)
    donors = dict(zip(adata.obs_names, adata.obs["donor"], strict=True))
    assert all(donors[name] == group for name, group in metadata.select("sample_id", "group").iter_rows())
    # One cell by itself, by hand.
    model = load(model_folder, device="cpu")
    one = metadata.with_row_index().filter(metadata["sample_id"] == "cell7")
    tokens = torch.tensor([[1, *(model.tokenizer.vocabulary[gene] for gene in one["token"])]])
    cells = open_cells(cells_file, CellsConfig())
    batch, told = next(b for b in model.batches(cells, batch_size=1) if b[1]["sample_id"][0] == "cell7")
    assert torch.equal(batch["tokens"], tokens)
    alone = model.capture(batch, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
    torch.testing.assert_close(rows["blocks.1.hook_resid_post"][one["index"].to_list()], alone, atol=1e-5, rtol=0)
    assert told["token"].to_list() == one["token"].to_list()


def test_a_second_run_reuses_and_another_model_is_refused(cells_file: Path, model_folder: Path, tmp_path: Path) -> None:
    first = run(cells_file, model_folder, tmp_path / "s")
    again = run(cells_file, model_folder, tmp_path / "s", model={"batch_size": 5})
    assert not first.summary["reused"]
    assert again.summary["reused"]
    for settings in ({"model": {"max_length": 9}}, {"cells": {"max_cells": 20}}, {"model": {"random_weights": True}}):
        with pytest.raises(GuardError):
            run(cells_file, model_folder, tmp_path / "s", **settings)


def test_an_interrupted_capture_goes_on_with_another_batch_size(
    cells_file: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elute.models.cells.model import CellModel

    whole = run(cells_file, model_folder, tmp_path / "whole", rows_per_shard=100)
    plain = CellModel.capture
    calls: list[int] = []

    def breaks(self: CellModel, *rest: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return plain(self, *rest, **named)

    monkeypatch.setattr(CellModel, "capture", breaks)
    with pytest.raises(KeyboardInterrupt):
        run(cells_file, model_folder, tmp_path / "s", rows_per_shard=100)
    monkeypatch.setattr(CellModel, "capture", plain)
    run(cells_file, model_folder, tmp_path / "s", rows_per_shard=100, model={"batch_size": 7})
    ours, theirs = (list(Store(tmp_path / name).batches(10_000)) for name in ("s", "whole"))
    for (x, told), (y, also) in zip(ours, theirs, strict=True):
        assert told.equals(also)
        for name in y:
            torch.testing.assert_close(x[name], y[name], atol=1e-5, rtol=0)
    assert whole.summary["rows"] == sum(len(told) for _, told in ours)


def test_no_room_is_told_before_anything_is_written(
    cells_file: Path, model_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda _: 1000)
    with pytest.raises(SpaceError, match=r"are to come, and there is room for 1\.0 kB|are to come"):
        run(cells_file, model_folder, tmp_path / "s")
    assert not list((tmp_path / "s").glob("*.safetensors"))


def test_settings_for_another_model_are_refused(cells_file: Path, tmp_path: Path) -> None:
    with pytest.raises(EluteError, match="is not there. Give a model's folder"):
        run(cells_file, tmp_path / "nowhere", tmp_path / "s")


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_embeddings_are_in_obsm(cells_file: Path, model_folder: Path, tmp_path: Path, pooling: str) -> None:
    output = tmp_path / "out.h5ad"
    made = embed_cells(
        cells_file,
        output,
        cells=CellsConfig(),
        model=ModelConfig(model=model_folder, device="cpu"),
        embed=EmbedConfig(pooling=pooling, key="X_tahoe"),  # type: ignore[arg-type]
    )
    before, after = anndata.read_h5ad(cells_file), anndata.read_h5ad(output)
    assert list(after.obs_names) == [name for name in before.obs_names if name != "cell5"]
    assert made.summary["cells"] == 59
    np.testing.assert_array_equal(after.X.toarray(), before[after.obs_names].X.toarray())  # type: ignore[union-attr]
    vectors = after.obsm["X_tahoe"]
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    model = load(model_folder, device="cpu")
    for batch, metadata in model.batches(open_cells(cells_file, CellsConfig()), batch_size=1):
        x = model.embed(batch, pooling)[0].numpy()  # type: ignore[arg-type]
        place = after.obs_names.get_loc(metadata["sample_id"][0])
        np.testing.assert_allclose(vectors[place], x / np.linalg.norm(x), atol=1e-5)


def test_a_file_that_is_read_whole_is_copied_whole(cells_file: Path, model_folder: Path, tmp_path: Path) -> None:
    import h5py

    full = tmp_path / "full.h5ad"
    anndata.read_h5ad(cells_file)[[i for i in range(60) if i != 5]].copy().write_h5ad(full)
    with h5py.File(full, "r+") as file:
        file["uns"].attrs["note"] = "kept"
    settings: dict[str, Any] = {"cells": CellsConfig(), "model": ModelConfig(model=model_folder, device="cpu")}
    embed_cells(full, tmp_path / "out.h5ad", **settings, embed=EmbedConfig(normalise=False))
    with h5py.File(tmp_path / "out.h5ad") as file:
        assert file["uns"].attrs["note"] == "kept"
        assert file["obsm/X_elute"].shape == (59, 16)
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_elute"].shape == (59, 16)
    with pytest.raises(GuardError, match="is there already"):
        embed_cells(full, tmp_path / "out.h5ad", **settings, embed=EmbedConfig())
    embed_cells(full, tmp_path / "out.h5ad", **settings, embed=EmbedConfig(overwrite=True))
    with pytest.raises(ConfigError, match="the output is the input"):
        embed_cells(full, full, **settings, embed=EmbedConfig())
    with pytest.raises(ConfigError, match="is an .h5ad file"):
        embed_cells(full, tmp_path / "out.csv", **settings, embed=EmbedConfig())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full.h5ad", "out.h5ad", "out_embeddings"]


def test_the_commands_answer(
    cells_file: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", str(cells_file), "--model", str(model_folder), "--device", "cpu"]
    assert main(["cells", "capture", *words, "--layers", "1", "--output", str(tmp_path / "s"), "--json"]) == 0
    out, err = capsys.readouterr()
    answer = json.loads(out)
    assert answer["sites"] == {"blocks.1.hook_mlp_out": 16}
    for said in ("36 of 40 genes matched", "tokens: made our way", "59 to read", "model: tahoe-x1"):
        assert said in err
    assert main(["cells", "embed", *words, "--output", str(tmp_path / "e.h5ad")]) == 0
    assert "1 cells of the file were not read" in capsys.readouterr().out
    assert main(["cells", "capture", *words, "--layers", "9", "--output", str(tmp_path / "t")]) == 1
    assert "there is no layer 9. It has layers 0 to 1." in capsys.readouterr().err.replace("\n", " ")
    assert main(["cells", "capture", *words, "--donor-key", "doner", "--output", str(tmp_path / "t")]) == 1
    assert "donor" in capsys.readouterr().err
    assert not (tmp_path / "t").exists()

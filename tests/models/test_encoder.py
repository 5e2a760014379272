"""Any encoder: sites found by layout, a user's own tokeniser, padding, metadata, and what is wrong in one line."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from elute.base.contracts import Site
from elute.base.errors import ConfigError, DataError, MissingError, SiteError
from elute.engine.capture import capture_to_store
from elute.models.encoder import Encoder, example, load
from elute.store.reader import Store

LETTERS = "ACDEFGHIKLMNPQRSTVWY"
PROTEINS = ["MKTAYIAKQR", "GSHM", "ACDEFGHIKLMNPQ", "M", "WWYV"]
SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
}
FULL = ["resid_pre", "attn_out", "mlp_in", "mlp_out", "resid_post"]


def tokenise(sequence: str) -> dict[str, torch.Tensor]:
    return {"input_ids": torch.tensor([0, *(4 + LETTERS.index(letter) for letter in sequence), 2])}


def esm(**change: Any) -> Any:
    from transformers import EsmConfig, EsmModel

    torch.manual_seed(0)
    config = EsmConfig(
        vocab_size=24, pad_token_id=1, mask_token_id=3, position_embedding_type="rotary", **SIZES | change
    )
    return EsmModel(config, add_pooling_layer=False).eval()


@pytest.fixture(scope="module")
def module() -> Any:
    return esm()


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def write(folder: Path, network: Any) -> Path:
    folder.mkdir()
    settings = {**json.loads(network.config.to_json_string(use_diff=False)), "architectures": [type(network).__name__]}
    (folder / "config.json").write_text(json.dumps(settings))
    held = {name: x.clone() for name, x in network.state_dict().items()}
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def test_esm_gives_each_residue_s_row_whatever_the_batch(module: Any) -> None:
    with torch.no_grad():
        alone = [
            module(**{k: x[None] for k, x in tokenise(text).items()}, output_hidden_states=True) for text in PROTEINS
        ]
    for size in (1, 2, 5):
        model = load(module, tokenise, batch_size=size)
        assert list(model.sites) == [f"blocks.{i}.hook_{kind}" for i in range(2) for kind in FULL]
        got = [(metadata, model.capture(batch)) for batch, metadata in model.batches(PROTEINS)]
        told = pl.concat([metadata for metadata, _ in got])
        lengths = [len(text) + 2 for text in PROTEINS]
        assert told["sample_id"].to_list() == [str(i) for i, n in enumerate(lengths) for _ in range(n)]
        assert told["position"].to_list() == [at for n in lengths for at in range(n)]
        for i in range(2):
            for site, at in ((f"blocks.{i}.hook_resid_pre", i), (f"blocks.{i}.hook_resid_post", i + 1)):
                if at == 2:
                    continue  # the library gives the last one after one more norm
                wanted = torch.cat([x.hidden_states[at][0] for x in alone])
                found = torch.cat([rows[site] for _, rows in got])
                torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        last = torch.cat([rows["blocks.1.hook_resid_post"] for _, rows in got])
        wanted = torch.cat([x.last_hidden_state[0] for x in alone])
        torch.testing.assert_close(module.encoder.emb_layer_norm_after(last).detach(), wanted, rtol=1e-4, atol=1e-5)


def test_esm_s_parts_are_what_they_are_called(module: Any) -> None:
    model = load(module, tokenise, batch_size=5)
    batch, _ = next(iter(model.batches(PROTEINS)))
    rows = model.capture(batch)
    for i, layer in enumerate(module.encoder.layer):
        at = {kind: rows[f"blocks.{i}.hook_{kind}"] for kind in FULL}
        middle = at["resid_pre"] + at["attn_out"]
        torch.testing.assert_close(at["mlp_in"], layer.LayerNorm(middle).detach())
        torch.testing.assert_close(at["resid_post"], middle + at["mlp_out"])


def text_item(_: Any) -> dict[str, list[int]]:
    return {"input_ids": [5, 6, 7]}


def image_item(_: Any) -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.ones(3, 16, 16)}


def made(name: str, **change: Any) -> Callable[[], Any]:
    def make() -> Any:
        import transformers

        return getattr(transformers, f"{name}Model")(getattr(transformers, f"{name}Config")(**change))

    return make


TEXT: dict[str, Any] = {"vocab_size": 24}
IMAGE: dict[str, Any] = {"image_size": 16, "patch_size": 8}
LAYOUTS = [
    (made("Bert", **TEXT, **SIZES), text_item, FULL),
    (made("Roberta", **TEXT, **SIZES), text_item, FULL),
    (made("Llama", **TEXT, **SIZES), text_item, FULL),
    (
        made(
            "ModernBert",
            **TEXT,
            **SIZES,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
            cls_token_id=1,
            sep_token_id=2,
        ),
        text_item,
        FULL,
    ),
    (made("DistilBert", **TEXT, dim=16, n_layers=2, n_heads=2, hidden_dim=24), text_item, FULL),
    (made("GPT2", **TEXT, n_embd=16, n_layer=2, n_head=2, bos_token_id=0, eos_token_id=0), text_item, FULL),
    (made("ViT", **IMAGE, **SIZES), image_item, FULL),
    (
        made("Dinov2", **IMAGE, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2),
        image_item,
        FULL,
    ),
    (made("CLIPVision", **IMAGE, **SIZES), image_item, FULL),
]


@pytest.mark.parametrize(("make", "item", "kinds"), LAYOUTS, ids=range(len(LAYOUTS)))
def test_common_layouts_have_all_their_sites(make: Any, item: Any, kinds: list[str]) -> None:
    torch.manual_seed(0)
    module = make()
    for probe in (None, 0):
        model = load(module, item, probe=probe)
        assert list(model.sites) == [f"blocks.{i}.hook_{kind}" for i in range(2) for kind in kinds]
        assert {site.width for site in model.sites.values()} == {16}
    batch, metadata = next(iter(model.batches(range(3))))
    rows = model.capture(batch)
    assert {len(x) for x in rows.values()} == {metadata.height}
    assert metadata["sample_id"].n_unique() == 3
    assert torch.equal(rows["blocks.0.hook_resid_post"], rows["blocks.1.hook_resid_pre"])
    for name in model.sites:
        with model.patch({name: lambda x, _: x + 1}):
            after = model.capture(batch, ["blocks.1.hook_resid_post"])["blocks.1.hook_resid_post"]
        assert not torch.equal(after, rows["blocks.1.hook_resid_post"]), name


class Tuple(nn.Module):
    """A block that takes a name and gives a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.work = nn.Linear(4, 4)

    def forward(self, *, hidden_states: torch.Tensor) -> tuple[torch.Tensor, None]:
        return hidden_states + self.work(hidden_states), None


class Named(nn.Module):
    """Blocks that no library has."""

    def __init__(self, lists: int = 1) -> None:
        super().__init__()
        self.towers = nn.ModuleDict(
            {str(i): nn.ModuleDict({"layers": nn.ModuleList([Tuple(), Tuple()])}) for i in range(lists)}
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for tower in self.towers.values():
            for block in tower["layers"]:
                x, _ = block(hidden_states=x)
        return x


def test_a_probe_tells_how_blocks_are_called_and_what_they_give() -> None:
    model = load(Named(), lambda n: {"x": torch.ones(n, 4)}, probe=3)
    assert model.sites["blocks.1.hook_resid_pre"] == Site("towers.0.layers.1", "input", 4, select="hidden_states")
    assert model.sites["blocks.1.hook_resid_post"] == Site("towers.0.layers.1", "output", 4, select=0)
    batch, metadata = next(iter(model.batches([3, 3])))
    assert metadata.height == 6
    assert len(model.capture(batch)["blocks.0.hook_resid_pre"]) == 6


def test_several_lists_of_blocks_have_to_be_told_apart() -> None:
    def tokens(n: int) -> dict[str, torch.Tensor]:
        return {"x": torch.ones(n, 4)}

    with pytest.raises(ConfigError, match=r"several lists of blocks: towers.0.layers, towers.1.layers. Give blocks="):
        load(Named(2), tokens, probe=3)
    model = load(Named(2), tokens, blocks="towers.1.layers", probe=3)
    assert model.sites["blocks.0.hook_resid_post"].path == "towers.1.layers.0"
    with pytest.raises(SiteError, match=r"no list of blocks 'towers.2.layers'. Did you mean"):
        load(Named(2), tokens, blocks="towers.2.layers")
    alone = load(Named(2), tokens, sites={"work": "towers.1.layers.0.work"})
    assert list(alone.sites) == ["work"]
    with pytest.raises(ConfigError, match="there is no list of blocks"):
        load(nn.Linear(4, 4), tokens)


def test_own_sites_come_beside_those_that_are_found(module: Any) -> None:
    model = load(
        module,
        tokenise,
        sites={
            "query": "encoder.layer.0.attention.self.query",
            "blocks.0.hook_mlp_out": "encoder.layer.0.output.dense",
        },
    )
    assert len(model.sites) == 11
    batch, metadata = next(iter(model.batches(PROTEINS)))
    assert len(model.capture(batch, ["query"])["query"]) == metadata.height


def test_metadata_comes_from_a_function_or_from_columns(module: Any) -> None:
    def ends_off(text: str) -> dict[str, Any]:
        return {**tokenise(text), "keep": torch.tensor([0, *([1] * len(text)), 0])}

    def describe(text: str) -> dict[str, Any]:
        return {"sample_id": f"p{len(text)}", "token": list(text), "label": "long" if len(text) > 5 else "short"}

    columns = {key: [describe(text)[key] for text in PROTEINS] for key in ("sample_id", "token", "label")}
    frames = []
    for told in (describe, columns, pl.DataFrame(columns)):
        model = load(module, ends_off, metadata=told, batch_size=2)
        parts = list(model.batches(PROTEINS))
        frames.append(pl.concat([metadata for _, metadata in parts]))
        assert "".join(frames[-1]["token"]) == "".join(PROTEINS)
        assert frames[-1]["position"].to_list() == [i + 1 for text in PROTEINS for i in range(len(text))]
        assert frames[-1]["sample_id"].to_list() == [f"p{len(text)}" for text in PROTEINS for _ in text]
        for batch, metadata in parts:
            assert len(model.capture(batch)["blocks.0.hook_mlp_out"]) == metadata.height
    assert frames[0].equals(frames[1])
    assert frames[1].equals(frames[2])
    short = load(module, ends_off, metadata={"sample_id": ["a"]})
    with pytest.raises(DataError, match="the metadata has 1 rows, and there are more items"):
        list(short.batches(PROTEINS))
    wrong = load(module, tokenise, metadata=describe)
    with pytest.raises(DataError, match="item 0 has 12 rows, and 10 of 'token'"):
        list(wrong.batches(PROTEINS))


def test_an_item_of_which_nothing_is_kept_has_no_rows(module: Any) -> None:
    def none_of_m(text: str) -> dict[str, Any]:
        return {**tokenise(text), "keep": torch.full((len(text) + 2,), text != "M")}

    def describe(text: str) -> dict[str, Any]:
        return {
            "sample_id": text,
            "value": 0.5,
            "label": "x" if text == "GSHM" else None,
            "token": [] if text == "M" else ["a"] * (len(text) + 2),
        }

    model = load(module, none_of_m, metadata=describe, batch_size=2)
    told = pl.concat([metadata for _, metadata in model.batches(PROTEINS)])
    assert told["sample_id"].unique(maintain_order=True).to_list() == [text for text in PROTEINS if text != "M"]


def test_what_a_tokeniser_may_give(module: Any) -> None:
    forms = {
        "list": lambda text: {"input_ids": tokenise(text)["input_ids"].tolist()},
        "array": lambda text: {"input_ids": tokenise(text)["input_ids"].numpy()},
        "batch of one": lambda text: {k: x[None] for k, x in tokenise(text).items()},
        "mask": lambda text: {**tokenise(text), "attention_mask": [1] * (len(text) + 2)},
    }
    wanted, _ = next(iter(load(module, tokenise).batches(PROTEINS)))
    for form in forms.values():
        found, _ = next(iter(load(module, form).batches(PROTEINS)))
        assert found.keys() == wanted.keys()
        assert all(torch.equal(found[key], wanted[key]) for key in wanted)
    assert (wanted["input_ids"][~wanted["keep"]] == 1).all(), "ESM's own padding"
    other, _ = next(iter(load(module, tokenise, padding={"input_ids": 3}).batches(PROTEINS)))
    assert (other["input_ids"][~other["keep"]] == 3).all()


BAD = [
    (lambda _: None, "tokenise gave None for item 0"),
    (lambda _: {}, "tokenise gave an empty dict for item 0"),
    (lambda _: {"input_ids": "text"}, "'input_ids' of item 0 is no tensor"),
    (lambda _: {"input_ids": [[1, 2], [3]]}, "'input_ids' of item 0 is no tensor"),
    (
        lambda text: {"pixel_values": torch.ones(len(text))},
        r"'pixel_values' is float32 \[4\] for item 1, and float32 \[10\] for item 0",
    ),
    (
        lambda text: {"input_ids": [1], **({"x": [1]} if text == "GSHM" else {"y": [1]})},
        "'y' is not there for every item",
    ),
]


@pytest.mark.parametrize(("give", "match"), BAD)
def test_what_a_tokeniser_may_not_give_is_one_line(module: Any, give: Any, match: str) -> None:
    with pytest.raises(DataError, match=match):
        list(load(module, give).batches(PROTEINS))


def test_settings_that_cannot_be_are_one_line(module: Any) -> None:
    with pytest.raises(ConfigError, match="tokenise is no function"):
        load(module, "tokenizer")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="batch_size=0"):
        load(module, tokenise, batch_size=0)
    with pytest.raises(ConfigError, match="could not be run on one item .*Give probe="):
        load(module, lambda _: {"nothing": [1, 2]}, probe="M")


def test_a_folder_is_read_without_a_network_and_gives_what_the_module_gives(tmp_path: Path, module: Any) -> None:
    model = load(write(tmp_path / "esm", module), tokenise, device="cpu")
    own = load(module, tokenise)
    batch, _ = next(iter(model.batches(PROTEINS)))
    for name, rows in model.capture(batch).items():
        assert torch.equal(rows, own.capture(batch, [name])[name])
    assert model.fingerprint() == load(tmp_path / "esm", tokenise, device="cpu").fingerprint()
    assert model.fingerprint().weights == own.fingerprint().weights
    assert model.module.training is False
    assert not any(x.requires_grad for x in model.module.parameters())


def test_a_head_without_weights_is_left_out_and_a_block_without_is_an_error(tmp_path: Path, module: Any) -> None:
    folder = write(tmp_path / "esm", module)  # was made without the pooler that the library adds
    assert not [name for name, _ in load(folder, tokenise, device="cpu").module.named_parameters() if "pooler" in name]
    settings = json.loads((folder / "config.json").read_text())
    for change, match in (
        ({"num_hidden_layers": 3}, r"contact_head.regression.weight is \[1, 4\], not \[1, 6\]"),
        ({"intermediate_size": 25}, r"intermediate.dense.bias is \[24\], not \[25\]"),
        ({"model_type": "nonesuch"}, "cannot be read .*nonesuch"),
        ({"model_type": "mine", "auto_map": {"AutoConfig": "code.Mine", "AutoModel": "code.Mine"}}, "cannot be read"),
    ):
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
        (folder / "code.py").write_text("raise AssertionError('code of the folder was run')")
        with pytest.raises(DataError, match=match):
            load(folder, tokenise)
    with pytest.raises(DataError, match=r"is not there. An encoder's folder holds config.json"):
        load(tmp_path / "nowhere", tokenise)


def test_without_the_library_it_says_what_to_type(tmp_path: Path, module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(tmp_path / "esm", module)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match="transformers is not installed. Type: pip install"):
        load(folder, tokenise)


def test_it_is_stored_with_its_metadata(tmp_path: Path) -> None:
    model, sequences = example()
    assert isinstance(model, Encoder)
    capture_to_store(model, sequences, tmp_path / "s", sites=["blocks.1.hook_mlp_out"])
    store = Store(tmp_path / "s")
    assert len(store) == sum(map(len, sequences))

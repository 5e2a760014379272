"""Geneformer: its network is the library's, its tokens are the published ones, and what is wrong is said in one line."""

from __future__ import annotations

import json
import pickle  # noqa: TID251  # what is refused has to be made
import re
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from elute.base.errors import ConfigError, DamagedError, DataError, MissingError
from elute.models.cells.batches import Cell
from elute.models.cells.example import example_cells
from elute.models.geneformer import default_sites, load, reads
from elute.models.geneformer_parts.dictionaries import read_medians, read_tokens
from elute.models.geneformer_parts.tokenizer import RankTokenizer

CELLS, GENES = example_cells(cells=9, genes=30)
MEDIANS = {gene: 0.5 + (7 * i % 11) / 4 for i, gene in enumerate(GENES)}
V1 = {name: i for i, name in enumerate(["<pad>", "<mask>", *GENES])}
V2 = {name: i for i, name in enumerate(["<pad>", "<mask>", "<cls>", "<eos>", *GENES])}


def network_of(tokens: dict[str, int], *, positions: int = 24) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    config = BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=24,
        hidden_act="relu",
        max_position_embeddings=positions,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    return BertForMaskedLM(config).eval()


def write(folder: Path, network: Any, tokens: dict[str, int], medians: dict[str, float]) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(network.config.to_json_string())
    held = {name: x.clone() for name, x in network.state_dict().items() if "cls.predictions.decoder" not in name}
    save_file(held, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "token_dictionary.json").write_text(json.dumps(tokens))
    (folder / "gene_medians.json").write_text(json.dumps(medians))
    return folder


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    return {"V1": network_of(V1), "V2": network_of(V2)}


@pytest.fixture(scope="module")
def folders(networks: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    base = tmp_path_factory.mktemp("geneformer")
    return {kind: write(base / kind, networks[kind], t, MEDIANS) for kind, t in (("V1", V1), ("V2", V2))}


@pytest.fixture
def folder(networks: dict[str, Any], tmp_path: Path) -> Path:
    return write(tmp_path / "mine", networks["V2"], V2, MEDIANS)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)


def counts_of(cells: Any) -> np.ndarray:
    """Every count, as a table of cells and genes."""
    found = np.zeros((len(cells.names), len(cells.var)))
    for piece in cells.pieces():
        for i in range(len(piece.indptr) - 1):
            place = slice(piece.indptr[i], piece.indptr[i + 1])
            found[piece.first + i, piece.indices[place]] = piece.data[place]
    return found


def naive_tokens(counts: np.ndarray, genes: list[str], tokens: dict[str, int], *, limit: int) -> list[int]:
    """One cell's tokens, from the description of the published tokeniser alone."""
    total = sum(counts)
    scored = []
    for gene, count in zip(genes, counts, strict=True):
        if gene in tokens and gene in MEDIANS and count > 0:
            scored.append((count / total * 10_000 / MEDIANS[gene], tokens[gene]))
    scored.sort(key=lambda pair: (-pair[0], pair[1]))
    ids = [token for _, token in scored]
    if "<cls>" in tokens:
        return [tokens["<cls>"], *ids[: limit - 2], tokens["<eos>"]]
    return ids[:limit]


@pytest.mark.parametrize(("kind", "tokens"), [("V1", V1), ("V2", V2)])
@pytest.mark.parametrize("limit", [24, 7])
def test_tokens_are_those_of_a_naive_reading(
    folders: dict[str, Path], kind: str, tokens: dict[str, int], limit: int
) -> None:
    model = load(folders[kind], max_length=limit, device="cpu", batch_size=4, rows="all")
    wanted = {tuple(naive_tokens(row, GENES, tokens, limit=limit)) for row in counts_of(CELLS)}
    assert len(wanted) == 9
    found = set()
    names = {token: name for name, token in tokens.items()}
    for batch, metadata in model.batches(CELLS):
        for ids, read in zip(batch["tokens"], batch["attention_mask"], strict=True):
            found.add(tuple(ids[read].tolist()))
            assert not ids[~read].any()
        told = [name or "<cls>" for name in metadata["token"].to_list()]
        assert told == [names[i] for i in batch["tokens"][batch["keep"]].tolist()]
    assert found == wanted


def test_a_gene_that_ranks_lower_is_cut_and_the_medians_decide(folders: dict[str, Path]) -> None:
    plain, cut = (load(folders["V1"], max_length=n, device="cpu", batch_size=9) for n in (24, 3))
    (whole, _), (short, metadata) = (next(iter(model.batches(CELLS))) for model in (plain, cut))
    assert (whole["tokens"][:, :3] == short["tokens"]).all()
    assert metadata.height == 27
    flat = RankTokenizer(V1, dict.fromkeys(GENES, 1.0), limit=12)
    cell = Cell(
        0, "c", np.array([2, 5, 9], np.int32), np.array([1, 3, 2], np.float32), np.arange(3, dtype=np.int32), total=6.0
    )
    assert flat.ranked(cell).tolist() == [1, 2, 0]
    steep = RankTokenizer(V1, {**dict.fromkeys(GENES, 1.0), GENES[3]: 100.0}, limit=12)  # the gene of token 5
    assert steep.ranked(cell).tolist() == [2, 0, 1]


def test_equal_genes_are_in_the_order_of_their_tokens_whatever_the_file_s() -> None:
    tokenizer = RankTokenizer(V1, dict.fromkeys(GENES, 1.0), limit=12)
    ids = np.array([9, 4, 30, 2], np.int32)
    ones = np.ones(4, np.float32)
    for order in ([0, 1, 2, 3], [3, 1, 2, 0], [2, 0, 1, 3]):
        cell = Cell(0, "c", ids[order], ones, np.arange(4, dtype=np.int32), total=4.0)
        made = tokenizer.collate([cell], tokenizer.start())
        assert made.batch["tokens"].tolist() == [[2, 4, 9, 30]]


@pytest.mark.parametrize("kind", ["V1", "V2"])
def test_the_network_is_the_library_s_and_the_sites_are_its_parts(
    folders: dict[str, Path], networks: dict[str, Any], kind: str
) -> None:
    model, bert = load(folders[kind], device="cpu", batch_size=9, rows="all"), networks[kind].bert
    batch, _ = next(iter(model.batches(CELLS)))
    mask = batch["attention_mask"]
    with torch.no_grad():
        wanted = bert(input_ids=batch["tokens"], attention_mask=mask.long(), output_hidden_states=True)
    hidden = model(batch)["hidden"]
    torch.testing.assert_close(hidden[mask], wanted.last_hidden_state[mask], rtol=1e-5, atol=1e-6)
    rows = model.capture(batch)
    for i, layer in enumerate(bert.encoder.layer):
        at = {
            kind: rows[f"blocks.{i}.hook_{kind}"]
            for kind in ("resid_pre", "attn_out", "mlp_in", "mlp_out", "resid_post")
        }
        torch.testing.assert_close(at["resid_pre"], wanted.hidden_states[i][batch["keep"]], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(at["resid_post"], wanted.hidden_states[i + 1][batch["keep"]], rtol=1e-5, atol=1e-6)
        summed = at["resid_pre"] + at["attn_out"]
        torch.testing.assert_close(at["mlp_in"], layer.attention.output.LayerNorm(summed).detach())
        fed = torch.relu(layer.intermediate.dense(at["mlp_in"])) @ layer.output.dense.weight.T + layer.output.dense.bias
        torch.testing.assert_close(at["mlp_out"], fed.detach())
        torch.testing.assert_close(at["resid_post"], layer.output.LayerNorm(at["mlp_in"] + at["mlp_out"]).detach())


def test_with_its_head_it_gives_logits(folders: dict[str, Path], networks: dict[str, Any]) -> None:
    model = load(folders["V2"], head=True, device="cpu", batch_size=9)
    batch, _ = next(iter(model.batches(CELLS)))
    with torch.no_grad():
        wanted = networks["V2"](input_ids=batch["tokens"], attention_mask=batch["attention_mask"].long()).logits
    found = model(batch)
    mask = batch["attention_mask"]
    torch.testing.assert_close(found["logits"][mask], wanted[mask], rtol=1e-5, atol=1e-6)
    bare = load(folders["V2"], device="cpu", batch_size=9)
    name = "blocks.1.hook_mlp_out"
    assert torch.equal(model.capture(batch, [name])[name], bare.capture(batch, [name])[name])


def test_rows_are_genes_or_all_but_padding_and_eos(folders: dict[str, Path]) -> None:
    for rows, front in (("genes", 0), ("all", 1)):
        model = load(folders["V2"], device="cpu", batch_size=4, rows=rows)
        for batch, metadata in model.batches(CELLS):
            ends = batch["tokens"] == V2["<eos>"]
            assert ends.sum() == len(ends)
            assert not (ends & batch["keep"]).any()
            assert metadata["token"].null_count() == front * len(ends)
            assert metadata.height == int(batch["genes"].sum()) + front * len(ends)
            assert len(model.capture(batch, model.default_sites)["blocks.0.hook_mlp_out"]) == metadata.height


def test_neither_padding_nor_the_batch_changes_a_row(folders: dict[str, Path]) -> None:
    name, held = "blocks.2.hook_resid_post", {}
    for size in (1, 4, 9):
        model = load(folders["V1"], device="cpu", batch_size=size)
        batches = list(model.batches(CELLS))
        parts = [(m, model.capture(b, [name])[name]) for b, m in batches]
        mask = batches[-1][0]["attention_mask"]
        held[size] = pl.concat([m for m, _ in parts]), torch.cat([x for _, x in parts])
    assert not mask.all(), "the longest batch has padding"
    for size in (4, 9):
        assert held[size][0].equals(held[1][0])
        torch.testing.assert_close(held[size][1], held[1][1], rtol=1e-5, atol=1e-6)


def test_a_cell_s_vector_is_its_cls_or_the_mean_over_its_genes(folders: dict[str, Path]) -> None:
    for kind, tokens in (("V1", V1), ("V2", V2)):
        model = load(folders[kind], device="cpu", batch_size=9, rows="all")
        batch, _ = next(iter(model.batches(CELLS)))
        hidden = model(batch)["hidden"]
        means = []
        for ids, states in zip(batch["tokens"], hidden, strict=True):
            means.append(
                torch.stack(
                    [
                        x
                        for i, x in zip(ids.tolist(), states, strict=True)
                        if i > V2["<eos>"] or (kind == "V1" and i > 1)
                    ]
                ).mean(0)
            )
        torch.testing.assert_close(model.embed(batch, "mean"), torch.stack(means), rtol=1e-5, atol=1e-6)
        own = hidden[:, 0] if "<cls>" in tokens else torch.stack(means)
        torch.testing.assert_close(model.embed(batch), own, rtol=1e-5, atol=1e-6)


def test_what_makes_other_rows_makes_another_fingerprint(folder: Path) -> None:
    first = load(folder, device="cpu").fingerprint()
    assert load(folder, device="cpu").fingerprint() == first
    assert load(folder, device="cpu", max_length=9).fingerprint().config != first.config
    (folder / "gene_medians.json").write_text(json.dumps({**MEDIANS, GENES[0]: 9.0}))
    other = load(folder, device="cpu").fingerprint()
    assert other.config != first.config
    assert other.weights == first.weights
    drawn = [load(folder, device="cpu", random_weights=True, seed=seed).fingerprint() for seed in (5, 5, 6)]
    assert drawn[0] == drawn[1]
    assert len({first.weights, drawn[0].weights, drawn[2].weights}) == 3


def test_the_layers_that_are_read_are_at_the_same_depths_as_tahoe_s() -> None:
    for depth, blocks in ((6, (0, 1, 3, 4, 5)), (12, (0, 3, 6, 9, 11)), (18, (0, 5, 9, 14, 17))):
        assert default_sites(depth) == [f"blocks.{i}.hook_mlp_out" for i in blocks]


def test_tables_are_read_in_each_form(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("gene,token\n" + "".join(f"{g},{i}\n" for g, i in V2.items()))
    (tmp_path / "bare.csv").write_text("".join(f"{g},{i}.0\n" for g, i in V2.items()))
    (tmp_path / "t.txt").write_text("\n".join(V2) + "\n")
    (tmp_path / "m.csv").write_text("gene,median\n" + "".join(f"{g},{m}\n" for g, m in MEDIANS.items()))
    for name in ("t.csv", "bare.csv", "t.txt"):
        assert read_tokens(tmp_path / name) == V2
    assert read_medians(tmp_path / "m.csv") == MEDIANS
    first = load(folder, device="cpu").fingerprint()
    (folder / "token_dictionary.json").unlink()
    (folder / "gene_medians.json").unlink()
    assert load(folder, tokens=tmp_path / "t.txt", medians=tmp_path / "m.csv", device="cpu").fingerprint() == first
    with pytest.raises(DataError, match=r"holds none of token_dictionary.json, .*give tokens="):
        load(folder, medians=tmp_path / "m.csv")


def test_genes_without_a_median_are_left_out_and_counted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    left = {gene: value for gene, value in MEDIANS.items() if gene not in GENES[:3]}
    (folder / "gene_medians.json").write_text(json.dumps({**left, GENES[3]: 0.0, GENES[4]: float("nan")}))
    model = load(folder, device="cpu")
    assert "5 genes of the token dictionary without a median are left out" in capsys.readouterr().err
    seen = {name for _, metadata in model.batches(CELLS) for name in metadata["token"]}
    assert seen
    assert not seen & set(GENES[:5])
    (folder / "gene_medians.json").write_text(json.dumps({"other": 1.0}))
    with pytest.raises(DataError, match="no gene with a token has a median"):
        load(folder)


def test_a_pickle_is_refused_and_the_command_that_is_told_converts_it(folder: Path) -> None:
    for name in ("token_dictionary", "gene_medians"):
        held = json.loads((folder / f"{name}.json").read_text())
        (folder / f"{name}.json").unlink()
        scalar = {key: np.float64(value) if name == "gene_medians" else value for key, value in held.items()}
        (folder / f"{name}.pkl").write_bytes(pickle.dumps(scalar))
    for _ in range(2):
        with pytest.raises(DataError, match="is a pickle, which runs code when read") as caught:
            load(folder)
        words = shlex.split(str(caught.value).partition("convert it yourself: ")[2])
        assert words[0] == "python"
        subprocess.run([sys.executable, *words[1:]], check=True, timeout=60)
    assert load(folder, device="cpu").tokenizer.vocabulary == {gene: V2[gene] for gene in GENES}
    hidden = folder / "hidden.json"
    hidden.write_bytes(pickle.dumps(V2))
    with pytest.raises(DataError, match=r"hidden.json: is a pickle"):
        load(folder, tokens=hidden)
    with pytest.raises(DataError, match="is a pickle"):
        load(folder, tokens=folder / "token_dictionary.pkl")


TABLES = [
    ("t.json", "{", DamagedError, "is not whole JSON"),
    ("t.json", '["a"]', DamagedError, "is no table from genes to numbers"),
    ("t.json", '{"a": "1"}', DamagedError, "is no table from genes to numbers"),
    ("t.json", "{}", DamagedError, "is empty"),
    ("t.json", '{"a": 1.5}', DamagedError, "gives 'a' the token 1.5"),
    ("t.json", '{"a": NaN}', DamagedError, "gives 'a' the token nan"),
    ("t.json", '{"a": 1, "b": 1}', DamagedError, "gives several genes one token"),
    ("t.csv", "a,1\nb,2,3\n", DamagedError, "line 2 is no gene and number"),
    ("t.txt", "a\nb\na\n", DamagedError, "names an entry twice"),
    ("t.yml", "a: 1", ConfigError, "a table does not end in '.yml'"),
]


@pytest.mark.parametrize(("name", "text", "kind", "match"), TABLES)
def test_a_table_that_is_none_is_one_line(tmp_path: Path, name: str, text: str, kind: type, match: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(kind, match=match):
        read_tokens(tmp_path / name)


def test_a_folder_that_is_not_geneformer_s_is_one_line(folder: Path, tmp_path: Path) -> None:
    assert reads(folder)
    with pytest.raises(DataError, match=r"is not there. Geneformer's folder holds config.json and model.safetensors"):
        load(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    assert not reads(tmp_path / "empty")
    with pytest.raises(DataError, match=r"config.json: there is no such file .*Geneformer's folder holds"):
        load(tmp_path / "empty")
    settings = json.loads((folder / "config.json").read_text())
    for change, match in (
        ({"model_type": "esm"}, "model_type is 'esm', and Geneformer's is 'bert'"),
        ({"model_type": None}, "names no model_type"),
        ({"is_decoder": True}, "is a BERT of another kind"),
        ({"position_embedding_type": "relative_key"}, "is a BERT of another kind"),
        ({"vocab_size": None}, "names no vocab_size"),
        ({"vocab_size": 20}, "has tokens up to 33, and the embedding 20 rows"),
        ({"vocab_size": 40}, r"word_embeddings.weight is \[34, 16\], not \[40, 16\]"),
        ({"num_hidden_layers": 4}, r"encoder.layer.3.attention.output.LayerNorm.bias, .* and 12 more missing"),
        ({"hidden_size": 17}, "cannot be read"),
    ):
        (folder / "config.json").write_text(json.dumps({**settings, **change}))
        with pytest.raises(DataError, match=match):
            load(folder, device="cpu")
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ConfigError, match=r"max_length=25.*reads at most 24 tokens"):
        load(folder, max_length=25)
    with pytest.raises(ConfigError, match="a cell of 2 tokens holds no gene"):
        load(folder, max_length=2)


def test_a_smaller_vocabulary_than_the_embedding_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "token_dictionary.json").write_text(json.dumps(V1))
    load(folder, device="cpu")
    assert "the embedding has 34 rows and the token dictionary 32 tokens" in capsys.readouterr().err
    (folder / "token_dictionary.json").write_text(json.dumps({**V1, "<cls>": 33}))
    with pytest.raises(DataError, match="there is one of <cls> and <eos>"):
        load(folder)


def test_weights_that_are_absent_pickled_or_cut_are_one_line(folder: Path, networks: dict[str, Any]) -> None:
    weights = folder / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-8])
    with pytest.raises(DamagedError, match="was cut short"):
        load(folder)
    weights.unlink()
    with pytest.raises(DataError, match=r"holds no model.safetensors. Fetch the weights too"):
        load(folder)
    torch.save(networks["V2"].state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(DataError, match="holds pickled weights alone"):
        load(folder)
    (folder / "pytorch_model.bin").unlink()
    held = load_file_of(data, folder)
    half = sorted(held)[: len(held) // 2]
    for part, names in (("model-1.safetensors", half), ("model-2.safetensors", sorted(held)[len(half) :])):
        save_file({name: held[name] for name in names}, folder / part, metadata={"format": "pt"})
    placed = {name: "model-1.safetensors" if name in half else "model-2.safetensors" for name in held}
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    whole = write(folder.parent / "whole", networks["V2"], V2, MEDIANS)
    assert load(folder, device="cpu").fingerprint() == load(whole, device="cpu").fingerprint()
    index.write_text(json.dumps({"weight_map": {"a": "../whole/model.safetensors"}}))
    with pytest.raises(DamagedError, match="is not an index of weights in its folder"):
        load(folder)


def load_file_of(data: bytes, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / "kept.safetensors"
    path.write_bytes(data)
    return load_file(path)


def test_without_the_library_it_says_what_to_type(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match=r"transformers is not installed. Type: pip install .*\[geneformer\]"):
        load(folder)


def test_the_guide_runs_and_converts_what_it_says(
    folder: Path, networks: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "other-models.md").read_text()
    blocks = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(folder)
    wanted = load(folder, device="cpu").fingerprint()
    for name in ("token_dictionary.json", "gene_medians.json", "model.safetensors"):
        (folder / name).unlink()
    Path("token_dictionary_gc104M.pkl").write_bytes(pickle.dumps(V2))
    Path("gene_median_dictionary_gc104M.pkl").write_bytes(pickle.dumps(MEDIANS))
    torch.save(networks["V2"].state_dict(), "pytorch_model.bin")
    for block in blocks[1:3]:
        exec(block, {"__name__": "guide"})  # noqa: S102
    assert load(folder, device="cpu").fingerprint() == wanted
    monkeypatch.chdir(tmp_path)
    for block in [blocks[0], *blocks[3:]]:
        exec(block, {"__name__": "guide"})  # noqa: S102
    assert len(blocks) == 5


@pytest.mark.real_data
def test_published_cells_come_back_from_counts_of_their_order(real_data: Path) -> None:
    """The published cells come without counts, so these are made: above its median, each gene as far as its rank says."""
    base = real_data / "geneformer"
    tokens = read_tokens(base / "bionemo_vocab.txt")
    assert len(tokens) == 25_426
    published = pl.read_parquet(base / "genecorpus_500_samples.parquet")["input_ids"].to_list()
    known = set(tokens.values()) - {0, 1}
    assert all(set(cell) <= known and len(set(cell)) == len(cell) <= 2048 for cell in published)
    draw = np.random.default_rng(0)
    medians = dict(zip(tokens, draw.uniform(0.5, 9, len(tokens)).tolist(), strict=True))
    of_token = np.array(list(medians.values()))
    tokenizer = RankTokenizer(tokens, medians, limit=2048)
    cells = []
    for i, ids in enumerate(published[:40]):
        # Behind what was published stand genes that are cut.
        more = draw.choice(sorted(known - set(ids)), 50, replace=False)
        order = np.concatenate([ids, more]).astype(np.int32)
        values = (of_token[order] * np.arange(len(order), 0, -1)).astype(np.float32)
        mixed = draw.permutation(len(order))
        cells.append(Cell(i, f"c{i}", order[mixed], values[mixed], order[mixed], total=float(values.sum())))
    batch = tokenizer.collate(cells, tokenizer.start()).batch
    for ids, found in zip(published, batch["tokens"].tolist(), strict=False):
        assert found[: len(ids)] == ids


@pytest.mark.real_data
def test_real_cells_read_as_a_naive_reading_says(real_data: Path) -> None:
    from elute.models.cells.cellfile import CellsConfig, open_cells
    from elute.models.cells.matching import match_genes

    cells = open_cells(real_data / "cells" / "pbmc_multidataset_2100x21802.h5ad", CellsConfig(max_cells=40))
    tokens = read_tokens(real_data / "geneformer" / "bionemo_vocab.txt")
    matched = match_genes(cells.var, tokens, gene_map=real_data / "genes" / "hgnc_complete_set.txt.gz")
    counts = counts_of(cells)
    scaled = counts / counts.sum(1, keepdims=True) * 10_000
    column = {name: i for i, name in enumerate(matched.names) if name}
    medians = {name: float(np.median(x[x > 0])) for name, i in column.items() if (x := scaled[:, i]).any()}
    tokenizer = RankTokenizer(tokens, medians, limit=2048)
    assert len(medians) > 5000
    for row in range(len(counts)):
        has = np.flatnonzero(counts[row])
        has = np.array([i for i in has if matched.names[i]])
        ids = matched.tokens[has].astype(np.int32)
        cell = Cell(
            row, "c", ids, counts[row][has].astype(np.float32), has.astype(np.int32), total=float(counts[row].sum())
        )
        found = tokenizer.collate([cell], tokenizer.start()).batch["tokens"][0].tolist()
        heights = {tokens[name]: scaled[row, i] / medians[name] for name, i in column.items() if scaled[row, i] > 0}
        assert found == sorted(heights, key=lambda token: (-heights[token], token))[:2048]

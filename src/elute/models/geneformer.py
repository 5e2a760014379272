"""Geneformer as a model of elute: cells in, one row a gene of a cell out, its genes read in the order of their ranks.

    model = elute.load_model("geneformer", folder="geneformer", medians="gene_medians.json")
    for batch, metadata in model.batches(elute.open_cells("counts.h5ad")):
        rows = model.capture(batch, model.default_sites)

A folder holds transformers' `config.json` (a BERT) and `model.safetensors`, and beside them or elsewhere the tokens and
the medians as data (see geneformer_parts/dictionaries.py; docs/guide/other-models.md says how to make them).

Sites of block l. BERT normalises after each sum, so that with x what the block reads:

    a = hook_attn_out   the attention's output.dense, before it is added to x
    m = hook_mlp_in     LayerNorm(x + a); an edit reaches the feed-forward part alone, not the sum below
    f = hook_mlp_out    output.dense, before it is added to m
    hook_resid_post     LayerNorm(m + f), what the block gives: the hook_resid_pre of the next block

TransformerLens calls hook_resid_post what is there before that last norm.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elute.base import console
from elute.base.contracts import Site
from elute.base.errors import ConfigError, DataError
from elute.models.cells.model import CellModel, SiteTable, default_sites
from elute.models.geneformer_parts import dictionaries
from elute.models.geneformer_parts.tokenizer import RankTokenizer
from elute.models.pretrained import SETTINGS, library, plain_settings, read_network, read_settings

NAME = "geneformer"
_WHAT = "Geneformer's folder"


def load(
    folder: Path | str,
    *,
    tokens: Path | str | None = None,
    medians: Path | str | None = None,
    max_length: int | None = None,
    head: bool = False,
    random_weights: bool = False,
    seed: int = 0,
    **settings: Any,
) -> CellModel:
    """Load a model from a folder.

    `tokens` and `medians` are files, where they do not lie in the folder as token_dictionary.json and
    gene_medians.json. `max_length` reads fewer genes of a cell than the network could. With `head` the output has
    `logits` too, a number a position and token, which is far more than all else. `random_weights`, drawn from `seed`,
    keep everything but what was learnt: the control of all that is found. Other settings are CellModel's.
    """
    folder = Path(folder)
    held = read_settings(folder, _WHAT)
    _check_kind(held, folder)
    transformers = library()
    known = dictionaries.read_tokens(Path(tokens) if tokens else dictionaries.find(folder, dictionaries.TOKENS))
    typical = dictionaries.read_medians(Path(medians) if medians else dictionaries.find(folder, dictionaries.MEDIANS))
    _check_tokens(known, held.get("vocab_size"), folder)
    # Read in pieces, the feed-forward part would run several times a forward.
    options: dict[str, Any] = {"attn_implementation": "sdpa", "chunk_size_feed_forward": 0}
    kind, own = (transformers.BertForMaskedLM, {}) if head else (transformers.BertModel, {"add_pooling_layer": False})
    network = read_network(kind, folder, **own, **options)
    if random_weights:
        network = _drawn(lambda: kind(network.config, **own), seed)
        settings = {"name": f"{NAME}, random weights", **settings}
    longest = network.config.max_position_embeddings
    if max_length is not None and max_length > longest:
        raise ConfigError(f"max_length={max_length:,}", where=folder, remedy=f"It reads at most {longest:,} tokens.")
    tokenizer = RankTokenizer(known, typical, limit=max_length or longest, pad=network.config.pad_token_id or 0)
    if tokenizer.without_median:
        lost = console.count(tokenizer.without_median, "gene")
        console.warn(f"{folder}: {lost} of the token dictionary without a median are left out")
    return wrap(network, tokenizer, **settings)


MODEL = load


def reads(folder: Path) -> bool:
    """Whether a folder looks like one of this kind of model."""
    try:
        return bool(read_settings(folder, _WHAT)["model_type"] == "bert")
    except DataError:
        return False


def wrap(network: nn.Module, tokenizer: RankTokenizer, *, name: str = NAME, **settings: Any) -> CellModel:
    """Make a model of elute of a BERT, with or without its head, and a tokeniser."""
    config: Any = network.config
    depth, path = config.num_hidden_layers, "bert." if hasattr(network, "bert") else ""
    return CellModel(
        network,
        SiteTable(sites(depth, config.hidden_size, path=path), default_sites(depth)),
        tokenizer,
        forward=_forward,
        embed=_embed,
        name=name,
        config=plain_settings(config),
        **settings,
    )


def sites(depth: int, width: int, *, path: str = "") -> dict[str, Site]:
    """Every site of a network; `path` leads to its BERT."""
    found: dict[str, Site] = {}
    for i in range(depth):
        block = f"{path}encoder.layer.{i}"
        found |= {
            f"blocks.{i}.hook_resid_pre": Site(block, "input", width, select=0),
            f"blocks.{i}.hook_attn_out": Site(f"{block}.attention.output.dense", width=width),
            f"blocks.{i}.hook_mlp_in": Site(f"{block}.intermediate.dense", "input", width),
            f"blocks.{i}.hook_mlp_out": Site(f"{block}.output.dense", width=width),
            f"blocks.{i}.hook_resid_post": Site(f"{block}.output.LayerNorm", width=width),
        }
    return found


def example() -> tuple[CellModel, Any]:
    """Return a tiny model with random weights and cells for it, with which the contract is tested."""
    from elute.models.cells.example import example_cells

    cells, genes = example_cells()
    tokens = {name: i for i, name in enumerate(["<pad>", "<mask>", "<cls>", "<eos>", *genes])}
    medians = {gene: 1 + i % 7 / 3 for i, gene in enumerate(genes)}
    transformers = library()
    config = transformers.BertConfig(
        vocab_size=len(tokens),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        hidden_act="relu",
        max_position_embeddings=24,
        attn_implementation="sdpa",
    )
    network = _drawn(lambda: transformers.BertModel(config, add_pooling_layer=False), 0)
    return wrap(network, RankTokenizer(tokens, medians, limit=24)), cells


def _drawn(make: Callable[[], Any], seed: int) -> Any:
    """Make a network with random weights, the same for the same seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make().requires_grad_(False).eval()


def _check_kind(held: Mapping[str, Any], folder: Path) -> None:
    """Refuse a network that is no BERT as Geneformer's are."""
    where, remedy = folder / SETTINGS, "For another encoder see elute.models.encoder."
    if held["model_type"] != "bert":
        raise DataError(f"model_type is {held['model_type']!r}, and Geneformer's is 'bert'", where=where, remedy=remedy)
    if held.get("is_decoder") or held.get("position_embedding_type", "absolute") != "absolute":
        raise DataError("is a BERT of another kind: a decoder, or of relative positions", where=where, remedy=remedy)


def _check_tokens(tokens: Mapping[str, int], rows: object, folder: Path) -> None:
    """Hold the token dictionary against the rows of the embedding: both are of one model, or all would be wrong."""
    if type(rows) is not int:
        raise DataError("names no vocab_size", where=folder / SETTINGS, remedy="Fetch it anew.")
    highest = max(tokens.values()) + 1
    if highest > rows:
        what = f"the token dictionary has tokens up to {highest - 1:,}, and the embedding {rows:,} rows"
        raise DataError(what, where=folder, remedy="They are of two models: give the tokens of this one.")
    if highest < rows:
        said = f"{folder}: the embedding has {rows:,} rows and the token dictionary {highest:,} tokens"
        console.warn(f"{said}: check that they are of one model")


def _forward(network: nn.Module, batch: Mapping[str, Any]) -> dict[str, Tensor]:
    """The last hidden state, and with a head what it makes of it."""
    bert: Any = getattr(network, "bert", network)
    hidden: Tensor = bert(input_ids=batch["tokens"], attention_mask=batch["attention_mask"]).last_hidden_state
    if bert is network:
        return {"hidden": hidden}
    logits: Tensor = network.cls(hidden)  # type: ignore[operator]
    return {"hidden": hidden, "logits": logits}


def _embed(output: Mapping[str, Tensor], batch: Mapping[str, Any], pooling: str) -> Tensor:
    """The cell's vector: that of `<cls>`, or where the model has none, as V1, or on request, the mean over genes."""
    hidden, genes = output["hidden"], batch["genes"]
    if pooling == "cls" and not bool(genes[0, 0]):
        return hidden[:, 0]
    weight = genes.unsqueeze(-1).to(hidden.dtype)
    mean: Tensor = (hidden * weight).sum(1) / weight.sum(1)
    return mean

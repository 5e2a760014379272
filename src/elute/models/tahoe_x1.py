"""Tahoe-x1 as a model of elute: sites in every block, cells in, one row a gene of a cell out.

    model = elute.load_model("tahoe-x1-70m")                        # or elute.load_model("my/model/folder")
    cells = elute.open_cells("pbmc.h5ad")
    for batch, metadata in model.batches(cells):
        rows = model.capture(batch, model.default_sites)

Sites of block l: `blocks.{l}.hook_resid_pre` (what it reads), `hook_attn_out`, `hook_mlp_in` (what the feed-forward
part reads, after the norm), `hook_mlp_out` (what that part adds, before it is added), `hook_resid_post` (what the
block gives).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elute.base.contracts import Site
from elute.base.errors import ConfigError
from elute.models.cells.model import CellModel, SiteTable, default_sites
from elute.models.tahoe.config import MODEL_FILE, CollatorConfig, MvcConfig, TahoeConfig
from elute.models.tahoe.load import Folder, read_folder
from elute.models.tahoe.model import Output, TahoeX1, mean_pooled
from elute.models.tahoe.tokenizer import TahoeTokenizer

NAME = "tahoe-x1"


def load(
    folder: Path | str | None = None,
    *,
    size: str = "70m",
    revision: str | None = None,
    cache: Path | None = None,
    drug: bool | None = None,
    upstream_exact: bool = False,
    max_length: int | None = None,
    seed: int = 0,
    random_weights: bool = False,
    **settings: Any,
) -> CellModel:
    """Load a model from a folder, or a published one of a size, fetched once and kept.

    `upstream_exact` makes tokens as the published code does, quirks included (see models/tahoe/tokenizer.py);
    `drug` puts the drug's token in or leaves it out, where the model has one. `random_weights` keeps everything
    but what was learnt: the control of all that is found in a model. Other settings are CellModel's.
    """
    if folder is None:
        from elute.models.tahoe.hub import fetch

        fetched = fetch(size, revision=revision, cache=cache)
        found, name = read_folder(fetched.folder), f"{NAME}-{size}"
        settings = {"source": {"weights": f"{fetched.repo}/{fetched.path}@{fetched.commit}"}, **settings}
    else:
        found, name = read_folder(Path(folder)), NAME
    collator = found.collator if drug is None else _with_drug(found, asked=drug)
    tokenizer = TahoeTokenizer(
        found.vocabulary, collator, max_length=max_length, seed=seed, upstream_exact=upstream_exact
    )
    network = untrained(found.network, seed) if random_weights else found.network
    return wrap(network, tokenizer, name=f"{name}, random weights" if random_weights else name, **settings)


MODEL = load


def reads(folder: Path) -> bool:
    """Whether a folder looks like one of this kind of model."""
    return (folder / MODEL_FILE).is_file()


def wrap(network: TahoeX1, tokenizer: TahoeTokenizer, *, name: str = NAME, **settings: Any) -> CellModel:
    """Make a model of elute of a network and its tokeniser."""
    depth, width = network.config.n_layers, network.config.d_model
    return CellModel(
        network,
        SiteTable(sites(depth, width), default_sites(depth)),
        tokenizer,
        forward=_forward,
        embed=_embed,
        name=name,
        config=network.config.model_dump(exclude={"vocab_size"}),
        **settings,
    )


def untrained(network: TahoeX1, seed: int) -> TahoeX1:
    """Return a network of the same shape as before its training, drawn from a seed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TahoeX1(network.config, padding=network.padding).requires_grad_(False).eval()


def sites(depth: int, width: int) -> dict[str, Site]:
    """Every site of a network."""
    found: dict[str, Site] = {}
    for block in range(depth):
        path = f"transformer_encoder.layers.{block}"
        found |= {
            f"blocks.{block}.hook_resid_pre": Site(path, "input", width, select=0),
            f"blocks.{block}.hook_attn_out": Site(f"{path}.self_attn.out_proj", width=width),
            f"blocks.{block}.hook_mlp_in": Site(f"{path}.up_proj", "input", width),
            f"blocks.{block}.hook_mlp_out": Site(f"{path}.down_proj", width=width),
            f"blocks.{block}.hook_resid_post": Site(path, width=width),
        }
    return found


def example() -> tuple[CellModel, Any]:
    """Return a tiny model with random weights and cells for it, with which the contract is tested."""
    import torch

    from elute.models.cells.example import example_cells

    cells, genes = example_cells()
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<cls>", "<eoc>", *genes])}
    config = TahoeConfig(d_model=16, n_layers=2, n_heads=2, vocab_size=len(vocabulary), mvc=MvcConfig())
    with torch.device("meta"):
        network = TahoeX1(config)
    return wrap(untrained(network, 0), TahoeTokenizer(vocabulary, CollatorConfig(max_length=24))), cells


def _with_drug(found: Folder, *, asked: bool) -> CollatorConfig:
    if asked and found.network.config.chemical_encoder is None:
        raise ConfigError("the drug's token was asked for, and this model has none", remedy="Leave it out.")
    return found.collator.model_copy(update={"use_chem_token": asked})


def _forward(network: nn.Module, batch: dict[str, Any]) -> Output:
    output: Output = network(
        batch["tokens"],
        batch["values"],
        drugs=batch.get("drugs"),
        padded=batch.get("padded", True),
        generated=batch.get("generated"),
        generative_mask=batch.get("generative_mask", False),
    )
    return output


def _embed(output: Output, batch: dict[str, Any], pooling: str) -> Tensor:
    """The cell's vector: its own token's, or the mean over its genes."""
    return output.cell_emb if pooling == "cls" else mean_pooled(output.gene_emb, batch["keep"])

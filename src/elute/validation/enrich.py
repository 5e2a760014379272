"""A list of genes that a person types, held against every database as features' genes are."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from elute.base.data import data_folder
from elute.base.errors import DataError
from elute.base.run import Artifact
from elute.validation import mapping
from elute.validation.asked import KEY, Asked, keys_of
from elute.validation.suite import ask_databases

if TYPE_CHECKING:
    from elute.validation.settings import DatabaseConfig

LEAST = 2


def enrich(given: Sequence[str], config: DatabaseConfig, *, limit: int = 10) -> Artifact:
    """Say which terms of each database the genes have in common more than chance gives."""
    names = list(dict.fromkeys(name for each in given for name in each.replace(",", " ").split()))
    if len(names) < LEAST:
        remedy = f"Name {LEAST} or more: elute genes enrich MYH7 TNNT2 TTN"
        raise DataError(f"{len(names)} genes are no list", remedy=remedy)
    named = keys_of(names)
    lost = [name for name, key in zip(names, named["key"], strict=True) if key is None]
    keys = named["key"].drop_nulls().unique(maintain_order=True).to_list()
    if len(keys) < LEAST:
        what = f"HGNC knows {len(keys)} of {len(names)} genes: {', '.join(names[:5])}"
        raise DataError(what, remedy="Are they human?")
    table = mapping.gene_table()
    genes = pl.DataFrame({"key": [], "symbol": []}, schema={"key": pl.String, "symbol": pl.String})
    if table is not None:
        genes = table.genes.select("symbol", key=KEY).with_columns(measured=pl.lit(True))
    asked = Asked(
        [keys], genes, told=("in HGNC's table", ""), numbers=[0],
        notes=(mapping.NO_TABLE,) if table is None else (),
    )  # fmt: skip
    # How many of one list's draws pass says nothing that its own p-value among like genes does not.
    config = config.model_copy(update={"null": "none"})
    with tempfile.TemporaryDirectory() as folder:
        answer = ask_databases(asked, config, Path(folder), quiet=True)
        for name, record in answer["databases"].items():
            path = Path(folder) / f"{name}.parquet"
            record["rows"] = _best(pl.read_parquet(path), limit) if path.exists() else []
    told: dict[str, Any] = {"genes": len(keys), "lost": lost, **answer}
    return Artifact("enrichment", data_folder() / "databases", told)


def _best(table: pl.DataFrame, limit: int) -> list[dict[str, Any]]:
    by = pl.max_horizontal("p", "null_p") if "term" in table.columns else "p"
    return table.sort(by, "p").head(limit).to_dicts()

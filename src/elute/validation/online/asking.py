"""Ask a database's service for many genes; what fails is told gene by gene, and what came is kept.

Answers are kept one by one in the client's cache: who asks again after a failure, or after stopping, asks the service
for the rest alone.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elute.base import console
from elute.base.errors import ConfigError, DataError, MissingError, ServiceError
from elute.validation.database import Database, Gene
from elute.validation.online.answers import Resting
from elute.validation.online.client import Client
from elute.validation.online.keys import scrub
from elute.validation.reading.associations import check, empty

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True)
class Asked:
    """What a service gave for a list of genes; every gene stands in one of the three lists."""

    table: pl.DataFrame
    answered: tuple[Gene, ...]
    """Those of which everything is in the table, be it nothing."""
    lacking: tuple[Gene, ...]
    """Those without the kind of identifier by which it is asked."""
    failed: dict[str, str]
    """Symbols of those that could not be had, each with why, in a line."""


def ask_all(source: Database, client: Client, genes: Sequence[Gene]) -> Asked:
    """Ask for all genes, in batches; a batch that fails does not lose the others."""
    import polars as pl

    if source.ask is None:
        raise ConfigError("has no service that can be asked", where=source.title)
    if source.key and not os.environ.get(source.key) and not client.offline:
        remedy = f"Set {source.key} in the environment or in a file .env in this folder."
        raise MissingError(f"is not asked: {source.key} is not set", where=source.title, remedy=remedy)
    genes = list(dict.fromkeys(genes))
    known = [gene for gene in genes if getattr(gene, source.ask_by).strip()]
    lacking = tuple(gene for gene in genes if not getattr(gene, source.ask_by).strip())
    size = max(1, source.batch)
    batches = [known[start : start + size] for start in range(0, len(known), size)]
    tables, answered, failed = [empty()], [], dict[str, str]()
    with console.progress(source.title, len(known), unit="genes") as bar:
        for place, batch in enumerate(batches):
            try:
                tables.append(_checked(source, source.ask(client, batch), batch))
            except Resting as error:
                left = [gene for rest in batches[place:] for gene in rest]
                failed |= dict.fromkeys((_called(gene, source) for gene in left), scrub(error.line()))
                break
            except (ServiceError, DataError) as error:
                failed |= dict.fromkeys((_called(gene, source) for gene in batch), scrub(error.line()))
            else:
                answered += batch
            bar.advance(len(batch))
    return Asked(pl.concat(tables).unique(maintain_order=True), tuple(answered), lacking, failed)


def _called(gene: Gene, source: Database) -> str:
    return gene.symbol or str(getattr(gene, source.ask_by))


def _checked(source: Database, table: pl.DataFrame, batch: Sequence[Gene]) -> pl.DataFrame:
    """Return the table of a batch if it is about the genes that were asked for; some services answer with others."""
    import polars as pl

    check(table, where=source.title)
    if source.ask_by == "symbol":  # the service may write another symbol of the same gene: `ask` itself knows that
        return table
    wanted = {str(getattr(gene, source.ask_by)).strip().upper() for gene in batch}
    rows = table.filter((pl.col("gene_kind") == source.ask_by) & ~pl.col("gene").str.to_uppercase().is_in(wanted))
    if len(rows):
        what = f"answers with {rows['gene'][0]}, which was not asked for ({console.count(len(rows), 'such row')})"
        raise ServiceError(what, where=source.title)
    return table

"""STRING: which proteins work together, with one score from 0 to 1 for how sure that is.

1. `protein.links` says a pair in both directions, by Ensembl proteins, with 0 to 999; `protein.info` names the proteins
   and `protein.aliases`, where it is given, those that `protein.info` leaves without a symbol.
2. Pairs below 0.4, STRING's own medium confidence, are left out while the 13.7 million lines are streamed.
3. A pair becomes two rows: a gene, and as its term the other protein.

A list of edges between symbols (gene1, gene2, combined_score) is read as well.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.console import count
from elute.base.errors import DataError, MissingError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.online.answers import Unusable, field, items
from elute.validation.online.service import Service
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, batches, read_columns

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client

SERVICE = Service(name="string", base="https://version-12-0.string-db.org/api/json/", pause=1.0)
_WHO = "elute"  # STRING wants to know who asks
_MOST_PARTNERS = 20_000  # more than there are human proteins: without a limit the service chooses one
_PLACE = "https://stringdb-downloads.org/download/protein.{0}.v{{version}}/9606.protein.{0}.v{{version}}.txt.gz"
_MOST = 2**32  # bytes, unpacked: six times the links of today
_LEAST = 400  # of 999: STRING's medium confidence, and what its service and its package begin at
_TAXON = "9606"
_SCORE = {"score": ("combined_score",)}
_LINKS = Layout(need={"a": ("protein1",), "b": ("protein2",), **_SCORE}, separators=" \t", most=_MOST)
_EDGES = Layout(need={"a": ("gene1",), "b": ("gene2",), **_SCORE}, separators="\t,", most=_MOST)
_INFO = Layout(need={"id": ("string_protein_id", "protein_external_id"), "name": ("preferred_name",)})
_ALIASES = Layout(need={"id": ("string_protein_id",), "name": ("alias",), "source": ("source",)}, most=_MOST)
_SYMBOLS = ("Ensembl_HGNC_symbol", "Ensembl_HGNC_Approved_Symbol")  # aliases that are HGNC's, of 12.0 and 11.5
_UNNAMED = r"^(?:9606\.)?ENSP\d+$"


def _read(files: Mapping[str, Path]) -> Read:
    version = _version(files)
    if "links" in files:
        if "info" not in files:
            raise MissingError("STRING's links need its file info, which names the proteins", where=files["links"])
        path = Path(files["links"])
        names, notes = _names(files)
        pairs, told = _pairs(path, _LINKS, human=True)
    elif "edges" in files:
        path, names, notes = Path(files["edges"]), None, []
        pairs, told = _pairs(path, _EDGES, human=False)
    else:
        raise MissingError("STRING is read from its links and info, or from a list of edges")
    table, lost = _rows(pairs, names)
    if lost:
        notes.append(f"{count(lost, 'pair')} left out: info does not name one of the proteins.")
    return Read(finish(table, where=path, gene_kind="symbol"), version, (*told, *notes))


def _version(files: Mapping[str, Path]) -> str:
    """STRING writes its version into the names of its files alone."""
    found = {role: re.search(r"[._]v(\d+(?:\.\d+)*)[._]", Path(path).name) for role, path in files.items()}
    versions = {role: match[1] for role, match in found.items() if match}
    if len(set(versions.values())) > 1:
        said = ", ".join(f"{role} of {version}" for role, version in versions.items())
        raise DataError(f"STRING's files are of several versions ({said})", remedy="Take all from one version.")
    return next(iter(versions.values()), "")


def _names(files: Mapping[str, Path]) -> tuple[pl.DataFrame, list[str]]:
    """Name every protein: by info, and by its HGNC symbol among the aliases where info has none."""
    import polars as pl

    info = read_columns(Path(files["info"]), _INFO).table.drop_nulls()
    twice = info["id"].filter(info["id"].is_duplicated())
    if len(twice):
        raise DataError(f"names {twice[0]} more than once", where=files["info"])
    if "aliases" not in files:
        return info, []
    path = Path(files["aliases"])
    aliases = read_columns(path, _ALIASES, keep=lambda part: part.filter(pl.col("source").is_in(_SYMBOLS))).table
    aliases = aliases.select("id", alias="name").unique("id", keep="none")
    known = info.join(aliases, on="id", how="full", coalesce=True, maintain_order="left_right")
    bare = pl.col("name").is_null() | pl.col("name").str.contains(_UNNAMED)
    better = known.filter(bare & pl.col("alias").is_not_null()).height
    known = known.with_columns(pl.when(bare).then(pl.coalesce("alias", "name")).otherwise("name").alias("name"))
    notes = [f"{count(better, 'protein')} named by its HGNC symbol among the aliases."] if better else []
    return known.select("id", "name").drop_nulls(), notes


def _pairs(path: Path, layout: Layout, *, human: bool) -> tuple[pl.DataFrame, list[str]]:
    """Stream the pairs that are sure enough, each once with its highest score."""
    import polars as pl

    kept, rows, itself, lowest = [], 0, 0, 1000.0
    for text in batches(path, layout):
        part = text.with_columns(pl.col("score").cast(pl.Float64, strict=False))
        _right(part, text, (path, human))
        rows += len(part)
        lowest = min([lowest, *part["score"].bottom_k(1)])
        part = part.filter(pl.col("score") >= _LEAST)
        two = part.filter(pl.col("a") != pl.col("b"))
        itself += len(part) - len(two)
        kept.append(two.select(pl.min_horizontal("a", "b").alias("a"), pl.max_horizontal("a", "b").alias("b"), "score"))
    if not rows:
        raise DataError("has a header and no rows", where=path, remedy="Download it anew.")
    table = pl.concat(kept)
    if table.is_empty():
        raise DataError(f"has no pair with a combined_score of {_LEAST} of 999 or more", where=path)
    left = rows - len(table) - itself
    score = pl.col("score")
    table = table.group_by("a", "b", maintain_order=True).agg(score.max(), (score.max() > score.min()).alias("unequal"))
    unequal = int(table["unequal"].sum())
    notes = [f"Pairs below 0.4 left out: {left:,} of {rows:,} lines."] if left else []
    notes += [f"No pair is below {lowest / 1000:.3f}: the file leaves the others out."] if not left else []
    notes += [f"{count(itself, 'line')} left out: a protein with itself."] if itself else []
    notes += [f"{count(unequal, 'pair')} with two scores: the higher one counts."] if unequal else []
    return table.drop("unequal"), notes


def _right(part: pl.DataFrame, text: pl.DataFrame, about: tuple[Path, bool]) -> None:
    """Refuse a part with blanks, scores that are none, or another species; `text` is the part as it was written."""
    import polars as pl

    path, human = about
    whole = (
        pl.col("a").is_not_null()
        & pl.col("b").is_not_null()
        & pl.col("score").is_between(0, 1000).fill_null(value=False)
    )
    bad = text.filter(part.select(~whole).to_series())
    if len(bad):
        shown = " ".join(str(each) for each in bad.row(0))
        raise DataError(f"has a line that is no pair with a score from 0 to 999: {shown[:80]!r}", where=path)
    ours = pl.col("a").str.starts_with(f"{_TAXON}.") & pl.col("b").str.starts_with(f"{_TAXON}.")
    other = part.filter(~ours) if human else part.clear()
    if len(other):
        what = f"has a pair that is not of human proteins: {other['a'][0]!r} and {other['b'][0]!r}"
        raise DataError(what, where=path, remedy="Take the files whose names begin with 9606.")


def _rows(pairs: pl.DataFrame, names: pl.DataFrame | None) -> tuple[pl.DataFrame, int]:
    """Say each pair from both sides; pairs of a protein without a name are left out, and counted."""
    import polars as pl

    if names is None:
        pairs = pairs.with_columns(name="a", label="b")
    else:
        before = len(pairs)
        pairs = pairs.join(names, left_on="a", right_on="id", maintain_order="left")
        pairs = pairs.join(names.rename({"name": "label"}), left_on="b", right_on="id", maintain_order="left")
    lost = 0 if names is None else before - len(pairs)
    one = pairs.select(gene="name", term="b", label="label", score="score")
    other = pairs.select(gene="label", term="a", label="name", score="score")
    table = pl.concat([one, other])
    return table.with_columns(term="STRING:" + pl.col("term"), score=(pl.col("score") / 1000).round(6)), lost


def _ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    import polars as pl

    symbols = list(dict.fromkeys(gene.symbol for gene in genes))
    told = {"identifiers": "\r".join(symbols), "species": _TAXON, "caller_identity": _WHO}
    found = client.post(
        SERVICE, "get_string_ids", form={**told, "limit": "1"}, read=partial(_identifiers, most=len(symbols))
    )
    rows: list[tuple[str, str, str, float]] = []
    if found:
        told |= {"identifiers": "\r".join(found), "required_score": str(_LEAST), "limit": str(_MOST_PARTNERS)}
        partners = client.post(SERVICE, "interaction_partners", form=told, read=partial(_partners, asked=found))
        rows = [(found[a], f"STRING:{b}", name, score) for a, b, name, score in partners]
    schema = {**dict.fromkeys(("gene", "term", "label"), str), "score": float}
    table = pl.DataFrame(rows, schema=schema, orient="row")
    return finish(table, where=SERVICE.name, gene_kind="symbol")


def _identifiers(answer: Any, *, most: int) -> dict[str, str]:
    """Name by its protein each symbol that STRING knows: one each, human ones."""
    found, places = {}, set()
    for item in items(answer):
        protein, place = field(item, "stringId", str), field(item, "queryIndex", int)
        if place in places or not 0 <= place < most:
            raise Unusable(f"has no one protein for the symbol {place + 1} of {most}")
        places.add(place)
        found[_human(protein)] = field(item, "preferredName", str)
    return found


def _partners(answer: Any, *, asked: Mapping[str, str]) -> list[tuple[str, str, str, float]]:
    """Return the pairs, each with the protein that was asked for first; scores are 0 to 1 here."""
    pairs: dict[tuple[str, str], tuple[str, str, str, float]] = {}
    for item in items(answer):
        one, other = field(item, "stringId_A", str), field(item, "stringId_B", str)
        name, score = field(item, "preferredName_B", str), field(item, "score", float)
        if one not in asked:
            raise Unusable(f"tells of {one}, which was not asked for")
        if not _LEAST / 1000 - 0.001 <= score <= 1:
            raise Unusable(f"has a score of {score:g}, where {_LEAST / 1000} to 1 was asked for")
        pairs[one, other] = one, _human(other), name, score
    for protein in asked:
        if sum(one == protein for one, _ in pairs) >= _MOST_PARTNERS:
            raise Unusable(f"is cut: {protein} has {_MOST_PARTNERS} partners")
    return list(pairs.values())


def _human(protein: str) -> str:
    if not protein.startswith(f"{_TAXON}."):
        raise Unusable(f"tells of {protein}, which is not human")
    return protein


SOURCE = Database(
    name="string-db",
    title="STRING",
    tier=2,
    licence=Licence("CC BY 4.0", "https://creativecommons.org/licenses/by/4.0/", redistributable=True),
    about="a gene and a protein that works together with its own, with how sure that is, from 0.4 to 1",
    files=(
        File("links", _PLACE.format("links"), ("9606.protein.*links*",), needed=False),
        File("info", _PLACE.format("info"), ("9606.protein.info*",), needed=False),
        File("aliases", _PLACE.format("aliases"), ("9606.protein.aliases*",), needed=False),
        File("edges", "", ("string*.tsv", "string*.tsv.gz", "string*.csv"), needed=False),
    ),
    read=_read,
    ask=_ask,
    batch=20,
    draws_on=("kegg", "reactome", "go"),
)

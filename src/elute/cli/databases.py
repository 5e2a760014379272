"""`elute databases`: what biology's databases say, kept on this machine."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import click

from elute.base.run import Artifact
from elute.cli.commands import command

_NAMES = click.argument("names", nargs=-1)
_MIRROR = click.option("--mirror", default="", metavar="URL", help="Ask URL/HOST/PATH in place of https://HOST/PATH.")
_TIERS = {1: "Core", 2: "Comprehensive", 3: "Specialised", 4: "Sets of genes"}
_MARKS = {"installed": "yes", "packaged": "yes", "missing": "no ", "damaged": "BAD"}


def _show_list(answer: dict[str, Any]) -> str:
    lines = [f"Snapshots in {answer['path']}"]
    genes = answer["hgnc"]
    line = f"{genes['genes']:,} genes, {genes['taken']}" if genes and "genes" in genes else genes and genes["path"]
    lines += ["\nNames of genes", f"  {'yes' if genes else 'no '}  {'HGNC':<24} {line or answer['get_hgnc']}"]
    tier = 0
    for row in answer["databases"]:
        if row["tier"] != tier:
            tier = row["tier"]
            lines.append(f"\n{_TIERS[tier]}")
        lines.append(f"  {_MARKS[row['state']]}  {row['title']:<24} {row['line']}")
        if row["state"] == "missing" and row["by_hand"]:
            lines += textwrap.wrap(
                row["by_hand"], 110, initial_indent=" " * 32, subsequent_indent=" " * 32, break_on_hyphens=False
            )
        if row["online"].startswith("needs"):
            lines.append(f"{'':<32}its service {row['online']}")
    return "\n".join(lines)


@command("list", show=_show_list)
def list_() -> Artifact:
    """Say which databases are on this machine, in which version, and what to type for the others."""
    from elute.base.data import data_folder
    from elute.validation import hgnc, library

    rows = [library.standing(name).as_json() for name in library.names()]
    told = {"databases": rows, "hgnc": hgnc.standing(), "get_hgnc": "not installed: elute databases fetch hgnc"}
    return Artifact("databases", data_folder() / "databases", told)


def _show_fetched(answer: dict[str, Any]) -> str:
    lines = []
    for row in answer["installed"]:
        told = row["table"]
        lines.append(
            f"{row['title']} {row['version']}: {told['rows']:,} rows, {told['genes']:,} genes, {told['terms']:,} terms"
        )
        lines.append("  " + ", ".join(filter(None, (row["licence"]["name"], row["licence"]["url"]))))
        lines += [f"  {note}" for note in row["notes"]]
    if answer.get("hgnc"):
        lines.append(f"HGNC: {answer['hgnc']['genes']:,} genes")
    return "\n".join(lines)


def _installed(made: list[Any], hgnc: dict[str, Any] | None) -> Artifact:
    from elute.base.data import data_folder

    return Artifact(
        "snapshots", data_folder() / "databases", {"installed": [dict(s.record) for s in made], "hgnc": hgnc}
    )


@command("fetch", show=_show_fetched)
@_NAMES
@click.option("--version", default="", help="A database's release, where it keeps older ones.")
@_MIRROR
@click.option("--accept-licence", is_flag=True, help="I keep to the licence of those that are not for everyone.")
def fetch(*, names: tuple[str, ...], version: str, mirror: str, accept_licence: bool) -> Artifact:
    """Fetch databases by name, or all that are not here yet, and HGNC's table of genes.

    A download that was cut off goes on where it stopped. What fails with one database does not stop the others.
    """
    from elute.validation.fetching import Fetching, fetch_all

    made, hgnc, failed = fetch_all(names, Fetching(version, mirror, accept_licence))
    answer = _installed(made, hgnc)
    if failed:
        from elute.base.errors import ServiceError

        if made or hgnc:
            click.echo(_show_fetched(answer.summary), err=True)
        raise ServiceError(
            "; ".join(failed.values()) if len(failed) == 1 else f"{len(failed)} failed: {', '.join(failed)}"
        )
    return answer


@command("import", show=_show_fetched)
@click.argument("name")
@click.argument("given", nargs=-1, required=True, metavar="FILE…")
@click.option("--version", default="", help="What to call it; by default what the file says of itself, or the day.")
def import_(*, name: str, given: tuple[str, ...], version: str) -> Artifact:
    """Make a snapshot of files that you downloaded: for a licence of your own, or behind a firewall.

    Of a database with several files, ROLE=FILE says which is which. A .gmt file under any other NAME becomes sets of
    genes of your own. `elute databases import hgnc FILE` keeps HGNC's table of genes.
    """
    from elute.validation.fetching import import_named

    made, hgnc = import_named(name, given, version=version)
    return _installed(made, hgnc)


def _show_verified(answer: dict[str, Any]) -> str:
    lines = []
    for name, faults in answer["verified"].items():
        lines += [f"BAD  {name}: {fault}" for fault in faults] or [f"ok   {name}"]
    return "\n".join(lines) or "Nothing is installed: elute databases list"


@command("verify", show=_show_verified)
@_NAMES
def verify(names: tuple[str, ...]) -> Artifact:
    """Hold every snapshot against its digests, and read its rows."""
    from elute.base.data import data_folder
    from elute.base.errors import DamagedError
    from elute.validation.library import verified

    found = verified(names)
    answer = Artifact("verified", data_folder() / "databases", {"verified": found})
    if bad := [name for name, faults in found.items() if faults]:
        click.echo(_show_verified(answer.summary))
        raise DamagedError(f"{len(bad)} of {len(found)} are damaged: {', '.join(bad)}", where=answer.path)
    return answer


def _show_search(answer: dict[str, Any]) -> str:
    if "said" in answer:
        from elute.cli.genes import show_info

        return show_info(answer)
    lines = [
        f"{row['source']:<18} {row['term']:<18} {row['label'][:60]:<60} {row['genes']:>6,} genes: {row['examples']}"
        for row in answer["found"]
    ]
    lines = lines or ["Nothing was found."]
    asked = ", ".join(answer["versions"])
    lines.append(f"\nAsked: {asked or 'none'}")
    if absent := answer["absent"]:
        lines.append(f"Not asked: {', '.join(absent)} (not installed, or damaged: elute databases list)")
    return "\n".join(lines)


@command("search", show=_show_search)
@click.argument("text", nargs=-1, required=True, metavar="GENE|TERM")
@click.option("--source", "sources", multiple=True, help="Look in this database alone; may be given several times.")
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1), help="Terms of a database that are shown."
)
def search(*, text: tuple[str, ...], sources: tuple[str, ...], limit: int) -> Artifact:
    """Find a gene's rows, or terms by their id or by words of their label, in every database that is here."""
    from elute.validation.lookups import find

    return find(" ".join(text), sources, limit=limit)


def _show_unmapped(answer: dict[str, Any]) -> str:
    lines = [f"{answer['name']}: {answer['told']}"]
    for row in answer["lost"][: answer["limit"]]:
        beside = f" ({row['called']})" if row["called"] else ""
        lines.append(f"  {row['why']:<10} {row['gene']}{beside} {row['candidates'] or ''}  {row['rows']:,} rows")
    left = len(answer["lost"]) - answer["limit"]
    return "\n".join(lines + ([f"  and {left:,} more: --limit, or --json"] if left > 0 else []))


@command("unmapped", show=_show_unmapped)
@click.argument("name")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1), help="Genes that are shown.")
def unmapped(name: str, limit: int) -> Artifact:
    """List the genes of a database that HGNC does not know, or that name several genes."""
    from elute.validation.lookups import lost_genes

    mapped, snapshot = lost_genes(name)
    told = {"name": snapshot.name, "told": mapped.summary(), "counts": mapped.counts, "limit": limit}
    return Artifact("unmapped", snapshot.folder, {**told, "lost": mapped.lost.to_dicts()})


def _show_use(answer: dict[str, Any]) -> str:
    return f"{answer['name']} is in use; there are: {', '.join(answer['versions'])}"


@command("use", show=_show_use)
@click.argument("name")
@click.argument("version", required=False, default="")
def use(name: str, version: str) -> Artifact:
    """Let another version of a database that is on this machine be the one in use; without a version, list them."""
    from elute.validation import library, snapshots

    source = library.database(name)
    snapshot = snapshots.use(source.name, version) if version else library.opened(source.name)
    return Artifact(
        "snapshot", Path(snapshot.folder), {"name": snapshot.name, "versions": snapshots.versions(source.name)}
    )


def _show_removed(answer: dict[str, Any]) -> str:
    return f"{answer['name']}: {', '.join(answer['removed'])} removed"


@command("remove", show=_show_removed)
@click.argument("name")
@click.option("--version", default="", help="One version alone; by default all.")
def remove(name: str, version: str) -> Artifact:
    """Delete the snapshots of a database from this machine."""
    from elute.validation import library, snapshots

    source = library.database(name)
    gone = snapshots.remove(source.name, version)
    return Artifact("removed", snapshots.home(source.name), {"name": source.name, "removed": gone})

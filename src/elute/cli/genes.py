"""`elute genes`: one gene in every database, and lists of genes under all their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base import console
from elute.base.run import Artifact
from elute.cli.commands import command
from elute.cli.sections import GENES


def show_info(answer: dict[str, Any]) -> str:
    """Lay out what is known of a gene."""
    gene = answer["gene"]
    ids = [f"{kind} {gene[kind]}" for kind in ("hgnc", "ensembl", "entrez", "uniprot") if gene[kind]]
    lines = [" · ".join([gene["symbol"], *ids])]
    lines += [f"formerly {', '.join(answer['former'])}"] if answer["former"] else []
    lines += [f"also {', '.join(answer['aliases'])}"] if answer["aliases"] else []
    lines += [answer["note"]] if answer["note"] else []
    for said in answer["said"]:
        if said["rows"] is None:
            continue
        lines.append(f"\n{said['title']} {said['version']}: {console.count(said['count'], 'row')}")
        for row in said["rows"]:
            score = "" if row["score"] is None else f"{row['score']:>9.4g}"
            lines.append(
                f"  {row['term']:<22} {score:>9}  {row['label'][:60]:<60} {(row['evidence'] or '')[:40]}".rstrip()
            )
        if left := said["count"] - len(said["rows"]):
            lines.append(f"  … and {left:,} more")
    titles = {said["source"]: said["title"] for said in answer["said"]}
    shared = "; ".join(", ".join(titles[name] for name in group) for group in answer["kin"] if len(group) > 1)
    lines += [f"\nOne witness and not several, since they take over one another's rows: {shared}"] if shared else []
    silent = [said for said in answer["said"] if said["rows"] is None]
    lines += ["\nNot asked"] if silent else []
    lines += [f"  {said['title']:<24} {said['why']}" for said in silent]
    return "\n".join(lines)


@command("info", show=show_info)
@click.argument("gene")
@click.option("--source", "sources", multiple=True, help="Ask this database alone; may be given several times.")
@click.option(
    "--limit", default=5, show_default=True, type=click.IntRange(1), help="Rows of a database that are shown."
)
@click.option("--online", is_flag=True, help="Ask the services of those that are not on this machine.")
@click.option("--mirror", default="", metavar="URL", help="Ask URL/HOST/PATH in place of https://HOST/PATH.")
def info(*, gene: str, sources: tuple[str, ...], limit: int, online: bool, mirror: str) -> Artifact:
    """Say what every database on this machine has on a gene, by symbol, alias, or any identifier."""
    from elute.validation.lookups import inform

    return inform(gene, sources, limit=limit, online=online, mirror=mirror)


def _show_enriched(answer: dict[str, Any]) -> str:
    lost = f"; unknown to HGNC: {', '.join(answer['lost'])}" if answer["lost"] else ""
    lines = [f"{answer['genes']} genes{lost}", *answer["notes"]]
    silent = []
    for record in answer["databases"].values():
        if record["status"] != "run":
            silent.append(f"  {record['title']:<24} {record['why']}")
            continue
        lines.append(f"\n{record['snapshot']} · {record['background']} · {record['correction']}")
        lines += [_term(row) if "term" in row else _network(row) for row in record["rows"]]
        lines += [] if record["rows"] else ["  no term shares more of them than chance gives"]
    return "\n".join([*lines, *(["\nNot asked", *silent] if silent else [])])


def _term(row: dict[str, Any]) -> str:
    like = "" if row.get("null_p") is None else f"  like genes p {row['null_p']:.2g}"
    below = f"  (as {row['folded_under']})" if row["folded_under"] else ""
    shared = f"{row['overlap']}/{row['term_size']} ({row['expected']:.1f} by chance)"
    told = f"  {row['term'][:22]:<22} {(row['label'] or '')[:50]:<50} {shared:<26} q {row['q']:<8.2g}{like}{below}"
    return f"{told}  {', '.join(row['genes'][:8])}"


def _network(row: dict[str, Any]) -> str:
    told = f"{row['edges']} interactions among {row['genes']} genes, {row['expected']:.1f} by their degrees"
    return f"  {told}; like genes p {row['null_p']:.2g}; most: {', '.join(row['hubs'])}"


@command("enrich", GENES, recipe=GENES, show=_show_enriched)
@click.argument("genes", nargs=-1, metavar="GENE…")
@click.option("--file", "listed", type=click.Path(path_type=Path), help="A file that lists them, in place of GENE….")
@click.option(
    "--limit", default=10, show_default=True, type=click.IntRange(1), help="Terms of a database that are shown."
)
def enrich(*, genes: tuple[str, ...], listed: Path | None, limit: int, config: dict[str, Any]) -> Artifact:
    """Say which terms of each database a list of genes has more of than chance gives, beside lists of like genes."""
    from elute.base.errors import ConfigError
    from elute.validation import enrich as enrichment
    from elute.validation.gene_lists import read_list

    if (listed is None) == (not genes):
        raise ConfigError("give genes, or --file with a list of them", remedy="elute genes enrich MYH7 TNNT2 TTN")
    names = genes if listed is None else next(iter(read_list(listed).columns.values()))
    return enrichment.enrich(names, config["databases"], limit=limit)


def _show_map(answer: dict[str, Any]) -> str:
    counts = ", ".join(f"{n:,} {what}" for what, n in sorted(answer["counts"].items(), key=lambda each: -each[1]))
    lines = [f"{answer['identifiers']:,} identifiers ({answer['kind']}): {counts}"]
    for what in ("unknown", "ambiguous"):
        if lost := list(answer[what]):
            more = f", … ({len(lost):,} in all)" if len(lost) > 10 else ""
            lines.append(f"  {what}: {', '.join(lost[:10])}{more}")
    return "\n".join([*lines, f"{answer['path']}: written"])


@command("map", show=_show_map)
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--output", type=click.Path(path_type=Path), help="Table to write (.tsv, .csv, .parquet). [default: FILE.genes.tsv]"
)
@click.option("--column", help="Column that holds the genes; by default the one of which HGNC knows most.")
@click.option("--kind", type=click.Choice(["symbol", "ensembl", "entrez", "hgnc", "uniprot"]), help="What they are.")
def map_(*, file: Path, output: Path | None, column: str | None, kind: Any) -> Artifact:
    """Name the genes of a list, a table or an .h5ad file in all ways that HGNC has, and say what was lost."""
    from elute.validation import gene_lists

    listed = gene_lists.map_list(gene_lists.read_list(file), column=column, kind=kind)
    target = output or file.with_name(f"{file.name}.genes.tsv")
    gene_lists.write(listed, target)
    return Artifact("genes", target, gene_lists.summary(listed))

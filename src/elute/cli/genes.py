"""`elute genes`: one gene in every database, and lists of genes under all their names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base import console
from elute.base.run import Artifact
from elute.cli.commands import command


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

"""The fifth stage: which codes a gene's prediction rests on, in which samples, and where in a tile.

    relevance/ refs/ token_maps/      docs/formats/tissue.md; analysis/relevance_files.py writes them
    faithfulness/<gene>.parquet       what the head gives while codes or patches are removed, by relevance and at random

1. One pass over the codes finds the codes of most relevance of each gene, unless they are named.
2. A second one explains each gene: sums, the codes that matter in each sample, references; conservation is checked.
3. A third one draws where in the reference tiles each code is relevant.

Genes that were explained before with the same heads and rule stay; asked for again, they are not explained again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import DataError, near
from elute.base.run import Artifact
from elute.tissue import stages
from elute.tissue.opening_case import Case, Found
from elute.tissue.opening_case import open_case as open_case

if TYPE_CHECKING:
    from pathlib import Path

    from elute.analysis.relevance import Relevance
    from elute.heads.files import HeadFile
    from elute.tissue.plan import Plan
    from elute.tissue.tiles import Tiles

STAGE = "crp_relmax"
# What may differ between genes that lie side by side.
_WHICH = ("gene", "most_genes", "codes", "through_encoder", "through_method", "through_samples")
_PER_SAMPLE = 20


def crp_relmax(plan: Plan, *, tiles: Tiles | None = None) -> Artifact:
    """Explain genes by codes, and lay down what was found."""
    case = open_case(plan)
    genes = asked_genes(plan, case.heads)
    before = _before(plan, case)
    held = before.get("explained", {})
    todo = [gene for gene in genes if held.get(gene, {}).get("asked") != _asked(plan)]
    if not todo and stages.intact(plan.output, before):
        console.say(f"{plan.output}: {STAGE} was done already, with these settings and inputs")
        return Artifact("relevance", plan.output / "relevance", {**_told(before), "reused": True})
    todo = todo or genes
    console.say(f"{plan.output}: explaining {console.count(len(todo), 'gene')} by codes")
    found, written = explain_genes(plan, case, todo, keep=bool(held))
    if plan.crp.through_encoder:
        from elute.tissue.down_to_pixels import draw_pixels

        written += draw_pixels(plan, case, found, tiles=tiles)
    kept = {gene: each for gene, each in held.items() if gene not in todo}
    explained = dict(sorted({**kept, **{gene: each for gene, (_, _, each) in found.items()}}.items()))
    summary = {
        "genes": list(explained),
        "codes": len({code for each in explained.values() for code in each["codes"]}),
        "worst_relative": max(each["worst_relative"] for each in explained.values()),
        "explained": explained,
    }
    former = [plan.output / name for name in before.get("files", {})] if kept else []
    everything = [path for path in {*written, *former} if path.is_file()]
    stages.record(plan.output, STAGE, {"crp": plan.crp}, inputs=case.inputs, summary=summary, written=everything)
    return Artifact("relevance", plan.output / "relevance", {**_told(summary), "reused": False})


def _asked(plan: Plan) -> str:
    """What is asked of a gene, in words that are kept beside it."""
    crp = plan.crp
    pixels = f"; {crp.through_samples} tiles of each down to pixels by {crp.through_method}"
    return crp.codes + pixels * crp.through_encoder


def _told(summary: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in summary.items() if key != "files"}


def asked_genes(plan: Plan, heads: HeadFile) -> list[str]:
    """Return the genes that are asked for, or those that are predicted best."""
    import polars as pl

    for gene in plan.crp.gene:
        if gene not in heads.genes:
            remedy = near(gene, heads.genes)
            raise DataError(f"the heads have no gene {gene!r}", where=plan.output / "heads", remedy=remedy)
    if plan.crp.gene:
        return list(dict.fromkeys(plan.crp.gene))
    table = pl.read_parquet(plan.output / "heads" / "metrics.parquet", glob=False)
    best = table.sort("r2", descending=True, nulls_last=True, maintain_order=True)["gene"]
    return best.head(plan.crp.most_genes).to_list()


def _before(plan: Plan, case: Case) -> dict[str, Any]:
    """Return what an earlier run found with these very heads and rule; nothing where it used others."""
    from elute.base import run

    known = run.read(plan.output)["stages"].get(STAGE)
    if known is None or known["inputs"] != case.inputs:
        return {}
    mine = plan.crp.model_dump(mode="json")
    held = known["config"].get("crp", {})
    if any(held.get(key) != value for key, value in mine.items() if key not in _WHICH):
        return {}
    summary: dict[str, Any] = known["summary"]
    return summary


def explain_genes(plan: Plan, case: Case, genes: list[str], *, keep: bool) -> tuple[Found, list[Path]]:
    """Explain genes in passes over the codes, and write what was found."""
    from elute.analysis.relevance_files import write_relevance
    from elute.analysis.token_maps import token_maps

    chosen = _codes(plan, case, genes)
    relevances = _explain(plan, case, chosen)
    codes = [chosen[gene] for gene in genes]
    maps: list[Any] = []
    if plan.crp.per_token and "token_rc" in case.stream.store.manifest.columns:
        maps = token_maps(case.explained, case.stream, relevances, codes=codes, most=plan.crp.k, grid=_grid(plan))
    written = write_relevance(plan.output, relevances, maps, codes=codes, keep_others=keep)
    found: Found = {}
    for relevance, mine in zip(relevances, codes, strict=True):
        held = relevance.conservation
        told = {"asked": _asked(plan), "codes": mine, "n": held["n"], "worst_relative": held["worst_relative"]}
        found[relevance.gene] = (relevance, mine, told)
    if plan.crp.curve_samples:
        from elute.tissue.removing import removal_curves

        written += removal_curves(plan, case, found)
    return found, written


def _codes(plan: Plan, case: Case, genes: list[str]) -> dict[str, list[int]]:
    """Return the codes of each gene: those that are named, or those of most relevance."""
    from elute.analysis.relevance import top_number
    from elute.analysis.relevance_genes import relevance_by_gene

    text = plan.crp.codes
    if not text.startswith("top"):
        named = sorted({int(part) for part in text.split(",")})
        if lost := [code for code in named if code >= case.explained.n_codes]:
            what = f"there is no code {lost[0]} in {case.explained.n_codes:,} codes"
            raise DataError(what, where=plan.dictionary, remedy=f"Choose 0 to {case.explained.n_codes - 1}.")
        return dict.fromkeys(genes, named)
    most = top_number(text)
    every = relevance_by_gene(case.explained, case.stream, genes, rule=plan.crp.rule, k=1)
    return {gene: [int(code) for code in every.of(gene).top(most)] for gene in genes}


def _explain(plan: Plan, case: Case, chosen: dict[str, list[int]]) -> list[Relevance]:
    """Explain each gene in one pass over the codes, which are pooled once for all of them."""
    from elute.analysis.relevance import RelevancePass
    from elute.analysis.relevance_pooling import pool
    from elute.analysis.relevance_stream import whole_samples

    passes = {
        gene: RelevancePass(case.explained, {"y": gene}, rule=plan.crp.rule, k=plan.crp.k, per_sample=_PER_SAMPLE,
                            codes=codes)
        for gene, codes in chosen.items()
    }  # fmt: skip
    with console.progress("relevance", len(case.stream.names), unit="samples") as bar:
        for tokens in whole_samples(case.stream, case.explained):
            pairs = pool(tokens, case.explained.pool)
            for each in passes.values():
                each.update(tokens, pairs=pairs)
            bar.advance(len(tokens.samples))
    every = next(iter(passes.values())).totals.active
    if silent := sorted({code for codes in chosen.values() for code in codes if not every[code]}):
        console.warn(f"no sample has code {', '.join(map(str, silent[:5]))}: there are no references of it")
    return [each.result() for each in passes.values()]


def _grid(plan: Plan) -> tuple[int, int] | None:
    """The encoder's rows and columns of patches, where they are recorded."""
    path = plan.output / "encoder.json"
    held = files.read_json(path, what="what is recorded of the encoder") if path.exists() else {}
    grid = held.get("grid") if isinstance(held, dict) else None
    return (int(grid[0]), int(grid[1])) if isinstance(grid, list) and len(grid) == 2 else None

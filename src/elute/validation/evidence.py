"""Which rows of a database's table count as an association, by how good the evidence has to be.

Three levels: `all` keeps what the snapshot holds, `standard` what those who work with the database commonly ask for,
`strict` what hardly anybody would doubt. One table of rules says it for each database in a sentence, which goes into
the summary beside the counts of what was left out, step by step. A database without a rule keeps all.

A row that does not say how good it is does not pass a rule that asks for it: where a snapshot is a copy that lost it
(OMIM and Orphanet as HPO carries them), `strict` leaves nothing, and that is `not run`, not `no hits`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from elute.base.console import count
from elute.base.errors import ConfigError, DataError, MissingError, near

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.reading.obo import Ontology

Level = Literal["all", "standard", "strict"]
LEVELS: tuple[Level, ...] = get_args(Level)
ALL = "all associations of the snapshot"
_COPY = "HPO annotation"  # the evidence of OMIM's and Orphanet's pairs where they come with HPO's files
_GOOD_REVIEW = "practice guideline|expert panel|multiple submitters"
_REVIEW = f"{_GOOD_REVIEW}|single submitter|conflicting"
_COLUMNS = ("gene", "gene_kind", "term", "score", "evidence", "group")


class Step(NamedTuple):
    """One thing that is asked of a row."""

    without: str
    """Which rows it leaves out."""
    keep: Callable[[Any], Any]
    """Given polars, the expression that is true for a row that stays; null is false."""


class Rule(NamedTuple):
    """What a database's rows must be to count, at one level."""

    keeps: str
    """In a sentence; `{least}` stands for the least score."""
    least: float | None = None
    """The least score, asked for before all else; it can be chosen."""
    steps: tuple[Step, ...] = ()
    """Asked in order, each of the rows that the ones before it left."""
    above: bool = False
    """Whether rows inherited in an ontology stay as far as something below them does: that takes the ontology."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Rows that count, the rule, and what became of the others."""

    table: pl.DataFrame
    record: dict[str, Any]
    """For the summary: level, keeps, rows, kept, pairs, pairs_kept, left_out by step, and why nothing is left."""


def _in(column: str, *values: str) -> Callable[[Any], Any]:
    return lambda pl: pl.col(column).is_in(values)


def _says(pattern: str) -> Callable[[Any], Any]:
    return lambda pl: pl.col("evidence").str.contains(pattern)


def _says_not(pattern: str) -> Callable[[Any], Any]:
    return lambda pl: ~pl.col("evidence").fill_null("").str.contains(pattern)


def _reviewed(pl: Any) -> Any:
    """ClinVar's review status stands in rows of variants alone."""
    return (pl.col("group") != "variants") | pl.col("evidence").str.contains(_REVIEW)


def _replicated(pl: Any) -> Any:
    return pl.col("evidence").n_unique().over("gene", "term") >= 2


def _seen(least: float) -> Callable[[Any], Any]:
    """Phenotypes of HPO that are not stated to be rarer among patients: as n/m, in per cent or by a word."""

    def keep(pl: Any) -> Any:
        text = pl.col("evidence").fill_null("")
        seen, asked = (text.str.extract(r" (\d+)/(\d+)$", i).cast(pl.Float64) for i in (1, 2))
        percent = text.str.extract(r" ([\d.]+)%$").cast(pl.Float64, strict=False) / 100
        stated = pl.coalesce(pl.when(asked > 0).then(seen / asked), percent).fill_null(1.0)
        rare = text.str.contains(" occasional$| very rare$") if least >= 0.05 else pl.lit(value=False)
        return ~((pl.col("group") == "phenotype") & ((stated < least) | (stated == 0) | rare))

    return keep


def _either(pl: Any) -> Any:
    """A marker that several papers found, or one otherwise than by a list of one sequencing study."""
    otherwise = pl.col("evidence").str.contains("(?i)experiment|review|company")
    return (pl.col("score") >= 2).fill_null(value=False) | otherwise.fill_null(value=False)


def _mendelian(pl: Any) -> Any:
    return (pl.col("group") != "disease") | (pl.col("evidence") == "MENDELIAN")


def _rule(keeps: str, *steps: Step, least: float | None = None, above: bool = False) -> Rule:
    return Rule(keeps, least, steps, above)


def _scored(keeps: str, standard: float, strict: float) -> dict[Level, Rule]:
    return {"standard": _rule(keeps, least=standard), "strict": _rule(keeps, least=strict)}


_GWAS = "variants with −log10 p of {least} or more that lie in the gene or are mapped to it, not between two genes"
_BETWEEN = Step("of variants between two genes", lambda pl: pl.col("group").ne_missing("intergenic"))
_PHENOTYPES = Step("of modes of inheritance and courses", _in("group", "phenotype", "disease"))
_CANONICAL = Step("that are not called canonical", _says("^canonical marker$"))

RULES: Mapping[str, Mapping[Level, Rule]] = {
    "open-targets": _scored("associations with an overall score of {least} or more", 0.3, 0.5),
    "disgenet": _scored("curated associations with a score of {least} or more", 0.3, 0.5),
    "string-db": _scored("pairs with a combined score of {least} or more", 0.7, 0.9),
    "gwas-catalog": {
        "standard": _rule(_GWAS, _BETWEEN, least=7.3),
        "strict": _rule(
            f"{_GWAS}, found by two studies or more",
            _BETWEEN,
            Step("of traits that one study found", _replicated),
            least=7.3,
        ),
    },
    "clinvar": {
        "standard": _rule(
            "genes that ClinVar says cause a condition, and conditions of pathogenic variants with a review star",
            Step("of genes that merely lie in the variants", lambda pl: pl.col("group").ne_missing("related")),
            Step("of variants without a review star", _reviewed),
        ),
        "strict": _rule(
            "conditions of a gene's pathogenic variants with two review stars or more",
            Step("that no variant is counted for", _in("group", "variants")),
            Step("of variants with fewer than two review stars", _says(_GOOD_REVIEW)),
        ),
    },
    "gencc": {
        "standard": _rule("submissions classified as Moderate or higher (rank {least} of 5)", least=3.0),
        "strict": _rule(
            "submissions classified as Definitive (rank {least} of 5) that no other submitter contradicts",
            Step("that others dispute or refute", _says_not("; against: ")),
            least=5.0,
        ),
    },
    "go": {
        "standard": _rule("annotations by any evidence code, electronic ones among them"),
        "strict": _rule(
            "annotations with another code than IEA (electronic), and what is above these",
            Step("annotated electronically (IEA) alone, or above such alone", _says_not("^IEA$")),
            above=True,
        ),
    },
    "hpo": {
        "standard": _rule(
            "phenotypes that were seen in patients, without modes of inheritance and courses, and diseases",
            _PHENOTYPES,
            Step("of phenotypes seen in no patient (0/n)", _seen(0.0)),
        ),
        "strict": _rule(
            "phenotypes not stated to be seen in fewer than 30% of patients, and Mendelian diseases",
            _PHENOTYPES,
            Step("of phenotypes seen in fewer than 30% of patients", _seen(0.3)),
            Step("of diseases that are not called Mendelian", _mendelian),
        ),
    },
    "monarch": {
        "standard": _rule(
            "diseases that the gene causes, and phenotypes of these",
            Step("of diseases that it merely goes with", _in("group", "causal", "phenotype")),
        ),
        "strict": _rule(
            "diseases that the gene causes",
            Step("of phenotypes, or of diseases that it merely goes with", _in("group", "causal")),
        ),
    },
    "omim": {
        "standard": _rule(
            "phenotypes whose molecular basis is known (mapping key 3), or that HPO's copy carries, which has no keys",
            Step("with another mapping key", _says(rf"\(3\)|^{_COPY}$")),
        ),
        "strict": _rule(
            "diseases, not traits or susceptibilities, whose molecular basis is known (mapping key 3), not provisional",
            Step("with another mapping key, or none", _says(r"\(3\)")),
            Step("of traits and susceptibilities", _in("group", "disease")),
            Step("that are provisional", _says_not("^provisional")),
        ),
    },
    "orphanet": {
        "standard": _rule(
            "genes that cause a disorder or make prone to it, or that HPO's copy carries, which does not say which",
            Step("of modifiers, candidates and biomarkers", _in("group", "causal", "susceptibility", "disease")),
        ),
        "strict": _rule(
            "genes that cause a disorder, assessed by Orphanet's experts",
            Step("that are not said to be causal", _in("group", "causal")),
            Step("not assessed yet", _says_not("; ")),
        ),
    },
    "cellmarker": {
        "standard": _rule(
            "markers that two papers found, or one otherwise than by sequencing", Step("of one list alone", _either)
        ),
        "strict": _rule(
            "markers of normal cells that {least} papers or more found",
            Step("of cells of tumours", _in("group", "normal")),
            least=3.0,
        ),
    },
    "panglaodb": {
        "standard": _rule("canonical markers", _CANONICAL),
        "strict": _rule("canonical markers seen in a share of {least} of the type's cells", _CANONICAL, least=0.1),
    },
}
"""By database and level; `all`, and what is not here, keeps everything."""


def rule_of(source: str, level: Level = "standard", *, least: float | None = None) -> Rule:
    """Return the rule of a database at a level, with a least score of one's own if one is given."""
    if level not in LEVELS:
        raise ConfigError(f"there is no level {level!r} of evidence", remedy=near(str(level), LEVELS))
    rule = RULES.get(source.replace("_", "-"), {}).get(level) or Rule(ALL)
    if least is not None:
        keeps = rule.keeps if rule.least is not None else f"{rule.keeps}, with a score of {{least}} or more"
        rule = rule._replace(keeps=keeps, least=least)
    return rule if rule.least is None else rule._replace(keeps=rule.keeps.format(least=f"{rule.least:g}"))


def filter_evidence(
    table: pl.DataFrame,
    source: str,
    *,
    level: Level = "standard",
    least: float | None = None,
    ontology: Ontology | None = None,
) -> Kept:
    """Keep the rows of a database's table that count at a level; `least` is a least score of one's own.

    Strict rules of the Gene Ontology take the ontology: what is inherited stays as far as what it is inherited from.
    """
    import polars as pl

    if lacking := [name for name in _COLUMNS if name not in table.columns]:
        raise DataError(f"the table of associations has no column {lacking[0]!r}", where=source)
    rule = rule_of(source, level, least=least)
    steps, bound = rule.steps, rule.least
    if bound is not None:
        if len(table) and table["score"].null_count() == len(table):
            remedy = "Leave the least score out for it." if least is not None else "Use another level for it."
            raise ConfigError("has no scores to choose by", where=source, remedy=remedy)
        steps = (Step(f"with a score below {bound:g}, or none", lambda pl: pl.col("score") >= bound), *steps)
    if rule.above and ontology is None and len(table):
        what = f"evidence at the level {level} takes the ontology's own file, for what is inherited"
        raise MissingError(what, where=source, remedy="Use another level, or install the database anew.")
    kept, left = table, {}
    for step in steps:
        before = kept
        if rule.above and ontology is not None:
            kept = _with_those_above(kept, step.keep(pl), ontology)
        else:
            kept = kept.filter(step.keep(pl).fill_null(value=False))
        left[step.without] = len(before) - len(kept)
    return Kept(kept, _record(table, kept, rule, level=level, left=left))


def _with_those_above(table: pl.DataFrame, keep: pl.Expr, ontology: Ontology) -> pl.DataFrame:
    """Keep rows that somebody annotated and that may stay, and of the others those that one of these leads to."""
    import polars as pl

    keys = ["gene", "gene_kind", "term"]
    direct = table.filter((pl.col("evidence") != "inherited") & keep.fill_null(value=False)).select(keys).unique()
    reached = ontology.propagate(direct, parts=True)
    return table.join(reached, on=keys, how="semi", maintain_order="left")


def _record(table: pl.DataFrame, kept: pl.DataFrame, rule: Rule, *, level: str, left: dict[str, int]) -> dict[str, Any]:
    pairs, pairs_kept = (each.select("gene", "term").n_unique() if len(each) else 0 for each in (table, kept))
    why = f"none of {count(len(table), 'association')} is good enough ({rule.keeps})" if not len(kept) else ""
    return {
        "level": level,
        "keeps": rule.keeps,
        "rows": len(table),
        "kept": len(kept),
        "pairs": pairs,
        "pairs_kept": pairs_kept,
        "left_out": {what: n for what, n in left.items() if n},
        "why": why,
    }

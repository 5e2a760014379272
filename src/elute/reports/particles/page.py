"""The page about an evaluation: what fusion gains, what the controls gain, and where it errs.

report.html    one file that needs neither a network nor a server
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.reports.html import Markup, join, put
from elute.reports.leaf import facts
from elute.reports.particles import charts, fused_map, wording
from elute.reports.particles.document import page
from elute.reports.particles.original import FUSION
from elute.reports.tissue.markup import bare, el, listed, named, note, table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

NAME = "report.html"
_KINDS = {"source": "plain", "fusion": "observed", "baseline": "doubt", "control": "null"}
_SHOWN = ("map", "accuracy", "balanced_accuracy", "log_loss", "brier", "ece")


def write_page(
    path: Path,
    plain: Mapping[str, Any],
    *,
    places: fused_map.FusedMap,
    codes: NDArray[np.int64],
    inputs: Mapping[str, str] | None = None,
) -> None:
    """Write the page; `plain` is what an evaluation found, `inputs` the digests of the files that it read."""
    first, second = _confused(plain), _calibrated(plain)
    content = [
        *_intro(plain),
        _methods(plain),
        _questions(plain),
        _classes(plain),
        el("div", first, second, class_="pair"),
        el("div", _mapped(plain, places, codes), _gates(plain), class_="pair"),
        _made(plain, inputs or {}),
        _reading(),
    ]
    run = " + ".join(plain["sources"])
    put(path, page("Particles told apart: each source, and their fusion", run, [part for part in content if part]))


def _intro(plain: Mapping[str, Any]) -> list[Markup]:
    parts = []
    if plain["mark"]:
        why = "Rows of one class were paired at random: each particle is judged with the help of another one."
        parts.append(el("p", f"{plain['mark']}. {why}", class_="alarm", role="alert"))
    if wording.leaks(plain):
        parts.append(el("p", "A control that must gain nothing gains something: look for a leak.", class_="alarm"))
    parts += [el("p", bare(text, 400), class_="lead") for text in wording.lead(plain)]
    whole = "runs" if plain["grouped_by"] == "run" else "particles"
    parts.append(
        facts(
            [
                ("particles", f"{plain['n_samples']:,}"),
                ("classes", str(len(plain["classes"]))),
                ("folds", f"{plain['n_folds']} of whole {whole}"),
                (whole if whole == "runs" else "dealt one by one", f"{plain['n_groups']:,}"),
                ("paired by", plain["pairing"]["by"]),
                ("sources", listed([named(name, 30) for name in plain["sources"]])),
            ]
        )
    )
    return parts


def _methods(plain: Mapping[str, Any]) -> Markup:
    rows = [(one["title"], _KINDS[one["kind"]], one["overall"]["map"]) for one in plain["methods"].values()]
    heads: list[tuple[object, bool]] = [("method", False), *((wording.METRICS[name], True) for name in _SHOWN)]
    body = [
        [named(one["title"]), *(_cell(one["overall"][name]) for name in _SHOWN)] for one in plain["methods"].values()
    ]
    missing = [note(named(name), f" was not run: {why}.") for name, why in plain["not_run"].items()]
    unit = wording.METRICS["map"]
    return el(
        "section",
        el("h2", "All methods, in the same folds"),
        note("Blue: the fusion. Orange: other ways to use the same vectors. Grey: sources alone; lighter: controls. "
             "Intervals are 95%, by bootstrap over ", "runs." if plain["grouped_by"] == "run" else "particles."),
        charts.whiskers("methods", f"{unit} of every method", rows, unit=unit, ends=charts.span(rows)),
        table(heads, body, label="Scores of every method"),
        *missing,
    )  # fmt: skip


def _cell(told: Mapping[str, Any]) -> Markup:
    inside = wording.ranged(told)
    return join([wording.three(told["estimate"]), el("span", f" {inside}", class_="dim") if inside else ""])


def _questions(plain: Mapping[str, Any]) -> Markup:
    asked = [one for one in plain["comparisons"] if one["metric"] == "map"]
    rows = [(_pair(plain, one), _mark(plain, one), one["difference"]) for one in asked]
    heads: list[tuple[object, bool]] = [
        ("question", False), ("difference", True), ("95%", True), ("t-test over folds", True), ("permutation", True),
        ("", False),
    ]  # fmt: skip
    body = [_asked(one, evidence=plain["evidence"]) for one in asked]
    said = "The p-values are corrected for all questions of this table (Holm). The t-test knows that folds overlap."
    title = "Differences of macro average precision"
    return el(
        "section",
        el("h2", "What is better than what"),
        note(said),
        charts.whiskers("questions", title, rows, unit="difference of macro average precision",
                        ends=charts.span(rows, zero=True)),
        table(heads, body, label=title),
    )  # fmt: skip


def _asked(one: Mapping[str, Any], *, evidence: bool) -> list[object]:
    told = one["difference"]
    p_values = [wording.p_value(one[name]) for name in ("p_t_holm", "p_permutation_holm")]
    return [
        _question(one),
        wording.signed(told["estimate"]),
        wording.ranged(told) or "–",
        *p_values,
        _verdict(one, evidence),
    ]


def _question(one: Mapping[str, Any]) -> str:
    """What is asked; of the control that keeps classes, what it really shows: true gain and invented gain together."""
    if one["first"] == wording.WITHIN:
        return "What would an evaluation with rows paired by label show as the gain?"
    return bare(one["question"], 200)


def _verdict(one: Mapping[str, Any], evidence: bool) -> Markup:
    """Whether the first is better; of controls, whether they gain what they must not."""
    word = wording.verdict(one)
    kind = {wording.GAINS: "gains", wording.LOSES: "loses"}.get(word, "apart")
    if one["first"] == wording.WITHIN or not evidence:
        word, kind = "no evidence", "none"
    elif one["first"] == wording.ACROSS:
        low = one["difference"]["low"]
        word, kind = ("gains nothing", "gains") if low is None or low <= 0 else ("gains: a leak?", "loses")
    return el("span", word, class_=f"verdict {kind}")


def _pair(plain: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    titles = {name: found["title"] for name, found in plain["methods"].items()}
    titles |= {FUSION: "fusion", wording.ACROSS: "permuted", wording.WITHIN: "permuted in classes"}
    return f"{titles.get(one['first'], one['first'])} − {titles.get(one['second'], one['second'])}"


def _mark(plain: Mapping[str, Any], one: Mapping[str, Any]) -> str:
    return "observed" if plain["methods"].get(one["first"], {}).get("kind") == "fusion" else "null"


def _classes(plain: Mapping[str, Any]) -> Markup:
    names = [*plain["sources"], FUSION]
    size = dict(zip(plain["classes"], plain["class_sizes"], strict=True))
    rows: list[charts.Row] = []
    for label in plain["classes"]:
        for name in names:
            one = plain["methods"][name]
            title = f"{label}: {'fusion' if name == FUSION else name}"
            rows.append((title, _KINDS[one["kind"]], one["per_class"][label]["ap"]))
    heads: list[tuple[object, bool]] = [("class", False), ("particles", True)]
    heads += [(f"average precision, {name}", True) for name in names] + [("precision", True), ("recall", True)]
    body = []
    for label in plain["classes"]:
        fused = plain["methods"][FUSION]["per_class"][label]
        body.append([
            named(label), f"{size[label]:,}",
            *(_cell(plain["methods"][name]["per_class"][label]["ap"]) for name in names),
            _cell(fused["precision"]), _cell(fused["recall"]),
        ])  # fmt: skip
    return el(
        "section",
        el("h2", "Class by class"),
        note("Average precision of each source alone and of the fusion; precision and recall are the fusion's."),
        charts.whiskers("classes", "Average precision of each class", rows, unit="average precision",
                        ends=charts.span(rows)),
        table(heads, body, label="Scores of every class"),
    )  # fmt: skip


def _confused(plain: Mapping[str, Any]) -> Markup:
    counts = plain["methods"][FUSION]["confusion"]
    return el(
        "section",
        el("h2", "Which class is taken for which"),
        note("The fusion on held-out particles; shares of each true class in percent."),
        charts.confusion(counts, plain["classes"]),
    )


def _calibrated(plain: Mapping[str, Any]) -> Markup:
    one = plain["methods"][FUSION]
    told = wording.with_interval(one["overall"]["ece"])
    return el(
        "section",
        el("h2", "Whether its probabilities are right"),
        note(f"Expected calibration error {told}."),
        charts.calibration(one["calibration"], "How often the most probable class is right"),
    )


def _mapped(plain: Mapping[str, Any], places: fused_map.FusedMap, codes: NDArray[np.int64]) -> Markup:
    inside = fused_map.drawn(places, codes, plain["classes"], of=plain["n_samples"])
    return el("section", el("h2", "The fused space"), inside)


def _gates(plain: Mapping[str, Any]) -> Markup | None:
    told = plain["gates"]
    if told is None:
        return None
    heads: list[tuple[object, bool]] = [("class", False), *((named(name, 24), True) for name in told["sources"])]
    body = [[named(label), *map(wording.three, means)] for label, means in told["per_class"].items()]
    body.append(["all", *map(wording.three, told["mean"])])
    return el(
        "section",
        el("h2", "How much each source counts"),
        note("Mean gate of each source on held-out particles, between 0 and 1. A gate says how the network weighs a "
             "source, not how much it knows: what follows it can make up for any gate."),
        table(heads, body, label="Mean gates", cards=False),
    )  # fmt: skip


def _made(plain: Mapping[str, Any], inputs: Mapping[str, str]) -> Markup:
    pairing = plain["pairing"]
    rows: list[Sequence[object]] = [
        ["particles that all sources have", f"{pairing.get('matched', plain['n_samples']):,}"]
    ]
    for kind, told in (("unmatched", "not matched"), ("ambiguous", "ambiguous")):
        for name, n in pairing.get(kind, {}).items():
            rows.append([join([f"{told}, of ", named(name, 40)]), f"{n:,}"])
    if "tolerance" in pairing:
        rows.append(["tolerance, Å", f"{pairing['tolerance']:g}"])
    rows.append(["particles of a fold", ", ".join(f"{n:,}" for n in plain["fold_sizes"])])
    sources = [
        [named(name, 40), str(one["width"]), el("code", one["digest"][:16] or "–")]
        for name, one in plain["sources"].items()
    ]
    return el(
        "section",
        el("h2", "What this was made of"),
        table([("pairing", False), ("", True)], rows, label="How particles were paired", cards=False),
        table([("source", False), ("numbers a particle", True), ("digest of its files", False)], sources,
              label="Sources", cards=False),
        *(note(bare(text[0].upper() + text[1:], 400), ".") for text in plain["notes"] if text),
        *(note(f"{name}: ", el("code", digest[:16])) for name, digest in inputs.items()),
    )  # fmt: skip


def _reading() -> Markup:
    said = [
        (
            "Macro average precision: how well the probability of each class puts its own particles first; the mean "
            "over classes. 1 is perfect; chance is a class's share."
        ),
        (
            "Every fit (scalers, fusion, classifier) saw the training part of its fold alone. The classifier of a "
            "learnt fusion was fitted to vectors whose network had not seen them."
        ),
        "Permuted across all classes: the same fusion, the last source's rows dealt out anew. It must gain nothing.",
        (
            "Permuted within classes: dealt out anew among particles of one class. What this gains beyond the fusion "
            "is what pairing rows by their label would have invented."
        ),
        "A gain is called one where its interval lies above 0 and both tests, corrected for all questions, agree.",
    ]
    return el("section", el("h2", "How to read this"), el("ul", *(el("li", text) for text in said), class_="note"))

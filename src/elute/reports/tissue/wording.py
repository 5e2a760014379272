"""What the pages say of their numbers, and how to read them."""

from __future__ import annotations

from typing import Any

import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue.markup import bare, el, note
from elute.reports.tissue.reading import Findings
from elute.reports.validation_svg import number

COEFFICIENTS = (
    "Of the head that was fitted on all patients, on the codes as they are. The 95 % intervals (jackknife) and the "
    "share with this sign are of the folds’ heads. Codes that fire together share their weight, so that a small "
    "coefficient does not say that a code is of no matter."
)
MAPS = (
    "Each sample as it was predicted when its patient was held out. Measured and predicted share one scale over all "
    "sections; the residual is what was measured beyond the prediction. Point at a sample, or use the arrow keys, for "
    "its numbers."
)
LINEAR = (
    "The head is linear in the codes. For such a head, un-normalised RelMax puts the tiles of a code with a positive "
    "weight in the same order as ActMax, where it fires most: it tells which way and how much, not other tiles."
)
PIXELS = (
    "A tile with a dashed frame stands once more for its pixels: relevance was followed down through the encoder, from "
    "none (clear) to the strongest pixels of this tile (full). What is not in its pixels lies in what the encoder adds "
    "whatever it sees: biases and positions."
)
METHODS = {"lrp": "attention-aware LRP", "integrated_gradients": "integrated gradients"}
NOT_DEFINED = (
    "– is not defined: where all samples of a fold are predicted alike, as by the mean predictor, or were measured "
    "alike, there is neither a correlation nor a slope."
)
_CONSERVED = 1e-4


def amount(value: float | None) -> str:
    """A quantity with two digits that count, also where they are noughts."""
    if value is None or value != value:
        return "–"
    if value == 0 or not 0.001 <= abs(value) < 100:
        return number(value)
    return f"{value:#.2g}".rstrip(".").replace("-", "−")


def not_defined(model: str) -> Markup:
    """A score that is not defined, with the reason."""
    alike = "the mean predictor gives all samples of a fold one value"
    told = alike if model == "mean" else "all samples of a fold are predicted alike, or were measured alike"
    return el("span", "–", title=f"not defined: {told}", class_="dim")


def css(word: str) -> str:
    """A verdict as the name of a class."""
    return "v-" + word.replace(" ", "-")


def share(value: float | None) -> str:
    """A share in percent."""
    if value is None or value != value:
        return "–"
    if abs(value) < 0.001:
        return "< 0.1 %" if value else "0 %"
    return f"{100 * value:.1f} %".replace("-", "−") if abs(value) < 0.1 else f"{100 * value:.0f} %".replace("-", "−")


def relevance_share(row: dict[str, Any], what: str = "") -> str:
    """A code's share of all relevance, beside that of another that is about as active."""
    own, other = row.get("mean_absolute"), row.get("control_mean_absolute")
    told = f"{share(row['share'])}{what}"
    if row["share"] is None or not own or other is None:
        return told
    beside = share(row["share"] * other / own)
    return f"{told} (a code as active: {beside})" if what else f"{told} ({beside})"


def coefficient(row: dict[str, Any]) -> str:
    """A coefficient in a line."""
    low, high = row["low"], row["high"]
    ends = "" if low is None or high is None else f" ({amount(low)} to {amount(high)})"
    told = "" if row["stability"] is None else f", same sign in {share(row['stability'])} of folds"
    return f"coefficient {amount(row['coefficient'])}{ends}{told}"


def short(name: str) -> str:
    """A name within a list."""
    return bare(name, 40)


def conserved(found: Findings, gene: str) -> Markup | None:
    """Whether relevance adds up to what it explains."""
    rows = found.conservation.filter(pl.col("gene") == gene)
    if rows.is_empty():
        return note("Whether relevance adds up to the prediction was not recorded.")
    row = rows.row(0, named=True)
    worst = row["worst_relative"]
    whole = worst is not None and worst <= _CONSERVED
    shares = f"the bias’s share ({share(row['bias_share'])}) and the rest of ε ({share(row['epsilon_share'])})"
    ends = f"in each of {number(row['n'])} samples" if whole else "only roughly"
    told = f"Relevance, {shares} add up to the explained output {ends}: off by at most {number(worst, 1)} of it."
    return note(told) if whole else el("p", told, class_="alarm")


def linear(found: Findings, gene: str) -> Markup | None:
    """For linear heads: that RelMax orders like ActMax, and whether it does here."""
    if not found.is_linear(gene):
        return None
    of = found.refs.filter((pl.col("gene") == gene) & (pl.col("target") == "sum") & (pl.col("sign") == "+"))
    weights = found.coefficients.filter((pl.col("gene") == gene) & (pl.col("coefficient") > 0)).select("code")
    both = of.join(weights, on="code", how="semi").sort("code", "kind", "rank")
    lists = both.group_by("code", "kind", maintain_order=True).agg("sample_id")
    pairs = lists.pivot("kind", index="code", values="sample_id", aggregate_function="first")
    if not {"relmax", "actmax"} <= set(pairs.columns):
        return note(LINEAR)
    pairs = pairs.drop_nulls(["relmax", "actmax"])
    same = sum(a == b for a, b in pairs.select("relmax", "actmax").iter_rows())
    return note(
        LINEAR,
        f" Here: the same samples in the same order for {same} of {len(pairs)} such codes." if len(pairs) else "",
    )


def tile_tools(*, pixels: bool = False) -> Markup:
    """How maps lie over tiles; `pixels` says that some are of pixels."""
    slider = el("input", id="opacity", type="range", min="0", max="100", value="45", step="5")
    box = el("input", id="grey", type="checkbox")
    key = el(
        "span",
        el("span", "raises", class_="swatch raises"),
        el("span", "lowers", class_="swatch lowers"),
        el("span", "strongest patch", class_="swatch peak-key"),
        el("span", "of pixels", class_="swatch pixel-key") if pixels else None,
        class_="keys",
    )
    hint = el("span", "Point at a tile to see it bare; open it to see it large.", class_="dim hint")
    return el(
        "div",
        el("label", "Map over tile ", slider, el("output", "45 %", id="opacity-told", for_="opacity")),
        el("label", box, " tiles in grey", class_="tick"),
        key,
        hint,
        class_="tile-tools",
        role="group",
        aria_label="How maps lie over tiles",
    )


def _terms(title: str, terms: dict[str, str]) -> Markup:
    inner = [el("div", el("dt", name), el("dd", told)) for name, told in terms.items()]
    return el("details", el("summary", title), el("dl", *inner, class_="how"))


def how_to_read_gene() -> Markup:
    """What each number of a gene's page means, and what it is held against."""
    return el("section", _terms("How to read this page", {**SCORES, **RELEVANCE}), class_="reading")


def how_to_read_code() -> Markup:
    """What each number of a code's page means."""
    return el("section", _terms("How to read this page", RELEVANCE), class_="reading")


SCORES = {
    "held-out patients": "Every number is of samples whose patient (or site) the head had not seen, fold by fold.",
    "R² and its interval": (
        "The share of the squares that is told, beyond what the training patients’ mean tells; below 0 it is worse "
        "than that. The 95 % interval is over patients, whose samples are alike; of fewer than three patients over "
        "samples, and then too narrow."
    ),
    "Pearson and Spearman": "Within each held-out fold, the mean over folds.",
    "within sections": (
        "Pearson within each section, the mean over sections: differences between slides do not count."
    ),
    "deviance explained": "The same share by the head’s own loss, for counts.",
    "calibration slope": (
        "1 where predictions are neither too bold (below 1) nor too timid (above 1). What predicts all samples of a "
        "fold alike, as the mean predictor does, has none (–)."
    ),
    "dense embedding": (
        "256 principal components of the embedding and ridge: what there was to know. No control, but what the codes "
        "were made from."
    ),
    "random-weight encoder": "The same with an encoder that learnt nothing.",
    "spatial neighbours": (
        "The mean of what was measured in the nearest samples of the section. No head sees that: where a part of a "
        "section has been measured, this is what smoothness tells of the rest."
    ),
    "shuffled patients": "The same head on codes dealt out anew over all patients: what chance gives.",
    "not told apart": (
        "The intervals overlap. That is no proof that there is no difference: they are those of each score, not of "
        "the difference."
    ),
}
RELEVANCE = {
    "relevance": (
        "What a code adds to the explained output (for counts: the logarithm of the mean, without the offset of the "
        "library size), or takes from it. Together with the bias it adds up to the output."
    ),
    "share of relevance": (
        "A code’s part of all relevance without regard to sign. Beside it: that of another code about as active, "
        "drawn at random, which is what activity alone gives."
    ),
    "RelMax": (
        "The samples in which a code’s relevance is largest; raising and lowering are listed apart, and end at zero."
    ),
    "ActMax": "The samples in which a code fires most, whatever it does to a gene.",
    "map over a tile": (
        "The relevance of each patch, from none (clear) to the largest of the strip (full): yellow raises, light blue "
        "lowers. The outlined patch is the strongest."
    ),
    "pixels": (
        "The same followed down through the encoder, for the first references of a code, where that was asked for: a "
        "tile with a dashed frame. How much of the relevance lies in the pixels is told below it."
    ),
    "of all tiles": "How frequent a tissue is anyway: a code that finds it has to show it more often than that.",
    "half of the strongest or more": (
        "Patches with at least half of the strongest one’s relevance, and their area where the size of a pixel is "
        "known."
    ),
}


def joined(parts: list[object]) -> Markup:
    """Pieces one after another, without those that are nothing."""
    return join([part for part in parts if part is not None])


def how_to_read_index() -> Markup:
    """What each number of the index means."""
    verdicts = {
        "● above its controls": "The interval of the sparse head lies above the interval of every control.",
        "◐ not told apart": "Higher than every control, but not clearly, or of fewer than three patients.",
        "○ no better than a control": "Codes of an encoder with random weights do as well.",
        "○ not predicted": (
            "The interval holds 0, or shuffled patients or the mean do as well. Of what is not predicted, the codes "
            "explain noise."
        ),
    }
    return el("section", _terms("How to read this page", {**verdicts, **SCORES}), class_="reading")

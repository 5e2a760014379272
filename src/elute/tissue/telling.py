"""What came of each stage, in lines for a person."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from elute.base import console
from elute.base.console import count

Answer = Mapping[str, Any]


def lines(stage: str, answer: Answer) -> list[str]:
    """Say what a stage found."""
    if stage == "run":
        return _run(answer)
    told = _LINES[stage](answer)
    again = " (already there)" if answer.get("reused") else ""
    return [f"{answer['path']}: {told[0]}{again}", *told[1:]]


def _run(answer: Answer) -> list[str]:
    found: list[str] = []
    for stage, tell in _LINES.items():
        if stage in answer:
            first, *rest = tell(answer[stage])
            found += [f"{stage}: {first}", *rest]
    return [*found, "", f"Open {answer['path']}/report/index.html in a browser."]


def _embed(answer: Answer) -> list[str]:
    if "rows" not in answer:
        return ["no embeddings are written (output_embeddings: false)"]
    text = f"{answer['rows']:,} rows × {answer['width']:,} of {count(answer['tiles'], 'tile')}"
    parts = [f"{name} {count(held['groups'], 'group')}" for name, held in answer.get("splits", {}).items()]
    return [f"{text}; {', '.join(parts)}" if parts else text]


def _sae(answer: Answer) -> list[str]:
    text = f"{answer['features']:,} codes, {answer['never_fired']:,} never fired"
    if "explained_variance" in answer:
        text += f", explains {answer['explained_variance']:.1%} of training rows"
    return [text]


def _codes(answer: Answer) -> list[str]:
    if not answer["cached"]:
        return [f"codes of {answer['rows']:,} rows are made when they are read"]
    return [f"codes of {answer['rows']:,} rows, up to {answer['k']} of {answer['features']:,} a row"]


def _heads(answer: Answer) -> list[str]:
    known = f"{count(answer['genes'], 'gene')} on {count(answer['samples'], 'sample')} of {answer['groups']:,} patients"
    found = [f"{known}, {answer['folds']} folds"]
    for name, row in answer["scores"].items():
        found.append(f"  {name:<18} {_scores(row)}")
    return found + [f"  {note}" for note in answer.get("notes", ())]


def _scores(row: Any) -> str:
    if not isinstance(row, Mapping):
        return str(row)
    shown = {"r2": "R²", "pearson": "Pearson", "spearman": "Spearman"}
    told = [f"{word} {'–' if row.get(key) is None else format(row[key], '.3f')}" for key, word in shown.items()]
    alike = any(row.get(key) is None for key in shown)
    return ", ".join(told) + " (– is not defined: all samples of a fold are predicted alike)" * alike


def _crp(answer: Answer) -> list[str]:
    worst = answer["worst_relative"]
    text = f"{count(len(answer['genes']), 'gene')}, {count(answer['codes'], 'code')} with references"
    found = [f"{text}; relevance adds up to each prediction within {worst:.1e} of it"]
    held = [told["faithful"] for told in answer["explained"].values() if "faithful" in told]
    for unit in ("codes", "patches"):
        sure = [each[unit] for each in held if "gain_low" in each.get(unit, {})]
        better = sum(told["gain_low"] > told["control_high"] for told in sure)
        if sure:
            found.append(
                f"  {unit} removed by relevance change more than at random for {better:,} of {len(sure):,} genes"
            )
    return found


def _reports(answer: Answer) -> list[str]:
    size = answer.get("bytes")
    return [f"{answer.get('pages', '')} pages" + (f", {console.size(size)}" if isinstance(size, int) else "")]


_LINES: dict[str, Callable[[Answer], list[str]]] = {
    "embed_export": _embed, "train_sae": _sae, "extract_codes": _codes, "train_heads": _heads,
    "crp_relmax": _crp, "make_reports": _reports,
}  # fmt: skip

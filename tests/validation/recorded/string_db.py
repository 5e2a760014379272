"""Answers of STRING's service (version 12) in their real shape; composed for tests."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from elute.validation.database import Gene

GENES = [
    Gene("ARF5", "HGNC:658", "381", "ENSG00000004059", "P84085"),
    Gene("MARCHF1", "HGNC:26077", "55016", "ENSG00000145416", "Q8TCQ1"),
    Gene("M6PR", "HGNC:6752", "4074", "ENSG00000003056", "P20645"),
    Gene("NOSUCHGENE", "", "", "", ""),
]
PROTEINS = {  # symbol asked for → protein, and what STRING calls it
    "ARF5": ("9606.ENSP00000000233", "ARF5"),
    "MARCHF1": ("9606.ENSP00000427223", "MARCH1"),
    "M6PR": ("9606.ENSP00000000412", "M6PR"),
}
PAIRS = [
    ("ARF5", "9606.ENSP00000493357", "GGA1", 0.471),
    ("ARF5", "9606.ENSP00000000412", "M6PR", 0.992),
    ("M6PR", "9606.ENSP00000000233", "ARF5", 0.992),
    ("M6PR", "9606.ENSP00000356607", "IGF2", 0.4),
    ("MARCHF1", "9606.ENSP00000264246", "CD80", 0.812),
]
EXPECTED = len(PAIRS)
HOST = "version-12-0.string-db.org/api/json/"


def _json(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "text/json; charset=utf-8"}, json.dumps(value).encode()


def _form(request: Any) -> dict[str, str]:
    form = {name: values[0] for name, values in parse_qs(request.body.decode(), keep_blank_values=True).items()}
    assert form["species"] == "9606"
    assert form["caller_identity"]
    return form


def _identifiers(request: Any) -> tuple[int, dict[str, str], bytes]:
    return _json(
        [
            {
                "queryIndex": place,
                "stringId": PROTEINS[symbol][0],
                "ncbiTaxonId": 9606,
                "taxonName": "Homo sapiens",
                "preferredName": PROTEINS[symbol][1],
                "annotation": "A protein; of which something is known.",
            }
            for place, symbol in enumerate(_form(request)["identifiers"].split("\r"))
            if symbol in PROTEINS
        ]
    )


def _partners(request: Any) -> tuple[int, dict[str, str], bytes]:
    form = _form(request)
    asked = form["identifiers"].split("\r")
    rows = []
    for symbol, other, name, score in PAIRS:
        protein, called = PROTEINS[symbol]
        if protein in asked and score >= int(form["required_score"]) / 1000:
            channels = dict.fromkeys(("nscore", "fscore", "pscore", "ascore", "escore", "dscore", "tscore"), 0)
            pair = {"stringId_A": protein, "stringId_B": other, "preferredName_A": called, "preferredName_B": name}
            rows.append({**pair, "ncbiTaxonId": 9606, "score": score, **channels})
    return _json(rows)


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers; a symbol that is not known there is left out."""
    return {("POST", f"{HOST}get_string_ids"): _identifiers, ("POST", f"{HOST}interaction_partners"): _partners}

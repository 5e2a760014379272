"""Answers of Open Targets' GraphQL in their real shape; composed for tests."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("IL13", "HGNC:5973", "3596", "ENSG00000169194", "P35225"),
    Gene("MYH7", "HGNC:7577", "4625", "ENSG00000092054", "P12883"),
    Gene("TNNT2", "HGNC:11949", "7139", "ENSG00000118194", "P45379"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),
    Gene("NOWHERE", "", "", "ENSG00000999999", ""),
]
LIMIT = 4000  # what a query may cost there
_KINDS = ("genetic_association", "literature", "known_drug")


def _row(place: int, disease: str, name: str) -> dict[str, Any]:
    score = 0.73 / (1 + place / 10)
    kinds = [{"id": kind, "score": score / (i + 1)} for i, kind in enumerate(_KINDS[: 1 + place % 3])]
    return {"score": score, "disease": {"id": disease, "name": name}, "datatypeScores": kinds[::-1]}


_IL13 = [_row(0, "EFO_0000274", "atopic eczema"), _row(1, "MONDO_0004979", "asthma")]
_IL13 += [_row(i, f"MONDO_{i:07d}", f"disease {i}") for i in range(2, 901)]
ROWS = {
    "ENSG00000169194": ("IL13", _IL13),
    "ENSG00000092054": ("MYH7", [_row(0, "Orphanet_154", "dilated cardiomyopathy")]),
    "ENSG00000118194": ("TNNT2", [_row(i, f"HP_{i:07d}", f"sign {i}") for i in range(40)]),
    "ENSG00000111640": ("GAPDH", []),
}
EXPECTED = 901 + 1 + 40


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers; a gene that is not known there is left out of the list."""

    def graphql(request: Any) -> tuple[int, dict[str, str], bytes]:
        asked = json.loads(request.body)
        told = asked["variables"]
        wants_rows = "rows" in asked["query"]
        size, index = told.get("size", 1), told.get("index", 0)
        cost = len(told["ids"]) * (2 + size * (9 if wants_rows else 1))
        if cost > LIMIT or size > 3000:
            return _json({"data": None, "errors": [{"message": "Query is too expensive."}]}, status=400)
        targets = []
        for gene in dict.fromkeys(told["ids"]):
            if gene not in ROWS:
                continue
            symbol, rows = ROWS[gene]
            found: dict[str, Any] = {"id": gene, "associatedDiseases": {"count": len(rows)}}
            if wants_rows:
                found["approvedSymbol"] = symbol
                found["associatedDiseases"]["rows"] = rows[index * size : (index + 1) * size]
            targets.append(found)
        return _json({"data": {"targets": targets}})

    return {("POST", "api.platform.opentargets.org/api/v4/graphql"): graphql}


def _json(value: Any, *, status: int = 200) -> tuple[int, dict[str, str], bytes]:
    return status, {"Content-Type": "application/json"}, json.dumps(value).encode()

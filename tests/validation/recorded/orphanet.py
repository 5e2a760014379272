"""Answers of Orphadata's service in its real shape; composed for tests."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("KIF7", "HGNC:30497", "374654", "ENSG00000166813", "Q2M1P5"),
    Gene("C9orf72", "HGNC:28337", "203228", "ENSG00000147894", "Q96LT7"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),
]
EXPECTED = 4


def _disorder(code: int | str, name: str, links: list[tuple[str, str, str, str]]) -> dict[str, Any]:
    return {
        "ORPHAcode": code,
        "Preferred term": name,
        "Date": "2026-06-23 07:53:50",
        "DisorderGroup": "Disorder",
        "DisorderType": "Disease",
        "OrphanetURL": f"http://www.orpha.net/consor/cgi-bin/OC_Exp.php?lng=en&Expert={code}",
        "DisorderGeneAssociation": [
            {
                "DisorderGeneAssociationStatus": status,
                "DisorderGeneAssociationType": kind,
                "SourceOfValidation": "22587682[PMID]",
                "Gene": {
                    "Symbol": symbol,
                    "name": "a gene",
                    "GeneType": "gene with protein product",
                    "ExternalReference": [
                        {"Reference": symbol, "Source": "ClinVar"},
                        {"Reference": hgnc, "Source": "HGNC"},
                    ],
                    "Locus": [{"GeneLocus": "15q26.1", "LocusKey": "1"}],
                    "Synonym": [],
                },
            }
            for symbol, hgnc, kind, status in links
        ],
    }


_CAUSAL = "Disease-causing germline mutation(s) in"
_SAID = {
    "kif7": [
        _disorder(166024, "Multiple epiphyseal dysplasia, Al-Gazali type", [("KIF7", "30497", _CAUSAL, "Assessed")]),
        _disorder(
            "475",
            "Joubert syndrome",
            [
                ("AHI1", "21575", _CAUSAL, "Assessed"),
                ("KIF7", "30497", "Candidate gene tested in", "Not yet assessed"),
                ("KIF7", "30497", "Modifying germline mutation in", "Assessed"),
            ],
        ),
    ],
    "c9orf72": _disorder(803, "Amyotrophic lateral sclerosis", [("C9orf72", "28337", _CAUSAL, "Assessed")]),
}


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers: symbols in small letters alone, one disorder as an object, several in a list."""

    def symbols(request: Any) -> tuple[int, dict[str, str], bytes]:
        found = _SAID.get(request.path.rsplit("/", 1)[1])
        if found is None:
            return 404, {"Content-Type": "application/json"}, b'{"detail": "No data found", "status": 404}'
        licence = {"identifier": "CC-BY-4.0", "fullName": "Creative Commons Attribution 4.0 International"}
        count = len(found) if isinstance(found, list) else 1
        body = {"data": {"__count": count, "__licence": licence, "results": found}}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    return {("GET", "api.orphadata.com/rd-associated-genes/genes/symbols/*"): symbols}

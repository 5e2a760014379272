"""Answers of DisGeNET's service in their real shape; composed for tests: nothing of its data may be passed on."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("ALFA", "HGNC:1", "1001", "ENSG00000000001", "P00001"),
    Gene("BETA", "HGNC:2", "1002", "ENSG00000000002", "P00002"),
    Gene("GAMMA", "HGNC:3", "1003", "ENSG00000000003", "P00003"),  # known, and of nothing
]
KEY = "a-key-that-nobody-may-see"
_PAGE = 100
EXPECTED = 231


def _row(gene: Gene, number: int) -> dict[str, Any]:
    return {
        "assocID": 9000 + number,
        "symbolOfGene": gene.symbol,
        "geneNcbiID": int(gene.entrez),
        "geneEnsemblIDs": [gene.ensembl],
        "geneNcbiType": "protein-coding",
        "geneDSI": 0.5,
        "diseaseVocabularies": ["MONDO_0000001"],
        "diseaseName": f"Made-up disease {number}",
        "diseaseType": "disease" if number % 2 else "phenotype",
        "diseaseUMLSCUI": f"C{number:07d}",
        "diseaseClasses_MSH": [],
        "score": 1 if number == 1 else round(1 - number / 400, 3),
        "ei": None if number % 3 else 0.9,
        "el": None if number % 5 else "Definitive",
        "numPMIDs": number,
        "yearInitial": 1999,
    }


_ROWS = [_row(GENES[number % 2], number) for number in range(1, EXPECTED + 1)]


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers: a hundred rows a page."""

    def summary(request: Any) -> tuple[int, dict[str, str], bytes]:
        kind = {"Content-Type": "application/json"}
        if request.headers.get("authorization") != KEY:
            return 401, kind, json.dumps({"status": "UNAUTHORIZED", "payload": {"details": "no such key"}}).encode()
        assert request.one("source") == "CURATED"
        wanted = set(request.one("gene_ncbi_id").split(","))
        assert len(wanted) <= 10, "trial accounts are refused more"
        number = int(request.one("page_number"))
        mine = [row for row in _ROWS if str(row["geneNcbiID"]) in wanted]
        page = mine[number * _PAGE : (number + 1) * _PAGE]
        paging = {
            "pageSize": _PAGE,
            "totalElements": len(mine),
            "totalElementsInPage": len(page),
            "currentPageNumber": number,
        }
        warnings = ["With an academic account only curated sources are given"]
        answer = {"status": "OK", "httpStatus": 200, "paging": paging, "warnings": warnings, "payload": page}
        return 200, kind, json.dumps(answer).encode()

    return {("GET", "api.disgenet.com/api/v1/gda/summary"): summary}

"""Answers of OMIM's service in its real shape, with made-up diseases: OMIM's rows may not be given out."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("KIF7", "HGNC:30497", "374654", "ENSG00000166813", "Q2M1P5"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),
]
KEY = "not-a-real-key"
EXPECTED = 4


def _phenotype(name: str, mim: object, key: object, inheritance: str | None, gene: str) -> dict[str, Any]:
    return {
        "phenotypeMap": {
            "mimNumber": gene,
            "phenotype": name,
            "phenotypeMimNumber": mim,
            "phenotypeMappingKey": key,
            "phenotypeInheritance": inheritance,
            "phenotypicSeriesNumber": None,
        }
    }


def _entry(mim: str, **more: Any) -> dict[str, Any]:
    return {
        "entry": {
            "prefix": "#",
            "mimNumber": mim,
            "status": "live",
            "titles": {"preferredTitle": "A TITLE; AT"},
            **more,
        }
    }


def _kif7() -> list[dict[str, Any]]:
    phenotypes = [
        _phenotype("Made-up syndrome 1", "900001", "3", "Autosomal recessive", "911254"),
        _phenotype("{?Made-up disease, susceptibility to}", 900002, 2, None, "911254"),
        _phenotype("[Made-up trait]", None, "1", "", "911254"),
        _phenotype("?Made-up syndrome 2", "900003", "3", "Autosomal dominant; Somatic mutation", "911254"),
    ]
    gene = {
        "mimNumber": "911254",
        "geneSymbols": "KIF7, JBTS12, HLS2",
        "approvedGeneSymbols": "KIF7",
        "phenotypeMapList": phenotypes,
    }
    other = gene | {"mimNumber": "911255", "geneSymbols": "KIF7L, KIF7", "approvedGeneSymbols": "KIF7L"}
    diseases = [_entry(str(920000 + n), phenotypeMapList=[phenotypes[0]] if n % 2 else None) for n in range(20)]
    entries = [*diseases, _entry("911254", prefix="*", geneMap=gene), _entry("911255", prefix="*", geneMap=other)]
    return [{"entry": {k: v for k, v in each["entry"].items() if v is not None}} for each in entries]


_FOUND = {"approved_gene_symbol:KIF7": _kif7()}


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers: twenty entries a page, the gene's own on the second."""

    def search(request: Any) -> tuple[int, dict[str, str], bytes]:
        if request.headers.get("apikey") != KEY:
            return 401, {"Content-Type": "application/json"}, b'{"error": "The API key is invalid or inactive."}'
        assert request.one("include") == "geneMap"
        assert request.one("format") == "json"
        start, limit = int(request.one("start")), int(request.one("limit"))
        found = _FOUND.get(request.one("search"), [])
        page = found[start : start + limit]
        said = {
            "search": request.one("search"),
            "totalResults": str(len(found)),
            "startIndex": start,
            "endIndex": start + len(page) - 1,
            "entryList": page,
        }
        body = {"omim": {"version": "1.0", "searchResponse": said}}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    return {("GET", "api.omim.org/api/entry/search"): search}

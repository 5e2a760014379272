"""Answers of HPO's service in its real shape; composed for tests."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("MYH7", "HGNC:7577", "4625", "ENSG00000092054", "P12883"),
    Gene("TNNT2", "HGNC:11949", "7139", "ENSG00000118194", "P45379"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),
]
EXPECTED = 6
_SAID = {
    "672": {"diseases": [{"id": "OMIM:604370", "name": "Breast-ovarian cancer, familial, 1"}], "phenotypes": []},
    "4625": {
        "diseases": [
            {"id": "OMIM:192600", "name": "Cardiomyopathy, familial hypertrophic, 1", "mondoId": "MONDO:0008647"},
            {"id": "ORPHA:324604", "name": "Classic multiminicore myopathy", "mondoId": None, "description": None},
        ],
        "phenotypes": [
            {"id": "HP:0001639", "name": "Hypertrophic cardiomyopathy"},
            {"id": "HP:0001644", "name": "Dilated cardiomyopathy"},
        ],
        "assays": [],
    },
    "7139": {
        "diseases": [{"id": "OMIM:601494", "name": "Cardiomyopathy, dilated, 1D", "mondoId": "MONDO:0011096"}],
        "phenotypes": [{"id": "HP:0001644", "name": "Dilated cardiomyopathy"}],
    },
}


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers; a gene without annotations is not known there (404)."""

    def annotation(request: Any) -> tuple[int, dict[str, str], bytes]:
        found = _SAID.get(request.path.rsplit(":", 1)[1])
        body = found or {"status": 404, "message": "Entity not found", "path": request.path}
        return 200 if found else 404, {"Content-Type": "application/json"}, json.dumps(body).encode()

    return {("GET", "ontology.jax.org/api/network/annotation/NCBIGene:*"): annotation}

"""Answers of Monarch's service in its real shape; composed for tests."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("FBN1", "HGNC:3603", "2200", "ENSG00000166147", "P35555"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),
]
_PHENOTYPES = 600
EXPECTED = _PHENOTYPES + 2
_CAUSAL = "biolink:CausalGeneToDiseaseAssociation"
_CORRELATED = "biolink:CorrelatedGeneToDiseaseAssociation"
_PHENOTYPE = "biolink:GeneToPhenotypicFeatureAssociation"


def _item(place: int, category: str, term: str, name: str, **more: Any) -> dict[str, Any]:
    return {
        "id": f"uuid:00000000-0000-0000-0000-{place:012d}",
        "category": category,
        "predicate": "biolink:has_phenotype",
        "original_predicate": None,
        "primary_knowledge_source": "infores:omim",
        "aggregator_knowledge_source": ["infores:monarchinitiative"],
        "publications": None,
        "negated": None,
        "subject": "HGNC:3603",
        "original_subject": "NCBIGene:2200",
        "subject_label": "FBN1",
        "subject_category": "biolink:Gene",
        "subject_taxon": "NCBITaxon:9606",
        "object": term,
        "object_label": name,
        **more,
    }


_ITEMS = [
    _item(0, _CAUSAL, "MONDO:0007947", "Marfan syndrome", predicate="biolink:causes"),
    _item(
        1,
        _CORRELATED,
        "MONDO:0019118",
        "inherited retinal dystrophy",
        predicate="biolink:gene_associated_with_condition",
        primary_knowledge_source="infores:orphanet",
        negated=False,
    ),
    _item(2, _CORRELATED, "MONDO:0005148", "type 2 diabetes mellitus", negated=True),
    *(_item(3 + n, _PHENOTYPE, f"HP:{n:07d}", f"phenotype {n}") for n in range(_PHENOTYPES)),
]


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers: at most 500 a page."""

    def association(request: Any) -> tuple[int, dict[str, str], bytes]:
        offset, limit = int(request.one("offset", "0")), int(request.one("limit", "20"))
        assert limit <= 500, "Monarch refuses more"
        wanted = request.query["category"]
        mine = [i for i in _ITEMS if i["subject"] == request.one("subject") and i["category"] in wanted]
        body = {"limit": limit, "offset": offset, "total": len(mine), "items": mine[offset : offset + limit]}
        return 200, {"Content-Type": "application/json"}, json.dumps(body).encode()

    return {("GET", "api-v3.monarchinitiative.org/v3/api/association"): association}

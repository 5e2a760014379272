"""Answers of the GWAS Catalog's service (version 2) in their real shape; composed for tests."""

from __future__ import annotations

import json
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("TCL1A", "HGNC:11648", "8115", "ENSG00000100721", "P56279"),
    Gene("LRRK2", "HGNC:18618", "120892", "ENSG00000188906", "Q5S007"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),
]
PLACE = ("GET", "www.ebi.ac.uk/gwas/rest/api/v2/associations")


def one(place: int, genes: list[str], traits: list[tuple[str, str]], **more: Any) -> dict[str, Any]:
    """One association."""
    return {
        "association_id": 218_958_492 + place,
        "risk_frequency": "NR",
        "pvalue_description": "",
        "pvalue_mantissa": 3,
        "pvalue_exponent": -8 - place,
        "multi_snp_haplotype": False,
        "snp_interaction": False,
        "range": "-",
        "beta": "-",
        "p_value": 3 * 10.0 ** (-8 - place),
        "efo_traits": [{"efo_id": term, "efo_trait": name} for term, name in traits],
        "reported_trait": ["Passenger-approximated clonal expansion rate ..."],
        "accession_id": f"GCST9084{place:04d}",
        "locations": ["14:95713905"],
        "mapped_genes": genes,
        "bg_efo_traits": [],
        "pubmed_id": "38714703",
        "first_author": "Pershad Y",
        "snp_effect_allele": ["rs2887399-T"],
        "snp_allele": [{"rs_id": "rs2887399", "effect_allele": "T"}],
        "_links": {"self": {"href": f"https://www.ebi.ac.uk/gwas/rest/api/v2/associations/{218_958_492 + place}"}},
    }


_HEMATOPOIESIS = ("EFO_0010819", "clonal hematopoiesis")
_PARKINSON = ("MONDO_0005180", "Parkinson disease")
CATALOGUE = {
    "TCL1A": [one(i, ["TCL1A"], [_HEMATOPOIESIS]) for i in range(450)],
    "LRRK2": [one(1000 + i, ["LINC02471", "LRRK2"], [_PARKINSON, ("HP_0001300", "Parkinsonism")]) for i in range(3)],
}
EXPECTED = 450 + 3 * 2


def page(found: list[dict[str, Any]], request: Any) -> tuple[int, dict[str, str], bytes]:
    """One page of a list; an empty one has no list at all."""
    size, number = int(request.query.get("size", ["20"])[0]), int(request.query.get("page", ["0"])[0])
    pages = -(-len(found) // size)
    body: dict[str, Any] = {"_links": {}}
    if part := found[number * size : (number + 1) * size]:
        body["_embedded"] = {"associations": part}
    body["page"] = {"size": size, "totalElements": len(found), "totalPages": pages, "number": number}
    return 200, {"Content-Type": "application/hal+json"}, json.dumps(body).encode()


def routes(by: str = "mapped_gene") -> dict[tuple[str, str], Any]:
    """What is asked, and what answers; of parameters it knows `by` alone, and passes over all others."""

    def associations(request: Any) -> tuple[int, dict[str, str], bytes]:
        gene = request.query.get(by, [None])[0]
        every = [each for found in reversed(CATALOGUE.values()) for each in found]
        return page(every if gene is None else CATALOGUE.get(gene.upper(), []), request)

    return {PLACE: associations}

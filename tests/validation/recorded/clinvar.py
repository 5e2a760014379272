"""Answers of NCBI's E-utilities on ClinVar in their real shape; composed for tests."""

from __future__ import annotations

import json
import re
from typing import Any

from elute.validation.database import Gene

GENES = [
    Gene("BRCA1", "HGNC:1100", "672", "ENSG00000012048", "P38398"),
    Gene("GAPDH", "HGNC:4141", "2597", "ENSG00000111640", "P04406"),  # without a pathogenic variant
]
_BREAST = {"trait_name": "Breast-ovarian cancer, familial, susceptibility to, 1", "trait_xrefs": []}
_BREAST["trait_xrefs"] = [
    {"db_source": "Orphanet", "db_id": "145"},
    {"db_source": "MedGen", "db_id": "C2676676"},
    {"db_source": "MONDO", "db_id": "MONDO:0011450"},
    {"db_source": "OMIM", "db_id": "604370"},
]
_NONE = {"trait_name": "not provided", "trait_xrefs": [{"db_source": "MedGen", "db_id": "C3661900"}]}
_FANCONI = {"trait_name": "Fanconi anemia", "trait_xrefs": [{"db_source": "MONDO", "db_id": "MONDO:0019391"}]}
EXPECTED = 2
VARIANTS = 620  # on two pages of a search, and three of summaries
FANCONI = 40
TOO_LARGE = 17_007  # a record with which at most two others are given at a time


def _record(uid: int) -> dict[str, Any]:
    genes = [{"symbol": "BRCA1", "geneid": "672", "strand": "-", "source": "submitted"}]
    if uid % 10 == 0:
        genes.append({"symbol": "LOC126862571", "geneid": "126862571", "strand": "+", "source": "calculated"})
    if uid % 100 == 1:  # a deletion of several genes
        genes.append({"symbol": "NBR2", "geneid": "10230", "strand": "+", "source": "calculated"})
    description = "Pathogenic" if uid % 3 else "Pathogenic/Likely pathogenic"
    if uid % 100 == 2:
        description = "Conflicting classifications of pathogenicity"
    status = "reviewed by expert panel" if uid % 50 == 0 else "criteria provided, single submitter"
    return {
        "uid": str(uid),
        "obj_type": "Deletion",
        "accession": f"VCV{uid:09d}",
        "title": f"NM_007294.4(BRCA1):c.{uid}del",
        "genes": genes,
        "germline_classification": {
            "description": description,
            "last_evaluated": "2025/05/01 00:00",
            "review_status": status,
            "fda_recognized_database": "",
            "trait_set": [_BREAST, _NONE] if uid >= 10_000 + FANCONI else [_FANCONI, _BREAST],
        },
        "clinical_impact_classification": {"description": "", "review_status": "", "trait_set": []},
        "oncogenicity_classification": {"description": "", "review_status": "", "trait_set": []},
    }


_IDS = [10_000 + n for n in range(VARIANTS - 1)] + [TOO_LARGE]


def routes() -> dict[tuple[str, str], Any]:
    """What is asked, and what answers."""

    def search(request: Any) -> tuple[int, dict[str, str], bytes]:
        start, most = int(request.one("retstart", "0")), int(request.one("retmax", "20"))
        found = re.fullmatch(
            r"(\S+)\[gene\] AND \(clinsig_pathogenic\[Filter\] OR clinsig_likely_path\[Filter\]\)", request.one("term")
        )
        ids = _IDS if found and found[1] == "BRCA1" else []
        page = [str(each) for each in ids[start : start + most]]
        result: dict[str, Any] = {
            "count": str(len(ids)),
            "retmax": str(len(page)),
            "retstart": str(start),
            "idlist": page,
            "translationset": [],
            "querytranslation": request.one("term"),
        }
        if not ids:
            result["errorlist"] = {"phrasesnotfound": ["GAPDH[gene]"], "fieldsnotfound": []}
            result["warninglist"] = {
                "phrasesignored": [],
                "quotedphrasesnotfound": [],
                "outputmessages": ["No items found."],
            }
        return _answer({"header": {"type": "esearch", "version": "0.3"}, "esearchresult": result})

    def summary(request: Any) -> tuple[int, dict[str, str], bytes]:
        ids = request.one("id").split(",")
        assert len(ids) <= 500, "more make too long an address"
        header = {"type": "esummary", "version": "0.3"}
        if str(TOO_LARGE) in ids and len(ids) > 3:
            return _answer({"header": header, "error": "Input XML size is 26306057 bytes, and cannot be transformed"})
        return _answer({"header": header, "result": {"uids": ids, **{each: _record(int(each)) for each in ids}}})

    at = "eutils.ncbi.nlm.nih.gov/entrez/eutils/"
    return {("GET", at + "esearch.fcgi"): search, ("GET", at + "esummary.fcgi"): summary}


def _answer(value: Any) -> tuple[int, dict[str, str], bytes]:
    return 200, {"Content-Type": "application/json; charset=UTF-8"}, json.dumps(value).encode()

"""GenCC's export of submissions in its real shape; composed for tests. It has no interface: the download is all."""

from __future__ import annotations

from typing import Any

from elute.validation.database import Gene

GENES = [Gene("ODC1", "HGNC:8109", "4953"), Gene("LDB3", "HGNC:15710", "11155")]
EXPECTED = 4
URL = "https://search.thegencc.org/download/action/submissions-export-tsv?format=new"

_FIRST = "sgc_id version_number"
_REST = (
    "gene_curie gene_symbol disease_curie disease_title disease_original_curie disease_original_title classification_curie "
    "classification_title moi_curie moi_title submitter_curie submitter_title submitted_as_hgnc_id submitted_as_hgnc_symbol "
    "submitted_as_disease_id submitted_as_disease_name submitted_as_moi_id submitted_as_moi_name submitted_as_submitter_id "
    "submitted_as_submitter_name submitted_as_classification_id submitted_as_classification_name submitted_as_date "
    "submitted_as_public_report_url submitted_as_notes submitted_as_pmids submitted_as_assertion_criteria_url "
    "submitted_as_submission_id submitted_run_date"
)
COLUMNS = f"{_FIRST} {_REST}".split()
OLD_COLUMNS = f"uuid {_REST}".split()


def submission(
    number: int, gene: str, disease: str, classification: str, submitter: str, **more: str
) -> dict[str, str]:
    """One submission; `more` sets columns."""
    curie, _, symbol = gene.partition(" ")
    return {
        "uuid": f"GENCC_{number:06d}",
        "sgc_id": f"SGC-{number}",
        "version_number": "1",
        "gene_curie": curie,
        "gene_symbol": symbol,
        "disease_curie": disease,
        "disease_title": f"disease {disease[-2:]}",
        "classification_title": classification,
        "moi_title": "Autosomal dominant",
        "submitter_title": submitter,
        "submitted_as_notes": 'Said "so"\nin two lines,\twith a tab',
        "submitted_run_date": "2026-08-30",
    } | more


SUBMISSIONS = [
    submission(1, "HGNC:8109 ODC1", "MONDO:0033642", "Strong", "G2P"),
    submission(2, "HGNC:8109 ODC1", "MONDO:0033642", "Strong", "PanelApp Australia"),
    submission(3, "HGNC:15710 LDB3", "MONDO:0005021", "Definitive", "Ambry Genetics"),
    submission(4, "HGNC:15710 LDB3", "MONDO:0005021", "Disputed Evidence", "ClinGen", submitted_run_date="2026-09-05"),
    submission(5, "HGNC:15710 LDB3", "MONDO:0005021", "Limited", "Invitae"),
    submission(6, "HGNC:15710 LDB3", "MONDO:0005021", "Moderate", "Invitae", sgc_id="SGC-5", version_number="2"),
    submission(7, "HGNC:15710 LDB3", "MONDO:0005022", "Refuted Evidence", "ClinGen"),
]


def export(submissions: list[dict[str, str]], columns: list[str] = COLUMNS, separator: str = "\t") -> bytes:
    """Write submissions as GenCC does: every field in quotes."""
    rows = [columns, *([each.get(name, "") for name in columns] for each in submissions)]
    lines = (separator.join('"' + field.replace('"', '""') + '"' for field in row) for row in rows)
    return ("\n".join(lines) + "\n").encode()


def routes() -> dict[tuple[str, str], Any]:
    """The download."""

    def download(request: Any) -> tuple[int, dict[str, str], bytes]:
        assert request.one("format") == "new", "the old form is gone"
        headers = {
            "Content-Type": "text/tab-separated-values; charset=UTF-8",
            "Last-Modified": "Sat, 05 Sep 2026 06:00:00 GMT",
        }
        return 200, headers, export(SUBMISSIONS)

    return {("GET", "search.thegencc.org/download/action/submissions-export-tsv"): download}

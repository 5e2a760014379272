"""The background: what is intersected, what is lost with each part, and what it says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from elute.base.errors import DataError
from elute.validation.background import Background, Part, from_file, of_parts

HEAD = "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group"
HGNC = f"""{HEAD}
HGNC:1\tALFA\tENSG00000000001\t11\tP00001\tOLDA\tSHARED\tprotein-coding gene
HGNC:2\tBETA\tENSG00000000002\t12\tP00002\t\tSHARED\tprotein-coding gene
HGNC:3\tGAMA\tENSG00000000003\t13\tP00003\t\t\tprotein-coding gene
"""


def genes(*numbers: int) -> list[str]:
    return [f"HGNC:{n}" for n in numbers]


def test_parts_are_intersected_and_each_loss_is_counted() -> None:
    found = of_parts(
        [
            Part(genes(5, 1, 2, 3, 4, 4), "in the vocabulary of a model"),
            Part({*genes(1, 2, 3, 8, 9), ""}, "measured in 1,000 cells"),
            Part(genes(3, 1, 7, 8), "annotated in Reactome 2025"),
        ]
    )
    assert found.genes == ("HGNC:1", "HGNC:3")
    assert found.place == {"HGNC:1": 0, "HGNC:3": 1}
    assert len(found) == 2
    assert [(loss.given, loss.lost, loss.left) for loss in found.losses] == [(5, 0, 5), (5, 2, 3), (4, 1, 2)]
    assert found.stated == (
        "2 genes: in the vocabulary of a model (5), measured in 1,000 cells (3 of these),"
        " annotated in Reactome 2025 (2 of these)"
    )


def test_the_order_of_genes_does_not_depend_on_that_of_the_parts() -> None:
    one, other = Part(genes(3, 2, 1), "one"), Part(genes(1, 3), "other")
    assert of_parts([one, other]).genes == of_parts([other, one]).genes


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ([], "a background needs at least one list"),
        ([Part([], "measured in no cells")], "there are no genes measured in no cells"),
        ([Part(genes(1), "known"), Part([""], "annotated")], "there are no genes annotated"),
        ([Part("HGNC:1", "known")], "is one text, not a list"),
        (
            [Part(["ACTB", "TP53", "GATA1"], "known"), Part(["Actb", "Trp53"], "annotated in Mouse")],
            "none of 2 genes annotated in Mouse is among the 3 known. They look like genes of mouse.",
        ),
        (
            [Part(genes(1, 2), "known"), Part(["ENSG00000000001"], "measured")],
            "They look like Ensembl ids, the others like HGNC ids.",
        ),
        ([Part(["ACTB"], "known"), Part(["TP53"], "measured")], "of another species, or named in another way?"),
    ],
)
def test_what_cannot_be_a_background_is_refused_in_one_line(parts: list[Part], words: str) -> None:
    with pytest.raises(DataError) as caught:
        of_parts(parts)
    assert words in caught.value.line()
    assert "\n" not in caught.value.line()


def test_a_persons_own_file_without_hgncs_table(tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("# what I measured\nACTB\nTP53\n\nGATA1\nTP53\n")
    found = from_file(path)
    assert found == Background(("ACTB", "GATA1", "TP53"), "3 genes: listed in mine.txt (3)", found.losses)
    cut = from_file(path, annotated=Part(["TP53", "KRAS"], "annotated in GO"))
    assert cut.genes == ("TP53",)
    assert cut.stated == "1 gene: listed in mine.txt (3), annotated in GO (1 of these)"


def test_a_persons_own_file_is_brought_under_hgncs_names(tmp_path: Path, data: Path) -> None:
    (data / "genes").mkdir(parents=True)
    (data / "genes" / "hgnc_complete_set.txt").write_text(HGNC)
    path = tmp_path / "mine.csv"
    path.write_text("n,gene\n1,OLDA\n2,ENSG7\n3,\n4,GAMA\n5,SHARED\n")
    found = from_file(path)
    assert found.genes == ("HGNC:1", "HGNC:3")
    assert found.stated == "2 genes: listed in mine.csv, 2 of 4 identifiers known to HGNC (2)"


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(DataError, match="lists no genes"):
        from_file(tmp_path / "none.txt")

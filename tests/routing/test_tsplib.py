"""Lengths as TSPLIB defines them: those of its optimal tours are the published ones. Damaged files: one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from elute.base.errors import DataError
from elute.models.routing import exact, tsplib
from elute.routing.scoring import read_optima

GOOD = "NAME: small\nTYPE: TSP\nDIMENSION: 4\nEDGE_WEIGHT_TYPE: EUC_2D\nNODE_COORD_SECTION\n1 0 0\n2 0 3\n3 4 3\n4 4 0\nEOF\n"


def written(folder: Path, text: str, name: str = "a.tsp") -> Path:
    path = folder / name
    path.write_bytes(text.encode("latin-1"))
    return path


@pytest.mark.real_data
def test_optimal_tours_have_the_published_lengths(real_data: Path) -> None:
    folder = real_data / "tsplib"
    published = read_optima(folder / "solutions")
    tours = sorted(folder.glob("*.opt.tour"))
    assert len(tours) >= 6
    for path in tours:
        problem = tsplib.read(folder / path.name.replace(".opt.tour", ".tsp"))
        assert problem.tour_length(tsplib.read_tour(path, problem.nodes)) == published[problem.name]
        assert float(problem.coords.min()) == 0.0
        assert float(problem.coords.max()) == 1.0


@pytest.mark.real_data
def test_optima_are_found_again(real_data: Path) -> None:
    published = read_optima(real_data / "tsplib" / "solutions")
    for name in ("burma14", "ulysses16"):
        problem = tsplib.read(real_data / "tsplib" / f"{name}.tsp")
        lengths, tours = exact.shortest(problem.distances()[None])
        assert int(lengths[0]) == published[name] == problem.tour_length(tours[0])


def test_a_worked_case(tmp_path: Path) -> None:
    problem = tsplib.read(written(tmp_path, GOOD))
    assert problem.ids == ("small",)
    assert problem.tour_length([0, 1, 2, 3]) == 14
    assert problem.tour_length([0, 2, 1, 3]) == 18
    np.testing.assert_allclose(problem.coords[0], [[0, 0], [0, 0.75], [1, 0.75], [1, 0]])


def test_each_kind_by_hand() -> None:
    places = np.array([[0.0, 0.0], [1.0, 1.0], [0.0, 7.0]])
    assert tsplib.distances(places, "EUC_2D")[0].tolist() == [0, 1, 7]
    assert tsplib.distances(places, "CEIL_2D")[0].tolist() == [0, 2, 7]
    # √(2/10) = 0.447: rounded 0, less than that, so 1;  √(49/10) = 2.214: rounded 2, less, so 3
    assert tsplib.distances(places, "ATT")[0].tolist() == [0, 1, 3]
    # 1°30' north along a meridian: 6378.388 · 3.141592 / 120 = 166.99, rounded down of one more
    assert tsplib.distances(np.array([[0.0, 0.0], [1.3, 0.0], [0, 9]]), "GEO")[0, 1] == 167


def test_what_is_odd_but_right(tmp_path: Path) -> None:
    text = (
        GOOD.replace("NAME: small", "NAME : small\nCOMMENT : K\xf6nigsberg : old")
        .replace("1 0 0\n", "4 4.0 0e0\n")
        .replace("4 4 0\nEOF", "1 0 0")
    )
    assert tsplib.read(written(tmp_path, text)).tour_length([0, 1, 2, 3]) == 14
    tour = written(tmp_path, "TYPE: TOUR\nDIMENSION: 4\nTOUR_SECTION\n2 1\n4\n3 -1\nEOF\n", "a.tour")
    assert tsplib.read_tour(tour).tolist() == [1, 0, 3, 2]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("NODE_COORD_SECTION", "DISPLAY_DATA_SECTION", "has no NODE_COORD_SECTION"),
        ("EUC_2D", "EXPLICIT", "distances are EXPLICIT. There are: ATT"),
        ("EDGE_WEIGHT_TYPE: EUC_2D\n", "", "does not say how distances"),
        ("TYPE: TSP", "TYPE: CVRP", "holds a CVRP, not a TSP"),
        ("DIMENSION: 4", "DIMENSION: 5", "has 4 nodes where DIMENSION says 5"),
        ("DIMENSION: 4", "DIMENSION: ²", "its DIMENSION is"),
        ("DIMENSION: 4\n", "", "has no DIMENSION"),
        ("2 0 3", "2 0 x", "not a number and two coordinates"),
        ("2 0 3", "2 0 nan", "not a number and two coordinates"),
        ("2 0 3", "2 0", "not a number and two coordinates"),
        ("2 0 3", "3 0 3", "not numbered from 1 to 4"),
        ("2 0 3", "\0", "is no text"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in GOOD
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(DataError, match=said) as caught:
        tsplib.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_tour_that_is_none_is_refused(tmp_path: Path) -> None:
    for text in ("1 2 2 3", "1 2 3", "1 2 3 five", "0 1 2 3"):
        path = written(tmp_path, f"TYPE: TOUR\nTOUR_SECTION\n{text}\n-1\nEOF\n", "a.tour")
        with pytest.raises(DataError, match=r"a\.tour"):
            tsplib.read_tour(path, 4)
    with pytest.raises(DataError, match="not each of the 4 nodes once"):
        tsplib.read(written(tmp_path, GOOD)).tour_length([0, 1, 2])
    with pytest.raises(DataError, match="No such file"):
        tsplib.read(tmp_path / "none.tsp")

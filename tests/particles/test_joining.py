"""Rows are paired by particle: by id, or by run and place; and where they cannot be, it stops and says why."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.particles.views import views

from elute.base.errors import DataError
from elute.particles.joining import balanced, join
from elute.particles.labels import one_form
from elute.particles.nearest_pairs import mutual
from elute.particles.settings import EvaluationConfig
from elute.particles.table import NOT_EVIDENCE, ParticleTable, source_table

CONFIG = EvaluationConfig(tolerance=5.0)


def table(name: str, n: int = 6, **columns: Any) -> ParticleTable:
    """A source whose vectors say which row they are of."""
    vectors = np.arange(n, dtype=np.float32)[:, None] + np.array([0.0, 0.5], np.float32)
    return source_table(name, vectors, columns, digest=f"digest of {name}")


def places(at: Any) -> dict[str, Any]:
    return dict(zip("xyz", np.asarray(at, float).T, strict=True))


LABELS = list("aabbab")


def test_by_id_whatever_the_order() -> None:
    a = table("a", id=list("uvwxyz"), label=LABELS)
    b = table("b", 5, id=["z", "q", "u", "x", "v"], label=["b", "a", "a", "b", "a"])
    found = join([a, b], CONFIG)
    assert found.pairing == "id"
    assert found.evidence
    assert found.mark is None
    assert found.particles["id"].to_list() == ["u", "v", "x", "z"]
    assert found.vectors[0][:, 0].tolist() == [0, 1, 3, 5]
    assert found.vectors[1][:, 0].tolist() == [2, 4, 3, 0]
    assert found.counts["matched"] == 4
    assert found.counts["unmatched"] == {"a": 2, "b": 1}
    assert found.digests == {"a": "digest of a", "b": "digest of b"}


def test_three_sources_by_id() -> None:
    ids = [list("uvwxyz"), list("zyxwvu"), list("wxyzab")]
    found = join(
        [table(n, id=i, label=LABELS if n == "a" else [None] * 6) for n, i in zip("abc", ids, strict=True)], CONFIG
    )
    assert found.particles["id"].to_list() == list("wxyz")
    assert [v[:, 0].tolist() for v in found.vectors] == [[2, 3, 4, 5], [3, 2, 1, 0], [0, 1, 2, 3]]
    assert found.particles["label"].to_list() == ["b", "b", "a", "b"]


def test_by_run_and_place_nearest_one_to_one() -> None:
    at = np.array([[0, 0, 0], [100, 0, 0], [200, 0, 0], [0, 0, 0], [50, 0, 0], [300, 0, 0]], float)
    runs = ["r1", "r1", "r1", "r2", "r2", "r2"]
    a = table("a", run=runs, label=LABELS, **places(at))
    order = [4, 2, 0, 5, 1, 3]
    b = table("b", run=[runs[i] for i in order], **places(at[order] + [0, 3, 0]))
    found = join([a, b], CONFIG)
    assert found.pairing == "run and coordinates"
    assert found.vectors[1][:, 0].tolist() == [order.index(i) for i in range(6)]
    assert found.particles["id"].to_list() == [f"sample_{i}" for i in range(6)]
    assert found.counts["ambiguous"] == {"a": 0, "b": 0}


def test_doubt_about_place_is_counted_and_left_out() -> None:
    a = table("a", 4, run=["r"] * 4, label=list("abab"), **places([[0, 0, 0], [4, 0, 0], [100, 0, 0], [200, 0, 0]]))
    b = table("b", 4, run=["r"] * 4, **places([[1, 0, 0], [102, 0, 0], [98, 0, 0], [203, 0, 0]]))
    found = join([a, b], CONFIG)
    # a0 and b0 are each other's nearest; a1's nearest, b0, is nearer to a0; a2 has two that are equally near.
    assert found.vectors[0][:, 0].tolist() == [0, 3]
    assert found.vectors[1][:, 0].tolist() == [0, 3]
    assert found.counts["ambiguous"]["b"] == 2
    assert found.counts["several_within_tolerance"]["b"] == 1
    assert found.counts["unmatched"] == {"a": 2, "b": 2}


def test_the_same_place_in_another_run_is_another_particle() -> None:
    a = table("a", 2, run=["r1", "r2"], label=["a", "b"], **places(np.zeros((2, 3))))
    b = table("b", 2, run=["r2", "r1"], **places(np.zeros((2, 3))))
    assert join([a, b], CONFIG).vectors[1][:, 0].tolist() == [1, 0]


def brute(a: Any, b: Any, tolerance: float) -> dict[int, int]:
    """Mutual nearest neighbours by looking at every pair."""
    d = np.linalg.norm(a[:, None] - b[None], axis=2)
    out = {}
    for i in range(len(a)):
        j = int(d[i].argmin())
        others_i, others_j = np.delete(d[i], j), np.delete(d[:, j], i)
        sole = (d[i, j] < others_i - 1e-6).all() and (d[i, j] < others_j - 1e-6).all()
        if d[i, j] <= tolerance and sole:
            out[i] = j
    return out


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12), st.booleans())
def test_matching_is_what_looking_at_every_pair_gives(seed: int, n: int, m: int, grid: bool) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.integers(0, 4, (k, 3)) * 1.0 if grid else rng.uniform(0, 10, (k, 3)) for k in (n, m))
    found = mutual(a, b, tolerance=3.0)
    assert {i: int(j) for i, j in enumerate(found.partner) if j >= 0} == brute(a, b, 3.0)
    taken = found.partner[found.partner >= 0]
    assert len(set(taken.tolist())) == len(taken)
    near = (np.linalg.norm(a[:, None] - b[None], axis=2) <= 3.0).any(axis=1)
    assert found.ambiguous == near.sum() - len(taken)


def test_without_a_key_it_stops_and_explains() -> None:
    a, b = table("a", label=LABELS, run=["r"] * 6), table("b", id=list("uvwxyz"), label=LABELS)
    with pytest.raises(DataError) as error:
        join([a, b], CONFIG)
    line = error.value.line()
    for part in (
        "share no key",
        "a has no ids",
        "a and b has no run and coordinates",
        "--pair-by label",
        "invents a gain",
    ):
        assert part in line
    with pytest.raises(DataError, match=r"no id is in all of them \('u' in b, 'q0' in c\)"):
        join([b, table("c", id=[f"q{i}" for i in range(6)], label=LABELS)], CONFIG)


def test_no_common_particle_says_how_far_they_are() -> None:
    a = table("a", 1, run=["r"], label=["a"], **places([[0, 0, 0]]))
    with pytest.raises(DataError, match=r"nearest two lie 90\.0 Å apart, and the tolerance is 5 Å.*unit"):
        join([a, table("b", 1, run=["r"], **places([[90, 0, 0]]))], CONFIG)
    with pytest.raises(DataError, match="no run in common \\('r' in a, 's' in b\\)"):
        join([a, table("b", 1, run=["s"], **places([[0, 0, 0]]))], CONFIG)


def test_ids_that_name_other_particles_are_refused() -> None:
    at = np.arange(18.0).reshape(6, 3) * 100
    ids = [f"sample_{i}" for i in range(6)]
    a, b = table("a", id=ids, label=LABELS, **places(at)), table("b", id=ids, **places(at[::-1]))
    with pytest.raises(DataError, match="6 of 6 particles of one id lie more than 5 Å apart"):
        join([a, b], CONFIG)
    moved = at.copy()
    moved[2] += 50
    found = join([a, table("b", id=ids, **places(moved))], CONFIG)
    assert found.counts["apart"] == 1
    assert any("1 particles of one id lie further apart" in note for note in found.notes)


def test_particles_whose_classes_disagree_are_left_out() -> None:
    ids = list("uvwxyz")
    a = table("a", id=ids, label=["Beta-Amylase", "b", "b", None, "c", "b"])
    b = table("b", id=ids, label=["beta amylase", "b", "c", None, None, "b"])
    found = join([a, b], CONFIG)
    assert found.counts["of_two_classes"] == 1
    assert found.counts["without_class"] == 1
    assert found.particles["label"].to_list() == ["Beta-Amylase", "b", "c", "b"]
    assert len(found.notes) == 2
    with pytest.raises(DataError, match="no matched particle has a class"):
        join([table("a", id=ids), table("b", id=ids)], CONFIG)


def test_pairing_by_label_marks_what_comes_of_it() -> None:
    a = table("a", id=list("uvwxyz"), label=LABELS, run=list("111222"))
    b = table("b", 7, label=list("bbbbaac"))
    found = join([a, b], EvaluationConfig(pair_by="label"))
    assert found.pairing == "label"
    assert not found.evidence
    assert found.mark == NOT_EVIDENCE
    assert sorted(found.particles["label"].to_list()) == list("aabbb")
    assert found.counts["matched"] == 5
    for row, label in zip(found.vectors[1][:, 0].astype(int), found.particles["label"], strict=True):
        assert b.particles["label"][int(row)] == label
    again = join([a, b], EvaluationConfig(pair_by="label"))
    assert (again.vectors[1] == found.vectors[1]).all()
    with pytest.raises(DataError, match="no class is in all sources"):
        join([a, table("b", 2, label=list("qq"))], EvaluationConfig(pair_by="label"))


def test_one_source_is_nothing_to_fuse() -> None:
    with pytest.raises(DataError, match="one source only"):
        join([table("a", label=LABELS)], CONFIG)


def test_balanced_draws_as_many_of_each_class() -> None:
    found = views(100, 3)
    even = balanced(found, seed=1)
    assert len(set(np.bincount(even.codes).tolist())) == 1
    assert len(even) == 3 * np.bincount(found.codes).min()
    place = {name: i for i, name in enumerate(found.particles["id"])}
    rows = [place[name] for name in even.particles["id"]]
    assert rows == sorted(rows)
    np.testing.assert_array_equal(even.vectors[1], found.vectors[1][rows])
    assert even.particles.equals(balanced(found, seed=1).particles)
    assert not even.particles.equals(balanced(found, seed=2).particles)


def test_one_spelling_of_a_class() -> None:
    assert {one_form(s) for s in ("Beta-Galactosidase", "beta galactoside", "BETA_GALACTOSIDASE ")} == {
        "beta_galactosidase"
    }
    assert one_form("VLP") == "virus_like_particle"
    assert one_form("T cell") == "t_cell"

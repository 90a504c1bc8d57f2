"""Which models of the front are trained again and compressed."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from compress.core.pareto import measure_hypervolume
from search.study.directory import Candidate
from search.study.front import select_hypervolume_subset

OBJECTIVES = ("accuracy", "macs")


def member(place: int, accuracy: float, macs: int) -> Candidate:
    return Candidate(f"{place:04d}", "complete", {}, 0, macs=macs, val={"accuracy": accuracy})


def test_those_that_dominate_most_go_on() -> None:
    """Scaled: (1, 0), (0.25, 0.5), (0.2, 0.9), (0, 1), from the reference 1.1.

    The last is the best. Beside it (1, 0) adds 0.1 x 1 = 0.1, (0.25, 0.5) adds 0.85 x 0.5 and
    (0.2, 0.9) adds 0.9 x 0.1; beside both (1, 0) adds 0.1 x 0.5 and (0.2, 0.9) 0.05 x 0.1.
    """
    front = [member(0, 0.5, 10**4), member(1, 0.65, 10**5),
             member(2, 0.66, round(10**5.8)), member(3, 0.7, 10**6)]  # fmt: skip
    kept = [
        [item.id for item in select_hypervolume_subset(front, OBJECTIVES, most)]
        for most in (1, 2, 3)
    ]
    assert kept == [["0003"], ["0001", "0003"], ["0000", "0001", "0003"]]
    assert (
        select_hypervolume_subset(front, OBJECTIVES, None)
        == front
        == select_hypervolume_subset(front, OBJECTIVES, 4)
    )


def test_few_that_are_nearly_as_good_as_any() -> None:
    """Against all subsets with the best in them."""
    rng = np.random.default_rng(0)
    macs = np.sort(rng.integers(10**4, 10**6, 12))
    front = [member(place, accuracy, int(cost))
             for place, (accuracy, cost) in enumerate(zip(np.sort(rng.random(12)), macs,
                                                          strict=True))]  # fmt: skip
    rows = np.array([[-item.val["accuracy"], np.log10(float(item.macs or 0))] for item in front])
    rows = (rows - rows.min(0)) / np.ptp(rows, axis=0)

    def volume(places: tuple[int, ...]) -> float:
        return measure_hypervolume(rows[list(places)], (1.1, 1.1))

    kept = tuple(int(item.id) for item in select_hypervolume_subset(front, OBJECTIVES, 4))
    best = max(volume((*few, 11)) for few in combinations(range(11), 3))
    assert len(kept) == 4
    assert kept[-1] == 11
    assert (1 - 1 / np.e) * best <= volume(kept) <= best


def test_objectives_in_which_all_are_equal() -> None:
    front = [member(place, 0.5, 10) for place in range(3)]
    assert [item.id for item in select_hypervolume_subset(front, OBJECTIVES, 2)] == ["0000", "0001"]

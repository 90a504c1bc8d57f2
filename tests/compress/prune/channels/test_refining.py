"""Choices near the first one: the best judged is taken, the first where none is better."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compress.prune.channels.selection.allowed_counts import Allocation, Selection
from compress.prune.channels.selection.output_error_selection import refine_allocation
from compress.prune.channels.selection.sensitivity import (
    BlockSensitivity,
    GroupSensitivity,
    SensitivityMap,
)

SCORES = (0.0, 1.0, 2.0, 3.0)
MEASURED = SensitivityMap(
    tuple(
        GroupSensitivity(name, (1,), (value,), SCORES)
        for name, value in zip("abc", (1, 1.2, 1.5), strict=True)
    ),
    (BlockSensitivity("block 0", 0.4), BlockSensitivity("block 1", 0.5)),
)
"""The blocks of least output error leave first, though together they harm."""


def choose(measured: SensitivityMap) -> Selection:
    """Removes two of five: groups a, b, c and both blocks, those of least output error."""
    values = [group.output_error[0] for group in measured.groups]
    values += [block.output_error for block in measured.blocks]
    gone = set(np.argsort(values, kind="stable")[:2].tolist())
    mask = np.array([place not in gone for place in range(3)])
    blocks: list[Any] = [SimpleNamespace(index=place - 3) for place in sorted(gone) if place >= 3]
    return Selection(
        mask, Allocation(mask.astype(int), 3.0, 0.0), "1", removed_blocks=tuple(blocks)
    )


class Judge:
    """Knows what each choice is worth: both blocks harm together, b and one block least."""

    def __init__(self, best: frozenset[str] = frozenset({"b", "block 0"})) -> None:
        self.best = best
        self.asked: list[frozenset[str]] = []

    def measure_error(self, mask: Any, blocks: Any = ()) -> float:
        names = {"abc"[place] for place in np.flatnonzero(~mask)}
        gone = frozenset(names | {f"block {block.index}" for block in blocks})
        self.asked.append(gone)
        if gone == self.best:
            return 0.1
        return 3.0 if {"block 0", "block 1"} <= gone else 1.0


def test_the_best_of_all_choices_is_found() -> None:
    judge = Judge()
    best = refine_allocation(MEASURED, choose, judge, 9)  # type: ignore[arg-type]
    assert (best.first_error, best.output_error) == (3.0, 0.1)
    assert [block.index for block in best.selection.removed_blocks] == [0]
    assert best.selection.mask.tolist() == [True, False, True]
    # none is judged twice: there are ten pairs of five
    assert len(judge.asked) == len(set(judge.asked)) == best.tried_count + 1 <= 10
    assert best.summarize() == (
        "output error of the first choice, all layers repaired: 3; of the best of "
        f"{best.tried_count} near it: 0.1"
    )


def test_the_first_choice_stays_where_none_is_better() -> None:
    judge = Judge(frozenset({"block 0", "block 1"}))
    best = refine_allocation(MEASURED, choose, judge, 6)  # type: ignore[arg-type]
    assert best.first_error == best.output_error == 0.1
    assert len(best.selection.removed_blocks) == 2


def test_a_choice_that_misses_the_target_is_not_judged() -> None:
    def missing(measured: SensitivityMap) -> Selection:
        found = choose(measured)
        error = 0.03 if {block.index for block in found.removed_blocks} == {0} else 0.01
        return replace(found, allocation=Allocation(found.allocation.totals, 3.0, error))

    judge = Judge()
    best = refine_allocation(MEASURED, missing, judge, 9)  # type: ignore[arg-type]
    assert judge.best not in judge.asked
    assert best.output_error == 1.0


@pytest.mark.parametrize("tries", [0, 1, 3])
def test_no_more_are_judged_than_asked_for(tries: int) -> None:
    judge = Judge()
    best = refine_allocation(MEASURED, choose, judge, tries)  # type: ignore[arg-type]
    assert best.tried_count == tries
    assert len(judge.asked) == tries + 1


def test_what_is_drawn_follows_from_the_seed() -> None:
    def asked(seed: int) -> list[frozenset[str]]:
        judge = Judge()
        refine_allocation(MEASURED, choose, judge, 5, seed)  # type: ignore[arg-type]
        return judge.asked

    assert asked(1) == asked(1)
    assert any(asked(0) != asked(seed) for seed in range(1, 5))


def test_without_blocks_widths_alone_are_tried() -> None:
    judge = Judge(frozenset({"a", "c"}))
    told: list[tuple[str, float]] = []
    best = refine_allocation(
        SensitivityMap(MEASURED.groups), choose, judge, 2,  # type: ignore[arg-type]
        on_progress=lambda text, share: told.append((text, share)),
    )  # fmt: skip
    assert (best.first_error, best.output_error) == (1.0, 0.1)
    assert told[0] == ("choices near the first one", 0.0)
    assert len(told) == best.tried_count

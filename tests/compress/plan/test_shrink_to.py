"""A goal in one text."""

from __future__ import annotations

from typing import Any

import pytest

from compress.core.errors import InputError
from compress.plan.fields import from_flat, from_nested, to_nested
from compress.plan.shrink import GoalOptions, ShrinkGoal
from search.plan import SearchPlan


@pytest.mark.parametrize(
    "text",
    ["latency=0.5x,max_drop=1", "size=200kB", "macs=0.25x,no_train", "latency=3ms,budget=90"],
)
def test_texts_are_read_as_they_are_written(text: str) -> None:
    goal = ShrinkGoal.parse(text)
    assert ShrinkGoal.parse(str(goal)) == goal
    assert set(str(goal).split(",")) == set(text.split(","))


def test_other_forms() -> None:
    wanted = ShrinkGoal(GoalOptions(latency=0.5, max_drop=1.0))
    assert ShrinkGoal.from_value({"latency": 0.5, "max_drop": 1}) == wanted
    assert ShrinkGoal.from_value(wanted.goal) == wanted
    assert ShrinkGoal.parse(" latency = 0.5x , max-drop = 1 ") == wanted


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("latency", "a value"),
        ("speed=2x", "speed"),
        ("budget=30m", "a cost or a quality"),
        ("latency=2x slower", "a time like 3ms"),
        ({"speed": 2}, "speed"),
        ({}, "a cost or a quality"),
    ],
)
def test_bad_goals(given: Any, said: str) -> None:
    with pytest.raises(InputError, match=said):
        ShrinkGoal.from_value(given)


def test_a_runs_plan_holds_it() -> None:
    plan = from_flat(
        SearchPlan,
        {"shrink_to": "macs=0.5x,no_train", "min_kept": 0.3, "channel_exclude": "a", "seed": 4},
    )
    assert from_nested(SearchPlan, to_nested(plan)) == plan
    goal = plan.build_shrink_plan(["t.keras"])
    assert goal is not None
    assert goal.goal == GoalOptions(macs="0.5x", no_train=True)
    # what was given goes over a goal's own defaults
    assert (goal.channels.min_kept, goal.channels.exclude) == (0.3, ("a",))
    assert (goal.channels.scope, goal.channels.blocks) == ("auto", True)
    assert goal.channels.should_compare
    assert (goal.weights.sparsity, goal.finetune.epochs, goal.seed) == (0.0, 0, 4)
    assert SearchPlan().build_shrink_plan([]) is None


@pytest.mark.parametrize(
    "more",
    [
        {"channels": "0.5x"},
        {"formats": "onnx,int8"},
        {"runtimes": "mnn", "shrink_to": "latency=1ms"},
    ],
)
def test_what_contradicts_it_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(InputError, match="channels|formats|runtimes"):
        from_flat(SearchPlan, {"shrink_to": "macs=0.5x", **more})


def test_a_repaired_net_is_trained_for_less() -> None:
    # 1,000 steps are two epochs and a half of 400: three; of 2,000 steps two are made, else four
    goal = from_flat(SearchPlan, {"shrink_to": "macs=0.5x"}).build_shrink_plan([])
    assert goal is not None
    assert [goal.finetune.count_epochs(steps) for steps in (400, 2000)] == [3, 2]
    assert [SearchPlan().finetune.count_epochs(steps) for steps in (400, 2000)] == [4, 4]

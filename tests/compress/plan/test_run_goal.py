"""A goal for each model of a run."""

from __future__ import annotations

import pytest

import paretune as pt
from compress.core.errors import InputError
from compress.plan.fields import build_command_words, from_flat, from_nested, to_nested
from compress.plan.shrink import GoalOptions, ShrinkPlan
from search.plan import RUN, SearchPlan


def test_a_runs_plan_holds_it() -> None:
    plan = from_flat(
        SearchPlan, {"macs": "0.5x", "min_kept": 0.3, "channel_exclude": "a", "seed": 4}
    )
    assert from_nested(SearchPlan, to_nested(plan)) == plan
    assert from_nested(SearchPlan, {**to_nested(plan), "goal": {"macs": 0.5}}) == plan
    assert RUN.apply_to(SearchPlan(), {"macs": 0.5}).goal == plan.goal == pt.GoalLimits(macs=0.5)
    assert build_command_words(plan)[-2:] == ["--macs", "0.5x"]
    goal = plan.build_shrink_plan(["t.keras"])
    assert goal is not None
    assert goal.goal == GoalOptions(macs="0.5x")
    # given options override a goal's own defaults
    assert (goal.channels.min_kept, goal.channels.exclude) == (0.3, ("a",))
    assert (goal.channels.scope, goal.channels.blocks) == ("auto", True)
    assert goal.channels.should_compare
    assert (goal.weights.sparsity, goal.finetune.epochs, goal.seed) == (0.0, None, 4)
    assert SearchPlan().build_shrink_plan([]) is None


def test_without_fine_tuning_nothing_is_trained() -> None:
    plan = from_flat(SearchPlan, {"macs": "0.5x", "finetune_epochs": 0}).build_shrink_plan([])
    assert plan is not None
    assert plan.goal == GoalOptions(macs="0.5x", no_train=True)
    assert (plan.finetune.epochs, plan.qat_epochs) == (0, 0)


@pytest.mark.parametrize(
    "more",
    [
        {"channels": "0.5x"},
        {"formats": "onnx,int8"},
        {"runtimes": "mnn", "latency": "1ms"},
    ],
)
def test_what_contradicts_it_is_refused(more: dict[str, str]) -> None:
    with pytest.raises(InputError, match="channels|formats|runtimes"):
        from_flat(SearchPlan, {"macs": "0.5x", **more})


def test_options_of_shrink_alone_are_refused() -> None:
    for name, value in (("latency_table", "phone.json"), ("budget", "30m")):
        with pytest.raises(InputError, match=f"Unknown plan option '{name}'"):
            from_flat(SearchPlan, {"latency": "0.5x", name: value})
        with pytest.raises(InputError, match=f"Unknown key in plan section 'goal' '{name}'"):
            from_nested(SearchPlan, {"goal": {"latency": "0.5x", name: value}})


def test_a_goal_of_an_earlier_version() -> None:
    with pytest.raises(InputError, match="^Option 'shrink_to' was removed. .* --latency 0.5x"):
        from_nested(SearchPlan, {"shrink_to": "latency=0.5x,max_drop=1"})
    plan = from_nested(ShrinkPlan, {"goal": {"min_quality": 0.9}})
    assert plan.goal == GoalOptions(min_metric=0.9)
    with pytest.raises(InputError, match="'min_quality'. It is called 'min_metric' now"):
        pt.shrink("m.keras", "digits", min_quality=0.9)  # type: ignore[call-arg]


def test_a_repaired_net_is_trained_for_less() -> None:
    # 1,000 steps are two epochs and a half of 400: three; of 2,000 steps two are made, else four
    goal = from_flat(SearchPlan, {"macs": "0.5x"}).build_shrink_plan([])
    assert goal is not None
    assert [goal.finetune.count_epochs(steps) for steps in (400, 2000)] == [3, 2]
    assert [SearchPlan().finetune.count_epochs(steps) for steps in (400, 2000)] == [4, 4]

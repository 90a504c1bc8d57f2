"""A goal for each model of a run."""

from __future__ import annotations

from typing import Any

import pytest

import paretune as pt
from compress.core.errors import InputError
from compress.plan.nesting import build_command_words, from_flat, from_nested, to_nested
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
    with pytest.raises(InputError, match="Unknown plan option 'latency_table'"):
        from_flat(SearchPlan, {"latency": "0.5x", "latency_table": "phone.json"})
    with pytest.raises(InputError, match="Unknown key in plan section 'goal' 'latency_table'"):
        from_nested(SearchPlan, {"goal": {"latency": "0.5x", "latency_table": "phone.json"}})


@pytest.mark.parametrize(
    "more",
    [{"latency": "0.5x"}, {"max_drop": 1.0}, {"channels": "0.5x"}, {"sparsity": 0.5},
     {"final_epochs": 3}, {"as_long": True},
     {"engine": "ray", "files": "s3://bucket/run", "storage": "postgresql://db/x"}],
    ids=str,
)  # fmt: skip
def test_a_budget_decides_what_each_model_is_worth(more: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="must be left out beside a budget"):
        from_flat(SearchPlan, {"budget": "10m", **more})
    with pytest.raises(InputError, match="budget must be at least 60 seconds in a run"):
        from_flat(SearchPlan, {"budget": 30})
    with pytest.raises(InputError, match="formats must be without those that need more training"):
        from_flat(SearchPlan, {"budget": "10m", "formats": "float32,int8-qat"})


def test_trials_of_a_budget_are_as_many_as_pay() -> None:
    assert SearchPlan().max_trials == 20
    assert from_flat(SearchPlan, {"budget": "10m"}).max_trials > 1000
    assert from_flat(SearchPlan, {"budget": "10m", "trials": 7}).max_trials == 7


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

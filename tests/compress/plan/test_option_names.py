"""One name for each option, at most 100 options, and help in one sentence."""

from __future__ import annotations

import re
from typing import Any

import pytest

import paretune as pt
from compress.plan import Plan
from compress.plan.bench import BenchPlan
from compress.plan.fields import PlanField, list_plan_fields
from compress.plan.nesting import FORMER_NAMES, from_flat
from compress.plan.shrink import ShrinkPlan
from search.plan import SearchPlan
from tests.search.cli.test_help import invoked

PLANS: dict[str, type[Any]] = {
    "compress": Plan, "shrink": ShrinkPlan, "run": SearchPlan, "search": SearchPlan,
    "bench": BenchPlan,
}  # fmt: skip
TOPICS = {
    "channels": "channel", "weights": "weight", "quantize": "qat", "finetune": "finetune",
    "distill": "distill", "latency": "latency", "final": "final",
}  # fmt: skip
"""What stands before an option's name outside its section, by section."""
SECTION_NAMES = {"data.source": "data", "channels.target": "channels"}
"""Options that are called like their section."""
OPTIONS = {(leaf.path, leaf.flat_name): leaf for plan in PLANS.values()
           for leaf in list_plan_fields(plan)}  # fmt: skip


def test_there_are_at_most_100_options() -> None:
    assert len({path for path, _ in OPTIONS}) <= 100
    assert len(OPTIONS) == len({path for path, _ in OPTIONS}), "one name in every command"


@pytest.mark.parametrize("leaf", OPTIONS.values(), ids=lambda leaf: leaf.path)
def test_an_option_is_called_like_its_field(leaf: PlanField) -> None:
    topic = TOPICS.get(leaf.section or "")
    expected = {leaf.name, f"{topic}_{leaf.name}" if topic else leaf.name}
    expected.add(SECTION_NAMES.get(leaf.path, leaf.name))
    assert leaf.flat_name in expected


@pytest.mark.parametrize("leaf", OPTIONS.values(), ids=lambda leaf: leaf.path)
def test_help_is_one_sentence(leaf: PlanField) -> None:
    assert 15 <= len(leaf.help) <= 120
    assert not leaf.help.endswith(".")
    assert leaf.help[0].islower() or leaf.help.startswith(("MACs", "GPUs", "CPU", "ONNX", "Optuna"))
    assert ". " not in leaf.help.replace("e.g. ", "")
    # a number has its range, a duration or size its unit
    if leaf.hint in (int, int | None):
        assert leaf.least is not None
    if leaf.hint in (float, float | None):
        assert re.search(r"in [\[(]\d|above 0|at least 0|minutes|seconds|in ms|metric", leaf.help)


def test_no_two_options_of_a_command_share_a_name() -> None:
    for plan in PLANS.values():
        names = [leaf.flat_name for leaf in list_plan_fields(plan)]
        assert len(names) == len(set(names))


@pytest.mark.parametrize("former", FORMER_NAMES)
def test_a_former_name_is_answered_with_the_present_one(former: str) -> None:
    present = FORMER_NAMES[former]
    takers = [name for name, plan in PLANS.items()
              if present in {leaf.flat_name for leaf in list_plan_fields(plan)}]  # fmt: skip
    for command in takers:
        if former in {leaf.flat_name for leaf in list_plan_fields(PLANS[command])}:
            continue
        flag, new_flag = (f"--{name.replace('_', '-')}" for name in (former, present))
        done = invoked(command, "m.keras", flag, "1")
        assert done.exit_code == 2
        said = f"Unknown option '{flag}' of `paretune {command}`. It is called '{new_flag}' now."
        assert said in done.stderr
        with pytest.raises(pt.InputError, match=f"'{former}'. It is called '{present}' now"):
            from_flat(PLANS[command], {former: 1})


def test_former_keywords_of_functions_are_answered_with_the_present_ones() -> None:
    model: Any = None
    with pytest.raises(pt.InputError, match="'pairs'. It is called 'feature_pairs' now"):
        pt.distill(model, model, None, pairs={})  # type: ignore[call-arg]
    with pytest.raises(pt.InputError, match="'also'. It is called 'include' now"):
        pt.prune_weights(model, None, also=())  # type: ignore[call-arg]
    with pytest.raises(pt.InputError, match="'epochs'. It is called 'finetune_epochs' now"):
        pt.shrink("m.keras", "d.npz", epochs=1)  # type: ignore[call-arg]

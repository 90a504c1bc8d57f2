"""Plans that the first release stored are read, and are the same plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.fields import (
    from_flat,
    from_nested,
    list_forbidden_changes,
    merge_nested,
    nest_options,
)
from compress.run.directory import RunFolder
from search.pipeline import restore_plan
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from tests.compress.plan.test_values import SEARCHED

# plans of SearchPlan() and of SEARCHED, as the first release wrote them into plan.json; the second
# hint is a user's own
STORED: dict[str, Any] = json.loads(Path(__file__).with_name("first_release.json").read_text())


def plans() -> dict[str, SearchPlan]:
    return {"default": SearchPlan(), "rich": from_flat(SearchPlan, SEARCHED)}


@pytest.mark.parametrize("name", ["default", "rich"])
def test_a_stored_plan_is_the_plan_that_is_given_now(name: str) -> None:
    stored, now = from_nested(SearchPlan, STORED[name]), plans()[name]
    # the task is told from the data now, and the sampler and the method that chooses channel
    # counts are the best measured, unless they are said
    assert stored == replace(
        now,
        data=replace(now.data, task="multiclass"),
        search=replace(now.search, sampler="tpe"),
        channels=replace(now.channels, criterion="l2", scope="global"),
        weights=replace(now.weights, scope="layer"),
    )
    assert list_forbidden_changes(stored, now) == []


def test_a_search_goes_on_with_the_sampler_that_it_began_with(tmp_path: Path) -> None:
    folder, plan = SearchFolder(tmp_path), SearchPlan()
    assert restore_plan(plan, folder).search.sampler == "pareto"
    record = {"format": 1, "command": "run", "facts": {}, "shown": {}, "versions": {},
              "plan": STORED["default"]}  # fmt: skip
    folder.plan_path.write_text(json.dumps(record))
    resumed = restore_plan(plan, folder)
    assert resumed.search.sampler == "tpe"
    assert (resumed.channels.criterion, resumed.channels.scope) == ("l2", "global")
    assert resumed.weights.scope == "layer"
    # one that is named is another run, and is refused where that is checked
    asked = from_flat(SearchPlan, {"sampler": "greedy"})
    assert restore_plan(asked, folder).search == asked.search
    stored = from_nested(SearchPlan, STORED["default"])
    assert list_forbidden_changes(stored, asked) == ["search.sampler was 'tpe', now 'greedy'"]


def test_differences_are_told_in_texts() -> None:
    changed = (
        plans()["rich"],
        from_flat(
            SearchPlan, SEARCHED | {"channels": "0.4x", "temperature": "4", "prune_end": "60%"}
        ),
    )
    assert list_forbidden_changes(*changed) == [
        "channels.target was '0.5x', now '0.4x'", "weights.end was '2e', now '60%'",
        "distill.temperature was 8.0, now 4.0",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["default", "rich"])
def test_a_folder_of_the_first_release_goes_on(name: str, tmp_path: Path) -> None:
    record = {"format": 1, "command": "run", "facts": {}, "shown": {}, "versions": {},
              "plan": STORED[name]}  # fmt: skip
    (tmp_path / "plan.json").write_text(json.dumps(record))
    folder = RunFolder(tmp_path)
    (tmp_path / "candidates").mkdir()
    (tmp_path / "candidates" / "0000.json").write_text("{}")  # something was begun
    assert not folder.check_claim("run", plans()[name])
    with pytest.raises(InputError, match="belongs to another run: seed was"):
        folder.check_claim("run", from_flat(SearchPlan, {**SEARCHED, "seed": 99})
                     if name == "rich" else from_flat(SearchPlan, {"seed": 99}))  # fmt: skip


def test_a_toml_plan_of_the_first_release_is_read() -> None:
    old = {
        "channels": {"target": "0.5x", "of": "params", "limits": ["a=0.5"]},
        "weights": {"also": ["ends"], "frequency": "", "begin": "0%"},
        "distill": {"teacher_weights": "", "teacher": "none", "temperature": "4"},
    }
    plan = from_nested(Plan, old)
    flat = {"channels": 0.5, "channels_of": "params", "channel_limits": {"a": 0.5},
            "prune_also": ("ends",), "teacher": None}  # fmt: skip
    assert plan == from_flat(Plan, flat)
    # options go over a file's old names
    assert from_nested(
        Plan, merge_nested(old, nest_options(Plan, {"channels": "60k"}))
    ).channels == (from_flat(Plan, {**flat, "channels": 6e4}).channels)
    with pytest.raises(InputError, match="once. Received: 'target_metric' and its old name 'of'"):
        from_nested(Plan, {"channels": {"of": "macs", "target_metric": "params"}})


def test_a_training_that_the_first_release_began_goes_on() -> None:
    """A checkpoint's identity holds the options of distillation as they were written then."""
    from compress.distillation.objective import _collect_identity

    default = (
        "{'teacher_weights': '', 'loss': 'kd', 'temperature': 4.0, 'weight': 0.7, 'hints': (), "
        "'hint_weight': 1.0, 'pairs': ()}"
    )
    rich = (
        "{'teacher_weights': '', 'loss': 'kd', 'temperature': 8.0, 'weight': 0.5, "
        "'hints': ('fitnets', 'mine:Loss'), 'hint_weight': 0.5, "
        "'pairs': ('conv2=conv3', 'head=top')}"
    )
    assert str(_collect_identity(plans()["default"].distill)) == default
    assert str(_collect_identity(plans()["rich"].distill)) == rich

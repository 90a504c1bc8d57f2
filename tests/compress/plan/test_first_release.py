"""Plans that the first release stored are read, and are the same plans."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from compress.core.errors import InputError
from compress.plan import Plan
from compress.plan.fields import list_plan_fields, list_removed_options
from compress.plan.nesting import (
    from_flat,
    from_nested,
    list_forbidden_changes,
    merge_nested,
    nest_options,
)
from compress.plan.shrink import ShrinkPlan
from compress.run.directory import RunFolder
from search.pipeline import restore_plan
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from tests.compress.plan.test_values import SEARCHED, made

# plans of SearchPlan() and of SEARCHED, as the first release wrote them into plan.json, with the
# defaults of options that are gone since; the second hint is a user's own
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
        search=replace(
            now.search,
            sampler="tpe",
            trials=20 if name == "default" else now.search.trials,
            objectives=now.search.resolved_objectives,
        ),
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
    stored_objectives = resumed.search.objectives
    assert stored_objectives == ("accuracy", "macs")
    assert resumed.search.sampler == "tpe"
    assert (resumed.channels.criterion, resumed.channels.scope) == ("l2", "global")
    assert resumed.weights.scope == "layer"
    # one that is named is another run, and is refused where that is checked
    asked = from_flat(SearchPlan, {"sampler": "greedy"})
    expected = replace(asked.search, objectives=stored_objectives)
    assert restore_plan(asked, folder).search == expected
    stored = from_nested(SearchPlan, STORED["default"])
    assert list_forbidden_changes(stored, asked) == ["sampler was 'tpe', now 'greedy'"]


def test_differences_are_told_in_texts() -> None:
    changed = (
        plans()["rich"],
        from_flat(
            SearchPlan, SEARCHED | {"channels": "0.4x", "temperature": "4", "sparsity_end": "60%"}
        ),
    )
    assert list_forbidden_changes(*changed) == [
        "channels was '0.5x', now '0.4x'", "sparsity_end was '2e', now '60%'",
        "temperature was 8.0, now 4.0",
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
        "channels": {"target": "0.5x", "of": "macs", "limits": []},
        "weights": {"also": ["ends"], "frequency": "", "begin": "0%"},
        "distill": {"teacher_weights": "", "teacher": "none", "temperature": "4"},
    }
    plan = from_nested(Plan, old)
    flat = {"channels": 0.5, "weight_include": ("ends",), "teacher": None}
    assert plan == from_flat(Plan, flat)
    # options go over a file's old names
    assert from_nested(
        Plan, merge_nested(old, nest_options(Plan, {"channels": "60k"}))
    ).channels == (from_flat(Plan, {**flat, "channels": 6e4}).channels)
    with pytest.raises(InputError, match="once. Received: 'weights.include' and its old name"):
        from_nested(Plan, {"weights": {"also": ["ends"], "include": ["biases"]}})
    with pytest.raises(InputError, match="^Option 'of' was removed. .* shrink --params 0.5x"):
        from_nested(Plan, {"channels": {"of": "params"}})


FORMER_SECTIONS = {
    "search": {"space": "mlp"},
    "stopping": {"rule": "none", "eta": 3.0, "margin": 0.02, "rungs": [], "plateau": 0},
    "budget": {"minutes": 60.0, "trial_minutes": "90s", "converged": 0, "target": []},
    "engine": {
        "name": "ray", "address": "auto", "cpus": 2, "gpus": 0.5, "files": "s3://bucket/path",
    },
}  # fmt: skip
"""Sections of earlier versions, with every key that they had."""
NOW = {
    "space": "mlp", "stopping": "none", "max_minutes": 60, "trial_minutes": 1.5,
    "engine": "ray", "cpus_per_worker": 2, "gpus_per_worker": 0.5, "files": "s3://bucket/path",
}  # fmt: skip


def test_sections_of_earlier_versions_are_read() -> None:
    assert from_nested(SearchPlan, FORMER_SECTIONS) == from_flat(SearchPlan, NOW)
    former = {
        f"{section}.{key}"
        for section, values in FORMER_SECTIONS.items()
        for key in values
        if section != "search"
    }
    assert former == SearchPlan.FORMER_PATHS.keys() - Plan.FORMER_PATHS.keys()
    assert from_nested(SearchPlan, {"stopping": {}, "budget": {}}) == SearchPlan()


def test_every_former_path_leads_to_an_option() -> None:
    paths: set[str] = set()
    for plan in (Plan, ShrinkPlan, SearchPlan):
        paths |= {leaf.path for leaf in list_plan_fields(plan)} | list_removed_options(plan).keys()
    assert set(SearchPlan.FORMER_PATHS.values()) <= paths


def test_a_value_at_its_former_and_its_present_path_is_refused() -> None:
    both = {"search": {"max_minutes": 30}, "budget": {"minutes": 60}}
    with pytest.raises(InputError) as caught:
        from_nested(SearchPlan, both)
    assert str(caught.value) == (
        "A key must stand in a plan once. Received: 'search.max_minutes' and its old name "
        "'budget.minutes'."
    )


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"stopping": {"margin": 0.1}}, "Option 'margin' was removed. It is 0.02"),
        ({"stopping": {"rungs": ["2", "4"]}}, "Option 'rungs' was removed. Trials are compared"),
        ({"stopping": {"plateau": 3}}, "Option 'plateau' was removed. No figure"),
        ({"budget": {"converged": 20}}, "Option 'converged' was removed. No figure"),
        ({"budget": {"target": ["macs<=2M"]}}, "Option 'target' was removed. No figure showed"),
        ({"engine": {"name": "ray", "address": "h:1"}}, "Option 'address' was removed. Ray itself"),
        ({"search": {"replay": "c.json"}}, "Option 'replay' was removed. Give the file to warm_s"),
        ({"search": {"prefer": ["macs<=1M"]}}, "Option 'prefer' was removed. No figure"),
        ({"search": 3, "stopping": {"rule": "none"}}, "section 'search' must be a table"),
        ({"budget": {"minute": 3}}, "Unknown plan section or key 'budget'"),
    ],
)
def test_what_a_former_section_cannot_hold(old: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_nested(SearchPlan, old)


def test_options_override_former_sections_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text("[budget]\nminutes = 60\n[stopping]\nrule = 'none'\n")
    plan = made(SearchPlan, "--plan", str(tmp_path / "p.toml"), "--max-minutes", "5")
    assert (plan.search.max_minutes, plan.search.stopping) == (5.0, "none")


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

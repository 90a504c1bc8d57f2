"""Plans: one record from Python, TOML and the command line."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from compress.core.errors import InputError
from compress.plan import AUTO, DistillOptions, Plan, TeacherChoice, TrainSettings
from compress.plan.conversion import join_items, split_items
from compress.plan.nesting import (
    build_command_words,
    from_flat,
    from_nested,
    list_forbidden_changes,
    merge_nested,
    to_nested,
)
from search.plan import SearchPlan


def test_flat_and_nested_make_the_same_plan() -> None:
    flat = from_flat(
        Plan, {"data": "mnist", "sparsity": 0.5, "formats": "int8", "finetune_epochs": 3}
    )
    nested = from_nested(
        Plan,
        {
            "data": {"source": "mnist"},
            "weights": {"sparsity": 0.5},
            "export": {"formats": ["int8"]},
            "finetune": {"epochs": 3},
        },
    )
    assert flat == nested
    assert flat.finetune.epochs == 3


@pytest.mark.parametrize("plan", [Plan(), SearchPlan(), from_flat(Plan, {"sparsity": 0.9})])
def test_plans_survive_json(plan: Plan) -> None:
    assert from_nested(type(plan), to_nested(plan)) == plan


def test_epochs_of_candidates_and_of_fine_tuning() -> None:
    run = from_flat(SearchPlan, {"epochs": 7})
    assert (run.search.epochs, run.finetune.epochs) == (7, None)
    assert from_flat(SearchPlan, {"finetune_epochs": 7}).finetune.epochs == 7


def test_command_words_say_what_differs_from_the_defaults() -> None:
    plan = from_flat(SearchPlan, {"data": "a b.npz", "trials": 3, "blocks": True, "out": "x"})
    line = shlex.join(build_command_words(plan))
    assert line == "--data 'a b.npz' --blocks --trials 3"


@pytest.mark.parametrize(
    "teacher", [("runs/a,b/0.keras",), ("a.keras", 'b "c",d.keras'), ("none",), ("auto",)]
)
def test_paths_with_commas_survive_the_command_line(teacher: tuple[str, ...]) -> None:
    plan = from_flat(Plan, {"data": "d.npz", "teacher": teacher})
    assert tuple(plan.distill.teacher.to_plain()) == teacher
    words = build_command_words(plan)
    text = words[words.index("--teacher") + 1] if "--teacher" in words else "auto"
    assert from_flat(Plan, {"data": "d.npz", "teacher": text}) == plan
    assert from_nested(Plan, to_nested(plan)) == plan


def test_lists_are_split_at_commas_outside_of_quotes() -> None:
    assert split_items(' a, "b,c" ,, d"e') == ("a", "b,c", 'd"e')
    assert join_items(("a", "b,c", 'd"e')) == 'a,"b,c","d""e"'
    assert split_items(join_items(("a", "b,c", 'd"e'))) == ("a", "b,c", 'd"e')
    assert split_items("") == ()
    with pytest.raises(InputError, match="A list must be items with commas between"):
        split_items("x" * 200_000)


def test_a_plan_of_the_first_release_opens() -> None:
    """Its teachers were one text."""
    two = TeacherChoice((Path("a.keras"), Path("b.keras")))
    for stored, expected in (("auto", AUTO), ("a.keras, b.keras", two)):
        assert from_nested(Plan, {"distill": {"teacher": stored}}).distill.teacher == expected
        assert DistillOptions(teacher=stored).teacher == expected


def test_differing_fields_skip_what_may_change() -> None:
    old, new = SearchPlan(), from_flat(SearchPlan, {"trials": 99, "workers": 7, "seed": 3})
    assert list_forbidden_changes(old, new) == ["seed was 0, now 3"]


def test_overlay_changes_leaves_only() -> None:
    merged = merge_nested({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}})
    assert merged == {"a": {"x": 1, "y": 3}, "b": 1}


def test_overlay_replaces_no_value_by_a_section() -> None:
    """`data = 5` in a plan file was replaced by --data without a word."""
    with pytest.raises(InputError, match="section 'data' must be a table. Received: 5"):
        merge_nested({"data": 5}, {"data": {"source": "digits"}})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"seed": 10**5000},
            r"seed must be at most 2,147,483,647 .* Received: a number of 166",
        ),
        ({"search": {"max_macs": 2**63}}, "max_macs must be a number of at most 63 bits"),
        ({"latency": {"budget": 10**400}}, "latency_budget must be a number of at most 63 bits"),
        ({"out": "a\0b"}, r"out must hold no NUL character. Received: 'a\\x00b'"),
        ({"latency": {"threads": [1, 10**5000]}}, "latency_threads must be an integer"),
        ({"data": "a\nb"}, r"section 'data' must be a table. Received: 'a\\nb'"),
        ({"out": ["x"] * 10_000}, r"out must be a path.*characters in all"),
        ({"da\nta": 1}, r"Unknown plan section or key 'da\\nta'"),
        ({"data": {"so\nurce": 1}}, r"Unknown key in plan section 'data' 'so\\nurce'"),
    ],
)
def test_values_that_no_message_could_show(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        from_nested(SearchPlan, values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sparsty": 0.5}, "Unknown plan option 'sparsty'.*Did you mean 'sparsity'"),
        ({"sparsity": 1.0}, r"sparsity must be in \[0, 1\). Received: 1.0"),
        ({"sparsity": -0.1}, "sparsity must be in"),
        ({"sparsity": float("nan")}, "must be finite"),
        (
            {"sparsity": "a"},
            "sparsity must be a number like 0.5, or a share like 50 %. Received: 'a'",
        ),
        ({"sparsity_end": "0%"}, "sparsity_end must be above 0%"),
        ({"finetune_epochs": -1}, "finetune_epochs must be at least 0"),
        ({"finetune_epochs": True}, "finetune_epochs must be an integer"),
        ({"temperature": 0.0}, "temperature must be above 0"),
        ({"distill_weight": 1.5}, r"distill_weight must be in \[0, 1\]"),
        (
            {"formats": "int4"},
            "Unknown export format 'int4'. Did you mean 'int8'. Choices: dynamic, float16",
        ),
        ({"formats": ""}, "name at least one format"),
        ({"finetune_optimizer": "lion"}, "Unknown optimizer 'lion'. Choices: adagrad"),
        ({"learning_rate_schedule": "step"}, "Unknown learning-rate schedule"),
        ({"device": "tpu"}, "Unknown device 'tpu'"),
        ({"normalize": "zscore"}, "Unknown normalization"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"threads": 0}, "threads must be at least 1"),
        ({"latency_budget": 0.0}, "latency_budget must be above 0"),
        # a misspelt choice is named before rules that depend on it
        (
            {"channel_scope": "outpt_error", "blocks": True},
            "Unknown channel scope 'outpt_error'. Did",
        ),
        ({"weight_scope": "erc", "weight_pattern": "2:4"}, "Unknown pruning scope 'erc'. Did you"),
        (
            {"finetune_optimizer": "lion", "learning_rate": -1},
            "Unknown optimizer 'lion'. Choices: adagrad",
        ),
    ],
)
def test_plan_refusals(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(Plan, values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"trials": 0}, "trials must be at least 1. Received: 0"),
        ({"space": "cn"}, "Unknown space 'cn'. Did you mean 'cnn'. Choices: cnn, mlp"),
        ({"sampler": "bayes"}, "Unknown sampler 'bayes'. Did you mean 'tpe'. Choices: auto"),
        ({"optimizers": "adam,lion"}, "Unknown optimizer 'lion'"),
        ({"objectives": ""}, "objectives must name one quality"),
        ({"objectives": "macs,accuracy"}, "Unknown quality 'macs'"),
        ({"max_macs": 0}, "max_macs must be at least 1"),
        ({"workers": 0}, "workers must be at least 1"),
    ],
)
def test_search_plan_refusals(values: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(SearchPlan, values)


def test_unknown_sections_and_keys_are_refused() -> None:
    with pytest.raises(InputError, match="Unknown plan section or key 'weight'"):
        from_nested(Plan, {"weight": {}})
    with pytest.raises(InputError, match="Unknown key in plan section 'weights' 'sparse'"):
        from_nested(Plan, {"weights": {"sparse": 1}})
    with pytest.raises(InputError, match="must be a table"):
        from_nested(Plan, {"weights": 3})


def test_automatic_epochs_give_a_thousand_steps() -> None:
    assert TrainSettings().count_epochs(10) == 100
    assert TrainSettings().count_epochs(399) == 4
    assert TrainSettings().count_epochs(5000) == 4
    assert TrainSettings(epochs=2).count_epochs(10) == 2
    # of 6,000 examples an epoch has 500, in three steps of 128
    assert TrainSettings().count_steps(6000) == 46
    assert TrainSettings(epoch_examples=500).count_steps(6000) == 3
    assert TrainSettings(epoch_examples=500).count_steps(100) == 1

"""Options of the plan as keywords: one table, its classes, and what is said of wrong ones."""

from __future__ import annotations

import inspect
import re
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import compress
import search
from compress.core.errors import InputError
from compress.plan import Plan, TrainSettings, WeightOptions, keywords
from compress.plan.bench import BenchPlan
from compress.plan.keywords import BENCH, COMPRESS_MODEL, PRUNE_CHANNELS, PRUNE_WEIGHTS, Keywords
from search.plan import RUN, RUN_SEARCH, SearchPlan
from search.plan.write_settings import write_settings

COMPRESS = [item for item in keywords.FUNCTIONS if item not in (RUN, RUN_SEARCH)]


def declared_keywords(functions: Sequence[Keywords], folder: Path) -> dict[str, Any]:
    """Return the classes that a build makes for functions, by name."""
    write_settings(functions, folder / "settings.py")
    return runpy.run_path(str(folder / "settings.py"))


@pytest.mark.parametrize(
    "function", [*COMPRESS, RUN, RUN_SEARCH], ids=lambda item: item.function_name
)
def test_a_function_declares_its_keywords(function: Keywords, tmp_path: Path) -> None:
    """The class of its `**settings` has exactly the keywords that it takes, none of them twice."""
    home: Any = search if function.function_name.startswith("run") else compress
    signature = inspect.signature(getattr(home, function.function_name))
    (rest,) = (p for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD)
    found = re.fullmatch(r"Unpack\[(\w+)\]", rest.annotation)
    assert found is not None
    declared = declared_keywords([RUN] if home is search else COMPRESS, tmp_path)[found[1]]
    assert {*declared.__annotations__} == {*function.list_options()}
    assert not {*function.list_options()} & {*signature.parameters}


def test_every_option_of_a_plan_is_a_keyword_of_the_whole() -> None:
    for function, plan in ((COMPRESS_MODEL, Plan), (BENCH, BenchPlan), (RUN, SearchPlan)):
        paths = {leaf.path for leaf in keywords.list_plan_fields(plan)}
        assert {leaf.path for leaf in function.list_options().values()} | function.excluded == paths


def test_every_option_of_a_section_is_a_keyword_of_its_function() -> None:
    """What a function leaves out it takes in another way."""
    assert PRUNE_CHANNELS.excluded == {"channels.target", "channels.criterion"}
    names = {leaf.path: name for name, leaf in PRUNE_WEIGHTS.list_options().items()}
    assert names["finetune.epochs"] == "epochs"
    assert names["weights.scope"] == "scope"


def test_keywords_go_over_a_record() -> None:
    record = WeightOptions(sparsity=0.5, scope="global")
    settings = {"sparsity": 0.9, "epochs": 3, "learning_rate_schedule": "constant"}
    over = PRUNE_WEIGHTS.build_section("weights", record, WeightOptions, settings)
    assert (over.sparsity, over.scope) == (0.9, "global")
    tuned = PRUNE_WEIGHTS.build_section("finetune", None, TrainSettings, settings)
    assert (tuned.epochs, tuned.learning_rate_schedule) == (3, "constant")
    assert PRUNE_WEIGHTS.build_section("weights", record, WeightOptions, {}) is record


def test_keywords_go_over_a_plan() -> None:
    plan = COMPRESS_MODEL.apply_to(
        Plan(seed=3),
        {
            "channels": 0.5,
            "sparsity": 0.9,
            "finetune_epochs": 4,
            "formats": ["float32", "int8"],
            "device": "cpu",
        },
    )  # fmt: skip
    assert (plan.seed, plan.device, plan.weights.sparsity, plan.finetune.epochs) == (
        3,
        "cpu",
        0.9,
        4,
    )
    assert plan.export.formats == ("float32", "int8")
    assert plan == keywords.COMPRESS_MODEL.apply_to(
        Plan(seed=3, device="cpu"),
        {"channels": "0.5x", "sparsity": 0.9, "finetune_epochs": 4, "formats": "float32,int8"},
    )
    assert BENCH.apply_to(BenchPlan(), {"threads": [1, 2]}).threads == (1, 2)
    search_plan = RUN.apply_to(SearchPlan(), {"space": "cnn", "trials": 12, "max_macs": 4e6})
    assert (search_plan.search.trials, search_plan.search.max_macs) == (12, 4_000_000)


@pytest.mark.parametrize(
    ("function", "settings", "message"),
    [
        (
            PRUNE_CHANNELS,
            {"round_two": 8},
            r"Unknown option of prune_channels\(\) 'round_two'.*'round_to'\?",
        ),
        (
            PRUNE_CHANNELS,
            {"sparsity": 0.8},
            r"options of its own. Received: 'sparsity', which prune_weights\(\) or ",
        ),
        (PRUNE_WEIGHTS, {"temperature": 4}, r"'temperature', which distill\(\) or "),
        (BENCH, {"thread": [1]}, "Did you mean 'threads'"),
        (COMPRESS_MODEL, {"trials": 3}, r"'trials', which run\(\) or run_search\(\) takes"),
        (COMPRESS_MODEL, {"epochs": 3}, "'epochs'. It is called 'finetune_epochs' now"),
        (PRUNE_WEIGHTS, {"epochs": -1}, "epochs must be at least 0"),
    ],
)
def test_wrong_keywords(function: Keywords, settings: Mapping[str, Any], message: str) -> None:
    def used() -> None:
        if function.sections:
            for section, kind in (("weights", WeightOptions), ("finetune", TrainSettings)):
                function.build_section(section, None, kind, settings)  # type: ignore[arg-type]
        else:
            function.apply_to(function.plan(), settings)

    with pytest.raises(InputError, match=message):
        used()

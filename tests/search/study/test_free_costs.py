"""What samplers are told of candidates before these are built."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import optuna

from compress.data import Dataset
from compress.measure import count_macs
from search.plan import SearchOptions, SearchPlan
from search.study.study import build_sampler_arguments, create_sampler


def plan(**options: Any) -> SearchPlan:
    return replace(SearchPlan(), search=SearchOptions(space="mlp", **options))


def test_costs_are_those_of_the_model(digits: Dataset) -> None:
    given = plan(objectives=("accuracy", "params", "latency_ms", "macs"))
    known = build_sampler_arguments(given, digits)
    space = given.search.resolved_space
    chosen = space.baseline(digits)
    counted = count_macs(space.build(optuna.trial.FixedTrial(chosen), digits))
    params, latency, macs = known["costs"](chosen)
    assert (params, macs) == (counted.params, counted.macs)
    assert math.isnan(latency), "it is measured when the model is there"
    assert [choice.name for choice in known["space"]][:2] == ["layers", "activation"]


def test_candidates_beyond_a_limit_have_none(digits: Dataset) -> None:
    given = plan(max_macs=20_000)
    costs, space = build_sampler_arguments(given, digits)["costs"], given.search.resolved_space
    assert costs(space.largest(digits)) is None
    assert costs(space.smallest(digits)) is not None


def test_a_space_that_is_a_function_tells_nothing(blobs: Dataset) -> None:
    given = replace(plan(), search=SearchOptions(space="tests.search.spaces.own:build"))
    assert set(build_sampler_arguments(given, blobs)) == {"curves"}


def test_curves_are_the_qualities_at_the_rungs(digits: Dataset) -> None:
    curves = build_sampler_arguments(plan(epochs=16), digits)["curves"]
    attrs = {"rung2": 0.5, "rung4": 0.625, "rung3": 0.1, "seed": 7}
    trial = optuna.trial.create_trial(values=[1, 2], user_attrs=attrs)
    assert curves(trial) == {2: 0.5, 4: 0.625}


def test_only_samplers_that_know_spaces_are_told(digits: Dataset) -> None:
    asked: list[str] = []

    def known() -> dict[str, Any]:
        asked.append("known")
        return build_sampler_arguments(plan(), digits)

    create_sampler("tpe", 0, 3, known)
    assert asked == []
    create_sampler("pareto", 0, 3, known)
    assert asked == ["known"]

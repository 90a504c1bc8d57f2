"""Costs before training: limits, what is measured and when, repeats."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import keras
import numpy as np
import optuna
import pytest

from compress.core.errors import InputError
from compress.data import Dataset
from compress.exporting.litert import export_litert
from compress.plan.nesting import from_flat
from search.plan import SearchOptions, SearchPlan
from search.study import costs
from search.study.checks import check_limits
from search.study.costs import (
    Costs,
    describe_excesses,
    find_costs,
    hash_architecture,
    report_excess,
)
from search.study.directory import SearchFolder


@pytest.fixture
def folder(tmp_path: Path) -> SearchFolder:
    made = SearchFolder(tmp_path / "run")
    made.claim("run", SearchPlan())
    return made


def dense(units: int, activation: str = "relu", name: str = "one") -> keras.Model:
    inputs = keras.Input((8,), name=f"{name}_in")
    x = keras.layers.Dense(units, activation=activation, name=f"{name}_a")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, name=f"{name}_b")(x), name=name)


def test_counts_need_no_file(folder: SearchFolder) -> None:
    with mock.patch.object(costs, "_measure_file", side_effect=AssertionError("converted")):
        found = find_costs(dense(4), SearchOptions(), folder)
        # 8 x 4 + 4 x 3, with biases
        assert (found.macs, found.params) == (44, 36 + 15)
        # a count over its limit: nothing is measured
        options = SearchOptions(max_macs=10, max_latency=1.0)
        assert find_costs(dense(4), options, folder).latency_ms is None
        # 51 weights are 204 bytes: no file is smaller
        options = SearchOptions(max_size=200)
        assert describe_excesses(find_costs(dense(4), options, folder), options) == (
            "at least 204 bytes of .tflite exceed the limit of 200"
        )


def test_size_is_that_of_the_file_and_kept_by_architecture(
    folder: SearchFolder, tmp_path: Path
) -> None:
    options = SearchOptions(objectives=("accuracy", "size_bytes"))
    first = find_costs(dense(4), options, folder)
    trained = dense(4)
    rng = np.random.default_rng(1)
    trained.set_weights([rng.normal(size=weight.shape) for weight in trained.get_weights()])
    export_litert(trained, tmp_path / "file.tflite")
    assert first.size_bytes == (tmp_path / "file.tflite").stat().st_size
    with mock.patch.object(costs, "_measure_file", side_effect=AssertionError("converted again")):
        assert find_costs(dense(4, name="other"), options, folder) == first
    # a latency is asked for now: the file alone does not tell it
    timed = find_costs(dense(4), SearchOptions(max_latency=1e4), folder)
    assert timed.latency_ms is not None
    assert 0 < timed.latency_ms < 1e4
    assert timed.size_bytes == first.size_bytes


def test_fingerprints() -> None:
    assert hash_architecture(dense(4)) == hash_architecture(dense(4, name="other"))
    assert hash_architecture(dense(4)) != hash_architecture(dense(5))
    assert hash_architecture(dense(4)) != hash_architecture(dense(4, activation="tanh"))


def test_samplers_learn_by_how_much_limits_are_broken() -> None:
    study = optuna.create_study(directions=["maximize", "minimize"])
    options = SearchOptions(max_macs=100, max_params=10, max_latency=0.5)
    report_excess(study.ask(), Costs(150, 10, latency_ms=0.75), options)
    assert study.trials[0].constraints == {"macs": 0.5, "latency_ms": 0.5}


def test_limits_that_nothing_meets(digits: Dataset) -> None:
    plan = from_flat(SearchPlan, {"max_macs": 10})
    with pytest.raises(
        InputError, match=r"max_macs must be at least .* of space 'cnn' has: [\d,]+"
    ):
        check_limits(plan, digits)
    with pytest.raises(InputError, match=r"max_size must be at least .* bytes of .tflite"):
        check_limits(from_flat(SearchPlan, {"max_size": 10}), digits)
    check_limits(from_flat(SearchPlan, {"max_macs": 10**9, "max_params": 10**9}), digits)


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"max_latency": 0.0}, "max_latency must be above 0"),
        ({"max_size": 0}, "max_size must be at least 1"),
        ({"objectives": ""}, "objectives must name one quality"),
        (
            {"objectives": "accuracy,flops"},
            "Unknown cost 'flops'. Did you mean 'macs'. Choices: latency_ms, macs, params",
        ),
        ({"objectives": "accuracy,macs,macs"}, "objectives must name each cost once"),
    ],
)
def test_bad_options(flat: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(SearchPlan, flat)

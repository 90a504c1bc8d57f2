"""Output errors of temporary changes of weights, and the progress while they are measured."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers as L

from compress.model.recording import record_program
from compress.prune.channels import sensitivity_map
from compress.prune.channels.criteria.reconstruction import eliminate_units
from compress.prune.channels.selection import output_error
from compress.prune.channels.selection.output_error import Perturbation, measure_perturbations

SECONDS = {"slow": 9.0, "quick": 1.0}
"""Time that the clock of these tests advances in each layer."""


class Clock:
    """A clock that only the layers below advance."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class Timed(L.Layer):  # type: ignore[misc]
    """A layer that multiplies by its weight and advances a clock by its name."""

    def __init__(self, clock: Clock, name: str) -> None:
        super().__init__(name=name)
        self.clock = clock
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, x: Any) -> Any:
        self.clock.now += SECONDS[self.name]
        return x * self.factor


def timed_model(clock: Clock) -> Any:
    inputs = keras.Input((3,))
    return keras.Model(inputs, Timed(clock, "quick")(Timed(clock, "slow")(inputs)))


def test_errors_are_those_of_the_changed_weights_and_progress_follows_the_time_of_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    model = timed_model(clock)
    monkeypatch.setattr(output_error.time, "perf_counter", clock.perf_counter)
    x = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    slow, quick = (model.get_layer(name).factor for name in ("slow", "quick"))
    perturbations = [
        Perturbation(1, ((quick, np.array(1.5, np.float32)),)),
        Perturbation(0, ((slow, np.array(3, np.float32)),)),
        Perturbation(1, ((quick, np.array(0.5, np.float32)),)),
    ]
    shares: list[float] = []
    errors = measure_perturbations(record_program(model), [x], perturbations, shares.append)
    # y = x becomes factor * x: the error relative to the spread is (factor - 1)^2 E[x^2] / Var[x]
    relative = float((x.astype(np.float64) ** 2).sum() / ((x - x.mean(0)) ** 2).sum())
    np.testing.assert_allclose(errors, [0.25 * relative, 4 * relative, 0.25 * relative], rtol=1e-4)
    assert [float(np.asarray(weight)) for weight in (slow, quick)] == [1.0, 1.0]
    # a pass from the first layer takes 10 seconds, from the second one 1: 12 in all
    np.testing.assert_allclose(shares, [10 / 12, 11 / 12, 1.0])


def test_kernels_of_the_elimination_that_scored_a_group_are_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((12,)), L.Dense(16, "relu"), L.Dense(5)])
    x = np.random.default_rng(0).normal(size=(100, 12)).astype(np.float32)
    calls = []

    def count_calls(*arguments: Any) -> Any:
        calls.append(arguments)
        return eliminate_units(*arguments)

    monkeypatch.setattr(output_error, "eliminate_units", count_calls)
    once = sensitivity_map(model, data=x)
    assert not calls, "the order is that of the scores: nothing is eliminated again"
    build = output_error.build_perturbations
    monkeypatch.setattr(output_error, "build_perturbations", lambda *given: build(*given[:6]))
    twice = sensitivity_map(model, data=x)
    assert calls
    for one, other in zip(once.groups, twice.groups, strict=True):
        assert one.removed == other.removed
        assert one.output_error == pytest.approx(other.output_error, rel=1e-4)


class Batch(L.Layer):  # type: ignore[misc]
    """A layer whose clock advances for each call and example, and by what disturbs it."""

    def __init__(self, clock: Clock, unit: float, disturbances: list[float]) -> None:
        super().__init__()
        self.clock, self.unit, self.disturbances = clock, unit, disturbances
        self.counts: list[int] = []

    def call(self, x: Any) -> Any:
        if x.shape[0] is not None:  # not while the model is built
            self.counts.append(x.shape[0])
            self.clock.now += self.unit * (1 + 0.1 * x.shape[0] + self.disturbances.pop(0))
        return x


@pytest.mark.parametrize(("unit", "counts"), [(0.04, [8, 8, 32, 8, 32]), (1.0, [8, 2, 8, 2, 8])])
def test_times_of_passes_are_those_of_undisturbed_ones(
    unit: float, counts: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The warm-up, then a small and a large batch, twice; slow models get fewer examples."""
    clock = Clock()
    inputs = keras.Input((3,))
    layer = Batch(clock, unit, [9.0, 0.0, 7.0, 5.0, 0.0])
    model = keras.Model(inputs, layer(inputs))
    monkeypatch.setattr(output_error.time, "perf_counter", clock.perf_counter)
    evaluator: Any = SimpleNamespace(
        program=record_program(model), evaluation_inputs=[np.zeros((40, 3), np.float32)]
    )
    found = output_error.ErrorEvaluator.time_passes(evaluator)
    assert layer.counts == counts
    assert (found.overhead, found.example) == pytest.approx((unit, 0.1 * unit))
    assert found.predict(100, 2) == pytest.approx(12.0 * unit)

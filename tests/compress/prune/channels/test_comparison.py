"""The default with data: three methods on the same held-back examples, the best one is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.memory_budget import use_budget
from compress.plan import ChannelOptions
from compress.prune.channels import prune_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.criteria import Context
from compress.prune.channels.selection import selector
from compress.prune.channels.selection.output_error import ErrorEvaluator
from compress.prune.channels.selection.selector import EffortEstimate, estimate_effort
from compress.train.dataset_loading import as_examples

L = keras.layers
SINGLE = {
    "l2 over all layers": {"criterion": "l2", "scope": "global"},
    "uniform channel counts": {"criterion": "reconstruction", "scope": "layer"},
    "output error": {"criterion": "reconstruction", "scope": "output_error"},
}
CALM: dict[str, Any] = {"round_to": 4, "tries": 2, "macs": 0.4}


def deceptive(seed: int = 0) -> keras.Model:
    """Return a model whose layers' weights say nothing about what the layers are worth."""
    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 2))
    for index, (width, scale) in enumerate([(16, 0.01), (32, 30.0), (16, 1.0)]):
        x = L.Conv2D(width, 3, padding="same", name=f"conv{index}")(x)
        x = L.ReLU()(x)
        x = L.Rescaling(1 / scale)(x)
    outputs = L.Dense(5, name="head")(L.GlobalAveragePooling2D()(x))
    model = keras.Model(inputs, outputs)
    for index, scale in enumerate([0.01, 30.0, 1.0]):
        layer = model.get_layer(f"conv{index}")
        layer.set_weights([scale * part for part in layer.get_weights()])
    return model


def images(count: int, seed: int = 1) -> Any:
    x = np.random.default_rng(seed).normal(size=(count, 4, 4, 2)).astype(np.float32)
    return x.repeat(2, 1).repeat(2, 2)


def error(model: Any, small: Any, x: Any) -> float:
    """Return the squared error of outputs relative to their spread, written down here."""
    wanted, made = (np.asarray(net(x), np.float64) for net in (model, small))
    return float(((made - wanted) ** 2).sum() / ((wanted - wanted.mean(0)) ** 2).sum())


def notes_on_methods(notes: Sequence[str]) -> list[str]:
    return [note for note in notes if note.startswith("divergence from the original on")]


@pytest.mark.slow
def test_the_default_is_as_good_as_the_best_method_alone() -> None:
    model, x, fresh = deceptive(), images(400), images(500, 2)
    small = prune_channels(model, data=x, **CALM)
    alone = {
        name: error(model, prune_channels(model, data=x, **CALM, **how).model, fresh)
        for name, how in SINGLE.items()
    }
    assert max(alone.values()) > 1.2 * min(alone.values()), "the methods must differ"
    assert error(model, small.model, fresh) < 1.1 * min(alone.values())
    (note,) = notes_on_methods(small.report.notes)
    assert note.startswith("divergence from the original on 200 held-back examples")
    assert all(name in note for name in SINGLE)
    assert small.report.criterion in SINGLE


def test_outputs_that_are_equal_but_for_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    # probabilities in float32 do not sum to exactly one, so that a divergence may be negative
    monkeypatch.setattr(ErrorEvaluator, "measure_error", lambda *_, **__: -2e-10)
    report = prune_channels(deceptive(), data=images(100), **CALM).report
    assert report.criterion == "output error"


def test_a_criterion_or_a_scope_is_taken_at_its_word() -> None:
    model, x = deceptive(), images(60)
    for how in ({"criterion": "l1"}, {"scope": "layer"}, {"criterion": "l2", "scope": "global"}):
        notes = prune_channels(model, data=x, **CALM, **how).report.notes
        assert not notes_on_methods(notes)
    # without data, and where nothing is reconstructed, there is nothing to compare by
    for how in ({}, {"data": x, "repair": False}):
        report = prune_channels(model, **CALM, **how).report
        assert (report.criterion, notes_on_methods(report.notes)) == ("l2", [])


@pytest.mark.slow
def test_too_long_or_too_large_a_comparison_is_l2_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, x = deceptive(), images(60)
    usual = prune_channels(model, data=x, **CALM, criterion="l2", scope="global")
    with monkeypatch.context() as patch:
        patch.setattr(selector, "LONGEST", 1e-6)
        long = prune_channels(model, data=x, **CALM)
    assert any("more than 0: channels are ranked by l2" in note for note in long.report.notes)
    with monkeypatch.context() as patch:
        patch.setattr(
            selector,
            "estimate_effort",
            lambda *_: EffortEstimate(1.0, 0.0, trial_seconds=0.1, bytes=10**13),
        )
        large = prune_channels(model, data=x, **CALM)
    assert any("10,000.0 GB of memory (estimated)" in note for note in large.report.notes)
    for found in (long, large):
        assert found.report.criterion == "l2 over all layers"
        for path, axes in usual.kept.items():
            for one, other in zip(axes, found.kept[path], strict=True):
                np.testing.assert_array_equal(one, other)


def test_few_examples_are_not_held_back() -> None:
    report = prune_channels(deceptive(), data=images(39), **CALM).report
    (note,) = (note for note in report.notes if note.startswith("methods were not compared"))
    assert "at least 40 examples, and there are 39" in note


def test_what_evaluates_is_not_what_reconstructs() -> None:
    model, x = deceptive(), images(100)
    data = as_examples(x, model=model, path=None, seed=0)
    judge = ErrorEvaluator(analyze_coupling(model), Context(analyze_coupling(model), data=data))
    (held,) = judge.evaluation_inputs
    rows = [{row.tobytes() for row in part} for part in (held, judge.calibration_inputs)]
    assert (len(rows[0]), len(rows[1]), rows[0] & rows[1]) == (50, 50, set())


def test_bytes_of_a_comparison_by_hand() -> None:
    """Second moments, their covariance and inverse; and kernels at five shares, in two forms."""
    model = keras.Sequential([keras.Input((30,)), L.Dense(20), L.ReLU(), L.Dense(4)])
    coupling = analyze_coupling(model)
    data = as_examples(np.ones((50, 30), np.float32), model=model, path=None, seed=0)
    judge = ErrorEvaluator(coupling, Context(coupling, data=data))
    found = estimate_effort(coupling, ChannelOptions(), judge)
    assert found.bytes == 24 * (30**2 + 20**2) + 12 * 5 * (30 * 20 + 20 * 4)


def test_tries_are_as_many_as_the_time_allows() -> None:
    assert EffortEstimate(30.0, 0.0, trial_seconds=30.0, bytes=0).limit_tries(16) == 3
    assert EffortEstimate(100.0, 0.0, trial_seconds=1.0, bytes=0).limit_tries(16) == 16
    assert EffortEstimate(299.0, 0.0, trial_seconds=30.0, bytes=0).limit_tries(16) == 0
    with use_budget(None):
        assert EffortEstimate(299.0, 0.0, trial_seconds=30.0, bytes=10**6).refusal == ""


@pytest.mark.slow
def test_close_methods_are_reconstructed_thoroughly_where_time_allows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert EffortEstimate(100.0, 20.0, 1.0, 0).allows_thorough
    assert not EffortEstimate(100.0, 21.0, 1.0, 0).allows_thorough
    assert EffortEstimate(90.0, 20.0, trial_seconds=5.0, bytes=0).limit_tries(16) == 2
    asked: list[bool] = []

    def measure_error(*_: Any, thorough: bool = False) -> float:
        asked.append(thorough)
        return 1.0  # all methods are equally good

    monkeypatch.setattr(ErrorEvaluator, "measure_error", measure_error)
    for seconds, count in ((0.0, 3), (121.0, 0)):
        asked.clear()
        estimate = EffortEstimate(0.0, seconds, 1.0, 0)
        monkeypatch.setattr(selector, "estimate_effort", lambda *_, estimate=estimate: estimate)
        report = prune_channels(deceptive(), data=images(100), **CALM).report
        assert sum(asked) == count
        assert any("more thoroughly" in note for note in report.notes) == bool(count)


@pytest.mark.parametrize(
    ("fine_error", "widths"), [(0.79, [16, 24, 16]), (0.81, [16, 32, 8])],
    ids=["much better", "hardly better"],
)  # fmt: skip
def test_finer_steps_are_taken_where_they_save_much_output_error(
    fine_error: float, widths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The default's steps of conv0, conv1 and conv2 are 8, 16 and 8.

    MACs are 1,152 a + 576 a b + 576 b c + 5 c for widths a, b, c: 608,336 at 16, 32, 16, then
    460,880 (0.7576x) at 16, 24, 16 and 460,840 (0.7575x) at 16, 32, 8.
    """

    def measure_error(evaluator: ErrorEvaluator, mask: Any, *_: Any, **__: Any) -> float:
        kept = [int(mask[group.units].sum()) for group in evaluator.coupling.groups]
        return fine_error if kept[1] % 16 else 1.0

    monkeypatch.setattr(ErrorEvaluator, "measure_error", measure_error)
    small = prune_channels(deceptive(), macs=0.757, data=images(100), tries=0)
    assert [small.model.get_layer(f"conv{index}").filters for index in range(3)] == widths
    assert small.report.macs == (608_336, 460_880 if widths[1] == 24 else 460_840)
    told = [note for note in small.report.notes if "kept numbers are multiples of 4" in note]
    assert len(told) == (widths[1] == 24)

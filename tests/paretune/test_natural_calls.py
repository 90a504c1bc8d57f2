"""What people write without looking it up: it works, or the error names the keyword."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

import paretune as pt
from tests.fuzz.calls import try_calls

QUICK: dict[str, Any] = {
    "no_train": True, "formats": ["float32"], "latency_budget": 0.2, "round_to": 2,
    "repair": 64,
}  # fmt: skip


@pytest.fixture(scope="module")
def rows() -> tuple[Any, Any]:
    x = np.random.default_rng(0).normal(size=(600, 6)).astype(np.float32)
    return x, (x[:, 0] > 0).astype(int) + (x[:, 1] > 0)


@pytest.fixture(scope="module")
def model(rows: tuple[Any, Any]) -> Any:
    keras.utils.set_random_seed(0)
    layers = keras.layers
    made = keras.Sequential([
        keras.Input((6,)),
        layers.Dense(16, activation="relu", name="first"),
        layers.Dense(16, activation="relu", name="second"),
        layers.Dense(3, activation="softmax", name="out"),
    ])  # fmt: skip
    made.compile(
        keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    made.fit(*rows, 60, 15, verbose=0)
    return made


@pytest.mark.slow
def test_labels_may_stand_behind_examples(model: Any, rows: Any, tmp_path: Path) -> None:
    x, y = rows
    small = pt.shrink(model, x, y, macs=0.6, out=tmp_path / "out", **QUICK)
    assert small.report.record["plan"]["goal"]["macs"] == "0.6x"
    again = pt.shrink(model, (x, y), macs=0.6, out=tmp_path / "pair", **QUICK)
    for one, other in zip(small.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(one, other)
    pruned = pt.prune_weights(model, x, y, sparsity=0.5, epochs=1, batch_size=32)
    assert pruned.training is not None
    assert pruned.report.sparsity == pytest.approx(0.5, abs=0.01)


def test_a_number_is_a_sparsity(model: Any, rows: Any) -> None:
    for result in (pt.prune_weights(model, 0.8), pt.prune_weights(model, rows[0], 0.8, repair=50)):
        assert result.report.sparsity == pytest.approx(0.8, abs=0.01)
    with pytest.raises(pt.InputError, match=r"sparsity must be given once. Received: 0.8 and"):
        pt.prune_weights(model, 0.8, sparsity=0.5)


def test_models_may_stand_in_a_row(model: Any) -> None:
    small = pt.prune_channels(model, macs=0.5).model
    names = [item.name for item in pt.bench(model, small, budget=0.2).models]
    assert names == [model.name, f"{model.name}-2"]
    both = pt.bench([model, small], pt.BenchPlan(budget=0.2))
    assert [item.name for item in both.models] == names
    with pytest.raises(pt.InputError, match="at least one model"):
        pt.bench()


def test_a_pruner_is_a_callback_of_fit(model: Any, rows: Any) -> None:
    x, y = rows
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    copy.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    pruner = pt.WeightPruner(sparsity=0.5, scope="layer", include=["ends"])
    stop = keras.callbacks.EarlyStopping("loss", patience=9)
    copy.fit(x, y, 60, 3, verbose=0, validation_split=0.2, callbacks=[pruner, stop])
    kernels = [layer.kernel for layer in copy.layers]
    zeros = [int(np.count_nonzero(np.asarray(kernel) == 0)) for kernel in kernels]
    # half of 6 * 16, 16 * 16 and 16 * 3 weights
    assert zeros == [48, 128, 24]
    assert pruner.report.sparsity == 0.5
    # stripped: another training is free
    assert all(kernel.constraint is None for kernel in kernels)
    copy.fit(x, y, 60, 1, verbose=0)
    assert sum(int(np.count_nonzero(np.asarray(kernel) == 0)) for kernel in kernels) < 100


def test_evaluation_prunes_nothing_and_unknown_lengths_are_refused(model: Any, rows: Any) -> None:
    x, y = rows
    before = model.get_weights()
    pruner = pt.WeightPruner(0.5)
    model.evaluate(x, y, verbose=0, callbacks=[pruner])
    model.predict(x[:5], verbose=0, callbacks=[pruner])
    assert not pruner.attached

    def endless() -> Any:
        while True:
            yield x[:10], y[:10]

    with pytest.raises(pt.InputError, match=r"data without a length. Give fit\(steps_per_epoch=\)"):
        model.fit(endless(), epochs=1, verbose=0, shuffle=False, callbacks=[pruner])
    for one, other in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


WRONG: list[tuple[Callable[[Any, Any], Any], str]] = [
    (lambda m, d: pt.shrink(m, d, 0.5),
     r"plan must be a ShrinkPlan, or left out. Received: 0.5. Say by a keyword what it is of: "
     r"latency=, size=, peak_memory=, macs= or params=\."),
    (lambda m, d: pt.prune_channels(m, 0.5), r"Received: 0.5. .*: macs= or params=\."),
    (lambda m, d: pt.shrink(m, d, plan=3), "plan must be a ShrinkPlan, or left out. Received: 3"),
    (lambda m, d: pt.prune_channels(m, options=1), "options must be a ChannelOptions"),
    (lambda m, d: pt.prune_channels(m, np.zeros(3)), r"Received: a ndarray of shape \(3,\)"),
    (lambda m, d: pt.prune_channels(m, macs=0.5, input_shape=3), "input_shape must be sizes"),
    (lambda m, d: pt.count_macs(m, 3), "input_shape must be a list or a dictionary"),
    (lambda m, d: pt.export(m, None), "path must be a text or a path. Received: None"),
    (lambda m, d: pt.load_model(None), "path must be a text or a path. Received: None"),
    (lambda m, d: pt.export_latency_table(m, folder=3), "folder must be a text or a path"),
    (lambda m, d: pt.Workers(float("nan")), "workers must be an integer.*Received: nan"),
    (lambda m, d: pt.prune_channels(m, macs=np.ones(2)), "macs must be a number or a text"),
    (lambda m, d: pt.prune_channels(m, macs=0.5, round_to=np.ones(2)), "round_to must be an int"),
    (lambda m, d: pt.prune_channels(m, macs=0.5, seed=-1), "seed must be at least 0"),
    (lambda m, d: pt.prune_channels(m, macs=0.5, criterion=len),
     "criterion must be a text or a function of 2 arguments"),
    (lambda m, d: pt.shrink(m, d, macs=0.5, on_progress=3), "on_progress must be a function of 2"),
    (lambda m, d: pt.quantize(m, d, 3), "options must be a QuantizeOptions.*epochs="),
    (lambda m, d: pt.shrink(m, d, macs=0.5, val=0.2),
     "val and test must be .x, y., a stream or a Dataset. Received: 0.2. .* val_fraction="),
    (lambda m, d: pt.shrink(m, d, macs=0.5, seed="a"), "seed must be an integer, like 0. "),
    (lambda m, d: pt.prune_channels(m, mcas=0.5),
     "Unknown option of prune_channels.. 'mcas'. Did you mean 'macs'. Choices: .*macs, .*params"),
    (lambda m, d: pt.prune_channels(m, macs=0.5, exclude=["*"]),
     r"macs must be at least .* relax channel_exclude \* \(without: 0\.\d+x\), or lower min_kept"),
    (lambda m, d: pt.save_pruning(m, pt.WeightPruner(), "m.keras"), "pruner must be attached"),
    (lambda m, d: pt.recalibrate([1], d, 3), r"model must be a Keras model. Received: \[1\]"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_calls_name_what_is_wrong(
    call: Callable[[Any, Any], Any], message: str, model: Any, rows: Any,
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pt.InputError, match=message):
        call(model, rows)
    assert not any(tmp_path.iterdir())


def test_missing_arguments_are_pythons_own_errors() -> None:
    with pytest.raises(TypeError, match=r"shrink\(\) missing 1 required positional argument"):
        pt.shrink()  # type: ignore[call-arg]


QUICK_FUNCTIONS = (
    "prune_channels", "export", "count_macs", "coupled_groups", "load_model", "as_dataset",
    "recalibrate", "save_pruning", "WeightPruner", "Workers",
)  # fmt: skip


def test_wrong_values_give_no_internal_traceback() -> None:
    found = list(try_calls(60, 7, QUICK_FUNCTIONS))
    assert [called for called in found if called.outcome in ("traceback", "slow")] == []
    assert sum(called.outcome == "refused" for called in found) > 40

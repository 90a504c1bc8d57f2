"""Times of widths and blocks from a table: against sums by hand, nets cut out, and a loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.core.device import read_cpu_name
from compress.core.errors import InputError, RunFailed
from compress.exporting.batch_conversion import write_latency_files
from compress.measure.latency import BUSY
from compress.measure.latency_table import CallKey, CallTime, LatencyTable, measure_calls, record
from compress.measure.runtimes import RUNTIMES
from compress.plan import ChannelOptions
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.selection import latency_measurement
from compress.prune.channels.selection.allowed_counts import compute_allowed_counts
from compress.prune.channels.selection.latency_measurement import (
    TimedCalls,
    measure_latency_model,
    sample_kept_counts,
    time_models,
)
from compress.prune.channels.selection.latency_model import LatencyModel
from compress.prune.channels.surgery import build_pruned_model

OVERHEAD = 0.25


@dataclass
class Branch:
    layers: Sequence[str]


def net() -> Any:
    """Two residual blocks behind a strided convolution; widths of 4 to 24."""

    def conv(x: Any, width: int, name: str, relu: bool = True, **settings: Any) -> Any:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, name=name, **settings)(x)
        x = layers.BatchNormalization(name=f"{name}_bn")(x)
        return layers.ReLU(name=f"{name}_relu")(x) if relu else x

    inputs = keras.Input((8, 8, 3), name="image")
    x = conv(inputs, 16, "stem")
    for block in ("a", "b"):
        y = conv(x, 24, f"{block}1")
        y = conv(y, 16, f"{block}2", relu=False)
        x = layers.Add(name=f"{block}_add")([x, y])
        x = layers.ReLU(name=f"{block}_relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(5, name="logits")(x))


BLOCKS = [Branch((f"{b}1", f"{b}1_bn", f"{b}2", f"{b}2_bn")) for b in ("a", "b")]


def invented(key: CallKey) -> float:
    """A time that is linear in the input channels and anything in the others."""
    given, made = key.inputs[0][-1], key.outputs[0][-1]
    places = np.prod(key.outputs[0][1:-1], initial=1.0)
    kind = sum(map(ord, "".join(key.kinds))) % 7 + 1
    return float(1e-4 * kind * places * (2.0 + given) * (1.0 + np.sqrt(made)))


def table_of(models: dict[CallKey, Callable[[], Any]]) -> LatencyTable:
    calls = tuple(CallTime(key, invented(key), 0.0, 40, 1, 0) for key in models)
    return LatencyTable("known", "float32", 1, "a processor", OVERHEAD, 0.0, calls)


@pytest.fixture(scope="module")
def coupling() -> Coupling:
    return analyze_coupling(net())


@pytest.fixture(scope="module")
def calls(coupling: Coupling) -> TimedCalls:
    return TimedCalls(
        coupling, compute_allowed_counts(coupling, ChannelOptions(min_kept=0.25), 4), BLOCKS
    )


@pytest.fixture(scope="module")
def model(calls: TimedCalls) -> LatencyModel:
    return calls.build_latency_model(table_of(calls.list_model_makers()))


def choices(coupling: Coupling, count: int = 40) -> np.ndarray:
    allowed = compute_allowed_counts(coupling, ChannelOptions(min_kept=0.25), 4)
    rng = np.random.default_rng(0)
    share = rng.random((count, len(coupling.groups)))
    totals = allowed.round_totals(allowed.lowest + share * (allowed.total - allowed.lowest))
    return np.asarray(totals - allowed.fixed)


def by_hand(a: int, b: int, c: int, present: tuple[int, int] = (1, 1)) -> float:
    """The sum over the net's calls: widths of the stem and of the two inner convolutions."""

    def key(kinds: str, given: Sequence[int], made: Sequence[int]) -> CallKey:
        return CallKey(tuple(kinds.split("+")), ((1, *given),), ((1, *made),), "")

    def image(width: int) -> tuple[int, int, int]:
        return (8, 8, width)

    total = OVERHEAD + invented(key("Conv2D+BatchNormalization+ReLU", image(3), image(a)))
    for inner, stays in zip((b, c), present, strict=True):
        if stays:
            total += invented(key("Conv2D+BatchNormalization+ReLU", image(a), image(inner)))
            total += invented(key("Conv2D+BatchNormalization", image(inner), image(a)))
            total += invented(key("Add+ReLU", image(a), image(a)))
        else:  # the activation behind the sum stays
            total += invented(key("ReLU", image(a), image(a)))
    total += invented(key("GlobalAveragePooling2D", image(a), (a,)))
    return total + invented(key("Dense", (a,), (5,)))


def test_times_are_the_sums_over_the_calls(coupling: Coupling, model: LatencyModel) -> None:
    """All widths, measured or not: the truth is linear where it is interpolated."""
    assert [group.name for group in coupling.groups] == ["stem", "a1", "b1"]
    kept = choices(coupling)
    assert model.predict(kept) == pytest.approx([by_hand(*map(int, row)) for row in kept])
    present = np.random.default_rng(1).integers(0, 2, (len(kept), 2))
    assert len(np.unique(present, axis=0)) == 4
    wanted = [
        by_hand(*map(int, row), present=(int(one), int(two)))
        for row, (one, two) in zip(kept, present, strict=True)
    ]
    assert model.predict(kept, present) == pytest.approx(wanted)


def test_many_choices_at_once_are_the_loop(coupling: Coupling, model: LatencyModel) -> None:
    kept = choices(coupling, 24).reshape(4, 6, -1)
    present = np.random.default_rng(1).integers(0, 2, (6, 2))
    found = model.predict(kept, present)
    assert found.shape == (4, 6)
    looped = [[float(model.predict(kept[i, j], present[j])) for j in range(6)] for i in range(4)]
    assert found == pytest.approx(np.array(looped))
    layers_ = model.predict_by_layer(kept, present)
    assert {"(run)", "stem", "a1", "a2", "a_add", "pool", "logits"} <= set(layers_)
    assert sum(layers_.values()) == pytest.approx(found)
    assert layers_["a1"][:, present[:, 0] == 0] == pytest.approx(0.0)
    assert (layers_["a1"][:, present[:, 0] == 1] > 0).all()
    assert model.predict(kept[0, 0]).shape == ()


def test_calls_are_those_of_the_smaller_net(coupling: Coupling, calls: TimedCalls) -> None:
    """The calls of a choice are the very calls of the net that is cut out for it."""
    kept = choices(coupling)[3]
    mask = np.ones(coupling.unit_count, bool)
    for group, count in zip(coupling.groups, kept, strict=True):
        mask[group.units[count:]] = False
    smaller = analyze_coupling(build_pruned_model(coupling, mask))
    own = TimedCalls(smaller, compute_allowed_counts(smaller, ChannelOptions(), 0))
    wanted = [(name, key) for name, key, _ in own.list_calls(smaller.removable_counts)]
    assert [(name, key) for name, key, _ in calls.list_calls(kept)] == wanted
    without = [name for name, _, _ in calls.list_calls(kept, np.array([1, 0]))]
    assert without == ["stem", "a1", "a2", "a_add", "b_relu", "pool", "logits"]


def test_an_activation_that_is_left_joins_the_projection_before_it() -> None:
    """Without its branch a sum's ReLU is taken in by the projection, unless others take that."""
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 1, name="projection")(inputs)
    y = layers.Conv2D(8, 3, padding="same", name="branch")(inputs)
    z = layers.ReLU(name="relu")(layers.Add(name="sum")([x, y]))
    for outputs, left in (([z], ["projection"]), ([z, x], ["projection", "relu"])):
        coupling = analyze_coupling(keras.Model(inputs, outputs))
        allowed = compute_allowed_counts(coupling, ChannelOptions(), 4)
        calls = TimedCalls(coupling, allowed, [Branch(("branch",))])
        names = [name for name, _, _ in calls.list_calls(coupling.removable_counts, np.zeros(1))]
        assert names == left
        assert len(calls.list_calls(coupling.removable_counts)) == 3


def test_models_of_calls_have_the_shapes_of_their_keys(calls: TimedCalls) -> None:
    for key, make in list(calls.list_model_makers().items())[::7]:
        made = make()
        assert [tuple(tensor.shape) for tensor in made.inputs] == [*key.inputs]
        assert [tuple(tensor.shape) for tensor in made.outputs] == [*key.outputs]
        # equal weights would be stored once, zeros and ones left out
        assert all(len(np.unique(w)) == w.size for w in made.get_weights())


def test_equal_calls_are_measured_once(coupling: Coupling, calls: TimedCalls) -> None:
    """Of 4 widths of the stem and 5 of inner ones; both blocks are alike."""
    allowed = compute_allowed_counts(coupling, ChannelOptions(min_kept=0.25), 4)
    assert [*zip(allowed.lowest, allowed.total, allowed.step, strict=True)] == [
        (4, 16, 4), (8, 24, 4), (8, 24, 4)
    ]  # fmt: skip
    # stem, inner, outer, sum, ReLU alone, pool, logits. Of three counts of input channels the
    # largest is measured at all output channels, the others at the ends
    inner, outer = 5 + 2 * 2, 4 + 2 * 2
    assert len(calls.list_model_makers()) == 4 + inner + outer + 4 + 4 + 4 + 3


def test_a_new_measurement_is_kept_whatever_the_kept_one_was(
    coupling: Coupling, calls: TimedCalls, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is kept was measured beside other work and is of no precision; the rest is precise."""
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path))
    makers = calls.list_model_makers()
    here = {"runtime": RUNTIMES["litert"].describe(), "device": read_cpu_name()}
    table = replace(table_of(makers), **here)
    (first, *rest) = table.calls
    old = replace(table, calls=(replace(first, error=100 * first.ms),), warnings=(f"{BUSY} 1.0",))
    path = record._build_cache_path(old.runtime, "float32", 1, old.device)
    path.parent.mkdir(parents=True)
    old.save(path)
    allowed = compute_allowed_counts(coupling, ChannelOptions(min_kept=0.25), 4)
    monkeypatch.setattr(latency_measurement, "time_models", lambda *_, **__: np.ones(8))
    monkeypatch.setattr(
        latency_measurement, "measure_calls",
        lambda missing, *_, **__: replace(table, calls=tuple(table[key] for key in missing)),
    )  # fmt: skip
    latency_measurement.measure_local_latencies(
        calls, coupling, allowed, write_latency_files, runtime="litert", format="float32",
        threads=1, seed=0, on_progress=lambda *_: None,
    )  # fmt: skip
    kept = record.load_cached_table("litert", "float32", 1)
    assert kept is not None
    assert len(kept.calls) == 1 + len(rest)


def test_wide_groups_are_measured_at_some_widths() -> None:
    inputs = keras.Input((4, 4, 3))
    x = layers.Conv2D(512, 1, name="wide")(inputs)
    x = layers.Conv2D(8, 1, name="last")(x)
    wide = analyze_coupling(keras.Model(inputs, layers.GlobalAveragePooling2D()(x)))
    calls = TimedCalls(wide, compute_allowed_counts(wide, ChannelOptions(), 0))
    assert [(key.inputs[0][-1], key.outputs[0][-1]) for key in calls.list_model_makers()] == [
        # multiples of 32, and the least and the largest multiple of 16 alone
        *((3, width) for width in (64, 80, 192, 288, 384, 496, 512)),
        *((width, 8) for width in (64, 288, 512)),
        (8, 8),
    ]


def test_groups_that_meet_are_thinned_alike() -> None:
    """A convolution behind a concatenation: its input is the sum of two groups' widths."""
    inputs = keras.Input((8, 8, 3))
    a = layers.Conv2D(16, 3, padding="same", name="a")(inputs)
    b = layers.Conv2D(32, 3, padding="same", name="b")(inputs)
    x = layers.Concatenate(name="both")([a, b])
    x = layers.Conv2D(8, 1, name="c")(x)
    coupling = analyze_coupling(keras.Model(inputs, layers.GlobalAveragePooling2D(name="p")(x)))
    calls = TimedCalls(coupling, compute_allowed_counts(coupling, ChannelOptions(min_kept=0.25), 4))
    models = calls.list_model_makers()
    times = tuple(
        # of what is linear in the width every line tells
        CallTime(key, 0.1 + 0.01 * sum(s[-1] for s in key.inputs), 0.0, 40, 1, 0)
        for key in models
    )
    found = calls.build_latency_model(
        LatencyTable("known", "float32", 1, "a processor", 0.0, 0.0, times)
    )
    assert sorted(text.split(":")[0] for text in found.estimated) == ["both", "c"]
    widths = {group.name: place for place, group in enumerate(coupling.groups)}
    kept = np.array([[0, 0], [0, 0]])
    kept[:, widths["a"]], kept[:, widths["b"]] = [16, 4], [8, 20]
    for row in found.predict_by_layer(kept)["c"]:
        assert row == pytest.approx(0.1 + 0.01 * 24)


def test_the_estimates_are_named(calls: TimedCalls) -> None:
    table = table_of(calls.list_model_makers())
    pool = [place for place, call in enumerate(table.calls) if "Global" in call.key.kinds[0]]
    changed = list(table.calls)
    changed[pool[0]] = CallTime(changed[pool[0]].key, 0.1, 0.0, 0, 1, 0, "refused")
    told = LatencyTable("known", "float32", 1, "a processor", 0.0, 0.0, tuple(changed))
    assert calls.build_latency_model(told).estimated == ("pool: refused",)


def test_bad_choices_are_named(model: LatencyModel, calls: TimedCalls, coupling: Coupling) -> None:
    with pytest.raises(InputError, match=r"kept must have a last axis of 3\. Received: shape"):
        model.predict(np.ones(4))
    with pytest.raises(InputError, match=r"present must have a last axis of 2"):
        model.predict(coupling.removable_counts, np.ones(3))
    with pytest.raises(InputError, match=r"units of 'a1' must be within .* 8 to 24.*Received: 7"):
        model.predict(coupling.removable_counts - np.array([0, 17, 0]))
    with pytest.raises(InputError, match="latency table must hold the call"):
        calls.build_latency_model(LatencyTable("known", "float32", 1, "a processor", 0.0, 0.0, ()))


def test_calibration_reaches_sums_and_layers(coupling: Coupling, calls: TimedCalls) -> None:
    """Weights are counted over what is present, as by hand, and their cost goes by their bytes."""
    models = calls.list_model_makers()
    table = LatencyTable(
        "known", "float32", 1, "a processor", OVERHEAD, 0.0,
        tuple(
            CallTime(key, invented(key), 0.0, 40, 1, 36 * key.inputs[0][-1] * key.outputs[0][-1]
                     if key.kinds[0] == "Conv2D" else 0)
            for key in models
        ),
    )  # fmt: skip
    bare = calls.build_latency_model(table)
    kept = choices(coupling, 30)
    a, b, c = kept.T
    held = 36.0 * (3 * a + 2 * a * b + 2 * a * c)
    whole = 0.9 * bare.predict(kept) + 2e-5 * held
    found = bare.calibrate(kept, whole)
    assert found.calibration.beyond == 0.0
    assert found.predict(kept) == pytest.approx(whole)
    without = np.tile([1, 0], (30, 1))
    assert found.predict(kept, without) == pytest.approx(
        0.9 * bare.predict(kept, without) + 2e-5 * 36.0 * (3 * a + 2 * a * b)
    )
    layers_ = found.predict_by_layer(kept)
    assert sum(layers_.values()) == pytest.approx(whole)
    assert layers_["a1"] == pytest.approx(
        0.9 * bare.predict_by_layer(kept)["a1"] + 2e-5 * 36.0 * a * b
    )


def test_choices_of_whole_nets_have_all_sizes(coupling: Coupling) -> None:
    allowed = compute_allowed_counts(coupling, ChannelOptions(min_kept=0.25), 4)
    kept = sample_kept_counts(allowed, 8, 0)
    assert kept.shape == (8, 3)
    assert (kept[0] == allowed.lowest - allowed.fixed).all()
    assert (kept[-1] == coupling.removable_counts).all()
    assert (allowed.round_totals(kept + allowed.fixed) == kept + allowed.fixed).all()


def test_an_open_input_size_is_named() -> None:
    inputs = keras.Input((None, None, 3))
    x = layers.Conv2D(8, 3, name="c")(inputs)
    x = layers.Conv2D(8, 3, name="d")(x)
    model = keras.Model(inputs, layers.GlobalAveragePooling2D()(x))
    coupling = analyze_coupling(model)
    with pytest.raises(InputError, match="Times must be measured at a known input size"):
        TimedCalls(
            coupling, compute_allowed_counts(coupling, ChannelOptions(), 4)
        ).list_model_makers()
    sized = analyze_coupling(model, (8, 8, 3))
    models = TimedCalls(
        sized, compute_allowed_counts(sized, ChannelOptions(), 4)
    ).list_model_makers()
    assert {key.inputs[0][1:3] for key in models} == {(8, 8), (6, 6), (4, 4)}


@pytest.mark.slow
def test_a_real_measurement(tmp_path: Path) -> None:
    """LiteRT's times of a small net: structure alone, since no test depends on a clock."""
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="c")(inputs)
    y = layers.Conv2D(8, 3, padding="same", name="d")(x)
    x = layers.Add(name="s")([x, y])
    x = layers.GlobalAveragePooling2D(name="p")(x)
    coupling = analyze_coupling(keras.Model(inputs, layers.Dense(3, name="e")(x)))
    allowed = compute_allowed_counts(coupling, ChannelOptions(), 4)
    told: list[str] = []
    found, table = measure_latency_model(
        coupling,
        allowed,
        write_latency_files,
        budget=1.0,
        on_progress=lambda text, _: told.append(text),
    )
    assert set(TimedCalls(coupling, allowed).list_model_makers()) == {
        call.key for call in table.calls
    }
    assert all(call.is_measured and np.isfinite(call.ms) and call.ms >= 0 for call in table.calls)
    assert table.overhead_ms > 0
    assert found.estimated == ()
    assert found.calibration.nets == 8
    times = found.predict(sample_kept_counts(allowed, 5, 0))
    assert np.isfinite(times).all()
    assert (times > 0).all()
    assert told[-1] == "measured"
    # what is known is not measured again
    again, same = measure_latency_model(coupling, allowed, _only_nets, known_table=table)
    assert same is table
    assert again.calibration.nets == 8
    assert time_models(coupling, coupling.removable_counts[None], write_latency_files).shape == (1,)


def _only_nets(models: Sequence[Any], folder: Path, kind: str) -> list[Path | str]:
    assert all(len(model.layers) > 4 for model in models)
    return write_latency_files(models, folder, kind)


def test_a_pruned_file_that_cannot_be_run_is_no_error_of_the_input() -> None:
    inputs = keras.Input((6, 6, 1))
    x = layers.Conv2D(8, 3, activation="relu", name="c")(inputs)
    x = layers.GlobalAveragePooling2D(name="p")(x)
    coupling = analyze_coupling(keras.Model(inputs, layers.Dense(3, name="e")(x)))

    def write_garbage(models: Sequence[Any], folder: Path, kind: str) -> list[Path | str]:
        (folder / "0.tflite").write_bytes(b"TFL3 it is not")
        return [folder / "0.tflite"] * len(models)

    with pytest.raises(RunFailed, match="A pruned model's float32 file cannot be timed: LiteRT"):
        time_models(coupling, coupling.removable_counts[None], write_garbage)


def test_another_runtime_by_one_file_a_call(tmp_path: Path) -> None:
    """Any converter will do; what takes two tensors ONNX Runtime's session does not run."""
    pytest.importorskip("onnxruntime")
    from compress.exporting.onnx import write_for_runtime
    from compress.exporting.tracing import TracedModel

    def convert(models: Sequence[Any], folder: Path, kind: str) -> list[Path | str]:
        found: list[Path | str] = []
        for place, model in enumerate(models):
            if len(model.inputs) > 1:
                found.append("it takes two tensors")
                continue
            with TracedModel(model) as traced:
                found.append(write_for_runtime(traced, kind, folder / str(place), [np.zeros((1,))]))
        return found

    x, y = keras.Input((4,)), keras.Input((4,))
    models: dict[str, Any] = {
        "dense": keras.Model(x, layers.Dense(3)(x)),
        "sum": keras.Model([x, y], layers.Add()([x, y])),
    }
    keys = {name: CallKey((name,), (), (), "") for name in models}
    table = measure_calls(
        {keys[name]: (lambda made=made: made) for name, made in models.items()},
        convert, runtime="onnx", budget=0.2,
    )  # fmt: skip
    assert table.runtime.startswith("ONNX Runtime")
    assert table[keys["dense"]].is_measured
    assert table[keys["sum"]].reason == "it takes two tensors"

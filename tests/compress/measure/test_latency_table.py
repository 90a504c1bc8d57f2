"""Tables of measured calls: keys, the arithmetic on a runtime whose times are known, records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from compress.core.errors import InputError, RunFailed
from compress.measure.counting import walked
from compress.measure.latency_table import (
    CallKey,
    CallTime,
    LatencyTable,
    calibrate,
    calls,
    key_of,
    measure_calls,
    measuring,
)
from compress.measure.latency_table.fused import leaving, units_of
from compress.measure.latency_table.interpolation import (
    alignment,
    few,
    located,
    multilinear,
    spreading,
    thinned,
)
from compress.measure.runtimes import RUNTIMES, TensorInfo
from compress.model.recording import record

OVERHEAD = 0.002
"""Milliseconds of the fake runtime's empty file."""


# -- keys ---------------------------------------------------------------------------------


def conv_key(name: str = "a", **changes: Any) -> CallKey:
    shapes = {"inputs": [(1, 8, 8, 4)], "outputs": [(1, 8, 8, 6)]}
    given = {key: changes.pop(key, value) for key, value in shapes.items()}
    layer = layers.Conv2D(6, 3, padding="same", name=name, **changes)
    return key_of([("Conv2D", layer.get_config())], **given)


def test_keys_of_equal_calls_are_equal() -> None:
    same = conv_key("b", kernel_initializer="zeros", kernel_regularizer="l2", trainable=False)
    assert conv_key() == same
    assert hash(conv_key()) == hash(same)
    assert str(same) == "Conv2D 8x8x4 -> 8x8x6"
    assert CallKey.from_json(same.to_json()) == same


@pytest.mark.parametrize(
    "changes",
    [
        {"strides": 2},
        {"dilation_rate": 2},
        {"groups": 2},
        {"activation": "relu"},
        {"use_bias": False},
        {"data_format": "channels_first"},
        {"inputs": [(1, 8, 8, 8)]},
        {"outputs": [(1, 8, 8, 12)]},
        {"inputs": [(1, 9, 8, 4)]},
    ],
)
def test_keys_differ_where_time_may(changes: dict[str, Any]) -> None:
    assert conv_key(**changes) != conv_key()


def test_keys_of_functions_and_arrays_do_not_depend_on_the_object() -> None:
    def key(function: Any) -> CallKey:
        return key_of([("F", {"f": function, "at": slice(0, 3), "x": np.ones((2, 3))})], [], [])

    assert key(np.tanh) == key(np.tanh)
    assert key(lambda x: x) == key(lambda x: x)
    assert key(np.ones(3)) != key(np.ones(4))


# -- what runs as one -----------------------------------------------------------------------


def units(model: Any) -> list[str]:
    program = record(model)
    steps = walked(program, None)
    return ["+".join(step.name for step in unit.steps) for unit in units_of(steps, program.outputs)]


def residual() -> Any:
    inputs = keras.Input((8, 8, 4), name="image")
    x = layers.ZeroPadding2D(1, name="pad")(inputs)
    x = layers.Conv2D(4, 3, name="c0")(x)
    x = layers.BatchNormalization(name="b0")(x)
    x = skip = layers.ReLU(6.0, name="r0")(x)
    x = layers.Conv2D(6, 3, padding="same", name="c1")(x)
    x = layers.BatchNormalization(name="b1")(x)
    x = layers.Activation("gelu", name="g1")(x)
    x = layers.Dropout(0.5, name="d1")(x)
    x = layers.Conv2D(4, 3, padding="same", name="c2")(x)
    x = layers.BatchNormalization(name="b2")(x)
    x = layers.Add(name="add")([x, skip])
    x = layers.ReLU(name="r2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.5, name="d2")(x)
    x = layers.Dense(3, activation="relu", name="last")(x)
    x = layers.ReLU(name="r3")(x)
    return keras.Model(inputs, layers.Softmax(name="softmax")(x))


def test_what_runtimes_fuse_is_one_unit() -> None:
    """A GELU does not fuse, nor does a ReLU behind another; dropout computes nothing."""
    assert units(residual()) == [
        "pad+c0+b0+r0", "c1+b1", "g1+d1", "c2+b2", "add+r2", "pool+d2", "last", "r3", "softmax"
    ]  # fmt: skip


def test_what_others_take_is_not_fused() -> None:
    inputs = keras.Input((4,))
    x = layers.Dense(4, name="d")(inputs)
    y = layers.ReLU(name="r")(x)
    model = keras.Model(inputs, [layers.Add(name="s")([x, y]), y])
    assert units(model) == ["d", "r", "s"]
    leaky = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="d"), layers.ReLU(negative_slope=0.1, name="r")]
    )
    assert units(leaky) == ["d", "r"]


def test_what_leaves_with_a_branch() -> None:
    """The branch's own layers are named; what lies between them and the sum goes with them."""
    program = record(residual())
    steps = walked(program, None)
    gone = leaving(steps, ("c1", "b1", "c2", "b2"), program.outputs)
    assert [step.name for step in steps if id(step) in gone] == [
        "c1", "b1", "g1", "d1", "c2", "b2", "add"
    ]  # fmt: skip


# -- between measured widths ----------------------------------------------------------------


def test_alignment_of_widths() -> None:
    assert [alignment(width) for width in (1, 6, 12, 24, 48, 96, 64)] == [1, 2, 4, 8, 16, 32, 32]


@pytest.mark.parametrize("widths", [[4, 8, 12, 16], [*range(4, 129, 4)], [*range(8, 400, 8), 401]])
def test_staircases_are_interpolated_exactly(widths: list[int]) -> None:
    """Time that grows with tiles of 32, measured at some widths, is right at all of them."""
    picked = thinned(widths)
    spread = spreading(widths, picked)
    times = 3.0 + 0.5 * -(-np.array(widths) // 32)
    linear = 3.0 + 0.5 * np.array(widths)
    assert np.allclose(spread.sum(1), 1.0)
    assert (spread >= -1e-12).all()  # between measured ones, never beyond
    assert np.allclose(spread @ linear[picked], linear)
    aligned = np.array([alignment(width) == 32 for width in widths])
    assert np.allclose((spread @ times[picked])[aligned], times[aligned])
    if len(widths) > 16:
        assert len(picked) < len(widths) / 2


def test_few_are_the_ends_and_the_middle() -> None:
    assert few(1) == [0]
    assert few(2) == [0, 1]
    assert few(9) == [0, 4, 8]


def test_multilinear_is_exact_on_a_bilinear_truth() -> None:
    x, y = np.array([2.0, 3.0, 7.0]), np.array([1.0, 5.0])

    def truth(a: Any, b: Any) -> Any:
        return 1.0 + 2.0 * a + 3.0 * b + 0.5 * a * b

    rng = np.random.default_rng(0)
    a, b = rng.uniform(2, 7, (4, 5)), rng.uniform(1, 5, (4, 5))
    found = multilinear(truth(x[:, None], y), [located(a, x), located(b, y)])
    assert np.allclose(found, truth(a, b))
    assert multilinear(np.array(3.0), []) == 3.0
    assert multilinear(np.array([4.0]), [located(np.array([2.0]), np.array([2.0]))]) == 4.0


# -- measured on a runtime whose times are known ----------------------------------------------


class KnownRuntime:
    """Takes as many milliseconds a run as its file says; files that say nothing it refuses."""

    name = "known"

    def describe(self) -> str:
        return "known 1.0"

    def prepare(self, path: Path, threads: int) -> Any:
        if not path.read_text():
            raise InputError("known must be able to run it (no).")
        return KnownSession(float(path.read_text()))


class KnownSession:
    inputs = (TensorInfo("x", (1, 1)),)

    def __init__(self, ms: float) -> None:
        self.ms = ms

    def set_inputs(self, values: Any) -> None:
        assert [x.shape for x in values] == [(1, 1)]

    def invoke(self) -> None:
        pass

    def timed(self, count: int) -> list[float]:
        return [self.ms / 1e3] * count


@pytest.fixture
def known() -> Iterator[str]:
    RUNTIMES.add("known", KnownRuntime())
    yield "known"
    RUNTIMES.remove("known")


def dense(width: int, units: int) -> Callable[[], Any]:
    return lambda: keras.Sequential([keras.Input((width,)), layers.Dense(units)])


def key(width: int, units: int) -> CallKey:
    return key_of([("Dense", {"units": units})], [(1, width)], [(1, units)])


def truth(width: int, units: int) -> float:
    return 1e-3 * width * units + 0.01


def as_text(models: Sequence[Any], folder: Path, kind: str) -> list[Path | str]:
    """A converter for the runtime: the empty model comes first; refuses models of 7 inputs."""
    found: list[Path | str] = []
    for place, model in enumerate(models):
        width, units = model.input_shape[-1], model.output_shape[-1]
        if width == 7:
            found.append("it does not like sevens")
            continue
        path = folder / f"{place}.txt"
        ms = OVERHEAD if place == 0 else OVERHEAD + truth(width, units)
        path.write_text("" if width == 9 else str(ms))
        found.append(path)
    return found


def test_times_are_what_is_measured_less_the_overhead(known: str) -> None:
    pairs = [(2, 3), (4, 3), (5, 6)]
    told: list[tuple[str, float]] = []
    table = measure_calls(
        {key(*pair): dense(*pair) for pair in pairs}, as_text, runtime=known,
        on_progress=lambda text, share: told.append((text, share)),
    )  # fmt: skip
    assert table.overhead_ms == pytest.approx(OVERHEAD)
    assert (table.runtime, table.format, table.threads) == ("known 1.0", "float32", 1)
    for width, units in pairs:
        call = table[key(width, units)]
        assert call.measured
        assert call.ms == pytest.approx(truth(width, units))
        assert call.error == pytest.approx(0.0, abs=1e-9)  # the runtime does not vary
        assert call.ops == width * units
        assert call.weight_bytes == 4 * (width * units + units)
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


def test_a_neighbour_that_works_most_of_the_time_does_not_reach_the_table(
    known: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three blocks of four take longer, short calls more than long ones."""
    blocks: dict[float, int] = {}

    def timed(session: KnownSession, count: int) -> list[float]:
        blocks[session.ms] = blocks.get(session.ms, 0) + 1
        busy = blocks[session.ms] % 4 > 0
        return [(session.ms + busy * (0.002 + 0.3 * session.ms)) / 1e3] * count

    monkeypatch.setattr(KnownSession, "timed", timed)
    table = measure_calls({key(4, 3): dense(4, 3)}, as_text, runtime=known)
    assert table.overhead_ms == pytest.approx(OVERHEAD)
    assert table[key(4, 3)].ms == pytest.approx(truth(4, 3))


def test_calls_are_measured_in_batches_alike(known: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in memory at one time is bounded, by number and by bytes."""
    pairs = [(width, 2) for width in (2, 3, 4, 5, 6)]
    sizes: list[int] = []

    def counted(models: Sequence[Any], folder: Path, kind: str) -> list[Path | str]:
        sizes.append(len(models) - 1)
        return as_text(models, folder, kind)

    monkeypatch.setattr(calls, "AT_ONCE", 3)
    monkeypatch.setattr(calls, "BYTES_AT_ONCE", 4 * (2 * 4 + 2) + 4 * (2 * 5 + 2))
    table = measure_calls({key(*pair): dense(*pair) for pair in pairs}, counted, runtime=known)
    assert sizes == [2, 2, 1]
    assert [call.ms for call in table.calls] == pytest.approx([truth(*pair) for pair in pairs])


def test_what_cannot_be_measured_is_an_estimate_and_says_why(known: str) -> None:
    def unbuildable() -> Any:
        raise InputError("Layer 'x' must be rebuildable.")

    pairs = [(2, 3), (4, 3)]
    models = {key(*pair): dense(*pair) for pair in pairs}
    models |= {key(7, 2): dense(7, 2), key(9, 2): dense(9, 2), key(1, 1): unbuildable}
    table = measure_calls(models, as_text, runtime=known)
    # at the milliseconds an operation of the two that were measured: 6 and 12 MACs
    rate = sum(truth(*pair) for pair in pairs) / 18
    assert table[key(7, 2)].ms == pytest.approx(rate * 14)
    assert table[key(7, 2)].reason == "it does not like sevens"
    assert table[key(9, 2)].ms == pytest.approx(rate * 18)
    assert "known does not run it alone" in table[key(9, 2)].reason
    assert table[key(1, 1)].reason == "Layer 'x' must be rebuildable."
    assert [call.key for call in table.estimated] == [key(7, 2), key(9, 2), key(1, 1)]
    assert all(call.rounds == 0 for call in table.estimated)


def test_bad_input_of_a_measurement(known: str) -> None:
    models = {key(2, 3): dense(2, 3)}
    with pytest.raises(InputError, match="models must hold at least one call"):
        measure_calls({}, as_text, runtime=known)
    with pytest.raises(InputError, match=r"error must be in \(0, 1\)"):
        measure_calls(models, as_text, runtime=known, error=0.0)
    with pytest.raises(InputError, match="budget must be above 0"):
        measure_calls(models, as_text, runtime=known, budget=0.0)
    with pytest.raises(InputError, match="threads"):
        measure_calls(models, as_text, runtime=known, threads=0)
    with pytest.raises(RunFailed, match="No call could be measured.*sevens"):
        measure_calls({key(7, 2): dense(7, 2)}, as_text, runtime=known)


def test_an_interruption_leaves_nothing(known: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(measuring.tempfile, "tempdir", str(tmp_path))

    def stop(text: str, share: float) -> None:
        if text.startswith("timing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_calls({key(2, 3): dense(2, 3)}, as_text, runtime=known, on_progress=stop)
    assert not list(tmp_path.iterdir())


# -- records ----------------------------------------------------------------------------------


def small_table() -> LatencyTable:
    calls = (
        CallTime(conv_key(), 0.5, 0.01, 40, 100, 400),
        CallTime(key(2, 3), 0.25, 0.0, 0, 6, 36, "refused"),
    )
    return LatencyTable("LiteRT 2", "float32", 1, "a processor", 0.001, 0.0001, calls, ("busy",))


def test_tables_are_stored_whole(tmp_path: Path) -> None:
    table = small_table()
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again == table
    assert again[conv_key("another")].ms == 0.5
    assert key(2, 3) in again
    assert again.missing([conv_key(), key(5, 5), key(5, 5)]) == [key(5, 5)]


def test_a_call_that_is_not_there_is_named() -> None:
    with pytest.raises(
        InputError, match=r"must hold the call 'Dense 5 -> 5'.*Received: Dense 2 -> 3\. Measure"
    ):
        small_table()[key(5, 5)]


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (("calls", 0, "ms"), -1.0, "ms must be at least 0"),
        (("calls", 0, "key", "inputs"), "x", "inputs must be a list"),
        (("calls", 0, "key"), 3, "key must be a table"),
        (("overhead_ms",), "fast", "overhead_ms must be a number"),
        (("more",), 1, "unknown 'more'"),
    ],
)
def test_files_that_are_no_tables(
    tmp_path: Path, place: tuple[Any, ...], value: Any, said: str
) -> None:
    import json

    content = json.loads(json.dumps(small_table().to_json()))
    spot = content
    for step in place[:-1]:
        spot = spot[step]
    spot[place[-1]] = value
    (tmp_path / "t.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"must be a file written by save.*{said}"):
        LatencyTable.load(tmp_path / "t.json")


def test_tables_are_joined_where_they_were_measured_alike() -> None:
    table = small_table()
    other = replace(table, calls=(CallTime(key(2, 3), 0.3, 0.01, 40, 6, 36),), warnings=("hot",))
    both = table.joined(other)
    assert [call.ms for call in both.calls] == [0.5, 0.3]
    assert both.warnings == ("busy", "hot")
    with pytest.raises(InputError, match="same threads to be joined. Received: 1 and 2"):
        table.joined(replace(other, threads=2))


# -- whole nets ---------------------------------------------------------------------------------


def test_calibration_finds_what_made_the_times() -> None:
    rng = np.random.default_rng(0)
    sums, held = rng.uniform(1, 3, 12), np.linspace(0, 6.4e6, 12)
    # a threshold that is among those tried: the largest net's bytes in 64 steps
    whole = 0.9 * sums + 3e-8 * np.maximum(0.0, held - 1e6)
    found = calibrate(sums, held, whole)
    assert (found.factor, found.per_byte, found.beyond) == pytest.approx((0.9, 3e-8, 1e6))
    assert found.nets == 12
    assert found.error < 0.01


def test_calibration_makes_up_no_cost_of_weights() -> None:
    """Nets that are faster the more they weigh get a factor and no negative slope."""
    sums, held = np.ones(5), np.arange(1, 6) * 1e6
    found = calibrate(sums, held, 1.0 - 5e-8 * held)
    assert found.per_byte == 0.0
    assert 0.75 < found.factor < 0.95
    exact = calibrate(np.arange(1.0, 5.0), held[:4], 0.5 * np.arange(1.0, 5.0))
    assert (exact.factor, exact.error) == pytest.approx((0.5, 0.0), abs=1e-9)


def test_calibration_needs_nets() -> None:
    with pytest.raises(InputError, match="at least 4 nets"):
        calibrate(np.ones(3), np.ones(3), np.ones(3))
    with pytest.raises(InputError, match="all above 0"):
        calibrate(np.ones(4), np.ones(4), np.zeros(4))

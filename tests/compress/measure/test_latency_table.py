"""Tables of measured calls: the arithmetic on a runtime whose times are known, records."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

from compress.core.errors import InputError, RunFailed
from compress.measure.latency_table import (
    CallKey,
    CallTime,
    LatencyTable,
    build_call_key,
    measure_calls,
    measurement,
)
from compress.measure.runtimes import RUNTIMES, TensorInfo
from tests.compress.measure.test_call_keys import conv_key

OVERHEAD = 0.002
"""Milliseconds of the fake runtime's empty file."""


# -- measured on a runtime whose times are known --------------------------------------------


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

    def time_runs(self, count: int) -> list[float]:
        return [self.ms / 1e3] * count


@pytest.fixture
def known() -> Iterator[str]:
    RUNTIMES.add("known", KnownRuntime())
    yield "known"
    RUNTIMES.remove("known")


def dense(width: int, units: int) -> Callable[[], Any]:
    return lambda: keras.Sequential([keras.Input((width,)), layers.Dense(units)])


def key(width: int, units: int) -> CallKey:
    return build_call_key([("Dense", {"units": units})], [(1, width)], [(1, units)])


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
        assert call.is_measured
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

    monkeypatch.setattr(KnownSession, "time_runs", timed)
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

    monkeypatch.setattr(measurement, "AT_ONCE", 3)
    monkeypatch.setattr(measurement, "BYTES_AT_ONCE", 4 * (2 * 4 + 2) + 4 * (2 * 5 + 2))
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
    estimated = [call for call in table.calls if not call.is_measured]
    assert [call.key for call in estimated] == [key(7, 2), key(9, 2), key(1, 1)]
    assert all(call.rounds == 0 for call in estimated)


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
    with pytest.raises(RunFailed, match="No layer of the model could be timed.*sevens"):
        measure_calls({key(7, 2): dense(7, 2)}, as_text, runtime=known)


def test_an_interruption_leaves_nothing(known: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(measurement.tempfile, "tempdir", str(tmp_path))

    def stop(text: str, share: float) -> None:
        if text.startswith("timing"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_calls({key(2, 3): dense(2, 3)}, as_text, runtime=known, on_progress=stop)
    assert not list(tmp_path.iterdir())


# -- records --------------------------------------------------------------------------------


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
    assert again.find_missing([conv_key(), key(5, 5), key(5, 5)]) == [key(5, 5)]


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
        (("calls", 0, "key"), 3, "key' must be a table"),
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
    both = table.merge(other)
    assert [call.ms for call in both.calls] == [0.5, 0.3]
    assert both.warnings == ("busy", "hot")
    with pytest.raises(InputError, match="same threads to be joined. Received: 1 and 2"):
        table.merge(replace(other, threads=2))

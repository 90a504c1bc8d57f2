"""The search among precisions, on files that only have a size, a time and a loss."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from compress.core.errors import RunFailed
from compress.exporting.conversions import ConversionFailed
from compress.exporting.mixed import search
from compress.exporting.mixed.search import MixedLimits, PrecisionFiles, PrecisionSearch
from compress.exporting.mixed.units import Unit

UNITS = tuple(Unit(name, (f"{name};",), ("CONV_2D",), 100, 10) for name in "abc")
LOSSES = {"a": 8.0, "b": 1.0, "c": 3.0}
"""Of each in int8; dynamic leaves a tenth, float16 none."""
BYTES = {"int8": 1, "dynamic": 1, "float16": 4, "float32": 4}
TIMES = {"int8": 1.0, "dynamic": 3.0, "float16": 4.0, "float32": 4.0}


class Stub:
    """Files whose losses, sizes and times add up exactly."""

    def __init__(self, folder: Path, refuses: Collection[tuple[str, str]] = ()) -> None:
        self.units, self.folder, self.refuses = UNITS, folder, refuses
        self.levels: dict[Path, dict[str, str]] = {}
        self.source = self.build({})

    def build(self, levels: Any) -> Path:
        known = {unit.name: levels.get(unit, "float32") for unit in UNITS}
        if any(known[unit] == level for unit, level in self.refuses):
            raise ConversionFailed("refused", "no such kernel")
        path = self.folder / "".join(f"{unit}-{level}" for unit, level in known.items())
        path.write_bytes(bytes(sum(BYTES[level] for level in known.values())))
        self.levels[path] = known
        return path

    assign_level = PrecisionFiles.assign_level

    def measure_unit_loss(self, unit: Unit, level: str) -> float:
        return self.measure_loss(self.build({unit: level}))

    def measure_loss(self, path: Path) -> float:
        factors = {"int8": 1.0, "dynamic": 0.1, "float16": 0.0, "float32": 0.0}
        return sum(LOSSES[unit] * factors[level] for unit, level in self.levels[path].items())


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    made = Stub(tmp_path)

    def timed(paths: dict[str, Path], options: Any, *, precision: float) -> dict[str, Any]:
        found = {}
        for name, path in paths.items():
            ms = sum(TIMES[level] for level in made.levels[path].values())
            found[name] = SimpleNamespace(quiet_ms=ms, median_ms=ms)
        return found

    monkeypatch.setattr(search, "measure_latency", timed)
    return made


def chosen(
    stub: Stub, as_good: Any = lambda *files: "", mixed_loss: float = 0.25, **limits: float
) -> tuple[dict[str, str], Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "ALLOWED_SHARE", mixed_loss)
        found = PrecisionSearch(
            stub,  # type: ignore[arg-type]
            MixedLimits(**limits), lambda share: None, as_good,
        ).run()  # fmt: skip
    return {unit.name: level for unit, level in found.levels.items()}, found


def test_what_costs_the_most_is_raised_until_little_enough_is_left(stub: Stub) -> None:
    # 12 in int8; a in dynamic leaves 4.8, c too leaves 2.1
    levels, found = chosen(stub, mixed_loss=0.5)
    assert levels == {"a": "dynamic", "b": "int8", "c": "int8"}
    assert (found.loss, found.int8_loss) == pytest.approx((4.8, 12.0))
    assert found.notes == ()
    levels, found = chosen(stub, mixed_loss=0.25)
    assert levels == {"a": "dynamic", "b": "int8", "c": "dynamic"}
    assert found.loss == pytest.approx(2.1)


def test_nothing_is_raised_where_all_may_be_lost(stub: Stub) -> None:
    assert set(chosen(stub, mixed_loss=0.99999)[0].values()) != {"int8"}, "less is asked for"
    stub.measure_loss = lambda path: 0.0  # type: ignore[method-assign]
    assert set(chosen(stub)[0].values()) == {"int8"}


def test_nothing_is_raised_for_a_loss_that_changes_no_answer(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unit, loss in dict(LOSSES).items():
        monkeypatch.setitem(LOSSES, unit, loss * 0.8e-5)  # 9.6e-5 in int8
    levels, found = chosen(stub, mixed_loss=0.25)
    assert set(levels.values()) == {"int8"}
    assert found.notes == ()
    for unit, loss in dict(LOSSES).items():
        monkeypatch.setitem(LOSSES, unit, loss * 1.1)  # 10.6e-5: c alone need not be raised
    assert chosen(stub, mixed_loss=0.25)[0] == {"a": "dynamic", "b": "int8", "c": "int8"}


def test_int8_is_taken_where_it_is_as_good_and_cheaper(stub: Stub) -> None:
    asked: list[list[dict[str, str]]] = []

    def as_good(*files: Path) -> str:
        asked.append([stub.levels[file] for file in files])
        return "accuracy -0.001 (-0.003 to +0.001)"

    levels, found = chosen(stub, as_good, mixed_loss=0.5)
    assert levels == dict.fromkeys("abc", "int8")
    raised = {"a": "dynamic", "b": "int8", "c": "int8"}
    assert asked == [[levels, raised, dict.fromkeys("abc", "float32")]]
    assert found.loss == pytest.approx(12.0)
    assert found.notes == (
        "int8-mixed: all layers are int8, which is as good as 1 of them in more precision and "
        "costs less: accuracy -0.001 (-0.003 to +0.001)",
    )
    # it is not as good; it is taken already
    assert chosen(stub, mixed_loss=0.5)[0] == raised
    asked.clear()
    stub.measure_loss = lambda path: 0.0  # type: ignore[method-assign]
    chosen(stub, as_good)
    assert asked == []


def test_limits_hold_and_what_they_cost_is_said(stub: Stub) -> None:
    # all int8 takes 3 of 12: one layer of dynamic is within 5, two are not
    levels, found = chosen(stub, mixed_loss=0.0, latency_ms=5.04)
    assert sorted(levels.values()) == ["dynamic", "int8", "int8"]
    assert found.notes == (
        "int8-mixed cannot lose as little as was asked for within a latency of 5.04ms",
    )
    levels, found = chosen(stub, mixed_loss=0.0, size_bytes=8.0)
    assert found.path.stat().st_size <= 8
    assert list(levels.values()).count("float16") == 1


def test_where_bytes_are_short_they_alone_count(
    stub: Stub, monkeypatch: pytest.MonkeyPatch
) -> None:
    # integers are slower than floats here: bytes and time together would take floats
    monkeypatch.setitem(TIMES, "int8", 40.0)
    monkeypatch.setitem(TIMES, "dynamic", 50.0)
    assert set(chosen(stub)[0].values()) == {"float16"}
    levels, found = chosen(stub, size_bytes=3.0)
    assert set(levels.values()) <= {"int8", "dynamic"}
    assert found.path.stat().st_size == 3


def test_limits_that_no_file_keeps_are_refused(stub: Stub) -> None:
    with pytest.raises(
        RunFailed,
        match=r"must be within a size of 2B\. Received: 3 bytes where",
    ):
        chosen(stub, size_bytes=2.0)


def test_a_level_that_a_layer_cannot_have_is_left_out_and_named(stub: Stub) -> None:
    stub.refuses = {("a", "dynamic")}
    levels, found = chosen(stub, mixed_loss=0.25)
    assert levels["a"] == "float16"
    assert "a was not tried in dynamic: no such kernel" in found.notes


def test_a_layer_that_can_have_no_level_stays_as_it_is(stub: Stub) -> None:
    stub.refuses = {("a", level) for level in ("int8", "dynamic", "float16")}
    levels, found = chosen(stub)
    assert levels["a"] == "float32"
    assert "float32" not in (levels["b"], levels["c"])
    assert "a was not tried in int8: no such kernel" in found.notes

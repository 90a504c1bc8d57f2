"""Latencies of sub-networks, estimated from times of the parts of the whole."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.atomic_files import write_json
from compress.core.device import Device
from compress.core.errors import InputError
from compress.data import Dataset
from compress.measure.latency_table import CallKey, CallTime, LatencyTable
from compress.model.io import save_model
from compress.plan.fields import from_flat
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.channels.selection import latency_measurement
from compress.prune.channels.selection.allowed_counts import compute_allowed_counts
from compress.prune.channels.selection.latency_measurement import TimedCalls
from search.pipeline import run_search
from search.plan import SearchPlan
from search.spaces import SubnetworkSpace
from search.spaces.around import OPTIONS
from search.study.costs import PartTimes, build_latency_estimator, measure_parts
from search.study.directory import COMPLETE, REJECTED, SearchFolder
from search.study.objective import evaluate_trial
from search.study.study import build_sampler_arguments
from tests.contracts.space import ask

OVERHEAD = 0.25


def silent(text: str, share: float) -> None:
    """Ignores progress."""


def invented(key: CallKey) -> float:
    """A time that is linear in both numbers of channels, as between measured widths."""
    given, made = key.inputs[0][-1], key.outputs[0][-1]
    return float(1e-4 * np.prod(key.outputs[0][1:-1], initial=1.0) * (2.0 + given) * (1.0 + made))


def by_its_calls(model: keras.Model) -> float:
    """The sum over the calls of a model as it is."""
    coupling = analyze_coupling(model)
    calls = TimedCalls(coupling, compute_allowed_counts(coupling, OPTIONS, OPTIONS.round_to))
    everything = np.array([len(group.units) for group in coupling.groups])
    return OVERHEAD + sum(invented(key) for _, key, _ in calls.list_calls(everything))


@pytest.fixture
def timings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[int]:
    """Puts the invented times in place of measured ones; how many calls were asked for."""
    asked: list[int] = []

    def calls(models: Mapping[CallKey, Callable[[], Any]], *_: Any, **__: Any) -> LatencyTable:
        asked.append(len(models))
        made = tuple(CallTime(key, invented(key), 0.0, 40, 1, 0) for key in models)
        return LatencyTable("LiteRT", "float32", 1, "a processor", OVERHEAD, 0.0, made)

    def nets(coupling: Any, kept: Any, *_: Any, **__: Any) -> Any:
        return np.array(
            [by_its_calls(net) for net in latency_measurement.build_pruned_models(coupling, kept)]
        )

    monkeypatch.setattr(latency_measurement, "measure_calls", calls)
    monkeypatch.setattr(latency_measurement, "time_models", nets)
    monkeypatch.setenv("PARETUNE_CACHE", str(tmp_path / "cache"))
    return asked


@pytest.fixture
def space(small_cnn: Callable[..., Any], tmp_path: Path) -> SubnetworkSpace:
    save_model(small_cnn(), tmp_path / "net.keras")
    return SubnetworkSpace(f"around:{tmp_path / 'net.keras'}")


def made(path: Path, space: SubnetworkSpace, **flat: object) -> tuple[SearchPlan, SearchFolder]:
    flat = {"objectives": ("accuracy", "latency_ms"), "no_train": True, **flat}
    plan = from_flat(SearchPlan, {"space": space.name, **flat})
    folder = SearchFolder(path)
    folder.claim("search", plan)
    return plan, folder


def test_a_sub_network_takes_what_its_calls_take(
    space: SubnetworkSpace, timings: list[int], digits: Dataset, tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", space)
    assert build_latency_estimator(plan.search, folder) is None, "nothing was timed yet"
    measure_parts(plan.search, folder, silent)
    latency = build_latency_estimator(plan.search, folder)
    assert latency is not None
    for chosen in (space.smallest(digits), space.largest(digits), *space.ladder(digits, 3)):
        assert latency(chosen) == pytest.approx(by_its_calls(space.assemble(chosen, digits)))
    # the sampler knows it before anything is built
    known = build_sampler_arguments(plan, digits, folder)["costs"]
    chosen = space.smallest(digits)
    assert known(chosen) == pytest.approx((latency(chosen),))
    before = build_sampler_arguments(plan, digits)["costs"](chosen)
    assert np.isnan(before).all()


def test_a_candidate_carries_the_estimate_and_says_so(
    space: SubnetworkSpace, timings: list[int], digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", space)
    measure_parts(plan.search, folder, silent)
    chosen = {choice.name: 0.5 for choice in space.choices(digits)}
    trial = ask(0, chosen)
    found = evaluate_trial(trial, digits, plan, folder, cpu, silent)
    assert found.state == COMPLETE
    assert found.latency_ms == pytest.approx(by_its_calls(space.assemble(chosen, digits)))
    assert found.estimated == ("latency_ms",)
    assert found.size_bytes is None
    assert not (folder.path / "costs").exists(), "no file was made to be timed"


def test_a_limit_holds_before_anything_is_judged(
    space: SubnetworkSpace, timings: list[int], digits: Dataset, cpu: Device, tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", space, max_latency=OVERHEAD)
    measure_parts(plan.search, folder, silent)
    chosen = space.largest(digits)
    assert build_sampler_arguments(plan, digits, folder)["costs"](chosen) is None
    found = evaluate_trial(ask(0, chosen), digits, plan, folder, cpu, silent)
    assert found.state == REJECTED
    assert "ms on LiteRT (estimated) exceed the limit of 0.25" in found.reason


def test_what_was_timed_is_not_timed_again(
    space: SubnetworkSpace, timings: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, folder = made(tmp_path / "run", space)
    measure_parts(plan.search, folder, silent)
    measure_parts(plan.search, folder, silent)
    assert len(timings) == 1
    plain, other = made(tmp_path / "other", space, objectives=("accuracy", "macs"))
    measure_parts(plain.search, other, silent)
    assert len(timings) == 1, "nobody asked for a latency"
    assert not other.part_times.exists()


def test_a_damaged_record_is_refused(
    space: SubnetworkSpace, timings: list[int], tmp_path: Path
) -> None:
    plan, folder = made(tmp_path / "run", space)
    measure_parts(plan.search, folder, silent)
    record = PartTimes.from_timing(space.time_calls(silent)).to_json()
    write_json(folder.part_times, {**record, "whole": [1.0]})
    with pytest.raises(InputError, match="as many models"):
        build_latency_estimator(plan.search, folder)


@pytest.mark.slow
def test_a_search_times_its_model_before_its_workers_start(
    space: SubnetworkSpace, timings: list[int], digits: Dataset, tmp_path: Path
) -> None:
    report = run_search(
        "digits", space=space.name, objectives=("accuracy", "latency_ms"), no_train=True, trials=3,
        workers=1, final_models=0, normalize="unit", out=tmp_path / "run",
    )  # fmt: skip
    assert len(timings) == 1
    assert len(report.candidates) == 3
    # the worker is another process, where nothing is invented
    for item in report.candidates:
        model = space.assemble(item.choices, digits)
        assert item.latency_ms == pytest.approx(by_its_calls(model))
        assert item.estimated == ("latency_ms",)
    assert "Latency, estimated" in (tmp_path / "run" / "report.html").read_text("utf-8")

"""Choices that are put right by their files: costs are pretended, so that what fits is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from compress.core.errors import RunFailed
from compress.plan import ChannelOptions
from compress.plan.nesting import from_flat
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels.analysis import analyze_coupling
from compress.shrinking.estimates import CostEstimates
from compress.shrinking.fitting import GoalFitter
from compress.shrinking.goals import OutOfReach, build_goal_error

WIDTH, LEAST = 64, 4


class Pretended(GoalFitter):
    """Chooses the widest layer whose estimate is within the aim; files cost what a law says.

    Args:
        law: Width -> cost of its file.
        nearest: The width whose estimate is nearest to the aim is chosen instead.
    """

    def __init__(self, law: Callable[[int], float], nearest: bool = False) -> None:
        inputs = keras.Input((3,))
        hidden = keras.layers.Dense(WIDTH)(inputs)
        model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
        self.shares: list[float] = []
        context = SimpleNamespace(on_progress=lambda text, share: self.shares.append(share))
        plan = from_flat(ShrinkPlan, {})
        job: Any = SimpleNamespace(
            coupling=analyze_coupling(model), context=context, plan=plan, device_times=None
        )
        super().__init__(job, SimpleNamespace(), Path())  # type: ignore[arg-type]
        self.law, self.nearest = law, nearest
        self.tried: list[int] = []

    def _measure_costs(self, model: Any, format: str, names: Any) -> dict[str, float]:
        width = int(model.layers[1].units)
        self.tried.append(width)
        return {"latency": self.law(width)}

    def build_estimates(self, format: str, latency: float = math.inf) -> CostEstimates:
        return CostEstimates(
            {"latency": lambda kept, present: np.asarray(kept, float)[..., 0] / WIDTH}
        )

    def build_selector(self, goals: Any, estimates: Any, variation: Any) -> Any:
        def choose(aim: float, share: Any) -> Any:
            widths = np.arange(LEAST, WIDTH + 1, 4)
            costs = share(widths[:, None], None)
            place = max(0, int(np.searchsorted(costs, aim, "right")) - 1)
            if self.nearest:
                place = int(np.argmin(np.abs(costs - aim)))
            mask = np.ones(self.job.coupling.unit_count, bool)
            mask[self.job.coupling.groups[0].units[widths[place] :]] = False
            return SimpleNamespace(
                mask=mask, removed_blocks=(), key=(mask.tobytes(), ()),
                allocation=SimpleNamespace(cost=float(costs[place])),
            )  # fmt: skip

        return SimpleNamespace(select=choose)


def kept(fitter: Pretended, goal: float) -> int:
    found = fitter.fit("float32", {"latency": goal})
    assert found.rounds == len(fitter.tried)
    units = fitter.job.coupling.groups[0].units
    return int(np.count_nonzero(found.selection.mask[units]))


def test_an_estimate_that_is_right_needs_one_file() -> None:
    fitter = Pretended(lambda width: width / WIDTH)
    assert kept(fitter, 0.5) == 32
    assert fitter.tried == [32]


def test_one_that_is_wrong_by_a_factor_needs_two() -> None:
    fitter = Pretended(lambda width: 1.6 * width / WIDTH)
    assert kept(fitter, 0.5) == 16  # 20 is the widest that is within, 19.8 is aimed at
    assert fitter.tried == [32, 16]
    assert set(fitter.shares) == {0.5}  # a share that grew would promise an end


def test_much_that_does_not_leave_with_the_widths_is_found_all_the_same() -> None:
    """0.48 + 0.1 w / 64 is within 0.5 from 12 on; factors alone come there in nine steps."""
    fitter = Pretended(lambda width: 0.48 + 0.1 * width / WIDTH)
    assert kept(fitter, 0.5) <= 12
    assert len(fitter.tried) <= 7
    assert fitter.tried == sorted(set(fitter.tried), reverse=True)


def test_what_nothing_comes_to_says_what_holds_it() -> None:
    fitter = Pretended(lambda width: 0.6 + 0.1 * width / WIDTH)
    with pytest.raises(OutOfReach, match="every layer is thinned as far as") as caught:
        fitter.fit("float32", {"latency": 0.5})
    assert min(fitter.tried) == LEAST
    assert caught.value.used == pytest.approx((0.6 + 0.1 * LEAST / WIDTH) / 0.5)


def test_files_that_never_come_near_are_not_said_to_be_as_thin_as_can_be() -> None:
    goals, costs = {"latency": 0.5, "macs": 10.0}, {"latency": 0.6, "macs": 9.0}
    error = build_goal_error("int8", goals, costs, ChannelOptions(), 3)
    assert error.used == pytest.approx(1.2)
    text = "An int8 file must be able to meet the goal. Received: 600 us (asked for 500 us), where "
    assert str(error).startswith(f"{text}none of 3 files came to it.")
    # the last two files are 8 and 4 wide: no more is tried where the thinnest is above the goal
    fitter = Pretended(lambda width: 0.5 * (1.0 + 1e-3 * (1 + width / WIDTH)))
    with pytest.raises(OutOfReach, match="at least 501 us"):
        fitter.fit("float32", {"latency": 0.5})
    assert fitter.tried[-2:] == [8, LEAST]


def test_a_choice_above_the_aim_need_not_be_the_thinnest() -> None:
    """Steps are coarse where little is left: 8 of 64 is nearer to 0.1 than 4, and above it."""
    fitter = Pretended(lambda width: width / WIDTH, nearest=True)
    assert kept(fitter, 0.1) == LEAST
    assert fitter.tried == [8, LEAST]


def test_a_size_that_one_format_cannot_reach_names_those_that_can() -> None:
    others = {"float16": {"size": 9000.0}, "dynamic": {"size": 5200.0}, "int8": {"size": 4800.0}}
    goals, costs = {"size": 5000.0, "macs": 10.0}, {"size": 16000.0, "macs": 9.0}
    text = str(build_goal_error("float32", goals, costs, ChannelOptions(), None, others))
    assert "Take int8 (4.8 kB): files of the same model meet the goal." in text
    assert "dynamic (" not in text
    tighter = {"size": 4000.0, "macs": 10.0}
    text = str(build_goal_error("float32", tighter, costs, ChannelOptions(), None, others))
    assert (
        "float16 (9.0 kB), dynamic (5.2 kB) and int8 (4.8 kB) of the same model do not meet" in text
    )


@pytest.mark.parametrize("cost", ["latency", "peak_memory"])
def test_a_pruned_file_that_cannot_be_run_costs_its_format(
    cost: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `RunFailed`, which leaves other formats alone; an `InputError` would end the command."""

    def write_garbage(model: Any, format: str, folder: Path, **_: Any) -> Path:
        (folder / "0.tflite").write_bytes(b"TFL3 it is not")
        return folder / "0.tflite"

    monkeypatch.setattr("compress.shrinking.fitting.write_candidate_file", write_garbage)
    job: Any = SimpleNamespace(plan=from_flat(ShrinkPlan, {}))
    files: Any = SimpleNamespace(ms=1.0, file="0.tflite")
    (tmp_path / "0.tflite").write_bytes(b"TFL3 nor is this")
    fitter = GoalFitter(job, files, tmp_path)
    with pytest.raises(RunFailed, match="A pruned model's int8 file cannot be run: .*0.tflite"):
        fitter._measure_costs(keras.Model(), "int8", {cost})

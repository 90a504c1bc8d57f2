"""Where removing channels pays: models whose time is their own, not what any run costs."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import write_json
from compress.core.counts import threads_text
from compress.core.errors import InputError, RunFailed, one_line
from compress.measure import formats
from compress.measure.latency import Entry, time_entries
from compress.plan import ChannelOptions
from compress.plan.target import Target
from compress.run.records import Record, read_record

if TYPE_CHECKING:
    from compress.data import Dataset
    from compress.pipeline.prepared import Subject
    from search.plan import SearchPlan

TIMES = 3.0
"""Above it, what a run of any file costs is less than a third of a model's time."""
KEPT = Target(0.5, relative=True)
WAY: dict[str, Any] = {"criterion": "reconstruction", "scope": "damage"}
"""How channels are chosen where the plan leaves that to us: 1.1 points better than by l2 with 80 %
zeros behind it, in the time of l2 (one candidate of 5.9 M MACs, Fashion-MNIST, validation)."""
PRECISION, SECONDS = 0.05, 2.0


@dataclass(frozen=True)
class RunCost(Record):
    """How long a model's int8 file takes beside one of next to nothing.

    Attributes:
        own_ms, empty_ms: Milliseconds of one inference at batch 1; see `Latency.quiet_ms`.
        how: What measured, and with how many threads.
    """

    own_ms: float
    empty_ms: float
    how: str

    @property
    def slow(self) -> bool:
        """Whether the model takes more than `TIMES` times what any run costs."""
        return self.own_ms > TIMES * self.empty_ms

    def __str__(self) -> str:
        return (
            f"its int8 file takes {formats.time(self.own_ms)}, an empty one "
            f"{formats.time(self.empty_ms)} ({self.how}, measured)"
        )


def halved_if_slow(
    plan: SearchPlan, subject: Subject, data: Dataset, known: Path
) -> tuple[SearchPlan, list[str]]:
    """Gives a model's plan a target of channels where the model is slow enough to gain by it.

    That is where its int8 file takes more than three times what an empty one takes, measured
    with LiteRT and the plan's number of threads. Of the weights that are left fewer are pruned,
    so that about as many are not zero as without it: 60 % of a half for 80 % of all.

    Args:
        plan: Of the run.
        subject: The dense model.
        data: Calibrate the file.
        known: Where the times are kept: a training that goes on is that of the same plan.

    Returns:
        The plan for this model, and notes on what was measured and done. Where the plan names
        channels or a goal itself, or `channels.keep_all` is set, the plan as it is and none.
    """
    from compress.prune.channels import check_channels

    if plan.channels.keep_all or plan.channels.active or plan.shrink_to is not None:
        return plan, []
    halved = _halved(plan)
    try:
        check_channels(subject.coupling, halved.channels)
        cost = read_record(known, RunCost) if known.exists() else _measured(subject, plan, data)
    except (InputError, RunFailed) as error:
        return plan, [f"no channels leave: {one_line(str(error))}"]
    write_json(known, cost.to_json())
    if not cost.slow:
        return plan, [f"no channels leave, because that would save hardly any time: {cost}"]
    zeros = halved.weights.sparsity
    less = f", zeros are {formats.percent(zeros)}" if zeros != plan.weights.sparsity else ""
    return halved, [f"channels leave until half of the MACs are left{less}: {cost}"]


def _halved(plan: SearchPlan) -> SearchPlan:
    """Returns the plan with the target; what the plan says of the way stays."""
    own, weights = plan.channels, plan.weights
    usual = all(getattr(own, name) == getattr(ChannelOptions, name) for name in WAY)
    way = WAY if usual and own.sensitivity is None else {}
    channels = replace(own, target=KEPT, target_metric="macs", **way)
    if weights.pattern.kind == "n:m" or weights.overrides:
        return replace(plan, channels=channels)
    zeros = round(max(0.0, 1.0 - (1.0 - weights.sparsity) / KEPT.amount), 4)
    least = min(weights.initial_sparsity, zeros)
    fewer = replace(weights, sparsity=zeros, initial_sparsity=least)
    return replace(plan, channels=channels, weights=fewer)


def _measured(subject: Subject, plan: SearchPlan, data: Dataset) -> RunCost:
    """Times the model's int8 file and an empty one.

    Raises:
        RunFailed: There is no int8 file.
    """
    from compress.exporting import export
    from compress.exporting.side_by_side import litert_files
    from compress.measure.latency_table.calls import empty_model

    threads = plan.latency.threads
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        (own,) = export(
            subject.model, folder / "own.tflite", format="int8", data=data, seed=plan.seed,
            calibration=plan.export.calibration,
        )  # fmt: skip
        (empty,) = litert_files([empty_model()], folder, "int8")
        if isinstance(empty, str):
            raise RunFailed(f"there is no empty int8 file to time: {empty}")
        timed = time_entries(
            {"own": Entry(own.path, "litert", threads), "empty": Entry(empty, "litert", threads)},
            precision=PRECISION, budget=SECONDS, seed=plan.seed,
        )  # fmt: skip
    how = f"{timed['own'].runtime}, {threads_text(threads)}"
    return RunCost(timed["own"].quiet_ms, timed["empty"].quiet_ms, how)

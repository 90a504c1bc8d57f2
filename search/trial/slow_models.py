"""Where removing channels pays: models whose time is their own, not what any run costs."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.errors import InputError, one_line
from compress.measure import formats
from compress.measure.latency import Entry, time_entries
from compress.plan import ChannelOptions
from compress.plan.target import Target

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


def halved_if_slow(
    plan: SearchPlan, subject: Subject, data: Dataset
) -> tuple[SearchPlan, list[str]]:
    """Gives a model's plan a target of channels where the model is slow enough to gain by it.

    That is where its int8 file takes more than three times what an empty one takes, measured
    with LiteRT and the plan's number of threads. Of the weights that are left as many less are
    pruned, so that about as many are not zero as without it: 60 % of a half for 80 % of all.

    Args:
        plan: Of the run.
        subject: The dense model.
        data: Calibrate the file.

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
    except InputError as error:
        return plan, [f"no channels leave: {one_line(str(error))}"]
    threads = plan.latency.threads
    with tempfile.TemporaryDirectory() as folder:
        files = _int8_files(subject, plan, data, Path(folder))
        if isinstance(files, str):
            return plan, [f"no channels leave: there is no int8 file to time: {files}"]
        own, empty = time_entries(
            {file.stem: Entry(file, "litert", threads) for file in files},
            precision=PRECISION, budget=SECONDS, seed=plan.seed,
        ).values()  # fmt: skip
    measured = (
        f"its int8 file takes {formats.time(own.quiet_ms)}, an empty one "
        f"{formats.time(empty.quiet_ms)} ({own.runtime}, {threads} thread{'s'[: threads > 1]}, "
        "measured)"
    )
    if own.quiet_ms <= TIMES * empty.quiet_ms:
        return plan, [f"no channels leave, because that would save hardly any time: {measured}"]
    zeros = halved.weights.sparsity
    less = f", zeros are {formats.percent(zeros)}" if zeros != plan.weights.sparsity else ""
    return halved, [f"channels leave until half of the MACs are left{less}: {measured}"]


def _halved(plan: SearchPlan) -> SearchPlan:
    """Returns the plan with the target; what the plan says of the way stays."""
    own, weights = plan.channels, plan.weights
    usual = all(getattr(own, name) == getattr(ChannelOptions, name) for name in WAY)
    way = WAY if usual and own.sensitivity is None and own.target_metric == "macs" else {}
    channels = replace(own, target=KEPT, target_metric="macs", **way)
    if weights.pattern.kind == "n:m" or weights.overrides:
        return replace(plan, channels=channels)
    zeros = round(max(0.0, 1.0 - (1.0 - weights.sparsity) / KEPT.amount), 4)
    least = min(weights.initial_sparsity, zeros)
    fewer = replace(weights, sparsity=zeros, initial_sparsity=least)
    return replace(plan, channels=channels, weights=fewer)


def _int8_files(
    subject: Subject, plan: SearchPlan, data: Dataset, folder: Path
) -> tuple[Path, Path] | str:
    """Writes the model's int8 file and an empty one; returns the reason where that fails."""
    from compress.exporting import export
    from compress.exporting.side_by_side import litert_files
    from compress.measure.latency_table.calls import empty_model

    reasons: list[str] = []
    made = export(
        subject.model, folder / "own", data=data, seed=plan.seed,
        options=replace(plan.export, formats=("int8",)),
        on_refusal=lambda _, reason: reasons.append(reason),
    )  # fmt: skip
    (empty,) = litert_files([empty_model()], folder, "int8")
    if reasons or isinstance(empty, str):
        return one_line(reasons[0] if reasons else str(empty))
    return made[0].path, empty

"""The end of the way: all files judged by test data, timed against each other, one shipped."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import RunFailed
from compress.measure.footprint import known_arena, known_resident
from compress.measure.latency_record import Latency
from compress.measure.quality import can_ship_unasked
from compress.measure.verdict import MET, Outcome, judge_artifact, worst_state
from compress.plan import QAT
from compress.run.compressed import Artifact
from compress.run.exports import read_example_values
from compress.shrinking.choosing import Elsewhere, Measured, choose_file
from compress.shrinking.elsewhere import device_error
from compress.shrinking.goals import goals_text
from compress.shrinking.net import Net
from compress.shrinking.ship import Shipped, ship
from compress.shrinking.timing import measure_stage
from compress.shrinking.way import of_net, recorded

if TYPE_CHECKING:
    from compress.devices import DeviceTimes
    from compress.shrinking.planner import Planner

UNUSED = 0.1
"""Share of a goal whose being left over is explained."""


def finished(planner: Planner, nets: Sequence[Net], command: str, began: float) -> Outcome:
    """Judges all files by test data, times them, chooses one by validation data, and ships it.

    Args:
        planner: That made the nets.
        nets: The nets.
        command: What the report shows for repeating it.
        began: When the work began, by `time.monotonic`.
    """
    shop, notes = planner.shop, tuple(dict.fromkeys(planner.notes))
    folder, name, work = shop.folder, shop.case.name, shop.case.work
    if not folder.is_compressed(name):
        recorded(planner, nets, folder, command, began)
    measure_stage(folder, work.plan, work.progress)
    (record,) = (item for item in folder.read_compressed() if item.model == name)
    files = record.files()
    original = next(
        item for item in files if item.variant == "dense" and item.format == planner.first
    )
    measured = _measured(planner, files, nets)
    goal, limits = shop.plan.goal, dict(planner.limits)
    if goal.latency is not None:  # nets were aimed a little below it
        limits["latency"] = goal.latency.amount
    kind, formats = work.data.task.name, shop.plan.export.formats
    agreeing = [
        item for item in files if can_ship_unasked(kind, item.agreement, item.checked, formats)
    ]
    found = choose_file(agreeing or files, original, measured, limits, planner.bar)
    bar = planner.bar
    verdict = judge_artifact(folder, found.chosen, original, bar.metric, bar.limit)
    state = worst_state([found.state, verdict.state])
    net = _net_of(found.chosen, nets)
    if (elsewhere := measured.elsewhere) is not None:
        notes = (*notes, _of_device(elsewhere, shop.meter.device))
    if found.used < 1 - UNUSED:
        notes = (*notes, _unused(found.used, net))
    notes = (*notes, *_describe_few_examples(planner, found.chosen, original))
    lines = (verdict.line, *found.lines)
    folder.write_compressed(of_net(record, net or shop.whole(name, planner.formats), planner))
    shipped = _shipped(planner, found.chosen, original, net, measured, lines, notes)
    path = ship(folder.ship, shipped, work.data, name)
    outcome = Outcome(
        goals_text(goal, planner.limits, planner.bar),
        state == MET,
        found.chosen.id,
        lines,
        folder.relative(path),
        notes,
        verdict,
        state,
    )
    write_json(folder.outcome, outcome.to_json())
    return outcome


def _describe_few_examples(planner: Planner, chosen: Artifact, original: Artifact) -> list[str]:
    """Say that validation data are too few to show that any smaller file is inside the limit."""
    bar, own = planner.bar, planner.shop.original_values()
    if bar.limit is None or chosen.id == original.id or bar.limit.can_be_shown(bar.dense, own):
        return []
    return [
        f"{len(planner.shop.case.work.data.val):,} validation examples are too few to show that a "
        "smaller file stays inside the limit: the best of those that come into question ships"
    ]


def _measured(planner: Planner, files: Sequence[Artifact], nets: Sequence[Net]) -> Measured:
    """Reads times off the folder, memory off the files, and times elsewhere off the nets."""
    folder = planner.shop.folder
    path = folder.latency_of(planner.shop.plan.runtime)
    timed = read_json(path)
    if "skipped" in timed:
        raise RunFailed(f"The files could not be timed: {timed['skipped']}")
    times = {key: Latency.from_json(value, path) for key, value in timed.items()}
    sizes = {item.id: known_arena(folder.path / item.file) for item in files}
    latency = planner.shop.plan.goal.latency
    values = {item.id: read_example_values(folder, item.id, "val") for item in files}
    return Measured(
        times,
        {key: size for key, size in sizes.items() if size is not None},
        latency is not None and latency.relative,
        _elsewhere(planner, nets),
        {key: known for key, known in values.items() if known is not None},
    )


def _elsewhere(planner: Planner, nets: Sequence[Net]) -> Elsewhere | None:
    """Returns what files take on the device that a latency is of; None: it is of this machine."""
    meter, name = planner.shop.meter, planner.shop.case.name
    if meter.device is None:
        return None
    own = {f"{name}.{kind}": ms for kind, ms in meter.dense.times.items()}
    small = {
        f"{net.name}.{kind}": ms
        for net in nets if not net.whole
        for kind, ms in net.device_ms.items()
    }  # fmt: skip
    error = device_error(meter.device, planner.shop.plan, planner.shop.fitter.coupling)
    return Elsewhere(meter.device.device, meter.dense.ms, {**small, **own}, frozenset(own), error)


def _of_device(elsewhere: Elsewhere, device: DeviceTimes | None) -> str:
    """Say what times on a device are made of, and how far off they may be."""
    assert device is not None
    error = "no whole model was timed there to compare with"
    if elsewhere.error is not None:
        error = (
            f"for whole models that were held out the estimate was {100 * elsewhere.error:.1f} % "
            "off on average"
        )
    return (
        f"times on {device.device} ({device.tool}, {device.date}) are estimated from files of "
        f"single calls; {error}. Time the file there before you rely on it"
    )


def _unused(used: float, net: Net | None) -> str:
    """Says why a file is much smaller or faster than was asked for."""
    why = (
        "its format alone meets the goal, so that nothing left"
        if net is None or net.whole
        else f"widths come in steps, and none of the {net.rounds} choices whose files were "
        "measured came nearer"
    )
    return f"the file uses {used:.0%} of what the goal allows: {why}"


def _net_of(artifact: Artifact, nets: Sequence[Net]) -> Net | None:
    """Returns the net that a file is of; None: the model as it is."""
    stem = artifact.id.rpartition(".")[0]
    return next((net for net in nets if net.name == stem), None)


def _shipped(
    planner: Planner,
    chosen: Artifact,
    original: Artifact,
    net: Net | None,
    measured: Measured,
    lines: tuple[str, ...],
    notes: tuple[str, ...],
) -> Shipped:
    shop = planner.shop
    steps = ["nothing was removed: the format alone does it"]
    if net is not None and not net.whole:
        report = net.channels or {}
        groups, repair = report["groups"], report["repair"]
        kept, total = (sum(row[key] for row in groups) for key in ("kept", "total"))
        left = f", and {len(net.dropped)} residual block(s) left" if net.dropped else ""
        teachers = " and ".join(item.path.stem for item in shop.case.dense.teachers.each)
        taught = f", taught by {teachers}" if teachers else ", by labels"
        steps = [
            f"channels: {kept:,} of {total:,} stay in {len(groups)} groups{left}, chosen by what "
            "the outputs lose",
            f"repaired on {repair['examples']:,} unlabelled training examples"
            if repair
            else "not repaired",
            f"fine-tuned for {net.epochs} epochs{taught}" if net.epochs else "not fine-tuned",
        ]
    if chosen.format == QAT:
        epochs = shop.plan.qat_epochs
        how = f"trained for {epochs} more epochs" if epochs else "calibrated"
        steps.append(f"{how} as the file computes in whole numbers ({QAT})")
    elif chosen.format != planner.first:
        steps.append(f"stored as {chosen.format}, after training")
    model = shop.model if net is None else shop.model_of(net)
    kind, threads = shop.plan.runtime, shop.plan.latency.threads
    before, after = (
        known_resident(shop.folder.path / item.file, kind, threads) for item in (original, chosen)
    )
    return Shipped(
        shop.folder.path / chosen.file, model, original, chosen, measured,
        (before, after), lines, tuple(steps), notes,
    )  # fmt: skip

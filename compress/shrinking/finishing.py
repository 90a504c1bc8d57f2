"""The end of the way: all files judged by test data, timed against each other, one shipped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import RunFailed
from compress.devices import DeviceTimes
from compress.measure.footprint import known_arena
from compress.measure.latency_record import Latency
from compress.measure.quality import can_ship_unasked
from compress.measure.verdict import MET, Outcome, judge_artifact, worst_state
from compress.model.inference import left_out
from compress.plan.output import MIXED, QAT
from compress.plan.target import SizeTarget, TimeTarget
from compress.prune.weights import WeightReport
from compress.run.compressed import Artifact, Compressed, read_example_values, write_example_values
from compress.run.directory import RunFolder
from compress.run.origin import trained_for
from compress.shrinking.compression import keep_graphs, write_decisions
from compress.shrinking.estimates import device_error
from compress.shrinking.files import (
    Variant,
    artifacts_of,
    exported,
    judged_files,
    measure_stage,
    with_baseline,
)
from compress.shrinking.goals import Bar, Elsewhere, Measured, choose_file, goals_text
from compress.shrinking.net import Net
from compress.shrinking.planner import Planner
from compress.shrinking.prune_and_train import Tuner, quantized_files
from compress.shrinking.ship import ship

UNUSED = 0.1
"""Share of a goal whose being left over is explained."""
LOST = 1.0
"""Points that rounding alone may take before it is told,"""
TOLD = 3
"""and of how many nets."""
STARTS_FROM = "int8"
"""The format whose file says which net is worth it: both cost the same."""


def finished(planner: Planner, nets: Sequence[Net], command: str, began: float) -> None:
    """Evaluate all files by test data, times them, chooses one by validation data, and ships it.

    Args:
        planner: That made the nets.
        nets: The nets.
        command: What the report shows for repeating it.
        began: When the work began, by `time.monotonic`.
    """
    shop, bar, notes = planner.shop, planner.bar, list(dict.fromkeys(planner.notes))
    folder, case, work = shop.folder, shop.case, shop.case.work
    if not folder.is_compressed(case.name):
        recorded(planner, nets, folder, command, began)
    measure_stage(folder, case.plan, work.progress)
    (record,) = (item for item in folder.read_compressed() if item.model == case.name)
    files = record.files()
    original = next(
        item for item in files if item.variant == "dense" and item.format == shop.dense.first
    )
    measured = _measured(planner, files, nets)
    goal, limits = case.plan.goal, dict(planner.limits)
    if goal.latency is not None:  # nets were aimed a little below it
        limits["latency"] = goal.latency.amount
    agreeing = [
        item
        for item in files
        if can_ship_unasked(
            work.data.task.name, item.agreement, item.checked, case.plan.export.formats
        )
    ]
    choice = choose_file(agreeing or files, original, measured, limits, bar)
    chosen = choice.chosen
    verdict = judge_artifact(folder, chosen, original, bar.metric, bar.limit)
    state = worst_state([choice.state, verdict.state])
    net = next((item for item in nets if item.name == chosen.id.rpartition(".")[0]), None)
    if measured.elsewhere is not None:
        notes.append(_of_device(measured.elsewhere, case.device))
    if choice.used < 1 - UNUSED:
        why = (
            "its format alone meets the goal, so that nothing left"
            if net is None or net.whole
            else f"widths come in steps, and none of the {net.rounds} choices whose files were "
            "measured came nearer"
        )
        notes.append(f"the file uses {choice.used:.0%} of what the goal allows: {why}")
    if (
        bar.limit is not None
        and chosen.id != original.id
        and not bar.limit.can_be_shown(bar.dense, shop.original_values())
    ):
        notes.append(
            f"{len(work.data.val):,} validation examples are too few to show that a smaller file "
            "stays inside the limit: the best of those that come into question ships"
        )
    lines = (verdict.line, *choice.lines)
    shown = net or shop.whole(case.name, planner.formats)
    folder.write_compressed(of_net(record, shown, planner))
    path = ship(
        folder,
        case.model if net is None else shop.model_of(net),
        (original, chosen),
        measured,
        case,
        {"lines": lines, "steps": _steps(planner, chosen, net), "notes": notes},
    )
    write_json(
        folder.outcome,
        Outcome(
            goals_text(goal, planner.limits, bar),
            state == MET,
            chosen.id,
            lines,
            folder.relative(path),
            tuple(notes),
            verdict,
            state,
        ).to_json(),
    )


def recorded(
    planner: Planner, nets: Sequence[Net], folder: RunFolder, command: str, began: float
) -> Compressed:
    """Evaluate all files by test data, once, and writes the record of them.

    Args:
        planner: That made the nets.
        nets: The nets.
        folder: Of the record; paths in it are from there.
        command: What the report shows for repeating it.
        began: When the work began, by `time.monotonic`.
    """
    case, dense = planner.shop.case, planner.shop.dense
    best = max(nets, key=lambda net: net.best(planner.bar.metric))
    keep_graphs(
        folder, case.name, case.model, planner.shop.model_of(best), case.work.data, best.layer_ms
    )
    before = trained_for(case.path)
    artifacts = _artifacts(planner, nets, folder)  # these may have something to note, too
    made = Compressed(
        model=case.name,
        teacher="",
        val={"dense": dense.val[dense.first], "pruned": {}},
        weights=WeightReport((), ()).to_json(),
        best_epoch=0,
        epochs=0,
        command=command,
        seconds=time.monotonic() - began,
        device=case.work.device.describe(),
        notes=(*dict.fromkeys(planner.notes), *left_out(case.model)),
        artifacts=tuple(item.to_json() for item in artifacts),
        dense_epochs=before.epochs,
        dense_begun=before.begun,
        each={net.name: net.epochs for net in nets if not net.whole},
    )
    record = of_net(made, best, planner)
    folder.write_compressed(record)
    return record


def of_net(record: Compressed, net: Net, planner: Planner) -> Compressed:
    """Return the record with what was done to one of the nets: that which it is the record of.

    Args:
        record: Of the model and all files.
        net: The one that is shown.
        planner: That made it.
    """
    case, metric = planner.shop.case, planner.bar.metric
    format = max(net.val, key=lambda kind: net.quality(kind, metric))
    return replace(
        record,
        compressed=case.name if net.whole else net.name,
        teacher=case.teacher_names if any(record.each.values()) else "",
        val={**record.val, "pruned": net.val[format]},
        channels=net.channels,
        best_epoch=net.best_epoch,
        epochs=net.epochs,
        finetuned=net.epochs,
    )


def _artifacts(planner: Planner, nets: Sequence[Net], folder: RunFolder) -> list[Artifact]:
    """Evaluate the files by test data; they were made and judged by validation data before."""
    shop, dense = planner.shop, planner.shop.dense
    case, work = shop.case, shop.case.work
    whole = Variant(case.model, case.name, case.name, "dense", val=dense.val)
    found = artifacts_of(whole, exported(case.name, dense.checks, shop.folder), work, folder)
    for net in nets:
        if not net.whole:
            found += artifacts_of(
                _variant(planner, net), exported(net.name, net.checks, shop.folder), work, folder
            )
    if folder.path != shop.folder.path:  # a run's
        for item in found:
            values = read_example_values(shop.folder, item.id, "val")
            if values is not None:
                write_example_values(folder, item.id, "val", values)
    found += whole_number_files(planner, nets, folder)
    found = with_baseline(found, work.plan)
    write_decisions(folder, found, work.data)
    return found


def _measured(planner: Planner, files: Sequence[Artifact], nets: Sequence[Net]) -> Measured:
    """Read times off the folder, memory off the files, and times elsewhere off the nets."""
    folder, plan = planner.shop.folder, planner.shop.case.plan
    path = folder.latency_of(plan.runtime)
    timed = read_json(path)
    if "skipped" in timed:
        raise RunFailed(f"The files could not be timed: {timed['skipped']}")
    sizes = {item.id: known_arena(folder.path / item.file) for item in files}
    values = {item.id: read_example_values(folder, item.id, "val") for item in files}
    return Measured(
        {key: Latency.from_json(value, path) for key, value in timed.items()},
        {key: size for key, size in sizes.items() if size is not None},
        plan.goal.latency is not None and plan.goal.latency.relative,
        _elsewhere(planner, nets),
        {key: known for key, known in values.items() if known is not None},
    )


def _elsewhere(planner: Planner, nets: Sequence[Net]) -> Elsewhere | None:
    """Return what files take on the device that a latency is of; None: it is of this machine."""
    case, dense = planner.shop.case, planner.shop.dense
    if case.device is None:
        return None
    own = {f"{case.name}.{kind}": ms for kind, ms in dense.times.items()}
    small = {
        f"{net.name}.{kind}": ms
        for net in nets if not net.whole
        for kind, ms in net.device_ms.items()
    }  # fmt: skip
    return Elsewhere(
        case.device.device, dense.ms, {**small, **own}, frozenset(own), device_error(case)
    )


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


def _steps(planner: Planner, chosen: Artifact, net: Net | None) -> list[str]:
    """Say what was done to the model, for the card of the file that ships."""
    case = planner.shop.case
    steps = ["nothing was removed: the format alone does it"]
    if net is not None and not net.whole:
        report = net.channels or {}
        groups, repair = report["groups"], report["repair"]
        kept, total = (sum(row[key] for row in groups) for key in ("kept", "total"))
        left = f", and {len(net.dropped)} residual block(s) left" if net.dropped else ""
        taught = f", taught by {case.teacher_names}" if case.teachers else ", by labels"
        steps = [
            f"channels: {kept:,} of {total:,} stay in {len(groups)} groups{left}, chosen by what "
            "the outputs lose",
            f"repaired on {repair['examples']:,} unlabelled training examples"
            if repair
            else "not repaired",
            f"fine-tuned for {net.epochs} epochs{taught}" if net.epochs else "not fine-tuned",
        ]
    if chosen.format == QAT:
        epochs = case.plan.qat_epochs
        how = f"trained for {epochs} more epochs" if epochs else "calibrated"
        steps.append(f"{how} as the file computes in whole numbers ({QAT})")
    elif chosen.format != planner.shop.dense.first:
        steps.append(f"stored as {chosen.format}, after training")
    return steps


def whole_number_files(planner: Planner, nets: Sequence[Net], folder: RunFolder) -> list[Artifact]:
    """Train nets as their files of whole numbers compute, chooses precisions, judges the files.

    Where a goal says what one file must come to it is the net whose int8 file is the best; without
    a goal it is every net of the front.

    Args:
        planner: That made the nets; it is told what stays in floats.
        nets: At their last stage.
        folder: Of the record.
    """
    shop, plan = planner.shop, planner.shop.case.plan
    found: list[Artifact] = []
    if plan.qat:
        quantize = replace(plan.quantize, epochs=plan.qat_epochs)
        work = replace(shop.case.work, plan=replace(plan, quantize=quantize))
        for net in _worth_it(planner, nets, QAT):
            tuner = Tuner(work, shop.case.teachers, shop.folder.unfinished(net.name))
            made, notes = quantized_files(_variant(planner, net), tuner, folder)
            found += made
            planner.notes += notes
    elif note := lost_to_rounding(planner.bar, nets, planner.shop.dense.first):
        planner.notes.append(note)
    if MIXED in plan.export.formats:
        # within the goal's size and latency, unless limits of their own are set
        size, latency = (planner.limits.get(name) for name in ("size", "latency"))
        options = replace(
            plan.export,
            mixed_size=plan.export.mixed_size or (SizeTarget(size, False) if size else None),
            mixed_latency=plan.export.mixed_latency
            or (TimeTarget(latency, False) if latency else None),
        )
        work = replace(shop.case.work, plan=replace(plan, export=options))
        for net in _worth_it(planner, nets, MIXED):
            made, notes = judged_files(_variant(planner, net), work, folder, (MIXED,))
            found += made
            planner.notes += notes
    return found


def lost_to_rounding(bar: Bar, nets: Sequence[Net], first: str) -> str:
    """Say of which nets rounding alone takes more than a point, and what can be done; or nothing.

    Args:
        bar: By what nets are judged.
        nets: At their last stage.
        first: The format without rounding.
    """
    found = [
        (bar.drop(net.quality(STARTS_FROM, bar.metric)) - bar.drop(net.quality(first, bar.metric)),
         net.name)
        for net in nets
        if {STARTS_FROM, first} <= net.val.keys()
    ]  # fmt: skip
    lost = sorted((item for item in found if item[0] > LOST), reverse=True)
    if not lost:
        return ""
    each = ", ".join(f"{name} ({points:.1f} points)" for points, name in lost[:TOLD])
    more = f" and {len(lost) - TOLD} more" if len(lost) > TOLD else ""
    return (
        f"rounding alone makes {STARTS_FROM} files worse by validation {bar.metric}: {each}{more}. "
        f"--qat trains the best net as its {STARTS_FROM} file computes"
    )


def _worth_it(planner: Planner, nets: Sequence[Net], format: str) -> list[Net]:
    """Return the nets of which files of a format are made; none: the planner is told why."""
    shop, metric = planner.shop, planner.bar.metric
    goal = shop.case.plan.goal
    if shop.case.device is not None:
        planner.notes.append(f"no {format} file was made: there are no times of it on the device")
        return []
    found = [net for net in nets if STARTS_FROM in net.val]
    if not found:
        planner.notes.append(f"no {format} file was made: no net has an {STARTS_FROM} file")
        return []
    if goal.costs or goal.budget is not None or planner.bar.floor is not None:
        return [max(found, key=lambda net: net.quality(STARTS_FROM, metric))]
    return found


def _variant(planner: Planner, net: Net) -> Variant:
    shop = planner.shop
    name, kind = (shop.case.name, "dense") if net.whole else (net.name, "pruned")
    return Variant(shop.model_of(net), name, shop.case.name, kind, val=net.val)

"""The end of the way: all files judged by test data, timed against each other, one shipped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import RunFailed
from compress.measure.footprint import known_arena, known_resident
from compress.measure.latency_record import Latency
from compress.measure.quality import can_ship_unasked
from compress.measure.verdict import MET, Outcome, judge_artifact, worst_state
from compress.model.inference import left_out
from compress.plan import QAT
from compress.run.compressed import Artifact, Compressed, read_example_values, write_example_values
from compress.run.directory import RunFolder
from compress.run.origin import trained_for
from compress.shrinking.choosing import Elsewhere, Measured, choose_file
from compress.shrinking.estimates import device_error
from compress.shrinking.files import Variant, artifacts_of, exported, measure_stage, with_baseline
from compress.shrinking.goals import goals_text
from compress.shrinking.net import Net
from compress.shrinking.planner import Planner
from compress.shrinking.report_data import keep_graphs, write_decisions
from compress.shrinking.ship import Shipped, ship
from compress.shrinking.whole_numbers import whole_number_files

if TYPE_CHECKING:
    from compress.devices import DeviceTimes

UNUSED = 0.1
"""Share of a goal whose being left over is explained."""


def finished(planner: Planner, nets: Sequence[Net], command: str, began: float) -> None:
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
        item for item in files if item.variant == "dense" and item.format == shop.dense.first
    )
    measured = _measured(planner, files, nets)
    goal, limits = shop.case.plan.goal, dict(planner.limits)
    if goal.latency is not None:  # nets were aimed a little below it
        limits["latency"] = goal.latency.amount
    kind, formats = work.data.task.name, shop.case.plan.export.formats
    agreeing = [
        item for item in files if can_ship_unasked(kind, item.agreement, item.checked, formats)
    ]
    found = choose_file(agreeing or files, original, measured, limits, planner.bar)
    bar = planner.bar
    verdict = judge_artifact(folder, found.chosen, original, bar.metric, bar.limit)
    state = worst_state([found.state, verdict.state])
    stem = found.chosen.id.rpartition(".")[0]
    net = next((item for item in nets if item.name == stem), None)
    if (elsewhere := measured.elsewhere) is not None:
        notes = (*notes, _of_device(elsewhere, shop.case.device))
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


def recorded(
    planner: Planner, nets: Sequence[Net], folder: RunFolder, command: str, began: float
) -> Compressed:
    """Judges all files by test data, once, and writes the record of them.

    Args:
        planner: That made the nets.
        nets: The nets.
        folder: Of the record; paths in it are from there.
        command: What the report shows for repeating it.
        began: When the work began, by `time.monotonic`.
    """
    from compress.prune.weights import WeightReport

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
    """Returns the record with what was done to one of the nets: that which it is the record of.

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
    """Judges the files by test data; they were made and judged by validation data before."""
    shop, dense = planner.shop, planner.shop.dense
    work, name = shop.case.work, shop.case.name
    whole = Variant(shop.case.model, name, name, "dense", val=dense.val)
    found = artifacts_of(whole, exported(name, dense.checks, shop.folder), work, folder)
    for net in nets:
        if not net.whole:
            small = Variant(shop.model_of(net), net.name, name, "pruned", val=net.val)
            files = exported(net.name, net.checks, shop.folder)
            found += artifacts_of(small, files, work, folder)
    for item in found:  # of a run, whose folder is another one
        values = read_example_values(shop.folder, item.id, "val")
        if values is not None and folder.path != shop.folder.path:
            write_example_values(folder, item.id, "val", values)
    found += whole_number_files(planner, nets, folder)
    found = with_baseline(found, work.plan)
    write_decisions(folder, found, work.data)
    return found


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
    path = folder.latency_of(planner.shop.case.plan.runtime)
    timed = read_json(path)
    if "skipped" in timed:
        raise RunFailed(f"The files could not be timed: {timed['skipped']}")
    times = {key: Latency.from_json(value, path) for key, value in timed.items()}
    sizes = {item.id: known_arena(folder.path / item.file) for item in files}
    latency = planner.shop.case.plan.goal.latency
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
    case, dense = planner.shop.case, planner.shop.dense
    if case.device is None:
        return None
    own = {f"{case.name}.{kind}": ms for kind, ms in dense.times.items()}
    small = {
        f"{net.name}.{kind}": ms
        for net in nets if not net.whole
        for kind, ms in net.device_ms.items()
    }  # fmt: skip
    error = device_error(case)
    return Elsewhere(case.device.device, dense.ms, {**small, **own}, frozenset(own), error)


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
        teachers = shop.case.teacher_names
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
        epochs = shop.case.plan.qat_epochs
        how = f"trained for {epochs} more epochs" if epochs else "calibrated"
        steps.append(f"{how} as the file computes in whole numbers ({QAT})")
    elif chosen.format != shop.dense.first:
        steps.append(f"stored as {chosen.format}, after training")
    model = shop.case.model if net is None else shop.model_of(net)
    kind, threads = shop.case.plan.runtime, shop.case.plan.latency.threads
    before, after = (
        known_resident(shop.folder.path / item.file, kind, threads) for item in (original, chosen)
    )
    return Shipped(
        shop.folder.path / chosen.file, model, original, chosen, measured,
        (before, after), lines, tuple(steps), notes,
    )  # fmt: skip

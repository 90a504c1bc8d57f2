"""From a case to its nets, and to the record of them: what `shrink` and a run share."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from compress.measure.footprint import arena_bytes
from compress.model.heads import counted_at
from compress.model.inference import left_out
from compress.run.compressed import Artifact, Compressed
from compress.run.directory import LOG, RunFolder
from compress.run.exports import read_example_values, write_example_values
from compress.run.origin import trained_for
from compress.shrinking.case import Case
from compress.shrinking.crew import Trainers
from compress.shrinking.decisions import write_decisions
from compress.shrinking.dense import dense_files
from compress.shrinking.elsewhere import device_error
from compress.shrinking.files import Variant, artifacts_of, with_baseline
from compress.shrinking.folder import ShrinkFolder
from compress.shrinking.goals import LATENCY_MARGIN, Bar, cost_limits, goals_text
from compress.shrinking.graphs import keep_graphs
from compress.shrinking.judging import exported
from compress.shrinking.meter import Meter
from compress.shrinking.net import Net
from compress.shrinking.pace import Pace
from compress.shrinking.planner import Planner
from compress.shrinking.whole_numbers import whole_number_files
from compress.shrinking.workshop import Workshop


def workshop_for(
    case: Case, folder: ShrinkFolder, trainers: Trainers | None = None, *, alone: bool = True
) -> Workshop:
    """Makes and measures the model's own files, and returns what makes its nets.

    Args:
        case: The model.
        folder: Where nets and files go.
        trainers: Who trains nets; None: this process.
        alone: Whether no other process trains nets of the folder.

    Raises:
        RunFailed: There is no file without rounding.
    """
    dense, plan = dense_files(case, folder), case.plan
    shape = counted_at(case.model, case.work.data.input_shapes)
    if (device := case.device) is not None:
        dense = replace(dense, times={name: device.own_ms(name) for name in dense.val})
    meter = Meter(dense, plan.latency, plan.runtime, folder.path, plan.seed, shape, device)
    return Workshop(case, folder, meter, trainers, alone)


def planner_for(
    case: Case, folder: ShrinkFolder, pace: Pace, trainers: Trainers | None = None
) -> Planner:
    """Makes and measures the model's own files, and returns what plans its nets.

    Args:
        case: The model.
        folder: Where nets and files go.
        pace: Of the budget.
        trainers: Who trains nets; None: this process.

    Raises:
        FeasibleError: The model is no better than guessing, or below the quality asked for.
        InputError: A memory is the goal, and that of the model cannot be read off.
        RunFailed: There is no file without rounding.
    """
    shop, plan = workshop_for(case, folder, trainers), case.plan
    dense = shop.meter.dense
    bar = Bar.of(plan.goal, dense, case.work.data)
    if plan.goal.peak_memory is not None:
        arena_bytes(folder.path / dense.file)  # raises where it cannot be read off
    margin = LATENCY_MARGIN
    if case.device is not None:
        error = device_error(case.device, plan, shop.fitter.coupling)
        margin = LATENCY_MARGIN if error is None else error
    limits = cost_limits(plan.goal, dense, shop.counted, margin)
    LOG.info("goal: %s", goals_text(plan.goal, limits, bar))
    if plan.goal.budget is not None and not plan.goal.no_train:
        pace.probe(case.model, case.work)
    return Planner(shop, limits, bar, pace, [*case.notes, *dense.notes])


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

    case, dense = planner.shop.case, planner.shop.meter.dense
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
    teachers = " and ".join(teacher.path.stem for teacher in case.dense.teachers.each)
    return replace(
        record,
        compressed=case.name if net.whole else net.name,
        teacher=teachers if any(record.each.values()) else "",
        val={**record.val, "pruned": net.val[format]},
        channels=net.channels,
        best_epoch=net.best_epoch,
        epochs=net.epochs,
        finetuned=net.epochs,
    )


def _artifacts(planner: Planner, nets: Sequence[Net], folder: RunFolder) -> list[Artifact]:
    """Judges the files by test data; they were made and judged by validation data before."""
    shop, dense = planner.shop, planner.shop.meter.dense
    work, name = shop.case.work, shop.case.name
    whole = Variant(shop.model, name, name, "dense", val=dense.val)
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

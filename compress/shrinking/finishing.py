"""The end of the way: all files judged by test data, timed against each other, one shipped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.core.atomic_files import read_json, write_json
from compress.measure.latency_record import Latency
from compress.model.inference import left_out
from compress.pipeline.files import Variant, artifacts_of, with_baseline
from compress.pipeline.timing import measure_stage
from compress.run.compressed import Artifact, Compressed
from compress.run.outcome import Outcome
from compress.run.trained import trained_for
from compress.shrinking.choosing import Judgement, chosen_file
from compress.shrinking.dense import FIRST
from compress.shrinking.goals import goals_text
from compress.shrinking.judging import exported
from compress.shrinking.net import Net
from compress.shrinking.ship import Shipped, ship

if TYPE_CHECKING:
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
    opened, folder = shop.opened, shop.folder
    name, work = opened.given.name, opened.work
    if not folder.is_compressed(name):
        artifacts = _artifacts(planner, nets)
        best = max(nets, key=lambda net: net.best(planner.bar.metric))
        record = _record(planner, nets, artifacts, best, command, began, notes)
        folder.write_compressed(record)
    measure_stage(folder, work.plan, work.progress)
    (record,) = (item for item in folder.read_compressed() if item.model == name)
    files = record.files()
    times = {
        key: Latency.from_json(value, folder.latency)
        for key, value in read_json(folder.latency).items()
    }
    found = chosen_file(files, times, shop.meter.dense.ms, planner.limits, planner.bar)
    net = _net_of(found.chosen, nets)
    if found.used < 1 - UNUSED:
        notes = (*notes, _unused(found.used, net))
    small = found.chosen.id.rpartition(".")[0]
    channels = None if net is None else net.channels
    folder.write_compressed(replace(record, compressed=small, channels=channels))
    path = ship(folder.ship, _shipped(planner, found, net, files, times, notes), work.data, name)
    outcome = Outcome(
        goals_text(shop.plan.goal, planner.limits, planner.bar),
        found.met,
        found.chosen.id,
        found.lines,
        folder.relative(path),
        notes,
    )
    write_json(folder.outcome, outcome.to_json())
    return outcome


def _unused(used: float, net: Net | None) -> str:
    """Says why a file is much smaller or faster than was asked for."""
    why = (
        "its format alone meets the goal, so that nothing left"
        if net is None or net.whole
        else f"widths come in steps, and none of the {net.rounds} choices whose files were "
        "measured came nearer"
    )
    return f"the file uses {used:.0%} of what the goal allows: {why}"


def _artifacts(planner: Planner, nets: Sequence[Net]) -> list[Artifact]:
    """Judges the files by test data; they were made and judged by validation data before."""
    shop, dense = planner.shop, planner.shop.meter.dense
    work, folder, name = shop.opened.work, shop.folder, shop.opened.given.name
    whole = Variant(shop.model, name, name, "dense", val=dense.val)
    found = artifacts_of(whole, exported(name, dense.checks, folder), work, folder)
    for net in nets:
        if not net.whole:
            small = Variant(shop.model_of(net), net.name, name, "pruned", val=net.val)
            found += artifacts_of(small, exported(net.name, net.checks, folder), work, folder)
    return with_baseline(found, work.plan)


def _record(
    planner: Planner,
    nets: Sequence[Net],
    artifacts: Sequence[Artifact],
    best: Net,
    command: str,
    began: float,
    notes: tuple[str, ...],
) -> Compressed:
    from compress.prune.weights import WeightReport

    shop = planner.shop
    opened = shop.opened
    format = max(best.val, key=lambda kind: best.quality(kind, planner.bar.metric))
    before = trained_for(opened.given.path)
    teachers = " and ".join(teacher.path.stem for teacher in opened.dense.teachers.each)
    return Compressed(
        model=opened.given.name,
        compressed=best.name,
        teacher=teachers if any(net.epochs for net in nets) else "",
        val={"dense": shop.meter.dense.val[FIRST], "pruned": best.val[format]},
        weights=WeightReport((), ()).to_json(),
        best_epoch=best.epochs,
        epochs=best.epochs,
        command=command,
        seconds=time.monotonic() - began,
        device=opened.work.device.describe(),
        notes=(*notes, *left_out(shop.model)),
        artifacts=tuple(item.to_json() for item in artifacts),
        val_learnt=opened.val_learnt,
        finetuned=best.epochs,
        dense_epochs=before.epochs,
        dense_begun=before.begun,
    )


def _net_of(artifact: Artifact, nets: Sequence[Net]) -> Net | None:
    """Returns the net that a file is of; None: the model as it is."""
    stem = artifact.id.rpartition(".")[0]
    return next((net for net in nets if net.name == stem), None)


def _shipped(
    planner: Planner,
    found: Judgement,
    net: Net | None,
    files: Sequence[Artifact],
    times: dict[str, Latency],
    notes: tuple[str, ...],
) -> Shipped:
    shop, chosen = planner.shop, found.chosen
    dense = next(item for item in files if item.variant == "dense" and item.format == FIRST)
    steps = ["nothing was removed: the format alone does it"]
    if net is not None and not net.whole:
        groups = (net.channels or {})["groups"]
        kept, total = (sum(row[key] for row in groups) for key in ("kept", "total"))
        left = f", and {len(net.dropped)} residual block(s) left" if net.dropped else ""
        steps = [
            f"channels: {kept:,} of {total:,} stay in {len(groups)} groups{left}, chosen by what "
            "the outputs lose",
            f"repaired on {shop.plan.repair:,} unlabelled training examples"
            if shop.plan.repair
            else "not repaired",
            f"fine-tuned for {net.epochs} epochs, taught by the original"
            if net.epochs
            else "not fine-tuned",
        ]
    if chosen.format != FIRST:
        steps.append(f"stored as {chosen.format}, after training")
    model = shop.model if net is None else shop.model_of(net)
    return Shipped(
        shop.folder.path / chosen.file, model, dense, chosen, times, found.lines, tuple(steps),
        notes,
    )  # fmt: skip

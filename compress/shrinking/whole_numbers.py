"""Files of whole numbers that nets are trained for, at the end of the way to a goal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.pipeline.files import Variant
from compress.pipeline.quantized import quantized_files
from compress.run.compressed import Artifact
from compress.run.directory import RunFolder
from compress.shrinking.net import Net

if TYPE_CHECKING:
    from compress.shrinking.planner import Planner

STARTS_FROM = "int8"
"""The format whose file says which net is worth it: both cost the same."""


def whole_number_files(planner: Planner, nets: Sequence[Net], folder: RunFolder) -> list[Artifact]:
    """Trains nets as their files of whole numbers compute, and judges these files.

    Where a goal says what one file must come to it is the net whose int8 file is the best; without
    a goal it is every net of the front.

    Args:
        planner: That made the nets; it is told what stays in floats.
        nets: At their last stage.
        folder: Of the record.
    """
    shop, metric = planner.shop, planner.bar.metric
    plan, work = shop.plan, shop.case.work
    if not plan.qat:
        return []
    if shop.meter.device is not None:
        planner.notes.append("no int8-qat file was made: there are no times of it on the device")
        return []
    found = [net for net in nets if STARTS_FROM in net.val]
    if not found:
        planner.notes.append(f"no int8-qat file was made: no net has an {STARTS_FROM} file")
    if plan.goal.costs or plan.goal.budget is not None or planner.bar.floor is not None:
        found = [max(found, key=lambda net: net.quality(STARTS_FROM, metric))] if found else []
    if plan.goal.no_train:
        work = replace(work, plan=replace(plan, quantize=replace(plan.quantize, epochs=0)))
    artifacts = []
    for net in found:
        name, kind = (shop.case.name, "dense") if net.whole else (net.name, "pruned")
        made, notes = quantized_files(
            Variant(shop.model_of(net), name, shop.case.name, kind),
            work,
            folder,
            shop.case.dense.teachers.each,
            shop.folder.unfinished(net.name),
        )
        artifacts += made
        planner.notes += notes
    return artifacts

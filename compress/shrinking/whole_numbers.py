"""Files of whole numbers that take minutes a net: trained as they compute, or mixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from compress.core.errors import InputError, TrainingDiverged
from compress.plan.output import MIXED, QAT
from compress.plan.target import SizeTarget, TimeTarget
from compress.run.compressed import Artifact
from compress.run.directory import LOG, RunFolder
from compress.shrinking.files import Variant, artifacts_of, judged_files, made_files
from compress.shrinking.goals import Bar
from compress.shrinking.net import Net
from compress.shrinking.prune_and_train import Tuner

if TYPE_CHECKING:
    from compress.shrinking.planner import Planner

LOST = 1.0
"""Points that rounding alone may take before it is told,"""
TOLD = 3
"""and of how many nets."""
STARTS_FROM = "int8"
"""The format whose file says which net is worth it: both cost the same."""


def whole_number_files(planner: Planner, nets: Sequence[Net], folder: RunFolder) -> list[Artifact]:
    """Trains nets as their files of whole numbers compute, chooses precisions, judges the files.

    Where a goal says what one file must come to it is the net whose int8 file is the best; without
    a goal it is every net of the front.

    Args:
        planner: That made the nets; it is told what stays in floats.
        nets: At their last stage.
        folder: Of the record.
    """
    plan = planner.shop.case.plan
    found: list[Artifact] = []
    if plan.qat:
        for net in _worth_it(planner, nets, QAT):
            found += _trained(planner, net, folder)
    elif note := lost_to_rounding(planner.bar, nets, planner.shop.dense.first):
        planner.notes.append(note)
    if MIXED in plan.export.formats:
        for net in _worth_it(planner, nets, MIXED):
            found += _mixed(planner, net, folder)
    return found


def lost_to_rounding(bar: Bar, nets: Sequence[Net], first: str) -> str:
    """Says of which nets rounding alone takes more than a point, and what can be done; or nothing.

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
    """Returns the nets of which files of a format are made; none: the planner is told why."""
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
    return Variant(shop.model_of(net), name, shop.case.name, kind)


def _trained(planner: Planner, net: Net, folder: RunFolder) -> list[Artifact]:
    shop = planner.shop
    plan = shop.case.plan
    quantize = replace(plan.quantize, epochs=plan.qat_epochs)
    work = replace(shop.case.work, plan=replace(plan, quantize=quantize))
    tuner = Tuner(work, shop.case.teachers, shop.folder.unfinished(net.name))
    made, notes = quantized_files(_variant(planner, net), tuner, folder)
    planner.notes += notes
    return made


def _mixed(planner: Planner, net: Net, folder: RunFolder) -> list[Artifact]:
    """Chooses precisions within the goal's size and latency, unless limits of their own are set."""
    shop = planner.shop
    plan, work = shop.case.plan, shop.case.work
    size, latency = (planner.limits.get(name) for name in ("size", "latency"))
    options = plan.export
    options = replace(
        options,
        mixed_size=options.mixed_size or (SizeTarget(size, False) if size else None),
        mixed_latency=options.mixed_latency or (TimeTarget(latency, False) if latency else None),
    )
    work = replace(work, plan=replace(plan, export=options))
    made, notes = judged_files(_variant(planner, net), work, folder, (MIXED,))
    planner.notes += notes
    return made


def quantized_files(
    variant: Variant, tuner: Tuner, folder: RunFolder
) -> tuple[list[Artifact], list[str]]:
    """Trains a model as its file of whole numbers computes, and exports and judges that file.

    Args:
        variant: The model in floats; it stays as it is.
        tuner: Trains it; data and plan (sections quantize, finetune, distill) are its.
        folder: The run's.

    Returns:
        The file, and what is worth a note: how it was trained, what stays in floats and why, or why
        there is none.
    """
    from compress.quantization.quantizing import HeldZeros, Quantizing
    from compress.quantization.twin import reasons, rows

    work, plan, options = tuner.work, tuner.work.plan, tuner.work.plan.quantize
    wanted = plan.trained_formats
    names = " and ".join(f"{variant.stem}.{kind}" for kind in wanted)
    how = "was calibrated, not trained"
    try:
        made = Quantizing(
            variant.model, work.data, options,
            formats=wanted, seed=plan.seed, on_progress=work.progress,
        )  # fmt: skip
        if options.epochs:
            own = replace(plan, finetune=options.recipe(plan.finetune))
            tuner = replace(tuner, work=replace(work, plan=own, own_step=None))
            with HeldZeros(made.student) as zeros:
                training, _, _ = tuner.tune(made.twin.model, "training whole numbers", [zeros])
            how = f"was trained for {len(training.history)} more epochs as the file computes"
    except (InputError, TrainingDiverged) as error:
        LOG.warning("%s was not made: %s", names, error)
        return [], [f"{names} was not made: {error}"]
    notes = [f"{names} {how}", *(f"{names}: {line}" for line in reasons(made.twin.placed))]
    files, refused = made_files(made.twin.served, variant.stem, work, folder, wanted)
    missing = [f"{variant.stem}.{kind} was not made: {why}" for kind, why in refused.items()]
    found = artifacts_of(replace(variant, val={}), files, work, folder)
    layers = rows(made.twin.placed, made.errors())
    return [replace(item, layers=layers) for item in found], [*notes, *missing]

"""Final steps of `shrink`: test metrics and latencies of all files, and the file to deploy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

from compress.core.atomic_files import read_json, write_json
from compress.core.errors import RunFailed
from compress.devices import DeviceTimes
from compress.exporting.mixed.search import MixedLimits
from compress.measure.file_agreement import can_ship_by_default
from compress.measure.footprint import try_measure_arena
from compress.measure.latency_record import Latency
from compress.measure.verdict import MET, Outcome, build_artifact_verdict, find_worst_state
from compress.model.layer_patches import describe_excluded_layers
from compress.plan.output import MIXED, QAT
from compress.prune.weights import WeightReport
from compress.run.compressed_model import (
    Artifact,
    CompressedModel,
    read_example_values,
    write_example_values,
)
from compress.run.directory import RunFolder
from compress.run.origin import read_training
from compress.shrinking.candidate import Candidate
from compress.shrinking.compression import save_graphs, write_decisions
from compress.shrinking.estimates import read_device_error
from compress.shrinking.file_choice import Measurements, RemoteTimes, choose_file
from compress.shrinking.file_evaluation import (
    Variant,
    assign_baseline,
    evaluate_artifacts,
    export_and_evaluate,
    measure_stage,
    restore_exported,
)
from compress.shrinking.goals import MetricConstraint, format_goals
from compress.shrinking.planner import Planner
from compress.shrinking.prune_and_train import FineTuner, quantize_and_evaluate
from compress.shrinking.ship import write_ship_folder

UNUSED = 0.1
"""Unused share of a goal above which the reason is noted."""
LOST = 1.0
"""Loss from rounding alone above which a note is written, in percentage points."""
MAX_LISTED = 3
"""Maximum number of candidates in this note."""
SELECTION_FORMAT = "int8"
"""Format whose files select the candidates for QAT and mixed precision: an int8-qat file costs the
same."""


def finish_shrink(
    planner: Planner, candidates: Sequence[Candidate], command: str, start_time: float
) -> None:
    """Evaluate all files on test data, time them, and write the ship folder of the best file.

    The best file is chosen on validation data.

    Args:
        planner: Planner that built the candidates.
        candidates: The candidates.
        command: Command shown in the report to repeat the run.
        start_time: Start of the work, by `time.monotonic`.

    Raises:
        RunFailed: The plan's runtime could not time the files.
    """
    builder, constraint, notes = (
        planner.builder,
        planner.constraint,
        list(dict.fromkeys(planner.notes)),
    )
    folder, job, context = builder.folder, builder.job, builder.job.context
    if not folder.is_compressed(job.name):
        record_files(planner, candidates, folder, command, start_time)
    measure_stage(folder, job.plan, context.on_progress)
    (record,) = (item for item in folder.read_compressed() if item.model == job.name)
    files = record.artifacts
    original = next(
        item
        for item in files
        if item.variant == "dense" and item.format == builder.original_files.first
    )
    measured = _read_measurements(planner, files, candidates)
    goal, limits = job.plan.goal, dict(planner.limits)
    if "latency" in goal.costs:  # limits for candidates are a margin below the target
        limits["latency"] = goal.costs["latency"].amount
    agreeing = [
        item
        for item in files
        if can_ship_by_default(
            context.data.task.name, item.agreement, item.checked, job.plan.export.formats
        )
    ]
    choice = choose_file(agreeing or files, original, measured, limits, constraint)
    chosen = choice.chosen
    verdict = build_artifact_verdict(folder, chosen, original, constraint.metric, constraint.limit)
    state = find_worst_state([choice.state, verdict.state])
    candidate = next(
        (item for item in candidates if item.name == chosen.id.rpartition(".")[0]), None
    )
    if measured.remote_times is not None:
        notes.append(_describe_device_times(measured.remote_times, job.device_times))
    if choice.used_share < 1 - UNUSED:
        reason = (
            "its format alone meets the goal, so that nothing was removed"
            if candidate is None or candidate.whole
            else f"channel counts come in steps, and none of the {candidate.rounds} choices whose "
            "files were measured came nearer"
        )
        notes.append(f"the file uses {choice.used_share:.0%} of what the goal allows: {reason}")
    if (
        constraint.limit is not None
        and chosen.id != original.id
        and not constraint.limit.can_be_proven(constraint.original, builder.read_original_values())
    ):
        notes.append(
            f"{len(context.data.val):,} validation examples are too few to show that a smaller "
            "file stays inside the limit: the best candidate ships"
        )
    lines = (verdict.line, *choice.lines)
    shown_candidate = candidate or builder.build_original(job.name, planner.formats)
    folder.write_compressed(describe_candidate(record, shown_candidate, planner))
    path = write_ship_folder(
        folder,
        job.model if candidate is None else builder.read_model(candidate),
        original,
        chosen,
        measured,
        context.data,
        {"lines": lines, "steps": _describe_steps(planner, chosen, candidate), "notes": notes},
        runtime=job.plan.runtime,
        threads=job.plan.latency.threads,
    )
    write_json(
        folder.outcome,
        Outcome(
            format_goals(goal, planner.limits, constraint),
            state == MET,
            chosen.id,
            lines,
            folder.to_relative(path),
            tuple(notes),
            verdict,
            state,
        ).to_json(),
    )


def record_files(
    planner: Planner,
    candidates: Sequence[Candidate],
    folder: RunFolder,
    command: str,
    start_time: float,
) -> CompressedModel:
    """Evaluate all files on test data, once, and write their record.

    Args:
        planner: Planner that built the candidates.
        candidates: The candidates.
        folder: Folder of the record; paths in the record are relative to it.
        command: Command shown in the report to repeat the run.
        start_time: Start of the work, by `time.monotonic`.

    Returns:
        The record, as written.
    """
    job, original_files = planner.builder.job, planner.builder.original_files
    best = max(candidates, key=lambda net: net.get_best(planner.constraint.metric))
    save_graphs(
        folder,
        job.name,
        job.model,
        planner.builder.read_model(best),
        job.context.data,
        best.layer_ms,
    )
    past_training = read_training(job.path)
    # first, because this may add notes
    artifacts = _evaluate_candidates(planner, candidates, folder)
    base_record = CompressedModel(
        model=job.name,
        teacher="",
        val={"dense": original_files.val[original_files.first], "pruned": {}},
        weights=WeightReport((), ()).to_json(),
        best_epoch=0,
        epochs=0,
        command=command,
        seconds=time.monotonic() - start_time,
        device=job.context.device.describe(),
        notes=(*dict.fromkeys(planner.notes), *describe_excluded_layers(job.model)),
        artifacts=tuple(artifacts),
        dense_epochs=past_training.epochs,
        dense_begun=past_training.is_continued,
        each={candidate.name: candidate.epochs for candidate in candidates if not candidate.whole},
    )
    record = describe_candidate(base_record, best, planner)
    folder.write_compressed(record)
    return record


def describe_candidate(
    record: CompressedModel, candidate: Candidate, planner: Planner
) -> CompressedModel:
    """Return the record with the details of the candidate that is shown as the compressed model.

    Args:
        record: Record of the original model and all files.
        candidate: The candidate.
        planner: Planner that built it.
    """
    job, metric = planner.builder.job, planner.constraint.metric
    format = max(candidate.val, key=lambda kind: candidate.get_metric(kind, metric))
    return replace(
        record,
        compressed=job.name if candidate.whole else candidate.name,
        teacher=job.teacher_names if any(record.each.values()) else "",
        val={**record.val, "pruned": candidate.val[format]},
        channels=candidate.channels,
        best_epoch=candidate.best_epoch,
        epochs=candidate.epochs,
        finetuned=candidate.epochs,
    )


def _evaluate_candidates(
    planner: Planner, candidates: Sequence[Candidate], folder: RunFolder
) -> list[Artifact]:
    """Evaluate all files on test data; their validation metrics are known."""
    builder, original_files = planner.builder, planner.builder.original_files
    job, context = builder.job, builder.job.context
    original = Variant(job.model, job.name, job.name, "dense", val=original_files.val)
    artifacts = evaluate_artifacts(
        original, restore_exported(job.name, original_files.checks, builder.folder), context, folder
    )
    for candidate in candidates:
        if not candidate.whole:
            artifacts += evaluate_artifacts(
                _build_variant(planner, candidate),
                restore_exported(candidate.name, candidate.checks, builder.folder),
                context,
                folder,
            )
    if folder.path != builder.folder.path:  # the folder of a run over several models
        for item in artifacts:
            values = read_example_values(builder.folder, item.id, "val")
            if values is not None:
                write_example_values(folder, item.id, "val", values)
    artifacts += build_integer_files(planner, candidates, folder)
    artifacts = assign_baseline(artifacts, context.plan)
    write_decisions(folder, artifacts, context.data)
    return artifacts


def _read_measurements(
    planner: Planner, files: Sequence[Artifact], candidates: Sequence[Candidate]
) -> Measurements:
    """Return the latencies, arena sizes, and estimated latencies on the device of all files."""
    folder, plan = planner.builder.folder, planner.builder.job.plan
    path = folder.get_latency_path(plan.runtime)
    timed = read_json(path)
    if "skipped" in timed:
        raise RunFailed(f"The files could not be timed: {timed['skipped']}")
    sizes = {item.id: try_measure_arena(folder.path / item.file) for item in files}
    values = {item.id: read_example_values(folder, item.id, "val") for item in files}
    costs = plan.goal.costs
    return Measurements(
        {key: Latency.from_json(value, path) for key, value in timed.items()},
        {key: size for key, size in sizes.items() if size is not None},
        "latency" in costs and costs["latency"].relative,
        _collect_device_times(planner, candidates),
        {
            key: example_values
            for key, example_values in values.items()
            if example_values is not None
        },
    )


def _collect_device_times(planner: Planner, candidates: Sequence[Candidate]) -> RemoteTimes | None:
    """Return the latencies on a remote device, or None if the latency is of this machine."""
    job, original_files = planner.builder.job, planner.builder.original_files
    if job.device_times is None:
        return None
    original_times = {f"{job.name}.{kind}": ms for kind, ms in original_files.times.items()}
    candidate_times = {
        f"{candidate.name}.{kind}": ms
        for candidate in candidates if not candidate.whole
        for kind, ms in candidate.device_ms.items()
    }  # fmt: skip
    return RemoteTimes(
        job.device_times.device,
        original_files.ms,
        {**candidate_times, **original_times},
        frozenset(original_times),
        read_device_error(job),
    )


def _describe_device_times(times: RemoteTimes, device: DeviceTimes | None) -> str:
    """Describe the source and the error of latencies on a remote device."""
    assert device is not None
    error = (
        "no whole model was timed there to compare with"
        if times.error is None
        else f"for whole models that were held out the estimate was {100 * times.error:.1f} % off "
        "on average"
    )
    return (
        f"times on {device.device} ({device.tool}, {device.date}) are estimated from files of "
        f"single calls; {error}. Time the file there before you rely on it"
    )


def _describe_steps(planner: Planner, chosen: Artifact, candidate: Candidate | None) -> list[str]:
    """Describe the steps that produced the deployed file, for its model card."""
    job = planner.builder.job
    steps = ["nothing was removed: the format alone does it"]
    if candidate is not None and not candidate.whole:
        report = candidate.channels or {}
        groups, repair = report["groups"], report["repair"]
        kept, total = (sum(row[key] for row in groups) for key in ("kept", "total"))
        removed_text = (
            f", and {len(candidate.dropped)} residual block(s) removed" if candidate.dropped else ""
        )
        training_text = f", distilled from {job.teacher_names}" if job.teachers else ", by labels"
        steps = [
            f"channels: {kept:,} of {total:,} kept in {len(groups)} groups{removed_text}, chosen "
            "by what the outputs lose",
            f"repaired on {repair['examples']:,} unlabelled training examples"
            if repair
            else "not repaired",
            f"fine-tuned for {candidate.epochs} epochs{training_text}"
            if candidate.epochs
            else "not fine-tuned",
        ]
    if chosen.format == QAT:
        epochs = job.plan.qat_epochs
        qat_text = f"trained for {epochs} more epochs" if epochs else "calibrated"
        steps.append(f"{qat_text} as the file computes in integers ({QAT})")
    elif chosen.format != planner.builder.original_files.first:
        steps.append(f"stored as {chosen.format}, after training")
    return steps


def build_integer_files(
    planner: Planner, candidates: Sequence[Candidate], folder: RunFolder
) -> list[Artifact]:
    """Build files with QAT and with mixed precision, and evaluate them.

    With a goal for the file or a time budget, they are built from the candidate with the best int8
    file; otherwise from every candidate of the Pareto front. With latencies on a remote device none
    is built.

    Args:
        planner: Planner that built the candidates; notes on float operations are added to it.
        candidates: Candidates at their last stage.
        folder: Folder of the record.
    """
    builder, plan = planner.builder, planner.builder.job.plan
    artifacts: list[Artifact] = []
    if plan.uses_qat:
        quantize = replace(plan.quantize, epochs=plan.qat_epochs)
        context = replace(builder.job.context, plan=replace(plan, quantize=quantize))
        for candidate in _select_candidates(planner, candidates, QAT):
            tuner = FineTuner(
                context, builder.job.teachers, builder.folder.get_unfinished_path(candidate.name)
            )
            new_artifacts, notes = quantize_and_evaluate(
                _build_variant(planner, candidate), tuner, folder
            )
            artifacts += new_artifacts
            planner.notes += notes
    elif note := describe_rounding_loss(
        planner.constraint, candidates, planner.builder.original_files.first
    ):
        planner.notes.append(note)
    if MIXED in plan.export.formats:
        limits = MixedLimits(planner.limits.get("size"), planner.limits.get("latency"))
        for candidate in _select_candidates(planner, candidates, MIXED):
            new_artifacts, notes = export_and_evaluate(
                _build_variant(planner, candidate), builder.job.context, folder, (MIXED,), limits
            )
            artifacts += new_artifacts
            planner.notes += notes
    return artifacts


def describe_rounding_loss(
    constraint: MetricConstraint, candidates: Sequence[Candidate], first: str
) -> str:
    """Return a note on candidates that lose more than `LOST` by rounding alone, or "".

    Args:
        constraint: Constraint on the selection metric.
        candidates: Candidates at their last stage.
        first: The float format.
    """
    losses = [
        (
            constraint.compute_drop(candidate.get_metric(SELECTION_FORMAT, constraint.metric))
            - constraint.compute_drop(candidate.get_metric(first, constraint.metric)),
            candidate.name,
        )
        for candidate in candidates
        if {SELECTION_FORMAT, first} <= candidate.val.keys()
    ]
    lost = sorted((item for item in losses if item[0] > LOST), reverse=True)
    if not lost:
        return ""
    listed = ", ".join(f"{name} ({points:.1f} pp)" for points, name in lost[:MAX_LISTED])
    more = f" and {len(lost) - MAX_LISTED} more" if len(lost) > MAX_LISTED else ""
    return (
        f"rounding alone makes {SELECTION_FORMAT} files worse by validation {constraint.metric}: "
        f"{listed}{more}. "
        f"Format {QAT} (--formats) fine-tunes the best model with {SELECTION_FORMAT} arithmetic "
        "simulated"
    )


def _select_candidates(
    planner: Planner, candidates: Sequence[Candidate], format: str
) -> list[Candidate]:
    """Return the candidates to export in a format; if there are none, note the reason."""
    builder, metric = planner.builder, planner.constraint.metric
    goal = builder.job.plan.goal
    if builder.job.device_times is not None:
        planner.notes.append(f"no {format} file was made: there are no times of it on the device")
        return []
    quantizable = [candidate for candidate in candidates if SELECTION_FORMAT in candidate.val]
    if not quantizable:
        planner.notes.append(f"no {format} file was made: no model has an {SELECTION_FORMAT} file")
        return []
    if goal.costs or goal.budget is not None or planner.constraint.floor is not None:
        return [max(quantizable, key=lambda net: net.get_metric(SELECTION_FORMAT, metric))]
    return quantizable


def _build_variant(planner: Planner, candidate: Candidate) -> Variant:
    builder = planner.builder
    name = builder.job.name if candidate.whole else candidate.name
    pruned_kind = "tuned" if candidate.channels is None else "pruned"
    kind = "dense" if candidate.whole else pruned_kind
    return Variant(builder.read_model(candidate), name, builder.job.name, kind, val=candidate.val)

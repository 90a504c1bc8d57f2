"""Shrinking of a model to a goal (`shrink`), with the file to deploy as the result."""

from __future__ import annotations

import hashlib
import shutil
import time as clock
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from compress.core.arguments import check_arguments
from compress.core.errors import FeasibleError, InputError
from compress.core.summary import DisplayableResult, OnProgress, Summary, ignore_progress
from compress.measure.verdict import Outcome
from compress.model.copies import convert_to_float32
from compress.model.io import load_model, save_model
from compress.plan.keywords import SHRINK
from compress.plan.nesting import from_nested
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels.selection.target import check_feasible
from compress.run.compressed_model import CompressedModel
from compress.run.directory import RunFolder
from compress.run.records import read_record
from compress.shrinking.candidate import ShrinkFolder
from compress.shrinking.candidate_builder import TrainerPool
from compress.shrinking.compression_job import CompressionJob
from compress.shrinking.estimates import load_device_times
from compress.shrinking.final_evaluation import finish_shrink, record_files
from compress.shrinking.job_runner import UserData, run_on_model
from compress.shrinking.planner import build_planner
from compress.shrinking.recipes import read_recipe, save_recipe
from compress.shrinking.time_budget import TimeBudget

if TYPE_CHECKING:
    import keras

    from compress.plan.settings import ShrinkSettings
    from compress.report import Report


@check_arguments(
    keywords=("latency", "size", "peak_memory", "macs", "params"),
    label_argument="plan",
    options=SHRINK,
)
def shrink(
    model: keras.Model | str | Path,
    data: Any = None,
    plan: ShrinkPlan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    groups: Any = None,
    time: Any = None,
    recipe: str | Path | None = None,
    workers: TrainerPool | None = None,
    on_progress: OnProgress = ignore_progress,
    **settings: Unpack[ShrinkSettings],
) -> ShrinkResult:
    """Make a model meet a goal of size, latency or quality, and select the file to deploy.

    The steps: measure layer latencies, choose channel counts and blocks by output error per saved
    cost, reconstruct weights, fine-tune with the original as teacher, and measure every exported
    file.

    Args:
        model: A Keras model, or a `.keras` or `.h5` file.
        data: (x, y), a stream, a `Dataset` or a value of `--data`, see `as_dataset`; default: the
            data set that `plan.data` names. x alone is enough with `no_train`.
        plan: All other options; keywords override it.
        val: Validation data for arrays or a stream; default: split off with the seed.
        test: Test data for arrays or a stream; default: split off with the seed.
        groups: Group of each example, (n,), such as persons or recordings. A group is kept in one
            part of the split; see `as_dataset`.
        time: Time of each example, (n,), for a split by time; see `as_dataset`.
        recipe: Name of a recipe ("mobile-int8", "twice-as-fast", "untrained"), or a TOML file
            written by `ShrinkResult.save_recipe`. Keywords override it; it excludes `plan`.
        workers: Processes that train candidates in parallel: `paretune.Workers(4)`, or workers of
            a Ray cluster; default: this process, one candidate at a time. Without a budget the
            results are the same up to the order of floating-point sums; with a budget more
            candidates are tried.
        on_progress: Callback invoked with (current step, completed share in [0, 1]).
        **settings: The goal (`latency=0.5`, `size="200KB"`, `macs=0.25`, `params="1M"`,
            `max_drop=1.0`, `min_metric=0.92`; none: a Pareto front), `budget="30m"`,
            `no_train=True`, and the options of `paretune shrink` under the same names.

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The model, the file to deploy, whether the goal was met, and the report. A repeated call
        with the same plan reuses finished work.

    Raises:
        FeasibleError: No configuration meets the goal (before any training), or the model is no
            better than chance or below `min_metric`.
        InputError: The model, the data, the plan or the folder is invalid. Nothing has been
            written then.
        RunFailed: No file could be exported.

    Example:
        >>> small = shrink(
        ...     model, x, macs=0.5, no_train=True, formats=["float32"], round_to=2,
        ...     latency_budget=0.5, out=folder / "shrunk",
        ... )
        >>> small.met, small.file.suffix
        (True, '.tflite')

    Reference:
        Shen et al. 2022, "Structural Pruning via Latency-Saliency Knapsack": channel counts by
        saliency per latency. Here the output error is measured after weight reconstruction, latency
        on this machine, and the selection is corrected with the latency of its own file.
    """
    if recipe is not None:
        if plan is not None:
            raise InputError(f"recipe must stand without a plan. Received: {recipe} and a plan.")
        plan = from_nested(ShrinkPlan, read_recipe(recipe))
    plan = SHRINK.apply_to(plan or ShrinkPlan(), settings)
    if isinstance(data, (str, Path)):
        plan, data = replace(plan, data=replace(plan.data, source=str(data))), None
    if plan.goal.no_train:
        plan = replace(plan, finetune=replace(plan.finetune, epochs=0))
    timing = tuple(dict.fromkeys((plan.runtime, *plan.latency.runtimes)))
    plan = replace(plan, latency=replace(plan.latency, runtimes=timing))
    data_options: Mapping[str, Any] = SHRINK.sort_by_section(settings).get("data", {})
    user_data = UserData(data, val, test, data_options, groups, time)
    if workers is not None:
        workers.check(plan)

    def check_job(job: CompressionJob) -> dict[str, str]:
        check_feasible(job.coupling, job.plan.channels)
        job.device_times = load_device_times(job)
        table = job.plan.goal.latency_table
        return {} if table is None else {"times": hashlib.sha256(table.read_bytes()).hexdigest()}

    def shrink_job(job: CompressionJob, folder: ShrinkFolder, command: str) -> None:
        if folder.outcome.exists():
            return
        start_time, time_budget = (
            clock.monotonic(),
            TimeBudget.resume(job.plan.goal.seconds, folder.spent),
        )
        if time_budget.budget is not None:
            job.context = replace(
                job.context, on_progress=time_budget.record_progress(folder.spent, on_progress)
            )
        trainers_context = (
            nullcontext()
            if workers is None
            else workers.open_trainers(job, folder, data is not None)
        )
        with trainers_context as trainers:
            planner = build_planner(job, folder, time_budget, trainers)
            finish_shrink(planner, planner.run(), command, start_time)
            shutil.rmtree(folder.path / "unfinished", ignore_errors=True)

    job, folder, report = run_on_model(
        model, user_data, plan, ShrinkFolder, shrink_job, on_progress=on_progress, check=check_job
    )
    outcome = read_record(folder.outcome, Outcome)
    small = outcome.chosen.rpartition(".")[0]
    files = {
        row.artifact.format: folder.path / row.artifact.file
        for row in report.rows
        if row.artifact.id.rpartition(".")[0] == small
    }
    file = folder.path / outcome.file
    (keras_file,) = file.parent.glob("*.keras")
    return ShrinkResult(
        load_model(keras_file), file, outcome.met, folder.path, report, files, outcome, job.plan
    )


@dataclass(frozen=True, repr=False)
class ShrinkResult(DisplayableResult):
    """Result of `shrink`.

    Attributes:
        model: Keras model of the deployed file.
        file: The file to deploy, in `folder / "ship"`.
        met: Whether the goal was met beyond noise: on test data the whole interval of the drop is
            within the limit. `outcome.state` distinguishes "met within noise" from "missed".
        folder: Folder of all candidates, files, records and the report.
        report: Report with a row for every file, including the original's.
        files: Format -> exported file of the deployed model.
        outcome: The goal and the result.
        plan: Plan of the run.
    """

    model: keras.Model
    file: Path
    met: bool
    folder: Path
    report: Report
    files: dict[str, Path]
    outcome: Outcome
    plan: ShrinkPlan

    def build_summary(self) -> Summary:
        """Return the result screen: the verdict, the file to ship, and every file."""
        return self.report.build_summary()

    def save_recipe(self, path: str | Path) -> None:
        """Write the goal, the options and the selected format as a recipe for other models.

        Args:
            path: Path of the file, ending in .toml, for `recipe=` and `paretune shrink --recipe`.
        """
        save_recipe(self.plan, path, (self.outcome.chosen.rpartition(".")[2],))

    def save(self, path: str | Path) -> Path:
        """Copy the contents of ship/ to another folder and return the path of the file in it.

        Args:
            path: The folder; existing files with the same names are replaced.
        """
        target = Path(path)
        if target.resolve() != self.file.parent.resolve():
            shutil.copytree(self.file.parent, target, dirs_exist_ok=True)
        return target / self.file.name


def shrink_stage(job: CompressionJob, folder: RunFolder, command: str) -> CompressedModel:
    """Shrink one model to its plan's goal, and record files and metrics in a run's folder.

    Candidates and their files are in shrunk/<name>/ of the folder. A repeated call resumes
    interrupted work. A model that cannot meet the goal is recorded unchanged, with the reason.
    Latencies for the selection are measured here, possibly beside other work of the machine; those
    in the report are measured by `measure_stage`, while nothing else runs.

    Args:
        job: The model.
        folder: Folder of the run.
        command: Command shown in the report to repeat the run.

    Returns:
        The record, as written.

    Raises:
        FeasibleError: The model is no better than chance, or below the requested minimum.
        RunFailed: No file could be exported.
    """
    start_time = clock.monotonic()
    shrink_folder = ShrinkFolder(folder.path / "shrunk" / job.name)
    shrink_folder.remove_half_written()
    planner = build_planner(job, shrink_folder, TimeBudget(job.plan.goal.seconds))
    try:
        candidates = planner.run()
    except FeasibleError as error:
        planner.notes.append(f"nothing was removed: {error}")
        candidates = [planner.builder.build_original(job.name, planner.formats)]
    record = record_files(planner, candidates, folder, command, start_time)
    best = next(
        (candidate for candidate in candidates if candidate.name == record.compressed),
        candidates[0],
    )
    save_model(
        convert_to_float32(planner.builder.read_model(best)),
        folder.get_model_path(record.compressed_name),
    )
    shutil.rmtree(shrink_folder.path / "unfinished", ignore_errors=True)
    return record

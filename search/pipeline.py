"""The pipeline of a run: architecture search, compression of the Pareto front, report.

The search has five steps: 1. Define the space. 2. Sample. 3. Train and evaluate. 4. Update the
sampler, which sees every finished trial. 5. Repeat until the budget ends.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from compress.core import credentials, linux
from compress.core.arguments import check_arguments
from compress.core.errors import InputError, RunFailed
from compress.core.faults import convert_faults
from compress.core.memory_budget import use_budget
from compress.data.adapters import infer_name
from compress.data.dataset import share_dataset
from compress.model.io import load_model
from compress.plan import OPTIMIZERS
from compress.plan.conversion import format_value
from compress.plan.keywords import Keywords
from compress.plan.nesting import build_command_words, fill_open_fields, from_nested
from compress.run.directory import LOG, run_in_own_folder
from compress.run.logs import open_logs
from compress.run.origin import write_data_record, write_examples
from compress.shrinking.compression_job import load_teachers
from compress.shrinking.file_evaluation import measure_stage
from compress.shrinking.job_runner import check_augment_and_weights, check_environment, resolve_task
from compress.shrinking.ship import ship_selected_file
from search.engines import Display, Engine, PoolSettings, WorkerRequest
from search.engines.jobs import compress_front, search_front, train_front
from search.engines.scheduled_jobs import limit_timing, run_scheduled
from search.engines.worker import WORKERS_LOCK
from search.plan import RUN, RUN_SEARCH, FinalOptions, SearchPlan
from search.plan.search import DEFAULT_OBJECTIVES
from search.plugins import ENGINES, SAMPLERS
from search.report import SearchReport, load_report, render
from search.study.checks import (
    check_compression,
    check_data_leakage,
    check_limits,
    fit_training,
    load_run_data,
)
from search.study.directory import SearchFolder
from search.study.events import create_log_sources
from search.study.storage import open_storage
from search.study.warm_start import find_sources, read_replayed

if TYPE_CHECKING:
    from search.plan.settings import RunSettings


@check_arguments(keywords=("trials", "epochs"), label_argument="plan", options=RUN_SEARCH)
def run_search(
    data: Any = None,
    plan: SearchPlan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    groups: Any = None,
    time: Any = None,
    display: Display | None = None,
    **settings: Unpack[RunSettings],
) -> SearchReport:
    """Search architectures and report the Pareto front, without compression.

    Args:
        data: A value of `--data` (a name, a folder, a file, "package.module:function"),
            (x, y), a stream or a `Dataset`, see `as_dataset`. Default: the data of the plan.
        plan: The plan of the search; keywords override its values.
        val: The validation part, with arrays or a stream; default: split off by seed.
        test: The test part, with arrays or a stream; default: split off by seed.
        groups: Group of each example, (n,), such as persons or recordings. A group is never split
            between parts; see `as_dataset`.
        time: Time of each example, (n,), for a split by time; see `as_dataset`.
        display: Display of the progress.
        **settings: Every option of `paretune search` by its name there: space, trials, epochs,
            max_macs, objectives, out (default `runs/<data>-<space>`), ...

    Shapes:
        x: (n, ...), as the models take it; y: see `as_dataset`.

    Returns:
        The report. A second call with the same plan (or more trials) resumes the search.

    Raises:
        InputError: The plan, the data or the folder break a rule. Nothing has been written
            in that case.
        RunFailed: No candidate could be trained, or a model of the front could not be
            compressed (the report is written in that case).

    Example:
        >>> report = run_search(
        ...     (x, y), space="mlp", trials=2, epochs=1, workers=1, out=folder / "found"
        ... )
        >>> (folder / "found" / "report.html").is_file()
        True

    Reference:
        docs/results/search.md describes the samplers and rules, and their measured savings.
    """
    parts = {"val": val, "test": test, "groups": groups, "time": time}
    return _run(RUN_SEARCH, "search", data, plan, parts, display, settings)


@check_arguments(keywords=("trials", "epochs"), label_argument="plan", options=RUN)
def run(
    data: Any = None,
    plan: SearchPlan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    groups: Any = None,
    time: Any = None,
    display: Display | None = None,
    **settings: Unpack[RunSettings],
) -> SearchReport:
    """Search architectures, compress the whole Pareto front, measure every file and report.

    Args:
        data: A value of `--data`, arrays, a stream or a `Dataset`; see `run_search`.
        plan: The plan of the search and of the compression; keywords override its values.
        val: The validation part, with arrays or a stream; default: split off by seed.
        test: The test part, with arrays or a stream; default: split off by seed.
        groups: Group of each example, (n,), such as persons or recordings. A group is never split
            between parts; see `as_dataset`.
        time: Time of each example, (n,), for a split by time; see `as_dataset`.
        display: Display of the progress.
        **settings: Every option of `paretune run` by its name there: space, trials, max_macs,
            channels, sparsity, formats, out, ...; or a goal for each model of the front, as in
            `shrink`: `latency=0.5, max_drop=1`.

    Shapes:
        x: (n, ...), as the models take it; y: see `as_dataset`.

    Returns:
        The report. A second call with the same plan (or more trials) resumes the run.

    Raises:
        InputError, RunFailed: See `run_search`.

    Example:
        >>> report = run(
        ...     (x, y), space="mlp", trials=2, epochs=1, finetune_epochs=2, workers=1,
        ...     latency_budget=0.5, max_macs=4e6, out=folder / "all",
        ... )
        >>> sorted({row.artifact.format for row in report.rows})
        ['float32', 'int8']

    Reference:
        docs/howto/search.md, "A whole run".
    """
    parts = {"val": val, "test": test, "groups": groups, "time": time}
    return _run(RUN, "run", data, plan, parts, display, settings)


def _run(
    keywords: Keywords,
    command: str,
    data: Any,
    plan: SearchPlan | None,
    parts: Mapping[str, Any],
    display: Display | None,
    settings: Mapping[str, Any],
) -> SearchReport:
    """Merge the data and keywords of a call into a plan, and execute it."""
    if isinstance(data, SearchPlan):
        raise InputError(
            f"{command}() must be given a plan by its keyword. Received: a plan as data. Write "
            "plan=."
        )
    plan = keywords.apply_to(plan or SearchPlan(), settings)
    dataset_arguments: dict[str, Any] | None = None
    if data is not None and not isinstance(data, (str, Path)):
        dataset_arguments = {
            "data": data,
            **parts,
            **keywords.sort_by_section(settings).get("data", {}),
        }
        data = infer_name(data)
    elif any(part is not None for part in parts.values()):
        raise InputError(
            "val, test, groups and time must come with arrays or a stream. Received: data by name "
            "or path, which has parts of its own. Groups and times are named there: group_column, "
            "time_column."
        )
    if data is not None:
        plan = replace(plan, data=replace(plan.data, source=str(data)))
    with use_budget(plan.memory):

        def execute(out: Path) -> SearchReport:
            folder = SearchFolder(out)
            with folder.drop_if_refused():
                restored_plan = restore_plan(plan, folder)
                if plan.out is None and folder.plan_path.exists():
                    folder.check_claim(command, restored_plan)
                return _execute_plan(
                    restored_plan, folder, command, display or Display(), dataset_arguments
                )

        return run_in_own_folder(plan.out, build_default_folder(plan), execute)


def build_default_folder(plan: SearchPlan) -> str:
    """Return the default folder of a run, named after its data and space, without a number."""
    source = plan.data.source
    exists = Path(source).exists()
    name = Path(source).resolve().stem if exists else re.sub("[:/]", "-", source)
    return f"runs/{name}-{plan.search.space.replace(':', '-')}"


def restore_plan(plan: SearchPlan, folder: SearchFolder) -> SearchPlan:
    """Return the plan with the name of its sampler and the stored settings of an existing run.

    Fields that the plan leaves open, such as the metric or the channel criterion, keep the values
    with which the run was started; so do the epochs of a run with a time budget, which limits their
    number and their examples, and its optimizers.

    Args:
        plan: The plan of the command.
        folder: The folder of the run, which may be new.
    """
    epochs, optimizers = plan.search.epochs, plan.search.optimizers
    if folder.plan_path.exists():
        stored = from_nested(SearchPlan, folder.read_plan_record()["plan"])
        plan = fill_open_fields(plan, stored)
        is_same = plan.search.resolved_objectives == stored.search.resolved_objectives
        if is_same and plan.goal.budget is None:  # the default cost may be named
            plan = replace(plan, search=replace(plan.search, objectives=stored.search.objectives))
        if plan.goal.budget is not None:
            epochs = min(epochs, stored.search.epochs)
            if optimizers == OPTIMIZERS:
                optimizers = stored.search.optimizers
            examples = plan.finetune.epoch_examples or stored.finetune.epoch_examples
            plan = replace(plan, finetune=replace(plan.finetune, epoch_examples=examples))
    search = replace(
        plan.search, sampler=plan.search.sampler_name, epochs=epochs, optimizers=optimizers
    )
    return replace(plan, search=search)


def _execute_plan(
    plan: SearchPlan,
    folder: SearchFolder,
    command: str,
    display: Display,
    dataset_arguments: Mapping[str, Any] | None,
) -> SearchReport:
    """Check a plan and run all its stages in the folder; raise RunFailed if compression failed."""
    began = time.monotonic()
    space = plan.search.resolved_space
    check_environment(plan, folder, data=dataset_arguments is None, files=command == "run")
    if command == "search" and plan.goal.budget is not None:
        raise InputError(
            "budget must be left out in paretune search, which exports and prunes nothing. "
            f"Received: {plan.goal.budget:g} seconds. Give --max-minutes."
        )
    SAMPLERS.require_installed(plan.search.sampler_name)
    ENGINES.require_installed(plan.cluster.engine)
    engine: Engine = ENGINES[plan.cluster.engine]
    request = WorkerRequest.from_plan(plan)
    read_replayed(plan.search.warm_start)
    data = load_run_data(plan, dataset_arguments)
    if data.compiled:
        raise InputError(
            "A search must be evaluated with a task of its own: its workers know no compiled "
            "model. "
            f"Received: task {plan.data.task}. Give --task."
        )
    plan = resolve_task(plan, data)
    if plan.search.objectives == DEFAULT_OBJECTIVES and "accuracy" not in data.task.qualities:
        plan = replace(plan, search=replace(plan.search, objectives=data.task.qualities[:1]))
    find_sources(plan.search.warm_start, plan.search.space, plan.search.resolved_objectives, data)
    # workers must be allocated before teachers start TensorFlow
    workers = engine.allocate_workers(request)
    space.check(data)
    metric = plan.search.objectives[0]
    if metric not in data.task.qualities:
        raise InputError(
            f"objectives must begin with a quality of the {data.kind} task: "
            f"{', '.join(data.task.qualities)}. Received: {metric}."
        )
    notes = check_data_leakage(plan, data)
    check_augment_and_weights(plan, data)
    teachers = load_teachers(plan.distill.teacher.files, data, plan)
    if command == "run":
        check_compression(plan, data, [teacher.model for teacher in teachers])
    check_limits(plan, data)
    threads = workers.threads
    if plan.goal.budget is not None and not folder.plan_path.exists() and not workers.gpus:
        plan = fit_training(plan, data, workers.count, threads)
    commands = _format_commands(plan, command, folder, threads)
    facts = {"data": data.fingerprint()}
    folder.check_claim(command, plan, facts)
    if plan.search.storage:
        open_storage(plan.search.storage, "storage")
    folder.claim(command, plan, facts, commands)
    logs = open_logs(plan, folder, create_log_sources(folder))
    with convert_faults(), folder.hold_lock(), folder.log_to_file(), logs:
        write_data_record(folder, data)
        write_examples(folder, data, teachers=plan.distill.teacher.files)
        LOG.info(
            "runs on %s: %d worker process(es) of %d thread(s); folder %s",
            workers.location, workers.count, threads, folder.path,
        )  # fmt: skip
        _wait_for_orphans(folder, fail_on_timeout=not engine.remote)
        folder.remove_half_written()
        environment = credentials.build_environment(plan.search.storage)
        if environment:
            LOG.info(
                "the storage's password is kept nowhere: to go on later, give it again, best in %s",
                credentials.PASSWORD_VARIABLE,
            )
        # data are shared whatever their size where workers cannot load them by name: data from
        # Python, data on another machine
        least_bytes = 0 if dataset_arguments is not None or engine.remote else None
        with (
            share_dataset(data, folder.shared, min_bytes=least_bytes) as (data, unshared),
            engine.open_pool(PoolSettings(folder, request, workers, environment)) as pool,
        ):
            if unshared and dataset_arguments is not None:
                raise RunFailed(
                    f"Data that were handed over must be written for the workers: {unshared}."
                )
            if unshared:
                LOG.info("each worker loads the data for itself: %s", unshared)
            if plan.goal.budget is None:
                search_front(folder, plan, data, pool, display)
            if plan.final.epochs:
                train_front(folder, plan, pool, display)
            # the number of threads changes the order of summation and so the results, and is
            # therefore part of the shown commands
            threaded_plan = replace(plan, threads=threads)
            if plan.goal.budget is not None:
                failures = run_scheduled(
                    folder, threaded_plan, data, pool, display, notes, commands["command"],
                    began, partial(render, folder.path),
                )  # fmt: skip
            else:
                failures = (
                    compress_front(folder, threaded_plan, pool, display, notes)
                    if command == "run"
                    else []
                )
        folder.remove_half_written()  # files of workers that were killed
        if command == "run":
            display.start_phase("Measuring latency", 0, 1, is_stepwise=True)
            measure_stage(
                folder,
                limit_timing(plan),
                lambda text, share: display.update_worker(0, text, share),
            )
            display.advance(1, 1)
            ship_selected_file(
                load_report(folder.path),
                folder,
                data,
                plan.latency.threads,
                lambda name: load_model(folder.get_shipped_path(name)),
            )
        report = render(folder.path)
        LOG.info("report: %s", folder.path / "report.html")
    if failures:
        raise RunFailed(
            f"The report is written, but compression failed for {'; '.join(failures)}. The same "
            "command tries these models again."
        )
    return report


def _format_commands(
    plan: SearchPlan, command: str, folder: SearchFolder, threads: int
) -> dict[str, str]:
    """Return commands by name: "command" repeats the run, "replay" candidate {id} alone."""
    words = build_command_words(plan)
    # the plan of one candidate alone: no warm start, no early stopping, no final training
    search = replace(
        plan.search,
        trials=1,
        workers=1,
        warm_start=(),
        max_minutes=None,
        trial_minutes=None,
    )
    single_plan = replace(plan, search=search, threads=threads, final=FinalOptions())
    candidate_file = format_value((f"{folder.candidates}/{{id}}.json",))
    replay_words = ["paretune", "search", "--warm-start", candidate_file]
    return {
        "command": shlex.join(["paretune", command, *words]),
        "replay": shlex.join([*replay_words, *build_command_words(single_plan)]),
    }


def _wait_for_orphans(folder: SearchFolder, *, fail_on_timeout: bool) -> None:
    """Wait until the workers of a killed run have ended (they end with their parent).

    Args:
        folder: The folder of the run.
        fail_on_timeout: Raise an error if they have not ended after 30 seconds. Workers on other
            machines are abandoned instead.
    """
    deadline = time.monotonic() + 30
    while linux.is_locked(folder.path / WORKERS_LOCK):
        if time.monotonic() > deadline:
            if not fail_on_timeout:
                LOG.info("workers of an earlier run still run somewhere: they are given up")
                return
            raise RunFailed(f"Workers of an earlier run still use '{folder.path}'. End them first.")
        time.sleep(0.2)

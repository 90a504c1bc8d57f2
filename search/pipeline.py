"""The five steps of architecture search, then compression of the front, then the report.

1. Define the space. 2. Sample. 3. Train and evaluate. 4. Update the strategy (the
sampler sees every finished trial). 5. Repeat until the budget ends.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core import credentials, linux
from compress.core.arguments import check_arguments
from compress.core.device import gpu_count
from compress.core.errors import InputError, RunFailed
from compress.core.faults import explained
from compress.core.memory_budget import use_budget
from compress.data.adapters import name_of
from compress.data.dataset import shared
from compress.plan.fields import command_words, fill_open_fields, from_nested
from compress.plan.keywords import Keywords
from compress.run.directory import LOG, run_in_own_folder
from compress.run.origin import write_data_record, write_examples
from compress.shrinking.case import load_teachers
from compress.shrinking.files import measure_stage
from compress.shrinking.job import check_training, logged, preflight, refuse_learnt, told
from search.engines import Demand, Display, Engine, Order
from search.engines.jobs import compress_front, search_front, train_finally
from search.engines.worker import WORKERS_LOCK
from search.plan import RUN, RUN_SEARCH, BudgetOptions, FinalOptions, SearchPlan
from search.plan.search import DEFAULT_OBJECTIVES
from search.plugins import ENGINES, SAMPLERS
from search.report import SearchReport, render
from search.spaces import Around
from search.study import study as studies
from search.study.checks import check_compression, check_limits, check_past, load_for_space
from search.study.costs import measure_parts, timed_space
from search.study.directory import SearchFolder
from search.study.events import keep_artifacts, search_sources
from search.study.recovery import forget, untried
from search.study.storage import open_storage
from search.study.warm_start import find_sources

if TYPE_CHECKING:
    from typing import Unpack

    from search.plan.settings import RunSettings


@check_arguments(keywords=("trials", "epochs"), labels="plan", options=RUN_SEARCH)
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
    """Search architectures and report the front; nothing is compressed.

    Args:
        data: What `--data` takes (a name, a folder, a file, "package.module:function");
            (x, y), a stream or a `Dataset`, see `as_dataset`. Default: what the plan names.
        plan: What is searched; keywords go over it.
        val: The validation part beside arrays or a stream; default: split off by seed.
        test: The test part, likewise.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        display: Shows progress.
        **settings: Every option of `paretune search` by its name there: space, trials, epochs,
            max_macs, objectives, out (default `runs/<data>-<space>`), ...

    Shapes:
        x: (n, ...), as models are fed; y: see `as_dataset`.

    Returns:
        The report. Called again with the same plan (or more trials), the search goes on
        where it was.

    Raises:
        InputError: The plan, the data or the folder break a rule; nothing has been
            written then.
        RunFailed: No candidate could be trained, or a model of the front could not be
            compressed (the report is written then).

    Example:
        >>> report = run_search(
        ...     (x, y), space="mlp", trials=2, epochs=1, workers=1, out=folder / "found"
        ... )
        >>> (folder / "found" / "report.html").is_file()
        True

    Reference:
        docs/search.md says what each sampler and rule is, and what it was measured to save.
    """
    parts = {"val": val, "test": test, "groups": groups, "time": time}
    return _run(RUN_SEARCH, "search", data, plan, parts, display, settings)


@check_arguments(keywords=("trials", "epochs"), labels="plan", options=RUN)
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
    """Search, compress the whole front, measure every file and report.

    Args:
        data: What `--data` takes, arrays, a stream or a `Dataset`; see `run_search`.
        plan: What is searched and how it is compressed; keywords go over it.
        val: The validation part beside arrays or a stream; default: split off by seed.
        test: The test part, likewise.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        display: Shows progress.
        **settings: Every option of `paretune run` by its name there: space, trials, max_macs,
            channels, sparsity, formats, out, ...

    Shapes:
        x: (n, ...), as models are fed; y: see `as_dataset`.

    Returns:
        The report. Called again with the same plan (or more trials), the run goes on where it
        was.

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
    """Put a call's data and keywords into a plan, and carry it out."""
    if isinstance(data, SearchPlan):
        raise InputError(
            f"{command}() must be given a plan by its keyword. Received: a plan as data. Write "
            "plan=."
        )
    plan = keywords.over(plan or SearchPlan(), settings)
    given: dict[str, Any] | None = None
    if data is not None and not isinstance(data, (str, Path)):
        given = {"data": data, **parts, **keywords.sorted(settings).get("data", {})}
        data = name_of(data)
    elif any(part is not None for part in parts.values()):
        raise InputError(
            "val, test, groups and time must come with arrays or a stream. Received: data by name "
            "or path, which has parts of its own. Groups and times are named there: group_column, "
            "time_column."
        )
    if data is not None:
        plan = replace(plan, data=replace(plan.data, source=str(data)))
    with use_budget(plan.memory):

        def work(out: Path) -> SearchReport:
            folder = SearchFolder(out)
            with folder.dropping_refused():
                own = begun_with(plan, folder)
                if plan.out is None and folder.plan_path.exists():
                    folder.check(command, own, untried=partial(untried, folder))
                return _carried_out(own, folder, command, display or Display(), given)

        return run_in_own_folder(plan.out, default_folder(plan), work)


def default_folder(plan: SearchPlan) -> str:
    """Return the folder of a run that names none, without a number: by its data and space."""
    source = plan.data.source
    known = Path(source).exists()
    name = Path(source).resolve().stem if known else re.sub("[:/]", "-", source)
    kind, _, rest = plan.search.space.partition(":")
    # of a model's path the name says enough
    words = [name, kind, Path(rest).stem if kind == "around" else rest]
    return f"runs/{'-'.join(filter(None, words))}"


def begun_with(plan: SearchPlan, folder: SearchFolder) -> SearchPlan:
    """Return the plan with its sampler by name: an existing run is resumed as it began.

    What the plan leaves open stays what it was: the metric, say, and how channels are ranked.
    """
    objectives = plan.search.objectives
    if folder.plan_path.exists():
        stored = from_nested(SearchPlan, folder.read_plan_record()["plan"])
        plan = fill_open_fields(plan, stored)
        if objectives == DEFAULT_OBJECTIVES:
            objectives = stored.search.objectives
    search = replace(plan.search, sampler=plan.search.strategy, objectives=objectives)
    return replace(plan, search=search)


def _carried_out(
    plan: SearchPlan,
    folder: SearchFolder,
    command: str,
    display: Display,
    given: Mapping[str, Any] | None,
) -> SearchReport:
    space = plan.search.made_space
    around = [space.path] if isinstance(space, Around) else []
    preflight(plan, folder, around, data=given is None, files=command == "run")
    if command == "run" and plan.final_models == 0:
        raise InputError(
            "final_models must be at least 1 in paretune run, which compresses them. Received: 0. "
            "paretune search ends with the front."
        )
    SAMPLERS.require_installed(plan.search.strategy)
    ENGINES.require_installed(plan.engine.name)
    engine: Engine = ENGINES[plan.engine.name]
    demand = Demand.of(plan)
    if plan.search.replay:
        studies.read_replay(plan.search.replay)
    if around:
        # before the model starts TensorFlow, which then stays as it is
        gpu_count(plan.device)
    data = load_for_space(plan, space, given)
    if data.compiled:
        raise InputError(
            "A search must be judged by a task of its own: its workers know no compiled model. "
            f"Received: task {plan.data.task}. Give --task."
        )
    plan = told(plan, data)
    if plan.search.objectives == DEFAULT_OBJECTIVES and "accuracy" not in data.task.qualities:
        objectives = (data.task.qualities[0], *DEFAULT_OBJECTIVES[1:])
        plan = replace(plan, search=replace(plan.search, objectives=objectives))
    find_sources(plan.search.warm_start, plan.search.space, plan.search.objectives, data)
    # before teachers start TensorFlow
    crew = engine.crew(demand)
    space.check(data)
    quality = plan.search.objectives[0]
    if quality not in data.task.qualities:
        raise InputError(
            f"objectives must begin with a quality of the {data.kind} task: "
            f"{', '.join(data.task.qualities)}. Received: {quality}."
        )
    past = check_past(plan, data, space)
    if plan.shrink_to is not None:
        refuse_learnt(past.val_learnt)
    check_training(plan, data)
    teachers = load_teachers(plan.distill.teacher.files, data, plan)
    if command == "run":
        check_compression(plan, data, [teacher.model for teacher in teachers])
    check_limits(plan, data)
    threads = crew.threads
    shown = _shown_commands(plan, command, folder, threads)
    facts = {"data": data.fingerprint(), **space.facts()}
    blank = partial(untried, folder)
    folder.check(command, plan, facts, blank)
    if plan.search.storage:
        open_storage(plan.search.storage, "storage")
    folder.claim(command, plan, facts, shown, blank, partial(forget, folder))
    logs = logged(plan, folder, search_sources(folder))
    with explained(), folder.locked(), folder.logging(), logs:
        write_data_record(folder, data)
        write_examples(folder, data, past.before, plan.distill.teacher.files)
        LOG.info(
            "runs on %s: %d worker process(es) of %d thread(s); folder %s",
            crew.place, crew.count, threads, folder.path,
        )  # fmt: skip
        _wait_for_orphans(folder, needed=not engine.remote)
        folder.clear()
        if timed_space(plan.search):
            display.phase("Timing layers", 0, 1, steps=True)
            # while no worker keeps the processor busy
            measure_parts(plan.search, folder, lambda text, share: display.worker(0, text, share))
            display.advance(1, 1)
        private = credentials.environment(plan.search.storage)
        if private:
            LOG.info(
                "the storage's password is kept nowhere: to go on later, give it again, best in %s",
                credentials.PASSWORD,
            )
        # what has no name cannot be loaded by workers; what a model's head tells of a file is
        # not looked for again; other machines have no such file
        least = 0 if given is not None or around or engine.remote else None
        with (
            shared(data, folder.shared, least_bytes=least) as (data, unshared),
            engine.pool(Order(folder, demand, crew, private)) as pool,
        ):
            if unshared and given is not None:
                raise RunFailed(
                    f"Data that were handed over must be written for the workers: {unshared}."
                )
            if unshared:
                LOG.info("each worker loads the data for itself: %s", unshared)
            search_front(folder, plan, data, pool, display)
            if plan.final_epochs:
                train_finally(folder, plan, pool, display)
            # shown commands name the threads: sums in another order are other sums
            same = replace(plan, threads=threads)
            failures = compress_front(folder, same, pool, display, past) if command == "run" else []
        folder.clear()  # of workers that were killed on the way
        if command == "run":
            display.phase("Measuring latency", 0, 1, steps=True)
            measure_stage(folder, plan, lambda text, share: display.worker(0, text, share))
            display.advance(1, 1)
        report = render(folder.path)
        try:  # for Optuna's dashboard; a run is complete without that
            keep_artifacts(studies.open_study(folder, plan), folder)
        except Exception as error:  # of a storage, of a disk
            LOG.info("note: the study got no artifacts: %s: %s", type(error).__name__, error)
        LOG.info("report: %s", folder.path / "report.html")
    if failures:
        raise RunFailed(
            f"The report is written, but compression failed for {'; '.join(failures)}. The same "
            "command tries these models again."
        )
    return report


def _shown_commands(
    plan: SearchPlan, command: str, folder: SearchFolder, threads: int
) -> dict[str, str]:
    words = command_words(plan)
    # one candidate alone: nothing to start from, nothing to stop it, nothing after it
    search = replace(plan.search, trials=1, replay=None, workers=1, warm_start=())
    final = FinalOptions(models=0) if search.no_train else FinalOptions()
    one = replace(plan, search=search, threads=threads, budget=BudgetOptions(), final=final)
    again = ["paretune", "search", "--replay", f"{folder.candidates}/{{id}}.json"]
    return {
        "command": shlex.join(["paretune", command, *words]),
        "replay": shlex.join([*again, *command_words(one)]),
    }


def _wait_for_orphans(folder: SearchFolder, *, needed: bool) -> None:
    """Wait until the workers of a killed run have ended (they end with their parent).

    Args:
        folder: The run's.
        needed: Fail where they do not. Those of other machines are given up without that.
    """
    deadline = time.monotonic() + 30
    while linux.is_shared(folder.path / WORKERS_LOCK):
        if time.monotonic() > deadline:
            if not needed:
                LOG.info("workers of an earlier run still run somewhere: they are given up")
                return
            raise RunFailed(f"Workers of an earlier run still use '{folder.path}'. End them first.")
        time.sleep(0.2)

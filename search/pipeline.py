"""The five steps of architecture search, then compression of the front, then the report.

1. Define the space. 2. Sample. 3. Train and evaluate. 4. Update the strategy (the
sampler sees every finished trial). 5. Repeat until the budget ends.
"""

from __future__ import annotations

import fcntl
import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from compress.data import Dataset, load_data
from compress.device import available_cores, gpu_count
from compress.errors import RunFailed
from compress.options import command_words, from_nested, to_nested
from compress.pipeline import check_teacher, command_line, measure_stage, write_data_record
from compress.plan import Plan
from compress.records import COMPLETE, FAILED, REJECTED, Candidate
from compress.report import Report, load_report, render
from compress.runfolder import LOG, RunFolder
from search import study as studies
from search.engines import Job, LocalPool, messages
from search.engines.worker import WORKERS_LOCK
from search.objective import candidate_id
from search.plan import SearchPlan
from search.spaces import SPACES

if TYPE_CHECKING:
    import optuna

MAX_WORKERS = 8
ORPHAN_SECONDS = 30.0


class Display(Protocol):
    """Shows how far a run is."""

    def phase(self, title: str, done: int, total: int) -> None:
        """Begins a phase of `total` jobs, `done` of which are finished."""
        ...

    def advance(self, done: int, total: int) -> None:
        """Says how many jobs of the phase are finished."""
        ...

    def worker(self, index: int, text: str, share: float) -> None:
        """Says what a worker does and how far it is, in [0, 1]; empty text: idle."""
        ...


class NoDisplay:
    """Shows nothing."""

    def phase(self, title: str, done: int, total: int) -> None:
        """Ignores it."""

    def advance(self, done: int, total: int) -> None:
        """Ignores it."""

    def worker(self, index: int, text: str, share: float) -> None:
        """Ignores it."""


def run_search(plan: SearchPlan, display: Display | None = None) -> Report:
    """Searches architectures and reports the front; nothing is compressed.

    Args:
        plan: What is searched; `plan.out` defaults to `runs/<data>-<space>`.
        display: Shows progress.

    Returns:
        The report. Called again with the same plan (or more trials), the search goes on
        where it was.

    Raises:
        InputError: The plan, the data or the folder break a rule; nothing has been
            written then.
        RunFailed: No candidate could be trained, or a model of the front could not be
            compressed (the report is written then).
    """
    return _run(plan, "search", display or NoDisplay())


def run(plan: SearchPlan, display: Display | None = None) -> Report:
    """Searches, compresses the whole front, measures every file and reports.

    Args, Returns, Raises: see `run_search`.
    """
    return _run(plan, "run", display or NoDisplay())


def default_folder(plan: SearchPlan) -> str:
    """Returns the folder of a run that names none: the same for the same data and space."""
    source = plan.data.source
    name = Path(source).resolve().stem if Path(source).exists() else source.replace(":", "-")
    return f"runs/{name}-{plan.search.space}"


def _run(plan: SearchPlan, command: str, display: Display) -> Report:
    gpus = gpu_count(plan.device)
    data = load_data(plan.data, seed=plan.seed)
    SPACES[plan.search.space].check(data)
    check_teacher(plan.distill.teacher, data)
    if plan.search.replay:
        studies.read_replay(Path(plan.search.replay))
    folder = RunFolder(plan.out or default_folder(plan))
    count, threads = worker_count(plan, gpus)
    shown = _shown_commands(plan, command, folder, threads)
    folder.claim(command, plan, {"data": data.fingerprint()}, shown)
    with folder.locked(), folder.logging():
        write_data_record(folder, data)
        place = f"{gpus} GPU(s)" if gpus else f"CPU, {available_cores()} cores"
        LOG.info(
            "runs on %s: %d worker process(es) of %d thread(s); folder %s",
            place, count, threads, folder.path,
        )  # fmt: skip
        _wait_for_orphans(folder)
        with LocalPool(folder, count, plan.device, threads, gpus) as pool:
            _search(folder, plan, data, pool, display)
            # shown commands name the threads: sums in another order are other sums
            same = replace(plan, threads=threads)
            failures = _compress_front(folder, same, pool, display) if command == "run" else []
        if command == "run":
            display.phase("Measuring latency", 0, 1)
            measure_stage(folder, plan, lambda text, share: display.worker(0, text, share))
            display.advance(1, 1)
        report = render(folder.path)
        LOG.info("report: %s", folder.path / "report.html")
    if failures:
        raise RunFailed(
            f"The report is written, but compression failed for {'; '.join(failures)}. The same "
            "command tries these models again."
        )
    return report


def worker_count(plan: SearchPlan, gpus: int) -> tuple[int, int]:
    """Returns the number of workers and the CPU threads of each.

    On the CPU small networks keep one core busy and two cores half busy, so there is a
    worker a core (8 at most; each holds TensorFlow and the data).
    """
    cores = available_cores()
    count = plan.search.workers or gpus or min(cores, MAX_WORKERS, plan.search.trials)
    return count, plan.threads or max(1, cores // count)


def _shown_commands(
    plan: SearchPlan, command: str, folder: RunFolder, threads: int
) -> dict[str, str]:
    words = command_words(plan)
    search = replace(plan.search, trials=1, replay="", workers=1)
    one = replace(plan, search=search, threads=threads)
    again = ["paretune", "search", "--replay", f"{folder.candidates}/{{id}}.json"]
    return {
        "command": shlex.join(["paretune", command, *words]),
        "replay": " ".join([*again, shlex.join(command_words(one))]),
    }


@contextmanager
def _flock(path: Path) -> Iterator[bool]:
    """Tries to take a lock that workers share; gives whether it was free."""
    with open(path, "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
            return
        yield True


def _wait_for_orphans(folder: RunFolder) -> None:
    """Waits until the workers of a killed run have ended (they end with their parent)."""
    deadline = time.monotonic() + ORPHAN_SECONDS
    while True:
        with _flock(folder.path / WORKERS_LOCK) as free:
            if free:
                return
        if time.monotonic() > deadline:
            raise RunFailed(f"Workers of an earlier run still use '{folder.path}'. End them first.")
        time.sleep(0.2)


def _search(
    folder: RunFolder, plan: SearchPlan, data: Dataset, pool: LocalPool, display: Display
) -> None:
    options = plan.search
    LOG.info(
        "1 define the space: '%s' on '%s', at most %s MACs and %s parameters",
        options.space, data.name, options.max_macs or "any", options.max_params or "any",
    )  # fmt: skip
    LOG.info(
        "2 sample with %s; 3 train %d epochs and evaluate %s against %s; 4 update the strategy; "
        "5 repeat until %d candidates are trained",
        options.sampler, options.epochs, *options.objectives, options.trials,
    )  # fmt: skip
    studies.repair_journal(folder)
    study = studies.open_study(folder, plan)
    again = studies.close_orphans(study, folder, plan)
    if again:
        LOG.info("%d interrupted trial(s) will run again", again)
    studies.enqueue_first(study, plan, data)
    handler = SearchJobs(folder, plan, study, display)
    if handler.ended:
        LOG.info("going on: %d candidates are finished", handler.ended)
    display.phase("Searching", handler.ended, options.trials)
    pool.run(handler)
    if not any(item.state == COMPLETE for item in handler.candidates):
        raise RunFailed(_nothing_trained(handler.candidates, plan))
    if handler.ended < options.trials:
        LOG.info(
            "stopped at %d of %d trials: %d candidates exceeded the limits",
            handler.ended, options.trials, len(handler.candidates) - handler.ended,
        )  # fmt: skip


def _nothing_trained(candidates: list[Candidate], plan: SearchPlan) -> str:
    failed = [item for item in candidates if item.state == FAILED]
    if failed:
        return f"No candidate could be trained. The first failed: {failed[0].reason}."
    least = min((item.macs or 0 for item in candidates), default=0)
    fewest = min((item.params or 0 for item in candidates), default=0)
    return (
        f"All {len(candidates)} candidates exceed the limits (max_macs={plan.search.max_macs}, "
        f"max_params={plan.search.max_params}). The smallest have {least:,} MACs and {fewest:,} "
        "parameters. Raise the limits."
    )


class SearchJobs:
    """Gives out trials until enough are trained, and keeps account of them."""

    def __init__(
        self, folder: RunFolder, plan: SearchPlan, study: optuna.Study, display: Display
    ) -> None:
        self._folder, self._plan, self._study, self._display = folder, plan, study, display
        self.candidates = folder.read_candidates()
        self._running = 0
        self._max_rejected = max(100, 20 * plan.search.trials)

    @property
    def ended(self) -> int:
        """Trials that count: trained or failed, not the rejected."""
        return sum(item.state != REJECTED for item in self.candidates)

    def next_job(self) -> Job | None:
        """Returns a trial while the budget lasts."""
        rejected = len(self.candidates) - self.ended
        if self.ended + self._running >= self._plan.search.trials:
            return None
        if rejected >= self._max_rejected:
            return None
        self._running += 1
        return {"kind": messages.TRIAL}

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Shows progress."""
        if message["kind"] == messages.PROGRESS:
            self._display.worker(worker, message["text"], message["share"])

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a candidate."""
        self._running -= 1
        self._display.worker(worker, "", 0.0)
        self._count(Candidate.from_json(message["candidate"]))

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Fails the trial of a worker that died; it is not tried again."""
        self._running -= 1
        self._display.worker(worker, "", 0.0)
        if claimed is None:
            return
        number = claimed["number"]
        trial = next(t for t in self._study.get_trials(deepcopy=False) if t.number == number)
        candidate = Candidate(
            candidate_id(number), FAILED, trial.params, claimed["seed"], f"its worker died ({how})"
        )
        self._folder.write_candidate(candidate)
        if not trial.state.is_finished():
            studies.tell(self._study, number, candidate, self._plan)
        self._count(candidate)

    def _count(self, item: Candidate) -> None:
        self.candidates.append(item)
        quality = self._plan.search.objectives[0]
        outcome = (
            f"validation {quality} {item.val[quality]:.4f}"
            if item.state == COMPLETE
            else f"{item.state}: {item.reason}"
        )
        LOG.info(
            "candidate %s: %s, %s MACs, %s parameters, %.1f s",
            item.id, outcome, f"{item.macs or 0:,}", f"{item.params or 0:,}", item.seconds,
        )  # fmt: skip
        self._display.advance(self.ended, self._plan.search.trials)


def _compress_front(
    folder: RunFolder, plan: SearchPlan, pool: LocalPool, display: Display
) -> list[str]:
    """Compresses what of the front is not yet; returns what failed, with reasons."""
    report = load_report(folder.path)
    by_id = {item.id: item for item in report.candidates}
    teacher = plan.distill.teacher
    if teacher == "auto":
        quality = plan.search.objectives[0]
        best = max(report.front, key=lambda name: by_id[name].val[quality])
        teacher = str(folder.model_file(best))
    elif teacher == "none":
        teacher = ""
    pending = [name for name in report.front if not folder.is_compressed(name)]
    LOG.info(
        "compressing the front (%s) to %.0f %% sparsity, teacher: %s",
        ", ".join(report.front), plan.weights.sparsity * 100, teacher or "none",
    )  # fmt: skip
    handler = CompressJobs(folder, plan, pending, teacher, display)
    display.phase("Compressing", 0, len(pending))
    pool.run(handler)
    return handler.failures


class CompressJobs:
    """Gives out the models to compress, largest first, and collects failures."""

    def __init__(
        self, folder: RunFolder, plan: SearchPlan, names: list[str], teacher: str, display: Display
    ) -> None:
        # largest first: the last jobs to end are then short, and no worker idles for long
        self._pending = list(reversed(names))
        self._folder, self._plan, self._teacher, self._display = folder, plan, teacher, display
        self._total, self._done = len(names), 0
        self.failures: list[str] = []

    def next_job(self) -> Job | None:
        """Returns the next model's job."""
        if not self._pending:
            return None
        name = self._pending.pop(0)
        return {
            "kind": messages.COMPRESS,
            "name": name,
            "teacher": self._teacher,
            "command": command_line(self._own_plan(), self._folder.model_file(name)),
        }

    def _own_plan(self) -> Plan:
        """Returns the compress part of the plan with the teacher's file in place of "auto"."""
        nested = to_nested(self._plan)
        del nested["search"]
        nested["distill"]["teacher"] = self._teacher or "none"
        return from_nested(Plan, nested)

    def on_message(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Shows progress."""
        if message["kind"] == messages.PROGRESS:
            self._display.worker(worker, message["text"], message["share"])

    def on_done(self, worker: int, job: Job, message: dict[str, Any]) -> None:
        """Counts a model, or notes why it failed."""
        if "error" in message:
            self.failures.append(f"{message['name']}: {message['error']}")
            LOG.info("compressing %s failed: %s", message["name"], message["error"])
        else:
            before, after = (message["val"][key]["accuracy"] for key in ("dense", "pruned"))
            LOG.info(
                "compressed %s: validation accuracy %.4f -> %.4f", message["name"], before, after
            )
        self._end(worker)

    def on_death(self, worker: int, job: Job, claimed: dict[str, Any] | None, how: str) -> None:
        """Notes a model whose worker died."""
        self.failures.append(f"{job['name']}: its worker died ({how})")
        self._end(worker)

    def _end(self, worker: int) -> None:
        self._done += 1
        self._display.worker(worker, "", 0.0)
        self._display.advance(self._done, self._total)

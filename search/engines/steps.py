"""Steps of a run with a time budget in a worker: export, train on, prune, fine-tune, record."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna

from compress.core.device import Device
from compress.core.errors import FeasibleError
from compress.data import Dataset
from compress.exporting.files import get_file_path
from compress.measure.latency import Entry, time_entries
from compress.model.copies import convert_to_float32
from compress.model.io import load_model, save_model
from compress.plan.shrink import ShrinkPlan, ShrinkTraining
from compress.plan.target import Target
from compress.shrinking.candidate import Candidate, ShrinkFolder
from compress.shrinking.candidate_builder import CandidateBuilder, create_builder
from compress.shrinking.compression_job import LoadedTeachers, RunContext, prepare_job
from compress.shrinking.final_evaluation import record_files
from compress.shrinking.planner import build_planner
from compress.shrinking.time_budget import TimeBudget
from search.plan import SearchPlan
from search.scheduler.records import CONTINUE, EXPORT, PRUNE, TUNE, SizeResult
from search.scheduler.scheduler import SHARES
from search.study import optimizers
from search.study.directory import SearchFolder
from search.study.retrain import train_further

RECORD = "record"
"""The last step of a model: its files are evaluated on test data and recorded."""
TIMING_PRECISION, TIMING_SECONDS = 0.03, 1.0
"""Relative half-width of ratios of latencies that decide during a run, and the time limit of one
measurement. Other workers may run at the same time, so files are timed in turn with a common one.
"""


def name_size(model: str, share: float) -> str:
    """Return the name of a size of a candidate, for files.

    Args:
        model: Id of the candidate.
        share: Share of its MACs that is kept.

    Example:
        >>> name_size("0003", 0.5), name_size("0003", 1.0)
        ('0003-macs0_5x', '0003-tuned')
    """
    return f"{model}-tuned" if share == 1 else f"{model}-macs{share:g}x".replace(".", "_")


class StepRunner:
    """Steps on the candidates of one run; the builder of the last candidate is kept.

    Args:
        folder: Folder of the run; the files of a candidate are in shrunk/<id>/.
        plan: Plan of the run.
        data: Data of the run.
        device: Device of the training.
        on_progress: Called with (text, share).
        load_teachers: Loads teachers by their files.
    """

    def __init__(
        self,
        folder: SearchFolder,
        plan: SearchPlan,
        data: Dataset,
        device: Device,
        on_progress: Callable[[str, float], None],
        load_teachers: Callable[[list[str]], LoadedTeachers],
    ) -> None:
        self._folder, self._plan, self._data, self._device = folder, plan, data, device
        self._on_progress, self._load_teachers = on_progress, load_teachers
        self._builder: tuple[tuple[Any, ...], CandidateBuilder] | None = None

    def run(self, job: dict[str, Any]) -> dict[str, Any]:
        """Run one step.

        Args:
            job: "name" (id of the candidate), "step" (kind), "share", "epochs", "teachers",
                "reference" (path and cost of the common file; None: there is none yet),
                "training_seconds" (after which a training ends, and no further size is pruned),
                and for the record "sizes" (names), "command", "told".

        Returns:
            "sizes": for each size its share, quality, MACs and files; "epochs".
        """
        began = time.monotonic()
        kind, reference = job["step"], job["reference"]
        if kind == CONTINUE:
            return self._train_further(job["name"], job["epochs"], job["training_seconds"])
        builder = self._open_builder(job)
        if kind == RECORD:
            self._record(builder, job, began)
            return {"sizes": [], "epochs": 0}
        if kind == EXPORT:
            whole = builder.build_original(job["name"], tuple(builder.original_files.val))
            return {"sizes": [self._describe(builder, whole, 1.0, reference)], "epochs": 0}
        if kind == PRUNE:
            sizes = self._prune(builder, job["name"], reference, began + job["training_seconds"])
            return {"sizes": sizes, "epochs": 0}
        assert kind == TUNE
        name = name_size(job["name"], job["share"])
        candidate = (
            builder.copy_original(name)
            if job["share"] == 1
            else builder.folder.load_candidate(name)
        )
        candidate = replace(candidate, formats=tuple(builder.original_files.val))
        seconds = max(0.0, job["training_seconds"] - (time.monotonic() - began))
        tuned = builder.train(candidate, job["epochs"], seconds)
        return {
            "sizes": [self._describe(builder, tuned, job["share"], reference)],
            "epochs": tuned.epochs,
        }

    def _open_builder(self, job: dict[str, Any]) -> CandidateBuilder:
        """Return the builder of a candidate's sizes; that of the last step is used again."""
        name, teachers = job["name"], job["teachers"]
        file = self._folder.get_shipped_path(name)
        key = (file, tuple(teachers), job["step"] == RECORD)
        if self._builder is None or self._builder[0] != key:
            context = RunContext(
                self._data,
                self._build_plan(name, teachers, is_record=job["step"] == RECORD),
                self._device,
                lambda text, share: self._on_progress(f"{name}: {text}", share),
            )
            prepared = prepare_job(
                load_model(file),
                file,
                context,
                self._load_teachers(teachers),
                tuple(job.get("told", ())),
            )
            # files of a candidate before and after its further training stay apart
            work = f"{name}-continued" if file.parent == self._folder.final else name
            folder = ShrinkFolder(self._folder.path / "shrunk" / work)
            self._builder = key, create_builder(prepared, folder, is_exclusive=False)
        return self._builder[1]

    def _build_plan(self, name: str, teachers: list[str], *, is_record: bool) -> ShrinkPlan:
        """Return the plan of a candidate's sizes, which are fine-tuned as the candidate was.

        Args:
            name: Id of the candidate.
            teachers: Files of the teachers.
            is_record: Whether all sizes are recorded; else each has a goal of MACs.

        Reference:
            Renda et al. 2020, "Comparing Rewinding and Fine-tuning in Neural Network Pruning": the
            schedule of the original training, from its beginning. Our networks start reconstructed
            and have a teacher.
        """
        plan = self._plan.build_candidate_plan(teachers)
        if not is_record:  # a goal of MACs needs no times of layers
            goal = replace(plan.goal, macs=Target(max(SHARES), relative=True))
            plan = replace(plan, goal=goal)
        candidate = self._folder.read_candidate(name)
        if candidate is None or not self._plan.rewinds_training:
            return plan
        trial = optuna.trial.FixedTrial(candidate.choices)
        settings = optimizers.sample_settings(trial, self._plan, self._data)
        return replace(plan, finetune=ShrinkTraining(**vars(settings)))

    def _train_further(self, name: str, epochs: int, seconds: float) -> dict[str, Any]:
        """Train a candidate further; there is no size if it became no better."""
        candidate = self._folder.read_candidate(name)
        assert candidate is not None, "steps are of candidates on disk"
        trained, quality = train_further(
            candidate, self._data, self._plan, self._folder, self._device, self._on_progress,
            epochs, seconds,
        )  # fmt: skip
        sizes = [] if quality is None else [SizeResult(1.0, quality, float(candidate.macs or 1))]
        return {"sizes": [size.to_json() for size in sizes], "epochs": trained}

    def _prune(
        self, builder: CandidateBuilder, name: str, reference: list[Any] | None, end: float
    ) -> list[dict[str, Any]]:
        """Prune a candidate to each share of its MACs that it can have, while there is time.

        Args:
            builder: Builder of the candidate's sizes.
            name: Id of the candidate.
            reference: Path and cost of the common file.
            end: Time, by `time.monotonic`, after which no size may end but the first.
        """
        sizes: list[dict[str, Any]] = []
        first, began = builder.original_files.first, time.monotonic()
        # all formats, because the time of one says little about that of another
        formats = (
            (first,)
            if self._plan.front_cost in ("macs", "params")
            else tuple(builder.original_files.val)
        )
        for share in SHARES:
            # the next one probably takes as long as those before did on average
            if sizes and (now := time.monotonic()) + (now - began) / len(sizes) > end:
                break
            try:
                candidate = builder.build(
                    name_size(name, share), first, {"macs": share * builder.counted.macs}, formats
                )
            except FeasibleError:
                continue  # a larger one may be possible
            sizes.append(self._describe(builder, candidate, share, reference))
        return sizes

    def _describe(
        self,
        builder: CandidateBuilder,
        candidate: Candidate,
        share: float,
        reference: list[Any] | None,
    ) -> dict[str, Any]:
        """Return a size's quality, MACs and files with their costs."""
        metric = self._plan.search.objectives[0]
        stem = builder.job.name if candidate.whole else candidate.name
        paths = {kind: get_file_path(builder.folder.exports / stem, kind) for kind in candidate.val}
        costs = self._measure_costs(builder, candidate, paths, reference)
        first = builder.original_files.first
        return {
            "share": share,
            "quality": candidate.get_metric(first, metric)
            if first in candidate.val
            else candidate.get_best(metric),
            "macs": candidate.macs,
            "files": [
                {"format": kind, "quality": candidate.get_metric(kind, metric), "cost": cost}
                for kind, cost in costs.items()
            ],
        }

    def _measure_costs(
        self,
        builder: CandidateBuilder,
        candidate: Candidate,
        paths: dict[str, Path],
        reference: list[Any] | None,
    ) -> dict[str, float]:
        """Return the cost of each file: milliseconds, bytes or a count."""
        cost = self._plan.front_cost
        if cost != "latency_ms":
            counted = {"macs": candidate.macs, "params": candidate.params}
            return {
                kind: float(path.stat().st_size if cost == "size_bytes" else counted[cost])
                for kind, path in paths.items()
            }
        plan = builder.job.plan
        first = next(iter(paths.values())) if reference is None else Path(reference[0])
        latencies = time_entries(
            {
                name: Entry(path, plan.runtime, plan.latency.threads)
                for name, path in {"reference": first, **paths}.items()
            },
            precision=TIMING_PRECISION,
            budget=TIMING_SECONDS,
            seed=plan.seed,
        )
        ms = latencies["reference"].median_ms if reference is None else float(reference[1])
        return {kind: ms / latencies[kind].ratio for kind in paths}

    def _record(self, builder: CandidateBuilder, job: dict[str, Any], began: float) -> None:
        """Evaluate the files of a candidate's sizes on test data, and write their record."""
        planner = build_planner(builder.job, builder.folder, TimeBudget(None))
        candidates: Sequence[Candidate] = [
            builder.folder.load_candidate(name) for name in job["sizes"]
        ] or [builder.build_original(job["name"], tuple(builder.original_files.val))]
        for candidate in candidates:
            if not candidate.whole:  # any of them may ship
                save_model(
                    convert_to_float32(builder.read_model(candidate)),
                    self._folder.get_model_path(candidate.name),
                )
        record_files(planner, candidates, self._folder, job["command"], began)
        shutil.rmtree(builder.folder.path / "unfinished", ignore_errors=True)

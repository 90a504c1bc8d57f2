"""Loads what a compression needs and checks all that can be checked, before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from compress.core.progress import OnProgress
from compress.data import Dataset
from compress.model.compiled import own_step_of
from compress.model.graphs import as_graph
from compress.model.heads import check_head
from compress.model.io import load_model
from compress.plan import Plan
from compress.prune.channels import check_channels
from compress.run.directory import LOG, RunFolder
from compress.run.origin import write_data_record, write_examples
from compress.run.unlearnt import Judged, check_scaling, check_unlearnt
from compress.shrinking.checks import check_by_data, check_by_models, check_memory, told
from compress.shrinking.context import Work
from compress.shrinking.given import Given, UserData
from compress.shrinking.preflight import preflight
from compress.shrinking.prepared import Prepared, prepare
from compress.train.objective import OwnStepObjective, check_own_step, own_objective

if TYPE_CHECKING:
    import keras


@dataclass(frozen=True, eq=False)
class Opened:
    """A model, its data and its teachers: loaded, analysed, found fit for each other.

    Attributes:
        given: The model as the user gave it.
        work: Data, plan, device.
        dense: The model, with teachers.
        teachers: Their files.
        val_learnt: The model or a teacher has learnt the validation part.
        notes: What is known already.
    """

    given: Given
    work: Work
    dense: Prepared
    teachers: Sequence[Path]
    val_learnt: bool
    notes: tuple[str, ...]

    @property
    def facts(self) -> dict[str, str]:
        """What the folder of results is known again by."""
        return {**self.given.facts, "data": self.work.data.fingerprint()}

    def begin(self, folder: RunFolder) -> None:
        """Writes what the folder of results holds of model and data; the caller has its lock."""
        LOG.info("runs on %s", self.work.device.describe())
        folder.clear()
        self.given.keep()
        write_data_record(folder, self.work.data)
        write_examples(folder, self.work.data, [self.given.path], self.teachers)


def opened(given: Given, data: UserData, plan: Plan, on_progress: OnProgress) -> Opened:
    """Loads and checks.

    Args:
        given: The model.
        data: The data.
        plan: All options.
        on_progress: Called with (what is done, share of it in [0, 1]).

    Raises:
        InputError: See `compress_model`.
        MissingDependency: A package that a format or a runtime needs is not installed.
    """
    from compress.core.device import setup

    path = given.path
    preflight(plan, given.folder, [given.file], data=data.data is None, files=True)
    # first of all: loading a model starts TensorFlow, which then refuses another thread count
    device = setup(plan.device, plan.threads)
    original = load_model(given.file)
    examples = data.dataset(given, original, plan)
    plan = told(plan, examples)
    teachers = [given.file] if plan.distill.teacher.automatic else plan.distill.teacher.files
    as_graph(original)
    check_head(original, examples)
    past = [check_unlearnt(path, examples, f"Model '{path}'")]
    past += unlearnt_teachers(plan, examples)
    fed = list(check_scaling(path, examples, f"Model '{path}'"))
    check_by_data(plan, examples)
    check_memory(plan, examples, original)
    own = _own_step(given, original, examples, plan)
    work = Work(examples, plan, device, on_progress, own_step=own)
    if work.own_step is not None:
        fed.append(f"fine-tuned by the train_step of {work.own_step.own.name}, without a teacher")
    dense = prepare(original, path.stem, work, teachers)
    named = [] if plan.distill.teacher.automatic else dense.teachers.models
    check_by_models(plan, examples, [dense.subject], named)
    if plan.channels.active:
        check_channels(dense.subject.coupling, plan.channels)
    return Opened(
        given,
        work,
        dense,
        teachers,
        any(item.validation for item in past),
        tuple(dict.fromkeys([*fed, *(note for item in past for note in item.notes)])),
    )


def _own_step(
    given: Given, original: keras.Model, data: Dataset, plan: Plan
) -> OwnStepObjective | None:
    """Returns what fine-tunes by the model's own `train_step`, tried once; None: nothing does."""
    if not plan.finetune.own_train_step or plan.finetune.epochs == 0:
        return None
    objective = own_objective(own_step_of(given.whole), data, given.name)
    check_own_step(objective, original, data, plan.finetune)
    return objective


def unlearnt_teachers(plan: Plan, data: Dataset) -> list[Judged]:
    """Checks that the teachers that the plan names have not learnt what would judge a student.

    Returns:
        What their pasts mean for figures on the data.

    Raises:
        InputError: One has.
    """
    files = plan.distill.teacher.files
    return [check_unlearnt(path, data, f"Teacher '{path}'") for path in files]

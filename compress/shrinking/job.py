"""One job of `compress_model` or `shrink`: what users hand over is opened, checked, worked on.

All that can be refused is refused before anything is written.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError
from compress.core.memory_budget import use_budget
from compress.core.summary import OnProgress
from compress.data import DataOptions, Dataset
from compress.data.handed_over import is_bare
from compress.data.tasks import CUSTOM, UNLABELLED
from compress.model.compiled import CompiledOutput, compiled_model, compiled_outputs, own_step_of
from compress.model.heads import check_head
from compress.model.internals import weights_hash
from compress.model.io import as_model, load_model, save_model
from compress.model.kinds import refuse_graphs
from compress.model.rebuild import as_graph
from compress.plan import Plan
from compress.plan.fields import command_words, plan_fields, value_of
from compress.prune.channels import check_channels
from compress.run.directory import LOG, RunFolder, run_in_own_folder
from compress.run.logs import Source
from compress.run.logs.follower import EpochSource, FileSource, following
from compress.run.origin import write_data_record, write_examples
from compress.run.unlearnt import Judged, check_scaling, check_unlearnt
from compress.shrinking.case import Case, Work, prepare
from compress.shrinking.checks import check_by_data, check_by_models, check_memory, preflight, told
from compress.train.given import dataset_for, refuse_marks
from compress.train.objective import OwnStepObjective, check_own_step, own_objective
from compress.train.scaling import load_for_model

if TYPE_CHECKING:
    import keras

    from compress.report import Report

FolderT = TypeVar("FolderT", bound=RunFolder)


@dataclass(frozen=True, eq=False)
class Given:
    """The model as the user gave it.

    Attributes:
        file: What is read: the user's file, or one that lies there for the time being.
        path: What records and messages call it: the user's file, or where it will be kept.
        facts: What it is known again by.
        model: The user's model, where it is no file.
    """

    file: Path
    path: Path
    facts: dict[str, str]
    model: keras.Model | None = None

    @cached_property
    def whole(self) -> keras.Model:
        """The model of the user's class, with what it was compiled with."""
        return compiled_model(self.path) if self.model is None else self.model

    def compiled(self, plan: Plan) -> Mapping[str, CompiledOutput]:
        """Returns what the model was compiled with; a file is asked where a plan needs it."""
        asked = self.model is not None or CUSTOM in plan.data.tasks
        return compiled_outputs(self.whole) if asked else {}

    def keep(self) -> None:
        """Puts a model that lies in no file beside its results: the command shown names it."""
        if self.file != self.path:
            self.path.parent.mkdir(exist_ok=True)
            write_bytes(self.path, self.file.read_bytes())


@dataclass(frozen=True, eq=False)
class UserData:
    """Data as the user gave them.

    Attributes:
        data: None: what the plan names.
        val, test: Parts beside it; None: split off.
        how: Options of data that were given as keywords.
        groups, time: Of the examples, beside them.
    """

    data: Any
    val: Any = None
    test: Any = None
    how: Mapping[str, Any] | None = None
    groups: Any = None
    time: Any = None

    def dataset(self, given: Given, original: keras.Model, plan: Plan) -> Dataset:
        """Returns the data set for a model.

        Args:
            given: The model as it was given.
            original: As it was loaded.
            plan: Its section data, and the seed.

        Raises:
            InputError: They break a rule, or do not fit the model.
        """
        compiled = given.compiled(plan)
        if self.data is None:
            refuse_marks(self.groups, self.time)
            return load_for_model(given.path, plan.data, original, plan.seed, compiled)
        how = dict(self.how or {})
        if not isinstance(self.data, Dataset):
            how = {**_other_than_default(plan.data), **how}
        marks = {"groups": self.groups, "time": self.time}
        parts = {"val": self.val, "test": self.test, **marks, **how}
        if "task" not in parts and is_bare(self.data):
            parts["task"] = UNLABELLED
        return dataset_for(
            original, self.data, seed=plan.seed, testing=True, compiled=compiled, **parts
        )


def run_on_model(
    model: keras.Model | str | Path,
    data: UserData,
    plan: Plan,
    folder_type: type[FolderT],
    work: Callable[[Case, FolderT, str], None],
    *,
    on_progress: OnProgress,
    check: Callable[[Case], Mapping[str, str]] | None = None,
) -> tuple[Case, FolderT, Report]:
    """Run on a model in the run's own folder; a run that is refused leaves no files there.

    Args:
        model: A Keras model, or a path; default folders are named after it.
        data: Of the model.
        plan: Says where results go, and what is done.
        folder_type: `RunFolder`, or a class that adds files to it.
        work: Called with what was opened, its folder and the command that repeats it.
        on_progress: Called with (what is done, share of it in [0, 1]).
        check: Refuses what was opened, before anything is written; it returns what the folder is
            known again by beside model and data.

    Returns:
        What was opened, its folder, and the report.

    Raises:
        InputError: It is no model, or the folder is another run's; or see `opened`.
    """
    from compress.report import render

    with tempfile.TemporaryDirectory() as place, use_budget(plan.memory):

        def run(out: Path) -> tuple[Case, FolderT, Report]:
            folder = folder_type(out)
            folder.check(plan.command, plan)
            given = given_model(model, folder, Path(place))
            with folder.dropping_refused():
                case = opened(given, folder, data, plan, on_progress)
                own, examples = case.work.plan, case.work.data
                facts = {**given.facts, "data": examples.fingerprint()}
                if check is not None:
                    facts |= check(case)
                command = command_line(own, case.path)
                folder.claim(own.command, own, facts, {"command": command})
                with folder.locked(), folder.logging(), logged(own, folder):
                    LOG.info("runs on %s", case.work.device.describe())
                    folder.clear()
                    given.keep()
                    write_data_record(folder, examples)
                    teachers = [item.path for item in case.teachers]
                    write_examples(folder, examples, [case.path], teachers)
                    work(case, folder, command)
                    return case, folder, render(folder.path)

        is_path = isinstance(model, (str, Path))
        name = Path(model).stem if is_path else as_model(model).name
        return run_in_own_folder(plan.out, f"runs/{plan.command}-{name}", run)


def command_line(plan: Plan, model: Path) -> str:
    """Returns the command that does to `model` what `plan` says."""
    return shlex.join(["paretune", plan.command, str(model), *command_words(plan)])


def given_model(model: keras.Model | str | Path, folder: RunFolder, place: Path) -> Given:
    """Takes a model as users hand it over.

    Args:
        model: A Keras model, or a path.
        folder: Of the results.
        place: Where a file of a model may lie for the time being.

    Raises:
        InputError: It is no model, or one that cannot be pruned.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        refuse_graphs(path)  # before data are asked for, which would not help
        return Given(path, path, {"model": str(model)})
    model = as_model(model)
    file = place / f"{model.name}.keras"
    graph = as_graph(model)
    save_model(graph, file)
    facts = {"model": model.name, "weights": weights_hash(graph)}
    return Given(file, folder.path / "given" / file.name, facts, model)


def opened(
    given: Given, folder: RunFolder, data: UserData, plan: Plan, on_progress: OnProgress
) -> Case:
    """Loads what a job needs, and checks all that can be checked.

    Args:
        given: The model.
        folder: Of the results.
        data: The data.
        plan: All options.
        on_progress: Called with (what is done, share of it in [0, 1]).

    Raises:
        InputError: See `compress_model`.
        MissingDependency: A package that a format or a runtime needs is not installed.
    """
    from compress.core.device import setup

    path = given.path
    preflight(plan, folder, [given.file], data=data.data is None, files=True)
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
    notes = tuple(dict.fromkeys([*fed, *(note for item in past for note in item.notes)]))
    learnt = any(item.validation for item in past)
    case = prepare(original, path, work, teachers, notes, val_learnt=learnt)
    named = [] if plan.distill.teacher.automatic else [item.model for item in case.teachers]
    check_by_models(plan, examples, [case], named)
    if plan.channels.active:
        check_channels(case.coupling, plan.channels)
    return case


def _own_step(
    given: Given, original: keras.Model, data: Dataset, plan: Plan
) -> OwnStepObjective | None:
    """Returns what fine-tunes by the model's own `train_step`, tried once; None: nothing does."""
    if not plan.finetune.own_train_step or plan.finetune.epochs == 0:
        return None
    objective = own_objective(own_step_of(given.whole), data, given.path.stem)
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


def refuse_learnt(learnt: bool) -> None:
    """Refuses validation data that have been learnt: by them nets and files are chosen.

    Raises:
        InputError: They have.
    """
    if learnt:
        raise InputError(
            "The validation part must be one that neither the model nor its teachers have learnt: "
            "it chooses nets and files on the way to a goal. Received: one that was learnt. Give "
            "another (val=, or x_val and y_val in an .npz), or name steps with paretune compress."
        )


def logged(
    plan: Plan, folder: RunFolder, others: Sequence[Source] = ()
) -> AbstractContextManager[None]:
    """Tells the logs that a plan names of epochs and files while the context lasts.

    Args:
        plan: Its `log`.
        folder: The run's.
        others: Further sources, which come first.
    """
    sources = [*others, EpochSource(folder), FileSource(folder)]
    chosen = {
        leaf.flat: value
        for leaf in plan_fields(type(plan))
        if (value := value_of(plan, leaf)) != leaf.default
    }
    return following(plan.log, folder, chosen, sources)


def _other_than_default(options: DataOptions) -> dict[str, Any]:
    names = (
        "task", "label", "metric", "normalize", "val_fraction", "test_fraction", "group_column",
        "time_column",
    )  # fmt: skip
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(DataOptions, name)}

"""One job of `compress_model` or `shrink`: what users hand over is opened, checked, worked on.

All that can be refused is refused before anything is written.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.atomic_files import write_bytes
from compress.core.device import check_device, setup
from compress.core.errors import InputError
from compress.core.interpreter import FORMATS, require_packages
from compress.core.memory_budget import current_budget, use_budget
from compress.core.summary import OnProgress
from compress.data import DataOptions, Dataset, check_source
from compress.data.adapters import is_bare
from compress.data.tasks import CUSTOM, UNLABELLED
from compress.distillation.setup import teacher_shares
from compress.measure.runtimes import runtimes
from compress.model.activations import OVERHEAD, activation_bytes
from compress.model.compiled import compiled_model, compiled_outputs, own_step_of
from compress.model.heads import check_head
from compress.model.internals import weights_hash
from compress.model.io import as_model, load_model, save_model
from compress.model.kinds import check_model_file, refuse_graphs
from compress.model.rebuild import as_graph
from compress.plan import Plan
from compress.plan.fields import command_words, plan_fields, value_of
from compress.plugins import LOGS, RUNTIMES
from compress.prune.channels import check_channels
from compress.prune.channels.criteria import CRITERIA
from compress.prune.weights import update_times
from compress.run.directory import LOG, RunFolder, run_in_own_folder
from compress.run.logs import EpochSource, FileSource, Source, following
from compress.run.origin import write_data_record, write_examples
from compress.run.unlearnt import Judged, check_scaling, check_unlearnt
from compress.shrinking.case import Case, PlanT, Work, check_by_models, prepare
from compress.train.given import dataset_for, load_for_model, refuse_marks
from compress.train.loop import parts_of_a_batch
from compress.train.objective import check_own_step, own_objective
from compress.train.steps import check_augment, class_weights

if TYPE_CHECKING:
    import keras

    from compress.report import Report

FolderT = TypeVar("FolderT", bound=RunFolder)
COPIES = 6
"""Copies of a model's weights that are held at a time: the model, pruned ones, what files hold."""
CONVERTER = 800_000_000
"""Bytes of the process that converts models and of its fork that works, each with TensorFlow."""


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

    def keep(self) -> None:
        """Put a model that lies in no file beside its results: the command shown names it."""
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
        """Return the data set for a model.

        Args:
            given: The model as it was given.
            original: As it was loaded.
            plan: Its section data, and the seed.

        Raises:
            InputError: They break a rule, or do not fit the model.
        """
        # a file is asked what the model was compiled with where the plan needs it
        asked = given.model is not None or CUSTOM in plan.data.tasks
        compiled = compiled_outputs(given.whole) if asked else {}
        if self.data is None:
            refuse_marks(self.groups, self.time)
            return load_for_model(given.path, plan.data, original, plan.seed, compiled)
        how = dict(self.how or {})
        if not isinstance(self.data, Dataset):
            how = {**_other_than_default(plan.data), **how}
        if is_bare(self.data):
            how.setdefault("task", UNLABELLED)
        return dataset_for(
            original,
            self.data,
            val=self.val,
            test=self.test,
            groups=self.groups,
            time=self.time,
            seed=plan.seed,
            testing=True,
            compiled=compiled,
            **how,
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
                checked = check(case) if check is not None else {}
                facts = {**given.facts, "data": examples.fingerprint(), **checked}
                command = command_line(own, case.path)
                folder.claim(own.command, own, facts, {"command": command})
                with folder.locked(), folder.logging(), logged(own, folder):
                    LOG.info("runs on %s", case.work.device.describe())
                    folder.clear()
                    given.keep()
                    write_data_record(folder, examples)
                    write_examples(
                        folder, examples, [case.path], [item.path for item in case.teachers]
                    )
                    work(case, folder, command)
                    return case, folder, render(folder.path)

        name = Path(model).stem if isinstance(model, (str, Path)) else as_model(model).name
        return run_in_own_folder(plan.out, f"runs/{plan.command}-{name}", run)


def command_line(plan: Plan, model: Path) -> str:
    """Return the command that does to `model` what `plan` says."""
    return shlex.join(["paretune", plan.command, str(model), *command_words(plan)])


def given_model(model: keras.Model | str | Path, folder: RunFolder, place: Path) -> Given:
    """Take a model as users hand it over.

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
    return Given(
        file,
        folder.path / "given" / file.name,
        {"model": model.name, "weights": weights_hash(graph)},
        model,
    )


def opened(
    given: Given, folder: RunFolder, data: UserData, plan: Plan, on_progress: OnProgress
) -> Case:
    """Load what a job needs, and checks all that can be checked.

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
    own_step = None
    if plan.finetune.own_train_step and plan.finetune.epochs != 0:
        own_step = own_objective(own_step_of(given.whole), examples, path.stem)
        check_own_step(own_step, original, examples, plan.finetune)
        fed.append(f"fine-tuned by the train_step of {own_step.own.name}, without a teacher")
    work = Work(examples, plan, device, on_progress, own_step)
    notes = tuple(dict.fromkeys([*fed, *(note for item in past for note in item.notes)]))
    case = prepare(
        original, path, work, teachers, notes, val_learnt=any(item.validation for item in past)
    )
    named = [] if plan.distill.teacher.automatic else [item.model for item in case.teachers]
    check_by_models(plan, examples, [case], named)
    if plan.channels.active:
        check_channels(case.coupling, plan.channels)
    return case


def told(plan: PlanT, data: Dataset) -> PlanT:
    """Return a plan that says of which task its data are, so that it is told once."""
    if not plan.data.told:
        return plan
    each = ",".join(f"{item.name}={item.kind}" for item in data.outputs)
    return replace(plan, data=replace(plan.data, task=each or data.kind))


def preflight(
    plan: Plan, folder: RunFolder, models: Iterable[Path] = (), *, data: bool, files: bool
) -> None:
    """Check files, packages, the device and the output folder that a plan names.

    Args:
        plan: Of a compression, or of a run that does more.
        folder: Where its results go.
        models: Files beside the teachers'.
        data: Whether the plan's data are read (else they were handed over).
        files: Whether files are exported and timed.

    Raises:
        InputError: A file does not exist or has another suffix, the data source cannot be found,
            there is no GPU, or the folder cannot be written to or holds other files.
        MissingDependency: A package that a format, a runtime or a log needs is not installed.
    """
    if data:
        check_source(plan.data)
    for path in (*models, *plan.distill.teacher.files):
        check_model_file(path)
    if files:
        for name in plan.export.formats:
            require_packages(FORMATS.get(name, ()), f"format {name}")
        for name in plan.latency.runtimes:
            RUNTIMES.require_installed(name)
            if not RUNTIMES[name].exported:
                timed = ", ".join(item.name for item in runtimes() if item.exported)
                raise InputError(
                    f"runtimes of exported files must be among {timed}. Received: {name}."
                )
    for name in plan.log:
        LOGS.require_installed(name)
    check_device(plan.device)
    folder.check_usable()


def check_training(plan: Plan, data: Dataset) -> None:
    """Check what every training of a plan asks of the data.

    Raises:
        InputError: Augmentation or class weights do not suit them.
    """
    check_augment(plan.finetune.augment, data)
    class_weights(data, plan.finetune.class_weights)


def check_by_data(plan: Plan, data: Dataset) -> None:
    """Check what compression needs, as far as no model is needed for it.

    Raises:
        InputError: A name is unknown, or an option does not suit the data or another option.
    """
    check_training(plan, data)
    CRITERIA[plan.channels.ranking]
    teacher = plan.distill.teacher
    if teacher.files or teacher.automatic:
        teacher_shares(plan.distill, len(teacher.files) or 1)
    if plan.finetune.epochs == 0:
        return
    if plan.weights.sparsity > 0:
        steps = max(1, len(data.train) // plan.finetune.batch_size)
        update_times(plan.weights, plan.finetune.epochs_for(steps) * steps, steps)


def check_memory(plan: Plan, data: Dataset, model: keras.Model) -> None:
    """Check that the memory budget holds the work on a model, one example at a time.

    Raises:
        InputError: It does not; the message names the memory that would do.
    """
    sizes = list(data.input_shapes.values())
    live = int(OVERHEAD * activation_bytes(model, sizes).live)
    current_budget().require(
        CONVERTER + COPIES * 4 * model.count_params() + live, f"work on model '{model.name}'"
    )
    if plan.finetune.epochs != 0:
        parts_of_a_batch(model, min(plan.finetune.batch_size, len(data.train)), sizes=sizes)


def unlearnt_teachers(plan: Plan, data: Dataset) -> list[Judged]:
    """Check that the teachers that the plan names have not learnt what would judge a student.

    Returns:
        What their pasts mean for figures on the data.

    Raises:
        InputError: One has.
    """
    return [check_unlearnt(path, data, f"Teacher '{path}'") for path in plan.distill.teacher.files]


def refuse_learnt(learnt: bool) -> None:
    """Refuse validation data that have been learnt: by them nets and files are chosen.

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
    """Tell the logs that a plan names of epochs and files while the context lasts.

    Args:
        plan: Its `log`.
        folder: The run's.
        others: Further sources, which come first.
    """
    chosen = {
        leaf.flat: value
        for leaf in plan_fields(type(plan))
        if (value := value_of(plan, leaf)) != leaf.default
    }
    return following(plan.log, folder, chosen, [*others, EpochSource(folder), FileSource(folder)])


def _other_than_default(options: DataOptions) -> dict[str, Any]:
    values = {
        name: getattr(options, name)
        for name in (
            "task", "label", "metric", "normalize", "val_fraction", "test_fraction",
            "group_column", "time_column",
        )
    }  # fmt: skip
    return {name: value for name, value in values.items() if value != getattr(DataOptions, name)}

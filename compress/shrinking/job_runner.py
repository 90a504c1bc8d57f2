"""Runner of one `compress_model` or `shrink` job: opens user inputs, checks them, does the work.

All checks run before anything is written.
"""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from compress.core.atomic_files import write_bytes
from compress.core.device import check_device, setup_device
from compress.core.errors import InputError
from compress.core.memory_budget import get_current_budget, use_budget
from compress.core.module_loading import FORMAT_PACKAGES, require_packages
from compress.core.summary import OnProgress
from compress.data import DataOptions, Dataset, check_source
from compress.data.adapters import is_unlabelled
from compress.data.tasks import CUSTOM, UNLABELLED
from compress.exporting.onnx import check_opset
from compress.measure.runtimes import list_runtimes
from compress.model.activations import OVERHEAD, count_activation_bytes
from compress.model.compile_config import (
    find_custom_train_step,
    load_compiled_model,
    read_compiled_outputs,
)
from compress.model.file_formats import check_model_file, refuse_graphs
from compress.model.heads import check_head
from compress.model.io import as_model, load_model, save_model
from compress.model.keras_internals import hash_weights
from compress.model.rebuild import as_graph
from compress.plan import Plan
from compress.plan.nesting import build_command_words
from compress.plugins import LOGS, RUNTIMES
from compress.prune.channels import check_channels
from compress.prune.channels.criteria import CRITERIA
from compress.prune.weights import compute_update_times
from compress.run.directory import LOG, RunFolder, run_in_own_folder
from compress.run.held_out import check_held_out, check_scaling
from compress.run.logs import open_logs
from compress.run.origin import write_data_record, write_examples
from compress.shrinking.compression_job import (
    CompressionJob,
    PlanT,
    RunContext,
    check_by_models,
    prepare_job,
)
from compress.train.dataset_loading import load_for_model, prepare_dataset, refuse_marks
from compress.train.loop import count_batch_parts
from compress.train.objective import build_own_objective, check_own_step
from compress.train.steps import check_augment, compute_class_weights

if TYPE_CHECKING:
    import keras

    from compress.report import Report

FolderT = TypeVar("FolderT", bound=RunFolder)
COPIES = 6
"""Weight copies in memory at a time: the original, pruned models, exported models."""
CONVERTER = 800_000_000
"""Memory of the converter process and its working fork, each with TensorFlow, in bytes."""


@dataclass(frozen=True, eq=False)
class UserModel:
    """Model as the user passed it.

    Attributes:
        file: File to load: the user's file, or a temporary one.
        path: Path for records and messages: the user's file, or its later location in the run.
        facts: Values that identify it when the run is resumed.
        model: The Keras model, if it was not passed as a file.
    """

    file: Path
    path: Path
    facts: dict[str, str]
    model: keras.Model | None = None

    @cached_property
    def compiled(self) -> keras.Model:
        """The compiled model with the user's class."""
        return load_compiled_model(self.path) if self.model is None else self.model

    def keep(self) -> None:
        """Save a model passed in memory beside its results, for the command that is shown."""
        if self.file != self.path:
            self.path.parent.mkdir(exist_ok=True)
            write_bytes(self.path, self.file.read_bytes())


@dataclass(frozen=True, eq=False)
class UserData:
    """Data as the user passed them.

    Attributes:
        data: Data, or None for those that the plan names.
        val, test: Validation and test part; None: split off.
        options: Data options passed as keywords.
        groups, time: Group and time of each example, (n,).
    """

    data: Any
    val: Any = None
    test: Any = None
    options: Mapping[str, Any] | None = None
    groups: Any = None
    time: Any = None

    def to_dataset(
        self, user_model: UserModel, original: keras.Model, plan: Plan, on_progress: OnProgress
    ) -> Dataset:
        """Return the data set for a model.

        Args:
            user_model: The model as it was passed.
            original: The loaded model.
            plan: Plan with the section data, and the seed.
            on_progress: Callback invoked with (current step, completed share in [0, 1]).

        Raises:
            InputError: The data are invalid or do not fit the model.
        """
        # a file is loaded with its compilation only if the plan needs it
        needs_compiled = user_model.model is not None or CUSTOM in plan.data.task_names
        compiled = read_compiled_outputs(user_model.compiled) if needs_compiled else {}
        if self.data is None:
            refuse_marks(self.groups, self.time)
            return load_for_model(
                user_model.path, plan.data, original, plan.seed, compiled, on_progress
            )
        options = dict(self.options or {})
        if not isinstance(self.data, Dataset):
            options = {**_collect_changed_options(plan.data), **options}
        if is_unlabelled(self.data):
            options.setdefault("task", UNLABELLED)
        return prepare_dataset(
            original,
            self.data,
            val=self.val,
            test=self.test,
            groups=self.groups,
            time=self.time,
            seed=plan.seed,
            testing=True,
            compiled=compiled,
            on_progress=on_progress,
            **options,
        )


def run_on_model(
    model: keras.Model | str | Path,
    data: UserData,
    plan: Plan,
    folder_type: type[FolderT],
    run_job: Callable[[CompressionJob, FolderT, str], None],
    *,
    on_progress: OnProgress,
    check: Callable[[CompressionJob], Mapping[str, str]] | None = None,
) -> tuple[CompressionJob, FolderT, Report]:
    """Run a job on a model in the run's own folder; a refused run leaves no files.

    Args:
        model: A Keras model, or a path; default folders are named after it.
        data: Data for the model.
        plan: Plan with the output folder and all options.
        folder_type: `RunFolder`, or a subclass with additional files.
        run_job: Function invoked with the job, its folder and the command that repeats it.
        on_progress: Callback invoked with (current step, completed share in [0, 1]).
        check: Function that may refuse the job before anything is written. It returns further
            values that identify the run when it is resumed.

    Returns:
        The job, its folder, and the report.

    Raises:
        InputError: The model is invalid, or the folder belongs to another run; also see
            `open_job`.
    """
    from compress.report import render_report

    with tempfile.TemporaryDirectory() as temporary, use_budget(plan.memory):

        def run(out: Path) -> tuple[CompressionJob, FolderT, Report]:
            folder = folder_type(out)
            folder.check_claim(plan.command, plan)
            user_model = open_model(model, folder, Path(temporary))
            with folder.drop_if_refused():
                job = open_job(user_model, folder, data, plan, on_progress)
                resolved_plan, examples = job.context.plan, job.context.data
                checked = check(job) if check is not None else {}
                facts = {**user_model.facts, "data": examples.fingerprint(), **checked}
                command = format_command(resolved_plan, job.path)
                folder.claim(resolved_plan.command, resolved_plan, facts, {"command": command})
                with folder.hold_lock(), folder.log_to_file(), open_logs(resolved_plan, folder):
                    LOG.info("runs on %s", job.context.device.describe())
                    folder.remove_half_written()
                    user_model.keep()
                    write_data_record(folder, examples)
                    write_examples(
                        folder, examples, [job.path], [item.path for item in job.teachers]
                    )
                    run_job(job, folder, command)
                    return job, folder, render_report(folder.path)

        name = Path(model).stem if isinstance(model, (str, Path)) else as_model(model).name
        return run_in_own_folder(plan.out, f"runs/{plan.command}-{name}", run)


def format_command(plan: Plan, model: Path) -> str:
    """Return the command that applies a plan to a model.

    Args:
        plan: The plan.
        model: Path of the model.
    """
    return shlex.join(["paretune", plan.command, str(model), *build_command_words(plan)])


def open_model(model: keras.Model | str | Path, folder: RunFolder, temporary: Path) -> UserModel:
    """Open a model passed by the user.

    Args:
        model: A Keras model, or a path.
        folder: Folder of the results.
        temporary: Folder for a temporary file of the model.

    Raises:
        InputError: It is not a model, or cannot be pruned.
    """
    if isinstance(model, (str, Path)):
        path = Path(model)
        refuse_graphs(path)  # first, because data would not help
        return UserModel(path, path, {"model": str(model)})
    model = as_model(model)
    file = temporary / f"{model.name}.keras"
    graph = as_graph(model)
    save_model(graph, file)
    return UserModel(
        file,
        folder.path / "given" / file.name,
        {"model": model.name, "weights": hash_weights(graph)},
        model,
    )


def open_job(
    user_model: UserModel, folder: RunFolder, data: UserData, plan: Plan, on_progress: OnProgress
) -> CompressionJob:
    """Load the inputs of a job and check them.

    Args:
        user_model: The model.
        folder: Folder of the results.
        data: The data.
        plan: All options.
        on_progress: Callback invoked with (current step, completed share in [0, 1]).

    Raises:
        InputError: See `compress_model`.
        MissingDependency: A package that a format or a runtime needs is not installed.
    """
    path = user_model.path
    check_environment(plan, folder, [user_model.file], data=data.data is None, files=True)
    # first, because the number of threads is fixed once a model has started TensorFlow
    device = setup_device(plan.device, plan.threads)
    original = load_model(user_model.file)
    examples = data.to_dataset(user_model, original, plan, on_progress)
    plan = resolve_task(plan, examples)
    teachers = [user_model.file] if plan.distill.teacher.automatic else plan.distill.teacher.files
    as_graph(original)
    check_head(original, examples)
    held_out_notes = [
        *check_held_out(path, examples, f"Model '{path}'"),
        *check_held_out_teachers(plan, examples),
    ]
    scaling_notes = list(check_scaling(path, examples, f"Model '{path}'"))
    check_against_data(plan, examples)
    check_memory(plan, examples, original)
    own_step = None
    if plan.finetune.own_train_step and plan.finetune.epochs != 0:
        own_step = build_own_objective(
            find_custom_train_step(user_model.compiled), examples, path.stem
        )
        check_own_step(own_step, original, examples, plan.finetune)
        scaling_notes.append(
            f"fine-tuned by the train_step of {own_step.own_step.name}, without a teacher"
        )
    context = RunContext(examples, plan, device, on_progress, own_step)
    notes = tuple(dict.fromkeys([*scaling_notes, *held_out_notes]))
    job = prepare_job(original, path, context, teachers, notes)
    named = [] if plan.distill.teacher.automatic else [item.model for item in job.teachers]
    check_by_models(plan, [job], named)
    if plan.channels.is_active:
        check_channels(job.coupling, plan.channels)
    return job


def resolve_task(plan: PlanT, data: Dataset) -> PlanT:
    """Return a plan with the task of its data, so that it is inferred only once.

    Args:
        plan: The plan.
        data: The data set.
    """
    if not plan.data.is_task_inferred:
        return plan
    output_tasks = ",".join(f"{item.name}={item.kind}" for item in data.outputs)
    return replace(plan, data=replace(plan.data, task=output_tasks or data.kind))


def check_environment(
    plan: Plan, folder: RunFolder, models: Iterable[Path] = (), *, data: bool, files: bool
) -> None:
    """Check the files, packages, device and output folder of a plan.

    Args:
        plan: Plan of a compression or of a longer pipeline.
        folder: Folder of the results.
        models: Further model files beside those of teachers.
        data: Whether the plan's data are loaded, rather than passed in memory.
        files: Whether files are exported and timed.

    Raises:
        InputError: A file does not exist or has another suffix, the data source cannot be found,
            there is no GPU, or the folder is not writable or holds other files.
        MissingDependency: A package that a format, a runtime or a log needs is not installed.
    """
    if data:
        check_source(plan.data)
    for path in (*models, *plan.distill.teacher.files):
        check_model_file(path)
    if files:
        check_opset(plan.export.opset, plan.export.formats)
        for name in plan.export.formats:
            require_packages(FORMAT_PACKAGES.get(name, ()), f"format {name}")
        for name in plan.latency.runtimes:
            RUNTIMES.require_installed(name)
            if not RUNTIMES[name].exported:
                names = ", ".join(item.name for item in list_runtimes() if item.exported)
                raise InputError(
                    f"runtimes of exported files must be among {names}. Received: {name}."
                )
    for name in plan.log:
        LOGS.require_installed(name)
    check_device(plan.device)
    folder.check_usable()


def check_augment_and_weights(plan: Plan, data: Dataset) -> None:
    """Check that augmentation and class weights of a plan suit the data.

    Args:
        plan: The plan.
        data: The data set.

    Raises:
        InputError: Augmentation or class weights do not suit the data.
    """
    check_augment(plan.finetune.augment, data)
    compute_class_weights(data, plan.finetune.class_weights)


def check_against_data(plan: Plan, data: Dataset) -> None:
    """Check the options of a compression as far as possible without the model.

    Args:
        plan: The plan.
        data: The data set.

    Raises:
        InputError: A name is unknown, or an option does not suit the data or another option.
    """
    check_augment_and_weights(plan, data)
    CRITERIA[plan.channels.ranking_criterion]
    if plan.finetune.epochs != 0 and plan.weights.sparsity > 0:
        steps = plan.finetune.count_steps(len(data.train))
        compute_update_times(plan.weights, plan.finetune.count_epochs(steps) * steps, steps)


def check_memory(plan: Plan, data: Dataset, model: keras.Model) -> None:
    """Check that the memory budget is enough to convert a model and to train on the smallest batch.

    Args:
        plan: The plan.
        data: The data set.
        model: The model.

    Raises:
        InputError: It is not; the message has the required memory.
    """
    sizes = list(data.input_shapes.values())
    live = int(OVERHEAD * count_activation_bytes(model, sizes).live)
    get_current_budget().require(
        CONVERTER + COPIES * 4 * model.count_params() + live, f"work on model '{model.name}'"
    )
    if plan.finetune.epochs != 0:
        count_batch_parts(model, min(plan.finetune.batch_size, len(data.train)), sizes=sizes)


def check_held_out_teachers(plan: Plan, data: Dataset) -> list[str]:
    """Check that the plan's teachers were not trained on evaluation data of the student.

    Args:
        plan: Plan with the section distill.
        data: The data set.

    Returns:
        Notes on the teachers' training data, for metrics on this data.

    Raises:
        InputError: A teacher was trained on them.
    """
    return [
        note
        for path in plan.distill.teacher.files
        for note in check_held_out(path, data, f"Teacher '{path}'")
    ]


def _collect_changed_options(options: DataOptions) -> dict[str, Any]:
    values = {
        name: getattr(options, name)
        for name in (
            "task", "label", "metric", "normalize", "val_fraction", "test_fraction",
            "group_column", "time_column",
        )
    }  # fmt: skip
    return {name: value for name, value in values.items() if value != getattr(DataOptions, name)}

"""compress_model: the only orchestrator of compress. Prune, distil, export, measure, report."""

from __future__ import annotations

import shlex
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import write_bytes, write_json
from compress.core.errors import InputError
from compress.core.summary import Readable, Summary
from compress.data import DataOptions, Dataset
from compress.data._base import SPLITS
from compress.data.handed_over import is_bare
from compress.model.compiled import CompiledOutput, compiled_model, compiled_outputs
from compress.model.graphs import as_graph
from compress.model.heads import check_head
from compress.model.io import as_model, load_model, save_model
from compress.model.kinds import refuse_graphs
from compress.model.own_step import own_step_of
from compress.model.walk import weights_hash
from compress.pipeline.checks import check_by_data, check_by_models, told
from compress.pipeline.context import OnProgress, Work, silent
from compress.pipeline.preflight import preflight
from compress.pipeline.prepared import prepare
from compress.pipeline.stages import compress_stage
from compress.pipeline.timing import measure_stage
from compress.plan import Plan, TeacherChoice
from compress.plan.fields import command_words
from compress.plan.keywords import COMPRESS_MODEL
from compress.prune.channels import check_channels
from compress.run.directory import LOG, RunFolder
from compress.run.origin import write_examples
from compress.run.trained import trained_for
from compress.run.unlearnt import Judged, check_scaling, check_unlearnt
from compress.task import CUSTOM, UNLABELLED
from compress.train.given import dataset_for
from compress.train.own_step import OwnStepObjective, check_own_step, own_objective
from compress.train.scaling import load_for_model

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.plan.settings import CompressModelSettings
    from compress.report import Report


@dataclass(frozen=True, repr=False)
class CompressResult(Readable):
    """What `compress_model` made.

    Attributes:
        model: The compressed Keras model.
        folder: Where its files, records and report lie.
        report: Rows of every exported file, dense and compressed.
        files: Format -> file of the compressed model, those that were made.
    """

    model: keras.Model
    folder: Path
    report: Report
    files: dict[str, Path]

    def screen(self) -> Summary:
        """Returns what is worth a screen: every file, dense and compressed, and what it costs."""
        return self.report.screen()


def compress_model(
    model: keras.Model | str | Path,
    data: Any = None,
    plan: Plan | None = None,
    *,
    val: Any = None,
    test: Any = None,
    on_progress: OnProgress = silent,
    **settings: Unpack[CompressModelSettings],
) -> CompressResult:
    """Prunes, distils, exports and measures a model that the user brings.

    Args:
        model: A Keras model (named as it is in Keras), or a `.keras` or `.h5` file. The scaling
            of data by name or path is that of the run in whose folder the file lies; of another
            model it is found on validation examples (see `compress.train.scaling`).
        data: (x, y), a stream, a `Dataset` or what `--data` takes, see `as_dataset`; default:
            what `plan.data` names, which must then name one. Where there is no test part one is
            split off: files are judged by it. x alone: files are judged by whether they answer
            as the model does.
        plan: Everything else; keywords go over it.
        val: The validation part beside arrays or a stream; default: split off by seed.
        test: The test part, likewise.
        on_progress: Called with (what is done, share of it in [0, 1]).
        **settings: Every option of `paretune compress` by its name there: channels, sparsity,
            epochs, teacher, formats, out, seed, ...

    Shapes:
        x: (n, ...), as the model takes them; y: see `as_dataset`.

    Returns:
        The model, its files, its folder (`plan.out`, default `runs/compress-<name>`) and the
        report. Called again with the same plan, finished work is not repeated.

    Raises:
        InputError: The model, the data, the plan or the folder break a rule, or the data
            would judge the model by what it has learnt; nothing has been written then.
        TrainingDiverged: Fine-tuning failed.

    Example:
        >>> result = compress_model(
        ...     model, (x, y), channels=0.5, sparsity=0.5, epochs=2, formats=["float32", "int8"],
        ...     round_to=2, latency_budget=0.5, out=folder / "small",
        ... )
        >>> sorted(result.files)
        ['float32', 'int8']

    Reference:
        docs/methods.md says what is done in which order, and why.
    """
    plan = COMPRESS_MODEL.over(plan or Plan(), settings)
    if plan.finetune.own_train_step:
        plan = _by_own_step(plan)
    if isinstance(data, (str, Path)):
        plan, data = replace(plan, data=replace(plan.data, source=str(data))), None
    how = COMPRESS_MODEL.sorted(settings).get("data", {})
    if data is not None and not isinstance(data, Dataset):
        how = {**_other_than_default(plan.data), **how}
    with tempfile.TemporaryDirectory() as place:
        given = _given(model, plan, Path(place))

        def examples(original: keras.Model) -> Dataset:
            if data is None:
                return load_for_model(
                    given.path, plan.data, original, plan.seed, given.compiled(plan)
                )
            parts = {"val": val, "test": test, **how}
            if "task" not in parts and is_bare(data):
                parts["task"] = UNLABELLED
            return dataset_for(
                original, data, seed=plan.seed, testing=True, compiled=given.compiled(plan), **parts
            )

        return _compressed(given, plan, examples, data is None, on_progress)


@dataclass(frozen=True, eq=False)
class _Given:
    """The model as the user gave it.

    Attributes:
        file: What is read: the user's file, or one that lies there for the time being.
        path: What records and messages call it: the user's file, or where it will be kept.
        folder: Of the results.
        facts: What it is known again by.
        model: The user's model, where it is no file.
    """

    file: Path
    path: Path
    folder: RunFolder
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

    @property
    def name(self) -> str:
        """In names of files."""
        return self.path.stem

    def keep(self) -> None:
        """Puts a model that lies in no file beside its results: the command shown names it."""
        if self.file != self.path:
            self.path.parent.mkdir(exist_ok=True)
            write_bytes(self.path, self.file.read_bytes())


def _given(model: keras.Model | str | Path, plan: Plan, place: Path) -> _Given:
    if isinstance(model, (str, Path)):
        path = Path(model)
        refuse_graphs(path)  # before data are asked for, which would not help
        folder = RunFolder(plan.out or f"runs/compress-{path.stem}")
        return _Given(path, path, folder, {"model": str(model)})
    model = as_model(model)
    folder = RunFolder(plan.out or f"runs/compress-{model.name}")
    file = place / f"{model.name}.keras"
    graph = as_graph(model)
    save_model(graph, file)
    facts = {"model": model.name, "weights": weights_hash(graph)}
    return _Given(file, folder.path / "given" / file.name, folder, facts, model)


def _by_own_step(plan: Plan) -> Plan:
    """Returns a plan that says what follows of a `train_step` of the user's: task, no teacher.

    Raises:
        InputError: Hints are asked for, which a teacher gives.
    """
    if plan.distill.hints:
        raise InputError(
            "hints must go with a teacher: where the model's own train_step trains there is none. "
            f"Received: {', '.join(plan.distill.hints)}."
        )
    data = replace(plan.data, task=CUSTOM) if plan.data.told else plan.data
    return replace(plan, data=data, distill=replace(plan.distill, teacher=TeacherChoice()))


def _other_than_default(options: DataOptions) -> dict[str, Any]:
    names = ("task", "label", "metric", "normalize", "val_fraction", "test_fraction")
    values = {name: getattr(options, name) for name in names}
    return {name: value for name, value in values.items() if value != getattr(DataOptions, name)}


def _compressed(
    given: _Given,
    plan: Plan,
    examples: Callable[[keras.Model], Dataset],
    by_plan: bool,
    on_progress: OnProgress,
) -> CompressResult:
    """Does the work of `compress_model`.

    Args:
        given: The model.
        plan: All options.
        examples: Makes the data, for the model that was loaded.
        by_plan: Whether the plan names the data.
        on_progress: See `compress_model`.
    """
    from compress.core.device import setup
    from compress.report import render

    folder, path, name = given.folder, given.path, given.name
    preflight(plan, folder, [given.file], data=by_plan, files=True)
    # first of all: loading a model starts TensorFlow, which then refuses another thread count
    device = setup(plan.device, plan.threads)
    original = load_model(given.file)
    data = examples(original)
    plan = told(plan, data)
    teachers = [given.file] if plan.distill.teacher.automatic else plan.distill.teacher.files
    as_graph(original)
    check_head(original, data)
    past = [check_unlearnt(path, data, f"Model '{path}'")]
    past += unlearnt_teachers(plan, data)
    fed = list(check_scaling(path, data, f"Model '{path}'"))
    check_by_data(plan, data)
    work = Work(data, plan, device, on_progress, _own_step(given, original, data, plan))
    if work.own_step is not None:
        fed.append(f"fine-tuned by the train_step of {work.own_step.own.name}, without a teacher")
    dense = prepare(original, path.stem, work, teachers)
    named = [] if plan.distill.teacher.automatic else dense.teachers.models
    check_by_models(plan, data, [dense.subject], named)
    if plan.channels.active:
        check_channels(dense.subject.coupling, plan.channels)
    facts = {**given.facts, "data": data.fingerprint()}
    command = command_line(plan, path)
    folder.claim("compress", plan, facts, {"command": command})
    with folder.locked(), folder.logging():
        LOG.info("runs on %s", device.describe())
        folder.clear()
        given.keep()
        write_data_record(folder, data)
        write_examples(folder, data, [path], teachers)
        if not folder.is_compressed(name):
            compress_stage(
                dense,
                work,
                folder,
                command=command,
                before=trained_for(path),
                val_learnt=any(item.validation for item in past),
                notes=tuple(dict.fromkeys([*fed, *(note for item in past for note in item.notes)])),
            )
        measure_stage(folder, plan, on_progress)
        report = render(folder.path)
    (record,) = (item for item in report.compressed if item.model == name)
    made = {
        item.format: folder.path / item.file for item in record.files() if item.variant == "pruned"
    }
    small = load_model(folder.model_file(record.small))
    return CompressResult(small, folder.path, report, made)


def _own_step(
    given: _Given, original: keras.Model, data: Dataset, plan: Plan
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


def write_data_record(folder: RunFolder, data: Dataset) -> None:
    """Stores what later uses of the run's models need to know of the data, and logs its notes."""
    for note in data.notes:
        LOG.info("note: %s", note)
    shapes = {name: list(shape) for name, shape in data.input_shapes.items()}
    write_json(
        folder.data,
        {
            "source": data.name,
            "task": data.kind,
            "input_shape": list(shapes[""]) if "" in shapes else [],
            **({} if "" in shapes else {"input_shapes": shapes}),
            "class_names": list(data.class_names),
            "counts": data.counts(),
            "examples": {part: len(data.split(part)) for part in SPLITS},
            "preprocess": data.preprocess.to_json(),
            "fingerprint": data.fingerprint(),
            "notes": list(data.notes),
        },
    )


def command_line(plan: Plan, model: Path) -> str:
    """Returns the `paretune compress` command that does to `model` what `plan` says."""
    return shlex.join(["paretune", "compress", str(model), *command_words(plan)])

"""Model to compress or to shrink, with its data, plan, device, teachers and coupling groups.

All of it is loaded and analysed once, for the checks and for the work. This module also checks a
plan against models. `compress` checks the model that it compresses. A run has no model yet, so it
checks some models of its search space (the baseline, the smallest, the largest) and refuses options
that none of them supports. An option that only some models support (a pattern of layer names, say)
is dropped for the others, with a note.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from compress.core.errors import FeasibleError, InputError
from compress.core.lazy_modules import keras
from compress.core.summary import OnProgress, ignore_progress
from compress.data import Dataset, Preprocessing
from compress.distillation import make_hints
from compress.distillation.objective import build_logit_losses
from compress.distillation.teachers import find_class_order
from compress.model.heads import list_input_shapes
from compress.model.io import load_model
from compress.plan import LayerPair, LayerShare, Plan
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels import check_channels
from compress.prune.channels.analysis import analyze_coupling
from compress.prune.weights import find_targets
from compress.run.origin import find_origin
from compress.train.predict import find_scaling

if TYPE_CHECKING:
    from compress.core.device import Device
    from compress.devices import DeviceTimes
    from compress.prune.channels.coupling.groups import Coupling
    from compress.train.objective import OwnStepObjective


PlanT = TypeVar("PlanT", bound=Plan)


@dataclass(frozen=True)
class RunContext:
    """Context shared by the stages of one compression.

    Attributes:
        data: Data set: the training part trains, the validation part selects, the test part
            evaluates files.
        plan: Plan of the compression.
        device: Device for training.
        on_progress: Callback invoked with (current step, completed share in [0, 1]).
        own_step: Objective of the model's own `train_step`, if that is used for fine-tuning.
    """

    data: Dataset
    plan: Plan
    device: Device
    on_progress: OnProgress = ignore_progress
    own_step: OwnStepObjective | None = None


@dataclass(frozen=True)
class Teacher:
    """Teacher model, with the metadata needed for inference.

    Attributes:
        path: File of the model.
        model: The model.
        class_names: Names of its output classes, if stored by its run.
        preprocess: Scaling of its inputs; None: that of the data.
    """

    path: Path
    model: keras.Model
    class_names: tuple[str, ...] | None
    preprocess: Preprocessing | None = None


def capture_random_state() -> Callable[[], None]:
    """Return a function that restores the current state of the global random generators.

    Random layers draw their seeds from these.
    """
    python, numpy = random.getstate(), np.random.get_state()

    def restore() -> None:
        random.setstate(python)
        np.random.set_state(numpy)

    return restore


@dataclass(frozen=True)
class LoadedTeachers:
    """Teachers that were loaded under the plan's seed.

    Attributes:
        teachers: Teachers in the plan's order.
        restore_random_state: Function that restores the random generators to their state after
            loading. A student built afterwards has the same random layers, whether its teachers
            were loaded just before or long before.
    """

    teachers: tuple[Teacher, ...]
    restore_random_state: Callable[[], None]


@dataclass(eq=False)
class CoupledModel:
    """Model with its channel coupling, as checks use it.

    Attributes:
        model: The model; it is not changed.
        input_shape: Shape of the data's examples, or a list with the shape of each input.
    """

    model: keras.Model
    input_shape: Any

    @cached_property
    def coupling(self) -> Coupling:
        """Coupling groups of the model's channels, computed on first use.

        Raises:
            InputError: The model is no graph of layers and cannot be traced.
        """
        return analyze_coupling(self.model, self.input_shape)


@dataclass(eq=False)
class CompressionJob(CoupledModel):
    """Model to compress or to shrink, with everything needed for it.

    Attributes:
        path: Path of the model for records; its training history is read from there.
        context: Data, plan, device.
        teachers: Teachers of the student; empty: labels only.
        restore_random_state: Function that restores the random generators to their state when the
            job was prepared.
        notes: Notes so far.
        device_times: Latency table of a remote device; None: latencies are of this machine.
    """

    path: Path
    context: RunContext
    teachers: tuple[Teacher, ...]
    restore_random_state: Callable[[], None]
    notes: tuple[str, ...] = ()
    device_times: DeviceTimes | None = None

    @property
    def name(self) -> str:
        """Name of the model, for files."""
        return self.path.stem

    @property
    def teacher_names(self) -> str:
        """Names of the teachers, as in "0003 and 0007"; "" without teachers."""
        return " and ".join(teacher.path.stem for teacher in self.teachers)

    @property
    def plan(self) -> ShrinkPlan:
        """Plan of a model that is shrunk."""
        assert isinstance(self.context.plan, ShrinkPlan)
        return self.context.plan


def prepare_job(
    model: keras.Model,
    path: Path,
    context: RunContext,
    teachers: LoadedTeachers | Sequence[Path] = (),
    notes: tuple[str, ...] = (),
) -> CompressionJob:
    """Load the teachers and analyse the model, as far as the plan needs it.

    Args:
        model: The original model, a graph of layers; it is not changed.
        path: Path of the model for records.
        context: Plan and data.
        teachers: Files of the teachers, or loaded teachers.
        notes: Notes so far.

    Raises:
        InputError: A teacher cannot be loaded or does not fit, or the model cannot be analysed.
    """
    if not isinstance(teachers, LoadedTeachers):
        teachers = load_seeded_teachers(teachers, context.data, context.plan)
    teachers.restore_random_state()
    shape = list_input_shapes(model, context.data.input_shapes)
    job = CompressionJob(
        model, shape, path, context, teachers.teachers, capture_random_state(), notes
    )
    if context.plan.channels.is_active:
        _ = job.coupling  # it may create layers, which draw seeds
        job.restore_random_state = capture_random_state()
    return job


def load_seeded_teachers(paths: Sequence[Path], data: Dataset, plan: Plan) -> LoadedTeachers:
    """Load teachers once, for the checks and for the work.

    Python's, NumPy's and TensorFlow's global random generators are seeded with `plan.seed`.

    See `load_teachers` for errors.

    Args:
        paths: Files of the teachers.
        data: Data set that the teachers must support.
        plan: Plan with the seed and the section distill.
    """
    keras.utils.set_random_seed(plan.seed)
    return LoadedTeachers(tuple(load_teachers(paths, data, plan)), capture_random_state())


def load_teachers(paths: Sequence[Path], data: Dataset, plan: Plan) -> list[Teacher]:
    """Load teachers and check them.

    Args:
        paths: Files of the teachers; empty if there are none or the pipeline selects them later.
        data: Data set that the teachers must support.
        plan: Plan with the seed and the section distill.

    Raises:
        InputError: A file cannot be read, a scaling cannot be inferred, a model does not fit, or
            the loss does not suit the task.
    """
    if paths or plan.distill.teacher.automatic:
        build_logit_losses(plan.distill.loss, data.task)
    loaded = [load_teacher(path, data, plan) for path in paths]
    for teacher in loaded:
        find_class_order(teacher.model, data, teacher.class_names)
    return loaded


def load_teacher(path: Path, data: Dataset, plan: Plan) -> Teacher:
    """Load a teacher, with the class names and the scaling of its run.

    Without a run, the scaling is inferred on validation examples, as for a model to compress
    (`--normalize`). A scaling set by the user applies to teachers, too.

    Args:
        path: File of the teacher.
        data: Data set that the teacher must support.
        plan: Plan with the sections data and distill.

    Raises:
        InputError: The file cannot be read, or the scaling cannot be inferred.
    """
    origin, model = find_origin(path), load_model(path)
    scaling = origin.preprocess if origin is not None else None
    has_unknown_scaling = plan.data.normalize == "auto" and data.max_value is not None
    # a teacher that the pipeline selects itself is the model itself or one of this run
    if origin is None and has_unknown_scaling and not plan.distill.teacher.automatic:
        scaling = find_scaling(model, data, f"Teacher '{path}'").preprocess
    return Teacher(path, model, origin.class_names if origin is not None else None, scaling)


ModelCheck = Callable[[CoupledModel], None]
"""Function that raises `InputError` if a model does not support an option."""
PlanItem = tuple[str, str, Any]
"""Droppable part of a plan: section, field and item of a list."""


def iterate_checks(
    plan: Plan, teachers: Sequence[keras.Model | None]
) -> Iterator[tuple[str, ModelCheck, PlanItem | None]]:
    """Yield the checks of a plan's options on a model.

    Args:
        plan: Plan with the sections channels, weights and distill.
        teachers: Possible teachers; None stands for the model itself.

    Yields:
        Name of the option for notes ("channel exclusion 'stem*'"), check that raises
        `InputError` for a model without support, and the plan item to drop for such a model;
        None: the option cannot be dropped.
    """
    if plan.channels.is_active:
        yield f"channels {plan.channels.target}", _build_channel_check(plan), None
        for pattern in plan.channels.exclude:
            yield (
                f"channel exclusion '{pattern}'",
                _build_channel_check(plan, target=None, exclude=(pattern,)),
                ("channels", "exclude", pattern),
            )
    if plan.weights.sparsity > 0:
        for override in plan.weights.overrides:
            yield (
                f"pruning override '{override}'",
                _build_weight_check(plan, override),
                ("weights", "overrides", override),
            )
    if plan.distill.teacher.automatic or plan.distill.teacher.files:
        for pair in plan.distill.feature_pairs:
            run = _build_hint_check(plan, teachers, (pair,))
            yield f"feature pair '{pair}'", run, ("distill", "feature_pairs", pair)
        if plan.distill.feature_losses and not plan.distill.feature_pairs:
            yield (
                f"feature losses {', '.join(plan.distill.feature_losses)}",
                _build_hint_check(plan, teachers, ()),
                None,
            )


def check_by_models(
    plan: Plan,
    coupled_models: Sequence[CoupledModel],
    teachers: Sequence[keras.Model] = (),
) -> None:
    """Check that each option of a plan is supported by at least one of the models.

    Args:
        plan: Plan with the sections channels, weights and distill.
        coupled_models: The model to compress, or examples of those that may be compressed.
        teachers: Known teachers, the first of which gives features; empty: the models themselves.

    Raises:
        InputError: No model supports an option; the error is that of the first model.
    """
    teacher_models = teachers[:1] or [coupled_model.model for coupled_model in coupled_models]
    for _, run, _ in iterate_checks(plan, teacher_models):
        errors = [error for item in coupled_models if (error := _run_check(run, item)) is not None]
        if coupled_models and len(errors) == len(coupled_models):
            raise errors[0]


def fit_plan(
    plan: PlanT, coupled_model: CoupledModel, teacher: keras.Model | None
) -> tuple[PlanT, list[str]]:
    """Drop the options of a plan for many models that one of them does not support.

    Targets are kept: a model that cannot meet a target is handled separately (`FeasibleError`).

    Args:
        plan: Plan for many models.
        coupled_model: The model.
        teacher: Its teacher; None: the model itself.

    Returns:
        The plan for this model, and notes on dropped options.
    """
    notes = []
    for description, run, item in iterate_checks(plan, [teacher]):
        error = None if item is None else _run_check(run, coupled_model)
        if item is not None and error is not None and not isinstance(error, FeasibleError):
            plan = _drop_item(plan, *item)
            notes.append(f"{description} was left out for this model: {error}")
    return plan, notes


def _drop_item(plan: PlanT, section: str, field: str, item: object) -> PlanT:
    """Return a plan without one item of a list; without layer pairs it has no feature losses."""
    options = getattr(plan, section)
    kept = tuple(other for other in getattr(options, field) if other != item)
    more = {"feature_losses": ()} if field == "feature_pairs" and not kept else {}
    return replace(plan, **{section: replace(options, **{field: kept}, **more)})


def _build_channel_check(plan: Plan, **changes: Any) -> ModelCheck:
    options = replace(plan.channels, **{"exclude": (), **changes})
    return lambda coupled_model: check_channels(coupled_model.coupling, options)


def _build_weight_check(plan: Plan, override: LayerShare) -> ModelCheck:
    options = replace(plan.weights, overrides=(override,))

    def run(coupled_model: CoupledModel) -> None:
        find_targets(coupled_model.model, include=options.include, overrides=options.overrides)

    return run


def _build_hint_check(
    plan: Plan, teachers: Sequence[keras.Model | None], pairs: tuple[LayerPair, ...]
) -> ModelCheck:
    options = replace(plan.distill, feature_pairs=pairs)

    def run(coupled_model: CoupledModel) -> None:
        model, errors = coupled_model.model, []
        for teacher in teachers:
            try:
                make_hints(model, teacher or model, options, plan.seed)
            except InputError as error:
                errors.append(error)
        if len(errors) == len(teachers):
            raise errors[0]

    return run


def _run_check(check: ModelCheck, coupled_model: CoupledModel) -> InputError | None:
    try:
        check(coupled_model)
    except InputError as error:
        return error
    return None

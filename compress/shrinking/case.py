"""A model to compress or to shrink, and what goes with it: data, plan, device, teachers, coupling.

All of it is loaded and found out once, for the checks and for the work. What a plan asks of models
is checked here: `compress` has the model that it will shrink. A run has none yet: it asks models of
its space (the baseline, the smallest, the largest), and what none of them can do is refused. What
only some of them can do (a pattern of layer names, say) is left out where a model cannot, and its
notes say so.
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
from compress.core.summary import OnProgress, silent
from compress.data import Dataset, Preprocessing
from compress.distillation import make_hints
from compress.distillation.setup import logit_losses
from compress.distillation.teachers import class_order
from compress.model.heads import counted_at
from compress.model.io import load_model
from compress.plan import LayerPair, LayerShare, Plan
from compress.plan.shrink import ShrinkPlan
from compress.prune.channels import check_channels
from compress.prune.channels.analysis import coupling_of
from compress.prune.weights import find_targets
from compress.run.origin import origin_of
from compress.train.predict import find_scaling

if TYPE_CHECKING:
    import keras

    from compress.core.device import Device
    from compress.devices import DeviceTimes
    from compress.prune.channels.coupling.groups import Coupling
    from compress.train.objective import OwnStepObjective


PlanT = TypeVar("PlanT", bound=Plan)


@dataclass(frozen=True)
class Work:
    """What the stages of one compression share.

    Attributes:
        data: The training part trains, the validation part selects, the test part judges files.
        plan: What to do.
        device: What to train on.
        progress: Told how far it is.
        own_step: Of the model, where its own `train_step` fine-tunes.
    """

    data: Dataset
    plan: Plan
    device: Device
    progress: OnProgress = silent
    own_step: OwnStepObjective | None = None


@dataclass(frozen=True)
class Teacher:
    """A teacher's model and what it takes to ask it.

    Attributes:
        path: Its file.
        model: The model.
        class_names: Of its outputs, where its run stored them.
        preprocess: The scaling that it is fed with; None: that of the data.
    """

    path: Path
    model: keras.Model
    class_names: tuple[str, ...] | None
    preprocess: Preprocessing | None = None


def keep_draws() -> Callable[[], None]:
    """Return what puts the global generators back to where they stand now.

    Layers that are random draw their seeds from them.
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
        each: In the plan's order.
        restore_draws: Puts the generators to where loading them left these: a student that is
            made next has the same random layers whether its teachers were loaded just now or long
            before.
    """

    each: tuple[Teacher, ...]
    restore_draws: Callable[[], None]


@dataclass(eq=False)
class Subject:
    """A model that checks look at.

    Attributes:
        model: Stays as it is.
        input_shape: Of the data's examples; of several inputs a list of shapes.
    """

    model: keras.Model
    input_shape: Any

    @cached_property
    def coupling(self) -> Coupling:
        """Which channels belong together; found out when it is first asked for.

        Raises:
            InputError: The model is no graph and cannot be traced.
        """
        return coupling_of(self.model, self.input_shape)


@dataclass(eq=False)
class Case(Subject):
    """A model to compress or to shrink, ready for that.

    Attributes:
        path: As records call it; where it is known how long it was trained.
        work: Data, plan, device.
        teachers: Of the student; none: labels only.
        restore_draws: Puts the global generators to where they stood when all this was made.
        notes: What is known already.
        val_learnt: The model or a teacher has learnt the validation part: it selects nothing.
        device: Times of the device that a latency is of; None: it is of this machine.
    """

    path: Path
    work: Work
    teachers: tuple[Teacher, ...]
    restore_draws: Callable[[], None]
    notes: tuple[str, ...] = ()
    val_learnt: bool = False
    device: DeviceTimes | None = None

    @property
    def name(self) -> str:
        """In names of files."""
        return self.path.stem

    @property
    def teacher_names(self) -> str:
        """In words: "0003 and 0007"; nothing where there are none."""
        return " and ".join(teacher.path.stem for teacher in self.teachers)

    @property
    def plan(self) -> ShrinkPlan:
        """What is to be done, where it is shrunk."""
        assert isinstance(self.work.plan, ShrinkPlan)
        return self.work.plan


def prepare(
    model: keras.Model,
    path: Path,
    work: Work,
    teachers: LoadedTeachers | Sequence[Path] = (),
    notes: tuple[str, ...] = (),
    *,
    val_learnt: bool = False,
) -> Case:
    """Load the teachers and analyses the model, as far as the plan needs it.

    Args:
        model: The dense model, a graph; it stays as it is.
        path: As records call it.
        work: Plan and data.
        teachers: Their files, or what was loaded of them.
        notes: What is known already.
        val_learnt: The model or a teacher has learnt the validation part.

    Raises:
        InputError: A teacher cannot be loaded or does not fit, or the model cannot be analysed.
    """
    if not isinstance(teachers, LoadedTeachers):
        teachers = seeded_teachers(teachers, work.data, work.plan)
    teachers.restore_draws()
    shape = counted_at(model, work.data.input_shapes)
    case = Case(model, shape, path, work, teachers.each, keep_draws(), notes, val_learnt)
    if work.plan.channels.active:
        _ = case.coupling  # it may make layers anew, whose seeds are drawn
        case.restore_draws = keep_draws()
    return case


def seeded_teachers(paths: Sequence[Path], data: Dataset, plan: Plan) -> LoadedTeachers:
    """Load teachers once, for the checks and for the work.

    Python's, NumPy's and TensorFlow's global random generators are seeded by `plan.seed`.

    Args, Raises: see `load_teachers`.
    """
    import keras

    keras.utils.set_random_seed(plan.seed)
    return LoadedTeachers(tuple(load_teachers(paths, data, plan)), keep_draws())


def load_teachers(paths: Sequence[Path], data: Dataset, plan: Plan) -> list[Teacher]:
    """Load teachers and checks them.

    Args:
        paths: Their files; none where none teaches, or where the pipeline chooses later.
        data: What they have to answer.
        plan: Seed and section distill.

    Raises:
        InputError: A file cannot be read, a scaling cannot be found, a model does not fit, or
            the loss does not suit the task.
    """
    if paths or plan.distill.teacher.automatic:
        logit_losses(plan.distill.loss, data.task)
    loaded = [load_teacher(path, data, plan) for path in paths]
    for teacher in loaded:
        class_order(teacher.model, data, teacher.class_names)
    return loaded


def load_teacher(path: Path, data: Dataset, plan: Plan) -> Teacher:
    """Load a teacher; its run's class names and scaling come with it.

    The scaling of one from elsewhere is found on validation examples, as `--normalize` does
    of a model to compress; one that is given is for the teachers too.

    Raises:
        InputError: The file cannot be read, or the scaling cannot be found.
    """
    origin, model = origin_of(path), load_model(path)
    scaling = origin.preprocess if origin is not None else None
    by_answers = plan.data.normalize == "auto" and data.max_value is not None
    # what is left to the pipeline is the model itself, or one of this run
    if origin is None and by_answers and not plan.distill.teacher.automatic:
        scaling = find_scaling(model, data, f"Teacher '{path}'").preprocess
    return Teacher(path, model, origin.class_names if origin is not None else None, scaling)


Run = Callable[[Subject], None]
"""Raises InputError where a model cannot do what it is named after."""
Item = tuple[str, str, Any]
"""What a plan can do without: section, field and item of the list."""


def checks_of(
    plan: Plan, data: Dataset, teachers: Sequence[keras.Model | None]
) -> Iterator[tuple[str, Run, Item | None]]:
    """Yield what a plan asks of each model.

    Args:
        plan: Sections channels, weights and distill.
        data: Of the models.
        teachers: One of them will teach; None: the model itself.

    Yields:
        As notes name it ("channel limit 'conv1*=0.3'"), what raises InputError where a model cannot
        do it, and what is left out of the plan then; None: a model that cannot do it is not
        compressed otherwise.
    """
    if plan.channels.active:
        yield f"channels {plan.channels.target}", _channels(plan), None
        for field, what in (("limits", "channel limit"), ("exclude", "channel exclusion")):
            for pattern in getattr(plan.channels, field):
                yield (
                    f"{what} '{pattern}'",
                    # of a target that any model meets
                    _channels(plan, target_metric="amount", target=0.0, **{field: (pattern,)}),
                    ("channels", field, pattern),
                )
    if plan.weights.sparsity > 0:
        for override in plan.weights.overrides:
            yield (
                f"pruning override '{override}'",
                _weights(plan, override),
                ("weights", "overrides", override),
            )
    if plan.distill.teacher.automatic or plan.distill.teacher.files:
        for pair in plan.distill.pairs:
            run = _hints(plan, data, teachers, (pair,))
            yield f"hint pair '{pair}'", run, ("distill", "pairs", pair)
        if plan.distill.hints and not plan.distill.pairs:
            yield f"hints {', '.join(plan.distill.hints)}", _hints(plan, data, teachers, ()), None


def check_by_models(
    plan: Plan,
    data: Dataset,
    subjects: Sequence[Subject],
    teachers: Sequence[keras.Model] = (),
) -> None:
    """Check that of what the plan asks each thing can be done by one of the models.

    Args:
        plan: Sections channels, weights and distill.
        data: Of the models.
        subjects: The model that will be compressed, or some of those that may be.
        teachers: Known ones, of which the first gives hints; else the models themselves.

    Raises:
        InputError: No model can; the error is that of the first.
    """
    known = teachers[:1] or [subject.model for subject in subjects]
    for _, run, _ in checks_of(plan, data, known):
        errors = [error for item in subjects if (error := _failure(run, item)) is not None]
        if subjects and len(errors) == len(subjects):
            raise errors[0]


def fitting(
    plan: PlanT, data: Dataset, subject: Subject, teacher: keras.Model | None
) -> tuple[PlanT, list[str]]:
    """Leave out of a plan for many models what one of them cannot do.

    Targets stay: a model that cannot meet one is a case of its own (`FeasibleError`).

    Returns:
        The plan for this model, and notes on what was left out.
    """
    notes = []
    for what, run, item in checks_of(plan, data, [teacher]):
        error = None if item is None else _failure(run, subject)
        if item is not None and error is not None and not isinstance(error, FeasibleError):
            plan = _without(plan, *item)
            notes.append(f"{what} was left out for this model: {error}")
    return plan, notes


def _without(plan: PlanT, section: str, field: str, item: object) -> PlanT:
    """Return a plan without one item of a list; hints go with the last of their pairs."""
    options = getattr(plan, section)
    kept = tuple(other for other in getattr(options, field) if other != item)
    more = {"hints": ()} if field == "pairs" and not kept else {}
    return replace(plan, **{section: replace(options, **{field: kept}, **more)})


def _channels(plan: Plan, **changes: Any) -> Run:
    options = replace(plan.channels, **{"limits": (), "exclude": (), **changes})
    return lambda subject: check_channels(subject.coupling, options)


def _weights(plan: Plan, override: LayerShare) -> Run:
    options = replace(plan.weights, overrides=(override,))

    def run(subject: Subject) -> None:
        find_targets(subject.model, include=options.include, overrides=options.overrides)

    return run


def _hints(
    plan: Plan, data: Dataset, teachers: Sequence[keras.Model | None], pairs: tuple[LayerPair, ...]
) -> Run:
    options = replace(plan.distill, pairs=pairs)

    def run(subject: Subject) -> None:
        model, errors = subject.model, []
        for teacher in teachers:
            try:
                make_hints(model, teacher or model, options, data.task, plan.seed)
            except InputError as error:
                errors.append(error)
        if len(errors) == len(teachers):
            raise errors[0]

    return run


def _failure(run: Run, subject: Subject) -> InputError | None:
    try:
        run(subject)
    except InputError as error:
        return error
    return None

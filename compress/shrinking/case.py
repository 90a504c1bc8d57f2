"""A model to compress or to shrink, and what goes with it: data, plan, device, teachers, coupling.

All of it is loaded and found out once, for the checks and for the work.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.summary import OnProgress, silent
from compress.data import Dataset, Preprocessing
from compress.model.heads import counted_at
from compress.model.io import load_model
from compress.plan import Plan
from compress.plan.shrink import ShrinkPlan
from compress.run.origin import origin_of
from compress.train.scaling import find_scaling

if TYPE_CHECKING:
    import keras

    from compress.core.device import Device
    from compress.devices import DeviceTimes
    from compress.prune.channels.coupling.groups import Coupling
    from compress.train.objective import OwnStepObjective


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


@dataclass(frozen=True)
class Draws:
    """Where the global generators stand; layers that are random draw their seeds from them."""

    python: Any
    numpy: Any

    @classmethod
    def now(cls) -> Draws:
        """Returns where they stand."""
        return cls(random.getstate(), np.random.get_state())

    def restore(self) -> None:
        """Puts them there again."""
        random.setstate(self.python)
        np.random.set_state(self.numpy)


@dataclass(frozen=True)
class LoadedTeachers:
    """Teachers that were loaded under the plan's seed.

    Attributes:
        each: In the plan's order.
        draws: Where loading them left the generators: a student that is made next has the
            same random layers whether its teachers were loaded just now or long before.
    """

    each: tuple[Teacher, ...]
    draws: Draws


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
        from compress.prune.channels.analysis import coupling_of

        return coupling_of(self.model, self.input_shape)


@dataclass(eq=False)
class Case(Subject):
    """A model to compress or to shrink, ready for that.

    Attributes:
        path: As records call it; where it is known how long it was trained.
        work: Data, plan, device.
        teachers: Of the student; none: labels only.
        draws: Where the global generators stood when all this was made.
        notes: What is known already.
        val_learnt: The model or a teacher has learnt the validation part: it selects nothing.
        device: Times of the device that a latency is of; None: it is of this machine.
    """

    path: Path
    work: Work
    teachers: tuple[Teacher, ...]
    draws: Draws
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
    """Loads the teachers and analyses the model, as far as the plan needs it.

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
    teachers.draws.restore()
    case = Case(
        model, counted_at(model, work.data.input_shapes), path, work, teachers.each, teachers.draws,
        notes, val_learnt,
    )  # fmt: skip
    if work.plan.channels.active:
        _ = case.coupling  # it may make layers anew, whose seeds are drawn
    case.draws = Draws.now()
    return case


def seeded_teachers(paths: Sequence[Path], data: Dataset, plan: Plan) -> LoadedTeachers:
    """Loads teachers once, for the checks and for the work.

    Python's, NumPy's and TensorFlow's global random generators are seeded by `plan.seed`.

    Args, Raises: see `load_teachers`.
    """
    import keras

    keras.utils.set_random_seed(plan.seed)
    return LoadedTeachers(tuple(load_teachers(paths, data, plan)), Draws.now())


def load_teachers(paths: Sequence[Path], data: Dataset, plan: Plan) -> list[Teacher]:
    """Loads teachers and checks them.

    Args:
        paths: Their files; none where none teaches, or where the pipeline chooses later.
        data: What they have to answer.
        plan: Seed and section distill.

    Raises:
        InputError: A file cannot be read, a scaling cannot be found, a model does not fit, or
            the loss does not suit the task.
    """
    from compress.distillation.setup import logit_losses
    from compress.distillation.teachers import class_order

    if paths or plan.distill.teacher.automatic:
        logit_losses(plan.distill.loss, data.task)
    loaded = [load_teacher(path, data, plan) for path in paths]
    for teacher in loaded:
        class_order(teacher.model, data, teacher.class_names)
    return loaded


def load_teacher(path: Path, data: Dataset, plan: Plan) -> Teacher:
    """Loads a teacher; its run's class names and scaling come with it.

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

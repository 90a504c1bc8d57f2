"""The teachers' files, loaded once: with class names, scaling, and whether they fit the data."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.data import Dataset, Preprocessing
from compress.model.io import load_model
from compress.plan import Plan
from compress.run.origin import origin_of
from compress.train.scaling import find_scaling

if TYPE_CHECKING:
    import keras


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

    @property
    def models(self) -> list[keras.Model]:
        """Their models."""
        return [teacher.model for teacher in self.each]


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

"""A model to compress and what is found out about it: once, for the checks and for the work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.model.heads import counted_at
from compress.shrinking.context import Work
from compress.shrinking.teachers import Draws, LoadedTeachers, seeded_teachers

if TYPE_CHECKING:
    import keras

    from compress.prune.channels.coupling.groups import Coupling


@dataclass(frozen=True, eq=False)
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


@dataclass(frozen=True)
class Prepared:
    """A model that is ready to be compressed.

    Attributes:
        name: In names of files.
        subject: The dense model and its coupling.
        teachers: Of the student; none: labels only.
        draws: Where the global generators stood when all this was made.
    """

    name: str
    subject: Subject
    teachers: LoadedTeachers
    draws: Draws

    @property
    def model(self) -> keras.Model:
        """The dense model; it stays as it is."""
        return self.subject.model


def prepare(
    model: keras.Model, name: str, work: Work, teachers: LoadedTeachers | Sequence[Path] = ()
) -> Prepared:
    """Loads the teachers and analyses the model, as far as the plan needs it.

    Args:
        model: The dense model, a graph.
        name: In names of files.
        work: Plan and data.
        teachers: Their files, or what was loaded of them.

    Raises:
        InputError: A teacher cannot be loaded or does not fit, or the model cannot be analysed.
    """
    if not isinstance(teachers, LoadedTeachers):
        teachers = seeded_teachers(teachers, work.data, work.plan)
    teachers.draws.restore()
    subject = Subject(model, counted_at(model, work.data.input_shapes))
    if work.plan.channels.active:
        _ = subject.coupling  # it may make layers anew, whose seeds are drawn
    return Prepared(name, subject, teachers, Draws.now())

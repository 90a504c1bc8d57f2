"""Plan section: knowledge distillation; values for ramps, teachers and pairs of layers."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from compress.core.errors import InputError, one_line
from compress.core.lazy_modules import tf
from compress.core.quantities import number_text, parse_number
from compress.plan.fields import Choices, option, require, settle
from compress.plan.forms import Given, Names, Written, joined, listed, real, text_of
from compress.plan.weights import percent_text
from compress.plugins import HINTS, LOGIT_LOSSES


@dataclass(frozen=True)
class Ramp(Written):
    """A value that changes linearly from `start` to `end` over a share of the training.

    Attributes:
        start, end: Values before and after.
        until: Share of the training, in (0, 1]; from there on the value is `end`.

    Example:
        >>> Ramp.parse("0:0.7@20%")
        Ramp(start=0.0, end=0.7, until=0.2)
    """

    start: float
    end: float
    until: float = 1.0

    @classmethod
    def constant(cls, value: float) -> Self:
        """Return a number that stays."""
        return cls(float(value), float(value))

    @classmethod
    def parse(cls, text: str, name: str = "a number") -> Self:
        """Read "4" (constant), "8:2" (over the whole training) or "0:0.7@20%".

        Raises:
            InputError: It is none of them.
        """
        try:
            values, _, until = text.partition("@")
            start, _, end = values.partition(":")
            share = parse_number(until, "share") if until else 1.0
            ramp = cls(float(start), float(end or start), 0.0 if share is None else share)
        except ValueError:
            ramp = cls(0.0, 0.0, 0.0)
        if not 0 < ramp.until <= 1 or not abs(ramp.start) + abs(ramp.end) <= 1e30:
            raise InputError(
                f"{name} must be a number, a ramp 'from:to' over the training, or 'from:to@20%' "
                f"over its first fifth. Received: {one_line(repr(text))}."
            )
        return ramp

    @classmethod
    def of(cls, value: object, name: str = "a number") -> Self:
        """Take a number, or a pair (from, to), too."""
        ends = value if isinstance(value, tuple | list) and len(value) == 2 else (value,)
        texts = [number_text(number) for end in ends if (number := real(end)) is not None]
        return super().of(":".join(texts) if len(texts) == len(ends) else value, name)

    @property
    def largest(self) -> float:
        """The largest value on the way."""
        return max(self.start, self.end)

    @property
    def smallest(self) -> float:
        """The smallest value on the way."""
        return min(self.start, self.end)

    def at(self, progress: Any) -> Any:
        """Return the value when a share of the training is done (a number or a tensor)."""
        if self.start == self.end:
            return self.start
        return self.start + (self.end - self.start) * tf.minimum(progress / self.until, 1.0)

    def plain(self) -> float | str:
        """Return the number where it stays, else the text."""
        return self.start if self == self.constant(self.start) else str(self)

    def __str__(self) -> str:
        if self == self.constant(self.start):
            return number_text(self.start)
        text = f"{number_text(self.start)}:{number_text(self.end)}"
        if self.until == 1.0:
            return text
        return f"{text}@{percent_text(self.until) or number_text(self.until)}"


AUTOMATIC = "auto"
NOBODY = "none"


@dataclass(frozen=True)
class TeacherChoice(Written):
    """The teachers of a plan.

    Attributes:
        files: Models that were named.
        automatic: Whether the pipeline chooses: the best candidate of a run, or the unpruned
            model itself.

    Example:
        >>> TeacherChoice.parse("none")
        TeacherChoice(files=(), automatic=False)
    """

    files: tuple[Path, ...] = ()
    automatic: bool = False

    @classmethod
    def parse(cls, text: str, name: str = "teacher") -> Self:
        """Read "auto", "none" or files with commas between.

        Raises:
            InputError: Files stand beside "auto" or "none".
        """
        return cls._named(listed(text), name)

    @classmethod
    def of(cls, value: object, name: str = "teacher") -> Self:
        """Take a path or a list of them too; None: nobody."""
        if value is None:
            return cls()
        if isinstance(value, os.PathLike):
            return cls((Path(value),))
        if isinstance(value, str | cls):
            return super().of(value, name)
        names: list[Any] = list(value) if isinstance(value, Iterable) else [value]
        if not all(isinstance(item, (str, os.PathLike)) for item in names):
            raise InputError(f"{name} must be auto, none, or files. Received: {one_line(value)}.")
        return cls._named([os.fspath(item) for item in names if item], name)

    @classmethod
    def _named(cls, names: Iterable[str], name: str) -> Self:
        names = tuple(names)
        words = {AUTOMATIC, NOBODY} & {*names}
        if len(names) > 1 and words:
            raise InputError(
                f"{name} must be auto, none, or files alone. "
                f"Received: '{joined(names)}'. Name every file."
            )
        if any("\0" in item for item in names):
            raise InputError(f"{name} must hold no NUL character. Received: {joined(names)!r}.")
        return cls(() if words else tuple(map(Path, names)), automatic=AUTOMATIC in words)

    def plain(self) -> list[str]:
        """Return the names."""
        if self.files:
            return [str(path) for path in self.files]
        return [AUTOMATIC if self.automatic else NOBODY]

    def __str__(self) -> str:
        return joined(self.plain())


AUTO = TeacherChoice(automatic=True)


NO_LOSS = "none"


@dataclass(frozen=True)
class LayerPair(Written):
    """A layer of the student and one of the teacher.

    Attributes:
        student, teacher: Names.

    Example:
        >>> str(LayerPair("conv2", "conv3"))
        'conv2=conv3'
    """

    student: str
    teacher: str

    @classmethod
    def parse(cls, text: str, name: str = "a hint pair") -> Self:
        """Read "student=teacher".

        Raises:
            InputError: One of the names is missing.
        """
        student, _, teacher = (part.strip() for part in text.partition("="))
        if not (student and teacher):
            raise InputError(
                f"{name} must be student_layer=teacher_layer. Received: '{one_line(text)}'."
            )
        return cls(student, teacher)

    @classmethod
    def of(cls, value: object, name: str = "a hint pair") -> Self:
        """Take a pair of names too, as a dictionary's items are."""
        if (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(isinstance(part, str) for part in value)
        ):
            value = "=".join(value)
        return super().of(value, name)

    def __str__(self) -> str:
        return f"{self.student}={self.teacher}"


Changing = Given[Ramp, Ramp | float | str]
"""A number, or one that changes: "8:2", "0:0.7@20%"."""
Teacher = TeacherChoice | str | Path | Iterable[str | Path] | None
Pair = str | LayerPair | tuple[str, str]


@dataclass(frozen=True)
class DistillOptions:
    """Knowledge distillation during fine-tuning: teachers, losses and weights.

    The loss is (1 - w) x label loss + w x loss on logits + the hints, each with its weight.
    `temperature`, `weight` and `hint_weight` are numbers, or ramps: "8:2" goes from 8 to 2
    during the training, "0:0.7@20%" reaches 0.7 after a fifth of it and stays.
    """

    teacher: Given[TeacherChoice, Teacher] = option(
        AUTO,
        "--teacher",
        "a .keras file, or several with commas (double quotes around a name with a comma); auto: "
        "the best candidate of the run, else the unpruned model itself; none: labels only",
    )
    teacher_weights: Given[tuple[float, ...], Iterable[float] | str] = option(
        (), "--teacher-weights", "weights of several teachers, with commas; default: all equal"
    )
    loss: str = option(
        "kd",
        "--distill-loss",
        "distillation loss on logits: " + ", ".join((*LOGIT_LOSSES, NO_LOSS)),
        choices=LOGIT_LOSSES,
        beside=(NO_LOSS,),
    )
    temperature: Changing = option(
        Ramp.constant(4.0),
        "--temperature",
        "softens both distributions; 8:2 goes from 8 to 2 during the training",
    )
    weight: Changing = option(
        Ramp.constant(0.7),
        "--distill-weight",
        "share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth",
    )
    hints: Names = option(
        (),
        "--hints",
        "distillation losses on features: " + ", ".join(HINTS),
        choices=HINTS,
    )
    hint_weight: Changing = option(
        Ramp.constant(1.0), "--hint-weight", "factor on each hint's own usual weight"
    )
    pairs: Given[tuple[LayerPair, ...], Iterable[Pair] | Mapping[str, str]] = option(
        (),
        "--hint-pairs",
        "layers to compare, student_layer=teacher_layer, with commas; default: by resolution and "
        "depth",
    )
    cache: str = option(
        "auto",
        "--teacher-cache",
        "where the teacher's outputs are kept: memory, disk, off (it runs at every step), or "
        "auto: memory up to --cache-limit, disk above; always off under --augment",
        choices=Choices("teacher cache", ("auto", "memory", "disk", "off")),
    )
    cache_limit: int = option(
        1024, "--cache-limit", "MiB of teacher outputs to keep in memory; or 2GB, 2GiB", least=0,
        most=2**30, why="that is a pebibyte", unit="MiB",
    )  # fmt: skip

    def __post_init__(self) -> None:
        settle(self)
        require(self.temperature.smallest > 0, "temperature", "be above 0", self.temperature)
        within = self.weight.smallest >= 0 and self.weight.largest <= 1
        require(within, "distill_weight", "be in [0, 1]", self.weight)
        require(self.hint_weight.smallest >= 0, "hint_weight", "be at least 0", self.hint_weight)
        require(
            all(0 < weight < 1e30 for weight in self.teacher_weights),
            "teacher_weights",
            "be numbers above 0, with commas",
            text_of(self.teacher_weights),
        )
        if self.pairs and not self.hints:
            raise InputError("hint_pairs must come with hints. Give hints too, or no pairs.")

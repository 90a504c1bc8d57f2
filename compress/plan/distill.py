"""Plan section: knowledge distillation, with values for ramps, teachers and layer pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from compress.core.errors import InputError, to_one_line
from compress.core.lazy_modules import tf
from compress.core.quantities import format_number, parse_number
from compress.plan.conversion import (
    ConvertedField,
    NameList,
    TextValue,
    format_value,
    join_items,
    split_items,
    to_float,
)
from compress.plan.fields import Choices, option, require, validate_fields
from compress.plan.weights import format_percent
from compress.plugins import HINTS, LOGIT_LOSSES


@dataclass(frozen=True)
class Ramp(TextValue):
    """Value that changes linearly from `start` to `end` during a share of the training.

    Attributes:
        start, end: Values before and after the ramp.
        until: Share of the training, in (0, 1], after which the value is `end`.

    Example:
        >>> Ramp.parse("0:0.7@20%")
        Ramp(start=0.0, end=0.7, until=0.2)
    """

    start: float
    end: float
    until: float = 1.0

    @classmethod
    def from_number(cls, value: float) -> Self:
        """Return a constant ramp."""
        return cls(float(value), float(value))

    @classmethod
    def parse(cls, text: str, name: str = "a number") -> Self:
        """Return the ramp of a text: "4" (constant), "8:2" (whole training) or "0:0.7@20%".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: The text has another form.
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
                f"over its first fifth. Received: {to_one_line(repr(text))}."
            )
        return ramp

    @classmethod
    def from_value(cls, value: object, name: str = "a number") -> Self:
        """Return the ramp of a text, of a number, or of a pair (from, to).

        Args:
            value: The text, number, pair or ramp.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`.
        """
        ends = value if isinstance(value, tuple | list) and len(value) == 2 else (value,)
        texts = [format_number(number) for end in ends if (number := to_float(end)) is not None]
        return super().from_value(":".join(texts) if len(texts) == len(ends) else value, name)

    @property
    def maximum(self) -> float:
        """Largest value during training."""
        return max(self.start, self.end)

    @property
    def minimum(self) -> float:
        """Smallest value during training."""
        return min(self.start, self.end)

    def interpolate(self, progress: Any) -> Any:
        """Return the value of the ramp at a time.

        Args:
            progress: Completed share of the training, a number or tensor.
        """
        if self.start == self.end:
            return self.start
        return self.start + (self.end - self.start) * tf.minimum(progress / self.until, 1.0)

    def to_plain(self) -> float | str:
        """Return the number of a constant ramp, or the text of another one."""
        return self.start if self == self.from_number(self.start) else str(self)

    def __str__(self) -> str:
        if self == self.from_number(self.start):
            return format_number(self.start)
        text = f"{format_number(self.start)}:{format_number(self.end)}"
        if self.until == 1.0:
            return text
        return f"{text}@{format_percent(self.until) or format_number(self.until)}"


AUTOMATIC = "auto"
NO_TEACHER = "none"


@dataclass(frozen=True)
class TeacherChoice(TextValue):
    """Teachers of a plan.

    Attributes:
        files: Files of given models.
        automatic: Whether the teacher is selected automatically: the best candidate of a run, or
            the unpruned model itself.

    Example:
        >>> TeacherChoice.parse("none")
        TeacherChoice(files=(), automatic=False)
    """

    files: tuple[Path, ...] = ()
    automatic: bool = False

    @classmethod
    def parse(cls, text: str, name: str = "teacher") -> Self:
        """Return the teachers of a text: "auto", "none" or comma-separated files.

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: Files are combined with "auto" or "none".
        """
        return cls._from_names(split_items(text), name)

    @classmethod
    def from_value(cls, value: object, name: str = "teacher") -> Self:
        """Return the teachers of a text, of a path, of a list of paths, or none for None.

        Args:
            value: The text, path, list or choice.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`; or the value has another form.
        """
        if value is None:
            return cls()
        if isinstance(value, os.PathLike):
            return cls((Path(value),))
        if isinstance(value, str | cls):
            return super().from_value(value, name)
        names: list[Any] = list(value) if isinstance(value, Iterable) else [value]
        if not all(isinstance(item, (str, os.PathLike)) for item in names):
            raise InputError(
                f"{name} must be auto, none, or files. Received: {to_one_line(value)}."
            )
        return cls._from_names([os.fspath(item) for item in names if item], name)

    @classmethod
    def _from_names(cls, names: Iterable[str], name: str) -> Self:
        names = tuple(names)
        words = {AUTOMATIC, NO_TEACHER} & {*names}
        if len(names) > 1 and words:
            raise InputError(
                f"{name} must be auto, none, or files alone. "
                f"Received: '{join_items(names)}'. Name every file."
            )
        if any("\0" in item for item in names):
            raise InputError(f"{name} must hold no NUL character. Received: {join_items(names)!r}.")
        return cls(() if words else tuple(map(Path, names)), automatic=AUTOMATIC in words)

    def to_plain(self) -> list[str]:
        """Return the names of the files, or "auto" or "none", as a list."""
        if self.files:
            return [str(path) for path in self.files]
        return [AUTOMATIC if self.automatic else NO_TEACHER]

    def __str__(self) -> str:
        return join_items(self.to_plain())


AUTO = TeacherChoice(automatic=True)


NO_LOSS = "none"


@dataclass(frozen=True)
class LayerPair(TextValue):
    """Pair of a student layer and a teacher layer.

    Attributes:
        student, teacher: Names of the layers.

    Example:
        >>> str(LayerPair("conv2", "conv3"))
        'conv2=conv3'
    """

    student: str
    teacher: str

    @classmethod
    def parse(cls, text: str, name: str = "a hint pair") -> Self:
        """Return the pair of a text "student=teacher".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: A name is missing.
        """
        student, _, teacher = (part.strip() for part in text.partition("="))
        if not (student and teacher):
            raise InputError(
                f"{name} must be student_layer=teacher_layer. Received: '{to_one_line(text)}'."
            )
        return cls(student, teacher)

    @classmethod
    def from_value(cls, value: object, name: str = "a hint pair") -> Self:
        """Return the pair of a text or of two names.

        Args:
            value: The text, two names or a pair.
            name: Name of the value in errors.

        Raises:
            InputError: See `parse`.
        """
        if (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(isinstance(part, str) for part in value)
        ):
            value = "=".join(value)
        return super().from_value(value, name)

    def __str__(self) -> str:
        return f"{self.student}={self.teacher}"


RampField = ConvertedField[Ramp, Ramp | float | str]
"""A constant number or a ramp: 4, "8:2", "0:0.7@20%"."""
TeacherInput = TeacherChoice | str | Path | Iterable[str | Path] | None
PairInput = str | LayerPair | tuple[str, str]


@dataclass(frozen=True)
class DistillOptions:
    """Knowledge distillation during fine-tuning: teachers, losses and weights.

    The loss is (1 - w) x label loss + w x logit loss + the weighted feature losses (hints).
    `temperature`, `weight` and `hint_weight` are numbers or ramps: "8:2" changes from 8 to 2 during
    the training, "0:0.7@20%" reaches 0.7 after a fifth of it and stays constant.
    """

    teacher: ConvertedField[TeacherChoice, TeacherInput] = option(
        AUTO,
        "--teacher",
        "a .keras file, or several with commas (double quotes around a name with a comma); auto: "
        "the best candidate of the run, else the unpruned model itself; none: labels only",
    )
    teacher_weights: ConvertedField[tuple[float, ...], Iterable[float] | str] = option(
        (), "--teacher-weights", "weights of several teachers, with commas; default: all equal"
    )
    loss: str = option(
        "kd",
        "--distill-loss",
        "distillation loss on logits: " + ", ".join((*LOGIT_LOSSES, NO_LOSS)),
        choices=LOGIT_LOSSES,
        extra_choices=(NO_LOSS,),
    )
    temperature: RampField = option(
        Ramp.from_number(4.0),
        "--temperature",
        "softens both distributions; 8:2 goes from 8 to 2 during the training",
    )
    weight: RampField = option(
        Ramp.from_number(0.7),
        "--distill-weight",
        "share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth",
    )
    hints: NameList = option(
        (),
        "--hints",
        "distillation losses on features: " + ", ".join(HINTS),
        choices=HINTS,
    )
    hint_weight: RampField = option(
        Ramp.from_number(1.0), "--hint-weight", "factor on each hint's own usual weight"
    )
    pairs: ConvertedField[tuple[LayerPair, ...], Iterable[PairInput] | Mapping[str, str]] = option(
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
        validate_fields(self)
        require(self.temperature.minimum > 0, "temperature", "be above 0", self.temperature)
        is_share = self.weight.minimum >= 0 and self.weight.maximum <= 1
        require(is_share, "distill_weight", "be in [0, 1]", self.weight)
        require(self.hint_weight.minimum >= 0, "hint_weight", "be at least 0", self.hint_weight)
        require(
            all(0 < weight < 1e30 for weight in self.teacher_weights),
            "teacher_weights",
            "be numbers above 0, with commas",
            format_value(self.teacher_weights),
        )
        if self.pairs and not self.hints:
            raise InputError("hint_pairs must come with hints. Give hints too, or no pairs.")

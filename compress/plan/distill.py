"""Plan section: knowledge distillation, with values for teachers and layer pairs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from compress.core.errors import InputError, to_one_line
from compress.plan.conversion import (
    ConvertedField,
    NameList,
    TextValue,
    join_items,
    split_items,
)
from compress.plan.fields import RemovedOption, option, require, validate_fields
from compress.plugins import HINTS, LOGIT_LOSSES

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
        """Return the teachers of file names, or of "auto" or "none", which must come alone."""
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
MAX_FACTOR = 1e30
"""Largest temperature or weight, so that no loss is infinite."""


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
    def parse(cls, text: str, name: str = "a feature pair") -> Self:
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
    def from_value(cls, value: object, name: str = "a feature pair") -> Self:
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


TeacherInput = TeacherChoice | str | Path | Iterable[str | Path] | None
PairInput = str | LayerPair | tuple[str, str]


@dataclass(frozen=True)
class DistillOptions:
    """Knowledge distillation during fine-tuning: teachers, losses and weights.

    The loss is (1 - w) x label loss + w x logit loss + the weighted feature losses (hints).
    """

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "teacher_weights": RemovedOption(
            "--teacher-weights",
            "No figure showed that unequal weights gain anything. Leave it out: several teachers "
            "count equally.",
            unused_values=([], ""),
        ),
        "cache": RemovedOption(
            "--teacher-cache",
            "The teacher's outputs are kept in memory, or on disk where they are too large for "
            "it; under augment (--augment) the teacher runs at every step. Leave it out.",
            unused_values=("auto",),
        ),
        "cache_limit": RemovedOption(
            "--cache-limit",
            "The teacher's outputs are kept in memory up to 1 GiB, or less where memory is short. "
            "Leave it out, or limit all memory with memory (--memory).",
            unused_values=(1024,),
        ),
    }

    teacher: ConvertedField[TeacherChoice, TeacherInput] = option(
        AUTO,
        "teacher models, .keras files with commas; auto: the unpruned model (paretune run: its "
        "best model); none: labels only",
    )
    loss: str = option(
        "kd",
        "distillation loss on logits",
        flat_name="distill_loss",
        choices=LOGIT_LOSSES,
        extra_choices=(NO_LOSS,),
    )
    temperature: float = option(4.0, "softmax temperature of distillation, above 0")
    weight: float = option(
        0.7, "share of the teacher's term in the loss, in [0, 1]", flat_name="distill_weight"
    )
    feature_losses: NameList = option(
        (),
        "feature distillation losses, with commas",
        choices=HINTS,
    )
    feature_weight: float = option(1.0, "factor on the weight of each feature loss, at least 0")
    feature_pairs: ConvertedField[
        tuple[LayerPair, ...], Iterable[PairInput] | Mapping[str, str]
    ] = option(
        (),
        "layers to compare, student=teacher, with commas; default: by resolution and depth",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        is_valid = 0 < self.temperature <= MAX_FACTOR
        require(is_valid, "temperature", "be above 0, at most 1e30", self.temperature)
        require(0 <= self.weight <= 1, "distill_weight", "be in [0, 1]", self.weight)
        is_valid = 0 <= self.feature_weight <= MAX_FACTOR
        require(is_valid, "feature_weight", "be at least 0, at most 1e30", self.feature_weight)
        if self.feature_pairs and not self.feature_losses:
            raise InputError(
                "feature_pairs must come with feature_losses. Give these too, or no pairs."
            )

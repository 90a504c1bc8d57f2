"""Shares and pairs of layers: "conv1*=0.3", "conv2=conv3"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import number_text, parse_number
from compress.plan.forms import Written


@dataclass(frozen=True)
class LayerShare(Written):
    """A share for the layers that a pattern names.

    Attributes:
        pattern: Of layer names, as the shell matches them ("conv1*").
        share: In [0, 1].

    Example:
        >>> LayerShare.parse("conv1*=0.3")
        LayerShare(pattern='conv1*', share=0.3)
    """

    pattern: str
    share: float

    @classmethod
    def parse(cls, text: str, name: str = "a share of layers") -> Self:
        """Reads "pattern=0.3" or "pattern=30%".

        Raises:
            InputError: There is no pattern, or the share is not in [0, 1].
        """
        pattern, _, digits = text.rpartition("=")
        share = parse_number(digits, "share")
        if not pattern or share is None or not 0 <= share <= 1:
            raise InputError(
                f"{name} must be pattern=share, a share in [0, 1], like conv1*=0.3. "
                f"Received: {one_line(text)}."
            )
        return cls(pattern, share)

    @classmethod
    def of(cls, value: object, name: str = "a share of layers") -> Self:
        """Takes a pair (pattern, share) too, as a dictionary's items are."""
        if isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str):
            value = f"{value[0]}={one_line(value[1])}"
        return super().of(value, name)

    def __str__(self) -> str:
        """Returns "conv1*=0.3"."""
        return f"{self.pattern}={number_text(self.share)}"


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
        """Reads "student=teacher".

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
        """Takes a pair of names too, as a dictionary's items are."""
        if (
            isinstance(value, tuple | list)
            and len(value) == 2
            and all(isinstance(part, str) for part in value)
        ):
            value = "=".join(value)
        return super().of(value, name)

    def __str__(self) -> str:
        """Returns "student=teacher"."""
        return f"{self.student}={self.teacher}"

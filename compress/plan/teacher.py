"""Who teaches: files, the pipeline's choice, or nobody."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from compress.core.errors import InputError, one_line
from compress.plan.forms import Written, joined, listed

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
        """Reads "auto", "none" or files with commas between.

        Raises:
            InputError: Files stand beside "auto" or "none".
        """
        return cls._named(listed(text), name)

    @classmethod
    def of(cls, value: object, name: str = "teacher") -> Self:
        """Takes a path or a list of them too; None: nobody."""
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
        """Returns the names."""
        if self.files:
            return [str(path) for path in self.files]
        return [AUTOMATIC if self.automatic else NOBODY]

    def __str__(self) -> str:
        """Returns what the command line takes."""
        return joined(self.plain())


AUTO = TeacherChoice(automatic=True)

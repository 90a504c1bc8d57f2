"""Kinds of sources: what reads one, and which options go with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from compress.data.meaning import Head, Heads
from compress.data.parts import RawData
from compress.data.tasks import needs_labels
from compress.plan import DataOptions


@dataclass(frozen=True)
class Asked:
    """What a source is read for.

    Attributes:
        options: Name the source, and say what its labels mean.
        head: Of the model that is fed and whose answers are judged, where there is one.
    """

    options: DataOptions
    head: Head | Heads | None = None

    @property
    def bare(self) -> bool:
        """Whether labels are not looked at."""
        return not self.options.told and not needs_labels(self.options.task)


@dataclass(frozen=True)
class Kind:
    """One kind of source: a line in a table of `compress.core.plugins` names it.

    Attributes:
        load: (source, what it is read for) -> what it holds.
        takes: Options of the plan that go with it and not with every source: "label", "resize",
            "group_column", "time_column".
        of_classes: Its labels are classes, whatever is asked for.
        holds: Of folders: tells whether one is of this kind.
    """

    load: Callable[[str, Asked], RawData]
    takes: tuple[str, ...] = ()
    of_classes: bool = False
    holds: Callable[[Path], bool] = lambda _: False


def ending(name: str) -> str:
    """Returns how a file's name ends, as tables of kinds have it.

    Example:
        >>> ending("a.CSV"), ending("b.tfrecord.gz"), ending("c-train.tfrecord-00000-of-00002")
        ('csv', 'tfrecord', 'tfrecord')
    """
    _, dot, last = name.lower().removesuffix(".gz").rpartition(".")
    return last.partition("-")[0] if dot else ""

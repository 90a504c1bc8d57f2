"""Logging where people look: TensorBoard, MLflow, Weights & Biases, or a log of one's own.

A log is told of candidates, models and files, and of their figures by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class Point:
    """Figures at one step.

    Attributes:
        step: Epoch, or 0 of what has none.
        values: By name, with what they are of in front: "validation/accuracy".
        when: Seconds since 1970; None: now.
    """

    step: int
    values: Mapping[str, float]
    when: float | None = None


@dataclass(frozen=True)
class Event:
    """What a log is told once.

    Attributes:
        key: Different for each event of a run: what was told is not told again.
        item: What it is of: "0003", "0003-p80", "0003-p80.int8".
        points: By rising step.
        params: What the item was made of; {}: nothing new.
        kind: "candidate", "model" or "file".
    """

    key: str
    item: str
    points: Sequence[Point] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "model"


class Source(Protocol):
    """Where events come from: records of a run's folder."""

    def new(self, *, last: bool) -> Iterator[Event]:
        """Yields what came since the last call.

        Args:
            last: The run came to its end: nothing comes any more.
        """
        ...


class Log(Protocol):
    """Where events go; `compress.core.plugins.LOGS` names those there are.

    Made as `make(folder, name, plan)`: the run's folder, what the run is called, and its plan as
    flat options. A log that was begun by an earlier start of the same run goes on.
    """

    def take(self, event: Event) -> None:
        """Logs an event.

        Raises:
            Exception: It cannot; the run goes on without this log, and says why.
        """
        ...

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """Ends the log, for now.

        Args:
            files: Of the report.
            finished: Whether the run came to its end; else it may go on later.
        """
        ...

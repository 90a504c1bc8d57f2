"""Logging where people look: TensorBoard, MLflow, Weights & Biases, or a log of one's own.

A log is told of candidates, models and files, and of their figures by step: a run's folder is
followed while it is worked in. Of a compression these are epochs of fine-tuning as they end, and
exported files at the end.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from compress.core.atomic_files import read_json
from compress.plugins import LOGS
from compress.run.directory import LOG, RunFolder

EVERY = 2.0
"""Seconds between two looks."""
PATIENCE = 60.0
"""Seconds that a run waits at its end for logs that have not taken everything yet."""
TOLD = ".logged"
"""File of the keys that each log was told: a line each, the log's name first."""
REPORT = ("report.html", "report.json", "candidates.csv", "pareto.png")
COSTS = ("macs", "params", "size_bytes", "gzip_bytes")
KEYS = {"model", "loss", "val_loss", "val", "when"}
EPOCHS = "epochs.jsonl"
"""The file's name in a run's folder."""


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
    """A source of events: records of a run's folder."""

    def new(self, *, last: bool) -> Iterator[Event]:
        """Yield the events since the last call.

        Args:
            last: The run came to its end: nothing comes any more.
        """


class Log(Protocol):
    """A destination of events; `compress.plugins.LOGS` names them.

    Made as `make(folder, name, plan)`: the run's folder, what the run is called, and its plan as
    flat options. A log that was begun by an earlier start of the same run goes on.
    """

    def take(self, event: Event) -> None:
        """Log an event.

        Raises:
            Exception: It cannot; the run goes on without this log, and says why.
        """

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """End the log, for now.

        Args:
            files: Of the report.
            finished: Whether the run came to its end; else it may go on later.
        """


@contextmanager
def following(
    names: Sequence[str], folder: RunFolder, plan: Mapping[str, Any], sources: Sequence[Source]
) -> Iterator[None]:
    """Send a folder's new events to logs while the context lasts.

    All of it is done beside the run, which waits a minute at most at its end. A log that cannot
    take something is left out from then on, with a line that says why: a run does not end
    because nobody keeps its diary.

    Args:
        names: Of logs, see `compress.plugins.LOGS`.
        folder: The run's.
        plan: Its options, flat.
        sources: What is looked at.
    """
    if not names:
        yield
        return
    follower = _Follower(names, folder, plan, list(sources))
    follower.start()
    try:
        yield
    except BaseException:
        follower.end(finished=False)
        raise
    follower.end(finished=True)


def note_epoch(folder: Path, model: str, phase: str, record: Mapping[str, Any]) -> None:
    """Add an epoch; several processes may at once, as a line is written in one piece.

    Args:
        folder: The run's.
        model: That is trained.
        phase: What is done: "fine-tuning".
        record: "epoch", "loss", "val_loss", "val", "seconds".
    """
    line = {"model": model, "phase": phase, **record, "when": time.time()}
    with open(folder / EPOCHS, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


class EpochSource:
    """Epochs of fine-tuning, from the file that those who train add lines to.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / EPOCHS
        self._at = 0
        self._steps: dict[str, int] = {}

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `Source.new`."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as stream:
            stream.seek(self._at)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # it is being written
                key, self._at = f"epoch {self._at}", self._at + len(line)
                content = _read_epoch(line)
                if content is None:
                    continue
                item = str(content["model"])
                # phases of one model stand behind each other
                self._steps[item] = step = self._steps.get(item, 0) + 1
                values = {
                    "training/loss": content["loss"],
                    "validation/loss": content["val_loss"],
                    **{f"validation/{name}": value for name, value in content["val"].items()},
                }
                yield Event(key, item, (Point(step, values, content["when"]),))


class FileSource:
    """Exported files, when all of them were judged and timed.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `Source.new`."""
        if not last:
            return
        path = self._folder.latency_of(self._folder.timed_by())
        timed = read_json(path) if path.exists() else {}
        for record in self._folder.read_compressed():
            for item in record.files():
                values = {f"test/{name}": value for name, value in item.test.items()}
                values |= {f"validation/{name}": value for name, value in item.val.items()}
                values |= {f"cost/{name}": float(getattr(item, name)) for name in COSTS}
                ms = timed.get(item.id, {}) if isinstance(timed, dict) else {}
                if isinstance(ms, dict) and "median_ms" in ms:
                    values["cost/latency_ms"] = float(ms["median_ms"])
                params = {"model": item.model, "variant": item.variant, "format": item.format}
                yield Event(f"file {item.id}", item.id, (Point(0, values),), params, "file")


class _Follower(threading.Thread):
    """Looks at a folder every few seconds until it is told that the run has ended."""

    def __init__(
        self, names: Sequence[str], folder: RunFolder, plan: Mapping[str, Any],
        sources: list[Source],
    ) -> None:  # fmt: skip
        super().__init__(daemon=True, name="paretune-logs")
        self._names, self._folder, self._plan, self._sources = names, folder, plan, sources
        self._over, self._finished = threading.Event(), False
        self._logs: dict[str, Log] = {}
        # kept so that a run that goes on tells none twice
        self._told_path = folder.path / TOLD
        told = self._told_path.read_text("utf-8") if self._told_path.exists() else ""
        self._told = set(told.splitlines())

    def run(self) -> None:
        for name in self._names:
            self._safely(name, partial(self._begin, name))
        while not self._over.wait(EVERY):
            self._tell(last=False)
        self._tell(last=self._finished)
        files = [path for name in REPORT if (path := self._folder.path / name).exists()]
        for name, log in [*self._logs.items()]:
            self._safely(name, partial(log.end, files, finished=self._finished))

    def end(self, *, finished: bool) -> None:
        self._finished = finished
        self._over.set()
        self.join(PATIENCE)
        if self.is_alive():
            LOG.warning(
                "logs (%s) have not taken everything after %g s: the same command goes on",
                ", ".join(self._names), PATIENCE,
            )  # fmt: skip

    def _begin(self, name: str) -> None:
        self._logs[name] = LOGS[name](self._folder.path, self._folder.path.name, self._plan)

    def _tell(self, *, last: bool) -> None:
        for source in [*self._sources]:
            try:
                for event in source.new(last=last):
                    for name, log in [*self._logs.items()]:
                        key = f"{name} {event.key}"
                        if key not in self._told and self._safely(name, partial(log.take, event)):
                            self._told.add(key)
                            with open(self._told_path, "a", encoding="utf-8") as stream:
                                stream.write(f"{key}\n")
            except Exception as error:  # of a damaged record: the run itself will say more of it
                self._sources.remove(source)
                LOG.warning("logs miss what follows: %s: %s", type(error).__name__, error)

    def _safely(self, name: str, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:  # of any library, a server that is away: never the run's end
            LOG.warning("log '%s' takes nothing more: %s: %s", name, type(error).__name__, error)
            self._logs.pop(name, None)
            return False
        return True


def _read_epoch(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:  # torn by a kill
        return None
    return content if isinstance(content, dict) and set(content) >= KEYS else None

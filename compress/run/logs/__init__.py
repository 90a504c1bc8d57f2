"""Experiment logging to TensorBoard, MLflow, Weights & Biases or a custom log.

A log receives candidates, models and files with their metrics by step, while the run writes them to
its folder. For a compression these are fine-tuning epochs as they end, and exported files at the
end.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from compress.core.atomic_files import read_json
from compress.plan import Plan
from compress.plan.fields import list_plan_fields
from compress.plan.nesting import read_field
from compress.plugins import LOGS
from compress.run.directory import LOG, RunFolder

POLL_SECONDS = 2.0
"""Seconds between two polls of the folder."""
END_TIMEOUT = 60.0
"""Seconds that a run waits at its end for logs to receive all events."""
SENT_FILE = ".logged"
"""File of the keys sent to each log: one line per key, prefixed by the log's name."""
REPORT_FILES = ("report.html", "report.json", "candidates.csv", "pareto.png")
COSTS = ("macs", "params", "size_bytes", "gzip_bytes")
EPOCH_KEYS = {"model", "loss", "val_loss", "val", "when"}
EPOCHS_FILE = "epochs.jsonl"
"""Name of the file of epochs in a run's folder."""


@dataclass(frozen=True)
class Point:
    """Metrics at one step.

    Attributes:
        step: Epoch, or 0 if there are no epochs.
        values: Values by name, prefixed by their group: "validation/accuracy".
        when: Time in seconds since 1970; None: now.
    """

    step: int
    values: Mapping[str, float]
    when: float | None = None


@dataclass(frozen=True)
class Event:
    """An event that each log receives once.

    Attributes:
        key: Unique key of the event within a run, which prevents duplicates.
        item: Name of the candidate, model or file: "0003", "0003-p80", "0003-p80.int8".
        points: Metrics by increasing step.
        params: Parameters of the item; {}: no new ones.
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
            last: Whether the run has finished, so that no further events follow.
        """


class Log(Protocol):
    """A destination of events, registered in `compress.plugins.LOGS`.

    The registered class or function is called with the run's folder, the name of the run, and its
    plan as flat options. A resumed run must continue its existing log.
    """

    def take(self, event: Event) -> None:
        """Log an event.

        Raises:
            Exception: Logging failed; the run continues without this log, and logs a warning.
        """

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """Close the log.

        Args:
            files: Files of the report.
            finished: Whether the run has finished; else it may be resumed later.
        """


def open_logs(
    plan: Plan, folder: RunFolder, others: Sequence[Source] = ()
) -> AbstractContextManager[None]:
    """Return a context that reports epochs and files to the logs of a plan.

    Args:
        plan: Plan with the section log.
        folder: Folder of the run.
        others: Further sources, which come first.
    """
    changed_options = {
        leaf.flat_name: value
        for leaf in list_plan_fields(type(plan))
        if (value := read_field(plan, leaf)) != leaf.default
    }
    return following(
        plan.log, folder, changed_options, [*others, EpochSource(folder), FileSource(folder)]
    )


@contextmanager
def following(
    names: Sequence[str], folder: RunFolder, plan: Mapping[str, Any], sources: Sequence[Source]
) -> Iterator[None]:
    """Send a folder's new events to logs for the duration of the context.

    The events are sent in a separate thread; the run waits at most `END_TIMEOUT` seconds for it at
    its end. A log that fails is dropped with a warning: an unreachable log must not stop a run.

    Args:
        names: Names of logs, see `compress.plugins.LOGS`.
        folder: The run's folder.
        plan: The run's options, flat.
        sources: Sources of events.
    """
    if not names:
        yield
        return
    thread = _LogThread(names, folder, plan, list(sources))
    thread.start()
    try:
        yield
    except BaseException:
        thread.end(finished=False)
        raise
    thread.end(finished=True)


def append_epoch(folder: Path, model: str, phase: str, record: Mapping[str, Any]) -> None:
    """Append an epoch to the file of epochs; safe for several processes, as lines are atomic.

    Args:
        folder: The run's folder.
        model: Name of the trained model.
        phase: Phase of the compression: "fine-tuning".
        record: "epoch", "loss", "val_loss", "val", "seconds".
    """
    line = {"model": model, "phase": phase, **record, "when": time.time()}
    with open(folder / EPOCHS_FILE, "a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")


class EpochSource:
    """Source of fine-tuning epochs, read from the file of `append_epoch`.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._path = folder.path / EPOCHS_FILE
        self._offset = 0
        self._steps: dict[str, int] = {}

    def new(self, *, last: bool) -> Iterator[Event]:
        """Yield the new epochs; see `Source.new`."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as stream:
            stream.seek(self._offset)
            for line in stream:
                if not line.endswith(b"\n"):
                    return  # incomplete line, still being written
                key, self._offset = f"epoch {self._offset}", self._offset + len(line)
                content = _read_epoch(line)
                if content is None:
                    continue
                item = str(content["model"])
                # count steps across the phases of a model
                self._steps[item] = step = self._steps.get(item, 0) + 1
                values = {
                    "training/loss": content["loss"],
                    "validation/loss": content["val_loss"],
                    **{f"validation/{name}": value for name, value in content["val"].items()},
                }
                yield Event(key, item, (Point(step, values, content["when"]),))


class FileSource:
    """Source of exported files, once all of them have been evaluated and timed.

    Args:
        folder: The run's folder.
    """

    def __init__(self, folder: RunFolder) -> None:
        self._folder = folder

    def new(self, *, last: bool) -> Iterator[Event]:
        """Yield the files at the end of the run; see `Source.new`."""
        if not last:
            return
        path = self._folder.get_latency_path(self._folder.find_timed_runtime())
        timed = read_json(path) if path.exists() else {}
        for record in self._folder.read_compressed():
            for item in record.artifacts:
                values = {f"test/{name}": value for name, value in item.test.items()}
                values |= {f"validation/{name}": value for name, value in item.val.items()}
                values |= {f"cost/{name}": float(getattr(item, name)) for name in COSTS}
                ms = timed.get(item.id, {}) if isinstance(timed, dict) else {}
                if isinstance(ms, dict) and "median_ms" in ms:
                    values["cost/latency_ms"] = float(ms["median_ms"])
                params = {"model": item.model, "variant": item.variant, "format": item.format}
                yield Event(f"file {item.id}", item.id, (Point(0, values),), params, "file")


class _LogThread(threading.Thread):
    """Thread that polls a folder every few seconds until the run ends."""

    def __init__(
        self, names: Sequence[str], folder: RunFolder, plan: Mapping[str, Any],
        sources: list[Source],
    ) -> None:  # fmt: skip
        super().__init__(daemon=True, name="paretune-logs")
        self._names, self._folder, self._plan, self._sources = names, folder, plan, sources
        self._stop_event, self._finished = threading.Event(), False
        self._logs: dict[str, Log] = {}
        # stored so that a resumed run sends no event twice
        self._sent_path = folder.path / SENT_FILE
        sent_text = self._sent_path.read_text("utf-8") if self._sent_path.exists() else ""
        self._sent_keys = set(sent_text.splitlines())

    def run(self) -> None:
        """Write events until the end."""
        for name in self._names:
            self._call_log(name, partial(self._open_log, name))
        while not self._stop_event.wait(POLL_SECONDS):
            self._send_events(last=False)
        self._send_events(last=self._finished)
        files = [path for name in REPORT_FILES if (path := self._folder.path / name).exists()]
        for name, log in [*self._logs.items()]:
            self._call_log(name, partial(log.end, files, finished=self._finished))

    def end(self, *, finished: bool) -> None:
        """Write the remaining events and end the thread."""
        self._finished = finished
        self._stop_event.set()
        self.join(END_TIMEOUT)
        if self.is_alive():
            LOG.warning(
                "logs (%s) have not taken everything after %g s: the same command continues",
                ", ".join(self._names), END_TIMEOUT,
            )  # fmt: skip

    def _open_log(self, name: str) -> None:
        self._logs[name] = LOGS[name](self._folder.path, self._folder.path.name, self._plan)

    def _send_events(self, *, last: bool) -> None:
        """Send events that a log has not received, and record them; drop a source that fails."""
        for source in [*self._sources]:
            try:
                for event in source.new(last=last):
                    for name, log in [*self._logs.items()]:
                        key = f"{name} {event.key}"
                        if key not in self._sent_keys and self._call_log(
                            name, partial(log.take, event)
                        ):
                            self._sent_keys.add(key)
                            with open(self._sent_path, "a", encoding="utf-8") as stream:
                                stream.write(f"{key}\n")
            except Exception as error:  # corrupt record: the run itself reports it
                self._sources.remove(source)
                LOG.warning("logs miss what follows: %s: %s", type(error).__name__, error)

    def _call_log(self, name: str, call: Callable[[], None]) -> bool:
        try:
            call()
        except Exception as error:  # errors of any library or server must not stop the run
            LOG.warning("log '%s' takes nothing more: %s: %s", name, type(error).__name__, error)
            self._logs.pop(name, None)
            return False
        return True


def _read_epoch(line: bytes) -> dict[str, Any] | None:
    try:
        content = json.loads(line)
    except ValueError:  # truncated when a process was killed
        return None
    return content if isinstance(content, dict) and set(content) >= EPOCH_KEYS else None

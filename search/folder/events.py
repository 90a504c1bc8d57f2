"""What a search tells logs: each candidate when it ends, each final training."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compress.core.atomic_files import whole_files
from compress.core.errors import InputError
from compress.logs import Event, Point
from compress.run.records import read_record
from search.folder.directory import SearchFolder
from search.folder.records import LOST, Candidate, Final

COSTS = ("macs", "params", "size_bytes", "latency_ms")


def _unseen(place: Path, seen: set[str]) -> Iterator[Path]:
    """Yields records that were not there at the last look."""
    for path in whole_files(place, ".json"):
        if path.stem not in seen:
            seen.add(path.stem)
            yield path


class CandidateSource:
    """Candidates of a folder, each once, with the curve of its training and its choices.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: SearchFolder) -> None:
        self._folder = folder
        self._seen = set[str]()

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `compress.logs.Source.new`."""
        for path in _unseen(self._folder.candidates, self._seen):
            try:
                item = self._folder.read_candidate(path.stem)
            except InputError:  # damaged: whoever needs it will say so
                continue
            if item is not None and item.state != LOST:
                yield candidate_event(item)


def candidate_event(item: Candidate) -> Event:
    """Returns what a log is told of a candidate."""
    points = [
        Point(int(record.get("epoch", place)), _figures(record))
        for place, record in enumerate(item.history, start=1)
    ]
    ends = {f"validation/{name}": value for name, value in item.val.items()}
    ends |= {
        f"cost/{name}": float(value) for name in COSTS if (value := getattr(item, name)) is not None
    }
    if ends:
        points.append(
            Point(points[-1].step if points else 0, {f"best/{k}": v for k, v in ends.items()})
        )
    params = {**item.choices, "state": item.state, "seed": item.seed}
    return Event(f"candidate {item.id}", item.id, tuple(points), params, "candidate")


def _figures(record: dict[str, Any]) -> dict[str, float]:
    found = {
        f"validation/{name}": float(value)
        for name, value in (record.get("val") or {}).items()
        if isinstance(value, int | float)
    }
    for key, name in (("loss", "training/loss"), ("val_loss", "validation/loss")):
        if isinstance(record.get(key), int | float):
            found[name] = float(record[key])
    return found


class FinalSource:
    """Final trainings of a folder, each once.

    Args:
        folder: The run's.
    """

    def __init__(self, folder: SearchFolder) -> None:
        self._folder = folder
        self._seen = set[str]()

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `compress.logs.Source.new`."""
        for path in _unseen(self._folder.final, self._seen):
            record = read_record(path, Final)
            values = {f"validation/{name}": value for name, value in record.val.items()}
            values |= {f"test/{name}": value for name, value in record.test.items()}
            name = path.stem
            params = {"model": record.model, "seed": record.seed, "epochs": record.epochs}
            yield Event(
                f"final {name}", name, (Point(record.best_epoch, values),), params, "candidate"
            )

"""Log events of a search."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from compress.core.atomic_files import list_complete_files
from compress.core.errors import InputError
from compress.run.logs import Event, Point
from compress.run.records import read_record
from search.study.costs import NAMES
from search.study.directory import FinalTraining, SearchFolder


def create_log_sources(folder: SearchFolder) -> tuple[RecordSource, RecordSource]:
    """Return the sources of log events: candidates with curves and choices, final trainings."""
    return (
        RecordSource(folder.candidates, lambda path: _build_candidate_event(folder, path)),
        RecordSource(folder.final, _build_final_training_event),
    )


class RecordSource:
    """Records of one folder as log events, each record once.

    Args:
        folder: The folder of the records.
        build_event: Returns the event of a record's file; None: the record has no event.
    """

    def __init__(self, folder: Path, build_event: Callable[[Path], Event | None]) -> None:
        self._folder, self._build_event = folder, build_event
        self._seen = set[Path]()

    def new(self, *, last: bool) -> Iterator[Event]:
        """Yield the events of new records.

        Corrupt records are skipped. See `compress.run.logs.Source.new`.
        """
        for path in list_complete_files(self._folder, ".json"):
            if path in self._seen:
                continue
            self._seen.add(path)
            with suppress(InputError):
                event = self._build_event(path)
                if event is not None:
                    yield event


def _build_candidate_event(folder: SearchFolder, path: Path) -> Event | None:
    """Return the log event of a candidate."""
    item = folder.read_candidate(path.stem)
    if item is None:
        return None
    points = [
        Point(int(record.get("epoch", epoch)), _extract_metrics(record))
        for epoch, record in enumerate(item.history, start=1)
    ]
    final_values = {f"validation/{name}": value for name, value in item.val.items()}
    final_values |= {
        f"cost/{name}": float(value) for name in NAMES if (value := getattr(item, name)) is not None
    }
    if final_values:
        points.append(
            Point(
                points[-1].step if points else 0, {f"best/{k}": v for k, v in final_values.items()}
            )
        )
    params = {**item.choices, "state": item.state, "seed": item.seed}
    return Event(f"candidate {item.id}", item.id, tuple(points), params, "candidate")


def _extract_metrics(record: dict[str, Any]) -> dict[str, float]:
    """Return an epoch record's numbers under log names: "validation/accuracy", "training/loss"."""
    metrics = {
        f"validation/{name}": float(value)
        for name, value in (record.get("val") or {}).items()
        if isinstance(value, int | float)
    }
    for key, name in (("loss", "training/loss"), ("val_loss", "validation/loss")):
        if isinstance(record.get(key), int | float):
            metrics[name] = float(record[key])
    return metrics


def _build_final_training_event(path: Path) -> Event:
    """Return the log event of a final training, from the file of its record."""
    record = read_record(path, FinalTraining)
    values = {f"validation/{name}": value for name, value in record.val.items()}
    values |= {f"test/{name}": value for name, value in record.test.items()}
    params = {"model": record.model, "seed": record.seed, "epochs": record.epochs}
    points = (Point(record.best_epoch, values),)
    return Event(f"final {path.stem}", path.stem, points, params, "candidate")

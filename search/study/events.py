"""Records of a search in logs, and its files in Optuna's dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import whole_files
from compress.core.errors import InputError
from compress.run.logs import Event, Point
from compress.run.records import read_record
from search.study.costs import NAMES
from search.study.directory import Final, SearchFolder

if TYPE_CHECKING:
    import optuna

PLACE = "artifacts"
"""Folder in a run's, in which Optuna keeps its copies."""
REPORT = ("pareto.png", "report.html")
KEPT = "paretune:artifacts"
"""Attribute of a study: files that it has already, with their sizes."""


def search_sources(folder: SearchFolder) -> tuple[RecordSource, RecordSource]:
    """Return the sources of log events: candidates with curves and choices, final trainings."""
    return (
        RecordSource(folder.candidates, lambda path: _candidate(folder, path)),
        RecordSource(folder.final, _final),
    )


class RecordSource:
    """Records of one folder, each once, as events.

    Args:
        place: The folder.
        event: Makes an event of a record's file; None: it is none to tell.
    """

    def __init__(self, place: Path, event: Callable[[Path], Event | None]) -> None:
        self._place, self._event = place, event
        self._seen = set[Path]()

    def new(self, *, last: bool) -> Iterator[Event]:
        """See `compress.run.logs.Source.new`; a damaged record is left to whoever needs it."""
        for path in whole_files(self._place, ".json"):
            if path in self._seen:
                continue
            self._seen.add(path)
            with suppress(InputError):
                event = self._event(path)
                if event is not None:
                    yield event


def _candidate(folder: SearchFolder, path: Path) -> Event | None:
    """Return the log event of a candidate."""
    item = folder.read_candidate(path.stem)
    if item is None:
        return None
    points = [
        Point(int(record.get("epoch", place)), _figures(record))
        for place, record in enumerate(item.history, start=1)
    ]
    ends = {f"validation/{name}": value for name, value in item.val.items()}
    ends |= {
        f"cost/{name}": float(value) for name in NAMES if (value := getattr(item, name)) is not None
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


def _final(path: Path) -> Event:
    record = read_record(path, Final)
    values = {f"validation/{name}": value for name, value in record.val.items()}
    values |= {f"test/{name}": value for name, value in record.test.items()}
    params = {"model": record.model, "seed": record.seed, "epochs": record.epochs}
    points = (Point(record.best_epoch, values),)
    return Event(f"final {path.stem}", path.stem, points, params, "candidate")


def keep_artifacts(study: optuna.Study, folder: SearchFolder) -> None:
    """Hand a run's report and its exported files to its study.

    To the study and not to trials: those have ended, and Optuna adds nothing to them. What the
    study has already stays; what has changed since is added.

    Args:
        study: The run's.
        folder: The run's.
    """
    import optuna

    place = folder.path / PLACE
    place.mkdir(exist_ok=True)
    store = optuna.artifacts.FileSystemArtifactStore(base_path=place)
    before: dict[str, int] = study.user_attrs.get(KEPT, {})
    known = dict(before)
    files = [item.file for record in folder.read_compressed() for item in record.files()]
    for name in (*REPORT, *files):
        path = folder.path / name
        if not path.is_file() or known.get(name) == path.stat().st_size:
            continue
        optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(path), study_or_trial=study
        )
        known[name] = path.stat().st_size
    if known != before:
        study.set_user_attr(KEPT, known)

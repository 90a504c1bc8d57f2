"""Follows a run's folder while it is worked in, and tells logs what comes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.core.errors import ParetuneError
from compress.core.plugins import LOGS
from compress.logs._base import Log, Source
from compress.run.directory import LOG, RunFolder

EVERY = 2.0
"""Seconds between two looks."""
TOLD = ".logged"
"""File of the keys that each log was told: a line each, the log's name first."""
REPORT = ("report.html", "report.json", "candidates.csv", "pareto.png")


@contextmanager
def following(
    names: Sequence[str], folder: RunFolder, plan: Mapping[str, Any], sources: Sequence[Source]
) -> Iterator[None]:
    """Tells logs of what comes into a folder while the context lasts.

    A log that cannot take something is left out from then on, with a line that says why: a run
    does not end because nobody keeps its diary.

    Args:
        names: Of logs, see `compress.core.plugins.LOGS`.
        folder: The run's.
        plan: Its options, flat.
        sources: What is looked at.
    """
    if not names:
        yield
        return
    told = _Told(folder.path / TOLD)
    logs = {name: log for name in names if (log := _made(name, folder, plan)) is not None}
    over = threading.Event()
    thread = threading.Thread(target=_follow, args=(logs, sources, told, over), daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        _tell(logs, sources, told, last=True)
        files = [path for name in REPORT if (path := folder.path / name).exists()]
        for name, log in logs.items():
            _safely(name, lambda log=log: log.end(files))


class _Told:
    """The keys that logs were told, kept so that a run that goes on tells none twice."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = set(path.read_text("utf-8").splitlines()) if path.exists() else set[str]()

    def has(self, name: str, key: str) -> bool:
        return f"{name} {key}" in self._keys

    def add(self, name: str, key: str) -> None:
        self._keys.add(f"{name} {key}")
        with open(self._path, "a", encoding="utf-8") as stream:
            stream.write(f"{name} {key}\n")


def _made(name: str, folder: RunFolder, plan: Mapping[str, Any]) -> Log | None:
    made: list[Log] = []
    _safely(name, lambda: made.append(LOGS[name](folder.path, folder.path.name, plan)))
    return made[0] if made else None


def _follow(
    logs: dict[str, Log], sources: Sequence[Source], told: _Told, over: threading.Event
) -> None:
    while not over.wait(EVERY):
        _tell(logs, sources, told, last=False)


def _tell(logs: dict[str, Log], sources: Sequence[Source], told: _Told, *, last: bool) -> None:
    for source in sources:
        try:
            for event in source.new(last=last):
                for name, log in [*logs.items()]:
                    if told.has(name, event.key):
                        continue
                    if not _safely(name, lambda log=log, event=event: log.take(event)):
                        del logs[name]
                        continue
                    told.add(name, event.key)
        except (OSError, ParetuneError) as error:  # of a record: the run itself will say it
            LOG.debug("logs: %s", error)


def _safely(name: str, call: Any) -> bool:
    try:
        call()
    except Exception as error:  # of any library, a server that is away: never the run's end
        LOG.warning("log '%s' takes nothing more: %s: %s", name, type(error).__name__, error)
        return False
    return True

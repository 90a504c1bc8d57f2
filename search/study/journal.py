"""A run's journal read line by line, damaged or not, and written anew.

Optuna stops at the first line that it cannot read, and numbers trials by the lines that made
them: one line lost, and every later trial bears another's number. What is read here is what
the lines say, no more; whose word counts is decided in `search.study.recovery`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.atomic_files import replacing
from compress.core.errors import InputError
from search.optuna_internals import replay_journal, set_study_attr
from search.study.storage import JournalLock

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

DAMAGED = ".damaged"
"""Ending of the name under which a journal that was written anew is kept."""


@dataclass(frozen=True)
class Remains:
    """What can be read of a journal.

    Attributes:
        trials: Of the study, by number.
        user_attrs, system_attrs: Of the study.
        lines: In the file, the torn last one not counted.
        dropped: Of these, the ones that say nothing.
        whole: Bytes up to the end of the last line that is no torn one.
        size: Bytes of the file; above `whole` its last line is torn.
    """

    trials: tuple[FrozenTrial, ...] = ()
    user_attrs: Mapping[str, Any] = field(default_factory=dict)
    system_attrs: Mapping[str, Any] = field(default_factory=dict)
    lines: int = 0
    dropped: int = 0
    whole: int = 0
    size: int = 0


def read(path: Path, name: str) -> Remains:
    """Reads a journal; lines that are no operations of Optuna's are counted and left out.

    Args:
        path: The journal; it may be missing.
        name: Of the study.

    Raises:
        InputError: It is no file.
    """
    if not path.exists():
        return Remains()
    if not path.is_file():
        raise InputError(f"'{path}' must be a file. Received: something else of that name.")
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    lines = content[:whole].splitlines()
    study, trials, dropped = replay_journal(lines, name)
    user_attrs, system_attrs = ({}, {}) if study is None else (study.user_attrs, study.system_attrs)
    return Remains(
        tuple(trials), user_attrs, system_attrs, len(lines), dropped, whole, len(content)
    )


def cut(path: Path, whole: int) -> None:
    """Cuts a torn last line off: the next line would be glued to it."""
    with open(path, "r+b") as stream:
        stream.truncate(whole)


def write(
    path: Path,
    name: str,
    directions: list[Any],
    trials: Iterable[FrozenTrial],
    user_attrs: Mapping[str, Any],
    system_attrs: Mapping[str, Any],
) -> None:
    """Writes a journal in one step; the one that it replaces is kept under another name.

    Args:
        path: The journal.
        name: Of the study.
        directions: Of the study's objectives.
        trials: By number: the first becomes trial 0.
        user_attrs, system_attrs: Of the study.
    """
    import optuna
    from optuna.storages.journal import JournalFileBackend, JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    lock: Any = JournalLock(path.with_suffix(".lock"))
    with replacing(path) as temporary:
        storage = JournalStorage(JournalFileBackend(str(temporary), lock_obj=lock))
        study = optuna.create_study(study_name=name, storage=storage, directions=directions)
        for key, value in user_attrs.items():
            study.set_user_attr(key, value)
        for key, value in system_attrs.items():
            set_study_attr(study, key, value)
        study.add_trials(trials)
        if path.exists():
            shutil.copyfile(path, path.with_name(path.name + DAMAGED))

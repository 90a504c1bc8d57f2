"""Studies in which no trial has begun: their run may still be given another plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress.core.errors import InputError
from search.study import journal
from search.study.directory import SearchFolder
from search.study.storage import open_storage, study_name

if TYPE_CHECKING:
    import optuna


def untried(folder: SearchFolder) -> bool:
    """Tells whether the study of a folder without results has begun no trial."""
    from optuna.trial import TrialState

    url = _stored_url(folder)
    if not url:
        found = journal.read(folder.journal, study_name(folder, ""))
        return not found.dropped and all(
            trial.state == TrialState.WAITING for trial in found.trials
        )
    study = _stored_study(folder, url)
    # what cannot be opened, or has no such study, was never used
    return study is None or all(
        trial.state == TrialState.WAITING for trial in study.get_trials(deepcopy=False)
    )


def forget(folder: SearchFolder) -> None:
    """Removes the study of a folder in which no trial has begun.

    Queued trials follow from the plan: another plan queues others.
    """
    import optuna

    folder.journal.unlink(missing_ok=True)
    url = _stored_url(folder)
    study = _stored_study(folder, url) if url else None
    if study is not None:
        optuna.delete_study(study_name=study.study_name, storage=study._storage)


def _stored_url(folder: SearchFolder) -> str:
    search = folder.read_plan_record()["plan"].get("search", {})
    return str(search.get("storage", ""))


def _stored_study(folder: SearchFolder, url: str) -> optuna.Study | None:
    import optuna

    try:
        storage = open_storage(url, "storage")
        return optuna.load_study(study_name=study_name(folder, url), storage=storage)
    except (InputError, KeyError):
        return None

"""Pictures and files of a run as artifacts of its study: Optuna's dashboard shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import optuna

    from search.study.directory import SearchFolder

PLACE = "artifacts"
"""Folder in a run's, in which Optuna keeps its copies."""
REPORT = ("pareto.png", "report.html")
KEPT = "paretune:artifacts"
"""Attribute of a study: files that it has already, with their sizes."""


def keep_artifacts(study: optuna.Study, folder: SearchFolder) -> None:
    """Hands a run's report and its exported files to its study.

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
    known: dict[str, int] = dict(study.user_attrs.get(KEPT, {}))
    files = [item.file for record in folder.read_compressed() for item in record.files()]
    new = False
    for name in (*REPORT, *files):
        path = folder.path / name
        if not path.is_file() or known.get(name) == path.stat().st_size:
            continue
        optuna.artifacts.upload_artifact(
            artifact_store=store, file_path=str(path), study_or_trial=study
        )
        known[name] = path.stat().st_size
        new = True
    if new:
        study.set_user_attr(KEPT, known)

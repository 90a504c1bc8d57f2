"""A run's report and files as artifacts of its study, read back by Optuna."""

from __future__ import annotations

from pathlib import Path

import optuna

from compress.plan.fields import from_flat
from search.plan import SearchPlan
from search.study.directory import SearchFolder
from search.study.events import ARTIFACTS_FOLDER, upload_artifacts
from search.study.study import open_study
from tests.compress.report.test_report import folder  # noqa: F401


def test_what_is_kept_is_read_back(folder: SearchFolder, tmp_path: Path) -> None:  # noqa: F811
    study = open_study(folder, from_flat(SearchPlan, {}))
    assert study.metric_names == ["accuracy", "macs"]
    (folder.path / "report.html").write_text("<p>")
    (record,) = folder.read_compressed()
    names = {item.file for item in record.artifacts}
    for name in names:
        (folder.path / name).parent.mkdir(exist_ok=True)
        (folder.path / name).write_bytes(name.encode())
    for _ in range(2):  # nothing is kept twice
        upload_artifacts(study, folder)
        found = optuna.artifacts.get_all_artifact_meta(study)
        assert sorted(item.filename for item in found) == sorted(
            ["report.html", *(Path(name).name for name in names)]
        )
    store = optuna.artifacts.FileSystemArtifactStore(base_path=folder.path / ARTIFACTS_FOLDER)
    (page,) = [item for item in found if item.filename == "report.html"]
    optuna.artifacts.download_artifact(
        artifact_store=store, file_path=str(tmp_path / "got"), artifact_id=page.artifact_id
    )
    assert (tmp_path / "got").read_text() == "<p>"
    # a report that has changed is added
    (folder.path / "report.html").write_text("<p>more")
    upload_artifacts(open_study(folder, from_flat(SearchPlan, {})), folder)
    assert len(optuna.artifacts.get_all_artifact_meta(study)) == len(found) + 1

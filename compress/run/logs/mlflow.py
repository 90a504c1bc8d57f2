"""MLflow logging: a run with a nested run for each item."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.run.logs import Event

EXPERIMENT_NAME = "paretune"
FOLDER_NAME = "mlflow"
URI_VARIABLE = "MLFLOW_TRACKING_URI"
MAX_PARAM_LENGTH = 500
"""Largest length of a parameter in MLflow, in characters."""
METRIC_BATCH_SIZE = 1000
"""Largest number of metrics per call."""


class MlflowLog:
    """Log to `MLFLOW_TRACKING_URI`, or by default to a database in the run's folder.

    Show the database with `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow/mlflow.db`. The
    files of the report are artifacts of the outer run.

    Args:
        folder: The run's folder.
        name: Name of the run.
        plan: The run's options, logged as parameters of the outer run.
    """

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]) -> None:
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient

        for library in ("alembic", "mlflow"):
            logging.getLogger(library).setLevel(logging.WARNING)
        home = (folder / FOLDER_NAME).resolve()
        home.mkdir(exist_ok=True)
        is_local = URI_VARIABLE not in os.environ
        uri = f"sqlite:///{home / 'mlflow.db'}" if is_local else os.environ[URI_VARIABLE]
        self._client = MlflowClient(uri)
        # MLflow ids of items, one per line, so that a resumed run continues them
        self._uri, self._ids_path = uri, home / "runs.jsonl"
        lines = self._ids_path.read_text("utf-8") if self._ids_path.exists() else ""
        stored_runs = [json.loads(line) for line in lines.splitlines() if line.endswith("]")]
        self._ids = {item: run for location, item, run in stored_runs if location == uri}
        self._open_run_ids = set[str]()
        experiment = self._client.get_experiment_by_name(EXPERIMENT_NAME)
        location = (home / "artifacts").as_uri() if is_local else None
        self._experiment_id = (
            self._client.create_experiment(EXPERIMENT_NAME, artifact_location=location)
            if experiment is None
            else experiment.experiment_id
        )
        self._outer_run_id = self._open_run("", name, {}, plan)

    def _open_run(
        self, item: str, name: str, tags: dict[str, str], params: Mapping[str, Any]
    ) -> str:
        """Return the MLflow run of an item, from an earlier start or newly created."""
        from mlflow.entities import Param

        if item not in self._ids:
            created_run = self._client.create_run(self._experiment_id, run_name=name, tags=tags)
            self._ids[item] = created_run.info.run_id
            with open(self._ids_path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps([self._uri, item, self._ids[item]]) + "\n")
            texts = {str(key): str(value)[:MAX_PARAM_LENGTH] for key, value in params.items()}
            # parameters cannot be changed: log them once
            self._client.log_batch(self._ids[item], params=[Param(*pair) for pair in texts.items()])
        self._open_run_ids.add(self._ids[item])
        return str(self._ids[item])

    def take(self, event: Event) -> None:
        """Log an event; see `Log.take`."""
        from mlflow.entities import Metric

        tags = {"mlflow.parentRunId": self._outer_run_id, "paretune.kind": event.kind}
        run = self._open_run(event.item, event.item, tags, event.params)
        metrics = [
            Metric(name, value, int(1000 * (time.time() if point.when is None else point.when)),
                   point.step)
            for point in event.points
            for name, value in point.values.items()
        ]  # fmt: skip
        for start in range(0, len(metrics), METRIC_BATCH_SIZE):
            self._client.log_batch(run, metrics=metrics[start : start + METRIC_BATCH_SIZE])
        if event.kind != "model":  # no further events
            self._client.set_terminated(run)
            self._open_run_ids.discard(run)

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """Close the log; see `Log.end`."""
        for path in files if finished else ():
            self._client.log_artifact(self._outer_run_id, str(path))
        for run in self._open_run_ids:
            self._client.set_terminated(run, "FINISHED" if finished else "KILLED")

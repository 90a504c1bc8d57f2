"""MLflow: a run with a nested run for each item."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core.atomic_files import read_json, write_json
from compress.logs._base import Event

EXPERIMENT = "paretune"
PLACE = "mlflow"
ADDRESS = "MLFLOW_TRACKING_URI"
LONGEST = 500
"""Letters of a parameter that MLflow takes."""


class MlflowLog:
    """Logs to `MLFLOW_TRACKING_URI`; without it to a database in the run's folder.

    `mlflow ui --backend-store-uri sqlite:///FOLDER/mlflow/mlflow.db` shows that. The files of
    the report are the outer run's artifacts.

    Args:
        folder: The run's.
        name: What the run is called.
        plan: Its options: parameters of the outer run.
    """

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]) -> None:
        os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")
        from mlflow import MlflowClient

        for library in ("alembic", "mlflow"):
            logging.getLogger(library).setLevel(logging.WARNING)
        home = (folder / PLACE).resolve()
        home.mkdir(exist_ok=True)
        own = ADDRESS not in os.environ
        address = f"sqlite:///{home / 'mlflow.db'}" if own else os.environ[ADDRESS]
        self._client = MlflowClient(address)
        self._known = home / "runs.json"
        kept = read_json(self._known) if self._known.exists() else {}
        self._runs: dict[str, str] = kept.get(address, {})
        self._address = address
        found = self._client.get_experiment_by_name(EXPERIMENT)
        place = (home / "artifacts").as_uri() if own else None
        self._experiment = (
            self._client.create_experiment(EXPERIMENT, artifact_location=place)
            if found is None
            else found.experiment_id
        )
        self._outer = self._run("", name, {})
        for key, value in plan.items():
            self._param(self._outer, key, value)

    def _run(self, item: str, name: str, tags: dict[str, str]) -> str:
        """Returns the run of an item: that of an earlier start, or a new one."""
        if item not in self._runs:
            made = self._client.create_run(self._experiment, run_name=name, tags=tags)
            self._runs[item] = made.info.run_id
            write_json(self._known, {self._address: self._runs})
        return self._runs[item]

    def _param(self, run: str, key: str, value: Any) -> None:
        text = str(value)[:LONGEST]
        known = self._client.get_run(run).data.params.get(key)
        if known is None:  # what stands there cannot be changed
            self._client.log_param(run, key, text)

    def take(self, event: Event) -> None:
        """See `Log.take`."""
        tags = {"mlflow.parentRunId": self._outer, "paretune.kind": event.kind}
        run = self._run(event.item, event.item, tags)
        for key, value in event.params.items():
            self._param(run, key, value)
        for point in event.points:
            when = int(1000 * (time.time() if point.when is None else point.when))
            for name, value in point.values.items():
                self._client.log_metric(run, name, value, timestamp=when, step=point.step)
        if event.kind != "model":
            self._client.set_terminated(run)

    def end(self, files: Sequence[Path]) -> None:
        """See `Log.end`."""
        for path in files:
            self._client.log_artifact(self._outer, str(path))
        for run in self._runs.values():
            self._client.set_terminated(run)

"""MLflow: a run with a nested run for each item."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.run.logs import Event

EXPERIMENT = "paretune"
PLACE = "mlflow"
ADDRESS = "MLFLOW_TRACKING_URI"
LONGEST = 500
"""Letters of a parameter that MLflow takes."""
BATCH = 1000
"""Metrics that it takes at once."""


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
        # MLflow's ids of items, a line each: a run that goes on logs to the same
        self._address, self._ids_path = address, home / "runs.jsonl"
        lines = self._ids_path.read_text("utf-8") if self._ids_path.exists() else ""
        known = [json.loads(line) for line in lines.splitlines() if line.endswith("]")]
        self._ids = {item: run for place, item, run in known if place == address}
        self._open = set[str]()
        found = self._client.get_experiment_by_name(EXPERIMENT)
        place = (home / "artifacts").as_uri() if own else None
        self._experiment = (
            self._client.create_experiment(EXPERIMENT, artifact_location=place)
            if found is None
            else found.experiment_id
        )
        self._outer = self._run("", name, {}, plan)

    def _run(self, item: str, name: str, tags: dict[str, str], params: Mapping[str, Any]) -> str:
        """Return the run of an item: that of an earlier start, or a new one."""
        from mlflow.entities import Param

        if item not in self._ids:
            made = self._client.create_run(self._experiment, run_name=name, tags=tags)
            self._ids[item] = made.info.run_id
            with open(self._ids_path, "a", encoding="utf-8") as stream:
                stream.write(json.dumps([self._address, item, self._ids[item]]) + "\n")
            texts = {str(key): str(value)[:LONGEST] for key, value in params.items()}
            # what stands there cannot be changed: it is told once
            self._client.log_batch(self._ids[item], params=[Param(*pair) for pair in texts.items()])
        self._open.add(self._ids[item])
        return str(self._ids[item])

    def take(self, event: Event) -> None:
        """See `Log.take`."""
        from mlflow.entities import Metric

        tags = {"mlflow.parentRunId": self._outer, "paretune.kind": event.kind}
        run = self._run(event.item, event.item, tags, event.params)
        metrics = [
            Metric(name, value, int(1000 * (time.time() if point.when is None else point.when)),
                   point.step)
            for point in event.points
            for name, value in point.values.items()
        ]  # fmt: skip
        for start in range(0, len(metrics), BATCH):
            self._client.log_batch(run, metrics=metrics[start : start + BATCH])
        if event.kind != "model":  # nothing more comes of it
            self._client.set_terminated(run)
            self._open.discard(run)

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """See `Log.end`."""
        for path in files if finished else ():
            self._client.log_artifact(self._outer, str(path))
        for run in self._open:
            self._client.set_terminated(run, "FINISHED" if finished else "KILLED")

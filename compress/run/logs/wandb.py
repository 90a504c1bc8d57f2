"""Weights & Biases logging: one run per item, in one group."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core.atomic_files import write_text
from compress.run.logs import Event

PROJECT, MARK_FILE = "paretune", ".wandb-mark"


class WandbLog:
    """Log to W&B with its own settings (`WANDB_MODE=offline` stores all in the run's folder).

    Args:
        folder: The run's folder.
        name: Name of the run, used as the group of all items.
        plan: The run's options, logged in addition to the parameters of each item.
    """

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]) -> None:
        import wandb

        self._wandb, self._folder, self._name = wandb, folder, name
        self._plan = {key: value for key, value in plan.items() if value is not None}
        self._runs: dict[str, Any] = {}
        # folder names are reused: a random id per folder identifies its runs in W&B
        id_path = folder / MARK_FILE
        if not id_path.exists():
            write_text(id_path, uuid.uuid4().hex[:12])
        self._folder_id = id_path.read_text("utf-8").strip()

    def _open_run(self, item: str, kind: str) -> Any:
        """Return the W&B run of an item, started or resumed if it is not open."""
        if item not in self._runs:
            self._runs[item] = self._wandb.init(
                project=PROJECT, group=self._name, name=item, job_type=kind,
                id=re.sub(r"[^\w-]", "-", f"{self._folder_id}-{item}"), resume="allow",
                reinit="create_new",
                dir=str(self._folder), config=self._plan,
                settings=self._wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        return self._runs[item]

    def take(self, event: Event) -> None:
        """Log an event; see `Log.take`."""
        run = self._open_run(event.item, event.kind)
        if event.params:
            run.config.update(dict(event.params), allow_val_change=True)
        for point in event.points:
            run.log(dict(point.values), step=point.step)
        if event.kind != "model":
            self._runs.pop(event.item).finish()

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """Close the log; see `Log.end`."""
        if finished and files:
            run = self._open_run("report", "report")
            for path in files:
                run.save(str(path), base_path=str(path.parent), policy="now")
        for run in self._runs.values():
            run.finish()
        self._runs = {}

"""Weights & Biases: a run of its own for each item, in one group."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.core.atomic_files import write_text
from compress.run.logs import Event

PROJECT, MARK = "paretune", ".wandb-mark"


class WandbLog:
    """Logs to W&B as its own settings say (`WANDB_MODE=offline` keeps all in the run's folder).

    Args:
        folder: The run's.
        name: What the run is called: the group of all items.
        plan: Its options, beside what an item was made of.
    """

    def __init__(self, folder: Path, name: str, plan: Mapping[str, Any]) -> None:
        import wandb

        self._wandb, self._folder, self._name = wandb, folder, name
        self._plan = {key: value for key, value in plan.items() if value is not None}
        self._open: dict[str, Any] = {}
        # names of folders come again: what tells runs apart in W&B is drawn once a folder
        mark = folder / MARK
        if not mark.exists():
            write_text(mark, uuid.uuid4().hex[:12])
        self._mark = mark.read_text("utf-8").strip()

    def _run(self, item: str, kind: str) -> Any:
        if item not in self._open:
            self._open[item] = self._wandb.init(
                project=PROJECT, group=self._name, name=item, job_type=kind,
                id=re.sub(r"[^\w-]", "-", f"{self._mark}-{item}"), resume="allow",
                reinit="create_new",
                dir=str(self._folder), config=self._plan,
                settings=self._wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        return self._open[item]

    def take(self, event: Event) -> None:
        """See `Log.take`."""
        run = self._run(event.item, event.kind)
        if event.params:
            run.config.update(dict(event.params), allow_val_change=True)
        for point in event.points:
            run.log(dict(point.values), step=point.step)
        if event.kind != "model":
            self._open.pop(event.item).finish()

    def end(self, files: Sequence[Path], *, finished: bool) -> None:
        """See `Log.end`."""
        if finished and files:
            run = self._run("report", "report")
            for path in files:
                run.save(str(path), base_path=str(path.parent), policy="now")
        for run in self._open.values():
            run.finish()
        self._open = {}

"""Weights & Biases: a run of its own for each item, in one group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.logs._base import Event

PROJECT = "paretune"


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

    def _run(self, item: str, kind: str) -> Any:
        if item not in self._open:
            self._open[item] = self._wandb.init(
                project=PROJECT, group=self._name, name=item, job_type=kind,
                id=f"{self._name}-{item}".replace("/", "-"), resume="allow", reinit="create_new",
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

    def end(self, files: Sequence[Path]) -> None:
        """See `Log.end`."""
        if files:
            run = self._run("report", "report")
            for path in files:
                run.save(str(path), base_path=str(path.parent), policy="now")
        for run in self._open.values():
            run.finish()
        self._open = {}

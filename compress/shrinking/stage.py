"""A goal for one model of many: what a run does to each model of its front."""

from __future__ import annotations

import shutil
import time

from compress.core.errors import FeasibleError
from compress.model.copies import float32_model
from compress.model.io import save_model
from compress.run.compressed import Compressed
from compress.run.directory import RunFolder
from compress.shrinking.case import Case
from compress.shrinking.folder import ShrinkFolder
from compress.shrinking.pace import Pace
from compress.shrinking.way import planner_for, recorded


def goal_stage(case: Case, folder: RunFolder, command: str) -> Compressed:
    """Shrinks one model to its plan's goal, and records files and qualities in a run's folder.

    Its nets and files lie in shrunk/<name>/ there; an interrupted one goes on when the same call
    is made again. A model that cannot come to the goal is recorded as it is, with the reason.
    Times that choose are measured here, beside whatever else the machine does; those that the
    report shows are measured by `measure_stage`, when nothing else runs.

    Args:
        case: The model.
        folder: The run's.
        command: What the report shows for repeating it.

    Raises:
        FeasibleError: The model is no better than guessing, or below the quality asked for.
        RunFailed: No file could be made.
    """
    began = time.monotonic()
    own = ShrinkFolder(folder.path / "shrunk" / case.name)
    for place in (own.models, own.exports, own.nets):
        place.mkdir(parents=True, exist_ok=True)
    own.clear()
    planner = planner_for(case, own, Pace(case.plan.goal.budget))
    try:
        nets = planner.run()
    except FeasibleError as error:
        planner.notes.append(f"nothing was removed: {error}")
        nets = [planner.shop.whole(case.name, planner.formats)]
    record = recorded(planner, nets, folder, command, began)
    best = next((net for net in nets if net.name == record.compressed), nets[0])
    save_model(float32_model(planner.shop.model_of(best)), folder.model_file(record.small))
    shutil.rmtree(own.path / "unfinished", ignore_errors=True)
    return record

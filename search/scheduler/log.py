"""The decisions of a run with a time budget and their results, on disk and in words."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from search.scheduler.forecast import compute_rank_correlation
from search.scheduler.records import CONTINUE, PRUNE, TUNE, Step, StepResult
from search.scheduler.scheduler import Scheduler

EndedStep = tuple[Step, StepResult, float]
"""A step with its result and the gain of hypervolume that it brought."""
WORDS = {CONTINUE: "longer training", PRUNE: "pruning", TUNE: "fine-tuning"}
"""Kinds of steps as reports call them, where the kind says too little."""
FEWEST_RANKED = 4
"""Smallest number of fine-tuned sizes whose rank correlation says anything."""


class ScheduleLog:
    """The decisions and results of a run, one JSON object a line.

    Args:
        folder: Folder of the run; without the file nothing has been decided.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "schedule.jsonl"

    def write(self, event: str, content: dict[str, Any]) -> None:
        """Append a line.

        Args:
            event: "begun" or "ended".
            content: The step, or the number of the step and its result.
        """
        line = json.dumps({"event": event, **content}).encode() + b"\n"
        with self.path.open("ab+") as stream:
            if stream.tell():
                stream.seek(-1, os.SEEK_END)
                if stream.read() != b"\n":  # a kill has cut off the last line
                    line = b"\n" + line
            stream.write(line)

    def read(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the lines as (event, content), without those that a kill has cut off."""
        if not self.path.exists():
            return
        for line in self.path.read_text(encoding="utf-8").splitlines():
            try:
                content = json.loads(line)
            except ValueError:
                continue
            yield content.pop("event"), content

    def replay(self, scheduler: Scheduler) -> float:
        """Bring a scheduler to where the log ends; unfinished steps are running.

        Args:
            scheduler: A scheduler without any step.

        Returns:
            Seconds of the run at the last line.

        Raises:
            InputError: The file is invalid.
        """
        seconds = 0.0
        try:
            for event, content in self.read():
                if event == "begun":
                    step = Step.from_json(content, self.path)
                    scheduler.resume(step)
                    seconds = max(seconds, step.begun)
                else:
                    running = {item.number: item for item in scheduler.running}
                    scheduler.finish(running[content["number"]], _read_result(content, self.path))
                    seconds = max(seconds, float(content["at"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"'{self.path}' must hold the steps of a run. Received: {error}. Start anew in "
                "another folder."
            ) from error
        return seconds

    def list_ended(self) -> list[EndedStep]:
        """Return the steps that ended, each with its result and the gain that it brought.

        Raises:
            InputError: The file is invalid.
        """
        begun: dict[int, Step] = {}
        ended = []
        for event, content in self.read():
            if event == "begun":
                step = Step.from_json(content, self.path)
                begun[step.number] = step
            elif content["number"] in begun:
                result = _read_result(content, self.path)
                ended.append((begun[content["number"]], result, content["gain"]))
        return ended


def describe_schedule(ended: Sequence[EndedStep]) -> list[str]:
    """Describe the steps of a run by kind, and the errors of its forecasts.

    Args:
        ended: The steps that ended.
    """
    counts: dict[str, tuple[int, float]] = {}
    for step, result, _ in ended:
        number, seconds = counts.get(step.kind, (0, 0.0))
        counts[step.kind] = number + 1, seconds + result.seconds
    spent = ", ".join(f"{number} x {WORDS.get(kind, kind)} ({seconds:.0f} s)"
                      for kind, (number, seconds) in counts.items())  # fmt: skip
    total = sum(seconds for _, seconds in counts.values())
    lines = [f"The workers spent {total:.0f} s: {spent}."] if counts else []
    pairs = [
        (step.quality, result.sizes[0].quality)
        for step, result, _ in ended
        if step.quality is not None and result.sizes
    ]
    if pairs:
        predicted, actual = zip(*pairs, strict=True)
        error = (sum(actual) - sum(predicted)) / len(pairs)
        correlation = compute_rank_correlation(predicted, actual)
        rank = (
            f", with a rank correlation of {correlation:.2f}"
            if len(pairs) >= FEWEST_RANKED and not math.isnan(correlation)
            else ""
        )
        sizes = "1 fine-tuned size" if len(pairs) == 1 else f"{len(pairs)} fine-tuned sizes"
        lines.append(
            f"Of {sizes}, the result was {100 * error:+.2f} pp from the forecast on average{rank}."
        )
    return lines


def _read_result(content: dict[str, Any], path: Path) -> StepResult:
    """Return the result of an ended step from its line."""
    names = {field.name for field in fields(StepResult)}
    return StepResult.from_json({name: content[name] for name in names & content.keys()}, path)

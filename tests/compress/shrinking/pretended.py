"""A builder of candidates that only pretends, and a planner with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from compress.core.errors import FeasibleError, ParetuneError, TrainingDiverged
from compress.plan.nesting import from_flat
from compress.plan.shrink import ShrinkPlan
from compress.shrinking.candidate import REPAIRED, TRAINED, Candidate
from compress.shrinking.goals import MetricConstraint
from compress.shrinking.planner import Planner
from compress.shrinking.time_budget import TimeBudget
from compress.shrinking.variations import RECIPE, Variation


class Builder:
    """Nets whose quality follows from the share of the time: 0.9 - loss(share), less by training.

    Args:
        plan: Of the goal.
        loss: Points that repair leaves, by share.
        least: Shares below are not feasible.
        examples: For validation.
    """

    def __init__(
        self, plan: ShrinkPlan, loss: Any, least: float = 0.0, examples: int = 10**6
    ) -> None:
        self.loss, self.least = loss, least
        data = SimpleNamespace(train=range(1000), val=range(examples))
        self.job: Any = SimpleNamespace(name="m", plan=plan, context=SimpleNamespace(data=data))
        val = {"float32": {"accuracy": 0.9}, "int8": {"accuracy": 0.89}}
        times = {"float32": 2.0, "int8": 1.0}
        self.original_files: Any = SimpleNamespace(first="float32", ms=2.0, val=val, times=times)
        self.asked: list[tuple[str, str]] = []
        self.variations: dict[str, Variation] = {}
        self.made: dict[str, Candidate] = {}
        self.folder: Any = SimpleNamespace(find_candidate=self.made.get)
        self.examples = examples
        self.clock = [0.0]
        self.epochs: dict[str, int] = {}
        self.max_parallel, self.batches = 1, list[tuple[str, ...]]()

    def build(
        self, name: str, format: str, goals: Mapping[str, float], formats: tuple[str, ...],
        variation: Variation = RECIPE,
    ) -> Candidate:  # fmt: skip
        self.asked.append((name, format))
        if name in self.made:
            return self.made[name]
        self.clock[0] += 20.0
        share = goals["latency"] / 2.0
        if share < self.least:
            raise FeasibleError(f"{share} is too little")
        lost = self.loss(share)
        if variation != RECIPE:
            self.variations[name] = variation
            # a power of the damages of 1.5 is the best, and half a point better than 1
            lost += 2.0 * abs(np.log(variation.temperature / 1.5)) - 0.8109
        quality = 0.9 - lost / 100
        val = {kind: {"accuracy": quality} for kind in formats}
        self.made[name] = Candidate(
            name, format, formats, dict(goals), dict(goals), 1, 1, share, False, (), 1, REPAIRED,
            val, val, seconds=20.0, variation={} if variation == RECIPE else variation.to_json(),
        )  # fmt: skip
        return self.made[name]

    def read_values(self, candidate: Candidate, format: str) -> Any:
        """Wrong on the first examples: models that differ least."""
        wrong = round((1 - candidate.get_metric(format, "accuracy")) * self.examples)
        return np.where(np.arange(self.examples) < wrong, 0.0, 1.0)

    def read_original_values(self) -> Any:
        return np.where(np.arange(self.examples) < round(0.1 * self.examples), 0.0, 1.0)

    def reset_to_repaired(self, candidate: Candidate, name: str) -> Candidate:
        again = replace(candidate, name=name, stage=REPAIRED, val=candidate.repaired)
        return self.made.setdefault(name, again)

    def build_original(self, name: str, formats: tuple[str, ...]) -> Candidate:
        val = {kind: {"accuracy": 0.9} for kind in formats}
        return Candidate(
            name, formats[0], formats, {}, {}, 1, 1, 1.0, True, (), 0, REPAIRED, val, val
        )

    def train_all(self, wanted: Sequence[tuple[Candidate, int]]) -> list[Candidate | ParetuneError]:
        self.batches.append(tuple(net.name for net, _ in wanted))
        began, ends, found = self.clock[0], [self.clock[0]], list[Candidate | ParetuneError]()
        for net, epochs in wanted:
            self.clock[0] = began  # beside each other
            try:
                found.append(self.train(net, epochs))
            except TrainingDiverged as error:
                found.append(error)
            ends.append(self.clock[0])
        self.clock[0] = max(ends)
        return found

    def train(self, net: Candidate, epochs: int | None = None) -> Candidate:
        assert epochs is not None
        self.epochs[net.name] = epochs
        # four times as long: half of what is lost
        longer = {"400epochs": 2.0, "1600epochs": 4.0}.get(net.name.rpartition("-")[2], 1.0)
        quality = 0.9 - (0.9 - net.get_best("accuracy")) / (4 * longer)
        val = {kind: {"accuracy": quality} for kind in net.formats}
        self.clock[0] += 10.0 * epochs
        self.made[net.name] = replace(
            net, stage=TRAINED, epochs=epochs, val=val, seconds=net.seconds + 10.0 * epochs
        )
        return self.made[net.name]


def planner(
    flat: dict[str, Any], limits: dict[str, float], floor: float | None, loss: Any, **more: Any
) -> tuple[Planner, Builder]:
    plan = from_flat(ShrinkPlan, {"batch_size": 100, "finetune_epochs": 3, **flat})
    builder = Builder(plan, loss, more.pop("least", 0.0), more.pop("examples", 10**6))
    pace = more.pop("pace", TimeBudget(None))
    return Planner(builder, limits, MetricConstraint("accuracy", 0.9, floor), pace), builder  # type: ignore[arg-type]

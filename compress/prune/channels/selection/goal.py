"""What the keywords of `prune_channels` aim at: a number, and those of the steps on the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from compress.core.errors import FeasibleError, InputError
from compress.plan import ChannelOptions
from compress.plan.target import Target
from compress.prune.channels.coupling.groups import Coupling
from compress.prune.channels.selection.allocation import Priced
from compress.prune.channels.selection.allowed import cost_of
from compress.prune.channels.selection.chosen import cost_text
from compress.prune.channels.selection.solver import Cost


def aimed(options: ChannelOptions, given: dict[str, Any], cost: Priced | None) -> ChannelOptions:
    """Returns options with the target of the keywords.

    Raises:
        InputError: A cost without a share of it, or the other way round, or in steps.
    """
    share = given.get("cost")
    if (cost is None) != (share is None):
        raise InputError(
            "cost= and share= must go together: what to save, and what share of it to keep. "
            f"Received: {'share alone' if cost is None else 'cost alone'}."
        )
    if share is not None:
        if not 0 < share <= 1:
            raise InputError(f"share must be in (0, 1]. Received: {share}.")
        if options.steps > 1:
            raise InputError(
                "cost must go with one step: it is of the model as it is. Received: "
                f"{options.steps} steps."
            )
        return replace(options, target_metric="macs", target=Target(float(share), relative=True))
    for name, value in given.items():
        options = replace(options, target_metric=name, target=value)
    return options


@dataclass(frozen=True)
class Goal:
    """The target as a number, and the targets of the steps on the way.

    Attributes:
        metric: What is counted.
        value: What is to be left of it; of an amount, the share that leaves.
        before: What the model has of it.
    """

    metric: str
    value: float
    before: float

    @classmethod
    def of_options(
        cls, options: ChannelOptions, coupling: Coupling, own: Cost | None = None
    ) -> Goal:
        """Returns the goal of options, for a model.

        Args:
            options: With a target.
            coupling: Of the model.
            own: What the target counts, in place of what options name.

        Raises:
            FeasibleError: It is more than the model has.
        """
        target, metric = options.target, options.target_metric if own is None else "cost"
        assert target is not None, "prune_channels has asked for one"
        if metric == "amount":
            return cls(metric, target.amount, 1.0)
        before = float(cost_of(coupling, options, own)(coupling.whole))
        goal = target.amount * before if target.relative else target.amount
        if goal > before:
            raise FeasibleError(
                f"{metric} must be at most the model's own {cost_text(before)}. Received: "
                f"{cost_text(goal)}."
            )
        return cls(metric, goal, before)

    def at(self, step: int, steps: int) -> float:
        """Returns the target of a step: equal factors from step to step."""
        if self.metric == "amount":
            # each step removes from what the last one left
            return 1.0 - float((1.0 - self.value) ** (1.0 / steps))
        return float(self.before * (self.value / self.before) ** (step / steps))

"""Plan sections: early stopping, search budget and final training; conditions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compress.core.errors import InputError, to_one_line
from compress.core.quantities import describe_quantity, format_amount, parse_number
from compress.data.tasks import list_metrics
from compress.plan.conversion import ConvertedField, TextValue
from compress.plan.fields import (
    Choices,
    RemovedOption,
    option,
    require,
    require_choice,
    validate_fields,
)
from compress.plan.training import MAX_EPOCHS, MAX_EPOCHS_REASON

RULES = ("dominance", "none")
REMOVED_RULES = {
    "halving": "It lost 0.3 to 34 % of the hypervolume at 2 to 4.5 times fewer epochs. Use "
    "'dominance', the default, which lost 0.3 % at 2.5 times fewer; to save more, use fewer "
    "epochs, and final_epochs to train the front longer.",
}
Minutes = ConvertedField[float | None, float | str | None]
"""Minutes as a number, or a duration as text: "30m", "1h", "90s"."""


COSTS = {
    "macs": ("count", "a count like 2M"),
    "params": ("count", "a count like 200k"),
    "size_bytes": ("bytes", "a size like 200KB"),
    "latency_ms": ("ms", "a latency like 3ms"),
}
"""Unit of a number without a unit, and an example for errors, by cost."""
_METRIC = ("share", "a number like 0.92")


@dataclass(frozen=True)
class Condition(TextValue):
    """Comparison of a metric or cost with a number.

    Attributes:
        name: Name of a metric or cost.
        symbol: ">=" or "<=".
        number: The limit.

    Example:
        >>> str(Condition.parse("macs <= 2e6"))
        'macs<=2M'
    """

    name: str
    symbol: Literal[">=", "<="]
    number: float

    @classmethod
    def parse(cls, text: str, name: str = "a condition") -> Self:
        """Return the condition of a text like "accuracy>=0.92" or "macs<=2M".

        Args:
            text: The text.
            name: Name of the value in errors.

        Raises:
            InputError: The text is no comparison of a metric or cost with a number.
        """
        parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
        if parts is None:
            raise InputError(
                f"{name} must be comparisons like accuracy>=0.92,macs<=2M. "
                f"Received: '{to_one_line(text)}'."
            )
        require_choice("quality or cost", parts[1], (*list_metrics(), *COSTS))
        unit, like = COSTS.get(parts[1], _METRIC)
        number = parse_number(parts[3], unit)
        if number is None:
            kind = describe_quantity(parts[3])
            raise InputError(
                f"{name} must compare {parts[1]} with {like}. "
                f"Received: '{to_one_line(text)}'{f', with {kind}' if kind else ''}."
            )
        return cls(parts[1], ">=" if parts[2] == ">=" else "<=", number)

    def compute_violation(self, value: float) -> float:
        """Return the violation relative to the limit; at most 0 if the condition is met.

        Args:
            value: Value of the metric or cost.
        """
        gap = self.number - value if self.symbol == ">=" else value - self.number
        return gap / (abs(self.number) or 1.0)

    def is_met(self, value: float) -> bool:
        """Return whether a value meets the condition."""
        return self.compute_violation(value) <= 0

    def __str__(self) -> str:
        return f"{self.name}{self.symbol}{format_amount(self.number)}"


Conditions = ConvertedField[tuple[Condition, ...], Iterable[str | Condition]]


@dataclass(frozen=True)
class StoppingOptions:
    """Early stopping of trials."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "eta": RemovedOption(
            "--eta",
            "Only the stopping rule 'halving' used it, which was removed too. Leave it out.",
            unused_values=(3.0,),
        ),
    }

    rule: str = option(
        "dominance",
        "--stopping",
        "early-stopping rule: dominance (stop a trial when another is better at no more cost) or "
        "none",
        choices=Choices("stopping rule", RULES, REMOVED_RULES),
    )
    margin: float = option(
        0.02, "--stop-margin", "dominance: by how much the other trial's quality must be higher"
    )
    rungs: ConvertedField[tuple[int, ...], Iterable[int] | str] = option(
        (), "--rungs", "epochs after which a trial may be stopped: 2,4; default: set by the rule",
        least=1, most=MAX_EPOCHS, why=MAX_EPOCHS_REASON,
    )  # fmt: skip
    plateau: int = option(
        0, "--plateau", "end a training after this many epochs without improvement; 0: never",
        least=0, most=MAX_EPOCHS, why=MAX_EPOCHS_REASON,
    )  # fmt: skip

    def __post_init__(self) -> None:
        validate_fields(self)
        require(self.margin >= 0, "stop_margin", "be at least 0", self.margin)


@dataclass(frozen=True)
class BudgetOptions:
    """Limits of the search besides the number of trials."""

    minutes: Minutes = option(
        None, "--max-minutes",
        "end the search after this time (minutes, or 90s, 30m, 2h); interruptions do not count",
        extendable=True, unit="minutes",
    )  # fmt: skip
    trial_minutes: Minutes = option(
        None, "--trial-minutes", "a trial that takes longer is ended and counts as failed",
        extendable=True, unit="minutes",
    )  # fmt: skip
    converged: int = option(
        0,
        "--converged-after",
        "end when this many trials have not raised the front's hypervolume; 0: never",
        extendable=True,
        least=0,
        most=10_000_000,
        why="more than trials",
    )
    target: Conditions = option(
        (), "--target", "end at a candidate that meets accuracy>=0.92,macs<=2e6", extendable=True
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        for name, flag in (("minutes", "max_minutes"), ("trial_minutes", "trial_minutes")):
            value = getattr(self, name)
            require(value is None or value > 0, flag, "be above 0", value)


@dataclass(frozen=True)
class FinalOptions:
    """Final training of the front's candidates after the search."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "seeds": RemovedOption(
            "--final-seeds",
            "No figure showed that several trainings of each model gain anything. Leave it out.",
            unused_values=(1,),
        ),
        "on_validation": RemovedOption(
            "--final-on-validation",
            "No figure showed a gain, and without a validation part nothing could select an epoch "
            "or a file. Use a smaller val_fraction (--val-fraction) to train on more data.",
            unused_values=(False,),
        ),
    }

    epochs: int = option(
        0,
        "--final-epochs",
        "train the front once more, for this many epochs; 0: keep what was trained, with "
        "--no-train as many as --epochs",
        least=0,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    models: int | None = option(
        None,
        "--final-models",
        "at most so many models of the front, spread over it, are trained once more and "
        "compressed; 0: none (paretune search); default: all, with --no-train 8",
        least=0,
        most=10_000,
        why="each is trained and compressed",
    )

    def __post_init__(self) -> None:
        validate_fields(self)


def compute_rungs(rule: str, epochs: int, chosen: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the epochs after which a trial may be stopped, all below `epochs`.

    Args:
        rule: Stopping rule; "none" has no rungs. The default rungs are an eighth, a quarter and a
            half of the epochs. Earlier epochs predict the final metric poorly (see docs/search.md).
        epochs: Epochs of a full training.
        chosen: Rungs chosen by the user, used in place of the default.

    Raises:
        InputError: A chosen rung is not in [1, epochs).
    """
    for rung in chosen:
        if not 1 <= rung < epochs:
            raise InputError(
                f"rungs must be in [1, {epochs}), the epochs before the last. Received: {rung}."
            )
    if rule == "none":
        return ()
    candidates = chosen or [math.ceil(epochs / share) for share in (8, 4, 2)]
    return tuple(sorted({rung for rung in candidates if rung < epochs}))

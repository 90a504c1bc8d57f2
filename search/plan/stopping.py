"""Plan sections: early stopping, the search's budget and final training; conditions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

from compress.core.errors import InputError, one_line
from compress.core.quantities import amount_text, describe_quantity, parse_number
from compress.data.tasks import qualities
from compress.plan.fields import Choices, RemovedOption, option, require, require_choice, settle
from compress.plan.forms import Given, Written
from compress.plan.training import EPOCHS_WHY, MOST_EPOCHS

RULES = ("dominance", "none")
REMOVED_RULES = {
    "halving": "It lost 0.3 to 34 % of the hypervolume at 2 to 4.5 times fewer epochs. Use "
    "'dominance', the default, which lost 0.3 % at 2.5 times fewer; to save more, use fewer "
    "epochs, and final_epochs to train the front longer.",
}
Minutes = Given[float | None, float | str | None]
"""Minutes as a number, or a text: "30m", "1h", "90s"."""


COSTS = {
    "macs": ("count", "a count like 2M"),
    "params": ("count", "a count like 200k"),
    "size_bytes": ("bytes", "a size like 200KB"),
    "latency_ms": ("ms", "a latency like 3ms"),
}
"""What a bare number counts, and what errors say of one, by cost."""
_QUALITY = ("share", "a number like 0.92")


@dataclass(frozen=True)
class Condition(Written):
    """One comparison.

    Attributes:
        name: A quality or a cost.
        symbol: ">=" or "<=".
        number: What it is held against.

    Example:
        >>> str(Condition.parse("macs <= 2e6"))
        'macs<=2M'
    """

    name: str
    symbol: Literal[">=", "<="]
    number: float

    @classmethod
    def parse(cls, text: str, name: str = "a condition") -> Self:
        """Read "accuracy>=0.92" or "macs<=2M".

        Raises:
            InputError: It is no comparison of a quality or cost with a number.
        """
        parts = re.fullmatch(r"\s*(\w+)\s*(>=|<=)\s*(\S+)\s*", text)
        if parts is None:
            raise InputError(
                f"{name} must be comparisons like accuracy>=0.92,macs<=2M. "
                f"Received: '{one_line(text)}'."
            )
        require_choice("quality or cost", parts[1], (*qualities(), *COSTS))
        unit, like = COSTS.get(parts[1], _QUALITY)
        number = parse_number(parts[3], unit)
        if number is None:
            kind = describe_quantity(parts[3])
            raise InputError(
                f"{name} must compare {parts[1]} with {like}. "
                f"Received: '{one_line(text)}'{f', with {kind}' if kind else ''}."
            )
        return cls(parts[1], ">=" if parts[2] == ">=" else "<=", number)

    def violation(self, value: float) -> float:
        """Return the violation as a share of the number; at most 0 where it holds."""
        gap = self.number - value if self.symbol == ">=" else value - self.number
        return gap / (abs(self.number) or 1.0)

    def holds(self, value: float) -> bool:
        """Return whether it holds."""
        return self.violation(value) <= 0

    def __str__(self) -> str:
        return f"{self.name}{self.symbol}{amount_text(self.number)}"


Conditions = Given[tuple[Condition, ...], Iterable[str | Condition]]


@dataclass(frozen=True)
class StoppingOptions:
    """Early stopping of trials."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "eta": RemovedOption(
            "--eta",
            "Only the stopping rule 'halving' used it, which was removed too. Leave it out.",
            off=(3.0,),
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
    rungs: Given[tuple[int, ...], Iterable[int] | str] = option(
        (), "--rungs", "epochs after which a trial may be stopped: 2,4; default: set by the rule",
        least=1, most=MOST_EPOCHS, why=EPOCHS_WHY,
    )  # fmt: skip
    plateau: int = option(
        0, "--plateau", "end a training after this many epochs without improvement; 0: never",
        least=0, most=MOST_EPOCHS, why=EPOCHS_WHY,
    )  # fmt: skip

    def __post_init__(self) -> None:
        settle(self)
        require(self.margin >= 0, "stop_margin", "be at least 0", self.margin)


@dataclass(frozen=True)
class BudgetOptions:
    """Limits of the search beside its number of trials."""

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
        settle(self)
        for name, flag in (("minutes", "max_minutes"), ("trial_minutes", "trial_minutes")):
            value = getattr(self, name)
            require(value is None or value > 0, flag, "be above 0", value)


@dataclass(frozen=True)
class FinalOptions:
    """Final training of the front's candidates after the search."""

    epochs: int = option(
        0,
        "--final-epochs",
        "train the front once more, for this many epochs; 0: keep what was trained, with "
        "--no-train as many as --epochs",
        least=0,
        most=MOST_EPOCHS,
        why=EPOCHS_WHY,
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
    seeds: int = option(
        1, "--final-seeds", "trainings of each model, each with a seed of its own", least=1,
        most=10_000, why="each trains every model of the front",
    )  # fmt: skip
    on_validation: bool = option(
        False,
        "--final-on-validation",
        "train on the validation part too; the last epoch is kept then",
    )

    def __post_init__(self) -> None:
        settle(self)


def rungs(rule: str, epochs: int, given: Sequence[int] = ()) -> tuple[int, ...]:
    """Return the epochs after which a trial may be stopped, all below `epochs`.

    Args:
        rule: "none": no rungs. Else after an eighth, a quarter and a half of the epochs; much
            earlier ones tell little of the last (docs/search.md has what they save and lose).
        epochs: Of a full training.
        given: What the user chose; taken as it is.

    Raises:
        InputError: A given rung is not in [1, epochs).
    """
    for rung in given:
        if not 1 <= rung < epochs:
            raise InputError(
                f"rungs must be in [1, {epochs}), the epochs before the last. Received: {rung}."
            )
    if rule == "none":
        return ()
    made = given or [math.ceil(epochs / share) for share in (8, 4, 2)]
    return tuple(sorted({rung for rung in made if rung < epochs}))

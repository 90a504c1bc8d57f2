"""Other ways to the same goal: sampled while a budget lasts, each a net of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from compress.run.records import Record, too_low

CRITERIA = ("reconstruction", "l2", "taylor")
"""Which units of a group leave; the last takes gradients, so that it needs labels."""
TEMPERATURES = (0.5, 2.0)
"""Powers of the damages that widths are chosen by: above 1 groups that harm little give more."""
RATES = (0.3, 3.0)
"""Factors of the learning rate of fine-tuning."""
FIRST = 4
"""Drawn at random before those that are expected to be better."""


@dataclass(frozen=True)
class Variation(Record):
    """How a net departs from the fixed recipe.

    Attributes:
        criterion: The plan's or one of `CRITERIA`; empty: the plan's.
        temperature: Power of the damages.
        learning_rate: Factor of the plan's.
        format: Of the file that it is made for; empty: it was not drawn.
    """

    criterion: str = ""
    temperature: float = 1.0
    learning_rate: float = 1.0
    format: str = ""

    def flaw(self) -> str:
        """See `Record.flaw`."""
        return too_low(self, 0, "temperature", "learning_rate")

    def __str__(self) -> str:
        """Returns it in words."""
        return (
            f"criterion {self.criterion}, damages to the power of {self.temperature:.2f}, "
            f"learning rate times {self.learning_rate:.2f}"
        )


RECIPE = Variation()
"""Departs in nothing."""


@dataclass(frozen=True)
class Asked:
    """A variation that was asked for.

    Attributes:
        variation: What was drawn.
        trial: Optuna's.
    """

    variation: Variation
    trial: Any


class Sampler:
    """Draws variations, and learns from what came of them: Optuna's TPE.

    Args:
        formats: Among which it chooses; one: there is nothing to choose.
        criterion: The recipe's.
        trains: Whether nets are fine-tuned.
        seed: Of what is drawn.
        places: How many are asked for before one is told: more than one are kept apart.
    """

    def __init__(
        self, formats: Sequence[str], criterion: str, trains: bool, seed: int, places: int = 1
    ) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._formats, self._trains = tuple(formats), trains
        others = CRITERIA if trains else CRITERIA[:-1]
        self._criteria = tuple(dict.fromkeys((criterion, *others)))
        self._study = optuna.create_study(
            direction="maximize",
            sampler=optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=FIRST, constant_liar=places > 1
            ),
        )

    def began(self, format: str, quality: float) -> None:
        """Takes what came of the fixed recipe, in a format."""
        self.tell(self.ask_for(Variation(self._criteria[0], format=format)), quality)

    def ask_for(self, variation: Variation) -> Asked:
        """Returns a variation of one's own choice, to tell what came of it."""
        self._study.enqueue_trial(variation.to_json())
        return self.ask()

    def ask(self) -> Asked:
        """Returns the next variation."""
        trial = self._study.ask()
        rate = trial.suggest_float("learning_rate", *RATES, log=True) if self._trains else 1.0
        several = len(self._formats) > 1
        drawn = Variation(
            trial.suggest_categorical("criterion", self._criteria),
            trial.suggest_float("temperature", *TEMPERATURES, log=True),
            rate,
            trial.suggest_categorical("format", self._formats) if several else self._formats[0],
        )
        return Asked(drawn, trial)

    def tell(self, asked: Asked, quality: float | None, repaired: float | None = None) -> None:
        """Takes what came of a variation.

        Args:
            asked: The variation.
            quality: Validation quality at its last stage; None: it was not trained, or no choice
                comes to the goal.
            repaired: Likewise before training, where there is a net.
        """
        import optuna

        if quality is not None:
            self._study.tell(asked.trial, quality)
            return
        state = optuna.trial.TrialState
        if repaired is not None:
            asked.trial.report(repaired, 0)
        self._study.tell(asked.trial, state=state.FAIL if repaired is None else state.PRUNED)

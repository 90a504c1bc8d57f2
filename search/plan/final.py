"""Plan section: final training of the front."""

from __future__ import annotations

from dataclasses import dataclass

from compress.plan.fields import option, validate_fields
from compress.plan.training import MAX_EPOCHS, MAX_EPOCHS_REASON


@dataclass(frozen=True)
class FinalOptions:
    """Final training of the front's candidates after the search."""

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
        validate_fields(self)

"""Plan section: final training of the front."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from compress.plan.fields import RemovedOption, option, validate_fields
from compress.plan.training import MAX_EPOCHS, MAX_EPOCHS_REASON


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
        "epochs of the Pareto front's second training after the search; 0: none",
        flat_name="final_epochs",
        least=0,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    models: int | None = option(
        None,
        "maximum number of front models to train again and compress; default: all",
        flat_name="final_models",
        least=1,
        most=10_000,
        why="each is trained and compressed",
    )

    def __post_init__(self) -> None:
        validate_fields(self)

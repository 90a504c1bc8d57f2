"""Plan section: files of whole numbers, and the training that they are made by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from compress.plan.fields import RemovedOption, option, require, require_choice, settle
from compress.plan.training import EPOCHS_WHY, MOST_EPOCHS, TrainSettings

CALIBRATIONS = ("mse", "minmax", "percentile")


@dataclass(frozen=True)
class QuantizeOptions:
    """How a model learns to compute in whole numbers, and where its ranges begin."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "equalize": RemovedOption(
            "--qat-equalize",
            "Cross-layer equalization changed no int8 file by more than noise (-0.10 to +0.04 pp "
            "on 17 models). Leave it out.",
            off=(False,),
        ),
        "correct_biases": RemovedOption(
            "--qat-correct-biases",
            "No figure showed that correcting biases before training gains anything. Leave it out.",
            off=(False,),
        ),
    }

    qat: bool = option(
        False,
        "--qat",
        "train the smaller model on as its file of whole numbers computes (format int8-qat)",
    )
    epochs: int = option(
        2, "--qat-epochs", "epochs of that training; 0: ranges and kernels are calibrated alone",
        least=0, most=MOST_EPOCHS, why=EPOCHS_WHY,
    )  # fmt: skip
    learning_rate: float = option(1e-4, "--qat-learning-rate", "its peak learning rate")
    calibration: str = option(
        "mse",
        "--qat-calibration",
        "where ranges begin: mse (what rounding and cutting off lose least by), minmax or "
        "percentile (99.99 %)",
    )
    examples: int = option(
        512, "--qat-examples", "training examples that ranges begin with", least=1, most=1_000_000,
        why="a few hundred tell the ranges",
    )  # fmt: skip
    learned_ranges: bool = option(
        False,
        "--qat-learned-ranges",
        "ranges are trained with the weights; else they move with what passes",
    )
    integer_products: bool = option(
        False,
        "--qat-integer-products",
        "multiply activations (attention) in whole numbers too, for hardware that has no others",
    )

    def recipe(self, finetune: TrainSettings) -> TrainSettings:
        """Returns how a model is trained: as it was fine-tuned, with epochs and rate of its own."""
        return replace(
            finetune, epochs=self.epochs, learning_rate=self.learning_rate, own_train_step=False
        )

    def __post_init__(self) -> None:
        settle(self)
        require_choice("calibration of ranges", self.calibration, CALIBRATIONS)
        require(self.learning_rate > 0, "qat_learning_rate", "be above 0", self.learning_rate)

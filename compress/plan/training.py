"""Plan sections: training, and quantization-aware training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from compress.core.registry import build_renamed_getattr
from compress.plan.conversion import NameList
from compress.plan.fields import Choices, RemovedOption, option, require, validate_fields

SCHEDULES = ("constant", "cosine", "exponential")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")

MIN_FINETUNE_EPOCHS = 4
FINETUNE_STEPS = 1000
MAX_EPOCHS = 1_000_000
MAX_EPOCHS_REASON = "each is recorded"


@dataclass(frozen=True)
class TrainSettings:
    """Options of the training loop.

    `epochs=None` means enough epochs for 1,000 steps and at least 4, because on small data an
    epoch is too short for gradual pruning.

    Attributes:
        least_epochs: Minimum number of epochs with `epochs=None`.
    """

    if not TYPE_CHECKING:  # a type checker must refuse unknown attributes
        __getattr__ = build_renamed_getattr({"epochs_for": "count_epochs"})

    least_epochs: ClassVar[int] = MIN_FINETUNE_EPOCHS
    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "accumulate": RemovedOption(
            "--accumulate",
            "A batch that does not fit into the memory budget is split, and the gradients of its "
            "parts are averaged. Give the whole batch as batch_size (--batch-size).",
            unused_values=(1,),
        ),
    }

    epochs: int | None = option(
        None,
        "--finetune-epochs --epochs",
        "epochs of fine-tuning; default: enough for 1,000 steps, at least 4; 0: none, what was "
        "pruned is repaired and exported",
        least=0,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    as_long: bool = option(
        False,
        "--as-long",
        "also train the dense model for as many more epochs, in the same way: the report then "
        "says what compression itself changes",
    )
    optimizer: str = option(
        "adam",
        "--finetune-optimizer --optimizer",
        "optimizer of fine-tuning: " + ", ".join(OPTIMIZERS),
        choices=Choices("optimizer", OPTIMIZERS),
    )
    learning_rate: float = option(1e-3, "--learning-rate", "peak learning rate of fine-tuning")
    schedule: str = option(
        "cosine",
        "--schedule",
        "how the learning rate of fine-tuning falls: " + ", ".join(SCHEDULES),
        choices=Choices("learning-rate schedule", SCHEDULES),
    )
    batch_size: int = option(
        128, "--batch-size", "examples per step of fine-tuning", least=1, most=1_000_000,
        why="a step holds all of them in memory",
    )  # fmt: skip
    weight_decay: float = option(
        0.0, "--weight-decay", "decoupled weight decay of kernels, in fine-tuning"
    )
    label_smoothing: float = option(
        0.0,
        "--label-smoothing",
        "share of each label that is moved to the other classes, in fine-tuning",
        unit="share",
    )
    class_weights: str = option(
        "none",
        "--class-weights",
        "none, or balanced: rare classes weigh more, in every training",
        choices=Choices("class weighting", ("none", "balanced")),
    )
    augment: NameList = option(
        (),
        "--augment",
        "random changes of training images, in every training: flip (left to right), shift (by up "
        "to an eighth); a teacher sees the same changed images",
        choices=Choices("augmentation", ("flip", "shift")),
    )
    own_train_step: bool = option(
        False,
        "--own-train-step",
        "fine-tune by the train_step of the model's own class, without a teacher (task custom)",
    )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(self.learning_rate > 0, "learning_rate", "be above 0", self.learning_rate)
        require(
            not (self.as_long and self.epochs == 0),
            "as_long",
            "go with fine-tuning, which it repeats for the dense model",
            "0 epochs",
        )
        require(
            not (self.own_train_step and self.label_smoothing),
            "label_smoothing",
            "be 0 where the model's own train_step trains",
            self.label_smoothing,
        )
        require(self.weight_decay >= 0, "weight_decay", "be at least 0", self.weight_decay)
        require(
            0 <= self.label_smoothing < 1, "label_smoothing", "be in [0, 1)", self.label_smoothing
        )

    def require_epochs(self) -> None:
        """Raise an error if these settings do not train.

        Raises:
            InputError: `epochs` is 0.
        """
        require(self.epochs != 0, "epochs", "be at least 1 to train", 0)

    def count_epochs(self, steps_per_epoch: int) -> int:
        """Return the number of epochs.

        Args:
            steps_per_epoch: Number of steps of one epoch.
        """
        if self.epochs is not None:
            return self.epochs
        return max(self.least_epochs, -(-FINETUNE_STEPS // steps_per_epoch))


@dataclass(frozen=True)
class QuantizeOptions:
    """Quantization-aware training of the formats int8-qat and onnx_int8-qat."""

    REMOVED: ClassVar[dict[str, RemovedOption]] = {
        "equalize": RemovedOption(
            "--qat-equalize",
            "Cross-layer equalization changed no int8 file by more than noise (-0.10 to +0.04 pp "
            "on 17 models). Leave it out.",
            unused_values=(False,),
        ),
        "correct_biases": RemovedOption(
            "--qat-correct-biases",
            "No figure showed that correcting biases before training gains anything. Leave it out.",
            unused_values=(False,),
        ),
        "qat": RemovedOption(
            "--qat",
            "Its format says the same. Name int8-qat among formats: --formats "
            "float32,int8,int8-qat.",
            unused_values=(False,),
        ),
        "calibration": RemovedOption(
            "--qat-calibration",
            "Initial ranges have the least error of rounding and clipping (mse). Leave it out.",
            unused_values=("mse",),
        ),
        "examples": RemovedOption(
            "--qat-examples",
            "Initial ranges are set from 512 training examples. Leave it out.",
            unused_values=(512,),
        ),
        "learned_ranges": RemovedOption(
            "--qat-learned-ranges",
            "No figure showed that ranges trained with the weights gain anything over moving "
            "averages. Leave it out.",
            unused_values=(False,),
        ),
        "integer_products": RemovedOption(
            "--qat-integer-products",
            "Products of activations in floats are 3.4 to 4.1 times as fast on LiteRT, at the "
            "same accuracy. Leave it out.",
            unused_values=(False,),
        ),
    }

    epochs: int = option(
        2, "--qat-epochs", "epochs of quantization-aware training (formats int8-qat, "
        "onnx_int8-qat); 0: ranges and kernels are calibrated alone",
        least=0, most=MAX_EPOCHS, why=MAX_EPOCHS_REASON,
    )  # fmt: skip
    learning_rate: float = option(1e-4, "--qat-learning-rate", "its peak learning rate")

    def build_train_settings(self, finetune: TrainSettings) -> TrainSettings:
        """Return the settings of quantization-aware training: those of fine-tuning with changes.

        The epochs and the learning rate are replaced by those of this section, and the model's own
        `train_step` is not used.

        Args:
            finetune: Settings of fine-tuning.
        """
        return replace(
            finetune, epochs=self.epochs, learning_rate=self.learning_rate, own_train_step=False
        )

    def __post_init__(self) -> None:
        validate_fields(self)
        require(self.learning_rate > 0, "qat_learning_rate", "be above 0", self.learning_rate)

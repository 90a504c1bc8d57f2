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
        "epochs of fine-tuning; 0: none; default: enough for 1,000 steps, at least 4",
        flat_name="finetune_epochs",
        least=0,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    as_long: bool = option(
        False,
        "also train the unpruned baseline for the same number of extra epochs (fair comparison)",
    )
    optimizer: str = option(
        "adam",
        "optimizer of fine-tuning",
        flat_name="finetune_optimizer",
        choices=Choices("optimizer", OPTIMIZERS),
    )
    learning_rate: float = option(1e-3, "peak learning rate of fine-tuning, above 0")
    learning_rate_schedule: str = option(
        "cosine",
        "learning-rate schedule of fine-tuning",
        choices=Choices("learning-rate schedule", SCHEDULES),
    )
    batch_size: int = option(
        128,
        "examples per step of fine-tuning",
        least=1,
        most=1_000_000,
        why="a step holds all of them in memory",
    )
    weight_decay: float = option(
        0.0, "decoupled weight decay of kernels during fine-tuning, at least 0"
    )
    label_smoothing: float = option(
        0.0,
        "share of each label that fine-tuning spreads over all classes, in [0, 1)",
        unit="share",
    )
    class_weights: str = option(
        "none",
        "class weights in every training; balanced: inverse to the number of examples",
        choices=Choices("class weighting", ("none", "balanced")),
    )
    augment: NameList = option(
        (),
        "data augmentation in every training, with commas: flip (horizontal), shift (by up to 1/8)",
        choices=Choices("augmentation", ("flip", "shift")),
    )
    epoch_examples: int | None = option(
        None,
        "training examples of an epoch in every training, drawn anew for each; default: all",
        least=1,
        most=10**12,
        why="no data set has more",
    )
    own_train_step: bool = option(
        False,
        "fine-tune with the model's own train_step, without a teacher (task custom)",
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

    def count_epoch_examples(self, examples: int) -> int:
        """Return the number of examples of an epoch.

        Args:
            examples: Number of training examples.
        """
        return min(examples, self.epoch_examples or examples)

    def count_steps(self, examples: int) -> int:
        """Return the number of steps of an epoch, at least 1.

        Args:
            examples: Number of training examples.
        """
        return max(1, self.count_epoch_examples(examples) // self.batch_size)

    def count_epochs(self, steps_per_epoch: int) -> int:
        """Return the number of epochs.

        Args:
            steps_per_epoch: Number of steps of one epoch; see `count_steps`.
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
        2,
        "epochs of quantization-aware training (formats int8-qat, onnx_int8-qat); 0: "
        "calibration only",
        flat_name="qat_epochs",
        least=0,
        most=MAX_EPOCHS,
        why=MAX_EPOCHS_REASON,
    )
    learning_rate: float = option(
        1e-4,
        "peak learning rate of quantization-aware training, above 0",
        flat_name="qat_learning_rate",
    )

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

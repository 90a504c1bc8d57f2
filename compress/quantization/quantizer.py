"""Quantization-aware training (`quantize`) of a trained model.

`calibrate_for_file` is the variant without training (post-training quantization).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import keras
import numpy as np
import numpy.typing as npt
import tensorflow as tf

from compress.core.arguments import check_arguments
from compress.core.device import Device, as_device
from compress.core.errors import InputError
from compress.core.memory_budget import use_budget
from compress.core.quantities import parse_integer
from compress.core.summary import DisplayableResult, Summary
from compress.data import Dataset, UnlabelledDataset
from compress.data.splitting import sample_inputs
from compress.distillation import distill
from compress.exporting import ExportedFiles, export
from compress.measure.verdict import Verdict, build_verdict
from compress.model.copies import (
    convert_index_inputs,
    convert_to_float32,
    copy_model,
    fix_input_shapes,
)
from compress.model.heads import check_shapes, list_input_shapes
from compress.model.io import as_model
from compress.model.layer_patches import is_fake_quantized
from compress.model.ports import flatten_inputs, list_input_names
from compress.plan import DistillOptions, TrainSettings
from compress.plan.fields import require_choice
from compress.plan.keywords import QUANTIZE
from compress.plan.output import ONNX_QAT, QAT, QAT_FORMATS
from compress.plan.training import QuantizeOptions
from compress.prune.weights.pruner import PRUNED_SHARE
from compress.prune.weights.targets import find_targets
from compress.quantization.fake_quantization import (
    LayerError,
    build_fake_quantized,
    describe_float_layers,
    measure_layer_errors,
)
from compress.quantization.ranges import calibrate
from compress.quantization.values import Placement
from compress.train import Hook, TrainResult, train
from compress.train.dataset_loading import as_examples, prepare_dataset
from compress.train.predict import predict_logits

if TYPE_CHECKING:
    from compress.plan.settings import QuantizeSettings

EXAMPLES = 512
"""Number of training examples that set the initial ranges."""
WORST = 5
"""Number of layers with the largest errors in a summary."""


@check_arguments(keywords=("epochs",), label_argument="options", options=QUANTIZE)
def quantize(
    model: keras.Model | str | Path,
    data: Any,
    options: QuantizeOptions | None = None,
    *,
    format: str = QAT,
    val: Any = None,
    groups: Any = None,
    time: Any = None,
    task: str | None = None,
    distill: DistillOptions | bool | None = None,
    finetune: TrainSettings | None = None,
    device: Device | str | None = None,
    memory: int | str | None = None,
    seed: int = 0,
    **settings: Unpack[QuantizeSettings],
) -> QuantizeResult:
    """Train a model with simulated integer arithmetic (QAT), distilled from the original model.

    Fake quantization is placed by rules for each call of a layer: per channel for kernels, with the
    following batch normalization folded in, and after each fused operation for activations. Zeros
    of a pruned model stay zeros. Calls that cannot be computed in integers stay in float and are
    listed with the reason.

    Args:
        model: A functional model or a built Sequential, or the path of a file; it is not changed.
        data: (x, y), a stream, a `Dataset` or a value of `--data`, see `as_dataset`; x alone is
            enough without training (`epochs=0`).
        options: Epochs and learning rate; keywords override it.
        format: Format to train for: "int8-qat", or "onnx_int8-qat", whose weights have 7 bits
            (8 bits in depthwise convolutions).
        val: Validation data for arrays or a stream; default: split off from the training data.
        groups: Group of each example, (n,), such as persons or recordings. A group is kept in one
            part of the split; see `as_dataset`.
        time: Time of each example, (n,), for a split by time; see `as_dataset`.
        task: Kind of the labels, if they are ambiguous; see `as_dataset`.
        distill: Options of distillation from the original model; keywords override it. False:
            train on labels alone.
        finetune: All other training options; keywords override it.
        device: "auto", "cpu", "gpu", or a device from `compress.core.device.setup_device`.
        memory: Memory limit of this process in bytes, or a text like "4GB"; default: the memory of
            the machine.
        seed: Seed of the batch order, the calibration examples and the split, at least 0.
        **settings: Fields of `QuantizeOptions` (epochs, learning_rate), of `DistillOptions`, of
            `TrainSettings` (optimizer, batch_size, ...), and options for splitting and scaling data
            given by name or path.

    Shapes:
        x: (n, ...), as the model takes them, sizes known; y: see `as_dataset`.

    Returns:
        The float model and its fake-quantized version; with test data, the verdict on them, for
        which both are evaluated once, at the end.

    Raises:
        InputError: The model does not fit the data, is no graph of layers, has open sizes, is
            already fake-quantized or computes NaN from the examples; or the format is unknown.
        TrainingDiverged: The loss became NaN or infinite.

    Example:
        >>> small = quantize(model, (x, y), epochs=2)
        >>> files = small.export(folder / "m.tflite")
        >>> files[0].format, files[0].agreement > 0.95
        ('int8-qat', True)

    Reference:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference"; folding: Krishnamoorthi 2018, "Quantizing deep
        convolutional networks for efficient inference", section 3.2.2, with moving statistics.
    """
    require_choice("quantization format", format, QAT_FORMATS)
    options = QUANTIZE.build_section("quantize", options, QuantizeOptions, settings)
    recipe = QUANTIZE.build_section("finetune", finetune, TrainSettings, settings)
    distill_options = None if isinstance(distill, bool) else distill
    distillation = QUANTIZE.build_section("distill", distill_options, DistillOptions, settings)
    path = Path(model) if isinstance(model, (str, Path)) else None
    limit = None if memory is None else parse_integer(memory, "memory", least=1, unit="bytes")
    with use_budget(limit):
        original = as_model(model)
        if options.epochs:
            data_options = QUANTIZE.sort_by_section(settings).get("data", {})
            data = prepare_dataset(
                original, data, path=path, val=val, task=task, seed=seed, groups=groups, time=time,
                **data_options,
            )  # fmt: skip
        else:
            data = as_examples(data, model=original, path=path, seed=seed)
        quantizer = Quantizer(original, data, options, formats=(format,), seed=seed)
        if options.epochs:
            quantizer.train(
                recipe, distillation if distill is not False else None, as_device(device)
            )
        result = quantizer.build_result()
        if isinstance(data, Dataset) and len(data.test):
            verdict = compare_on_test(original, result.quantized, data)
            result = replace(result, verdict=verdict)
        return result


def compare_on_test(original: keras.Model, quantized: keras.Model, data: Dataset) -> Verdict:
    """Return the verdict on a quantized model, from the test part of the data.

    Args:
        original: The model that was quantized.
        quantized: Its fake-quantized version.
        data: Data with at least one test example.

    Raises:
        InputError: A model does not fit the data.
    """
    task, labels = data.task, data.labels(data.test)
    (before, original_values), (after, values) = (
        (task.quality(labels, logits)[task.qualities[0]], task.example_values(labels, logits))
        for logits in (predict_logits(model, data, "test") for model in (original, quantized))
    )
    return build_verdict(
        task.qualities[0], after, before,
        values=values, original=original_values, examples=len(data.test),
    )  # fmt: skip


@dataclass(frozen=True, repr=False)
class QuantizeResult(DisplayableResult):
    """Result of `quantize`: a model that computes in integers.

    Attributes:
        model: The float model with the trained weights.
        quantized: Fake-quantized model. It agrees with its file to within one step of the output's
            grid; `export` it as "int8-qat", or as "onnx_int8-qat" if quantized for that.
        placed: Computation of each call of a layer, in the model's order.
        errors: Quantization error after each layer, on up to 64 of the calibration examples.
        training: Training history; None: ranges were only calibrated.
        data: Data that calibrated, trained and checks the file.
        notes: Warnings.
        verdict: Main metric of the original and of `quantized` on test data; None: no test labels.
    """

    model: keras.Model
    quantized: keras.Model
    placed: tuple[Placement, ...]
    errors: tuple[LayerError, ...]
    training: TrainResult | None
    data: Dataset | UnlabelledDataset
    notes: tuple[str, ...] = ()
    verdict: Verdict | None = None

    def export(self, path: str | Path) -> ExportedFiles:
        """Write the integer file and check it against `quantized`.

        Args:
            path: Path of the file, ending in .tflite or .onnx. An .onnx file has quantize and
                dequantize nodes with the same ranges, for ONNX Runtime and OpenVINO. Its weights
                have 7 bits: train for them with `quantize(..., format="onnx_int8-qat")`.

        Returns:
            One record per file; see `export`.

        Raises:
            RunFailed: The converter refused the model or crashed.
        """
        format = ONNX_QAT if Path(path).suffix == ".onnx" else QAT
        return export(self.quantized, path, format=format, data=self.data)

    def build_summary(self) -> Summary:
        """Return a console summary: the verdict and the largest quantization errors."""
        count, integer_count = len(self.placed), sum(not call.reason for call in self.placed)
        share = f"all {count}" if integer_count == count else f"{integer_count} of {count}"
        return Summary(
            f"'{self.model.name}' quantized to int8: {share} layer calls compute in integers",
            (
                *(() if self.verdict is None else (self.verdict.line,)),
                *(() if self.training is None else (self.training.summarize(),)),
            ),
            ("Largest errors after", "of this layer alone", "with all layers before it"),
            tuple(
                (error.layer, f"{error.own:.2%}", f"{error.total:.2%}")
                for error in sorted(self.errors, key=lambda error: -error.own)[:WORST]
            ),
            (*describe_float_layers(self.placed), *self.notes),
            "layers",
            fields=(("Next", 'result.export("model.tflite")'),),
        )


class Quantizer:
    """Quantization-aware training of one model.

    Args:
        original: The original model; it is not changed.
        data: Data whose training part calibrates and trains.
        options: Epochs and learning rate.
        formats: Formats of the files to write.
        seed: Seed of the calibration examples and of the batch order.
        examples: Number of calibration examples.
        on_progress: Callback invoked with (text, completed share in [0, 1]).

    Raises:
        InputError: See `quantize`.
    """

    def __init__(
        self,
        original: keras.Model,
        data: Dataset | UnlabelledDataset,
        options: QuantizeOptions,
        *,
        formats: Sequence[str] = (QAT,),
        seed: int = 0,
        examples: int = EXAMPLES,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> None:
        check_shapes(original, data)
        if is_fake_quantized(original):
            raise InputError(
                f"Model '{original.name}' must be plain to be quantized. Received: one that rounds "
                "its values already. Give the model that it was made of."
            )
        self.original, self.data, self.options, self.seed = original, data, options, seed
        sized = fix_input_shapes(
            convert_to_float32(original), list_input_shapes(original, data.input_shapes)
        )
        self.student = convert_index_inputs(copy_model(sized))
        self.training: TrainResult | None = None
        self.notes: list[str] = []
        inputs = self._inputs = flatten_inputs(self.student, sample_inputs(data, examples, seed))
        self.fake_quantized = build_fake_quantized(
            self.student,
            # both formats hold the same weights then: rounding 8-bit weights to 7 bits costs more
            reduced_range=ONNX_QAT in formats,
        )
        report_progress = (
            None if on_progress is None else partial(on_progress, "calibrating ranges")
        )
        calibrate(self.fake_quantized, inputs, report_progress)

    def train(
        self, recipe: TrainSettings, distillation: DistillOptions | None, device: Device
    ) -> None:
        """Train the fake-quantized model, which shares its weights with the student.

        Args:
            recipe: Training options; epochs and learning rate come from the quantization options.
            distillation: Options of distillation from the original model; None: train on labels.
            device: Device from `compress.core.device.setup_device`.
        """
        assert isinstance(self.data, Dataset)
        model, recipe = self.fake_quantized.model, self.options.build_train_settings(recipe)
        with SparsityHook(self.student) as zeros:
            common: dict[str, Any] = {"device": device, "seed": self.seed, "hooks": [zeros]}
            if distillation is None:
                self.training = train(model, self.data, recipe, **common)
            else:
                distilled = distill(
                    model, self.original, self.data, distillation, finetune=recipe, **common
                )
                self.training = distilled.training
                self.notes += distilled.notes

    def build_result(self) -> QuantizeResult:
        """Return the models in their current state, with their errors and notes."""
        return QuantizeResult(
            copy_model(self.student),
            self.fake_quantized.served,
            self.fake_quantized.placed,
            self.measure_errors(),
            self.training,
            self.data,
            tuple(self.notes),
        )

    def measure_errors(self) -> tuple[LayerError, ...]:
        """Return the current quantization error after each layer, on calibration examples."""
        return measure_layer_errors(self.fake_quantized, self._inputs)


def calibrate_for_file(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]]
) -> tuple[keras.Model, tuple[str, ...]]:
    """Return a model quantized without training, and notes on its float layers.

    Args:
        model: A functional or Sequential model of known sizes; it is not changed.
        inputs: Calibration examples (n, ...), one array per input, in the model's order.

    Returns:
        The fake-quantized model to export as int8-qat, and the notes.

    Raises:
        InputError: No part of the model can be computed in integers; also see `quantize`.
    """
    x = dict(zip(list_input_names(model), inputs, strict=True)) if len(inputs) > 1 else inputs[0]
    data = UnlabelledDataset.from_arrays("calibration examples", x)
    quantizer = Quantizer(model, data, QuantizeOptions(epochs=0), examples=len(inputs[0]))
    float_layers = describe_float_layers(quantizer.fake_quantized.placed)
    if all(call.reason for call in quantizer.fake_quantized.placed):
        raise InputError(
            f"Model '{model.name}' must have a layer that is computed in integers to become an "
            f"int8 file. Received: {'; '.join(float_layers)}. Take dynamic or float16."
        )
    return quantizer.fake_quantized.served, float_layers


class SparsityHook(ExitStack, Hook):
    """Training hook that keeps the zeros of pruned kernels, with constraints on the kernels.

    The original constraints are restored when the context ends.

    Args:
        model: Model whose weights are trained.
    """

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self._model = model

    def start(
        self,
        model: keras.Model,
        step: Any,
        total_steps: int,
        steps_per_epoch: int,
        *,
        jit: bool,
        state: Mapping[str, npt.NDArray[Any]] | None = None,
    ) -> None:
        """Set the constraints; a user's own constraint is applied first."""
        for target in find_targets(self._model, include=("ends", "depthwise"))[0]:
            variable = target.variable
            zero = variable.numpy() == 0
            if PRUNED_SHARE < float(np.mean(zero)) < 1:
                self.callback(setattr, variable, "constraint", variable.constraint)
                variable.constraint = _build_constraint(~zero, variable.constraint)


def _build_constraint(
    mask: npt.NDArray[np.bool_], user_constraint: Callable[[Any], Any] | None
) -> Callable[[Any], Any]:
    """Return a weight constraint: the user's own, if any, then zeros where `mask` is False."""
    kept_mask = tf.constant(mask.astype(np.float32))

    def apply_mask(weight: Any) -> Any:
        value = tf.convert_to_tensor(weight if user_constraint is None else user_constraint(weight))
        return value * tf.cast(kept_mask, value.dtype)

    return apply_mask

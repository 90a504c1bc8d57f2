"""`quantize`: from a trained model to one that computes in integers, and its file.

`calibrate_for_file` does that without training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
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
from compress.core.quantities import parse_whole_number
from compress.core.summary import Readable, Summary
from compress.data import Dataset, Unlabelled
from compress.data.splitting import drawn_inputs
from compress.distillation import distill
from compress.exporting import ExportedFiles, export
from compress.model.copies import copy_model, float32_model, sized_model, with_indices
from compress.model.heads import check_shapes, sizes_for
from compress.model.inference import rounds_itself
from compress.model.io import as_model
from compress.model.ports import input_names, listed
from compress.plan import DistillOptions, TrainSettings
from compress.plan.fields import require_choice
from compress.plan.keywords import QUANTIZE
from compress.plan.output import ONNX_QAT, QAT, TRAINED
from compress.plan.training import QuantizeOptions
from compress.prune.weights.pruner import BEGUN
from compress.prune.weights.targets import find_targets
from compress.quantization.call import Placed
from compress.quantization.ranges import calibrate
from compress.quantization.twin import LayerError, layer_errors, reasons, twin_of
from compress.train import Hook, TrainResult, train
from compress.train.given import as_examples, dataset_for

if TYPE_CHECKING:
    from compress.plan.settings import QuantizeSettings

WORST = 5
"""Layers that a screen names."""


@check_arguments(keywords=("epochs", "examples"), labels="options", options=QUANTIZE)
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
    """Train a model with the integer arithmetic of its file (QAT), with itself as teacher.

    Fake quantization is placed by rules over the model's calls: kernels by channel, with the
    batch normalization behind them folded in, activations behind what is fused with them. Zeros
    of a pruned model stay zeros. What cannot be computed in whole numbers stays in floats and is
    named, with the reason.

    Args:
        model: A functional model or a built Sequential, or the path of a file; it stays as it is.
        data: (x, y), a stream, a `Dataset` or what `--data` takes, see `as_dataset`; x alone where
            nothing is trained (`epochs=0`).
        options: Epochs, learning rate, calibration, ranges; keywords go over it.
        format: Of the file that is trained for: "int8-qat", or "onnx_int8-qat", whose weights have
            7 bits (those of depthwise convolutions 8).
        val: The validation part beside arrays or a stream; default: split off by `seed`.
        groups: What is kept in one part, (n,): persons, recordings; see `as_dataset`.
        time: What parts are split by, (n,); see `as_dataset`.
        task: What labels mean, where they do not tell; see `as_dataset`.
        distill: How the float model teaches; keywords go over it. False: labels alone.
        finetune: How to train otherwise; keywords go over it.
        device: "auto", "cpu", "gpu", or from `compress.core.device.setup`.
        memory: Bytes that this process may occupy, or a text like "4GB"; default: what the machine
            has.
        seed: Of the batch order, of what calibrates and of the split, at least 0.
        **settings: Fields of `QuantizeOptions` (epochs, learning_rate, calibration,
            examples, learned_ranges, integer_products), of
            `DistillOptions`, of `TrainSettings` (optimizer, batch_size, ...), and how data by name
            or path are split and scaled.

    Shapes:
        x: (n, ...), as the model takes them, sizes known; y: see `as_dataset`.

    Returns:
        The model in floats, and as its file computes.

    Raises:
        InputError: The model does not fit the data, is no graph or of open sizes, rounds its
            values already, or makes NaN of the examples; or no such format is trained for.
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
    require_choice("quantization format", format, TRAINED)
    options = QUANTIZE.section("quantize", options, QuantizeOptions, settings)
    recipe = QUANTIZE.section("finetune", finetune, TrainSettings, settings)
    given = None if isinstance(distill, bool) else distill
    teaching = QUANTIZE.section("distill", given, DistillOptions, settings)
    path = Path(model) if isinstance(model, (str, Path)) else None
    limit = None if memory is None else parse_whole_number(memory, "memory", least=1, unit="bytes")
    with use_budget(limit):
        dense = as_model(model)
        if options.epochs:
            how = QUANTIZE.sorted(settings).get("data", {})
            data = dataset_for(
                dense, data, path=path, val=val, task=task, seed=seed, groups=groups, time=time,
                **how,
            )  # fmt: skip
        else:
            data = as_examples(data, model=dense, path=path, seed=seed)
        made = Quantizing(dense, data, options, formats=(format,), seed=seed)
        if options.epochs:
            made.train(recipe, teaching if distill is not False else None, as_device(device))
        return made.result()


@dataclass(frozen=True, repr=False)
class QuantizeResult(Readable):
    """Result of `quantize`: a model that computes in integers.

    Attributes:
        model: The plain model with the weights that were learnt, in floats.
        quantized: Computes as its file does, a step of the output's grid apart at most; `export`
            it as "int8-qat", or as "onnx_int8-qat" where that was quantized for.
        placed: How each call of a layer is computed, in the model's order.
        training: How it went; None: ranges were calibrated alone.
        errors: What rounding costs behind each layer, on 64 training examples.
        calibration: Where ranges began.
        notes: Warnings.
    """

    model: keras.Model
    quantized: keras.Model
    placed: tuple[Placed, ...]
    errors: tuple[LayerError, ...]
    training: TrainResult | None
    calibration: str
    data: Dataset | Unlabelled
    notes: tuple[str, ...] = ()

    def export(self, path: str | Path) -> ExportedFiles:
        """Write the file of integers and check it against `quantized`.

        Args:
            path: Ends in .tflite, or in .onnx: then kernels are quantize/dequantize nodes with the
                same ranges, for ONNX Runtime and OpenVINO. Weights of .onnx files have 7 bits:
                `format="onnx_int8-qat"` of `quantize` trains them for that.

        Raises:
            RunFailed: The converter refused the model or crashed.
        """
        format = ONNX_QAT if Path(path).suffix == ".onnx" else QAT
        return export(self.quantized, path, format=format, data=self.data)

    def screen(self) -> Summary:
        """Return a summary for the console."""
        count, whole = len(self.placed), sum(not call.reason for call in self.placed)
        share = "all" if whole == count else f"{whole} of"
        lines = [
            f"{share} {count} calls are computed in whole numbers",
            f"ranges from examples ({self.calibration})",
        ]
        if self.training is not None:
            lines.append(self.training.told())
        return Summary(
            f"'{self.model.name}' in whole numbers",
            tuple(lines),
            ("Most is lost behind", "by its own rounding", "by all before it, too"),
            tuple(
                (error.layer, f"{error.own:.2%}", f"{error.total:.2%}")
                for error in sorted(self.errors, key=lambda error: -error.own)[:WORST]
            ),
            (*reasons(self.placed), *self.notes),
        )


class Quantizing:
    """Quantization of one model.

    Args:
        dense: It stays as it is.
        data: Its training part calibrates and trains.
        options: Epochs, calibration, ranges.
        formats: Of the files that it is quantized for.
        seed: Of what calibrates, and of the batch order.
        on_progress: Called with (text, share that is done).

    Raises:
        InputError: See `quantize`.
    """

    def __init__(
        self,
        dense: keras.Model,
        data: Dataset | Unlabelled,
        options: QuantizeOptions,
        *,
        formats: Sequence[str] = (QAT,),
        seed: int = 0,
        on_progress: Callable[[str, float], None] | None = None,
    ) -> None:
        check_shapes(dense, data)
        if rounds_itself(dense):
            raise InputError(
                f"Model '{dense.name}' must be plain to be quantized. Received: one that rounds "
                "its values already. Give the model that it was made of."
            )
        self.dense, self.data, self.options, self.seed = dense, data, options, seed
        sized = sized_model(float32_model(dense), sizes_for(dense, data.input_shapes))
        self.student = with_indices(copy_model(sized))
        self.training: TrainResult | None = None
        self.notes: list[str] = []
        inputs = self._inputs = listed(self.student, drawn_inputs(data, options.examples, seed))
        self.twin = twin_of(
            self.student,
            learned=options.learned_ranges,
            integer_products=options.integer_products,
            # LiteRT's files hold the same weights then: rounded to 8 bits they would lose the most
            reduced_range=ONNX_QAT in formats,
        )
        told = None if on_progress is None else partial(on_progress, "calibrating ranges")
        calibrate(self.twin, inputs, options.calibration, told)

    def train(self, recipe: TrainSettings, teaching: DistillOptions | None, device: Device) -> None:
        """Train the twin, and with it the student.

        Args:
            recipe: How; epochs and learning rate are those of the options.
            teaching: How the dense model teaches; None: labels alone.
            device: From `compress.core.device.setup`.
        """
        assert isinstance(self.data, Dataset)
        model, recipe = self.twin.model, self.options.recipe(recipe)
        with HeldZeros(self.student) as zeros:
            common: dict[str, Any] = {"device": device, "seed": self.seed, "hooks": [zeros]}
            if teaching is None:
                self.training = train(model, self.data, recipe, **common)
            else:
                taught = distill(model, self.dense, self.data, teaching, finetune=recipe, **common)
                self.training = taught.training
                self.notes += taught.notes

    def result(self) -> QuantizeResult:
        """Return the models as they are now."""
        return QuantizeResult(
            copy_model(self.student),
            self.twin.served,
            self.twin.placed,
            self.errors(),
            self.training,
            self.options.calibration,
            self.data,
            tuple(self.notes),
        )

    def errors(self) -> tuple[LayerError, ...]:
        """Return the current error of rounding behind each layer, on training examples."""
        return layer_errors(self.twin, self._inputs)


def calibrate_for_file(
    model: keras.Model, inputs: Sequence[npt.NDArray[Any]]
) -> tuple[keras.Model, tuple[str, ...]]:
    """Return a model quantized without training, and notes on its layers in floats.

    Args:
        model: Functional or Sequential, of known sizes; not changed.
        inputs: Examples (n, ...) that set the ranges, an array an input in the model's order.

    Returns:
        The model whose int8-qat file is to be written, and the notes.

    Raises:
        InputError: Nothing of it is computed in integers, or see `quantize`.
    """
    x = dict(zip(input_names(model), inputs, strict=True)) if len(inputs) > 1 else inputs[0]
    options = QuantizeOptions(epochs=0, examples=len(inputs[0]))
    made = Quantizing(model, Unlabelled.of("calibration examples", x), options)
    why = reasons(made.twin.placed)
    if all(call.reason for call in made.twin.placed):
        raise InputError(
            f"Model '{model.name}' must have a layer that is computed in integers to become an "
            f"int8 file. Received: {'; '.join(why)}. Take dynamic or float16."
        )
    return made.twin.served, why


class HeldZeros(ExitStack, Hook):
    """Hook that holds the zeros of pruned kernels in a training, by the kernels' constraints.

    When the context ends it gives the constraints back.

    Args:
        model: Whose weights are trained.
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
        """Set the constraints; a user's own acts first."""
        for target in find_targets(self._model, include=("ends", "depthwise"))[0]:
            variable = target.variable
            zero = variable.numpy() == 0
            if BEGUN < float(np.mean(zero)) < 1:
                self.callback(setattr, variable, "constraint", variable.constraint)
                variable.constraint = _held(~zero, variable.constraint)


def _held(mask: npt.NDArray[np.bool_], own: Callable[[Any], Any] | None) -> Callable[[Any], Any]:
    held = tf.constant(mask.astype(np.float32))

    def constraint(weight: Any) -> Any:
        value = tf.convert_to_tensor(weight if own is None else own(weight))
        return value * tf.cast(held, value.dtype)

    return constraint

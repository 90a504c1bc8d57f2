"""The files of one net in whole numbers, each made when it is first asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.device import Device, setup
from compress.data import Dataset
from compress.plan import QuantizeOptions, TrainSettings
from compress.plan.output import ONNX_QAT, QAT

WAYS = {
    "float32": "float32",
    "int8": "int8, the converter's",
    "calibrated": "int8, our ranges",
    "float32-2": "float32 after two more epochs",
    "int8-qat": "int8-qat after two epochs",
}


def suffix(format: str) -> str:
    """Returns what a format's files end in."""
    return ".onnx" if format.startswith("onnx") else ".tflite"


def drawn(data: Dataset, seed: int) -> Any:
    """Returns the 200 training examples that calibrate LiteRT Quantizer's own files."""
    picks = np.random.default_rng(seed).permutation(len(data.train))[:200]
    return data.preprocess(data.train.x[picks])


def by_quantizer(source: Path, path: Path, recipe: Any, examples: Any) -> None:
    """Writes a file by LiteRT Quantizer, with ranges of its own."""
    from litert_quantizer import quantizer

    made = quantizer.Quantizer(str(source), recipe)
    given = [{"input": example[None]} for example in examples]
    ranges = made.calibrate({"serving_default": given}, num_threads=2)
    path.write_bytes(bytes(made.quantize(ranges).quantized_model))


@dataclass
class Files:
    """The files of one net and seed, each made when it is first asked for.

    Attributes:
        model: The net.
        data: What calibrates, trains and judges.
        epochs: Of both trainings.
        seed: Draws what calibrates, and the order of the batches.
        folder: Where they lie.
    """

    model: Any
    data: Dataset
    epochs: int
    seed: int
    folder: Path
    device: Device = field(default_factory=lambda: setup("cpu"))
    _whole: dict[str, Any] = field(default_factory=dict)

    def of(self, way: str) -> Path:
        """Returns the LiteRT file of a way."""
        if way in ("float32", "int8"):
            return self.plain(way, self.model)
        if way == "float32-2":
            return self.plain("float32", self.tuned, "tuned")
        return self.whole(way).export(self.folder / f"{way}.tflite")[0].path

    def timed(self, format: str) -> Path:
        """Returns the file of a format for timing."""
        path = self.folder / f"{format}{suffix(format)}"
        if format == ONNX_QAT:
            return self.whole(QAT).export(path)[0].path
        return self.of(format) if format in WAYS else self.plain(format, self.model)

    def plain(self, format: str, model: Any, name: str = "") -> Path:
        """Returns a file that is exported as it is."""
        from compress import export

        path = self.folder / f"{name or format}{suffix(format)}"
        if not path.exists():
            export(model, path, format=format, data=self.data, seed=self.seed)
        return path

    @cached_property
    def tuned(self) -> Any:
        """The net trained on in floats, taught by itself."""
        from compress.distillation import distill
        from compress.model.copies import copy_model

        student = copy_model(self.model)
        recipe = TrainSettings(epochs=self.epochs, learning_rate=QuantizeOptions().learning_rate)
        distill(student, self.model, self.data, finetune=recipe, device=self.device, seed=self.seed)
        return student

    def whole(self, way: str) -> Any:
        """Returns the net in whole numbers: trained so, or calibrated, by the way's name."""
        from compress import quantize

        if way not in self._whole:
            self._whole[way] = quantize(
                self.model, self.data, epochs=self.epochs if way == QAT else 0,
                device=self.device, seed=self.seed,
            )  # fmt: skip
        return self._whole[way]

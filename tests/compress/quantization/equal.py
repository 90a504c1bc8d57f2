"""A file of integers beside the fake-quantized model that it was made of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.exporting.litert import write_litert
from compress.exporting.tracing import TracedModel
from compress.model.copies import convert_index_inputs, copy_model
from compress.quantization.fake_quantization import FakeQuantizedModel, build_fake_quantized
from compress.quantization.ranges import calibrate

INTEGERS = ("int8", "int32", "int16", "int64", "bool")


@dataclass
class Compared:
    """Steps between file and model.

    Attributes:
        parts: Differences of each of the model's outputs, in steps of its grid.
        floats: Names of the file's tensors that hold real numbers.
    """

    parts: list[Any]
    floats: list[str]

    @property
    def steps(self) -> Any:
        return np.concatenate(self.parts)

    @property
    def worst(self) -> int:
        return int(np.abs(self.steps).max())

    @property
    def within_one(self) -> float:
        return float((np.abs(self.steps) <= 1).mean())


def inputs_for(model: Any, count: int = 24, seed: int = 0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 10, (count, *tensor.shape[1:])).astype(np.int32)
        if "int" in str(tensor.dtype)
        else rng.normal(size=(count, *tensor.shape[1:])).astype(np.float32)
        for tensor in model.inputs
    ]


def made_twin(model: Any) -> tuple[FakeQuantizedModel, list[Any]]:
    copied = convert_index_inputs(copy_model(model))
    twin = build_fake_quantized(copied)
    inputs = inputs_for(copied)
    calibrate(twin, inputs)
    return twin, inputs


def compared(
    twin: FakeQuantizedModel, inputs: list[Any], folder: Path, *, reference: bool = True
) -> dict[str, Compared]:
    """Returns, for LiteRT's default and reference kernels, how far the file is from the model."""
    import keras
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    path = folder / "model.tflite"
    with TracedModel(twin.served) as traced:
        write_litert(traced, path, "int8-qat")
    expected = [np.asarray(t) for t in keras.tree.flatten(twin.served(
        inputs if len(inputs) > 1 else inputs[0], training=False))]  # fmt: skip
    found = {}
    kernels = [("default", OpResolverType.AUTO), ("reference", OpResolverType.BUILTIN_REF)]
    for name, kind in kernels if reference else kernels[:1]:
        interpreter = Interpreter(str(path), experimental_op_resolver_type=kind)
        interpreter.allocate_tensors()
        runner = interpreter.get_signature_runner(next(iter(interpreter.get_signature_list())))
        ins, outs = runner.get_input_details(), runner.get_output_details()
        steps: list[Any] = [[] for _ in expected]
        for row in range(len(inputs[0])):
            given = {
                key: quantized(part[row : row + 1], ins[key])
                for key, part in zip(sorted(ins), inputs, strict=True)
            }
            made = runner(**given)
            for place, key in enumerate(sorted(outs)):
                scale, zero = outs[key]["quantization"]
                want = np.round(expected[place][row] / scale) + zero
                steps[place].append(made[key][0].astype(int) - want.astype(int))
        floats = [
            detail["name"] for detail in interpreter.get_tensor_details()
            if np.dtype(detail["dtype"]).name not in INTEGERS
        ]  # fmt: skip
        found[name] = Compared(
            [np.concatenate([np.ravel(row) for row in p]) for p in steps], floats
        )
    return found


def quantized(values: Any, detail: Any) -> Any:
    scale, zero = detail["quantization"]
    if not scale:
        return values.astype(detail["dtype"])
    return np.clip(np.round(values / scale) + zero, -128, 127).astype(np.int8)

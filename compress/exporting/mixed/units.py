"""Units of a `.tflite` file (operations of one precision), and recipes for LiteRT Quantizer.

LiteRT Quantizer (formerly ai-edge-quantizer) writes the files, in the converter's process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compress.core.atomic_files import read_json, write_bytes, write_json
from compress.core.lazy_modules import keras
from compress.exporting.tracing import UNNAMED, find_layer_path, read_examples, strip_calls
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import TFLITE
from compress.measure.graph_files.tflite import TFLiteReader
from compress.model.keras_internals import walk_named_layers

LAST = ("SOFTMAX", "LOGISTIC")
"""Operations that stay in float32 at an output: probabilities rounded to 256 steps would hide the
losses of single layers, and they take no time."""
FLOAT_OPERATIONS = ("BATCH_MATMUL", "RSQRT", "SOFTMAX", "SQUARED_DIFFERENCE")
"""Operations that are faster in float, on CPUs several times (products of activations, attention
weights, per-example statistics). From the first of them on, the rest of a unit stays in float."""
Recipe = list[dict[str, Any]]
FLOAT32, INT8 = "float32", "int8"
_MIN_MAX, _CAST = "min_max_uniform_quantize", "float_casting"
LEVELS = (INT8, "dynamic", "float16")
"""Precisions among which the search chooses. Only int8 has integer activations; loops have none."""
BITS = {INT8: 8, "dynamic": 8, "float16": 16, FLOAT32: 32}
"""Bits per weight at each level, in ascending order; units that support none are float32."""


@dataclass(frozen=True)
class Unit:
    """Operation with a kernel, and the following operations without weights up to the next kernel.

    Activations are converted where the precision changes, so this happens at most once per kernel.

    Attributes:
        name: Layer that holds the kernel; if the file does not name it, the operation.
        scopes: Output names of its operations, each followed by a semicolon; LiteRT Quantizer
            selects operations by them.
        kinds: Kinds of its operations.
        macs: Multiply-accumulates of its operations with known counts.
        weights: Number of weights in its kernels.
        float_scopes: The `scopes` that stay in float when the unit is quantized to integers.
        is_loop: Whether it is a loop or a branch. Its activations stay in float, because they are
            fed from one iteration to the next.
    """

    name: str
    scopes: tuple[str, ...]
    kinds: tuple[str, ...]
    macs: int
    weights: int
    float_scopes: frozenset[str] = frozenset()
    is_loop: bool = False

    @property
    def kind(self) -> str:
        """Kind of its first operation: the one with the kernel, if there is one."""
        return self.kinds[0]


def find_kernel_layers(model: keras.Model) -> dict[str, bool]:
    """Return the paths of a model's layers, and whether each holds a weight of two axes or more.

    Args:
        model: The model.
    """
    return {
        path: any(len(weight.shape) > 1 for weight in layer.weights)
        for path, layer in walk_named_layers(model)
    }


def read_graph(path: Path) -> Graph:
    """Return the operations of a file with known tensor sizes.

    Args:
        path: A `.tflite` file.
    """
    reader = TFLiteReader(path)
    signature = next(iter(reader.signatures), "")
    inputs, _ = reader.read_ports(signature)
    return reader.read_graph(signature, [port.sizes for port in inputs])


def group_operations(graph: Graph, layers: Mapping[str, bool]) -> tuple[Unit, ...]:
    """Return the units of a file, in execution order.

    A loop and its body form one unit. The activation of an output (`LAST`) belongs to no unit.

    Args:
        graph: Graph of a float32 file.
        layers: Paths of the model's layers, and whether they hold a kernel; see
            `find_kernel_layers`.
    """
    output_ids = set(map(id, graph.outputs))
    owner: dict[int, int] = {}  # id of a tensor -> index of the unit that computes it
    groups: list[list[Operator]] = []
    for operator in graph.operators:
        made_ids = list(map(id, operator.outputs))
        if operator.kind in LAST and output_ids.intersection(made_ids):
            continue
        producers = [owner[id(tensor)] for tensor in operator.present_inputs if id(tensor) in owner]
        index = max(producers, default=len(groups))
        if not producers or find_kernel(operator) is not None or operator.bodies:
            index = len(groups)
            groups.append([])
        if not operator.bodies:  # operations after a loop start a new unit: they may be integer
            owner.update(dict.fromkeys(made_ids, index))
        groups[index].append(operator)
    return tuple(_build_unit(operators, layers) for operators in groups)


def find_kernel(operator: Operator) -> Tensor | None:
    """Return an operation's first real-valued constant with two axes of size above 1, or None.

    Args:
        operator: Operation of a file.
    """
    weights = (tensor for tensor in operator.present_inputs if tensor.is_weight)
    return next(
        (item for item in weights if sum(size > 1 for size in item.known_shape or ()) > 1), None
    )


def format_scope(operator: Operator) -> str:
    """Return the names of an operation's outputs, joined as in LiteRT Quantizer.

    Args:
        operator: Operation of a file.
    """
    return "".join(f"{tensor.name};" for tensor in operator.outputs)


def _build_unit(operators: list[Operator], layers: Mapping[str, bool]) -> Unit:
    """Return the unit of a group of operations, bodies of loops included, named after its layer."""
    first = next((item for item in operators if find_kernel(item) is not None), operators[0])
    operators = [item for operator in operators for item in _flatten_operator(operator)]
    kernels = [kernel for item in operators if (kernel := find_kernel(item)) is not None]
    return Unit(
        find_layer(first, layers) or first.name,
        tuple(map(format_scope, operators)),
        tuple(item.kind for item in operators),
        sum(TFLITE.count_macs(item)[0] or 0 for item in operators),
        sum(kernel.elements for kernel in kernels),
        frozenset(map(format_scope, _find_float_operations(operators))),
        bool(first.bodies),
    )


def _find_float_operations(operators: Sequence[Operator]) -> list[Operator]:
    """Return the operations of a unit that stay in float: `FLOAT_OPERATIONS` and their readers."""
    squared = {id(tensor) for item in operators if item.kind == "SQUARED_DIFFERENCE"
               for tensor in item.present_inputs}  # fmt: skip
    float_tensors: set[int] = set()
    float_operations = []
    for item in operators:
        outputs = set(map(id, item.outputs))
        is_centre = item.kind == "MEAN" and outputs & squared
        if (
            item.kind in FLOAT_OPERATIONS
            or is_centre
            or any(id(tensor) in float_tensors for tensor in item.present_inputs)
        ):
            float_operations.append(item)
            float_tensors |= outputs
    return float_operations


def _flatten_operator(operator: Operator) -> list[Operator]:
    """Return an operation and all operations in its bodies."""
    inner = [item for body in operator.bodies for item in body.operators]
    return [
        operator,
        *(inner_operator for item in inner for inner_operator in _flatten_operator(item)),
    ]


def find_layer(operator: Operator, layers: Mapping[str, bool]) -> str:
    """Return the path of an operation's layer; for fused operations, of the layer with the kernel.

    LiteRT's converter names a fused operation after all its parts.

    Args:
        operator: An operation of a file.
        layers: Paths of the model's layers, and whether they hold a kernel; see
            `find_kernel_layers`.

    Returns:
        The path, or "" if the names match no layer.
    """
    parts = format_scope(operator).split(";")
    paths = [find_layer_path(strip_calls(part), layers) for part in parts if part]
    named_paths = [path for path in paths if path != UNNAMED]
    return next(
        (path for path in named_paths if layers[path]), named_paths[0] if named_paths else ""
    )


def _configure_weights(bits: int, precision: str) -> dict[str, Any]:
    """Return the configuration of per-channel integer weights with float activations.

    Args:
        bits: Bits per weight.
        precision: "INTEGER": activations are quantized dynamically; "FLOAT": weights are unpacked.
    """
    return {
        "weight_tensor_config": _configure_tensor(bits, True, "CHANNELWISE"),
        "compute_precision": precision,
        "explicit_dequantize": precision == "FLOAT",
    }


def _configure_tensor(
    bits: int, symmetric: bool, granularity: str, dtype: str = "INT"
) -> dict[str, Any]:
    return {"num_bits": bits, "symmetric": symmetric, "granularity": granularity, "dtype": dtype}


_STATIC = {
    "activation_tensor_config": _configure_tensor(8, False, "TENSORWISE"),
    "weight_tensor_config": _configure_tensor(8, True, "CHANNELWISE"),
    "compute_precision": "INTEGER",
    "explicit_dequantize": False,
}
_HALF = {
    "weight_tensor_config": _configure_tensor(16, True, "TENSORWISE", "FLOAT"),
    "compute_precision": "FLOAT",
    "explicit_dequantize": True,
}


ENTRIES: dict[str, tuple[str, dict[str, Any]]] = {
    INT8: (_MIN_MAX, _STATIC),
    "dynamic": (_MIN_MAX, _configure_weights(8, "INTEGER")),
    "float16": (_CAST, _HALF),
}
"""Level -> (algorithm, configuration) of its entry."""


def _build_entry(regex: str, algorithm: str, configuration: dict[str, Any]) -> dict[str, Any]:
    return {
        "regex": regex,
        "operation": "*",
        "algorithm_key": algorithm,
        "op_config": configuration,
    }


INT4_WEIGHTS: Recipe = [
    # the last supported entry applies; the patterns differ because equal ones replace each other
    _build_entry(".*", _MIN_MAX, _configure_weights(8, "INTEGER")),
    _build_entry("^.*", _MIN_MAX, _configure_weights(4, "FLOAT")),
    _build_entry("^.*$", _MIN_MAX, _configure_weights(4, "INTEGER")),
]


def build_recipe(levels: Mapping[Unit, str]) -> Recipe:
    """Return the recipe of a file whose units have these levels.

    All other operations stay in float, as do operations that are slow in integers.

    Args:
        levels: Level of each unit.
    """
    recipe: Recipe = []
    for level, (algorithm, configuration) in ENTRIES.items():
        scopes = [
            scope
            for unit, unit_level in levels.items()
            if unit_level == level
            for scope in unit.scopes
            if level != INT8 or scope not in unit.float_scopes
        ]
        if scopes:
            regex = f"^(?:{'|'.join(map(re.escape, scopes))})$"
            recipe.append(_build_entry(regex, algorithm, configuration))
    return recipe


def observe_ranges(source: str, path: str, examples: str, recipe: Recipe) -> None:
    """Write the smallest and the largest value of every tensor over examples.

    Args:
        source: A float32 `.tflite` file.
        path: The JSON file to write.
        examples: File of calibration examples; see `compress.exporting.tracing.read_examples`.
        recipe: Recipe of the operations whose integer activations need ranges.
    """
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer.calibrator import CalibrationMode, Calibrator
    from litert_quantizer.recipe_manager import RecipeManager

    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe)
    calibrator = Calibrator(
        source,
        num_threads=1,
        # the default mode, which keeps all tensors in the interpreter, sees none inside loops
        mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
        # the default is a moving average of each example's range, which clips rare values
        qsv_update_func=_merge_ranges,
    )
    signature = str(next(iter(Interpreter(model_path=source).get_signature_list())))
    calibrator.calibrate({signature: read_examples(examples)}, recipes)
    write_json(
        Path(path),
        {
            name: {end: np.asarray(value).tolist() for end, value in bounds.items()}
            for name, bounds in calibrator.get_model_qsvs().items()
        },
    )


def convert_mixed(source: str, path: str, ranges: str | None, recipe: Recipe) -> None:
    """Write a file whose operations have the precisions of a recipe.

    Args:
        source: A float32 `.tflite` file.
        path: The file to write.
        ranges: File written by `observe_ranges`; None: the recipe needs no ranges.
        recipe: See `build_recipe`.
    """
    from litert_quantizer import quantizer

    from compress.exporting.tflite_editing import quantize_byte_inputs

    ranges_by_tensor = {
        name: {end: np.asarray(value, np.float32) for end, value in bounds.items()}
        for name, bounds in (read_json(Path(ranges)) if ranges else {}).items()
    }
    content = quantizer.Quantizer(source, recipe).quantize(ranges_by_tensor).quantized_model
    write_bytes(Path(path), quantize_byte_inputs(bytes(content)))


def _merge_ranges(current: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the union of two ranges of a tensor, each with "min" and "max"."""
    return {
        "min": np.minimum(current["min"], other["min"]),
        "max": np.maximum(current["max"], other["max"]),
    }

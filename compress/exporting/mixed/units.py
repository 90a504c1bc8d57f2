"""Units of a `.tflite` file (operations of one precision), and LiteRT Quantizer's recipes.

LiteRT Quantizer (formerly ai-edge-quantizer) makes the files, in the converter's process.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from compress.core.atomic_files import read_json, write_bytes, write_json
from compress.exporting.traced import UNNAMED, path_of, read_examples, without_calls
from compress.measure.graph_files.records import Graph, Operator, Tensor
from compress.measure.graph_files.tables import TFLITE
from compress.measure.graph_files.tflite import TFLiteReader
from compress.model.internals import named_layers

if TYPE_CHECKING:
    import keras

LAST = ("SOFTMAX", "LOGISTIC")
"""What stays in float32 as the last operation: probabilities in 256 steps would hide which layer
costs what, and it takes no time."""
IN_FLOATS = ("BATCH_MATMUL", "RSQRT", "SOFTMAX", "SQUARED_DIFFERENCE")
"""What is faster in floats, on CPUs several times (products of activations, what weighs them, and
each example's own statistics): where it begins, the rest of a unit is computed in floats."""
Recipe = list[dict[str, Any]]
FLOAT32, INT8 = "float32", "int8"
_MIN_MAX, _CAST = "min_max_uniform_quantize", "float_casting"
WHOLE = ("int4", INT8, "int16")
"""Levels at which what passes is whole numbers."""
IN_LOOPS = ("dynamic4", "dynamic", "float16", FLOAT32)
"""Levels that loops may have."""
BITS = {"int4": 4, "dynamic4": 4, INT8: 8, "dynamic": 8, "int16": 8, "float16": 16, FLOAT32: 32}
"""Of a weight."""


@dataclass(frozen=True)
class Unit:
    """Operation with a kernel, and those without weights behind it up to the next kernel.

    What passes is converted where the precision changes: so that is once a kernel at most.

    Attributes:
        name: The layer that holds the kernel; where the file does not tell, the operation.
        scopes: What its operations make, each with a semicolon behind: by these LiteRT Quantizer
            finds operations.
        kinds: Of its operations.
        macs: Multiply-accumulates that are counted; others count as none.
        weights: Numbers in its kernels.
        slow: Those of `scopes` that stay in floats where the unit computes in whole numbers.
        loops: Whether it is a loop or a branch: of one round what passes is fed to the next, so
            that it stays in floats.
    """

    name: str
    scopes: tuple[str, ...]
    kinds: tuple[str, ...]
    macs: int
    weights: int
    slow: frozenset[str] = frozenset()
    loops: bool = False

    @property
    def kind(self) -> str:
        """Kind of its first operation: the one with the kernel, if there is one."""
        return self.kinds[0]


def kernels_of(model: keras.Model) -> dict[str, bool]:
    """Return the paths of a model's layers, and whether each holds a weight of two axes or more."""
    return {
        path: any(len(weight.shape) > 1 for weight in layer.weights)
        for path, layer in named_layers(model)
    }


def file_graph(path: Path) -> Graph:
    """Return the operations of a file whose sizes are known."""
    reader = TFLiteReader(path)
    signature = next(iter(reader.signatures), "")
    inputs, _ = reader.ports(signature)
    return reader.graph(signature, [port.sizes for port in inputs])


def units_of(graph: Graph, layers: Mapping[str, bool]) -> tuple[Unit, ...]:
    """Return the units of a file, in the order in which they are computed.

    A loop with all that it runs is one. The activation of an output (`LAST`) is of none.

    Args:
        graph: Of a float32 file.
        layers: Paths of the model's layers, and whether they hold a kernel; see `kernels_of`.
    """
    ends = set(map(id, graph.outputs))
    owner: dict[int, int] = {}  # id of a tensor -> the unit that makes it
    found: list[list[Operator]] = []
    for operator in graph.operators:
        made = list(map(id, operator.outputs))
        if operator.kind in LAST and ends.intersection(made):
            continue
        behind = [owner[id(tensor)] for tensor in operator.given if id(tensor) in owner]
        place = max(behind, default=len(found))
        if not behind or kernel_of(operator) is not None or operator.bodies:
            place = len(found)
            found.append([])
        if not operator.bodies:  # what follows a loop may be whole numbers
            owner.update(dict.fromkeys(made, place))
        found[place].append(operator)
    return tuple(_unit(operators, layers) for operators in found)


def kernel_of(operator: Operator) -> Tensor | None:
    """Return the first constant of real numbers with two axes or more of an operation."""
    weights = (tensor for tensor in operator.given if tensor.is_weight)
    return next((item for item in weights if sum(size > 1 for size in item.known or ()) > 1), None)


def scope_of(operator: Operator) -> str:
    """Return the names of an operation's outputs, as LiteRT Quantizer joins them."""
    return "".join(f"{tensor.name};" for tensor in operator.outputs)


def _unit(operators: list[Operator], layers: Mapping[str, bool]) -> Unit:
    first = next((item for item in operators if kernel_of(item) is not None), operators[0])
    operators = [item for operator in operators for item in _all_of(operator)]
    kernels = [kernel for item in operators if (kernel := kernel_of(item)) is not None]
    return Unit(
        owner_of(first, layers) or first.name,
        tuple(map(scope_of, operators)),
        tuple(item.kind for item in operators),
        sum(TFLITE.macs(item)[0] or 0 for item in operators),
        sum(kernel.elements for kernel in kernels),
        frozenset(map(scope_of, _slow(operators))),
        bool(first.bodies),
    )


def _slow(operators: Sequence[Operator]) -> list[Operator]:
    """Return the operations of a unit that stay in floats: `IN_FLOATS`, and their readers."""
    squared = {id(tensor) for item in operators if item.kind == "SQUARED_DIFFERENCE"
               for tensor in item.given}  # fmt: skip
    made: set[int] = set()
    found = []
    for item in operators:
        outputs = set(map(id, item.outputs))
        centre = item.kind == "MEAN" and outputs & squared
        if item.kind in IN_FLOATS or centre or any(id(tensor) in made for tensor in item.given):
            found.append(item)
            made |= outputs
    return found


def _all_of(operator: Operator) -> list[Operator]:
    """Return an operation and those of its bodies."""
    inner = [item for body in operator.bodies for item in body.operators]
    return [operator, *(found for item in inner for found in _all_of(item))]


def owner_of(operator: Operator, layers: Mapping[str, bool]) -> str:
    """Return the layer of an operation; of several fused ones, that of the kernel.

    LiteRT's converter names what it fuses by all its parts.

    Args:
        operator: Of a file.
        layers: Paths of the model's layers, and whether they hold a kernel; see `kernels_of`.

    Returns:
        Its path; nothing where names do not tell.
    """
    parts = scope_of(operator).split(";")
    paths = [path_of(without_calls(part), layers) for part in parts if part]
    known = [path for path in paths if path != UNNAMED]
    return next((path for path in known if layers[path]), known[0] if known else "")


def _weights(bits: int, computed: str) -> dict[str, Any]:
    """Return the configuration of integer weights by channel and float activations.

    Args:
        bits: Of a weight.
        computed: "INTEGER": activations are rounded as they come; "FLOAT": weights are unpacked.
    """
    return {
        "weight_tensor_config": _tensor(bits, True, "CHANNELWISE"),
        "compute_precision": computed,
        "explicit_dequantize": computed == "FLOAT",
    }


def _static(weights: int, activations: int) -> dict[str, Any]:
    """Return the configuration of integer weights by channel and integer activations by tensor.

    Args:
        weights: Bits, symmetric.
        activations: Bits; 16 are symmetric: LiteRT's kernels ask for it.
    """
    return {
        "activation_tensor_config": _tensor(activations, activations == 16, "TENSORWISE"),
        "weight_tensor_config": _tensor(weights, True, "CHANNELWISE"),
        "compute_precision": "INTEGER",
        "explicit_dequantize": False,
    }


def _tensor(bits: int, symmetric: bool, granularity: str, dtype: str = "INT") -> dict[str, Any]:
    return {"num_bits": bits, "symmetric": symmetric, "granularity": granularity, "dtype": dtype}


_HALF = {
    "weight_tensor_config": _tensor(16, True, "TENSORWISE", "FLOAT"),
    "compute_precision": "FLOAT",
    "explicit_dequantize": True,
}


ENTRIES: dict[str, tuple[tuple[str, dict[str, Any]], ...]] = {
    # what has no kernel of four bits has eight: the last entry that an operation can have counts
    "int4": ((_MIN_MAX, _static(8, 8)), (_MIN_MAX, _static(4, 8))),
    "dynamic4": ((_MIN_MAX, _weights(8, "INTEGER")), (_MIN_MAX, _weights(4, "INTEGER"))),
    INT8: ((_MIN_MAX, _static(8, 8)),),
    "dynamic": ((_MIN_MAX, _weights(8, "INTEGER")),),
    "int16": ((_MIN_MAX, _static(8, 16)),),
    "float16": ((_CAST, _HALF),),
    FLOAT32: (),
}
"""Level (of `compress.plan.LEVELS`) -> (algorithm, configuration) of its entries."""


def _entry(regex: str, algorithm: str, configuration: dict[str, Any]) -> dict[str, Any]:
    return {
        "regex": regex,
        "operation": "*",
        "algorithm_key": algorithm,
        "op_config": configuration,
    }


INT4_WEIGHTS: Recipe = [
    # the last that an operation can have counts; expressions differ, for equal ones are one entry
    _entry(".*", _MIN_MAX, _weights(8, "INTEGER")),
    _entry("^.*", _MIN_MAX, _weights(4, "FLOAT")),
    _entry("^.*$", _MIN_MAX, _weights(4, "INTEGER")),
]


def recipe_of(levels: Mapping[Unit, str]) -> Recipe:
    """Return the recipe of a file whose units have these levels.

    Other operations are as given, and those that are slow in whole numbers.
    """
    recipe: Recipe = []
    for level, entries in ENTRIES.items():
        scopes = [
            scope
            for unit, own in levels.items()
            if own == level
            for scope in unit.scopes
            if level not in WHOLE or scope not in unit.slow
        ]
        for place, (algorithm, configuration) in enumerate(entries if scopes else ()):
            # entries of one expression replace each other: each is written its own way
            recipe.append(_entry(_any_of(scopes, place), algorithm, configuration))
    return recipe


def observe_ranges(source: str, path: str, examples: str, recipe: Recipe) -> None:
    """Write the smallest and the largest value of every tensor over examples.

    Args:
        source: A float32 `.tflite` file.
        path: The JSON file to write.
        examples: See `compress.exporting.traced.read_examples`.
        recipe: Whose whole numbers need ranges.
    """
    from ai_edge_litert.interpreter import Interpreter
    from litert_quantizer.calibrator import CalibrationMode, Calibrator
    from litert_quantizer.recipe_manager import RecipeManager

    recipes = RecipeManager()
    recipes.load_quantization_recipe(recipe)
    observed = Calibrator(
        source,
        num_threads=1,
        # the other way, by tensors that the interpreter keeps, knows none inside loops
        mode=CalibrationMode.CALIBRATION_PROFILER_BASED,
        # its own is a moving average of each example's ends, which cuts off what few have
        qsv_update_func=_widest,
    )
    signature = str(next(iter(Interpreter(model_path=source).get_signature_list())))
    observed.calibrate({signature: read_examples(examples)}, recipes)
    write_json(
        Path(path),
        {
            name: {end: np.asarray(value).tolist() for end, value in found.items()}
            for name, found in observed.get_model_qsvs().items()
        },
    )


def convert_mixed(source: str, path: str, ranges: str | None, recipe: Recipe) -> None:
    """Write a file whose operations have the precisions of a recipe.

    Args:
        source: A float32 `.tflite` file.
        path: The file to write.
        ranges: The file of `observe_ranges`; None: the recipe needs none.
        recipe: See `recipe_of`.
    """
    from litert_quantizer import quantizer

    from compress.exporting.tflite_editing import with_byte_inputs

    held = {
        name: {end: np.asarray(value, np.float32) for end, value in found.items()}
        for name, found in (read_json(Path(ranges)) if ranges else {}).items()
    }
    made = quantizer.Quantizer(source, recipe).quantize(held).quantized_model
    write_bytes(Path(path), with_byte_inputs(bytes(made)))


def _any_of(scopes: Sequence[str], place: int) -> str:
    return f"^(?:{'|'.join(map(re.escape, scopes))}){'$' if place == 0 else '(?=$)'}"


def _widest(held: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Return the range of a tensor over the examples so far and the next: "min" and "max"."""
    return {
        "min": np.minimum(held["min"], other["min"]),
        "max": np.maximum(held["max"], other["max"]),
    }

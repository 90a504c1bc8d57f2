"""An independent count of multiply-accumulates: from an exported ONNX graph, by its own shapes.

Keras and tf2onnx make the file, ONNX Runtime tells the shapes, nothing of paretune counts.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

# no products that are summed: moves, elementwise functions, reductions, pooling
_PLAIN = """
    Relu Add Mul Sub Div Reshape GlobalAveragePool GlobalMaxPool Squeeze Unsqueeze Softmax
    Sigmoid Tanh Clip Concat Transpose MaxPool AveragePool Pad Flatten Identity Gelu Sign
    BatchNormalization ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd Slice Gather Shape
    Cast Constant ConstantOfShape Expand Tile Split Erf Pow Sqrt Exp Log Neg Abs Reciprocal Min
    Max Where Equal Greater Less LeakyRelu Elu Selu Softplus Softsign HardSigmoid HardSwish
    Resize Upsample DepthToSpace SpaceToDepth Floor Ceil Sum Mean Dropout PRelu
    LayerNormalization Range Not And Or GreaterOrEqual LessOrEqual ArgMax
"""
PLAIN = frozenset(_PLAIN.split())


def onnx_macs(path: Path) -> int:
    """Returns the MACs of a graph whose input has batch size 1.

    Raises:
        AssertionError: An operation that is not known.
    """
    import onnx

    graph = onnx.load(path).graph
    shapes: dict[str, tuple[int, ...]] = {t.name: tuple(t.dims) for t in graph.initializer}
    shapes |= _by_running(path)
    return sum(_macs(node, shapes) for node in graph.node)


def _by_running(path: Path) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of inputs and of all results, of one run in ONNX Runtime.

    onnx's own inference leaves shapes open behind reshapes that are computed in the graph.
    """
    import numpy as np
    import onnx
    import onnxruntime

    model = onnx.load(path)
    names = [name for node in model.graph.node for name in node.output if name]
    there = {output.name for output in model.graph.output}
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in there)
    options = onnxruntime.SessionOptions()
    # as exported: fused nodes would lose their results
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    fed = {item.name: np.zeros(item.shape, np.float32) for item in session.get_inputs()}
    made = {item.name: None for item in session.get_outputs()}
    found = dict(zip(made, session.run(list(made), fed), strict=True))
    return {name: tuple(value.shape) for name, value in {**fed, **found}.items()}


def _macs(node: Any, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type in PLAIN:
        return 0
    given = [shapes.get(name, ()) for name in node.input]
    made = shapes[node.output[0]]
    assert all(made), f"{node.name}: unknown shape {made}"
    if node.op_type == "Conv":
        # kernel (filters, channels of a group, size ...): each output is one sum over it
        return math.prod(made) * math.prod(given[1][1:])
    if node.op_type == "ConvTranspose":
        # kernel (channels, filters of a group, size ...): each input meets it once
        return math.prod(given[0]) * math.prod(given[1][1:])
    if node.op_type == "MatMul":
        return math.prod(made) * given[0][-1]
    if node.op_type == "Gemm":
        flipped = any(a.name == "transA" and a.i for a in node.attribute)
        return math.prod(made) * given[0][0 if flipped else 1]
    if node.op_type == "Einsum":
        (equation,) = (a.s.decode() for a in node.attribute if a.name == "equation")
        sizes: dict[str, int] = {}
        for letters, shape in zip(equation.split("->")[0].split(","), given, strict=True):
            sizes.update(zip(letters.strip(), shape, strict=True))
        return math.prod(sizes.values())
    raise AssertionError(f"no rule for {node.op_type} ({node.name})")


def exported_macs(model: Any, folder: Path, optimized: bool = True) -> int:
    """Exports a model for batch size 1 and counts the file.

    Args:
        model: A Keras model.
        folder: Where the file goes.
        optimized: False: tf2onnx's optimizers are left out, which need several times the memory
            and change no product.
    """
    import contextlib
    from unittest import mock

    import tf2onnx.optimizer

    from compress.exporting.onnx import export_onnx

    plain = mock.patch.object(tf2onnx.optimizer, "optimize_graph", lambda graph, *_, **__: graph)
    with contextlib.nullcontext() if optimized else plain:
        # Keras's exporter, with grouped convolutions as the plain operation tf2onnx knows
        export_onnx(model, folder / "counted.onnx")
    return onnx_macs(folder / "counted.onnx")

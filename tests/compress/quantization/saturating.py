"""Products of uint8 and int8 as x86 processors without VNNI compute them: VPMADDUBSW in NumPy.

The instruction multiplies pairs of neighbours and adds each pair in int16, where it saturates; a
second instruction adds the pairs in int32. VNNI adds all of them in int32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

INT16 = np.iinfo(np.int16)


def saturated(x: npt.NDArray[np.uint8], kernel: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Returns x (n, k) times kernel (k, m), k even, with sums of two products in 16 bits."""
    products = x.astype(np.int32)[:, :, None] * kernel.astype(np.int32)
    pairs = products.reshape(len(x), -1, 2, kernel.shape[1]).sum(axis=2)
    return np.clip(pairs, INT16.min, INT16.max).sum(axis=1, dtype=np.int32)


def exact(x: npt.NDArray[np.uint8], kernel: npt.NDArray[np.int8]) -> npt.NDArray[np.int32]:
    """Returns the same product without saturation."""
    made: npt.NDArray[np.int32] = x.astype(np.int32) @ kernel.astype(np.int32)
    return made


def worst_pairs(kernel: npt.NDArray[np.int8]) -> tuple[int, int]:
    """Returns the smallest and largest sum of two products that any inputs and any order make.

    Args:
        kernel: (outputs, ...).
    """
    rows = np.sort(kernel.reshape(len(kernel), -1).astype(int), axis=1)
    low, high = np.minimum(rows[:, :2], 0).sum(axis=1), np.maximum(rows[:, -2:], 0).sum(axis=1)
    return 255 * int(low.min()), 255 * int(high.max())


def kernels_of(path: Any) -> list[tuple[npt.NDArray[np.int8], bool]]:
    """Returns the integer kernels of an ONNX file, outputs first, and which are depthwise."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    found = []
    for node in graph.node:
        source = makers.get(node.input[1]) if node.op_type in ("Conv", "MatMul", "Gemm") else None
        if source is None or source.input[0] not in constants:
            continue
        kernel = constants[source.input[0]]
        if node.op_type == "Conv":
            groups = next((item.i for item in node.attribute if item.name == "group"), 1)
            found.append((kernel, bool(groups == len(kernel) > 1 and kernel.shape[1] == 1)))
        else:
            turned = any(item.name == "transB" and item.i for item in node.attribute)
            found.append((kernel if turned else kernel.T, False))
    return found

"""GRAIL, to be compared with: a ridge over the channels that are left, solved from dense inputs.

Of each layer that reads fewer channels than before, the Gram matrix G of its input channels in the
dense model tells how the channels H that were there follow from those that are kept, P:

    B = G[H, P] (G[P, P] + lambda I)^-1,   lambda = 1e-3 * mean(diag(G[P, P])),   W' = W B

with positions and examples as rows, no means taken off, and the same B at every position of a
kernel. After it, the authors re-estimate the statistics of batch normalizations.

Reference:
    Tang, Wang, Thiele & Saukh 2026, "GRAIL: Post-hoc Compensation by Linear Reconstruction for
    Compressed Networks" (arXiv 2602.23795); lambda as in their code (TWWinde/GRAIL_Compensation).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

RIDGE = 1e-3
BATCH = 256
Numbers = npt.NDArray[np.float64]
Kept = Mapping[str, tuple[npt.NDArray[np.int64] | None, ...]]


def reconstruction(gram: Numbers, kept: npt.NDArray[np.int64], ridge: float = RIDGE) -> Numbers:
    """Returns B: what each channel is of the kept ones, (channels, kept).

    Args:
        gram: Sums of products of channels, (channels, channels).
        kept: Indices of the kept ones.
        ridge: Relative to the mean of the kept ones' diagonal.
    """
    own = gram[np.ix_(kept, kept)]
    scale = ridge * (float(np.diag(own).mean()) + 1e-12)
    found: Numbers = np.linalg.solve(own + scale * np.eye(len(kept)), gram[kept]).T
    return found


def grams(dense: Any, x: npt.NDArray[Any]) -> dict[str, Numbers]:
    """Returns the Gram matrix of the input channels of each Conv2D and Dense, by name."""
    import keras

    from compress.model.program import Node
    from compress.model.recording import record

    found: dict[str, Numbers] = {}

    def watch(node: Node, given: list[Any]) -> None:
        if isinstance(node.operation, keras.layers.Conv2D | keras.layers.Dense):
            rows = np.asarray(given[0])
            rows = rows.reshape(-1, rows.shape[-1])
            # float32 products of a batch, summed in float64
            found[node.name] = found.get(node.name, 0.0) + (rows.T @ rows).astype(np.float64)

    program = record(dense)
    for start in range(0, len(x), BATCH):
        program.run([x[start : start + BATCH]], watch)
    return found


def compensate(pruned: Any, dense: Any, x: npt.NDArray[Any], kept: Kept) -> None:
    """Refits the kernels of a pruned model in place.

    Args:
        pruned: The smaller model.
        dense: What it was pruned from: convolutions without groups, Dense, normalizations.
        x: Examples as the models take them, (n, ...).
        kept: Kept indices of the dense model's weights.
    """
    from compress.model.internals import variable_paths

    paths = {id(variable): path for path, variable in variable_paths(dense)}
    for name, gram in grams(dense, x).items():
        kernel = dense.get_layer(name).kernel
        *_, inputs, outputs = kept[paths[id(kernel)]]
        if inputs is None:
            continue
        whole = kernel.numpy().astype(np.float64)
        if outputs is not None:
            whole = whole[..., outputs]
        refitted = np.einsum("...ho,hk->...ko", whole, reconstruction(gram, inputs))
        pruned.get_layer(name).kernel.assign(refitted.astype(np.float32))

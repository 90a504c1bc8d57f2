"""What a weight is worth: its size, what it lets through, or what least squares lose without it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.model.flattening import flat
from compress.model.ports import listed
from compress.model.recording import record
from compress.prune.weights.targets import Target
from compress.reconstruction.matching import opens
from compress.reconstruction.observing import Observed, observe

if TYPE_CHECKING:
    import keras

RIDGE = 1e-3
Values = npt.NDArray[Any]


def saliencies(
    model: keras.Model, targets: Sequence[Target], kind: str, x: Values, seed: int
) -> tuple[list[Values], list[str]]:
    """Returns numbers by which weights are ranked, shaped as the weights, and notes.

    Args:
        model: The model.
        targets: Weights that are pruned.
        kind: "magnitude": |w|. "wanda": |w| times the norm of its input. "obs": the root of what
            the squared error of the layer's outputs grows by when the weight is zero and all
            others of its output are solved for anew, w^2 / [H^-1]_ii. Both relative to the spread
            of the layer's outputs, so that layers compare.
        x: Examples, for all but the first.
        seed: Of the positions that are looked at.

    Reference:
        Sun et al. 2023, "A Simple and Effective Pruning Approach for Large Language Models", eq.
        1; Hassibi & Stork 1993, "Optimal Brain Surgeon", eq. 5, for the layer's least squares.
    """
    if kind == "magnitude":
        return [np.abs(target.variable.numpy()) for target in targets], []
    seen = observe(flat(record(model, opens)), listed(model, x), seed=seed)
    found, notes = [], []
    for target in targets:
        observed = seen.get(id(target.variable))
        if observed is None:
            notes.append(f"layer '{target.layer}' is ranked by magnitude: {_NOT_SEEN}")
            found.append(np.abs(target.variable.numpy()))
        else:
            found.append(_saliency(observed, kind))
    return found, notes


_NOT_SEEN = "what it reads is several systems, or too wide"


def _saliency(observed: Observed, kind: str) -> Values:
    covariance, kernel = observed.covariance(), observed.kernel()
    spread = float(np.einsum("dm,de,em->", kernel, covariance, kernel, optimize=True))
    diagonal = np.diag(covariance).copy()
    if kind == "obs":
        least = 1e-9 * max(float(diagonal.max()), 1e-30)
        inverse = np.linalg.inv(covariance + np.diag(RIDGE * diagonal + least))
        diagonal = 1 / np.diag(inverse)
    scores = np.abs(kernel) * np.sqrt(np.maximum(diagonal, 0))[:, None] / max(spread, 1e-30) ** 0.5
    return observed.part.array(scores[None]).astype(np.float32)

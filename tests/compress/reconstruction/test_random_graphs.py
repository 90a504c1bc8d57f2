"""Random graphs of all kinds of layers: repaired, left with a reason, and never broken further."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import pytest

from compress.core.errors import FeasibleError
from compress.prune.channels import prune_channels
from compress.reconstruction import repair
from tests.compress.prune.channels.generator import BATCH, graph
from tests.compress.reconstruction.dependent import flat_outputs

FEW = 3
# pruned graphs may leave a softmax one entry
pytestmark = pytest.mark.filterwarnings("ignore:(.|\n)*softmax over axis")


def examples(model: Any, count: int, seed: int) -> list[Any]:
    """Draws arrays as the model takes them."""
    rng = np.random.default_rng(seed)
    return [
        rng.integers(0, 5, (count, *x.shape[1:]))
        if "int" in str(x.dtype)
        else rng.normal(size=(count, *x.shape[1:])).astype(np.float32)
        for x in model.inputs
    ]


def halved(model: Any, seed: int) -> Any:
    """Prunes a graph to half of its MACs, or to 0.75x where half is less than must be left."""
    options: dict[str, Any] = {"scope": "layer", "round_to": 1, "criterion": "random", "seed": seed}
    try:
        return prune_channels(model, macs=0.5, repair=False, **options)
    except FeasibleError:
        return prune_channels(model, macs=0.75, repair=False, **options)


def repaired(seed: int) -> tuple[float, float]:
    """Prunes and repairs one graph; returns the errors of its outputs on fresh examples."""
    keras.utils.set_random_seed(seed)
    model = graph(seed)
    small = halved(model, seed)
    fresh = examples(model, BATCH, seed + 1)
    (wanted,) = flat_outputs(model, fresh)
    (before,) = flat_outputs(small.model, fresh)
    report = repair(small.model, model, examples(model, 8 * BATCH, seed), kept=small.kept)
    (after,) = flat_outputs(small.model, fresh)
    for weight in small.model.weights:
        if "seed" not in weight.path:
            assert np.isfinite(weight.numpy()).all(), weight.path
    assert np.isfinite(after).all()
    for row in report.layers:
        assert row.state in ("repaired", "kept", "left")
        assert bool(row.reason) == (row.state != "repaired"), row
        if row.state != "left":
            assert row.before is not None
            assert row.after is not None
            assert row.after <= row.before
            assert row.rows > 0
    names = {row.name.partition(":")[0].rpartition("/")[2] for row in report.layers}
    kernels = {
        layer.name
        for layer in small.model.layers
        if any(len(weight.shape) > 1 for weight in layer.weights)
        and not isinstance(layer, keras.Model)
    }
    told = {part for row in report.layers for part in row.name.partition(":")[0].split("/")}
    # layers that were opened are told of by their parts: "attention_query"
    silent = {name for name in kernels - told - names
              if not any(part.startswith(f"{name}_") for part in told)}  # fmt: skip
    assert not silent, "layers of which nothing is said"
    spread = ((wanted - wanted.mean(0)) ** 2).sum()
    one, two = (((made - wanted) ** 2).sum() / spread for made in (before, after))
    assert two < 3 * one + 0.1  # few examples: the worst that may happen
    return float(one), float(two)


def all_of(seeds: range) -> None:
    errors = np.array([repaired(seed) for seed in seeds])
    assert errors[:, 0].min() > 0  # pruning broke them all
    # random weights on white noise: hardly anything can stand in for what left
    assert np.mean(errors[:, 1] <= errors[:, 0]) >= 0.6
    assert np.median(errors[:, 1] / np.maximum(errors[:, 0], 1e-12)) < 1.0


@pytest.mark.slow
def test_a_few_graphs() -> None:
    all_of(range(FEW))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "number"),
    [(100, 5), *(pytest.param(more, 10, marks=pytest.mark.matrix) for more in range(100, 140, 10))],
)
def test_more_graphs(start: int, number: int) -> None:
    all_of(range(start, start + number))

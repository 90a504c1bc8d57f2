"""Random graphs of all the rules: files answer as their fake-quantized models do.

What kernels make of a value that lies between two steps is theirs: default and reference kernels
differ there from each other. A step's difference grows where a graph stretches a range, so the
share of equal outputs is what is asked for, of all graphs together.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from tests.compress.quantization.equal import compared, made_twin
from tests.compress.quantization.graphs import graph

FEW, SOME = 3, 2
REFERENCE = 0.95
"""Share of outputs within a step on reference kernels, which round twice: so far they are from the
default kernels, too."""
GRAPHS = int(os.environ.get("PARETUNE_INTEGER_GRAPHS", "200"))


def steps_of(seeds: range, folder: Path) -> dict[str, list[np.ndarray]]:
    found: dict[str, list[np.ndarray]] = {"default": [], "reference": []}
    for seed in seeds:
        twin, inputs = made_twin(graph(seed))
        assert [call.reason for call in twin.placed if call.reason] == []
        for kernels, result in compared(twin, inputs, folder).items():
            assert result.floats == [], (seed, kernels)
            found[kernels].append(np.abs(result.steps))
    return found


def told(found: dict[str, list[np.ndarray]]) -> dict[str, tuple[float, int, int]]:
    """Share of outputs within a step, graphs beyond two steps, and the worst of all."""
    return {
        kernels: (
            float(np.mean(np.concatenate(parts) <= 1)),
            sum(int(part.max()) > 2 for part in parts),
            max(int(part.max()) for part in parts),
        )
        for kernels, parts in found.items()
    }


@pytest.mark.slow
def test_a_few_graphs(tmp_path: Path) -> None:
    shares = told(steps_of(range(FEW), tmp_path))
    assert shares["default"][0] >= 0.999
    assert shares["default"][2] <= 2
    assert shares["reference"][0] >= REFERENCE


@pytest.mark.slow
def test_some_graphs(tmp_path: Path) -> None:
    shares = told(steps_of(range(FEW, FEW + SOME), tmp_path))
    assert shares["default"][0] >= 0.999
    assert shares["reference"][0] >= REFERENCE


@pytest.mark.matrix
def test_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shares = told(steps_of(range(GRAPHS), tmp_path))
    with capsys.disabled():
        print(GRAPHS, shares)
    assert shares["default"][0] >= 0.999

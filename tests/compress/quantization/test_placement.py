"""Where what passes is rounded: after the same layers as in tfmot's twin."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import keras
import pytest

from compress.quantization.fake_quantization import build_fake_quantized
from tests.compress.quantization.placement import net


@pytest.mark.slow
def test_what_passes_is_rounded_where_tfmot_rounds_it() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.compress.quantization.placement"],
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True,
    )  # fmt: skip
    theirs = json.loads(done.stdout.splitlines()[-1])
    twin = build_fake_quantized(net(keras))
    ours = [layer.name.removesuffix("_range") for layer in twin.ranges if layer.rounds]
    assert set(ours) == set(theirs)
    assert {"relu1", "bn3", "relu3", "mean", "head"} < set(ours)
    # between a kernel, its normalization and its ReLU nothing is rounded
    assert not {"conv1", "bn1", "depth", "conv2", "sum", "most"} & set(ours)
    fixed = [layer.name for layer in twin.served._flatten_layers()
             if getattr(layer, "fixed", None) is not None]  # fmt: skip
    # tfmot leaves the grid that LiteRT prescribes behind a softmax to the converter
    assert fixed == ["head_range_1"]

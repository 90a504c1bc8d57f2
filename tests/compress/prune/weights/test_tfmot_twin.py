"""Masks equal tfmot's own, bit for bit, at each of 200 steps."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from compress.plan import WeightOptions
from compress.prune.weights import WeightPruner
from compress.prune.weights.schedules import build_schedule

STEPS = 200
DENSE: dict[str, Any] = {"layer": "Dense", "settings": {"units": 24}, "input": [32]}
ODD: dict[str, Any] = {"layer": "Dense", "settings": {"units": 23}, "input": [30]}
CONV: dict[str, Any] = {
    "layer": "Conv2D", "settings": {"filters": 12, "kernel_size": 3}, "input": [6, 6, 10],
}  # fmt: skip
DEPTHWISE: dict[str, Any] = {
    "layer": "DepthwiseConv2D", "settings": {"kernel_size": 3}, "input": [6, 6, 8],
}  # fmt: skip
POLYNOMIAL: dict[str, Any] = {
    "schedule": "PolynomialDecay",
    "times": {
        "initial_sparsity": 0.1, "final_sparsity": 0.85, "begin_step": 7, "end_step": 157,
        "frequency": 10,
    },
}  # fmt: skip
EVERY: dict[str, Any] = {
    "schedule": "PolynomialDecay",
    "times": {
        "initial_sparsity": 0.0, "final_sparsity": 0.9, "begin_step": 0, "end_step": 150,
        "frequency": 1,
    },
}  # fmt: skip
CONSTANT: dict[str, Any] = {
    "schedule": "ConstantSparsity",
    "times": {"target_sparsity": 0.6, "begin_step": 3, "end_step": -1, "frequency": 25},
}
# one update: tfmot keeps the first masks of N:M
FIRST: dict[str, Any] = {
    "schedule": "ConstantSparsity",
    "times": {"target_sparsity": 0.5, "begin_step": 1, "end_step": 1, "frequency": 1},
}
CASES: dict[str, dict[str, Any]] = {
    "dense polynomial": {**DENSE, **POLYNOMIAL},
    "dense every step": {**DENSE, **EVERY},
    "dense constant": {**DENSE, **CONSTANT},
    "dense blocks": {**DENSE, **POLYNOMIAL, "block": [4, 2]},
    "dense blocks of one input": {**DENSE, **POLYNOMIAL, "block": [1, 4]},
    "dense ragged blocks": {**ODD, **POLYNOMIAL, "block": [4, 4]},
    "dense n:m": {**DENSE, **FIRST, "zeros_of": [2, 4]},
    "dense ragged n:m": {**ODD, **FIRST, "zeros_of": [3, 4]},
    "conv polynomial": {**CONV, **POLYNOMIAL},
    "conv every step": {**CONV, **EVERY},
    "conv n:m": {**CONV, **FIRST, "zeros_of": [2, 4]},
    "conv 4:8": {**CONV, **FIRST, "zeros_of": [4, 8]},
    "depthwise": {**DEPTHWISE, **POLYNOMIAL},
    "dense trained": {**DENSE, **EVERY, "train": 0.5},
    "conv trained": {
        **CONV, **POLYNOMIAL, "train": 0.5, "settings": {**CONV["settings"], "activation": "relu"},
    },
}  # fmt: skip


def model_of(case: dict[str, Any]) -> Any:
    layer = getattr(keras.layers, case["layer"])(**case["settings"], name="layer")
    return keras.Sequential([keras.Input(tuple(case["input"])), layer])


def pruner_of(case: dict[str, Any]) -> WeightPruner:
    pattern = "unstructured"
    if "block" in case:
        pattern = "{}x{}".format(*case["block"])
    if "zeros_of" in case:
        zeros, group = case["zeros_of"]
        pattern = f"{group - zeros}:{group}"
    options = WeightOptions(
        pattern=pattern,
        include=("ends",),
    )
    config = {"class_name": case["schedule"], "config": case["times"]}
    return WeightPruner(options, schedule=build_schedule(config))


def arrays_of(case: dict[str, Any], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    model = model_of(case)
    kernel, bias = (weight.numpy() for weight in model.weights)
    if "train" not in case:
        walk = np.cumsum(0.05 * rng.normal(size=(STEPS, *kernel.shape)), axis=0)
        return {"weights": (kernel + walk).astype(np.float32)}
    x = rng.normal(size=(STEPS, 16, *case["input"])).astype(np.float32)
    y = rng.normal(size=(STEPS, 16, *model.output_shape[1:])).astype(np.float32)
    return {"kernel": kernel, "bias": bias, "x": x, "y": y}


def our_masks(case: dict[str, Any], arrays: dict[str, np.ndarray]) -> np.ndarray:
    model = model_of(case)
    pruner = pruner_of(case)
    kernel = model.weights[0]
    if "train" in case:
        model.set_weights([arrays["kernel"], arrays["bias"]])
        model.compile(keras.optimizers.SGD(case["train"]), "mse")
        pruner.attach(model)
        masks = [pruner._masks[0].numpy()]  # what step 1 computes with
        for x, y in zip(arrays["x"][:-1], arrays["y"][:-1], strict=True):
            model.train_on_batch(x, y)
            masks.append(pruner._masks[0].numpy())
        return np.stack(masks)
    kernel.assign(arrays["weights"][0])
    pruner.attach(model)
    if not pruner.targets:
        return np.zeros((0,), np.float32)
    masks = [pruner._masks[0].numpy()]
    # what an optimizer does after each of its steps
    held = tf.function(lambda: kernel.assign(kernel.constraint(kernel)), autograph=False)
    for value in arrays["weights"][1:]:
        kernel.assign(value)
        held()
        masks.append(pruner._masks[0].numpy())
        np.testing.assert_array_equal(kernel.numpy(), value * masks[-1])
    return np.stack(masks)


@pytest.fixture(scope="module")
def twin(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arrays of all cases, and tfmot's masks."""
    folder = tmp_path_factory.mktemp("twin")
    arrays = {name: arrays_of(case, seed) for seed, (name, case) in enumerate(CASES.items())}
    flat = {f"{name}/{key}": value for name, own in arrays.items() for key, value in own.items()}
    np.savez(folder / "weights.npz", **flat)
    (folder / "cases.json").write_text(json.dumps(CASES), "utf-8")
    script = Path(__file__).with_name("tfmot_twin.py")
    done = subprocess.run(
        [sys.executable, str(script), "cases.json", "weights.npz", "masks.npz"],
        cwd=folder, env=dict(os.environ), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(folder / "masks.npz") as stored:
        return arrays, dict(stored)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_masks_equal_tfmots(name: str, twin: tuple[dict[str, Any], dict[str, Any]]) -> None:
    arrays, theirs = twin
    ours = our_masks(CASES[name], arrays[name])
    np.testing.assert_array_equal(ours, theirs[name])
    if name == "depthwise":
        assert ours.size == 0
        return
    assert len(ours) == STEPS
    assert 0 < ours[-1].mean() < 1  # something was pruned, and not everything

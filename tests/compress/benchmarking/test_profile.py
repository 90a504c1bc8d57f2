"""Shares of time by layer, from ONNX Runtime's profiler."""

from __future__ import annotations

from typing import Any

import pytest

from compress.benchmarking import _sum_by_layer, map_kernel_layers, profile_layers
from compress.exporting.tracing import UNNAMED, find_layer_path


def test_names_lead_to_layers() -> None:
    layers = {"conv2d", "conv2d_1", "stem_relu"}
    # traced once more, a scope gets a number
    assert find_layer_path("net_1/conv2d_1/convolution", layers) == "conv2d"
    assert find_layer_path("net_1/conv2d_1_2/convolution", layers) == "conv2d_1"
    assert find_layer_path("net/stem_relu/Relu", layers) == "stem_relu"
    assert find_layer_path("Reshape__12", layers) == UNNAMED


def test_times_add_up_by_hand() -> None:
    def event(name: str, micro: float, kind: str) -> dict[str, Any]:
        return {
            "cat": "Node",
            "name": f"{name}_kernel_time",
            "dur": micro,
            "args": {"op_name": kind},
        }

    # five runs to warm up, then 10, 30, 20
    events = [event("m/conv/x", t, "Conv") for t in (900, 900, 900, 900, 900, 10, 30, 20)]
    events += [event("m/relu/x", 5, "FusedConv") for _ in range(8)]
    events += [event("m/add/x", 7, "Add") for _ in range(8)]
    events.append({"cat": "Session", "name": "model_run", "dur": 1})
    found = _sum_by_layer(events, {"conv": "conv", "relu": "conv", "add": "add"})
    assert found == pytest.approx({"conv": 25e-6, "add": 7e-6})


def test_kernels_belong_to_the_layer_that_multiplies() -> None:
    import keras

    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, padding="same", name="c")(inputs)
    y = keras.layers.ReLU(name="r")(keras.layers.BatchNormalization(name="n")(x))
    z = keras.layers.ReLU(name="last")(keras.layers.Add(name="a")([x, y]))
    model = keras.Model(inputs, keras.layers.Dense(3, name="d")(keras.layers.Flatten(name="f")(z)))
    assert map_kernel_layers(model) == {
        "c": "c", "n": "c", "r": "c", "a": "a", "last": "a", "f": "a", "d": "d",
    }  # fmt: skip


def test_the_large_layer_takes_the_time() -> None:
    import keras

    inputs = keras.Input((32, 32, 16))
    x = keras.layers.Conv2D(16, 1, activation="relu", name="small")(inputs)
    x = keras.layers.Conv2D(128, 5, padding="same", name="large")(x)
    x = keras.layers.ReLU(name="act")(keras.layers.BatchNormalization(name="norm")(x))
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="pool")(x))
    profile = profile_layers(model, runs=10)
    # 52 M of 53 M MACs, with what is fused behind it; how much more hangs on the machine
    assert max(profile.seconds, key=profile.compute_share) == "large"
    assert sum(profile.compute_share(name) for name in profile.seconds) == pytest.approx(1.0)
    assert profile.runtime.startswith("ONNX Runtime")

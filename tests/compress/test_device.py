"""Choosing a device."""

from __future__ import annotations

import pytest

from compress import device
from compress.device import Device, gpu_count, policy_for, setup
from compress.errors import InputError


def test_cpu_is_described(cpu: Device) -> None:
    assert cpu.kind == "cpu"
    assert cpu.threads >= 1
    assert cpu.describe().startswith("CPU ")
    assert cpu.policy == "float32"
    assert not cpu.jit


def test_gpu_without_a_gpu_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    with pytest.raises(InputError, match="device 'gpu' must have a GPU"):
        setup("gpu")
    with pytest.raises(InputError, match="device 'gpu' must have a GPU"):
        gpu_count("gpu")
    with pytest.raises(InputError, match="must be one of auto, cpu, gpu"):
        setup("tpu")


def test_no_driver_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "_GPU_NODES", ("/no/such/node",))
    monkeypatch.setattr(device, "setup", lambda choice: pytest.fail("TensorFlow was asked"))
    assert gpu_count("auto") == 0
    assert gpu_count("cpu") == 0


@pytest.mark.parametrize(
    ("capability", "policy"),
    [(None, "float32"), ((6, 1), "float32"), ((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16"),
     ((9, 0), "mixed_bfloat16"), ((12, 0), "mixed_bfloat16")],
)  # fmt: skip
def test_policies(capability: tuple[int, int] | None, policy: str) -> None:
    assert policy_for(capability) == policy


def test_gpu_setup_uses_memory_growth(monkeypatch: pytest.MonkeyPatch) -> None:
    """What TensorFlow is asked for on a machine with two cards, on a stand-in for its config."""
    import tensorflow as tf

    grown = []
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: ["gpu0", "gpu1"])
    monkeypatch.setattr(tf.config.threading, "set_intra_op_parallelism_threads", lambda n: None)
    experimental = tf.config.experimental
    monkeypatch.setattr(experimental, "set_memory_growth", lambda gpu, on: grown.append((gpu, on)))
    details = {"device_name": "Card", "compute_capability": (8, 6)}
    monkeypatch.setattr(experimental, "get_device_details", lambda gpu: details)
    made = setup("auto")
    assert grown == [("gpu0", True), ("gpu1", True)]
    assert made.describe() == "2 x GPU Card, mixed_bfloat16, XLA on"

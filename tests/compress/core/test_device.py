"""Choosing a device."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress.core import device, linux
from compress.core.device import (
    Device,
    compute_memory_share,
    count_gpus,
    select_dtype_policy,
    setup_device,
)
from compress.core.errors import InputError


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
        setup_device("gpu")
    with pytest.raises(InputError, match="device 'gpu' must have a GPU"):
        count_gpus("gpu")
    with pytest.raises(InputError, match="must be one of auto, cpu, gpu"):
        setup_device("tpu")


def test_no_driver_means_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux, "_GPU_NODES", ("/no/such/node",))
    monkeypatch.setattr(device, "setup_device", lambda choice: pytest.fail("TensorFlow was asked"))
    assert count_gpus("auto") == 0
    assert count_gpus("cpu") == 0


@pytest.mark.parametrize(
    ("capability", "policy"),
    [(None, "float32"), ((6, 1), "float32"), ((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16"),
     ((9, 0), "mixed_bfloat16"), ((12, 0), "mixed_bfloat16")],
)  # fmt: skip
def test_policies(capability: tuple[int, int] | None, policy: str) -> None:
    assert select_dtype_policy(capability) == policy


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, object]]:
    """What TensorFlow is asked for on a machine with two cards, by a stand-in for its config."""
    import tensorflow as tf

    found: list[tuple[str, object]] = []
    config, experimental = tf.config, tf.config.experimental
    monkeypatch.setattr(config, "list_physical_devices", lambda kind: ["gpu0", "gpu1"])
    monkeypatch.setattr(config.threading, "set_intra_op_parallelism_threads", lambda n: None)
    monkeypatch.setattr(experimental, "set_memory_growth", lambda gpu, on: found.append((gpu, on)))
    monkeypatch.setattr(
        config,
        "set_logical_device_configuration",
        lambda gpu, made: found.append((gpu, [one.memory_limit for one in made])),
    )
    details = {"device_name": "Card", "compute_capability": (8, 6)}
    monkeypatch.setattr(experimental, "get_device_details", lambda gpu: details)
    return found


def smi(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> None:
    """Puts a program of the name `nvidia-smi` where it is found, and nothing else."""
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_gpu_setup_uses_memory_growth(asked: list[tuple[str, object]]) -> None:
    made = setup_device("auto")
    assert asked == [("gpu0", True), ("gpu1", True)]
    assert made.describe() == "2 x GPU Card, mixed_bfloat16, XLA on"


def test_workers_on_one_card_divide_its_memory(
    asked: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    smi(monkeypatch, tmp_path, "echo 24576; echo 20000")
    made = setup_device("auto", sharers=2)
    # of the smaller card 95 %, halved, without what a CUDA context takes: 9,500 - 512
    assert asked == [("gpu0", [8988]), ("gpu1", [8988])]
    assert made.describe().endswith("XLA on, shared by 2 workers, at most 8,988 MiB each")


def test_a_share_that_comes_too_late_is_not_claimed(
    asked: list[tuple[str, object]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import tensorflow as tf

    def started(gpu: str, made: object) -> None:
        raise RuntimeError("has been initialized")

    monkeypatch.setattr(tf.config, "set_logical_device_configuration", started)
    smi(monkeypatch, tmp_path, "echo 24576")
    assert setup_device("auto", sharers=2).memory_mib is None


@pytest.mark.parametrize("script", ["echo '[N/A]'", "exit 9", "true"])
def test_memory_that_is_not_known_is_not_divided(
    script: str,
    asked: list[tuple[str, object]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    smi(monkeypatch, tmp_path, script)
    made = setup_device("auto", sharers=3)
    assert asked == [("gpu0", True), ("gpu1", True)]
    assert "shared by 3 workers, no bound on memory" in made.describe()
    monkeypatch.setenv("PATH", "")
    assert compute_memory_share(3) is None

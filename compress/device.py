"""What training runs on: every GPU that TensorFlow sees, else the CPU."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

from compress.errors import InputError
from compress.plan import DEVICES
from compress.quiet import captured_stderr

_GPU_NODES = ("/dev/nvidiactl", "/dev/dxg")


@dataclass(frozen=True)
class Device:
    """A chosen device and how it is used.

    Attributes:
        kind: "cpu" or "gpu".
        name: The processor's or card's name.
        count: Number of GPUs (1 for the CPU).
        threads: CPU threads that TensorFlow may use for one operation.
        policy: Keras dtype policy that candidates are trained in.
        jit: Whether the training step is compiled by XLA.
    """

    kind: str
    name: str
    count: int
    threads: int
    policy: str
    jit: bool

    def describe(self) -> str:
        """Returns one line for logs and reports."""
        if self.kind == "gpu":
            xla = "on" if self.jit else "off"
            return f"{self.count} x GPU {self.name}, {self.policy}, XLA {xla}"
        plural = "" if self.threads == 1 else "s"
        return f"CPU {self.name}, {self.threads} thread{plural}, {self.policy}"


def available_cores() -> int:
    """Returns the cores that this process may use (affinity respected), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cpu_name() -> str:
    """Returns the processor's model name."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def setup(choice: str = "auto", threads: int | None = None) -> Device:
    """Prepares TensorFlow for a device; call it before anything is computed.

    Args:
        choice: "auto" (GPU where there is one), "cpu" or "gpu".
        threads: CPU threads per operation; None: every core this process may use.

    Returns:
        The device. Where TensorFlow has started already, its thread count and its
        memory growth stay as they were.

    Raises:
        InputError: An unknown choice, "gpu" without a GPU, or Keras on another backend.
    """
    import keras
    import tensorflow as tf

    if choice not in DEVICES:
        raise InputError(f"device must be one of {', '.join(DEVICES)}. Received: {choice}.")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "Keras must run on TensorFlow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}. Unset it, or set it to tensorflow."
        )
    gpus = tf.config.list_physical_devices("GPU")
    if choice == "gpu" and not gpus:
        raise InputError(
            "device 'gpu' must have a GPU that TensorFlow sees. Received: none. "
            "Install tensorflow[and-cuda] and a driver, or use --device cpu."
        )
    wanted = max(1, threads or available_cores())
    try:
        tf.config.threading.set_intra_op_parallelism_threads(wanted)
        if choice == "cpu" and gpus:
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if choice != "cpu" else []:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:  # TensorFlow refuses changes once it has started
        wanted = tf.config.threading.get_intra_op_parallelism_threads() or available_cores()
    if choice == "cpu" or not gpus:
        return Device("cpu", cpu_name(), 1, wanted, "float32", jit=False)
    details = tf.config.experimental.get_device_details(gpus[0])
    policy = policy_for(details.get("compute_capability"))
    return Device("gpu", details.get("device_name", "GPU"), len(gpus), wanted, policy, jit=True)


def quiet_tensorflow() -> None:
    """Keeps TensorFlow's log to errors, in a process that is ours.

    It warns of many traces when many models are trained, which is what we do; and it writes
    about its build while it is imported, before any log level counts.
    """
    with captured_stderr():
        import keras  # noqa: F401
        import tensorflow as tf

        tf.config.list_physical_devices()
    tf.get_logger().setLevel("ERROR")


def gpu_count(choice: str) -> int:
    """Returns the number of GPUs that `choice` would use, without TensorFlow where it can.

    Raises:
        InputError: "gpu" without a GPU.
    """
    # no NVIDIA driver (nor WSL's): importing TensorFlow (seconds) would tell nothing more
    if choice == "cpu" or (choice == "auto" and not any(Path(p).exists() for p in _GPU_NODES)):
        return 0
    device = setup(choice)
    return device.count if device.kind == "gpu" else 0


def policy_for(compute_capability: tuple[int, int] | None) -> str:
    """Returns the dtype policy for a card.

    bfloat16 needs no loss scaling and has had tensor cores since compute capability
    8.0; float16 since 7.0; older cards gain nothing from either.
    """
    if compute_capability is None or compute_capability < (7, 0):
        return "float32"
    return "mixed_bfloat16" if compute_capability >= (8, 0) else "mixed_float16"

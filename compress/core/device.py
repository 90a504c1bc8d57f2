"""Device of training (all visible GPUs, or else the CPU), and BLAS threads."""

from __future__ import annotations

import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from compress.core import linux
from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.core.native_output import capture_stderr, silence_tensorflow_import
from compress.core.quantities import MAX_THREADS, MAX_THREADS_REASON, format_threads, parse_integer

DEVICES = ("auto", "cpu", "gpu")
USABLE_SHARE = 0.95
"""Usable share of a GPU's memory; the driver and displays need the rest."""
CONTEXT_MIB = 512
"""Approximate memory of a process's CUDA context, besides the memory managed by TensorFlow."""


@dataclass(frozen=True)
class Device:
    """Selected device and its settings.

    Attributes:
        kind: "cpu" or "gpu".
        name: Name of the processor or GPU.
        count: Number of GPUs (1 for the CPU).
        threads: CPU threads that TensorFlow may use for one operation.
        policy: Keras dtype policy of training.
        jit: Whether the training step is compiled by XLA.
        sharers: Number of processes on the GPU, including this one.
        memory_mib: Limit of TensorFlow's GPU memory in MiB; None for no limit.
    """

    kind: str
    name: str
    count: int
    threads: int
    policy: str
    jit: bool
    sharers: int = 1
    memory_mib: int | None = None

    def describe(self) -> str:
        """Return a description in one line, for logs and reports."""
        if self.kind == "gpu":
            xla = "on" if self.jit else "off"
            text = f"{self.count} x GPU {self.name}, {self.policy}, XLA {xla}"
            if self.sharers == 1:
                return text
            memory = self.memory_mib
            share = "no bound on memory" if memory is None else f"at most {memory:,} MiB each"
            return f"{text}, shared by {self.sharers} workers, {share}"
        return f"CPU {self.name}, {format_threads(self.threads)}, {self.policy}"


def read_cpu_name() -> str:
    """Return the processor's model name."""
    return linux.read_cpu_name() or platform.machine()


def is_vnni_missing() -> bool:
    """Return whether this is an x86 processor known to lack VNNI instructions for int8 products."""
    instructions = linux.read_x86_instructions()
    return instructions is not None and not instructions & {"avx_vnni", "avx512_vnni"}


def setup_device(choice: str = "auto", threads: int | None = None, sharers: int = 1) -> Device:
    """Set up TensorFlow for a device; call this before anything is computed.

    Args:
        choice: "auto" (a GPU if there is one), "cpu" or "gpu".
        threads: CPU threads per operation. Default: all cores available to this process.
        sharers: Number of processes on the same GPU, including this one. Several processes get
            equal fixed shares of the memory, because memory that grows would be taken from the
            others.

    Returns:
        The device. If TensorFlow has already started, its thread count and memory growth are
        unchanged.

    Raises:
        InputError: The choice is unknown, there is no GPU for "gpu", `threads` is out of range, or
            Keras uses another backend.
    """
    if choice not in DEVICES:
        raise InputError(f"device must be one of {', '.join(DEVICES)}. Received: {choice}.")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "Keras must run on TensorFlow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}. Unset it, or set it to tensorflow."
        )
    with capture_stderr():  # TensorFlow reports missing drivers there
        gpus = tf.config.list_physical_devices("GPU")
    if choice == "gpu" and not gpus:
        raise _build_no_gpu_error()
    if threads is not None:
        parse_integer(threads, "threads", least=1, most=MAX_THREADS, why=MAX_THREADS_REASON)
    thread_count = threads or linux.count_cores()
    share = compute_memory_share(sharers) if gpus and choice != "cpu" and sharers > 1 else None
    try:
        tf.config.threading.set_intra_op_parallelism_threads(thread_count)
        if choice == "cpu" and gpus:
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if choice != "cpu" else []:
            if share is None:
                tf.config.experimental.set_memory_growth(gpu, True)
            else:
                bound = tf.config.LogicalDeviceConfiguration(memory_limit=share)
                tf.config.set_logical_device_configuration(gpu, [bound])
    except RuntimeError:  # TensorFlow cannot be changed after its start
        share = None
        thread_count = tf.config.threading.get_intra_op_parallelism_threads() or linux.count_cores()
    if choice == "cpu" or not gpus:
        return Device("cpu", read_cpu_name(), 1, thread_count, "float32", jit=False)
    details = tf.config.experimental.get_device_details(gpus[0])
    policy = select_dtype_policy(details.get("compute_capability"))
    name = details.get("device_name", "GPU")
    return Device("gpu", name, len(gpus), thread_count, policy, True, sharers, share)


def as_device(device: Any) -> Device:
    """Return a device that is given as a `Device`, by name ("cpu"), or as None ("auto").

    Raises:
        InputError: The value is something else, or there is no such device.
    """
    if isinstance(device, Device):
        return device
    if device is not None and not isinstance(device, str):
        kind = type(device).__name__
        raise InputError(f"device must be {', '.join(DEVICES)} or a Device. Received: a {kind}.")
    return setup_device(device or "auto")


def check_device(choice: str) -> None:
    """Check, without TensorFlow, that a GPU is only requested on a machine with a GPU driver.

    Args:
        choice: "auto", "cpu" or "gpu".

    Raises:
        InputError: A GPU is requested and there is no driver.
    """
    if choice == "gpu" and not linux.has_gpu_driver():
        raise _build_no_gpu_error()


def _build_no_gpu_error() -> InputError:
    return InputError(
        "device 'gpu' must have a GPU that TensorFlow sees. Received: none. "
        "Install tensorflow[and-cuda] and a driver, or use --device cpu."
    )


def compute_memory_share(sharers: int) -> int | None:
    """Return the share of a GPU's memory for each of several processes, in MiB.

    TensorFlow does not report the total memory of a GPU, but the driver's `nvidia-smi` does. The
    smallest GPU counts, because CUDA numbers the GPUs in another order.

    Args:
        sharers: Number of processes on the GPU, at least 1.

    Returns:
        The share, at least 1, or None if `nvidia-smi` is missing or does not report the memory.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        smallest = min(int(line) for line in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return max(1, int(USABLE_SHARE * smallest / sharers) - CONTEXT_MIB)


def measure_free_gpu_bytes() -> int | None:
    """Return the bytes that TensorFlow may still allocate on the GPU.

    Returns:
        The free bytes, or None if TensorFlow runs on the CPU or has not started yet.
    """
    tf = sys.modules.get("tensorflow")
    # listing TensorFlow's devices would start it
    if tf is None or not linux.has_gpu_driver() or not tf.executing_eagerly():
        return None
    gpus = tf.config.list_logical_devices("GPU")
    limit = _read_gpu_limit() if gpus else None
    if limit is None:
        return None
    return max(0, limit - int(tf.config.experimental.get_memory_info("GPU:0")["current"]))


@cache
def _read_gpu_limit() -> int | None:
    """Return the limit of this process's GPU memory in bytes, or None if it is unknown."""
    for gpu in tf.config.list_physical_devices("GPU"):
        for part in tf.config.get_logical_device_configuration(gpu) or ():
            if part.memory_limit is not None:
                return int(part.memory_limit) * 2**20
    share = compute_memory_share(1)
    return None if share is None else share * 2**20


def silence_tensorflow() -> None:
    """Import TensorFlow in a process of our own, without its log messages."""
    silence_tensorflow_import()
    import keras  # noqa: F401

    with capture_stderr():
        tf.config.list_physical_devices()


def count_gpus(choice: str) -> int:
    """Return the number of GPUs that `choice` would use, if possible without TensorFlow.

    Raises:
        InputError: "gpu" is requested and there is no GPU.
    """
    # without a driver the answer is known, and importing TensorFlow takes seconds
    if choice == "cpu" or (choice == "auto" and not linux.has_gpu_driver()):
        return 0
    device = setup_device(choice)
    return device.count if device.kind == "gpu" else 0


def select_dtype_policy(compute_capability: tuple[int, int] | None) -> str:
    """Return the Keras dtype policy for training on a GPU.

    Tensor cores support bfloat16 since compute capability 8.0 and float16 since 7.0; bfloat16 needs
    no loss scaling. Older GPUs gain nothing from either.

    Args:
        compute_capability: Major and minor version, or None if unknown.
    """
    if compute_capability is None or compute_capability < (7, 0):
        return "float32"
    return "mixed_bfloat16" if compute_capability >= (8, 0) else "mixed_float16"


@contextmanager
def limit_blas_threads(count: int | None = None) -> Iterator[None]:
    """Limit the threads of the linear algebra of NumPy and SciPy within the context.

    The threads of TensorFlow and BLAS both wait actively for work. If both have as many threads as
    there are cores, factoring one matrix of 576 columns takes eight times as long.

    Args:
        count: Number of threads; None: all that TensorFlow may use, which must be idle then.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=count or count_threads(), user_api="blas"):
        yield


def count_threads() -> int:
    """Return the number of threads for computations, as the user or a search's workers set it."""
    # 0 means all cores
    return tf.config.threading.get_intra_op_parallelism_threads() or linux.count_cores()

"""The device of training (all visible GPUs, else the CPU), and BLAS threads."""

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
from compress.core.native_output import captured_stderr, quiet_tensorflow_here
from compress.core.quantities import MORE_THREADS, MOST_THREADS, parse_whole_number, threads_text

DEVICES = ("auto", "cpu", "gpu")
USABLE = 0.95
"""The share of a card's memory that processes on it divide; the driver and displays need some."""
CONTEXT_MIB = 512
"""What a process's CUDA context takes besides the memory that TensorFlow manages, roughly."""


@dataclass(frozen=True)
class Device:
    """A chosen device and how it is used.

    Attributes:
        kind: "cpu" or "gpu".
        name: The processor's or card's name.
        count: Number of GPUs (1 for the CPU).
        threads: CPU threads that TensorFlow may use for one operation.
        policy: Keras dtype policy that models are trained in.
        jit: Whether the training step is compiled by XLA.
        sharers: Processes that compute on the card, this one included.
        memory_mib: The most memory TensorFlow takes of it, in MiB; None: what it needs.
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
        """Return one line for logs and reports."""
        if self.kind == "gpu":
            xla = "on" if self.jit else "off"
            text = f"{self.count} x GPU {self.name}, {self.policy}, XLA {xla}"
            if self.sharers == 1:
                return text
            share = "no bound on memory"
            if self.memory_mib is not None:
                share = f"at most {self.memory_mib:,} MiB each"
            return f"{text}, shared by {self.sharers} workers, {share}"
        return f"CPU {self.name}, {threads_text(self.threads)}, {self.policy}"


def cpu_name() -> str:
    """Return the processor's model name."""
    return linux.cpu_name() or platform.machine()


def lacks_vnni() -> bool:
    """Return whether this is an x86 processor known to have no instruction for int8 products."""
    instructions = linux.x86_instructions()
    return instructions is not None and not instructions & {"avx_vnni", "avx512_vnni"}


def setup(choice: str = "auto", threads: int | None = None, sharers: int = 1) -> Device:
    """Prepare TensorFlow for a device; call it before anything is computed.

    Args:
        choice: "auto" (GPU where there is one), "cpu" or "gpu".
        threads: CPU threads per operation; None: every core this process may use.
        sharers: Processes on the same GPU, this one included. Of several each gets an equal
            share of the memory at once: one that grows would take it from the others.

    Returns:
        The device. Where TensorFlow has started already, its thread count and its
        memory growth stay as they were.

    Raises:
        InputError: An unknown choice, "gpu" without a GPU, or Keras on another backend.
    """
    if choice not in DEVICES:
        raise InputError(f"device must be one of {', '.join(DEVICES)}. Received: {choice}.")
    if keras.backend.backend() != "tensorflow":
        raise InputError(
            "Keras must run on TensorFlow. "
            f"Received: KERAS_BACKEND={keras.backend.backend()}. Unset it, or set it to tensorflow."
        )
    with captured_stderr():  # drivers that are missing are told there
        gpus = tf.config.list_physical_devices("GPU")
    if choice == "gpu" and not gpus:
        raise _no_gpu()
    if threads is not None:
        parse_whole_number(threads, "threads", least=1, most=MOST_THREADS, why=MORE_THREADS)
    wanted = threads or linux.cores()
    share = memory_share(sharers) if gpus and choice != "cpu" and sharers > 1 else None
    try:
        tf.config.threading.set_intra_op_parallelism_threads(wanted)
        if choice == "cpu" and gpus:
            tf.config.set_visible_devices([], "GPU")
        for gpu in gpus if choice != "cpu" else []:
            if share is None:
                tf.config.experimental.set_memory_growth(gpu, True)
            else:
                bound = tf.config.LogicalDeviceConfiguration(memory_limit=share)
                tf.config.set_logical_device_configuration(gpu, [bound])
    except RuntimeError:  # TensorFlow refuses changes once it has started
        share = None
        wanted = tf.config.threading.get_intra_op_parallelism_threads() or linux.cores()
    if choice == "cpu" or not gpus:
        return Device("cpu", cpu_name(), 1, wanted, "float32", jit=False)
    details = tf.config.experimental.get_device_details(gpus[0])
    policy = policy_for(details.get("compute_capability"))
    name = details.get("device_name", "GPU")
    return Device("gpu", name, len(gpus), wanted, policy, True, sharers, share)


def as_device(device: Any) -> Device:
    """Return a device that is given as it is, by name ("cpu"), or not at all ("auto").

    Raises:
        InputError: It is something else, or there is none.
    """
    if isinstance(device, Device):
        return device
    if device is not None and not isinstance(device, str):
        kind = type(device).__name__
        raise InputError(f"device must be {', '.join(DEVICES)} or a Device. Received: a {kind}.")
    return setup(device or "auto")


def check_device(choice: str) -> None:
    """Checks, without TensorFlow, that a machine without a driver is not asked for its GPU.

    Raises:
        InputError: It is.
    """
    if choice == "gpu" and not linux.has_gpu_driver():
        raise _no_gpu()


def _no_gpu() -> InputError:
    return InputError(
        "device 'gpu' must have a GPU that TensorFlow sees. Received: none. "
        "Install tensorflow[and-cuda] and a driver, or use --device cpu."
    )


def memory_share(sharers: int) -> int | None:
    """Return how many MiB of a card's memory each of several processes may take.

    TensorFlow does not tell how much memory a card has; the driver's `nvidia-smi` does. Where
    cards differ the smallest counts, as CUDA numbers them in another order.

    Args:
        sharers: Processes on the card, at least 1.

    Returns:
        The share, at least 1; None where `nvidia-smi` is missing or does not tell.
    """
    command = ["nvidia-smi", "--query-gpu=memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        smallest = min(int(line) for line in done.stdout.split())
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return max(1, int(USABLE * smallest / sharers) - CONTEXT_MIB)


def card_bytes() -> int | None:
    """Return the bytes that TensorFlow may still take of a GPU's memory.

    Returns:
        Of the card that computes; None where it computes on the CPU, or has not started yet.
    """
    tf = sys.modules.get("tensorflow")
    # asking TensorFlow for its devices would start it
    if tf is None or not linux.has_gpu_driver() or not tf.executing_eagerly():
        return None
    cards = tf.config.list_logical_devices("GPU")
    bound = _card_bound() if cards else None
    if bound is None:
        return None
    return max(0, bound - int(tf.config.experimental.get_memory_info("GPU:0")["current"]))


@cache
def _card_bound() -> int | None:
    """Return the bytes of a card that this process may take; None: the driver does not tell."""
    for card in tf.config.list_physical_devices("GPU"):
        for part in tf.config.get_logical_device_configuration(card) or ():
            if part.memory_limit is not None:
                return int(part.memory_limit) * 2**20
    share = memory_share(1)
    return None if share is None else share * 2**20


def quiet_tensorflow() -> None:
    """Import TensorFlow in a process of ours, without its log messages."""
    quiet_tensorflow_here()
    import keras  # noqa: F401

    with captured_stderr():
        tf.config.list_physical_devices()


def gpu_count(choice: str) -> int:
    """Return the number of GPUs that `choice` would use, without TensorFlow where it can.

    Raises:
        InputError: "gpu" without a GPU.
    """
    # no driver: importing TensorFlow (seconds) would tell nothing more
    if choice == "cpu" or (choice == "auto" and not linux.has_gpu_driver()):
        return 0
    device = setup(choice)
    return device.count if device.kind == "gpu" else 0


def policy_for(compute_capability: tuple[int, int] | None) -> str:
    """Return the dtype policy for a card.

    bfloat16 needs no loss scaling and has had tensor cores since compute capability
    8.0; float16 since 7.0; older cards gain nothing from either.
    """
    if compute_capability is None or compute_capability < (7, 0):
        return "float32"
    return "mixed_bfloat16" if compute_capability >= (8, 0) else "mixed_float16"


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let NumPy's and SciPy's linear algebra run on one thread for a time.

    TensorFlow's threads and those of BLAS wait actively for work: where both are as many as
    there are cores, factoring one matrix of 576 columns takes eight times as long.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1, user_api="blas"):
        yield


@contextmanager
def all_blas_threads() -> Iterator[None]:
    """Give linear algebra all threads while TensorFlow is idle."""
    from threadpoolctl import threadpool_limits

    # what the user, or a search with several workers, has set; 0: every core
    threads = tf.config.threading.get_intra_op_parallelism_threads() or linux.cores()
    with threadpool_limits(limits=threads, user_api="blas"):
        yield

"""Agreement of an exported file with its Keras model.

Metrics are evaluated on the exported file that is deployed. A file below `Task.least_agreement` is
not chosen by default: 90 % equal classes, an R^2 of 0.9 for regression, 95 % equal decisions or
pixels for binary tasks and segmentation, where always predicting "no" or "background" already
agrees well.

Intact files are far above these limits (docs/results/any-model.md: Fashion-MNIST, 2,000 validation
examples). int8 files of ResNet-20, MobileNetV2, ConvNeXt, ViT and a MobileNetV1 with 2,000
parameters agree on 98.7 to 99.6 %. A model for 200 classes with 29 % accuracy often has classes of
similar probability; its int8 file agrees on 94.7 %, the lowest value. Binary decisions and pixels
are equal in 99.8 % or more, and R^2 of regression outputs is above 0.999. The int8 file of a
ten-class model whose kernels are all zero because of one exploding weight agrees on 10 %.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.statistics import compute_wilson_interval
from compress.data.tasks import TASKS, Task
from compress.measure.runtimes import Session, prepare_session

REPORT_EVERY = 250
LARGE_FILE = 32_000_000
"""File size in bytes above which only one session is prepared."""


def prepare_sessions(path: Path, threads: int) -> tuple[Session, ...]:
    """Return up to four sessions of a file, one per thread.

    Args:
        path: A file that some runtime can run. A large file (`LARGE_FILE`) gets one session,
            because each session holds its weights.
        threads: Number of threads that may be used.

    Raises:
        InputError: No runtime can run the file.
        MissingDependency: The runtime is not installed.
    """
    count = 1 if path.stat().st_size > LARGE_FILE else min(4, threads)
    return tuple(prepare_session(path) for _ in range(count))


def compute_outputs(
    session: Session | Sequence[Session],
    inputs: Sequence[npt.NDArray[Any]],
    on_progress: Callable[[float], None] | None = None,
) -> list[npt.NDArray[np.float32]]:
    """Return the outputs of a file for all examples, computed at batch size 1.

    Args:
        session: A session from `Runtime.prepare`. Several sessions of one file share the examples,
            each in its own thread; the outputs are the same.
        inputs: Model inputs, one array (n, ...) per input, in the model's order.
        on_progress: Called at intervals with the fraction that is done.

    Returns:
        One array (n, ...) per output, in the model's order.
    """
    sessions = tuple(session) if isinstance(session, Sequence) else (session,)
    first, *others = sessions
    parts = np.array_split(np.arange(len(inputs[0])), len(sessions))
    stop = threading.Event()
    with ThreadPoolExecutor(max(1, len(others))) as pool:
        futures = [
            pool.submit(_run_rows, other, inputs, part, stop)
            for other, part in zip(others, parts[1:], strict=True)
        ]
        try:
            progress_args = on_progress, max(1, REPORT_EVERY // len(sessions))
            part_outputs = [_run_rows(first, inputs, parts[0], stop, *progress_args)]
            part_outputs += [future.result() for future in futures]
        finally:
            stop.set()  # also stops the other threads after Ctrl-C or an error
    return [np.concatenate(outputs) for outputs in zip(*part_outputs, strict=True)]


def _run_rows(
    session: Session,
    inputs: Sequence[npt.NDArray[Any]],
    rows: npt.NDArray[np.int64],
    stop: threading.Event,
    on_progress: Callable[[float], None] | None = None,
    every: int = REPORT_EVERY,
) -> list[npt.NDArray[np.float32]]:
    """Return the outputs of a session for some rows: one array (rows, ...) per output."""
    outputs = [np.empty((0, *info.shape[1:]), np.float32) for info in session.outputs]
    for index, row in enumerate(rows):
        if stop.is_set():
            break
        session.set_inputs([values[row : row + 1] for values in inputs])
        session.invoke()
        results = session.results()
        if index == 0:
            outputs = [np.empty((len(rows), *result.shape[1:]), np.float32) for result in results]
        for output, result in zip(outputs, results, strict=True):
            output[index] = result[0]
        if on_progress and (index + 1) % every == 0:
            on_progress((index + 1) / len(rows))
    return outputs


def has_low_agreement(kind: str, agreement: float, num_examples: int) -> bool:
    """Return whether a file agrees too little with its Keras model to be chosen by default.

    The upper end of the 95 % Wilson interval of the agreement, for `num_examples` decisions, must
    be below `Task.least_agreement`. With 200 examples and a limit of 90 % that means below 86 %, so
    an intact file is not rejected by chance. R^2 is compared with the limit directly.

    Args:
        kind: Kind of the task, as `Task.name`. For an unknown kind the default of `Task` applies.
        agreement: `Task.agreement` of the file and the model, at most 1. NaN counts as low.
        num_examples: Number of compared examples. With 0 the result is False.

    Example:
        >>> has_low_agreement("multiclass", 0.61, 200), has_low_agreement("multiclass", 0.87, 200)
        (True, False)
    """
    if num_examples < 1:
        return False
    if math.isnan(agreement):
        return True
    task = _find_task_class(kind)
    best = agreement
    if not task.agrees_by_r2:
        best = compute_wilson_interval(min(max(agreement, 0.0), 1.0), num_examples)[1]
    return best < task.least_agreement


def can_ship_by_default(
    kind: str, agreement: float, num_examples: int, formats: Sequence[str]
) -> bool:
    """Return whether a file may be chosen by default.

    A file with low agreement may be chosen only if its format is the only requested one.

    Args:
        kind, agreement, num_examples: See `has_low_agreement`.
        formats: Formats that the plan requests, `plan.export.formats`.
    """
    return len(formats) == 1 or not has_low_agreement(kind, agreement, num_examples)


def describe_low_agreement(name: str, kind: str, agreement: float, num_examples: int) -> str:
    """Return the warning for a file with low agreement; "" for other files.

    Args:
        name: Display name of the file ("model.int8").
        kind, agreement, num_examples: See `has_low_agreement`.

    Example:
        >>> describe_low_agreement("m.int8", "multiclass", 0.61, 200)[:61]
        'warning: m.int8 agrees with the Keras model on only 61.0 % of'
    """
    if not has_low_agreement(kind, agreement, num_examples):
        return ""
    task, examples = _find_task_class(kind), f"{num_examples:,} examples"
    least = task.least_agreement
    if task.agrees_by_r2:
        measured, required = f"with an R2 of only {agreement:.2f} on {examples}", f"{least:.2f}"
    else:
        scope = examples if task.indices else f"all decisions on {examples}"
        measured, required = f"on only {100 * agreement:.1f} % of {scope}", f"{100 * least:.0f} %"
    return f"warning: {name} agrees with the Keras model {measured} (at least {required} expected)"


def _find_task_class(kind: str) -> type[Task]:
    if kind not in TASKS:
        return Task
    task_class: type[Task] = TASKS[kind]
    return task_class


_MIN_PROBABILITY = 1e-9
"""Lower bound of probabilities in logarithms."""


def compute_divergence(expected: Sequence[Any], actual: Sequence[Any]) -> float:
    """Return the divergence of outputs from expected outputs, over all outputs.

    For class probabilities it is the mean Kullback-Leibler divergence; for other outputs the
    squared error relative to the spread of the expected outputs over the examples.

    Args:
        expected: Expected outputs, one array per output.
        actual: Outputs of the evaluated model, one array per output.

    Shapes:
        expected, actual: (n, ...) each; probabilities (n, ..., classes) that sum to one.

    Returns:
        Nats per example (and position), or a share of the spread; 0: equal outputs.

    Example:
        >>> compute_divergence([np.array([[0.5, 0.5]])], [np.array([[0.5, 0.5]])])
        0.0

    Reference:
        Kullback and Leibler 1951, "On Information and Sufficiency", equation 2.4; ours:
        probabilities below 1e-9 count as that.
    """
    pairs = [(np.asarray(y), np.asarray(z)) for y, z in zip(expected, actual, strict=True)]
    normalizer = sum(compute_normalizer(y) for y, _ in pairs)
    return sum(compute_distance(y, z) for y, z in pairs) / max(normalizer, 1e-30)


def compute_normalizer(y: npt.NDArray[Any]) -> float:
    """Return the divisor of distances: number of distributions, or squared spread of numbers.

    Args:
        y: Expected values of one output, (n, ...).
    """
    if _is_distribution(y):
        return float(y.size // y.shape[-1])
    y = y.astype(np.float64)
    return float(((y - y.mean(0)) ** 2).sum())


def compute_distance(expected: npt.NDArray[Any], actual: npt.NDArray[Any]) -> float:
    """Return the unnormalized sum of distances, see `compute_divergence`.

    Args:
        expected: Expected values of one output, (n, ...).
        actual: Values of the evaluated model, (n, ...).
    """
    expected, actual = expected.astype(np.float64), actual.astype(np.float64)
    if _is_distribution(expected):
        ratio = np.log(np.maximum(expected, _MIN_PROBABILITY)) - np.log(
            np.maximum(actual, _MIN_PROBABILITY)
        )
        return float((expected * ratio).sum())
    return float(((expected - actual) ** 2).sum())


def _is_distribution(y: npt.NDArray[Any]) -> bool:
    sums = y.sum(-1)
    return y.ndim > 1 and y.shape[-1] > 1 and bool(y.min() >= 0 and np.abs(sums - 1).max() < 1e-3)

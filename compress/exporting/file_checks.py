"""Checks of a model's files: test runs, outputs, and comparisons of two files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import concat_examples, count_examples, list_arrays, take_examples
from compress.core.errors import InputError, to_one_line
from compress.core.lazy_modules import keras
from compress.core.memory_budget import get_current_budget
from compress.core.statistics import compare_examples
from compress.data import Dataset, Preprocessing, UnlabelledDataset, sample_stratified
from compress.data.label_inference import Head, Heads
from compress.data.tasks import Several, Task, create_task
from compress.data.tasks.model_tasks import Answers
from compress.exporting.conversions import ConversionFailed
from compress.measure.file_agreement import compute_outputs
from compress.measure.runtimes import Session, prepare_session
from compress.model.copies import find_index_inputs
from compress.model.heads import find_decision_threshold, infer_head
from compress.model.ports import (
    PIXEL_RANGES,
    call_model,
    flatten_inputs,
    is_integer_input,
    list_input_names,
    list_output_names,
)
from compress.train.predict import Predictor

BATCH_SIZE = 2000
"""Number of examples whose inputs are in memory at a time."""
RANDOM_EXAMPLES = 32
"""Number of random inputs that check a file if no examples are given."""
FEWEST, MOST = 200, 2000
"""Examples on which files are compared: with fewer, nearly every comparison would be a tie."""


def predict_with_file(
    model: keras.Model,
    session: Session | Sequence[Session],
    x: Any,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """Return a file's outputs for model inputs, in the shapes of the model's own outputs.

    Args:
        model: The model from which the file was exported.
        session: Session of the file, or several sessions that share the examples.
        x: Model inputs (n, ...), or such arrays by input name.
        on_progress: Callback invoked with the completed share, in [0, 1].

    Returns:
        Outputs (n, ...), or such arrays by output name.
    """
    outputs = compute_outputs(session, flatten_inputs(model, x), on_progress)
    shaped = [
        # open sizes are known only from the file's outputs
        part if None in output.shape[1:] else part.reshape(len(part), *output.shape[1:])
        for part, output in zip(outputs, model.outputs, strict=True)
    ]
    return (
        shaped[0] if len(shaped) == 1 else dict(zip(list_output_names(model), shaped, strict=True))
    )


def predict_examples(
    model: keras.Model,
    session: Session | Sequence[Session],
    x: Any,
    preprocess: Preprocessing,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """Return a file's outputs for raw examples, preprocessed in batches to save memory.

    Args:
        model: The model from which the file was exported.
        session: Session of the file, or several sessions that share the examples.
        x: Examples as stored (n, ...), or such arrays by input name.
        preprocess: Preprocessing of the examples.
        on_progress: Callback invoked with the completed share, in [0, 1].

    Returns:
        See `predict_with_file`.
    """
    total, batch_outputs = count_examples(x), []
    bytes_per_example = sum(8 * int(np.prod(values.shape[1:])) for values in list_arrays(x))
    size = get_current_budget().find_batch_size(
        bytes_per_example, max_examples=BATCH_SIZE, purpose="the inputs of a file"
    )
    for start in range(0, total, size):
        batch = preprocess(take_examples(x, slice(start, start + size)))

        def report_progress(
            share: float, start: int = start, size: int = count_examples(batch)
        ) -> None:
            if on_progress is not None:
                on_progress((start + share * size) / total)

        batch_outputs.append(predict_with_file(model, session, batch, report_progress))
    return concat_examples(batch_outputs)


def predict_outputs(model: keras.Model, probe: Any) -> Any:
    """Return a model's outputs for model inputs.

    Args:
        model: The model.
        probe: Model inputs (n, ...), or such arrays by name.
    """
    return Predictor(partial(call_model, model), Preprocessing(), model)(probe)


def draw_random_inputs(model: keras.Model, seed: int) -> UnlabelledDataset:
    """Return random inputs, enough to check a file against its model.

    Args:
        model: The model.
        seed: Seed of the numbers.

    Raises:
        InputError: An input size is open.
    """
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs or []]
    if not shapes or any(None in shape for shape in shapes):
        raise InputError(
            f"Model '{model.name}' must have inputs of known size to be checked without data. "
            f"Received: {shapes}. Give data=, x alone is enough."
        )
    random = np.random.default_rng(seed)
    indices = find_index_inputs(model)
    inputs: dict[str, Any] = {}
    for index, (name, tensor) in enumerate(zip(list_input_names(model), model.inputs, strict=True)):
        size, kind = (RANDOM_EXAMPLES, *shapes[index]), str(tensor.dtype)
        if index in indices or (kind not in PIXEL_RANGES and is_integer_input(tensor)):
            # 0 and 1 are valid indices of any table
            inputs[name] = random.integers(2, size=size)
        elif kind in PIXEL_RANGES:
            inputs[name] = random.integers(*PIXEL_RANGES[kind], size=size, endpoint=True)
        else:
            inputs[name] = random.normal(size=size)
        inputs[name] = inputs[name].astype(np.float32)
    x = inputs if len(inputs) > 1 else next(iter(inputs.values()))
    return UnlabelledDataset.from_arrays("random inputs", x)


def find_task(model: keras.Model, data: Dataset | UnlabelledDataset) -> tuple[Task, Sequence[str]]:
    """Return the task by which outputs are compared, and the names of its classes or outputs.

    Without labels the task of a single output is `data.kind`; if that is empty, or for several
    outputs, it is inferred from the output activation. An output without an activation may hold
    logits or regression values, so it is compared as numbers.

    Args:
        model: The model.
        data: Data set, with or without labels.
    """
    if isinstance(data, Dataset):
        return data.task, data.class_names
    head = infer_head(model)
    if isinstance(head, Heads):
        tasks = {name: _infer_task(part) for name, part in head.outputs.items()}
        task = Several(tuple(tasks.items())) if len(tasks) > 1 else next(iter(tasks.values()))
        return task, list(tasks)
    task = _infer_task(head, data.kind)
    names = 2 if task.name == "binary" else 1 if head is None else head.num_outputs
    return task, [str(name) for name in range(names)]


def _infer_task(head: Head | None, kind: str | None = None) -> Task:
    """Return the task of one output, from a given kind or else from its activation."""
    activation, width = ("linear", 1) if head is None else (head.activation, head.num_outputs)
    kind = kind or {"softmax": "multiclass", "sigmoid": "multilabel"}.get(activation, "regression")
    return create_task(kind, 2 if kind == "binary" else width)


def check_equivalence(
    cheaper: Path,
    dearer: Path,
    original: Path,
    *,
    model: keras.Model,
    data: Dataset | UnlabelledDataset,
    task: Task,
    calibration_indices: Any,
    seed: int,
) -> str:
    """Return a comparison of two files; "" if the cheaper one is significantly worse.

    The files are compared on held-out examples: they neither calibrated ranges nor chose a
    precision. "" is also returned if there are too few examples or no labels to compare with.

    Args:
        cheaper: The cheaper file.
        dearer: The more precise file.
        original: The float32 file.
        model: Model of the files.
        data: Data set whose validation examples of every class are used. For unlabelled data,
            training examples that did not calibrate are used, with the float32 file's outputs as
            labels.
        task: Task that defines the metric.
        calibration_indices: Indices of the training examples that calibrated the files.
        seed: Seed of the sampling of examples.
    """
    if isinstance(data, Dataset):
        part = data.split("val")
        part = part.take(sample_stratified(part, MOST, seed))
    else:
        unused = np.setdiff1d(np.arange(len(data.train)), calibration_indices)
        part = data.train.take(unused[:MOST])
    if len(part) < FEWEST:
        return ""

    def predict_file(path: Path) -> Any:
        return predict_examples(model, prepare_session(path), part.x, data.preprocess)

    if isinstance(data, Dataset):
        labels = data.labels(part)
    elif len(model.outputs) > 1:
        return ""
    else:
        labels = predict_file(original)
        task = Answers.for_labels(labels.shape[-1], labels)
    threshold = find_decision_threshold(model, task)
    new, old = (
        task.example_values(labels, predict_file(path), threshold=threshold)
        for path in (cheaper, dearer)
    )
    change = compare_examples(new, old)
    if change.high < 0:
        return ""
    return (
        f"{task.qualities[0]} on {len(part):,} held-back examples {change.estimate:+.4f} "
        f"({change.low:+.4f} to {change.high:+.4f})"
    )


def open_session(path: Path, inputs: Sequence[npt.NDArray[Any]]) -> Session:
    """Prepare a file and run it on the first of some examples; delete the file if that fails.

    Some kernels refuse a type or a value only when they run. LiteRT's int16 kernels refuse types;
    its integer division refuses a zero divisor, such as the contrast of an all-zero image. So the
    test run uses an example of the data.

    Args:
        path: File of a kind that some runtime supports.
        inputs: Model inputs, one array (n >= 1, ...) per input, in the model's order.

    Raises:
        ConversionFailed: The file cannot be prepared or run.
    """
    try:
        session = prepare_session(path)
        session.set_inputs([values[:1] for values in inputs])
        session.invoke()
        return session
    except InputError as error:
        reason = str(error)
    except RuntimeError as error:
        reason = (
            f"'{path.name}' must be a file that its runtime can run. Received: one that it refuses "
            f"({to_one_line(error)})."
        )
    path.unlink()
    raise ConversionFailed("made no file that runs of", reason)


def describe_ports(session: Session) -> dict[str, Any]:
    """Return dtype, scale and zero point of a file's inputs and outputs.

    The keys are input and output, or inputs and outputs by name if there are several.

    Args:
        session: Session of the file.
    """
    inputs, outputs = session.inputs, session.outputs
    if len(inputs) == len(outputs) == 1:
        return {"input": inputs[0].to_json(), "output": outputs[0].to_json()}
    return {
        "inputs": {info.name: info.to_json() for info in inputs},
        "outputs": {info.name: info.to_json() for info in outputs},
    }

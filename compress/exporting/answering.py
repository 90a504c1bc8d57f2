"""Checks of a model's files: whether they run, their outputs, and comparisons of two files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import arrays, count, joined, taken
from compress.core.errors import InputError, one_line
from compress.core.memory_budget import current_budget
from compress.core.statistics import compare_examples
from compress.data import Dataset, Preprocessing, Unlabelled, draw_stratified
from compress.data.meaning import Head, Heads
from compress.data.tasks import Several, Task, make_task
from compress.data.tasks.model_tasks import Answers
from compress.exporting.conversions import ConversionFailed
from compress.measure.quality import outputs_of
from compress.measure.runtimes import Session, session_for
from compress.model.heads import decides_at, head_of
from compress.model.ports import answers_of, listed, output_names
from compress.train.predict import Predictor

if TYPE_CHECKING:
    import keras

AT_A_TIME = 2000
"""Examples whose inputs are in memory at a time while a file is judged."""
FEWEST, MOST = 200, 2000
"""Examples on which files are compared: fewer would call nearly everything a tie."""


def answered_by_file(
    model: keras.Model,
    session: Session | Sequence[Session],
    x: Any,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """Return a file's outputs for model inputs, in the shapes of the model's own outputs.

    Args:
        model: That the file was made of.
        session: Of the file; several share the examples.
        x: Model inputs (n, ...), or such arrays by name.
        on_progress: Called now and then with the share that is done.

    Returns:
        (n, ...), or such arrays by the outputs' names.
    """
    made = outputs_of(session, listed(model, x), on_progress)
    shaped = [
        # sizes that the model leaves open are the file's
        part if None in output.shape[1:] else part.reshape(len(part), *output.shape[1:])
        for part, output in zip(made, model.outputs, strict=True)
    ]
    return shaped[0] if len(shaped) == 1 else dict(zip(output_names(model), shaped, strict=True))


def answered_part(
    model: keras.Model,
    session: Session | Sequence[Session],
    data: Dataset,
    part: str,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """Return a file's outputs for a part of the data; see `answered_by_file`."""
    return _answered(model, session, data.split(part).x, data.preprocess, on_progress)


def _answered(
    model: keras.Model,
    session: Session | Sequence[Session],
    x: Any,
    preprocess: Preprocessing,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """Return a file's outputs for raw examples.

    Inputs are made some at a time: all of them may not fit into memory.
    """
    total, found = count(x), []
    each = sum(8 * int(np.prod(values.shape[1:])) for values in arrays(x))
    size = current_budget().batch_size(each, most=AT_A_TIME, what="the inputs of a file")
    for start in range(0, total, size):
        given = preprocess(taken(x, slice(start, start + size)))

        def told(share: float, start: int = start, size: int = count(given)) -> None:
            if on_progress is not None:
                on_progress((start + share * size) / total)

        found.append(answered_by_file(model, session, given, told))
    return joined(found)


def predict_answers(model: keras.Model, probe: Any) -> Any:
    """Return a model's outputs for model inputs."""
    return Predictor(partial(answers_of, model), Preprocessing(), model)(probe)


def find_task(model: keras.Model, data: Dataset | Unlabelled) -> tuple[Task, Sequence[str]]:
    """Return the task by which outputs are compared, and the names of its classes or outputs.

    Without labels the head decides. One without an activation may give logits or numbers: its
    outputs are compared as numbers.
    """
    if isinstance(data, Dataset):
        return data.task, data.class_names
    head = head_of(model)
    if isinstance(head, Heads):
        each = {name: _by_head(part) for name, part in head.outputs.items()}
        task = Several(tuple(each.items())) if len(each) > 1 else next(iter(each.values()))
        return task, list(each)
    task = _by_head(head, data.kind)
    names = 2 if task.name == "binary" else 1 if head is None else head.outputs
    return task, [str(name) for name in range(names)]


def _by_head(head: Head | None, kind: str | None = None) -> Task:
    """Return the task of an output: of a known kind, or else by its head."""
    ends, width = ("linear", 1) if head is None else (head.activation, head.outputs)
    kind = kind or {"softmax": "multiclass", "sigmoid": "multilabel"}.get(ends, "regression")
    return make_task(kind, 2 if kind == "binary" else width)


def confirm_as_good(
    cheaper: Path,
    dearer: Path,
    original: Path,
    *,
    model: keras.Model,
    data: Dataset | Unlabelled,
    task: Task,
    used: Any,
    seed: int,
) -> str:
    """Return the figures by which a file is as good as another; "" if it is worse, or unknown.

    Files are compared on examples that neither set ranges nor chose any.

    Args:
        cheaper: The file that would be taken.
        dearer: The file that would be left.
        original: The float32 file.
        model: Of the files.
        data: Validation examples are taken, of every class; of examples without labels those
            that did not calibrate, and the float file's answers are the labels.
        task: By which answers are judged.
        used: Indices of the training examples that calibrated.
        seed: Of the draw.
    """
    if isinstance(data, Dataset):
        part = data.split("val")
        part = part.take(draw_stratified(part, MOST, seed))
    else:
        unused = np.setdiff1d(np.arange(len(data.train)), used)
        part = data.train.take(unused[:MOST])
    if len(part) < FEWEST:
        return ""

    def answers(path: Path) -> Any:
        return _answered(model, session_for(path), part.x, data.preprocess)

    if isinstance(data, Dataset):
        labels = data.labels(part)
    elif len(model.outputs) > 1:
        return ""
    else:
        labels = answers(original)
        task = Answers.for_labels(labels.shape[-1], labels)
    threshold = decides_at(model, task)
    new, old = (
        task.example_values(labels, answers(path), threshold=threshold)
        for path in (cheaper, dearer)
    )
    change = compare_examples(new, old)
    if change.high < 0:
        return ""
    return (
        f"{task.qualities[0]} on {len(part):,} held-back examples {change.estimate:+.4f} "
        f"({change.low:+.4f} to {change.high:+.4f})"
    )


def runnable(path: Path, inputs: Sequence[npt.NDArray[Any]]) -> Session:
    """Prepare a file and run it on the first of some examples; remove it if that fails.

    Kernels may refuse a type when they are run, and not before: LiteRT's of int16 do. Others refuse
    values: its division of integers ends where the divisor is zero, as the contrast of an image
    that is zeros is. Hence an example of the data.

    Args:
        path: Of a kind that some runtime runs.
        inputs: As the model takes them, an array (n >= 1, ...) each, in the model's order.

    Raises:
        ConversionFailed: It cannot be prepared, or not be run.
    """
    try:
        session = session_for(path)
        session.set_inputs([values[:1] for values in inputs])
        session.invoke()
        return session
    except InputError as error:
        reason = str(error)
    except RuntimeError as error:
        reason = (
            f"'{path.name}' must be a file that its runtime can run. Received: one that it refuses "
            f"({one_line(error)})."
        )
    path.unlink()
    raise ConversionFailed("made no file that runs of", reason)

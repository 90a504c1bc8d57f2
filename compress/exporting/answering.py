"""Whether a model's files run, what they answer, and whether one is as good as another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import arrays, count, joined, taken
from compress.core.errors import InputError, one_line
from compress.core.memory_budget import current_budget
from compress.core.statistics import compare_examples
from compress.data import Dataset, Preprocessing, Unlabelled, draw_stratified
from compress.data.tasks import Answers, Task
from compress.measure.runtimes import Session, session_for
from compress.model.heads import decides_at
from compress.model.ports import listed, output_names

if TYPE_CHECKING:
    import keras

    from compress.measure.runtimes import Session

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
    """Returns what a model's file answers to inputs, shaped as the model's own answers.

    Args:
        model: That the file was made of.
        session: Of the file; several share the examples.
        x: Model inputs (n, ...), or such arrays by name.
        on_progress: Called now and then with the share that is done.

    Returns:
        (n, ...), or such arrays by the outputs' names.
    """
    from compress.measure.quality import outputs_of

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
    """Returns what a model's file answers to a part of the data; see `answered_by_file`."""
    return _answered(model, session, data.split(part).x, data.preprocess, on_progress)


def _answered(
    model: keras.Model,
    session: Session | Sequence[Session],
    x: Any,
    preprocess: Preprocessing,
    on_progress: Callable[[float], None] | None = None,
) -> Any:
    """Returns what a model's file answers to raw examples.

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


@dataclass(frozen=True, eq=False)
class HeldBack:
    """Examples on which files of a model are compared: they neither set ranges nor chose any.

    Attributes:
        model: Of the files.
        data: Validation examples are taken, of every class; of examples without labels those
            that did not calibrate, and the float file's answers are the labels.
        task: By which answers are judged.
        used: Indices of the training examples that calibrated.
        seed: Of the draw.
    """

    model: keras.Model
    data: Dataset | Unlabelled
    task: Task
    used: Any
    seed: int

    def confirm_as_good(self, cheaper: Path, dearer: Path, original: Path) -> str:
        """Return the figures by which a file is as good as another one; "": it is not, or unknown.

        Args:
            cheaper: The file that would be taken.
            dearer: The file that would be left.
            original: The float32 file.
        """
        from compress.measure.runtimes import session_for

        data = self.data
        if isinstance(data, Dataset):
            part = data.split("val")
            part = part.take(draw_stratified(part, MOST, self.seed))
        else:
            unused = np.setdiff1d(np.arange(len(data.train)), self.used)
            part = data.train.take(unused[:MOST])
        if len(part) < FEWEST:
            return ""

        def answers(path: Path) -> Any:
            return _answered(self.model, session_for(path), part.x, data.preprocess)

        if isinstance(data, Dataset):
            task, labels = self.task, data.labels(part)
        elif len(self.model.outputs) > 1:
            return ""
        else:
            labels = answers(original)
            task = Answers.for_labels(labels.shape[-1], labels)
        threshold = decides_at(self.model, task)
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
    """Prepares a file and runs it once, on the first of some examples.

    Kernels may refuse a type when they are run, and not before: LiteRT's of int16 do. Others refuse
    values: its division of integers ends where the divisor is zero, as the contrast of an image
    that is zeros is. Hence an example of the data.

    Args:
        path: Of a kind that some runtime runs.
        inputs: As the model takes them, an array (n >= 1, ...) each, in the model's order.

    Raises:
        InputError: It cannot be prepared, or not be run.
    """
    session = session_for(path)
    session.set_inputs([values[:1] for values in inputs])
    try:
        session.invoke()
    except RuntimeError as error:
        raise InputError(
            f"'{path.name}' must be a file that its runtime can run. Received: one that it refuses "
            f"({one_line(error)})."
        ) from None
    return session

"""Finds the scaling that a model was trained with, by how well it answers validation examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing, Split, load_data
from compress.data.preprocessing import scalings
from compress.data.tasks import CUSTOM, UNLABELLED
from compress.model.compiled import CompiledOutput, compiled_of, compiled_outputs
from compress.model.heads import answering, check_head, head_of
from compress.model.logits import logits_view
from compress.model.ports import is_index
from compress.plan import DataOptions
from compress.run.origin import origin_of
from compress.train.compiled import judged_by, with_compiled
from compress.train.predict import Predictor
from compress.train.scaling_comparison import (
    BOLD,
    Tried,
    beats,
    differs,
    require_sense,
    said,
    tried_with,
)

if TYPE_CHECKING:
    import keras


FIRST_LOOK = 512
"""Validation examples that every scaling is tried on; what is left is tried on all of them."""
MORE = 4096
"""Training examples that are asked too where validation examples do not decide."""


@dataclass(frozen=True)
class FoundScaling:
    """A scaling, and how it was found.

    Attributes:
        name: As `--normalize` calls it.
        preprocess: The map.
        note: What a report must say: which, and how far ahead of the next.
    """

    name: str
    preprocess: Preprocessing
    note: str


def load_for_model(
    path: Path | None,
    options: DataOptions,
    model: keras.Model,
    seed: int = 0,
    compiled: Mapping[str, CompiledOutput] | None = None,
) -> Dataset:
    """Loads data, scaled as the model was trained with where that is left open.

    Args:
        path: The model's file; None: it comes from none. Of one from a run's folder the run
            tells; of another one the answers do, see `find_scaling`.
        options: Name the data, their split and `normalize`.
        model: What lies in the file.
        seed: Of the split.
        compiled: What the model was compiled with; default: what it tells itself, or its file
            where a custom task is asked for.

    Raises:
        InputError: The data cannot be loaded, or the scaling cannot be found.
    """
    data = _loaded(path, options, model, seed)
    if compiled is None:
        compiled = compiled_outputs(model)
        if not compiled and path is not None and CUSTOM in options.tasks:
            compiled = compiled_of(path)
    return judged_by(with_compiled(data, model, compiled), options.metric)


def _loaded(path: Path | None, options: DataOptions, model: keras.Model, seed: int) -> Dataset:
    bare = options.task == UNLABELLED
    answers = answering(model) if bare else None
    if options.normalize != "auto":
        return load_data(options, seed=seed, answers=answers, head=head_of(model))
    origin = origin_of(path) if path is not None else None
    stored = origin.preprocess if origin is not None else None
    if bare and stored is None:
        raise InputError(
            "normalize must be given where labels do not tell how a model's inputs were scaled. "
            f"Received: {options.normalize}, for examples without labels. Pass --normalize with "
            "what it was trained with."
        )
    data = load_data(options, seed=seed, preprocess=stored, answers=answers, head=head_of(model))
    # a data set of the user's own code comes scaled
    if stored is not None or data.max_value is None:
        return data
    if len(model.inputs) == 1 and is_index(model.inputs[0]):
        note = f"inputs of model '{path or model.name}' are integers: examples are fed as they are"
        return replace(data, preprocess=Preprocessing(), notes=(*data.notes, note))
    found = find_scaling(model, data, f"Model '{path or model.name}'")
    return replace(data, preprocess=found.preprocess, notes=(*data.notes, found.note))


def find_scaling(model: keras.Model, data: Dataset, what: str) -> FoundScaling:
    """Tries the usual scalings on validation examples and returns the best.

    Two scalings are compared on the same examples, see `beats`. Where validation examples do
    not tell them apart training examples are asked too: nothing is judged here.

    Args:
        model: Reads the data's examples in an unknown scaling; not changed.
        data: From `load_data`; neither its `preprocess` is looked at nor the test part.
        what: Who the model is, for the error: "Model 'x.keras'".

    Returns:
        The best. Of several that answer alike in `ALIKE` of the examples the one of least loss:
        which it is makes little difference then.

    Raises:
        InputError: The model does not fit the data, the best scaling is not better than guessing,
            or another is as good within noise and answers otherwise.
    """
    if len(data.input_shapes) > 1 or data.outputs or data.kind == CUSTOM:
        raise InputError(
            "normalize must be given for data of several inputs or outputs, and where a model's "
            "own loss judges. Received: auto, for "
            f"{what[:1].lower()}{what[1:]}. Pass --normalize with what it was trained with."
        )
    check_head(model, data)
    known = scalings(data.train.x, data.max_value or 1.0)
    left = list(known)
    with logits_view(model, data.task) as view:
        predict = Predictor(view, Preprocessing(), model)
        for look in _looks(data):
            part, examples = look
            tried = [_tried(name, known[name], predict, part, data) for name in left]
            tried.sort(key=lambda item: item.rank, reverse=True)
            first = [item for item in tried if not any(beats(other, item) for other in tried)]
            left = [item.name for item in first]
            # those that answer like the first: the one that fits as it is
            best = max(
                (item for item in first if not differs(item, first[0], data)),
                key=lambda item: item.plain,
            )
            differing = [item for item in first if differs(item, best, data)]
            if not differing:
                break
    require_sense(best, data, what, examples)
    if differing:
        raise InputError(
            f"{what} must show by its answers how its inputs were scaled. Received: "
            f"{said(best, data)} and {said(differing[0], data)} on {examples}, within "
            "noise. Pass --normalize with what it was trained with."
        )
    text = f"inputs of {what[:1].lower()}{what[1:]} are scaled by {said(best, data)}"
    others = [item for item in tried if item is not best]
    if others:
        text += f", before {said(others[0], data)}"
        if others[0].rank > best.rank and others[0] not in first:
            text += f", whose answers are over {BOLD:g} times too large or too small"
    text += f": found on {examples}"
    if len(first) > 1:
        alike = next(item.name for item in first if item is not best)
        text += f" (with {alike} it answers alike)"
    return FoundScaling(best.name, known[best.name], text)


def _looks(data: Dataset) -> Iterator[tuple[Split, str]]:
    """Gives more and more examples, and what they are."""
    order = np.random.default_rng(0).permutation(len(data.val))
    for size in sorted({min(FIRST_LOOK, len(order)), len(order)}):
        yield data.val.take(np.sort(order[:size])), f"{size:,} validation examples"
    order = np.random.default_rng(0).permutation(len(data.train))
    part = data.train.take(np.sort(order[:MORE]))
    more = Split(np.concatenate([data.val.x, part.x]), np.concatenate([data.val.y, part.y]))
    yield more, f"{len(data.val):,} validation and {len(part):,} training examples"


def _tried(
    name: str, scaling: Preprocessing, predict: Predictor, part: Split, data: Dataset
) -> Tried:
    """Judges a model's answers to examples in one scaling."""
    y = scaling(part.x) if data.gives_back else part.y
    return tried_with(name, _logits(predict, scaling, part.x), data, y)


def _logits(
    predict: Predictor, scaling: Preprocessing, x: npt.NDArray[Any]
) -> npt.NDArray[np.float32]:
    """Predicts in batches: all examples as float32 at once may not fit into memory."""
    size = predict.most(x)
    return np.concatenate([predict(scaling(x[i : i + size])) for i in range(0, len(x), size)])

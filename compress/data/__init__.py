"""Data sets: one file a source, and `load_data`, which picks the source and splits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from compress.core.errors import InputError
from compress.core.plugins import SOURCES
from compress.data import digits, folder, idx, keras_datasets, npz, python
from compress.data._base import Dataset, RawData, Split, Unlabelled, drawn_inputs
from compress.data.answers import Answering, answered
from compress.data.examples import check_split
from compress.data.preprocessing import Preprocessing, fit_preprocessing
from compress.data.splitting import split_off
from compress.plan import DataOptions
from compress.task import UNLABELLED, has_classes

__all__ = [
    "DataOptions",
    "Dataset",
    "Preprocessing",
    "RawData",
    "SOURCES",
    "Split",
    "Unlabelled",
    "check_source",
    "drawn_inputs",
    "load_data",
]


def load_data(
    source: str | DataOptions = "digits",
    *,
    normalize: str = DataOptions.normalize,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float = DataOptions.test_fraction,
    task: str = DataOptions.task,
    seed: int = 0,
    preprocess: Preprocessing | None = None,
    answers: Answering | None = None,
) -> Dataset:
    """Loads a data set and gives it a training, a validation and a test part.

    Parts that the source lacks are split off, stratified by class where there are classes and
    determined by `seed` alone: the test part from everything, the validation part from the rest.

    Args:
        source: "digits"; a name in `keras.datasets` (mnist, fashion_mnist, cifar10,
            cifar100); a folder of IDX files or of class sub-folders with images; an .npz
            file; or "package.module:function" returning a `Dataset`. Options as one
            `DataOptions` record are taken whole.
        normalize: "standardize", "unit", "symmetric", "center", "caffe", "torch", "none" (see
            `fit_preprocessing`), or "auto" (= "standardize" here).
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything, in (0, 1).
        task: What labels mean: "multiclass", "binary", "multilabel" or "regression"; the last
            two from an .npz file only. Or "unlabelled": there are none, or they are not looked at.
        seed: Seed of the splits, at least 0.
        preprocess: A stored scaling to use instead of learning one.
        answers: Of data without labels: what a model answers to inputs, which stands for them.

    Returns:
        The data set; `dataset.inputs("train")` is what a model is fed.

    Raises:
        InputError: The source is unknown, missing, damaged or inconsistent.

    Shapes:
        `dataset.train.x`: (n, ...); `dataset.train.y`: (n,) class indices, (n, labels) of 0 and
            1, or (n, targets).

    Example:
        >>> data = load_data("digits", normalize="unit")
        >>> data.input_shape, data.num_classes, len(data.train), len(data.val), len(data.test)
        ((8, 8, 1), 10, 1221, 216, 360)

    Reference:
        docs/howto/data.md.
    """
    options = (
        source
        if isinstance(source, DataOptions)
        else DataOptions(source, task, normalize, val_fraction, test_fraction)
    )
    load = check_source(options)
    if load is None:
        return _from_python(options.source)
    bare = options.task == UNLABELLED
    if bare and answers is None:
        raise InputError(
            "Examples without labels must be for a model that exists: its answers stand for "
            f"labels. Received: task {options.task} and no model."
        )
    raw = load(options.source, options.task) if load in _BY_TASK else load(options.source)
    return _finish(raw.without_labels() if bare else raw, options, seed, preprocess, answers)


def check_source(options: DataOptions) -> Callable[[str], RawData] | None:
    """Finds out what reads a source, without reading it.

    Returns:
        The function that reads it; None: it is the user's own.

    Raises:
        InputError: No source is named, it does not exist, is of no known kind, or does not
            have what the task needs.
    """
    options.require_source()
    if _is_python(options.source):
        return None
    load = _loader(options.source)
    if load in _OF_CLASSES and not has_classes(options.task) and options.task != UNLABELLED:
        raise InputError(
            f"A {options.task} task must come from an .npz file or module:function. "
            f"Received: '{options.source}'."
        )
    return load


_OF_CLASSES = (digits.load, keras_datasets.load, idx.load, folder.load)
_BY_TASK = (npz.load, folder.load)


def _is_python(source: str) -> bool:
    return ":" in source and not Path(source).exists() and "/" not in source.partition(":")[0]


def _from_python(source: str) -> Dataset:
    result = python.call(source)
    if not isinstance(result, Dataset):
        raise InputError(
            f"'{source}' must return a compress.data.Dataset. Received: {type(result).__name__}."
        )
    return result


def _loader(source: str) -> Callable[[str], RawData]:
    if source in SOURCES:
        load: Callable[[str], RawData] = SOURCES[source]
        return load
    path = Path(source)
    if not path.exists():
        known = ", ".join(SOURCES)
        raise InputError(
            f"data must be a path that exists, a known name ({known}) or module:function. "
            f"Received: '{source}'."
        )
    if path.is_dir():
        return idx.load if idx.holds_idx(path) else folder.load
    if not path.is_file():
        raise InputError(
            f"data must be a file or a folder. Received: '{source}', which is neither (a pipe?)."
        )
    if path.suffix == ".npz":
        return npz.load
    raise InputError(f"A data file must be an .npz. Received: '{source}'.")


def _finish(
    raw: RawData,
    options: DataOptions,
    seed: int,
    preprocess: Preprocessing | None,
    answers: Answering | None = None,
) -> Dataset:
    kind = options.task
    classes = raw.class_names or _numbered(raw.train, options.source, kind)
    # checked before splitting: a stray label would fail there, and less clearly
    check_split(raw.train, "train", options.source, len(classes), kind)
    train, test, val = raw.train, raw.test, raw.val
    if test is None:
        share = options.test_fraction
        train, test = split_off(train, share, seed, part="test", name=options.source, kind=kind)
    check_split(test, "test", options.source, len(classes), kind)
    if val is None:
        share = options.val_fraction
        train, val = split_off(
            train, share, seed, part="validation", name=options.source, kind=kind
        )
    if preprocess is None:
        mode = "standardize" if options.normalize == "auto" else options.normalize
        preprocess = fit_preprocessing(train.x, raw.max_value, mode)
    elif len(preprocess.mean) not in (1, train.x.shape[-1]):
        raise InputError(
            f"The stored preprocessing must fit the data: it is for {len(preprocess.mean)} "
            f"channels. Received: '{options.source}' with {train.x.shape[-1]}."
        )
    if answers is not None and kind == UNLABELLED:
        train, val, test = (answered(part, preprocess, answers) for part in (train, val, test))
        classes = tuple(str(column) for column in range(train.y.shape[1]))
    return Dataset(
        options.source, train, val, test, classes, preprocess, raw.notes, kind, raw.max_value
    )


def _numbered(train: Split, source: str, kind: str) -> tuple[str, ...]:
    """Names the classes by their indices; k distinct labels must be 0 to k-1."""
    if not has_classes(kind):
        return tuple(str(column) for column in range(train.y.shape[1]))
    count = len(np.unique(train.y))
    if count < 2:
        raise InputError(f"'{source}' must have at least two classes. Received: {count}.")
    return tuple(str(label) for label in range(count))

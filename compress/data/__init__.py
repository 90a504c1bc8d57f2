"""Data sets: one file a source, and `load_data`, which picks the source and splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.core.errors import InputError
from compress.core.plugins import SOURCES
from compress.data import digits, folder, idx, keras_datasets, npz, python
from compress.data._base import Dataset
from compress.data.adapters import answered_by, labelled
from compress.data.answers import Answering, answered
from compress.data.examples import check_split
from compress.data.meaning import Head, Heads, meaning_of
from compress.data.parts import RawData, Split
from compress.data.preprocessing import Preprocessing, fit_preprocessing
from compress.data.several import answers_of
from compress.data.splitting import split_off
from compress.data.unlabelled import Unlabelled, drawn_inputs
from compress.plan import DataOptions
from compress.plan.data import AUTO
from compress.task import TASKS, UNLABELLED, has_classes, has_positions, needs_labels

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
    head: Head | Heads | None = None,
) -> Dataset:
    """Loads a data set and gives it a training, a validation and a test part.

    Parts that the source lacks are split off, stratified by class where there are classes and
    determined by `seed` alone: the test part from everything, the validation part from the rest.

    Args:
        source: "digits"; a name in `keras.datasets` (mnist, fashion_mnist, cifar10,
            cifar100); a folder of IDX files or of class sub-folders with images; an .npz
            file; or "package.module:function" returning a `Dataset`, (x, y) or a stream of such
            pairs, which are fed as they are. Options as one `DataOptions` record are taken whole.
        normalize: "standardize", "unit", "symmetric", "center", "caffe", "torch", "none" (see
            `fit_preprocessing`), or "auto" (= "standardize" here).
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything, in (0, 1).
        task: What labels mean: "multiclass" or "binary"; from an .npz file also "multilabel",
            "regression", "segmentation", "tagging" or "masks". Or there are none, or they are not
            looked at: "reconstruction" (the input is what is wanted), "unlabelled" (what a model
            answers is). "auto": labels and head tell.
        seed: Seed of the splits, at least 0.
        preprocess: A stored scaling to use instead of learning one.
        answers: Of data without labels: what a model answers to inputs, which stands for them.
        head: Of the model that is fed and judged, where there is one: says how arrays of an .npz
            file are meant.

    Returns:
        The data set; `dataset.inputs("train")` is what a model is fed.

    Raises:
        InputError: The source is unknown, missing, damaged or inconsistent.

    Shapes:
        `dataset.train.x`: (n, ...); `dataset.train.y`: see `compress.data.Split`.

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
    bare = options.task == UNLABELLED
    if bare and answers is None:
        raise InputError(
            "Examples without labels must be for a model that exists: its answers stand for "
            f"labels. Received: task {options.task} and no model."
        )
    if load is None:
        return _from_python(options, seed, answers, head)
    raw = _raw(options, load, head)
    if not options.told and not needs_labels(options.task):
        raw = raw.without_labels()
    return _finish(raw, options, seed, preprocess, answers, head)


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
    task = options.task
    of_classes = options.told or has_classes(task) or not needs_labels(task)
    if load in _OF_CLASSES and not of_classes:
        raise InputError(
            f"A {options.task} task must come from an .npz file or module:function. "
            f"Received: '{options.source}'."
        )
    return load


_OF_CLASSES = (digits.load, keras_datasets.load, idx.load, folder.load)


def _raw(
    options: DataOptions, load: Callable[[str], RawData], head: Head | Heads | None
) -> RawData:
    """Reads a source; what is in some of them depends on the task."""
    if options.resize is not None and load is not folder.load:
        raise InputError(
            f"resize goes with folders of images. Received: {options.resize[0]},"
            f"{options.resize[1]} for '{options.source}'."
        )
    if load is npz.load:
        return npz.load(options.source, options.task, head)
    if load is folder.load:
        return folder.load(options.source, options.task, options.resize, options.skip_damaged)
    return load(options.source)


def _is_python(source: str) -> bool:
    return ":" in source and not Path(source).exists() and "/" not in source.partition(":")[0]


def _from_python(
    options: DataOptions, seed: int, answers: Answering | None, head: Head | Heads | None
) -> Dataset:
    """Makes a data set of what the user's function returns; arrays and streams are fed as is."""
    result = python.call(options.source)
    if isinstance(result, Dataset):
        return result
    if options.normalize not in ("auto", "none"):
        raise InputError(
            "normalize goes with files and names: what a function returns is fed as it is. "
            f"Received: {options.normalize}. Scale it there."
        )
    how: dict[str, Any] = {
        "head": head,
        "seed": seed,
        "val_fraction": options.val_fraction,
        "test_fraction": options.test_fraction,
    }
    try:
        if options.task == UNLABELLED and answers is not None:
            found = answered_by(answers, result, **how)
        else:
            task = None if options.task == AUTO else options.task
            found = labelled(result, task=task, **how)
    except InputError as error:
        raise InputError(
            f"'{options.source}' must return a compress.data.Dataset, (x, y) or a stream of such "
            f"pairs. Received: a {type(result).__name__}. {error}"
        ) from None
    return replace(found, name=options.source)


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
    answers: Answering | None,
    head: Head | Heads | None,
) -> Dataset:
    (kind, notes), outputs = _kind(raw, options, head), raw.outputs
    classes = raw.class_names or _numbered(raw.train, options.source, kind, head)
    # checked before splitting: a stray label would fail there, and less clearly
    check_split(raw.train, "train", options.source, len(classes), kind, raw.outputs)
    train, test, val = raw.train, raw.test, raw.val
    if test is None:
        share = options.test_fraction
        train, test = split_off(train, share, seed, part="test", name=options.source, kind=kind)
    check_split(test, "test", options.source, len(classes), kind, raw.outputs)
    if val is None:
        share = options.val_fraction
        train, val = split_off(
            train, share, seed, part="validation", name=options.source, kind=kind
        )
    if preprocess is None:
        mode = "standardize" if options.normalize == "auto" else options.normalize
        preprocess = fit_preprocessing(train.x, raw.max_value, mode)
    elif not isinstance(train.x, dict) and len(preprocess.mean) not in (1, train.x.shape[-1]):
        raise InputError(
            f"The stored preprocessing must fit the data: it is for {len(preprocess.mean)} "
            f"channels. Received: '{options.source}' with {train.x.shape[-1]}."
        )
    if answers is not None and kind == UNLABELLED:
        train, val, test = (answered(part, preprocess, answers) for part in (train, val, test))
        if isinstance(train.y, dict):
            kind, outputs = "several", answers_of(train.y)
            classes = tuple(item.name for item in outputs)
        else:
            classes = tuple(str(column) for column in range(train.y.shape[-1]))
    return Dataset(
        options.source,
        train,
        val,
        test,
        classes,
        preprocess,
        (*raw.notes, *notes),
        kind,
        raw.max_value,
        outputs,
    )


def _kind(
    raw: RawData, options: DataOptions, head: Head | Heads | None
) -> tuple[str, tuple[str, ...]]:
    """Returns the kind of task, and how it was told where the user does not say."""
    if raw.kind or options.task != AUTO:
        return raw.kind or options.task, ()
    one = next(iter(head.outputs.values())) if isinstance(head, Heads) else head
    meaning = meaning_of(raw.train.y, one, None)
    # that sources of classes are of classes needs no note
    return meaning.kind, () if meaning.kind == "multiclass" else meaning.notes


def _numbered(train: Split, source: str, kind: str, head: Head | Heads | None) -> tuple[str, ...]:
    """Names the classes by their indices; k distinct labels must be 0 to k-1.

    Of classes by position a model may know more than there are labels of.
    """
    if kind == UNLABELLED or (isinstance(train.x, dict) and TASKS[kind].of_inputs):
        count = 0
    elif TASKS[kind].of_inputs:
        count = int(train.x.shape[-1])
    elif has_positions(kind) and isinstance(head, Head):
        count = head.outputs
    else:
        count = TASKS[kind].names_of(train.y)
    if count < 2 and (has_classes(kind) or has_positions(kind)):
        raise InputError(f"'{source}' must have at least two classes. Received: {count}.")
    return tuple(str(label) for label in range(count))

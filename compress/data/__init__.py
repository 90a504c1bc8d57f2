"""Data sets: one file a source, and `load_data`, which picks the source and splits."""

from __future__ import annotations

from collections.abc import Iterable

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.plugins import SOURCES
from compress.data import python
from compress.data._base import Dataset
from compress.data.answers import Answering
from compress.data.kinds import Asked
from compress.data.meaning import Head, Heads
from compress.data.parts import RawData, Split
from compress.data.preprocessing import Preprocessing
from compress.data.sampling import draw_stratified
from compress.data.settled import settled
from compress.data.sources import check_source
from compress.data.tasks import UNLABELLED
from compress.data.unlabelled import Unlabelled, drawn_inputs
from compress.plan import DataOptions

__all__ = [
    "DataOptions",
    "Dataset",
    "Preprocessing",
    "RawData",
    "SOURCES",
    "Split",
    "Unlabelled",
    "check_source",
    "draw_stratified",
    "drawn_inputs",
    "load_data",
]


@check_arguments()
def load_data(
    source: str | DataOptions = "digits",
    *,
    label: Iterable[str] = (),
    normalize: str = DataOptions.normalize,
    val_fraction: float = DataOptions.val_fraction,
    test_fraction: float = DataOptions.test_fraction,
    task: str = DataOptions.task,
    group_column: str = DataOptions.group_column,
    time_column: str = DataOptions.time_column,
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
            cifar100); a folder of IDX files, of class sub-folders with images or of TFRecord
            files; an .npz, .csv, .parquet or .tfrecord file; "tfds:NAME"; or
            "package.module:function" returning a `Dataset`, (x, y), a stream of such pairs or a
            Hugging Face data set, which are fed as they are. Options as one `DataOptions` record
            are taken whole.
        label: Columns of a table, or features of records, that are labels; default: the one
            called "label", "y" or "target".
        normalize: "standardize", "unit", "symmetric", "center", "caffe", "torch", "none" (see
            `fit_preprocessing`), or "auto" (= "standardize" here).
        val_fraction: Share of the training part, in (0, 1).
        test_fraction: Share of everything, in (0, 1).
        task: What labels mean: "multiclass" or "binary"; of other files than images also
            "multilabel", "regression", "segmentation", "tagging" or "masks". Or there are none, or
            they are not looked at: "reconstruction" (the input is what is wanted), "unlabelled"
            (what a model answers is). "auto": labels and head tell.
        group_column: Column of a table, or name of arrays of an .npz file, whose equal values
            stay in one part.
        time_column: Likewise, of times that parts are split by: the latest are tested on.
        seed: Seed of the splits, at least 0.
        preprocess: A stored scaling to use instead of learning one.
        answers: Of data without labels: what a model answers to inputs, which stands for them.
        head: Of the model that is fed and judged, where there is one: says how arrays of a
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
        else DataOptions(
            source,
            task=task,
            label=label,
            normalize=normalize,
            val_fraction=val_fraction,
            test_fraction=test_fraction,
            group_column=group_column,
            time_column=time_column,
        )
    )
    kind, asked = check_source(options), Asked(options, head)
    if options.task == UNLABELLED and answers is None:
        raise InputError(
            "Examples without labels must be for a model that exists: its answers stand for "
            f"labels. Received: task {options.task} and no model."
        )
    if kind is None:
        return python.load(asked, seed, answers)
    raw = kind.load(options.source, asked)
    return settled(raw.without_labels() if asked.bare else raw, asked, seed, preprocess, answers)

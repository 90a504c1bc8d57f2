"""Writes the files of a model and checks them against the Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from compress.core.atomic_files import write_bytes, write_json
from compress.core.errors import InputError, RunFailed
from compress.data import Dataset, Preprocessing, Unlabelled
from compress.model.copies import sized_model
from compress.model.heads import check_shapes, decides_at, head_of
from compress.model.inference import left_out
from compress.plan import ONNX_FORMATS, ExportOptions
from compress.task import Task, make_task

if TYPE_CHECKING:
    import keras

    from compress.exporting.traced import Traced
    from compress.measure.runtimes import Session

CHECKED_EXAMPLES = 200


@dataclass(frozen=True)
class Exported:
    """One file that was made of a model, checked on validation examples.

    Attributes:
        format: One of `compress.plan.FORMATS`.
        path: The file.
        max_difference: Largest absolute difference of an output from the Keras model's.
        agreement: Share of examples with the same decision, in [0, 1]; of a regression R^2.
        checked: Number of validation examples compared.
        about: The record of how to feed it.
    """

    format: str
    path: Path
    max_difference: float
    agreement: float
    checked: int
    about: Path


def write_files(
    model: keras.Model,
    data: Dataset | Unlabelled,
    paths: Mapping[str, Path],
    about: Path,
    options: ExportOptions,
    *,
    seed: int = 0,
    on_refusal: Callable[[str, str], None] | None = None,
) -> list[Exported]:
    """Writes a file for each format, and how to feed them.

    How to feed them stands in `about`, with notes: layers that work in training alone
    (random augmentation) are left out. Converters run in a process of their own; where one
    refuses a format or crashes, the other formats are written all the same.

    Args:
        model: For this data; open sizes become the data's.
        data: Training examples calibrate int8, validation examples check the files.
        paths: Of the file of each format.
        about: Of the record of how to feed them.
        options: Number of calibration examples, opset.
        seed: Seed of the choice of calibration examples.
        on_refusal: Called with (format, reason) where a format cannot be had; default: an error
            tells of all of them when the other files are written.

    Returns:
        One record a file.

    Raises:
        InputError: An input size is unknown.
        MissingDependency: ONNX's packages are not installed.
        RunFailed: A converter refused the model, crashed or hung, and there is no `on_refusal`.
    """
    from compress.exporting.traced import Traced
    from compress.measure.quality import run_all
    from compress.train.predict import Predictor

    check_shapes(model, data)
    model = sized_model(model, data.input_shape)
    picks = np.random.default_rng(seed).permutation(len(data.train))[: options.calibration]
    representative = data.preprocess(data.train.x[picks])
    probe = data.preprocess(data.val.x[:CHECKED_EXAMPLES])
    expected = Predictor(lambda x, training: model(x, training=training), Preprocessing())(probe)
    task, names = _task(model, data)
    threshold = decides_at(model, task)
    results, feeding, refused = [], {}, []
    with Traced(model) as traced:
        for name, path in paths.items():
            try:
                session = _file(traced, path, name, representative, options)
            except RunFailed as error:
                refused.append(str(error))
                if on_refusal is not None:
                    on_refusal(name, str(error))
                continue
            got = run_all(session, probe).reshape(expected.shape)
            results.append(
                Exported(
                    name,
                    path,
                    float(np.abs(got - expected).max()),
                    task.agreement(got, expected, threshold=threshold),
                    len(probe),
                    about,
                )
            )
            feeding[path.name] = {
                "input": getattr(session, "input_quantization", {"dtype": "float32"}),
                "output": getattr(session, "output_quantization", {"dtype": "float32"}),
            }
    write_json(
        about,
        {
            "input_shape": [1, *data.input_shape],
            "preprocess": data.preprocess.to_json(),
            "class_names": list(names),
            "files": feeding,
            "notes": [*left_out(model), *refused],
        },
    )
    if refused and on_refusal is None:
        raise RunFailed(" ".join(refused))
    return results


def _task(model: keras.Model, data: Dataset | Unlabelled) -> tuple[Task, Sequence[str]]:
    """Returns by what outputs are compared, and what they are called; without labels by the head.

    A head without an activation may give logits or numbers: its outputs are compared as numbers.
    """
    if isinstance(data, Dataset):
        return data.task, data.class_names
    head = head_of(model)
    width = 1 if head is None else head.outputs
    ends = "linear" if head is None else head.activation
    kind = data.kind or {"softmax": "multiclass", "sigmoid": "multilabel"}.get(ends, "regression")
    names = 2 if kind == "binary" else width
    return make_task(kind, names), [str(name) for name in range(names)]


def _file(
    traced: Traced,
    path: Path,
    name: str,
    representative: npt.NDArray[np.float32],
    options: ExportOptions,
) -> Session:
    """Writes one file and prepares it.

    Raises:
        RunFailed: The converter made none, or its runtime cannot run it (it is removed then).
    """
    from compress.exporting.litert import write_litert
    from compress.exporting.onnx import plain_file, quantize_onnx
    from compress.measure.runtimes import session_for

    if name in ONNX_FORMATS:
        plain = plain_file(traced, opset=options.opset)
        if name == "onnx":
            write_bytes(path, plain.read_bytes())
        else:
            quantize_onnx(plain, path, representative)
    else:
        write_litert(traced, path, name, representative=representative)
    try:
        return session_for(path)
    except InputError as error:
        path.unlink()
        raise RunFailed(f"The {name} file cannot be run: {error}") from None

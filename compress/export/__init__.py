"""Export: `export` writes a model's files and checks them against the Keras model."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from compress.data import Dataset, Preprocessing
from compress.files import write_json
from compress.heads import decides_at
from compress.io import sized_model
from compress.plan import ONNX_FORMATS, ExportOptions

if TYPE_CHECKING:
    import keras

__all__ = ["Exported", "export"]

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
    """

    format: str
    path: Path
    max_difference: float
    agreement: float
    checked: int


def export(
    model: keras.Model,
    data: Dataset,
    stem: str | Path,
    options: ExportOptions | None = None,
    *,
    seed: int = 0,
) -> list[Exported]:
    """Writes `<stem>.<format>.tflite` (or `.onnx`) for each format, and how to feed them.

    How to feed them stands in `<stem>.json`.

    Args:
        model: For this data; open sizes become the data's.
        data: Training examples calibrate int8, validation examples check the files.
        stem: Path without suffix.
        options: Formats and number of calibration examples.
        seed: Seed of the choice of calibration examples.

    Returns:
        One record a file.

    Raises:
        MissingDependency: ONNX's packages are not installed.
        RunFailed: A converter refused the model.
    """
    from compress.measure.quality import run_all
    from compress.measure.runtimes import session_for
    from compress.predict import Predictor

    options = options or ExportOptions()
    model = sized_model(model, data.input_shape)
    picks = np.random.default_rng(seed).permutation(len(data.train))[: options.calibration]
    representative = data.preprocess(data.train.x[picks])
    probe = data.preprocess(data.val.x[:CHECKED_EXAMPLES])
    expected = Predictor(lambda x, training: model(x, training=training), Preprocessing())(probe)
    threshold = decides_at(model, data.task)
    results, feeding = [], {}
    for name in options.formats:
        path = _file(model, stem, name, representative, options)
        session = session_for(path)
        got = run_all(session, probe)
        results.append(
            Exported(
                name,
                path,
                float(np.abs(got - expected).max()),
                data.task.agreement(got, expected, threshold=threshold),
                len(probe),
            )
        )
        feeding[path.name] = {
            "input": getattr(session, "input_quantization", {"dtype": "float32"}),
            "output": getattr(session, "output_quantization", {"dtype": "float32"}),
        }
    write_json(
        Path(f"{stem}.json"),
        {
            "input_shape": [1, *data.input_shape],
            "preprocess": data.preprocess.to_json(),
            "class_names": list(data.class_names),
            "files": feeding,
        },
    )
    return results


def _file(
    model: keras.Model,
    stem: str | Path,
    name: str,
    representative: npt.NDArray[np.float32],
    options: ExportOptions,
) -> Path:
    """Writes one file."""
    from compress.export.litert import export_litert
    from compress.export.onnx import export_onnx, quantize_onnx

    if name not in ONNX_FORMATS:
        path = Path(f"{stem}.{name}.tflite")
        export_litert(model, path, name, representative=representative)
        return path
    path = Path(f"{stem}.{name}.onnx")
    if name == "onnx":
        export_onnx(model, path, opset=options.opset)
        return path
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "float32.onnx"
        export_onnx(model, plain, opset=options.opset)
        quantize_onnx(plain, path, representative)
    return path

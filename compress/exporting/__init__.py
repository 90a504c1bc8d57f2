"""Export: `export` writes a model's files and checks them against the Keras model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compress.core.arguments import check_arguments
from compress.core.errors import InputError
from compress.core.summary import Readable, Summary
from compress.exporting.files import Exported, write_files
from compress.exporting.litert import CALIBRATED as CONVERTED
from compress.measure import formats as figures
from compress.model.inference import rounds_itself
from compress.model.io import as_model
from compress.plan import ExportOptions
from compress.plan.fields import require_choice
from compress.plan.keywords import EXPORT
from compress.plan.output import FORMATS, MIXED, TRAINED

if TYPE_CHECKING:
    from typing import Unpack

    import keras

    from compress.data import Unlabelled
    from compress.plan.settings import ExportSettings

__all__ = ["Exported", "ExportedFiles", "export"]

RANDOM_EXAMPLES = 32
"""Inputs that check a file where no examples are given."""
CALIBRATED = (*CONVERTED, MIXED, "onnx_int8")
"""Formats whose ranges are taken from examples."""


class ExportedFiles(Readable, tuple[Exported, ...]):
    """What `export` wrote, one record a file."""

    __slots__ = ()

    def screen(self) -> Summary:
        """Returns what is worth a screen: files, sizes, and how far they agree with the model."""
        if not self:
            return Summary("no file was made")
        return Summary(
            f"{len(self)} file{'s' if len(self) > 1 else ''}, checked on "
            f"{self[0].checked} examples against the Keras model",
            (),
            ("File", "format", "size", "agreement", "largest difference"),
            tuple(
                (
                    str(item.path),
                    item.format,
                    figures.size(item.path.stat().st_size) if item.path.is_file() else "gone",
                    figures.share(item.agreement),
                    f"{item.max_difference:.3g}",
                )
                for item in self
            ),
            (
                f"how to feed them: {self[0].about}",
                *(note for item in self for note in item.notes),
            ),
            "files",
            tuple(item.warning for item in self if item.warning),
        )


@check_arguments(options=EXPORT)
def export(
    model: keras.Model | str | Path,
    path: str | Path,
    *,
    format: str | None = None,
    data: Any = None,
    options: ExportOptions | None = None,
    seed: int = 0,
    on_refusal: Callable[[str, str], None] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
    **settings: Unpack[ExportSettings],
) -> ExportedFiles:
    """Writes a model as LiteRT or ONNX files and checks each of them against the Keras model.

    How to feed a file (shapes, scaling, quantization of inputs and outputs) stands in a .json
    beside it, with notes: layers that work in training alone (random augmentation) are left out.
    Converters run in a process of their own; where one refuses a format or crashes, the other
    formats are written all the same.

    Args:
        model: A Keras model or the path of its file; open sizes become the data's.
        path: Of the file, ending in .tflite or .onnx, for one format; without such a suffix a
            stem: `<path>.<format>.tflite` is written for each format, and `<path>.json`.
        format: "float32", "float16", "dynamic" (int8 weights), "int8", "int8-qat" (of what
            `quantize` returns), "int16x8" (int8 weights, 16 bits for what passes), "int8-mixed"
            (a precision a layer), "int4-weights", "sparse" (float32 without the zeros), "onnx",
            "onnx_int8" or "onnx_int8-qat"; default: `formats`, or what the suffix says.
        data: Examples that calibrate int8 and check the files: x alone is enough; of a data set
            training examples calibrate and validation examples, of every class, check. None:
            files that need no calibration are checked on random inputs.
        options: The plan's section; keywords go over it.
        seed: Of the choice of calibration examples, and of those that check.
        on_refusal: Called with (format, reason) where a format cannot be had; default: an error
            tells of all of them when the other files are written.
        on_progress: Called with (text, share that is done) while precisions are chosen.
        **settings: `formats`, `calibration`, `opset`, and how int8-mixed chooses (`mixed_levels`,
            `mixed_loss`, `mixed_size`, `mixed_latency`): see `ExportOptions`.

    Shapes:
        x: (n, ...), as the model takes them.

    Returns:
        One record a file: path, format, agreement with the Keras model in [0, 1], largest
        difference of an output. What is printed of them begins with a warning where a file agrees
        too little with the model (`warning` of the record).

    Raises:
        InputError: An input size is unknown, a format does not go with the suffix, or int8
            without data.
        MissingDependency: ONNX's packages are not installed.
        RunFailed: A converter refused the model, crashed or hung, and there is no `on_refusal`.

    Example:
        >>> files = export(model, folder / "m.tflite", format="int8", data=x)
        >>> files[0].path.name, files[0].agreement > 0.9
        ('m.tflite', True)

    Reference:
        Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient
        Integer-Arithmetic-Only Inference" (int8).
    """
    from compress.train.given import as_examples

    chosen = EXPORT.section("export", options, ExportOptions, settings)
    if format is not None and "formats" in settings and chosen.formats != (format,):
        raise InputError(
            f"format and formats must agree. Received: {format} and "
            f"{', '.join(chosen.formats)}. Give one of them."
        )
    given = options is not None or "formats" in settings
    wanted = (format,) if format is not None else chosen.formats if given else None
    paths, about = _paths(Path(path), wanted)
    chosen = replace(chosen, formats=tuple(paths))
    source = Path(model) if isinstance(model, (str, Path)) else None
    if data is None:
        needing = [name for name in paths if name in CALIBRATED]
        if needing:
            raise InputError(
                f"{needing[0]} must have examples to calibrate on. Received: no data. Give data=, "
                "x alone is enough."
            )
    loaded = as_model(model)
    learnt = next((name for name in paths if name in TRAINED), None)
    if learnt and not rounds_itself(loaded):
        raise InputError(
            f"{learnt} must be of a model that learnt to compute in whole numbers. Received: the "
            f"plain model '{loaded.name}'. Call quantize(model, data).export(path), or take int8."
        )
    examples = (
        _random(loaded, seed)
        if data is None
        else as_examples(data, model=loaded, path=source, seed=seed)
    )
    made = write_files(
        loaded, examples, paths, about, chosen,
        seed=seed, on_refusal=on_refusal, on_progress=on_progress,
    )  # fmt: skip
    return ExportedFiles(made)


def _paths(path: Path, wanted: tuple[str, ...] | None) -> tuple[dict[str, Path], Path]:
    """Returns the file of each format, and that of the record beside.

    Raises:
        InputError: A format is unknown, or does not go with the path's suffix.
    """
    for name in wanted or ():
        require_choice("export format", name, FORMATS)
    if path.suffix not in (".tflite", ".onnx"):
        wanted = wanted or ExportOptions().formats
        files = {name: file_of(path, name) for name in wanted}
        return files, Path(f"{path}.json")
    wanted = wanted or ("onnx" if path.suffix == ".onnx" else "float32",)
    if len(wanted) > 1:
        raise InputError(
            f"path must have no suffix for several formats: each has a file of its own. Received: "
            f"'{path}' for {', '.join(wanted)}."
        )
    if _suffix(wanted[0]) != path.suffix:
        raise InputError(
            f"A file of format {wanted[0]} must end in {_suffix(wanted[0])}. Received: '{path}'."
        )
    return {wanted[0]: path}, path.with_suffix(".json")


def file_of(stem: Path, format: str) -> Path:
    """Returns where the file of a format lies whose path begins with a stem."""
    return Path(f"{stem}.{format}{_suffix(format)}")


def _suffix(name: str) -> str:
    return ".onnx" if name.startswith("onnx") else ".tflite"


def _random(model: keras.Model, seed: int) -> Unlabelled:
    """Returns random inputs: enough to see that a file computes what the model does.

    Raises:
        InputError: A size is open.
    """
    import numpy as np

    from compress.data import Unlabelled
    from compress.model.copies import read_by_embeddings
    from compress.model.ports import BYTES, input_names, is_index

    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs or []]
    if not shapes or any(None in shape for shape in shapes):
        raise InputError(
            f"Model '{model.name}' must have inputs of known size to be checked without data. "
            f"Received: {shapes}. Give data=, x alone is enough."
        )
    random = np.random.default_rng(seed)
    indices = read_by_embeddings(model)

    def one(place: int, tensor: Any) -> Any:
        size = (RANDOM_EXAMPLES, *shapes[place])
        if str(tensor.dtype) in BYTES and place not in indices:
            low, high = BYTES[str(tensor.dtype)]
            return random.integers(low, high, size=size, endpoint=True)
        # whatever the indices are of has two entries at least
        whole = place in indices or is_index(tensor)
        return random.integers(2, size=size) if whole else random.normal(size=size)

    drawn = [one(place, tensor).astype(np.float32) for place, tensor in enumerate(model.inputs)]
    if len(drawn) == 1:
        return Unlabelled.of("random inputs", drawn[0])
    return Unlabelled.of("random inputs", dict(zip(input_names(model), drawn, strict=True)))

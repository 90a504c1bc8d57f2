"""`export`: the files of a model, and their agreement with the Keras model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import numpy.typing as npt

from compress.core.arguments import check_arguments
from compress.core.arrays import arrays, count, taken
from compress.core.atomic_files import read_json, write_bytes, write_json
from compress.core.errors import InputError, RunFailed
from compress.core.memory_budget import current_budget
from compress.core.summary import Readable, Summary
from compress.data import Dataset, Unlabelled, draw_stratified
from compress.exporting.answering import (
    answered_by_file,
    confirm_as_good,
    find_task,
    predict_answers,
    runnable,
)
from compress.exporting.conversions import ConversionFailed
from compress.exporting.litert import CALIBRATED as CONVERTED
from compress.exporting.litert import write_int8, write_litert
from compress.exporting.onnx import plain_file, quantize_onnx, write_onnx
from compress.exporting.traced import Traced
from compress.measure import formats as figures
from compress.measure.quality import describe_low_agreement
from compress.model.copies import read_by_embeddings, sized_model
from compress.model.heads import check_shapes, decides_at, sizes_for
from compress.model.inference import left_out, reduce_range, rounds_itself
from compress.model.io import as_model
from compress.model.ports import BYTES, input_names, is_index, listed, output_names
from compress.plan import ExportOptions
from compress.plan.fields import require_choice
from compress.plan.keywords import EXPORT
from compress.plan.output import FORMATS, INT4, MIXED, ONNX_QAT, TRAINED
from compress.train.given import as_examples

if TYPE_CHECKING:
    import keras

    from compress.exporting.mixed.search import AsGood
    from compress.exporting.mixed.writing import LayerPrecision
    from compress.measure.runtimes import Session
    from compress.plan.settings import ExportSettings

RANDOM_EXAMPLES = 32
"""Inputs that check a file where no examples are given."""
CHECKED_EXAMPLES = 200
"""Validation examples on which a file is compared with its model, every class among them."""
CALIBRATED = (*CONVERTED, MIXED, "onnx_int8")
"""Formats whose ranges are taken from examples."""
REDUCED = (
    f"the weights of {ONNX_QAT} files have 7 bits, and these were quantized with 8 before: "
    f'quantize(..., format="{ONNX_QAT}") trains them for 7'
)


@dataclass(frozen=True)
class Exported:
    """File that was made of a model and checked on validation examples.

    Attributes:
        format: One of `compress.plan.FORMATS`.
        path: The file.
        max_difference: Largest absolute difference of an output from the Keras model's.
        agreement: Share of examples with the same decision, in [0, 1]; of a regression R^2.
        checked: Number of validation examples compared.
        about: The record of how to feed it.
        layers: The precision of each layer, of int8-mixed.
        notes: What is worth a note.
        task: Kind of the task whose decisions were compared.
    """

    format: str
    path: Path
    max_difference: float
    agreement: float
    checked: int
    about: Path
    layers: tuple[LayerPrecision, ...] = ()
    notes: tuple[str, ...] = ()
    task: str = ""

    @property
    def warning(self) -> str:
        """Warning that the file agrees too little with its model to ship unasked; else ""."""
        return describe_low_agreement(self.path.name, self.task, self.agreement, self.checked)


class ExportedFiles(Readable, tuple[Exported, ...]):
    """Files that `export` wrote, one record each."""

    __slots__ = ()

    def screen(self) -> Summary:
        """Return a summary for the console: files, sizes, and agreement with the model."""
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
    """Write a model as LiteRT or ONNX files and check each of them against the Keras model.

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
    return _write_files(loaded, examples, paths, about, chosen, seed, on_refusal, on_progress)


def file_of(stem: Path, format: str) -> Path:
    """Return the path of a format's file, from the stem that all formats share."""
    return Path(f"{stem}.{format}{_suffix(format)}")


def _write_files(
    model: keras.Model,
    data: Dataset | Unlabelled,
    paths: Mapping[str, Path],
    about: Path,
    options: ExportOptions,
    seed: int,
    on_refusal: Callable[[str, str], None] | None,
    on_progress: Callable[[str, float], None] | None,
) -> ExportedFiles:
    """Write the file of each format, and the record `about` of how to feed them; see `export`."""
    check_shapes(model, data)
    model = sized_model(model, sizes_for(model, data.input_shapes))
    picks = np.random.default_rng(seed).permutation(len(data.train))[: options.calibration]
    representative = listed(model, data.preprocess(taken(data.train.x, picks)))
    probed = draw_stratified(data.val, CHECKED_EXAMPLES, seed)
    probe = data.preprocess(taken(data.val.x, probed))
    expected = predict_answers(model, probe)
    task, names = find_task(model, data)
    threshold = decides_at(model, task)
    as_good = partial(confirm_as_good, model=model, data=data, task=task, used=picks, seed=seed)
    results, feeding, refused = [], {}, []
    current_budget().give_back()
    with Traced(model) as traced:
        for name, path in paths.items():
            try:
                layers, notes = _write(
                    traced, path, name, representative, options, as_good, on_progress
                )
                session = runnable(path, representative)
            except (RunFailed, ConversionFailed) as error:
                reason = str(error)
                if isinstance(error, ConversionFailed):
                    reason = f"The {name} file cannot be run: {error.reason}"
                refused.append(reason)
                if on_refusal is not None:
                    on_refusal(name, reason)
                continue
            wanted = expected
            if name == ONNX_QAT:
                with reduce_range(model) as changed:
                    if changed:
                        wanted, notes = predict_answers(model, probe), (*notes, REDUCED)
            got = answered_by_file(model, session, probe)
            pairs = zip(arrays(got), arrays(wanted), strict=True)
            results.append(
                Exported(
                    name,
                    path,
                    max(float(np.abs(one - other).max()) for one, other in pairs),
                    task.agreement(got, wanted, threshold=threshold),
                    count(probe),
                    about,
                    layers,
                    notes,
                    task.name,
                )
            )
            feeding[path.name] = _feeding(session)
            if notes:
                feeding[path.name]["notes"] = list(notes)
            if layers:
                feeding[path.name]["precisions"] = [asdict(layer) for layer in layers]
    shapes = data.input_shapes
    names_of_ports = {"inputs": input_names(model), "outputs": output_names(model)}
    fed = {
        "input_shape": [1, *data.input_shape]
        if len(shapes) == 1
        else {name: [1, *shape] for name, shape in shapes.items()},
        **(names_of_ports if max(map(len, names_of_ports.values())) > 1 else {}),
        "preprocess": data.preprocess.to_json(),
        "class_names": list(names),
    }
    files = {**_made_before(about, fed), **feeding}
    write_json(about, {**fed, "files": files, "notes": [*left_out(model), *refused]})
    if refused and on_refusal is None:
        raise RunFailed(" ".join(refused))
    return ExportedFiles(results)


def _write(
    traced: Traced,
    path: Path,
    name: str,
    representative: list[npt.NDArray[np.float32]],
    options: ExportOptions,
    as_good: AsGood,
    on_progress: Callable[[str, float], None] | None,
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Write one file.

    Returns:
        The precision of each layer where layers differ, and what is worth a note.

    Raises:
        RunFailed: The converter made none.
    """
    from compress.exporting.mixed.writing import write_int4, write_mixed

    def told(share: float) -> None:
        if on_progress is not None:
            on_progress(f"choosing precisions of {path.name}", share)

    notes: tuple[str, ...] = ()
    if name == MIXED:
        return write_mixed(traced, path, representative, options, told, as_good)
    if name == INT4:
        notes = write_int4(traced, path, representative)
    elif name == "int8":
        notes = write_int8(traced, path, representative)
    elif name == ONNX_QAT:
        write_onnx(traced, path, opset=options.opset, whole_numbers=True)
    elif name == "onnx":
        write_bytes(path, plain_file(traced, opset=options.opset).read_bytes())
    elif name == "onnx_int8":
        quantize_onnx(plain_file(traced, opset=options.opset), path, representative)
    else:
        write_litert(traced, path, name, representative=representative)
    return (), notes


def _made_before(about: Path, fed: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of a record for files that still exist and are fed alike.

    Files of one model may be made one after the other: each call writes the record of all.
    """
    try:
        stored = read_json(about)
    except InputError:  # there is none, or it is something else
        return {}
    # through JSON: what is compared was stored as such
    if any(stored.get(key) != value for key, value in json.loads(json.dumps(fed)).items()):
        return {}
    return {
        name: how
        for name, how in stored.get("files", {}).items()
        if (about.parent / name).is_file()
    }


def _feeding(session: Session) -> dict[str, Any]:
    """Return the types of a file's inputs and outputs, and the scales of integer ones."""
    inputs, outputs = session.inputs, session.outputs
    if len(inputs) == len(outputs) == 1:
        return {"input": inputs[0].to_json(), "output": outputs[0].to_json()}
    return {
        "inputs": {info.name: info.to_json() for info in inputs},
        "outputs": {info.name: info.to_json() for info in outputs},
    }


def _paths(path: Path, wanted: tuple[str, ...] | None) -> tuple[dict[str, Path], Path]:
    """Return the file of each format, and the path of the record beside them.

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


def _suffix(name: str) -> str:
    return ".onnx" if name.startswith("onnx") else ".tflite"


def _random(model: keras.Model, seed: int) -> Unlabelled:
    """Return random inputs, enough to compare a file with its model.

    Raises:
        InputError: A size is open.
    """
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs or []]
    if not shapes or any(None in shape for shape in shapes):
        raise InputError(
            f"Model '{model.name}' must have inputs of known size to be checked without data. "
            f"Received: {shapes}. Give data=, x alone is enough."
        )
    random = np.random.default_rng(seed)
    indices = read_by_embeddings(model)
    drawn: dict[str, Any] = {}
    for place, (name, tensor) in enumerate(zip(input_names(model), model.inputs, strict=True)):
        size, kind = (RANDOM_EXAMPLES, *shapes[place]), str(tensor.dtype)
        if place in indices or (kind not in BYTES and is_index(tensor)):
            # whatever the indices are of has two entries at least
            drawn[name] = random.integers(2, size=size)
        elif kind in BYTES:
            drawn[name] = random.integers(*BYTES[kind], size=size, endpoint=True)
        else:
            drawn[name] = random.normal(size=size)
        drawn[name] = drawn[name].astype(np.float32)
    x = drawn if len(drawn) > 1 else next(iter(drawn.values()))
    return Unlabelled.of("random inputs", x)

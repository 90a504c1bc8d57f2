"""Export of a model to files that are checked against the Keras model."""

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
from compress.core.arrays import count_examples, list_arrays, take_examples
from compress.core.atomic_files import read_json, write_bytes, write_json
from compress.core.errors import InputError, RunFailed
from compress.core.memory_budget import get_current_budget
from compress.core.summary import DisplayableResult, Summary
from compress.data import Dataset, UnlabelledDataset, sample_stratified
from compress.exporting.conversions import ConversionFailed
from compress.exporting.file_checks import (
    check_equivalence,
    describe_ports,
    draw_random_inputs,
    find_task,
    open_session,
    predict_outputs,
    predict_with_file,
)
from compress.exporting.litert import CALIBRATED_FORMATS, write_int8, write_litert
from compress.exporting.onnx import check_opset, ensure_float32_file, quantize_onnx, write_onnx
from compress.exporting.tracing import TracedModel
from compress.measure import formatting
from compress.measure.file_agreement import describe_low_agreement
from compress.model.copies import fix_input_shapes
from compress.model.heads import check_shapes, find_decision_threshold, list_input_shapes
from compress.model.io import as_model
from compress.model.layer_patches import describe_excluded_layers, is_fake_quantized, reduce_range
from compress.model.ports import flatten_inputs, list_input_names, list_output_names
from compress.plan import ExportOptions
from compress.plan.fields import require_choice
from compress.plan.keywords import EXPORT
from compress.plan.output import FORMATS, INT4, MIXED, ONNX_QAT, QAT_FORMATS
from compress.train.dataset_loading import as_examples

if TYPE_CHECKING:
    import keras

    from compress.exporting.mixed.search import EquivalenceCheck, MixedLimits
    from compress.exporting.mixed.writing import LayerPrecision
    from compress.plan.settings import ExportSettings

CHECKED_EXAMPLES = 200
"""Number of validation examples that check a file; every class is among them."""
CALIBRATED = (*CALIBRATED_FORMATS, MIXED, "onnx_int8")
"""Formats whose ranges are calibrated on examples."""
REDUCED_NOTE = (
    f"the weights of {ONNX_QAT} files have 7 bits, and these were quantized with 8 before: "
    f'quantize(..., format="{ONNX_QAT}") trains them for 7'
)


@dataclass(frozen=True)
class Exported:
    """File of a model, checked on validation examples or, without data, on random inputs.

    Attributes:
        format: One of `compress.plan.FORMATS`.
        path: Path of the file.
        max_difference: Largest absolute difference between an output and the Keras model's.
        agreement: Share of examples with the same decision, in [0, 1]; R^2 for a regression.
        checked: Number of examples that were compared.
        about: Path of the JSON record with shapes, scaling and quantization.
        layers: Precision of each layer; int8-mixed only.
        notes: Remarks on the conversion.
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
        """Warning that the file agrees too little with its model to be used; "" if it agrees."""
        return describe_low_agreement(self.path.name, self.task, self.agreement, self.checked)


class ExportedFiles(DisplayableResult, tuple[Exported, ...]):
    """Files written by `export`, one record per file."""

    __slots__ = ()

    def build_summary(self) -> Summary:
        """Return a console summary: files, sizes, and agreement with the model."""
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
                    formatting.format_size(item.path.stat().st_size)
                    if item.path.is_file()
                    else "gone",
                    formatting.format_share(item.agreement),
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
    """Write a model as LiteRT or ONNX files and check each file against the Keras model.

    A .json file beside them records how to feed each file (shapes, scaling, quantization of inputs
    and outputs) and notes. Layers that are active only in training (random augmentation) are left
    out. Converters run in a separate process: if one format is refused or crashes the converter,
    the other formats are still written.

    Args:
        model: A Keras model or the path of its file; open sizes are taken from the data.
        path: Path of a single file, ending in .tflite or .onnx. Without such a suffix it is a
            stem: `<path>.<format>.tflite` is written for each format, and `<path>.json`.
        format: "float32", "float16", "dynamic" (int8 weights), "int8", "int8-qat" (from a model
            that `quantize` returned), "int16x8" (int8 weights, 16-bit activations), "int8-mixed"
            (one precision per layer), "int4-weights", "sparse" (float32, zeros not stored), "onnx",
            "onnx_int8" or "onnx_int8-qat"; default: `formats`, or the format of the suffix.
        data: Examples that calibrate int8 and check the files; x alone is enough. In a data set,
            training examples calibrate, and validation examples of every class check. None: files
            that need no calibration are checked on random inputs.
        options: The `export` section of a plan; keywords override it.
        seed: Seed of the sampling of calibration examples and of check examples.
        on_refusal: Callback invoked with (format, reason) if a format cannot be written; default:
            an error lists all refused formats after the other files are written.
        on_progress: Callback invoked with (text, completed share in [0, 1]) before each file and
            while int8-mixed searches for precisions.
        **settings: `formats`, `calibration` and `opset`: see `ExportOptions`.

    Shapes:
        x: (n, ...), as the model takes them.

    Returns:
        One record per file: path, format, agreement with the Keras model in [0, 1], largest
        difference of an output. Their printed form begins with a warning if a file agrees too
        little with the model (`warning` of the record).

    Raises:
        InputError: An input size is unknown, a format does not match the suffix or the
            operator set, or int8 is requested without data.
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
    chosen = EXPORT.build_section("export", options, ExportOptions, settings)
    if format is not None and "formats" in settings and chosen.formats != (format,):
        raise InputError(
            f"format and formats must agree. Received: {format} and "
            f"{', '.join(chosen.formats)}. Give one of them."
        )
    has_formats = options is not None or "formats" in settings
    requested_formats = (format,) if format is not None else chosen.formats if has_formats else None
    paths, about = _resolve_paths(Path(path), requested_formats)
    chosen = replace(chosen, formats=tuple(paths))
    check_opset(chosen.opset, paths)
    source = Path(model) if isinstance(model, (str, Path)) else None
    calibrated_format = next((name for name in paths if name in CALIBRATED), None)
    if data is None and calibrated_format:
        raise InputError(
            f"{calibrated_format} must have examples to calibrate on. Received: no data. "
            "Give data=, x alone is enough."
        )
    loaded = as_model(model)
    trained_format = next((name for name in paths if name in QAT_FORMATS), None)
    if trained_format and not is_fake_quantized(loaded):
        raise InputError(
            f"{trained_format} must be of a model that learnt to compute in integers. Received: "
            f"the plain model '{loaded.name}'. Call quantize(model, data).export(path), or take "
            "int8."
        )
    examples = (
        draw_random_inputs(loaded, seed)
        if data is None
        else as_examples(data, model=loaded, path=source, seed=seed)
    )
    return write_files(
        loaded, examples, paths, about, chosen,
        seed=seed, on_refusal=on_refusal, on_progress=on_progress,
    )  # fmt: skip


def get_file_path(stem: Path, format: str) -> Path:
    """Return the path of a format's file from the common stem of all formats.

    Args:
        stem: Path without suffixes.
        format: One of `compress.plan.FORMATS`.
    """
    return Path(f"{stem}.{format}{_get_suffix(format)}")


def write_files(
    model: keras.Model,
    data: Dataset | UnlabelledDataset,
    paths: Mapping[str, Path],
    about: Path,
    options: ExportOptions,
    *,
    limits: MixedLimits | None = None,
    seed: int = 0,
    on_refusal: Callable[[str, str], None] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> ExportedFiles:
    """Write the file of each format and a JSON record.

    For the other arguments, the result and errors see `export`.

    Args:
        model: The model.
        data: Data set.
        paths: Path of each file, by format.
        about: Path of the record.
        options: Calibration examples, operator set and allowed loss.
        limits: Limits of the int8-mixed file; default: none.
        seed, on_refusal, on_progress: See `export`.
    """
    from compress.exporting.mixed.search import MixedLimits

    check_shapes(model, data)
    model = fix_input_shapes(model, list_input_shapes(model, data.input_shapes))
    calibration_indices = np.random.default_rng(seed).permutation(len(data.train))[
        : options.calibration
    ]
    representative = flatten_inputs(
        model, data.preprocess(take_examples(data.train.x, calibration_indices))
    )
    probe_indices = sample_stratified(data.val, CHECKED_EXAMPLES, seed)
    probe = data.preprocess(take_examples(data.val.x, probe_indices))
    expected = predict_outputs(model, probe)
    task, names = find_task(model, data)
    threshold = find_decision_threshold(model, task)
    equivalence_check = partial(
        check_equivalence,
        model=model,
        data=data,
        task=task,
        calibration_indices=calibration_indices,
        seed=seed,
    )
    results, port_records, refusals = [], {}, []
    get_current_budget().release_freed_memory()

    def report_progress(part: int) -> None:
        if on_progress is not None:
            on_progress(f"exporting {path.name}", part / (len(paths) + 1))

    # tracing the model takes about as long as a conversion: it is the first part
    with TracedModel(model, lambda: report_progress(index + 1)) as traced:
        for index, (name, path) in enumerate(paths.items()):
            report_progress(index + 1 if index else 0)
            try:
                layers, notes = _write(
                    traced, path, name, representative, options, limits or MixedLimits(),
                    equivalence_check, on_progress,
                )  # fmt: skip
                session = open_session(path, representative)
            except (RunFailed, ConversionFailed) as error:
                reason = (
                    f"The {name} file cannot be run: {error.reason}"
                    if isinstance(error, ConversionFailed)
                    else str(error)
                )
                refusals.append(reason)
                if on_refusal is not None:
                    on_refusal(name, reason)
                continue
            reference = expected
            if name == ONNX_QAT:
                with reduce_range(model) as is_reduced:
                    if is_reduced:
                        reference, notes = predict_outputs(model, probe), (*notes, REDUCED_NOTE)
            outputs = predict_with_file(model, session, probe)
            pairs = zip(list_arrays(outputs), list_arrays(reference), strict=True)
            results.append(
                Exported(
                    name,
                    path,
                    max(float(np.abs(output - target).max()) for output, target in pairs),
                    task.agreement(outputs, reference, threshold=threshold),
                    count_examples(probe),
                    about,
                    layers,
                    notes,
                    task.name,
                )
            )
            port_records[path.name] = describe_ports(session)
            if notes:
                port_records[path.name]["notes"] = list(notes)
            if layers:
                port_records[path.name]["precisions"] = [asdict(layer) for layer in layers]
    shapes = data.input_shapes
    port_names = {"inputs": list_input_names(model), "outputs": list_output_names(model)}
    feed_record = {
        "input_shape": [1, *data.input_shape]
        if len(shapes) == 1
        else {name: [1, *shape] for name, shape in shapes.items()},
        **(port_names if max(map(len, port_names.values())) > 1 else {}),
        "preprocess": data.preprocess.to_json(),
        "class_names": list(names),
    }
    files = {**_read_existing_entries(about, feed_record), **port_records}
    model_notes = (*describe_excluded_layers(model), *refusals)
    write_json(about, {**feed_record, "files": files, "notes": model_notes})
    if refusals and on_refusal is None:
        raise RunFailed(" ".join(refusals))
    return ExportedFiles(results)


def _write(
    traced: TracedModel,
    path: Path,
    name: str,
    representative: list[npt.NDArray[np.float32]],
    options: ExportOptions,
    limits: MixedLimits,
    equivalence_check: EquivalenceCheck,
    on_progress: Callable[[str, float], None] | None,
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Write the file of one format.

    Returns:
        Precision of each layer (int8-mixed only), and notes.

    Raises:
        RunFailed: The converter wrote no file.
    """
    from compress.exporting.mixed.writing import write_int4, write_mixed

    def report_progress(share: float) -> None:
        if on_progress is not None:
            on_progress(f"choosing precisions of {path.name}", share)

    notes: tuple[str, ...] = ()
    if name == MIXED:
        return write_mixed(traced, path, representative, limits, report_progress, equivalence_check)
    if name == INT4:
        notes = write_int4(traced, path, representative)
    elif name == "int8":
        notes = write_int8(traced, path, representative)
    elif name == ONNX_QAT:
        write_onnx(traced, path, opset=options.opset, whole_numbers=True)
    elif name == "onnx":
        write_bytes(path, ensure_float32_file(traced, opset=options.opset).read_bytes())
    elif name == "onnx_int8":
        quantize_onnx(ensure_float32_file(traced, opset=options.opset), path, representative)
    else:
        write_litert(traced, path, name, representative=representative)
    return (), notes


def _read_existing_entries(about: Path, feed_record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's entries for files that still exist and have the same inputs and outputs.

    Files of one model may be written by several calls; each call updates the common record.
    """
    try:
        stored = read_json(about)
    except InputError:  # no file, or not a record
        return {}
    # convert through JSON, as the stored record was
    if any(stored.get(key) != value for key, value in json.loads(json.dumps(feed_record)).items()):
        return {}
    return {
        name: entry
        for name, entry in stored.get("files", {}).items()
        if (about.parent / name).is_file()
    }


def _resolve_paths(path: Path, formats: tuple[str, ...] | None) -> tuple[dict[str, Path], Path]:
    """Return the path of each format's file, and the path of the record beside them.

    Raises:
        InputError: A format is unknown or does not match the path's suffix.
    """
    for name in formats or ():
        require_choice("export format", name, FORMATS)
    if path.suffix not in (".tflite", ".onnx"):
        formats = formats or ExportOptions().formats
        files = {name: get_file_path(path, name) for name in formats}
        return files, Path(f"{path}.json")
    formats = formats or ("onnx" if path.suffix == ".onnx" else "float32",)
    if len(formats) > 1:
        raise InputError(
            f"path must have no suffix for several formats: each has a file of its own. Received: "
            f"'{path}' for {', '.join(formats)}."
        )
    if _get_suffix(formats[0]) != path.suffix:
        raise InputError(
            f"A file of format {formats[0]} must end in {_get_suffix(formats[0])}. Received: "
            f"'{path}'."
        )
    return {formats[0]: path}, path.with_suffix(".json")


def _get_suffix(name: str) -> str:
    return ".onnx" if name.startswith("onnx") else ".tflite"

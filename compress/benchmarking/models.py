"""Models of a benchmark: Keras models converted for each runtime, and files as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.core.lazy_modules import keras
from compress.core.memory_budget import require_memory
from compress.core.registry import load_reference
from compress.exporting.batch_conversion import draw_random_examples
from compress.exporting.tflite_editing import resize_inputs
from compress.exporting.tracing import Convertible, TracedModel, TracedSavedModel
from compress.measure import Analysis, count_macs
from compress.measure.graph_files import read_graph_file
from compress.measure.runtimes import list_runtimes, list_suffixes
from compress.model.copies import fix_input_shapes
from compress.model.file_formats import (
    KERAS_SUFFIXES,
    SavedModel,
    check_graph_file,
    detect_foreign_model,
)
from compress.model.io import as_model, load_model, save_model
from compress.model.keras_internals import is_graph
from compress.model.layer_patches import describe_excluded_layers
from compress.model.ports import (
    InputShape,
    fill_input_shapes,
    list_input_names,
    require_fixed_sizes,
)
from compress.model.recording import record_program
from compress.plan.bench import BenchPlan, unwrap_input_shape
from compress.plugins import RUNTIMES

ModelOrFile: TypeAlias = "keras.Model | str | Path"
CALIBRATION_EXAMPLES = 32
FILE = "file"
"""The format of a file that is benchmarked as it is."""


@dataclass(frozen=True)
class BenchModel:
    """A model or file that is benchmarked.

    Attributes:
        name: File stem, made unique.
        path: Path as passed; for an in-memory Keras model the temporary file that it was saved to
            (in a result only the file's name).
        macs, params, nonzero: Counted costs; None for files other than Keras, LiteRT and
            SavedModel.
        unsupported: Calls that `macs` does not include.
        notes: Parts of the model that are not timed, or why costs are missing.
    """

    name: str
    path: Path
    macs: int | None = None
    params: int | None = None
    unsupported: tuple[str, ...] = ()
    nonzero: int | None = None
    notes: tuple[str, ...] = ()

    @property
    def zeros(self) -> float:
        """Share of all parameters that are zero, in [0, 1]; 0 if unknown."""
        return 1 - self.nonzero / self.params if self.params and self.nonzero is not None else 0.0


@dataclass(frozen=True)
class Skipped:
    """A combination that is not timed, with the reason."""

    model: str
    runtime: str
    format: str
    reason: str


@dataclass(frozen=True)
class PreparedFile:
    """One file for one runtime."""

    model: str
    runtime: str
    format: str
    path: Path


def collect_models(
    models: ModelOrFile | Sequence[ModelOrFile], folder: Path | None = None
) -> list[BenchModel]:
    """Return the checked and named models: file stems, or the names of Keras models.

    Args:
        models: Keras models and paths, or a single one.
        folder: Folder in which Keras models are saved; None if there are none.

    Raises:
        InputError: There are no models, an item is neither a model nor a path, a file does not
            exist or no runtime supports it, or a model cannot be saved.
    """
    items = list(models) if isinstance(models, (list, tuple)) else [models]
    if not items:
        raise InputError("bench must be given at least one model. Received: none.")
    known_suffixes = [*KERAS_SUFFIXES, *list_suffixes()]
    bench_models: list[BenchModel] = []
    for index, item in enumerate(items):
        if not isinstance(item, (str, Path)):
            assert folder is not None, "models are saved by bench() alone"
            item = _save_copy(as_model(item), folder / str(index))
        path = Path(item)
        _check_path(path, known_suffixes)
        names = [model.name for model in bench_models]
        name = stem = path.name if path.is_dir() else path.stem
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        bench_models.append(BenchModel(name, path))
    return bench_models


def require_runtime(plan: BenchPlan) -> None:
    """Check that at least one of the plan's runtimes is installed; others are skipped.

    Args:
        plan: The benchmark's plan.

    Raises:
        MissingDependency: None is installed.
    """
    missing = []
    for name in plan.runtimes:
        try:
            RUNTIMES.require_installed(name)
        except MissingDependency as error:
            missing.append(error)
    if len(missing) == len(plan.runtimes):
        raise missing[0]


def prepare_models(
    models: Sequence[BenchModel], plan: BenchPlan, folder: Path
) -> tuple[list[BenchModel], list[PreparedFile], list[Skipped]]:
    """Return costs and converted files of models, for each runtime and format of the plan.

    int8 files are calibrated on random inputs: they are for timing only.

    Args:
        models: From `collect_models`.
        plan: Runtimes, formats, input shape.
        folder: Folder for the files.

    Returns:
        The models with their costs, the files to time, and the skipped combinations with reasons.

    Raises:
        InputError: A model cannot be read, or it has open sizes and no shape is given.
    """
    counted: list[BenchModel] = []
    items: list[PreparedFile | Skipped] = []
    for model in models:
        shape = unwrap_input_shape(plan.input_shape)
        if model.path.is_dir():
            from compress.measure.graph_files.tf_builder import count_saved_model

            source = SavedModel(model.path, plan.signature)
            sizes = source.fill_input_shapes(shape, "to be timed")
            try:
                counted.append(_add_costs(model, count_saved_model(source, sizes)))
            except InputError as error:  # it can still be timed
                counted.append(replace(model, notes=(f"MACs are not counted: {error}",)))
            with TracedSavedModel(source, sizes) as traced:
                items += _convert_for_runtimes(model.name, traced, plan, folder)
        elif model.path.suffix in KERAS_SUFFIXES:
            loaded_model = fix_input_shape(load_model(model.path), shape)
            counted.append(
                _add_costs(model, count_macs(loaded_model), describe_excluded_layers(loaded_model))
            )
            with TracedModel(loaded_model) as traced_model:
                items += _convert_for_runtimes(model.name, traced_model, plan, folder)
        else:
            costs, path = count_file_costs(
                model.path, shape, folder / f"{model.name}.resized.tflite"
            )
            counted.append(model if costs is None else _add_costs(model, costs))
            items += _pair_with_runtimes(model, plan, path)
    prepared = [item for item in items if isinstance(item, PreparedFile)]
    return counted, prepared, [item for item in items if isinstance(item, Skipped)]


def fix_input_shape(model: keras.Model, shape: InputShape | None) -> keras.Model:
    """Return the model with fixed input sizes.

    Args:
        model: A Functional or Sequential model.
        shape: Shape of one example; for several inputs a mapping from the names of the open inputs
            to shapes (see `compress.model.ports`).

    Raises:
        InputError: A size stays open, the shape does not fit, or a tensor of the model does not fit
            into memory.
    """
    label, names = f"model '{model.name}'", list_input_names(model)
    input_sizes = fill_input_shapes(
        label,
        list(zip(names, [tuple(tensor.shape[1:]) for tensor in model.inputs], strict=True)),
        shape,
    )
    require_fixed_sizes(label, names, input_sizes, "to be timed")
    sizes = [tuple(size for size in item if size is not None) for item in input_sizes]
    for item in sizes:
        # check first: Keras has no clear error for sizes beyond 64 bits
        require_memory(4 * math.prod(item), f"An input of shape {item}, float32,")
    return _check_memory(fix_input_shapes(model, sizes))


def count_file_costs(
    path: Path, shape: InputShape | None, copy: Path
) -> tuple[Analysis | None, Path]:
    """Return the costs of a file, and the file to time.

    Args:
        path: A file of any format.
        shape: Shape of one example, for a LiteRT file with open sizes.
        copy: Path of the copy with fixed sizes, written in that case.

    Returns:
        The costs of a LiteRT file, or None (other formats, or a file that cannot be read: its
        runtime reports the error); and `path` or `copy`.

    Raises:
        InputError: A size of a LiteRT file is open and not given, or the shape does not fit.
    """
    if detect_foreign_model(path) is None:
        return None, path
    try:
        graph_file = read_graph_file(path)
    except InputError:
        return None, path
    names = [port.name for port in graph_file.inputs]
    port_sizes = [port.sizes for port in graph_file.inputs]
    if all(None not in sizes for sizes in port_sizes):
        return graph_file.costs, path
    label = f"'{path}'"
    sizes = fill_input_shapes(label, list(zip(names, port_sizes, strict=True)), shape)
    require_fixed_sizes(label, names, sizes, "to be timed")
    shapes = [
        ((port.shape[0] if port.shape else None) or 1, *(size or 1 for size in example_sizes))
        for port, example_sizes in zip(graph_file.inputs, sizes, strict=True)
    ]
    write_bytes(copy, resize_inputs(path.read_bytes(), shapes))
    return read_graph_file(copy).costs, copy


def _check_path(path: Path, known_suffixes: Sequence[str]) -> None:
    """Check that a path is a file of a known runtime or a SavedModel folder."""
    if path.is_dir():
        check_graph_file(path)
    elif path.suffix not in known_suffixes:
        raise InputError(
            f"A model file must end in {', '.join(dict.fromkeys(known_suffixes))}, or be the "
            f"folder of a SavedModel. Received: '{path}'."
        )
    elif not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")


def _save_copy(model: keras.Model, folder: Path) -> Path:
    folder.mkdir()
    path = folder / f"{model.name}.keras"
    save_model(model, path)
    return path


def _add_costs(model: BenchModel, analysis: Analysis, notes: tuple[str, ...] = ()) -> BenchModel:
    return replace(
        model, macs=analysis.macs, params=analysis.params, unsupported=analysis.unsupported,
        nonzero=analysis.nonzero, notes=notes,
    )  # fmt: skip


def _check_memory(model: keras.Model) -> keras.Model:
    """Return the model after checking that its largest tensor fits into memory.

    Runtimes do not check this; some crash.
    """
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if is_graph(model):
        shapes += [tuple(x.shape) for node in record_program(model).walk() for x in node.outputs]
    largest = max(math.prod(size or 1 for size in shape[1:]) for shape in shapes)
    require_memory(4 * largest, f"The largest tensor of model '{model.name}', float32,")
    return model


def _pair_with_runtimes(
    model: BenchModel, plan: BenchPlan, path: Path
) -> list[PreparedFile | Skipped]:
    """Return a file paired with the plan's runtimes that support its suffix."""
    supported = [item.name for item in list_runtimes() if model.path.suffix in item.suffixes]
    selected = [name for name in plan.runtimes if name in supported]
    if not selected:
        raise InputError(
            f"runtimes must hold one that runs '{model.path}': {', '.join(supported)}. "
            f"Received: {', '.join(plan.runtimes)}."
        )
    return [_check_runtime(PreparedFile(model.name, name, FILE, path)) for name in selected]


def _check_runtime(item: PreparedFile) -> PreparedFile | Skipped:
    """Return the file, or the reason if its runtime is missing."""
    try:
        RUNTIMES[item.runtime].describe()
    except MissingDependency as error:
        return Skipped(item.model, item.runtime, item.format, str(error))
    return item


def _convert_for_runtimes(
    model_name: str, traced: Convertible, plan: BenchPlan, folder: Path
) -> list[PreparedFile | Skipped]:
    """Convert a model for each runtime and format; return each file, or why it is skipped."""
    items: list[PreparedFile | Skipped] = []
    files: dict[tuple[str, str], Path] = {}
    calibration = draw_random_examples(traced.ports, CALIBRATION_EXAMPLES, plan.seed)
    for name in plan.runtimes:
        runtime = RUNTIMES[name]
        for kind in plan.formats:
            if kind not in runtime.formats:
                reason = f"{name} is not given {kind}: it runs {', '.join(runtime.formats)}"
                items.append(Skipped(model_name, name, kind, reason))
                continue
            try:
                if (runtime.maker, kind) not in files:  # runtimes with the same maker share a file
                    stem = folder / f"{model_name}.{kind}"
                    files[runtime.maker, kind] = load_reference(runtime.maker)(
                        traced, kind, stem, calibration
                    )
                items.append(
                    _check_runtime(PreparedFile(model_name, name, kind, files[runtime.maker, kind]))
                )
            except (MissingDependency, RunFailed) as error:
                items.append(Skipped(model_name, name, kind, str(error)))
    return items

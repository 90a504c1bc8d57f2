"""Subjects of a benchmark: Keras models converted for each runtime, and files as they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from compress.core.atomic_files import write_bytes
from compress.core.errors import InputError, MissingDependency, RunFailed
from compress.core.memory_budget import require_room
from compress.core.registry import loaded
from compress.exporting.side_by_side import random_examples
from compress.exporting.tflite_editing import resized
from compress.exporting.traced import Convertible, Traced, TracedSavedModel
from compress.measure import Analysis, count_macs
from compress.measure.graph_files import read_graph_file
from compress.measure.runtimes import runtimes, suffixes
from compress.model.copies import sized_model
from compress.model.inference import left_out
from compress.model.internals import is_graph
from compress.model.io import as_model, load_model, save_model
from compress.model.kinds import SUFFIXES, SavedModel, check_graph_file, foreign
from compress.model.ports import InputShape, input_names, require_known, sizes_of
from compress.model.recording import record
from compress.plan.bench import BenchPlan, given
from compress.plugins import RUNTIMES

if TYPE_CHECKING:
    import keras

ModelOrFile: TypeAlias = "keras.Model | str | Path"
CALIBRATION = 32
FILE = "file"
"""The format of a file that is benchmarked as it is."""


@dataclass(frozen=True)
class BenchModel:
    """A model or file that is benchmarked.

    Attributes:
        name: The file's stem, made unique.
        path: As given; of a Keras model the file that it was saved to for the time being.
        macs, params, nonzero: Counted; None for files that are neither Keras models nor LiteRT's,
            nor SavedModels.
        unsupported: What `macs` leaves out.
        notes: What of the model is not timed.
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
        """Share of all parameters that are zero, in [0, 1]; 0 where they are not known."""
        return 1 - self.nonzero / self.params if self.params and self.nonzero is not None else 0.0


@dataclass(frozen=True)
class Skipped:
    """A combination that is not timed, with the reason."""

    model: str
    runtime: str
    format: str
    reason: str


@dataclass(frozen=True)
class Prepared:
    """One file for one runtime."""

    model: str
    runtime: str
    format: str
    path: Path


def models_of(
    models: ModelOrFile | Sequence[ModelOrFile], folder: Path | None = None
) -> list[BenchModel]:
    """Check models and files, and names them: files by their stems, models as Keras does.

    Args:
        models: Keras models and paths, or one.
        folder: Where models are saved, as files of their own; None: there are none.

    Raises:
        InputError: None, something else, a file that does not exist, or of a kind that no runtime
            runs; or a model that no file can hold.
    """
    items = list(models) if isinstance(models, (list, tuple)) else [models]
    if not items:
        raise InputError("bench must be given at least one model. Received: none.")
    known = [*SUFFIXES, *suffixes()]
    found: list[BenchModel] = []
    for place, item in enumerate(items):
        if not isinstance(item, (str, Path)):
            assert folder is not None, "models are saved by bench() alone"
            item = _saved(as_model(item), folder / str(place))
        path = Path(item)
        _check_path(path, known)
        names = [model.name for model in found]
        name = stem = path.name if path.is_dir() else path.stem
        number = 1
        while name in names:
            number += 1
            name = f"{stem}-{number}"
        found.append(BenchModel(name, path))
    return found


def require_a_runtime(plan: BenchPlan) -> None:
    """Check that one of the plan's runtimes at least is installed; others are skipped.

    Raises:
        MissingDependency: None is.
    """
    missing = []
    for name in plan.runtimes:
        try:
            RUNTIMES.require_installed(name)
        except MissingDependency as error:
            missing.append(error)
    if len(missing) == len(plan.runtimes):
        raise missing[0]


def prepare(
    models: Sequence[BenchModel], plan: BenchPlan, folder: Path
) -> tuple[list[BenchModel], list[Prepared], list[Skipped]]:
    """Count Keras models and converts them for each runtime and format of the plan.

    int8 files are calibrated on random inputs: they are for timing, not for use.

    Args:
        models: From `models_of`.
        plan: Runtimes, formats, input shape.
        folder: Where files are written.

    Returns:
        The models with their counts, what is to be timed, and what is not with reasons.

    Raises:
        InputError: A model cannot be read, or has open sizes and no shape is given.
    """
    counted: list[BenchModel] = []
    items: list[Prepared | Skipped] = []
    for model in models:
        shape = given(plan.input_shape)
        if model.path.is_dir():
            from compress.measure.graph_files.tf_builder import count_saved_model

            source = SavedModel(model.path, plan.signature)
            sizes = source.sizes(shape, "to be timed")
            try:
                counted.append(_counted(model, count_saved_model(source, sizes)))
            except InputError as error:  # it can be timed all the same
                counted.append(replace(model, notes=(f"MACs are not counted: {error}",)))
            with TracedSavedModel(source, sizes) as traced:
                items += _converted(model.name, traced, plan, folder)
        elif model.path.suffix in SUFFIXES:
            loaded_model = fixed(load_model(model.path), shape)
            counted.append(_counted(model, count_macs(loaded_model), left_out(loaded_model)))
            with Traced(loaded_model) as traced_model:
                items += _converted(model.name, traced_model, plan, folder)
        else:
            found, path = of_file(model.path, shape, folder / f"{model.name}.tflite")
            counted.append(model if found is None else _counted(model, found))
            items += _as_it_is(model, plan, path)
    made = [item for item in items if isinstance(item, Prepared)]
    return counted, made, [item for item in items if isinstance(item, Skipped)]


def fixed(model: keras.Model, shape: InputShape | None) -> keras.Model:
    """Return the model with inputs of known sizes.

    Args:
        model: Functional or Sequential.
        shape: Of one example; of a model with several inputs by their names, those that are open
            (see `compress.model.ports`).

    Raises:
        InputError: A size stays open, the shape does not fit, or what the model computes does
            not fit into memory.
    """
    what, names = f"model '{model.name}'", input_names(model)
    found = sizes_of(
        what,
        list(zip(names, [tuple(tensor.shape[1:]) for tensor in model.inputs], strict=True)),
        shape,
    )
    require_known(what, names, found, "to be timed")
    sizes = [tuple(size for size in item if size is not None) for item in found]
    for item in sizes:
        # before Keras is asked: it has no words for sizes beyond 64 bits
        require_room(4 * math.prod(item), f"An input of shape {item}, float32,")
    return _runnable(sized_model(model, sizes))


def of_file(path: Path, shape: InputShape | None, copy: Path) -> tuple[Analysis | None, Path]:
    """Return the costs of a file, and the file to time.

    Args:
        path: Of any kind.
        shape: Of one example, where a LiteRT file leaves sizes open.
        copy: Where one of known sizes is written then.

    Returns:
        The costs of a LiteRT file, None of another or where it cannot be read (its runtime says
        why), and `path` or `copy`.

    Raises:
        InputError: A size of a LiteRT file is open and not given, or what is given does not fit.
    """
    if foreign(path) is None:
        return None, path
    try:
        found = read_graph_file(path)
    except InputError:
        return None, path
    names = [port.name for port in found.inputs]
    own = [port.sizes for port in found.inputs]
    if all(None not in sizes for sizes in own):
        return found.costs, path
    what = f"'{path}'"
    sizes = sizes_of(what, list(zip(names, own, strict=True)), shape)
    require_known(what, names, sizes, "to be timed")
    shapes = [
        ((port.shape[0] if port.shape else None) or 1, *(size or 1 for size in size_))
        for port, size_ in zip(found.inputs, sizes, strict=True)
    ]
    write_bytes(copy, resized(path.read_bytes(), shapes))
    return read_graph_file(copy).costs, copy


def _check_path(path: Path, known: Sequence[str]) -> None:
    """Check that a path is a file of a known runtime or a SavedModel's folder."""
    if path.is_dir():
        check_graph_file(path)
    elif path.suffix not in known:
        raise InputError(
            f"A model file must end in {', '.join(dict.fromkeys(known))}, or be the folder of a "
            f"SavedModel. Received: '{path}'."
        )
    elif not path.is_file():
        raise InputError(f"A model file must exist. Received: '{path}'.")


def _saved(model: keras.Model, folder: Path) -> Path:
    folder.mkdir()
    path = folder / f"{model.name}.keras"
    save_model(model, path)
    return path


def _counted(model: BenchModel, analysis: Analysis, notes: tuple[str, ...] = ()) -> BenchModel:
    return replace(
        model, macs=analysis.macs, params=analysis.params, unsupported=analysis.unsupported,
        nonzero=analysis.nonzero, notes=notes,
    )  # fmt: skip


def _runnable(model: keras.Model) -> keras.Model:
    """Check that the largest tensor of one example fits into memory.

    Runtimes do not say so: some crash.
    """
    shapes = [tuple(tensor.shape) for tensor in (*model.inputs, *model.outputs)]
    if is_graph(model):
        shapes += [tuple(x.shape) for node in record(model).walk() for x in node.outputs]
    largest = max(math.prod(size or 1 for size in shape[1:]) for shape in shapes)
    require_room(4 * largest, f"The largest tensor of model '{model.name}', float32,")
    return model


def _as_it_is(model: BenchModel, plan: BenchPlan, path: Path) -> list[Prepared | Skipped]:
    """Pair a file with the plan's runtimes for its kind."""
    fitting = [item.name for item in runtimes() if model.path.suffix in item.suffixes]
    chosen = [name for name in plan.runtimes if name in fitting]
    if not chosen:
        raise InputError(
            f"runtimes must hold one that runs '{model.path}': {', '.join(fitting)}. "
            f"Received: {', '.join(plan.runtimes)}."
        )
    return [_tried(Prepared(model.name, name, FILE, path)) for name in chosen]


def _tried(item: Prepared) -> Prepared | Skipped:
    """Return the file, or the reason where its runtime is missing; a broken file is an error."""
    try:
        RUNTIMES[item.runtime].describe()
    except MissingDependency as error:
        return Skipped(item.model, item.runtime, item.format, str(error))
    return item


def _converted(
    label: str, traced: Convertible, plan: BenchPlan, folder: Path
) -> list[Prepared | Skipped]:
    found: list[Prepared | Skipped] = []
    files: dict[tuple[str, str], Path] = {}
    calibration = random_examples(traced.ports, CALIBRATION, plan.seed)
    for name in plan.runtimes:
        runtime = RUNTIMES[name]
        for kind in plan.formats:
            if kind not in runtime.formats:
                reason = f"{name} is not given {kind}: it runs {', '.join(runtime.formats)}"
                found.append(Skipped(label, name, kind, reason))
                continue
            try:
                if (runtime.maker, kind) not in files:  # runtimes of one kind share a file
                    stem = folder / f"{label}.{kind}"
                    files[runtime.maker, kind] = loaded(runtime.maker)(
                        traced, kind, stem, calibration
                    )
                found.append(_tried(Prepared(label, name, kind, files[runtime.maker, kind])))
            except (MissingDependency, RunFailed) as error:
                found.append(Skipped(label, name, kind, str(error)))
    return found

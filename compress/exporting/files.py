"""Writes the files of a model and checks them against the Keras model."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import arrays, count, taken
from compress.core.atomic_files import read_json, write_bytes, write_json
from compress.core.errors import InputError, RunFailed
from compress.core.memory_budget import current_budget
from compress.data import Dataset, Preprocessing, Unlabelled, draw_stratified
from compress.data.meaning import Head, Heads
from compress.data.tasks import Several, Task, make_task
from compress.exporting.answering import HeldBack, answered_by_file
from compress.measure.quality import describe_low_agreement
from compress.model.copies import sized_model
from compress.model.heads import check_shapes, decides_at, head_of, sizes_for
from compress.model.inference import left_out, reduce_range
from compress.model.ports import answers_of, input_names, listed, output_names
from compress.plan import ONNX_FORMATS, ExportOptions
from compress.plan.output import INT4, MIXED, ONNX_QAT

if TYPE_CHECKING:
    import keras

    from compress.exporting.mixed.writing import LayerPrecision
    from compress.exporting.traced import Traced
    from compress.measure.runtimes import Session

CHECKED_EXAMPLES = 200
"""Validation examples on which a file is compared with its model, every class among them."""
REDUCED = (
    f"the weights of {ONNX_QAT} files have 7 bits, and these were quantized with 8 before: "
    f'quantize(..., format="{ONNX_QAT}") trains them for 7'
)


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
        """That the file agrees too little with its model to ship unasked; "" where it does not."""
        return describe_low_agreement(self.path.name, self.task, self.agreement, self.checked)


def write_files(
    model: keras.Model,
    data: Dataset | Unlabelled,
    paths: Mapping[str, Path],
    about: Path,
    options: ExportOptions,
    *,
    seed: int = 0,
    on_refusal: Callable[[str, str], None] | None = None,
    on_progress: Callable[[str, float], None] | None = None,
) -> list[Exported]:
    """Writes a file for each format, and how to feed them.

    How to feed them stands in `about`, with notes: layers that work in training alone
    (random augmentation) are left out. Converters run in a process of their own; where one
    refuses a format or crashes, the other formats are written all the same.

    Args:
        model: For this data; open sizes become the data's.
        data: Training examples calibrate whole numbers, validation examples, drawn from each class
            in proportion, check the files.
        paths: Of the file of each format.
        about: Of the record of how to feed them.
        options: Number of calibration examples, opset.
        seed: Seed of the choice of calibration examples, and of those that check.
        on_refusal: Called with (format, reason) where a format cannot be had; default: an error
            tells of all of them when the other files are written.
        on_progress: Called with (text, share that is done) while precisions are chosen.

    Returns:
        One record a file.

    Raises:
        InputError: An input size is unknown.
        MissingDependency: ONNX's packages are not installed.
        RunFailed: A converter refused the model, crashed or hung, and there is no `on_refusal`.
    """
    from compress.exporting.traced import Traced

    check_shapes(model, data)
    model = sized_model(model, sizes_for(model, data.input_shapes))
    picks = np.random.default_rng(seed).permutation(len(data.train))[: options.calibration]
    representative = listed(model, data.preprocess(taken(data.train.x, picks)))
    probed = draw_stratified(data.val, CHECKED_EXAMPLES, seed)
    probe = data.preprocess(taken(data.val.x, probed))
    expected = _answers(model, probe)
    task, names = _task(model, data)
    threshold = decides_at(model, task)
    held_back = HeldBack(model, data, task, picks, seed)
    results, feeding, refused = [], {}, []
    current_budget().give_back()
    with Traced(model) as traced:
        for name, path in paths.items():
            try:
                layers, notes = _write(
                    traced, path, name, representative, options, held_back, on_progress
                )
                session = _run(path, name, representative)
            except RunFailed as error:
                refused.append(str(error))
                if on_refusal is not None:
                    on_refusal(name, str(error))
                continue
            wanted = expected
            if name == ONNX_QAT:
                with reduce_range(model) as changed:
                    if changed:
                        wanted, notes = _answers(model, probe), (*notes, REDUCED)
            got = answered_by_file(model, session, probe)
            results.append(
                Exported(
                    name,
                    path,
                    _furthest(got, wanted),
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
    fed = {
        "input_shape": [1, *data.input_shape]
        if len(shapes) == 1
        else {name: [1, *shape] for name, shape in shapes.items()},
        **_order(model),
        "preprocess": data.preprocess.to_json(),
        "class_names": list(names),
    }
    files = {**_made_before(about, fed), **feeding}
    write_json(about, {**fed, "files": files, "notes": [*left_out(model), *refused]})
    if refused and on_refusal is None:
        raise RunFailed(" ".join(refused))
    return results


def _answers(model: keras.Model, probe: Any) -> Any:
    """Returns what a model answers to model inputs now."""
    from compress.train.predict import Predictor

    return Predictor(partial(answers_of, model), Preprocessing(), model)(probe)


def _made_before(about: Path, fed: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a record says of files that are fed alike and are there still.

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


def _furthest(got: Any, expected: Any) -> float:
    pairs = zip(arrays(got), arrays(expected), strict=True)
    return max(float(np.abs(one - other).max()) for one, other in pairs)


def _feeding(session: Session) -> dict[str, Any]:
    """Returns the types of a file's inputs and outputs, and their scales where it has integers."""
    inputs, outputs = session.inputs, session.outputs
    if len(inputs) == len(outputs) == 1:
        return {"input": inputs[0].to_json(), "output": outputs[0].to_json()}
    return {
        "inputs": {info.name: info.to_json() for info in inputs},
        "outputs": {info.name: info.to_json() for info in outputs},
    }


def _order(model: keras.Model) -> dict[str, Any]:
    """Returns the names of several inputs and outputs, in the files' order."""
    names = {"inputs": input_names(model), "outputs": output_names(model)}
    return names if max(map(len, names.values())) > 1 else {}


def _task(model: keras.Model, data: Dataset | Unlabelled) -> tuple[Task, Sequence[str]]:
    """Returns by what outputs are compared, and what they are called; without labels by the head.

    A head without an activation may give logits or numbers: its outputs are compared as numbers.
    """
    if isinstance(data, Dataset):
        return data.task, data.class_names
    head = head_of(model)
    if isinstance(head, Heads):
        each = {name: _by_head(part) for name, part in head.outputs.items()}
        if len(each) == 1:
            return next(iter(each.values())), list(each)
        return Several(tuple(each.items())), list(each)
    width = 1 if head is None else head.outputs
    ends = "linear" if head is None else head.activation
    kind = data.kind or {"softmax": "multiclass", "sigmoid": "multilabel"}.get(ends, "regression")
    names = 2 if kind == "binary" else width
    return make_task(kind, names), [str(name) for name in range(names)]


def _by_head(head: Head | None) -> Task:
    """Returns by what an output is compared, by its head alone."""
    ends = "linear" if head is None else head.activation
    kind = {"softmax": "multiclass", "sigmoid": "multilabel"}.get(ends, "regression")
    return make_task(kind, 1 if head is None else head.outputs)


def _write(
    traced: Traced,
    path: Path,
    name: str,
    representative: list[npt.NDArray[np.float32]],
    options: ExportOptions,
    held_back: HeldBack,
    on_progress: Callable[[str, float], None] | None,
) -> tuple[tuple[LayerPrecision, ...], tuple[str, ...]]:
    """Writes one file.

    Returns:
        The precision of each layer where layers differ, and what is worth a note.

    Raises:
        RunFailed: The converter made none.
    """
    from compress.exporting.litert import write_int8, write_litert
    from compress.exporting.mixed.writing import write_int4, write_mixed
    from compress.exporting.onnx import plain_file, quantize_onnx, write_onnx

    def told(share: float) -> None:
        if on_progress is not None:
            on_progress(f"choosing precisions of {path.name}", share)

    if name == MIXED:
        return write_mixed(traced, path, representative, options, told, held_back.confirm_as_good)
    if name == INT4:
        return (), write_int4(traced, path, representative)
    if name == ONNX_QAT:
        write_onnx(traced, path, opset=options.opset, whole_numbers=True)
    elif name in ONNX_FORMATS:
        plain = plain_file(traced, opset=options.opset)
        if name == "onnx":
            write_bytes(path, plain.read_bytes())
        else:
            quantize_onnx(plain, path, representative)
    elif name == "int8":
        return (), write_int8(traced, path, representative)
    else:
        write_litert(traced, path, name, representative=representative)
    return (), ()


def _run(path: Path, name: str, inputs: list[npt.NDArray[np.float32]]) -> Session:
    """Prepares a file and runs it once.

    Raises:
        RunFailed: Its runtime cannot run it (it is removed then).
    """
    from compress.exporting.answering import runnable

    try:
        return runnable(path, inputs)
    except InputError as error:
        path.unlink()
        raise RunFailed(f"The {name} file cannot be run: {error}") from None

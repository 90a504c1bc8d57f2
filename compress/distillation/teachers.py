"""Teachers: frozen models in inference mode, and the cache of their outputs.

The outputs for all training examples are computed once and stored in memory or on disk. The key of
a cache is a hash of the teachers, the requested outputs and the examples, so that a stale cache is
never used. A file on disk has its name only once it is complete.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arrays import list_arrays, list_named_arrays, take_examples
from compress.core.atomic_files import replace_file
from compress.core.errors import InputError
from compress.core.lazy_modules import keras, tf
from compress.core.memory_budget import get_current_budget
from compress.data import Dataset, Preprocessing
from compress.data.tasks import UNLABELLED, Task
from compress.model.activations import find_batch_size
from compress.model.heads import check_head, check_shapes
from compress.model.layer_patches import use_fused_batch_norm
from compress.model.logits import open_logits_view
from compress.model.program import Node, Program
from compress.model.rebuild import read_layer_config
from compress.model.recording import record_program

if TYPE_CHECKING:
    from compress.distillation.hints import Hint

BATCH = 256
"""Maximum number of examples per batch; the memory budget may allow fewer."""
MIB = 1 << 20
MAX_MEMORY_BYTES = 1024 * MIB
"""Maximum size of a cache in memory; larger caches are on disk."""
MEMORY_SHARE = 0.25
"""Share of the free memory that a cache may take."""

Arrays = dict[str, npt.NDArray[Any]]
Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Teachers:
    """One or more teachers as one function of the inputs.

    Args:
        models: The teachers; they run in inference mode and are not changed.
        task: Task of the data.
        hints: Feature losses; their layers belong to the first teacher.
        orders: For each teacher the indices of its outputs in the order of the data's classes, or
            None.
        scalings: For each teacher the map from the student's inputs to its own; None: they are
            equal.
    """

    def __init__(
        self,
        models: Sequence[keras.Model],
        task: Task,
        hints: Sequence[Hint],
        orders: Sequence[np.ndarray[Any, Any] | None],
        scalings: Sequence[Preprocessing | None] | None = None,
    ) -> None:
        self.models = list(models)
        self._task, self._hints, self._orders = task, hints, orders
        self._scalings = scalings or [None] * len(models)
        self._views: list[Any] = []

    @contextlib.contextmanager
    def prepare(self) -> Iterator[None]:
        """Prepare the models for `compute_outputs`: find their logits and fuse normalization."""
        feature_layers = tuple(dict.fromkeys(hint.pair.teacher for hint in self._hints))
        with contextlib.ExitStack() as stack:
            for index, model in enumerate(self.models):
                layer_names = feature_layers if index == 0 else ()
                stack.enter_context(use_fused_batch_norm(model))
                view = stack.enter_context(open_logits_view(model, self._task, layer_names))
                self._views.append((view, bool(layer_names)))
            try:
                yield
            finally:
                self._views.clear()

    def compute_outputs(self, inputs: Any) -> dict[str, Any]:
        """Return the outputs that the losses need for a batch of model inputs (graph code).

        Args:
            inputs: Inputs of the student.

        Returns:
            "teacher_logits" (batch, teachers, ..., outputs) and "teacher_hint<i>" for each hint;
            for several outputs "teacher_logits_<name>".
        """
        logits: dict[str, list[Any]] = {name: [] for name in self._task.parts}
        hint_outputs = {}
        for (view, has_features), order, scaling in zip(
            self._views, self._orders, self._scalings, strict=True
        ):
            scaled_inputs = inputs if scaling is None else scaling.to_graph_function()(inputs)
            output = view(scaled_inputs, training=False)
            if has_features:
                output, features = output
                for index, hint in enumerate(self._hints):
                    hint_outputs[f"teacher_hint{index}"] = hint.loss.reduced(
                        features[hint.pair.teacher]
                    )
            for name, output_logits in list_named_arrays(output):
                logits[name].append(
                    output_logits if order is None else tf.gather(output_logits, order, axis=-1)
                )
        outputs = {
            name_logits(name): tf.stack(output_logits, axis=1)
            for name, output_logits in logits.items()
        }
        outputs |= hint_outputs
        return {name: tf.stop_gradient(value) for name, value in outputs.items()}

    def compute_fingerprint(self) -> str:
        """Return a hash of the architectures, weights, class orders, scalings and hints."""
        digest = hashlib.sha256()
        for model, order in zip(self.models, self._orders, strict=True):
            digest.update(describe_structure(record_program(model)).encode())
            for variable in model.variables:
                digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
            digest.update(repr(None if order is None else order.tolist()).encode())
        for scaling in filter(None, self._scalings):
            digest.update(scaling.identity.encode())
        for hint in self._hints:
            digest.update(f"{hint.loss.name} {hint.pair}".encode())
        return digest.hexdigest()[:32]


def name_logits(name: str) -> str:
    """Return the key of the teachers' logits for an output; "" stands for the only output."""
    return f"teacher_logits_{name}" if name else "teacher_logits"


def describe_structure(program: Program) -> str:
    """Return a description of a program that does not depend on automatically numbered names."""
    lines = []
    numbers = count()

    def call(node: Node, numbered: list[_TensorNumber]) -> list[_TensorNumber]:
        operation = node.operation
        config = {}
        if node.body is None and isinstance(operation, keras.layers.Layer):
            config = {k: v for k, v in _read_config(operation).items() if k != "name"}
        inside = "" if node.body is None else f"({describe_structure(node.body)})"
        argument_text = " ".join(map(repr, keras.tree.flatten(node.fill_arguments(numbered))))
        lines.append(f"{type(operation).__name__} {config} {argument_text} {inside}")
        return [_TensorNumber(next(numbers)) for _ in node.outputs]

    program.interpret(call, [_TensorNumber(next(numbers)) for _ in program.inputs], nested=call)
    return "\n".join(lines)


def _read_config(layer: Any) -> dict[str, Any]:
    """Return the config of a layer, or its public attributes if it cannot be serialized.

    Keras cannot serialize activations that are objects or `functools.partial`.
    """
    try:
        return read_layer_config(layer)
    except (NotImplementedError, TypeError):
        plain = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        return {name: _ADDRESS.sub("", repr(value)) for name, value in sorted(plain.items())}


@dataclass(frozen=True, repr=False)
class _TensorNumber:
    """Placeholder for a tensor in a description: its number."""

    number: int

    def __repr__(self) -> str:
        return f"#{self.number}"


def blend_logits(logits: Any, activation: str, temperature: float) -> Any:
    """Return logits with softened predictions equal to the mean of the teachers'.

    softmax(z / T) = mean_k softmax(z_k / T), likewise with sigmoid; for linear outputs the mean of
    the outputs.

    Args:
        logits: (batch, teachers, ..., outputs), float32.
        activation: Activation of the task: "softmax", "sigmoid" or "linear".
        temperature: T, above 0.

    Returns:
        (batch, ..., outputs).

    Reference:
        Hinton, Vinyals & Dean 2015, section 1 (ensembles: the arithmetic mean of the predictive
        distributions).
    """
    count = int(logits.shape[1])
    if count == 1:
        return logits[:, 0]
    if activation == "linear":
        return tf.reduce_mean(logits, axis=1)
    softened = logits / temperature
    if activation == "softmax":
        log_sum = tf.reduce_logsumexp(tf.nn.log_softmax(softened), axis=1)
        return temperature * (log_sum - math.log(count))
    yes = tf.reduce_logsumexp(tf.math.log_sigmoid(softened), axis=1)
    no = tf.reduce_logsumexp(tf.math.log_sigmoid(-softened), axis=1)
    return temperature * (yes - no)


def find_class_order(
    teacher: keras.Model, data: Dataset, names: Sequence[str] | None
) -> np.ndarray[Any, Any] | None:
    """Check a teacher against the data and return the order of its outputs by class name.

    Args:
        teacher: A model for the data's examples.
        data: Data set with the class names of the student.
        names: Class names of the teacher in its order; None: unknown, and its outputs are assumed
            to be in the data's order. Ignored for unlabelled data and for several outputs.

    Returns:
        Index of the teacher's output for each class of the data; None: the order is the same.

    Raises:
        InputError: The number of outputs does not fit, or the teacher lacks a class of the data.
    """
    if names is None or data.kind == UNLABELLED or len(data.task.parts) > 1:
        check_head(teacher, data)
        return None
    check_shapes(teacher, data)
    width = teacher.outputs[0].shape[-1]
    has_named_classes = data.task.outputs == data.num_classes and data.task.activation != "linear"
    if not has_named_classes or width != len(names):
        class_names = list(data.class_names)
        if list(names) == class_names and width == data.task.outputs:
            return None
        raise InputError(
            f"Teacher '{teacher.name}' must have the data's outputs {class_names}. Received: "
            f"{list(names)} for {width} outputs."
        )
    missing = [name for name in data.class_names if name not in names]
    if missing:
        raise InputError(
            f"Teacher '{teacher.name}' must know every class of the data. Received: no "
            f"'{missing[0]}' among {', '.join(names)}."
        )
    order = np.array([list(names).index(name) for name in data.class_names])
    is_same_order = len(names) == data.num_classes and (order == np.arange(len(order))).all()
    return None if is_same_order else order


@dataclass(frozen=True)
class TeacherCache:
    """Cached teacher outputs.

    Attributes:
        arrays: Arrays by name, one row per training example; memory-mapped if on disk.
        location: "memory" or "disk".
        size_bytes: Total size of the arrays.
    """

    arrays: Arrays
    location: str
    size_bytes: int


def compute_cache_key(teachers: Teachers, data: Dataset) -> str:
    """Return the key of a cache: a hash of teachers, requested outputs, examples and scaling."""
    digest = hashlib.sha256(teachers.compute_fingerprint().encode())
    digest.update(data.preprocess.identity.encode())
    for name, values in list_named_arrays(data.train.x):
        digest.update(f"{name}{values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def open_teacher_cache(
    teachers: Teachers,
    data: Dataset,
    *,
    folder: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[TeacherCache]:
    """Yield the teacher outputs for the training examples without augmentation.

    They are in memory, or on disk if they exceed `MAX_MEMORY_BYTES` or `MEMORY_SHARE` of the free
    memory.

    Args:
        teachers: The teachers.
        data: Data set; only its training part is used.
        folder: Folder of caches on disk, which are kept and used again; default: a temporary folder
            that is removed on exit.
        on_progress: Called with the share that is done.

    Yields:
        The cache.

    Raises:
        InputError: The disk is too small.
    """
    examples = len(data.train)
    with teachers.prepare():
        row = teachers.compute_outputs(data.preprocess(take_examples(data.train.x, slice(0, 1))))
    shapes: Shapes = {
        name: ((examples, *value.shape[1:]), np.dtype(value.dtype.as_numpy_dtype))
        for name, value in row.items()
    }
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
    fill = partial(_fill_cache, teachers, data, on_progress)
    if size <= get_current_budget().compute_share(MEMORY_SHARE, MAX_MEMORY_BYTES):
        arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
        fill(arrays)
        yield TeacherCache(arrays, "memory", size)
        return
    with contextlib.ExitStack() as stack:
        if folder is None:
            temporary = tempfile.TemporaryDirectory(
                prefix="paretune-teacher-", ignore_cleanup_errors=True
            )
            folder = Path(stack.enter_context(temporary))
        arrays = _map_outputs(folder, compute_cache_key(teachers, data), shapes, size, fill)
        yield TeacherCache(arrays, "disk", size)


def _fill_cache(
    teachers: Teachers,
    data: Dataset,
    on_progress: Callable[[float], None] | None,
    arrays: Arrays,
) -> None:
    """Compute all rows."""
    total = len(data.train)
    sizes = [values.shape[1:] for values in list_arrays(data.train.x)]
    size = min(find_batch_size(teachers.models, BATCH, input_shapes=sizes), total)
    scaled = data.preprocess.to_graph_function()
    with teachers.prepare():
        outputs = tf.function(lambda x: teachers.compute_outputs(scaled(x)), autograph=False)
        for first in range(0, total, size):
            # the last batch overlaps the one before: another size would retrace the teachers
            low = min(first, total - size)
            for name, value in outputs(take_examples(data.train.x, slice(low, low + size))).items():
                arrays[name][low : low + size] = value.numpy()
            if on_progress is not None:
                on_progress((low + size) / total)


def _map_outputs(
    folder: Path, key: str, shapes: Shapes, size: int, fill: Callable[[Arrays], None]
) -> Arrays:
    """Return memory-mapped outputs, from earlier files of the same key or filled now."""
    paths = {name: folder / f"{key}-{name}.npy" for name in shapes}
    if all(path.exists() for path in paths.values()):
        return {name: np.lib.format.open_memmap(path) for name, path in paths.items()}
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"The disk of '{folder}' must have room for the teacher's outputs: "
            f"{size / MIB:,.0f} MiB. Received: {free / MIB:,.0f} MiB free. Use another folder."
        )
    arrays: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        for name, (shape, dtype) in shapes.items():
            path = stack.enter_context(replace_file(paths[name]))
            arrays[name] = np.lib.format.open_memmap(path, "w+", dtype, shape)
        fill(arrays)
        for array in arrays.values():
            array.flush()
    return arrays

"""Teachers: frozen models in inference mode, and the outputs of theirs that the losses need.

These outputs for all training examples are computed once, on disk where they are large. A cache is
known by a hash of the teachers, of what is taken from them and of the examples, so a stale one is
not used. On disk it grows batch by batch and goes on after an interruption.
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
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from compress.core.arguments import conform
from compress.core.arrays import arrays as arrays_of
from compress.core.arrays import named, taken
from compress.core.atomic_files import read_json, write_json
from compress.core.errors import InputError
from compress.data import Dataset, Preprocessing
from compress.data.tasks import UNLABELLED, Task
from compress.model.activations import examples_at_once
from compress.model.heads import check_head, check_shapes
from compress.model.inference import fused_normalization
from compress.model.logits import logits_view
from compress.model.program import Node, Program
from compress.model.rebuild import config_of
from compress.model.recording import record

if TYPE_CHECKING:
    import keras

    from compress.distillation.hints import Hint

BATCH = 256
"""Examples at a time, where the memory budget allows."""
META = "cache.json"
MIB = 1 << 20
NOTE_EVERY = 64
"""Batches between two notes on disk of how far a cache is."""

Arrays = dict[str, npt.NDArray[Any]]
Shapes = dict[str, tuple[tuple[int, ...], np.dtype[Any]]]
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


class Teachers:
    """One teacher or several, as one function of inputs.

    Args:
        models: They are run in inference mode; nothing of them is changed.
        task: Of the data.
        hints: Losses on features; their layers are those of the first teacher.
        orders: For each teacher which of its outputs stand for the data's classes, or None.
        scalings: For each teacher how its inputs are made from the student's; None: the same.
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
    def running(self) -> Iterator[None]:
        """Make `outputs` usable: heads are found, normalization is fused."""
        feature_layers = tuple(dict.fromkeys(hint.pair.teacher for hint in self._hints))
        with contextlib.ExitStack() as stack:
            for place, model in enumerate(self.models):
                wanted = feature_layers if place == 0 else ()
                stack.enter_context(fused_normalization(model))
                view = stack.enter_context(logits_view(model, self._task, wanted))
                self._views.append((view, bool(wanted)))
            try:
                yield
            finally:
                self._views.clear()

    def outputs(self, inputs: Any) -> dict[str, Any]:
        """Return the outputs that the losses need for a batch of model inputs (graph code).

        Returns:
            "teacher_logits" (batch, teachers, ..., outputs) and "teacher_hint<i>" for each hint;
            of several outputs "teacher_logits_<name>".
        """
        import tensorflow as tf

        logits: dict[str, list[Any]] = {name: [] for name in self._task.parts}
        found = {}
        for (view, tapping), order, scaling in zip(
            self._views, self._orders, self._scalings, strict=True
        ):
            fed = inputs if scaling is None else scaling.in_graph()(inputs)
            output = view(fed, training=False)
            if tapping:
                output, features = output
                for place, hint in enumerate(self._hints):
                    found[f"teacher_hint{place}"] = hint.loss.reduced(features[hint.pair.teacher])
            for name, made in named(output):
                logits[name].append(made if order is None else tf.gather(made, order, axis=-1))
        outputs = {logits_of(name): tf.stack(made, axis=1) for name, made in logits.items()}
        outputs |= found
        return {name: tf.stop_gradient(value) for name, value in outputs.items()}

    def fingerprint(self) -> str:
        """Return a hash of the architectures, the weights and the requested outputs."""
        digest = hashlib.sha256()
        for model, order in zip(self.models, self._orders, strict=True):
            digest.update(structure(record(model)).encode())
            for variable in model.variables:
                digest.update(np.ascontiguousarray(variable.numpy()).tobytes())
            digest.update(repr(None if order is None else order.tolist()).encode())
        for scaling in filter(None, self._scalings):
            digest.update(scaling.identity.encode())
        for hint in self._hints:
            digest.update(f"{hint.loss.name} {hint.pair}".encode())
        return digest.hexdigest()[:32]


def logits_of(name: str) -> str:
    """Return the name of the teachers' logits of an output; "": there is one output."""
    return f"teacher_logits_{name}" if name else "teacher_logits"


def structure(program: Program) -> str:
    """Return a description of a program without the names that Keras numbers anew each time."""
    import keras

    lines = []
    numbers = count()

    def call(node: Node, given: list[_Place]) -> list[_Place]:
        operation = node.operation
        config = {}
        if node.body is None and isinstance(operation, keras.layers.Layer):
            config = {k: v for k, v in _settings(operation).items() if k != "name"}
        inside = "" if node.body is None else f"({structure(node.body)})"
        called = " ".join(map(repr, keras.tree.flatten(node.arguments(given))))
        lines.append(f"{type(operation).__name__} {config} {called} {inside}")
        return [_Place(next(numbers)) for _ in node.outputs]

    program.interpret(call, [_Place(next(numbers)) for _ in program.inputs], nested=call)
    return "\n".join(lines)


def _settings(layer: Any) -> dict[str, Any]:
    """Return a layer's config, or its public attributes where it has none.

    Keras serializes no activation that is an object or a `functools.partial`.
    """
    try:
        return config_of(layer)
    except (NotImplementedError, TypeError):
        plain = {name: value for name, value in vars(layer).items() if not name.startswith("_")}
        return {name: _ADDRESS.sub("", repr(value)) for name, value in sorted(plain.items())}


@dataclass(frozen=True, repr=False)
class _Place:
    """Stand-in for a tensor in a description: its number."""

    number: int

    def __repr__(self) -> str:
        return f"#{self.number}"


def blended(logits: Any, weights: Sequence[float], activation: str, temperature: Any) -> Any:
    """Return the logits whose softened predictions are the weighted mean of the teachers'.

    softmax(z / T) = sum_k w_k softmax(z_k / T), likewise with sigmoid; of numbers the mean.

    Args:
        logits: (batch, teachers, ..., outputs), float32.
        weights: Of the teachers, sum 1.
        activation: Of the task.
        temperature: T, above 0.

    Returns:
        (batch, ..., outputs).

    Reference:
        Hinton, Vinyals & Dean 2015, section 1 (ensembles: the arithmetic mean of the
        predictive distributions).
    """
    import tensorflow as tf

    if len(weights) == 1:
        return logits[:, 0]
    # (teachers, 1 ...)
    share = tf.reshape(tf.constant(weights, tf.float32), (-1, *[1] * (len(logits.shape) - 2)))
    if activation == "linear":
        return tf.reduce_sum(logits * share, axis=1)
    softened = logits / temperature
    if activation == "softmax":
        log = tf.nn.log_softmax(softened) + tf.math.log(share)
        return temperature * tf.reduce_logsumexp(log, axis=1)
    yes = tf.reduce_logsumexp(tf.math.log_sigmoid(softened) + tf.math.log(share), axis=1)
    no = tf.reduce_logsumexp(tf.math.log_sigmoid(-softened) + tf.math.log(share), axis=1)
    return temperature * (yes - no)


def class_order(
    teacher: keras.Model, data: Dataset, names: Sequence[str] | None
) -> np.ndarray[Any, Any] | None:
    """Check a teacher against the data and return the order of its classes by name.

    Args:
        teacher: Its input must take the data's examples.
        data: Its class names are those that the student learns.
        names: The teacher's class names in its order; None: unknown, so its outputs are
            taken to stand in the data's order.

    Returns:
        Which output of the teacher stands for each class of the data; None: as they are.

    Raises:
        InputError: Another number of outputs, or names that do not hold all of the data's.
    """
    if names is None or data.kind == UNLABELLED or len(data.task.parts) > 1:
        check_head(teacher, data)
        return None
    check_shapes(teacher, data)
    width = teacher.outputs[0].shape[-1]
    named = data.task.outputs == data.num_classes and data.task.activation != "linear"
    if not named or width != len(names):
        wanted = list(data.class_names)
        if list(names) == wanted and width == data.task.outputs:
            return None
        raise InputError(
            f"Teacher '{teacher.name}' must have the data's outputs {wanted}. Received: "
            f"{list(names)} for {width} outputs."
        )
    missing = [name for name in data.class_names if name not in names]
    if missing:
        raise InputError(
            f"Teacher '{teacher.name}' must know every class of the data. Received: no "
            f"'{missing[0]}' among {', '.join(names)}."
        )
    order = np.array([list(names).index(name) for name in data.class_names])
    same = len(names) == data.num_classes and (order == np.arange(len(order))).all()
    return None if same else order


@dataclass(frozen=True)
class Cached:
    """Cache of the teachers' outputs.

    Attributes:
        arrays: By name, one row a training example; on disk they are memory-mapped.
        where: "memory" or the folder.
        size_bytes: Of all arrays.
        computed: Rows that were computed now; the others were there already.
    """

    arrays: Arrays
    where: str
    size_bytes: int
    computed: int


def cache_key(teachers: Teachers, data: Dataset) -> str:
    """Return the key of a cache: a hash of teachers, requested outputs and examples."""
    digest = hashlib.sha256(teachers.fingerprint().encode())
    digest.update(data.preprocess.identity.encode())
    for name, values in named(data.train.x):
        digest.update(f"{name}{values.shape} {values.dtype}".encode())
        digest.update(np.ascontiguousarray(values).view(np.uint8).data)
    return digest.hexdigest()[:32]


@contextlib.contextmanager
def teacher_cache(
    teachers: Teachers,
    data: Dataset,
    *,
    where: str = "auto",
    limit: int = 1024,
    folder: Path | None = None,
    on_progress: Callable[[float], None] | None = None,
) -> Iterator[Cached]:
    """Yield the teachers' outputs for the training examples, which are not augmented.

    Args:
        teachers: In inference mode.
        data: Its training part.
        where: "memory", "disk", or "auto": memory up to `limit`, disk above.
        limit: MiB.
        folder: Of caches on disk, one sub-folder a key, which stay there; default: a
            temporary one that is removed on leaving.
        on_progress: Called with the share that is done.

    Yields:
        The cache.

    Raises:
        InputError: A cache in the folder is not what its name says, or the disk is too small.
    """
    examples = len(data.train)
    with teachers.running():
        row = teachers.outputs(data.preprocess(taken(data.train.x, slice(0, 1))))
    shapes: Shapes = {
        name: ((examples, *value.shape[1:]), np.dtype(value.dtype.as_numpy_dtype))
        for name, value in row.items()
    }
    size = sum(math.prod(shape) * dtype.itemsize for shape, dtype in shapes.values())
    if where == "auto":
        where = "memory" if size <= limit * MIB else "disk"
    if where == "memory":
        arrays = {name: np.empty(shape, dtype) for name, (shape, dtype) in shapes.items()}
        _fill(teachers, data, arrays, 0, on_progress, None)
        yield Cached(arrays, "memory", size, examples)
        return
    key = cache_key(teachers, data)
    with contextlib.ExitStack() as stack:
        home = (folder or Path(stack.enter_context(_temporary()))) / key
        arrays, there = _open(home, key, shapes, size)
        _fill(teachers, data, arrays, there, on_progress, home)
        yield Cached(arrays, str(home), size, examples - there)


def _temporary() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="paretune-teacher-", ignore_cleanup_errors=True)


def _fill(
    teachers: Teachers,
    data: Dataset,
    arrays: Arrays,
    start: int,
    on_progress: Callable[[float], None] | None,
    home: Path | None,
) -> None:
    """Compute the rows from `start` on."""
    import tensorflow as tf

    total = len(data.train)
    sizes = [values.shape[1:] for values in arrays_of(data.train.x)]
    size = min(examples_at_once(teachers.models, BATCH, sizes=sizes), total)
    scaled = data.preprocess.in_graph()
    with teachers.running():
        outputs = tf.function(lambda x: teachers.outputs(scaled(x)), autograph=False)
        for batch, first in enumerate(range(start, total, size), start=1):
            # the last batch overlaps: another size would trace the teachers again
            low = min(first, total - size)
            for name, value in outputs(taken(data.train.x, slice(low, low + size))).items():
                arrays[name][low : low + size] = value.numpy()
            if batch % NOTE_EVERY == 0 or low + size == total:
                if home is not None:
                    _note(home, arrays, low + size)
                if on_progress is not None:
                    on_progress((low + size) / total)


def _open(home: Path, key: str, shapes: Shapes, size: int) -> tuple[Arrays, int]:
    """Open or create the files of a cache; return them and the number of rows that they hold."""
    meta = {
        "key": key,
        "examples": next(iter(shapes.values()))[0][0],
        "arrays": {name: [list(shape[1:]), dtype.str] for name, (shape, dtype) in shapes.items()},
    }
    done = 0
    if (home / META).exists():
        found = read_json(home / META)
        done = conform(found.pop("done", 0), int, f"'{home / META}': done")
        if found != meta:
            raise InputError(
                f"A teacher cache must be of this teacher and these examples. Received: '{home}', "
                f"of key {found.get('key')} instead of {key}. Remove it."
            )
    home.mkdir(parents=True, exist_ok=True)
    missing = [name for name in shapes if not (home / f"{name}.npy").exists()]
    if missing:
        done = 0
        free = shutil.disk_usage(home).free
        if size > free:
            raise InputError(
                f"The disk of '{home}' must have room for the teacher's outputs: "
                f"{size / MIB:,.0f} MiB. Received: {free / MIB:,.0f} MiB free. Use another "
                "folder, or cache 'off'."
            )
    arrays: Arrays = {}
    for name, (shape, dtype) in shapes.items():
        mode: Any = "w+" if name in missing else "r+"
        path = home / f"{name}.npy"
        arrays[name] = np.lib.format.open_memmap(path, mode=mode, dtype=dtype, shape=shape)
    if done == 0:
        write_json(home / META, {**meta, "done": 0})
    return arrays, done


def _note(home: Path, arrays: dict[str, Any], done: int) -> None:
    """Record on disk that the first `done` rows are written, after flushing them."""
    for array in arrays.values():
        array.flush()
    write_json(home / META, {**read_json(home / META), "done": done})

"""A LiteRT file read into plain records, nothing of it run, and what its operators cost."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from ai_edge_litert import interpreter as litert
from ai_edge_litert import schema_py_generated as schema

from compress.core.errors import InputError, unknown_name
from compress.core.native_output import captured_stderr
from compress.measure.graph_files.counting import count_graph
from compress.measure.graph_files.records import Graph, GraphFile, Operator, Port, Tensor
from compress.measure.graph_files.tables import TFLITE
from compress.model.kinds import Foreign
from compress.model.ports import InputShape, Sizes, sizes_of

_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NAMELESS = re.compile(r"^(?:Stateful)?PartitionedCall(?:_\d+)?(?::\d+)?$")
_BODIES = (
    "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex", "subgraph",
    "initSubgraphIndex", "decompositionSubgraphIndex",
)  # fmt: skip


def read_tflite(
    path: Path, what: Foreign, input_shape: InputShape | None, signature: str
) -> GraphFile:
    """Read and count a `.tflite` file; see `compress.measure.graph_files.read_graph_file`."""
    reader = TFLiteReader(path)
    names = tuple(reader.signatures)
    if signature and signature not in names:
        raise unknown_name(f"signature of '{path}'", signature, names)
    first = (name for name in names if not reader.signatures[name].subgraphIndex)
    chosen = signature or next(first, "")
    with reader.doubted():
        inputs, outputs = reader.ports(chosen)
        own = [(port.name, port.sizes) for port in inputs]
        graph = reader.graph(chosen, sizes_of(f"'{path}'", own, input_shape))
        costs = count_graph(graph, TFLITE)
    return GraphFile(
        path,
        what,
        chosen,
        names,
        tuple(inputs),
        tuple(outputs),
        path.stat().st_size,
        costs,
    )


class TFLiteReader:
    """A `.tflite` file that was read.

    Args:
        path: The file.

    Attributes:
        signatures: Its signatures by their names.

    Raises:
        InputError: It is no LiteRT file, or a damaged one.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, path.read_bytes()
        # LiteRT checks the file as a whole, before anything in it is believed
        with captured_stderr() as written:
            try:
                litert.Interpreter(model_content=self._content)
            except (ValueError, RuntimeError) as error:
                raise self._damaged(str(error) or written().strip()) from None
        self._kinds = _names_of(schema.BuiltinOperator)
        self._types = {
            number: name.lower() for number, name in _names_of(schema.TensorType).items()
        }
        with self.doubted():
            self._model: Any = schema.ModelT.InitFromPackedBuf(self._content, 0)
            self.signatures: dict[str, Any] = {
                _text(item.signatureKey): item for item in self._model.signatureDefs or ()
            }

    @contextmanager
    def doubted(self) -> Iterator[None]:
        """Take any error while the file is read for damage: LiteRT does not check everything.

        Raises:
            InputError: In place of the error.
        """
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # numbers of tensors and graphs may be any, and sizes
            raise self._damaged(repr(error)) from None

    def _damaged(self, reason: str) -> InputError:
        return InputError(
            f"'{self._path}' must be a whole LiteRT file. Received: a damaged one ({reason})."
        )

    def ports(self, signature: str) -> tuple[list[Port], list[Port]]:
        """Return inputs and outputs; open sizes are None."""
        graph = self._model.subgraphs[self._number(signature)]
        taken, given = (
            [self._port(graph.tensors[number], names.get(int(number), "")) for number in numbers]
            for numbers, names in zip(
                (graph.inputs, graph.outputs), self._mapped(signature), strict=True
            )
        )
        return taken, given

    def _number(self, signature: str) -> int:
        """Return the number of the graph behind a signature; of none the first."""
        return int(self.signatures[signature].subgraphIndex) if signature in self.signatures else 0

    def _mapped(self, signature: str) -> list[dict[int, str]]:
        """Return the names that a signature gives to inputs and outputs."""
        item = self.signatures.get(signature)
        return [
            {int(port.tensorIndex): _text(port.name) for port in getattr(item, part, None) or ()}
            for part in ("inputs", "outputs")
        ]

    def _port(self, tensor: Any, name: str) -> Port:
        dtype, (scale, zero) = self._types[tensor.type], self._scale(tensor)
        return Port(name or _text(tensor.name), _declared(tensor), dtype, scale, zero)

    def graph(self, signature: str, sizes: Sequence[Sizes]) -> Graph:
        """Return the operators behind a signature, at known sizes of its inputs.

        Args:
            signature: Its name; empty: the first graph.
            sizes: Of one example, an input each.
        """
        number = self._number(signature)
        known: Mapping[int, tuple[int, ...]] = {}
        if number == 0 and any(
            None in _declared(item) for item in self._model.subgraphs[number].tensors
        ):
            known = self._resized([(1, *size) for size in sizes])
        return self._graph(number, known, self._mapped(signature)[1])

    def _resized(self, shapes: Sequence[Sizes]) -> dict[int, tuple[int, ...]]:
        """Let LiteRT work out all shapes of the first graph; nothing is run.

        Returns:
            The shapes by tensor; those that only running it tells are left out.
        """
        if any(None in shape for shape in shapes):
            return {}
        plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with captured_stderr():
            try:
                made = litert.Interpreter(
                    model_content=self._content, experimental_op_resolver_type=plain
                )
                for detail, shape in zip(made.get_input_details(), shapes, strict=True):
                    made.resize_tensor_input(detail["index"], shape)
                made.allocate_tensors()
            except (ValueError, RuntimeError):
                return {}  # operators that this LiteRT lacks: sizes stay unknown
        raw = self._model.subgraphs[0].tensors
        found = {
            detail["index"]: tuple(map(int, detail["shape"]))
            for detail in made.get_tensor_details()
            if detail["index"] < len(raw)
        }
        return {
            place: shape
            for place, shape in found.items()
            if len(shape) == len(_declared(raw[place]))
        }

    def _graph(
        self, number: int, known: Mapping[int, tuple[int, ...]], outputs: Mapping[int, str]
    ) -> Graph:
        raw = self._model.subgraphs[number]
        tensors = [self._tensor(item, known.get(place)) for place, item in enumerate(raw.tensors)]
        operators = []
        for item in raw.operators:
            code = self._model.operatorCodes[item.opcodeIndex]
            kind = self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = [None if place < 0 else tensors[place] for place in item.inputs]
            if (
                kind in ("DEQUANTIZE", "DENSIFY")
                and inputs[0] is not None
                and inputs[0].values is not None
            ):
                tensors[item.outputs[0]] = inputs[0]  # the constant itself, however it is stored
                continue
            made = [int(place) for place in item.outputs]
            name = (_stand_of(tensors[made[0]].name) or outputs.get(made[0])) if made else ""
            operators.append(
                Operator(
                    _text(code.customCode) if kind == "CUSTOM" and code.customCode else kind,
                    name or kind.lower(),
                    tuple(inputs),
                    tuple(tensors[place] for place in made),
                    *self._inside(item),
                )
            )
        return Graph(
            tuple(tensors[place] for place in raw.inputs),
            tuple(tensors[place] for place in raw.outputs),
            tuple(operators),
        )

    def _inside(self, item: Any) -> tuple[dict[str, Any], Graph | None, tuple[Graph, ...]]:
        """Return an operator's options, and of loops and branches the graphs inside."""
        options: dict[str, Any] = {}
        for part in (item.builtinOptions, item.builtinOptions2):
            options |= vars(part) if part is not None else {}
        bodies = (self._graph(int(options[name]), {}, {}) for name in _BODIES if name in options)
        number = options.get("condSubgraphIndex")
        condition = None if number is None else self._graph(int(number), {}, {})
        return options, condition, tuple(bodies)

    def _tensor(self, raw: Any, known: tuple[int, ...] | None) -> Tensor:
        dtype = self._types[raw.type]
        shape = known or _declared(raw)
        if shape[:1] == (None,):
            shape = (1, *shape[1:])  # one example
        scale, zero = self._scale(raw)
        tensor = Tensor(_text(raw.name), shape, dtype, quantized=bool(scale), zero=zero)
        data = self._data(raw.buffer)
        if data is not None and dtype != "string" and not raw.isVariable:
            tensor.values = partial(_values, data, dtype)
            if tensor.elements == 1 and "int" in dtype:
                tensor.number = float(tensor.values().reshape(-1)[0])
        return tensor

    def _data(self, number: int) -> npt.NDArray[np.uint8] | None:
        buffer = self._model.buffers[number]
        if buffer.offset > 1:  # large ones lie behind the flatbuffer
            return np.frombuffer(self._content, np.uint8, buffer.size, buffer.offset)
        if buffer.data is None or len(buffer.data) == 0:
            return None
        return np.asarray(buffer.data, np.uint8)

    def _scale(self, raw: Any) -> tuple[float, int]:
        """Return scale and zero point, the first of them where there is one a channel."""
        quantization = raw.quantization
        scales = [] if quantization is None else quantization.scale
        if scales is None or len(scales) == 0 or "int" not in self._types[raw.type]:
            return 0.0, 0
        zeros = quantization.zeroPoint
        return float(scales[0]), int(zeros[0]) if zeros is not None and len(zeros) else 0


def _names_of(table: Any) -> dict[int, str]:
    return {value: name for name, value in vars(table).items() if not name.startswith("_")}


def _text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _stand_of(name: str) -> str:
    """Return an operator's scope, from the name of its output."""
    first = _CALLS.sub("", name.split(";")[0])
    return "" if _NAMELESS.match(first) else first


def _declared(raw: Any) -> Sizes:
    """Return a tensor's shape as the file declares it, open sizes as None."""
    if raw.shape is None or len(raw.shape) == 0:
        return ()
    signature = raw.shapeSignature
    shape = raw.shape if signature is None or len(signature) == 0 else signature
    return tuple(None if size < 0 else int(size) for size in shape)


def _values(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    """Return a constant's numbers; of types that share bytes, whole numbers that are as zero."""
    bits = {"int2": 2, "int4": 4, "uint4": 4}.get(dtype)
    if bits is None:
        # NumPy lacks some types: these show which numbers are zero
        raw = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
        return data.view(raw.get(dtype, dtype)) if dtype != "bool" else data
    parts = data[:, None] >> (bits * np.arange(8 // bits, dtype=np.uint8))
    return (parts & ((1 << bits) - 1)).reshape(-1)

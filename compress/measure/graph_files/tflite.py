"""Reader of LiteRT files: plain records and costs of operators, without running the file."""

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

from compress.core.errors import InputError, build_unknown_name_error
from compress.core.native_output import capture_stderr
from compress.measure.graph_files.counting import count_graph
from compress.measure.graph_files.records import Graph, GraphFile, Operator, Port, Tensor
from compress.measure.graph_files.tables import TFLITE
from compress.model.file_formats import ForeignModel
from compress.model.ports import InputShape, PartialShape, fill_input_shapes

_CALLS = re.compile(r"^(?:(?:Stateful)?PartitionedCall(?:_\d+)?/)+")
_NAMELESS = re.compile(r"^(?:Stateful)?PartitionedCall(?:_\d+)?(?::\d+)?$")
_BODY_OPTIONS = (
    "bodySubgraphIndex", "thenSubgraphIndex", "elseSubgraphIndex", "subgraph",
    "initSubgraphIndex", "decompositionSubgraphIndex",
)  # fmt: skip


def read_tflite(
    path: Path, file_kind: ForeignModel, input_shape: InputShape | None, signature: str
) -> GraphFile:
    """Read a `.tflite` file and count its costs.

    Args:
        path, input_shape, signature: See `compress.measure.graph_files.read_graph_file`.
        file_kind: File format, from `compress.model.file_formats`.

    Raises:
        InputError: The file is corrupt, or a size or the signature does not fit.
    """
    reader = TFLiteReader(path)
    names = tuple(reader.signatures)
    if signature and signature not in names:
        raise build_unknown_name_error(f"signature of '{path}'", signature, names)
    first = (name for name in names if not reader.signatures[name].subgraphIndex)
    chosen = signature or next(first, "")
    with reader.wrap_errors():
        inputs, outputs = reader.read_ports(chosen)
        port_sizes = [(port.name, port.sizes) for port in inputs]
        graph = reader.read_graph(chosen, fill_input_shapes(f"'{path}'", port_sizes, input_shape))
        costs = count_graph(graph, TFLITE)
    return GraphFile(
        path,
        file_kind,
        chosen,
        names,
        tuple(inputs),
        tuple(outputs),
        path.stat().st_size,
        costs,
    )


class TFLiteReader:
    """A parsed `.tflite` file.

    Args:
        path: The file.

    Attributes:
        signatures: Signatures by name.

    Raises:
        InputError: The file is not a LiteRT file, or it is corrupt.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, path.read_bytes()
        # let LiteRT validate the file before it is parsed
        with capture_stderr() as written:
            try:
                litert.Interpreter(model_content=self._content)
            except (ValueError, RuntimeError) as error:
                raise self._build_damage_error(str(error) or written().strip()) from None
        self._kinds = _map_enum_names(schema.BuiltinOperator)
        self._types = {
            number: name.lower() for number, name in _map_enum_names(schema.TensorType).items()
        }
        with self.wrap_errors():
            self._model: Any = schema.ModelT.InitFromPackedBuf(self._content, 0)
            self.signatures: dict[str, Any] = {
                _decode_text(item.signatureKey): item for item in self._model.signatureDefs or ()
            }

    @contextmanager
    def wrap_errors(self) -> Iterator[None]:
        """Turn any error while reading into an `InputError`: LiteRT does not validate everything.

        Raises:
            InputError: Reading failed, so the file is corrupt.
        """
        try:
            yield
        except InputError:
            raise
        except Exception as error:  # indices and sizes in a corrupt file are arbitrary
            raise self._build_damage_error(repr(error)) from None

    def _build_damage_error(self, reason: str) -> InputError:
        return InputError(
            f"'{self._path}' must be a whole LiteRT file. Received: a corrupt one ({reason})."
        )

    def read_ports(self, signature: str) -> tuple[list[Port], list[Port]]:
        """Return inputs and outputs; open sizes are None.

        Args:
            signature: Name of the signature; empty: the first graph.
        """
        graph = self._model.subgraphs[self._find_subgraph(signature)]
        input_ports, output_ports = (
            [
                self._read_port(graph.tensors[number], names.get(int(number), ""))
                for number in numbers
            ]
            for numbers, names in zip(
                (graph.inputs, graph.outputs), self._map_tensor_names(signature), strict=True
            )
        )
        return input_ports, output_ports

    def _find_subgraph(self, signature: str) -> int:
        """Return the index of a signature's graph; the first one if there is no signature."""
        return int(self.signatures[signature].subgraphIndex) if signature in self.signatures else 0

    def _map_tensor_names(self, signature: str) -> list[dict[int, str]]:
        """Return the signature's names of inputs and of outputs, by tensor index."""
        item = self.signatures.get(signature)
        return [
            {
                int(port.tensorIndex): _decode_text(port.name)
                for port in getattr(item, part, None) or ()
            }
            for part in ("inputs", "outputs")
        ]

    def _read_port(self, tensor: Any, name: str) -> Port:
        dtype, (scale, zero) = self._types[tensor.type], self._read_scale(tensor)
        return Port(
            name or _decode_text(tensor.name), _read_declared_shape(tensor), dtype, scale, zero
        )

    def read_graph(self, signature: str, sizes: Sequence[PartialShape]) -> Graph:
        """Return the operators of a signature, at fixed input sizes.

        Args:
            signature: Name of the signature; empty: the first graph.
            sizes: Shape of one example for each input.
        """
        number = self._find_subgraph(signature)
        known_shapes: Mapping[int, tuple[int, ...]] = {}
        if number == 0 and any(
            None in _read_declared_shape(item) for item in self._model.subgraphs[number].tensors
        ):
            known_shapes = self._infer_shapes([(1, *size) for size in sizes])
        return self._read_subgraph(number, known_shapes, self._map_tensor_names(signature)[1])

    def _infer_shapes(self, shapes: Sequence[PartialShape]) -> dict[int, tuple[int, ...]]:
        """Return the shapes of the first graph that LiteRT infers without running it.

        Returns:
            Shapes by tensor index, without those that are only known after a run.
        """
        if any(None in shape for shape in shapes):
            return {}
        plain = litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        with capture_stderr():
            try:
                interpreter = litert.Interpreter(
                    model_content=self._content, experimental_op_resolver_type=plain
                )
                for detail, shape in zip(interpreter.get_input_details(), shapes, strict=True):
                    interpreter.resize_tensor_input(detail["index"], shape)
                interpreter.allocate_tensors()
            except (ValueError, RuntimeError):
                return {}  # this LiteRT lacks an operator: sizes stay unknown
        raw = self._model.subgraphs[0].tensors
        inferred_shapes = {
            detail["index"]: tuple(map(int, detail["shape"]))
            for detail in interpreter.get_tensor_details()
            if detail["index"] < len(raw)
        }
        return {
            index: shape
            for index, shape in inferred_shapes.items()
            if len(shape) == len(_read_declared_shape(raw[index]))
        }

    def _read_subgraph(
        self, number: int, known_shapes: Mapping[int, tuple[int, ...]], outputs: Mapping[int, str]
    ) -> Graph:
        """Return a subgraph with decoded constants in place of their DEQUANTIZE and DENSIFY."""
        raw = self._model.subgraphs[number]
        tensors = [
            self._read_tensor(item, known_shapes.get(index))
            for index, item in enumerate(raw.tensors)
        ]
        operators = []
        for item in raw.operators:
            code = self._model.operatorCodes[item.opcodeIndex]
            kind = self._kinds[max(code.builtinCode, code.deprecatedBuiltinCode)]
            inputs = [None if index < 0 else tensors[index] for index in item.inputs]
            if (
                kind in ("DEQUANTIZE", "DENSIFY")
                and inputs[0] is not None
                and inputs[0].values is not None
            ):
                tensors[item.outputs[0]] = inputs[0]  # the decoded constant is the constant itself
                continue
            output_indices = [int(index) for index in item.outputs]
            name = (
                (_extract_scope(tensors[output_indices[0]].name) or outputs.get(output_indices[0]))
                if output_indices
                else ""
            )
            operators.append(
                Operator(
                    _decode_text(code.customCode) if kind == "CUSTOM" and code.customCode else kind,
                    name or kind.lower(),
                    tuple(inputs),
                    tuple(tensors[index] for index in output_indices),
                    *self._read_options(item),
                )
            )
        return Graph(
            tuple(tensors[index] for index in raw.inputs),
            tuple(tensors[index] for index in raw.outputs),
            tuple(operators),
        )

    def _read_options(self, item: Any) -> tuple[dict[str, Any], Graph | None, tuple[Graph, ...]]:
        """Return an operator's options, its condition graph and its nested graphs."""
        options: dict[str, Any] = {}
        for part in (item.builtinOptions, item.builtinOptions2):
            options |= vars(part) if part is not None else {}
        bodies = (
            self._read_subgraph(int(options[name]), {}, {})
            for name in _BODY_OPTIONS
            if name in options
        )
        number = options.get("condSubgraphIndex")
        condition = None if number is None else self._read_subgraph(int(number), {}, {})
        return options, condition, tuple(bodies)

    def _read_tensor(self, raw: Any, known_shape: tuple[int, ...] | None) -> Tensor:
        """Return a tensor at batch 1, in `known_shape` if given; constants are decoded on use."""
        dtype = self._types[raw.type]
        shape = known_shape or _read_declared_shape(raw)
        if shape[:1] == (None,):
            shape = (1, *shape[1:])  # batch of one example
        scale, zero = self._read_scale(raw)
        tensor = Tensor(
            _decode_text(raw.name), shape, dtype, is_quantized=bool(scale), zero_point=zero
        )
        data = self._read_buffer(raw.buffer)
        if data is not None and dtype != "string" and not raw.isVariable:
            tensor.values = partial(_decode_values, data, dtype)
            if tensor.elements == 1 and "int" in dtype:
                tensor.scalar = float(tensor.values().reshape(-1)[0])
        return tensor

    def _read_buffer(self, number: int) -> npt.NDArray[np.uint8] | None:
        buffer = self._model.buffers[number]
        if buffer.offset > 1:  # large buffers are stored behind the flatbuffer
            return np.frombuffer(self._content, np.uint8, buffer.size, buffer.offset)
        if buffer.data is None or len(buffer.data) == 0:
            return None
        return np.asarray(buffer.data, np.uint8)

    def _read_scale(self, raw: Any) -> tuple[float, int]:
        """Return scale and zero point; of per-channel quantization those of the first channel."""
        quantization = raw.quantization
        scales = [] if quantization is None else quantization.scale
        if scales is None or len(scales) == 0 or "int" not in self._types[raw.type]:
            return 0.0, 0
        zeros = quantization.zeroPoint
        return float(scales[0]), int(zeros[0]) if zeros is not None and len(zeros) else 0


def _map_enum_names(table: Any) -> dict[int, str]:
    return {value: name for name, value in vars(table).items() if not name.startswith("_")}


def _decode_text(name: Any) -> str:
    return name.decode("utf-8", "replace") if isinstance(name, bytes) else str(name or "")


def _extract_scope(name: str) -> str:
    """Return the scope of an operator, from the name of its output."""
    first = _CALLS.sub("", name.split(";")[0])
    return "" if _NAMELESS.match(first) else first


def _read_declared_shape(raw: Any) -> PartialShape:
    """Return the declared shape of a tensor; open sizes are None."""
    if raw.shape is None or len(raw.shape) == 0:
        return ()
    signature = raw.shapeSignature
    shape = raw.shape if signature is None or len(signature) == 0 else signature
    return tuple(None if size < 0 else int(size) for size in shape)


def _decode_values(data: npt.NDArray[np.uint8], dtype: str) -> npt.NDArray[Any]:
    """Return the values of a constant.

    Values that are packed into bytes are returned as unsigned integers, which are zero where the
    values are zero.
    """
    bits = {"int2": 2, "int4": 4, "uint4": 4}.get(dtype)
    if bits is None:
        # NumPy lacks these types: an integer view still shows the zeros
        raw = {"bfloat16": "uint16", "float8_e4m3fn": "uint8", "float8_e5m2": "uint8"}
        return data.view(raw.get(dtype, dtype)) if dtype != "bool" else data
    parts = data[:, None] >> (bits * np.arange(8 // bits, dtype=np.uint8))
    return (parts & ((1 << bits) - 1)).reshape(-1)

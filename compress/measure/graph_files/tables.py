"""Cost tables of LiteRT's and TensorFlow's operations: counting rules and exceptions."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compress.measure import rules
from compress.measure.graph_files.records import Operator
from compress.measure.rules import Shape, Uncountable, count_other_ops

Rule = Callable[[Operator], int]
LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_TRANSFORM = "a fast transform, not a sum of products by this convention"
_SOLVER = "a matrix decomposition or solver, whose work is not a fixed number of products"
_VALUES = "its work depends on values"


@dataclass(frozen=True)
class CostTable:
    """Costs of a format's operations, by operation name.

    Attributes:
        rules: Rules that count multiply-accumulates.
        equivalent_classes: For operations without MACs, the Keras class that does the same work.
        reasons: Why an operation is not counted.
        passthrough_kinds: Operations that pass a constant on: operators that read their output read
            the constant itself.
        loops, branches, calls: Operations with nested graphs.
        sources: Operations without inputs: constants and graph inputs.
        window: Function that returns the number of elements of a pooling window.
        unknown_reason: Why an operation that is not in the table is not counted.
    """

    rules: Mapping[str, Rule]
    equivalent_classes: Mapping[str, str]
    reasons: Mapping[str, str]
    passthrough_kinds: frozenset[str]
    loops: frozenset[str]
    branches: frozenset[str]
    calls: frozenset[str]
    sources: frozenset[str]
    window: Callable[[Operator], int]
    unknown_reason: str = "no counting rule for this operation"

    def count_macs(self, operator: Operator) -> tuple[int | None, str]:
        """Return the multiply-accumulates, or None and the reason that they are not counted."""
        kind = operator.kind
        if kind in self.rules:
            try:
                return int(self.rules[kind](operator)), ""
            except (Uncountable, ValueError) as error:
                return None, str(error)
        if kind in self.equivalent_classes or kind in self.sources:
            return 0, ""
        return None, self.reasons.get(kind, self.unknown_reason)

    def count_other_ops(self, operator: Operator) -> int | None:
        """Return the elementwise operations; None if a size is unknown."""
        kind = self.equivalent_classes.get(operator.kind)
        if kind is None:
            return 0
        input_shapes = [tensor.known_shape for tensor in operator.present_inputs[:1]]
        output_shapes = [tensor.known_shape for tensor in operator.outputs]
        if None in input_shapes or None in output_shapes:
            return None
        return count_other_ops(
            kind,
            sum(math.prod(shape or ()) for shape in input_shapes),
            sum(math.prod(shape or ()) for shape in output_shapes),
            self.window(operator),
        )


def require_shape(operator: Operator, index: int | None) -> Shape:
    """Return the shape of an input or of the first output.

    Args:
        operator: The operator.
        index: Index of the input; None: the first output.

    Raises:
        Uncountable: A size is unknown, or the input is missing.
    """
    tensors = operator.outputs[:1] if index is None else operator.inputs[index : index + 1]
    if not tensors or tensors[0] is None or tensors[0].known_shape is None:
        raise Uncountable("an input size is unknown; give input_shape (--input-shape)")
    return tensors[0].known_shape


def build_convolution_rule(first: int, last: int | None, source_index: int | None = None) -> Rule:
    """Return the rule of a convolution: output elements times kernel elements per output.

    Args:
        first, last: Range of the axes of the kernel (the second input) without the filter axis.
        source_index: For a transposed convolution, the index of the input whose elements count
            instead of those of the output.
    """
    return lambda operator: (
        math.prod(require_shape(operator, source_index))
        * math.prod(require_shape(operator, 1)[first:last])
    )


def count_matmul(operator: Operator, *transposed: bool) -> int:
    """Return the MACs of a matrix product.

    Args:
        operator: An operator with two inputs.
        transposed: Whether each input is transposed first.
    """
    shapes = [list(require_shape(operator, index)) for index in (0, 1)]
    for shape, is_transposed in zip(shapes, transposed, strict=True):
        if is_transposed:
            shape[-2:] = shape[:-3:-1]
    return rules.count_matmul(*shapes)


def map_kinds(text: str, value: str) -> dict[str, str]:
    """Return a table with the same value for each word of a text.

    Args:
        text: Operation names, separated by white space.
        value: The value.
    """
    return dict.fromkeys(text.split(), value)


def _count_tf_matmul(operator: Operator) -> int:
    flags = (("transpose_a", "adj_x"), ("transpose_b", "adj_y"))
    return count_matmul(
        operator, *(any(operator.options[name].b for name in names) for names in flags)
    )


def _count_tf_einsum(operator: Operator) -> int:
    if len(operator.inputs) == 1:
        return 0  # a transposition or a sum
    shapes = [require_shape(operator, index) for index in range(len(operator.inputs))]
    return rules.count_einsum(operator.options["equation"].s.decode(), *shapes)


TENSORFLOW = CostTable(
    rules={
        **dict.fromkeys(("Conv", "Conv2D", "Conv3D"), build_convolution_rule(0, -1)),
        # (height, width, channels, multiplier)
        "DepthwiseConv2dNative": build_convolution_rule(0, 2),
        **dict.fromkeys(
            (
                "Conv2DBackpropInput",
                "Conv2DBackpropInputV2",
                "Conv3DBackpropInput",
                "Conv3DBackpropInputV2",
            ),
            build_convolution_rule(0, -1, 2),
        ),
        "DepthwiseConv2dNativeBackpropInput": build_convolution_rule(0, 2, 2),
        **dict.fromkeys(
            ("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _count_tf_matmul
        ),
        "Einsum": _count_tf_einsum,
    },
    equivalent_classes={
        **map_kinds(
            """
        Identity IdentityN StopGradient PreventGradient CheckNumerics Snapshot ReadVariableOp
        NoOp Reshape Squeeze ExpandDims Transpose ConjugateTranspose Pack Unpack Concat ConcatV2
        Split SplitV Slice StridedSlice Pad PadV2 MirrorPad Tile Gather GatherV2 GatherNd
        ResourceGather BroadcastTo BroadcastArgs Fill ZerosLike OnesLike Range LinSpace Shape
        ShapeN Size Rank Cast Bitcast OneHot Reverse ReverseV2 ReverseSequence Roll ScatterNd
        TensorScatterUpdate TensorScatterAdd SpaceToBatch SpaceToBatchND BatchToSpace
        BatchToSpaceND SpaceToDepth DepthToSpace ExtractImagePatches Diag DiagPart MatrixDiag
        MatrixDiagV3 MatrixDiagPart MatrixDiagPartV3 MatrixBandPart MatrixSetDiagV3
        InvertPermutation Where DynamicStitch DynamicPartition TensorListReserve
        TensorListFromTensor
        TensorListStack TensorListGetItem TensorListSetItem TensorListLength EmptyTensorList
        TensorListPushBack TensorListPopBack TensorListConcat TensorListConcatV2 TensorListGather
        StatelessRandomUniformV2 StatelessRandomNormalV2 StatelessRandomGetKeyCounter
        StatelessRandomGetAlg StatelessRandomUniform StatelessRandomNormal RandomUniform
        RandomStandardNormal LookupTableFindV2 LookupTableSizeV2 EnsureShape Assert
        StringToHashBucketFast AsString StridedSliceGrad Empty PlaceholderWithDefault
        """,
            "Identity",
        ),
        **map_kinds(
            """
        Sum Mean Max Min Prod All Any ArgMax ArgMin Cumsum Cumprod EuclideanNorm TopK TopKV2
        SegmentSum UnsortedSegmentSum UnsortedSegmentMax UnsortedSegmentMin SegmentMean SegmentMax
        Unique UniqueV2 Bincount DenseBincount InTopKV2
        """,
            "Sum",
        ),
        **map_kinds("AvgPool AvgPool3D MaxPool MaxPoolV2 MaxPool3D MaxPoolWithArgmax", "MaxPool"),
        **map_kinds(
            """
        FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN
        """,
            "Normalize",
        ),
        **map_kinds(
            """
        Add AddV2 AddN AccumulateNV2 BiasAdd BiasAddV1 Sub Mul MulNoNan Div RealDiv DivNoNan
        FloorDiv FloorMod Mod TruncateDiv TruncateMod Maximum Minimum Pow SquaredDifference
        Abs Neg Sign Square Sqrt Rsqrt Reciprocal Inv Exp Expm1 Log Log1p Sin Cos Tan Asin Acos
        Atan Atan2 Sinh Cosh Tanh Asinh Acosh Atanh Erf Erfc Erfinv Lgamma Digamma Sigmoid Relu
        Relu6 LeakyRelu Elu Selu Softplus Softsign Softmax LogSoftmax Xlogy Xlog1py Floor Ceil
        Round Rint ClipByValue Equal NotEqual ApproximateEqual Less LessEqual Greater
        GreaterEqual LogicalAnd LogicalOr LogicalNot Select SelectV2 IsNan IsInf IsFinite
        BitwiseAnd BitwiseOr BitwiseXor Invert LeftShift RightShift NextAfter Bucketize
        ResizeBilinear ResizeNearestNeighbor ResizeBicubic ResizeArea CropAndResize
        FakeQuantWithMinMaxArgs FakeQuantWithMinMaxVars FakeQuantWithMinMaxVarsPerChannel
        QuantizeAndDequantizeV4 Dequantize QuantizeV2 RGBToHSV HSVToRGB AdjustContrastv2
        AdjustHue AdjustSaturation Dilation2D Complex Real Imag ComplexAbs Angle Conj
        ImageProjectiveTransformV3
        """,
            "Relu",
        ),
    },
    reasons={
        **map_kinds("FFT FFT2D FFT3D IFFT IFFT2D IFFT3D RFFT RFFT2D IRFFT IRFFT2D", _TRANSFORM),
        **map_kinds(
            """
        Cholesky MatrixInverse MatrixDeterminant MatrixSolve MatrixSolveLs MatrixTriangularSolve
        Qr Svd SelfAdjointEigV2 Eig Lu
        """,
            _SOLVER,
        ),
        **map_kinds(
            """
        SparseTensorDenseMatMul SparseMatMul NonMaxSuppressionV3 NonMaxSuppressionV4
        NonMaxSuppressionV5 CombinedNonMaxSuppression
        """,
            _VALUES,
        ),
        **map_kinds(
            "LSTMBlockCell BlockLSTM BlockLSTMV2 GRUBlockCell CudnnRNN CudnnRNNV3",
            "a fused cell of TensorFlow 1",
        ),
        **map_kinds("PyFunc EagerPyFunc", "Python code, which is not in the graph"),
    },
    passthrough_kinds=frozenset(
        ("Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast", "StopGradient")
    ),
    loops=frozenset(LOOPS),
    branches=frozenset(BRANCHES),
    calls=frozenset(),
    sources=frozenset(("Const", "Placeholder")),
    window=lambda operator: math.prod(operator.options["ksize"].list.i),
)


def _count_tflite_matmul(operator: Operator) -> int:
    return count_matmul(
        operator, bool(operator.options.get("adjX")), bool(operator.options.get("adjY"))
    )


def _count_recurrent(operator: Operator) -> int:
    """Return the MACs of a recurrent layer: each step multiplies by each matrix of the cell.

    The projection matrix counts too. Vectors (biases, peepholes) are elementwise work. A gate that
    is coupled to another has no matrices. A sequence covers all axes except the last.
    """
    source = require_shape(operator, 0)
    matrices = [
        tensor.known_shape
        for tensor in operator.inputs[1:]
        if tensor is not None and tensor.values is not None and len(tensor.shape or ()) == 2
    ]
    if not matrices:
        raise Uncountable("its matrices are not constants")
    return math.prod(source[:-1]) * sum(math.prod(matrix or ()) for matrix in matrices)


def _count_svdf(operator: Operator) -> int:
    """Return the MACs of a filter over features and, for each output, one over time."""
    features, time = require_shape(operator, 1), require_shape(operator, 2)
    return require_shape(operator, 0)[0] * (math.prod(features) + math.prod(time))


TFLITE = CostTable(
    rules={
        "CONV_2D": build_convolution_rule(1, None),  # (filters, height, width, channels of a group)
        "CONV_3D": build_convolution_rule(0, -1),
        # (1, height, width, channels * multiplier)
        "DEPTHWISE_CONV_2D": build_convolution_rule(1, 3),
        "TRANSPOSE_CONV": build_convolution_rule(0, -1, 2),
        "CONV_3D_TRANSPOSE": build_convolution_rule(0, -1, 2),
        "FULLY_CONNECTED": build_convolution_rule(1, 2),  # (units, inputs)
        "BATCH_MATMUL": _count_tflite_matmul,
        "SVDF": _count_svdf,
        **dict.fromkeys(
            (
                "UNIDIRECTIONAL_SEQUENCE_LSTM",
                "BIDIRECTIONAL_SEQUENCE_LSTM",
                "LSTM",
                "RNN",
                "UNIDIRECTIONAL_SEQUENCE_RNN",
                "BIDIRECTIONAL_SEQUENCE_RNN",
            ),
            _count_recurrent,
        ),
    },
    equivalent_classes={
        **map_kinds(
            """
        ASSIGN_VARIABLE BATCH_TO_SPACE_ND BITCAST BROADCAST_ARGS BROADCAST_TO CAST CONCATENATION
        CONCAT_EMBEDDINGS DENSIFY DEPTH_TO_SPACE DYNAMIC_UPDATE_SLICE EMBEDDING_LOOKUP
        EXPAND_DIMS FILL GATHER GATHER_ND IMAG MATRIX_DIAG MATRIX_SET_DIAG MIRROR_PAD ONE_HOT
        PACK PAD PADV2 RANGE RANK READ_VARIABLE REAL RESHAPE REVERSE_SEQUENCE REVERSE_V2
        SCATTER_ND SHAPE SLICE SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPARSE_TO_DENSE SPLIT SPLIT_V
        SQUEEZE STRIDED_SLICE TILE TRANSPOSE UNPACK ZEROS_LIKE RANDOM_STANDARD_NORMAL
        RANDOM_UNIFORM HASHTABLE HASHTABLE_IMPORT HASHTABLE_SIZE HASHTABLE_FIND HASHTABLE_LOOKUP
        STABLEHLO_BROADCAST_IN_DIM STABLEHLO_CONCATENATE STABLEHLO_CONVERT
        STABLEHLO_DYNAMIC_SLICE STABLEHLO_DYNAMIC_UPDATE_SLICE STABLEHLO_GATHER STABLEHLO_IOTA
        STABLEHLO_PAD STABLEHLO_RESHAPE STABLEHLO_RNG_BIT_GENERATOR STABLEHLO_SCATTER
        STABLEHLO_SLICE STABLEHLO_TRANSPOSE
        """,
            "Identity",
        ),
        **map_kinds(
            """
        ARG_MAX ARG_MIN CUMSUM MEAN REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD
        SEGMENT_SUM SUM TOPK_V2 UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN
        UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM
        """,
            "Sum",
        ),
        **map_kinds("AVERAGE_POOL_2D L2_POOL_2D MAX_POOL_2D", "MaxPool"),
        **map_kinds("L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION", "Normalize"),
        **map_kinds(
            """
        ABS ADD ADD_N ATAN2 BITWISE_XOR BUCKETIZE CEIL COMPLEX_ABS COS DEQUANTIZE DIV ELU EQUAL
        EXP FAKE_QUANT FLOOR FLOOR_DIV FLOOR_MOD GELU GREATER GREATER_EQUAL HARD_SWISH
        LEAKY_RELU LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX
        MAXIMUM MINIMUM MUL MULTINOMIAL NEG NOT_EQUAL POW PRELU QUANTIZE RELU RELU6 RELU_0_TO_1
        RELU_N1_TO_1 RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR RIGHT_SHIFT ROUND RSQRT SELECT
        SELECT_V2 SIGN SIN SOFTMAX SQRT SQUARE SQUARED_DIFFERENCE SUB TANH WHERE DILATE
        STABLEHLO_ABS STABLEHLO_ADD STABLEHLO_AND STABLEHLO_CBRT STABLEHLO_CLAMP
        STABLEHLO_COMPARE STABLEHLO_COSINE STABLEHLO_DIVIDE STABLEHLO_EXPONENTIAL
        STABLEHLO_FLOOR STABLEHLO_LOG STABLEHLO_LOGISTIC STABLEHLO_MAXIMUM STABLEHLO_MINIMUM
        STABLEHLO_MULTIPLY STABLEHLO_NEGATE STABLEHLO_OR STABLEHLO_POWER STABLEHLO_REMAINDER
        STABLEHLO_RSQRT STABLEHLO_SELECT STABLEHLO_SHIFT_LEFT STABLEHLO_SUBTRACT STABLEHLO_TANH
        """,
            "Relu",
        ),
        # TensorFlow operations that a file can include as Flex operators
        **{f"Flex{kind}": alike for kind, alike in TENSORFLOW.equivalent_classes.items()},
    },
    reasons={
        **dict.fromkeys(
            (
                "STABLEHLO_CONVOLUTION",
                "STABLEHLO_DOT_GENERAL",
                "STABLEHLO_CUSTOM_CALL",
                "STABLEHLO_REDUCE",
                "STABLEHLO_REDUCE_WINDOW",
                "STABLEHLO_SORT",
                "STABLEHLO_CASE",
                "STABLEHLO_WHILE",
            ),
            "an operation of StableHLO, which LiteRT's own kernels do not run",
        ),
        **dict.fromkeys(
            (
                "NON_MAX_SUPPRESSION_V4",
                "NON_MAX_SUPPRESSION_V5",
                "EMBEDDING_LOOKUP_SPARSE",
                "LSH_PROJECTION",
                "SKIP_GRAM",
            ),
            _VALUES,
        ),
        "RFFT2D": _TRANSFORM,
        "REDUCE_WINDOW": "what it does in a window is not in its shapes",
        "CUSTOM": "code that is not in the file",
        "DELEGATE": "compiled for one device: what it does is not in the file",
        "PLACEHOLDER_FOR_GREATER_OP_CODES": "an operator that this version of the format lacks",
    },
    passthrough_kinds=frozenset(
        ("DEQUANTIZE", "DENSIFY", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CAST")
    ),
    loops=frozenset(("WHILE",)),
    branches=frozenset(("IF",)),
    calls=frozenset(("CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE")),
    sources=frozenset(("VAR_HANDLE",)),
    window=lambda operator: math.prod(
        operator.options.get(side, 1) for side in ("filterHeight", "filterWidth")
    ),
    unknown_reason="an operator that is not LiteRT's own: what it does is not in the file",
)

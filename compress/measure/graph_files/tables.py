"""Cost tables of LiteRT's and TensorFlow's operations: rules, kinds without MACs, reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from compress.measure import rules
from compress.measure.graph_files.records import Operator
from compress.measure.rules import Shape, Uncountable, other_ops

Rule = Callable[[Operator], int]
LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
_TRANSFORM = "a fast transform, not a sum of products by this convention"
_SOLVER = "a matrix decomposition or solver, whose work is not a fixed number of products"
_VALUES = "its work depends on values"


@dataclass(frozen=True)
class Table:
    """What is known of a format's operations, by kind.

    Attributes:
        rules: Count multiply-accumulates.
        alike: Of operations without any: the class of Keras that does the same work.
        reasons: Why a kind is not counted.
        moves: Kinds that hand a constant on: whoever reads what they make reads the constant.
        loops, branches, calls: Kinds with graphs of their own.
        sources: Kinds that make numbers of nothing: constants and inputs.
        window: Elements of a pooling window.
        unknown: Why a kind that stands nowhere is not counted.
    """

    rules: Mapping[str, Rule]
    alike: Mapping[str, str]
    reasons: Mapping[str, str]
    moves: frozenset[str]
    loops: frozenset[str]
    branches: frozenset[str]
    calls: frozenset[str]
    sources: frozenset[str]
    window: Callable[[Operator], int]
    unknown: str = "no counting rule for this operation"

    def macs(self, operator: Operator) -> tuple[int | None, str]:
        """Return multiply-accumulates, or None and why they are not counted."""
        kind = operator.kind
        if kind in self.rules:
            try:
                return int(self.rules[kind](operator)), ""
            except (Uncountable, ValueError) as error:
                return None, str(error)
        if kind in self.alike or kind in self.sources:
            return 0, ""
        return None, self.reasons.get(kind, self.unknown)

    def others(self, operator: Operator) -> int | None:
        """Return elementwise operations; None where a size is unknown."""
        kind = self.alike.get(operator.kind)
        if kind is None:
            return 0
        given = [tensor.known for tensor in operator.given[:1]]
        made = [tensor.known for tensor in operator.outputs]
        if None in given or None in made:
            return None
        return other_ops(
            kind,
            sum(math.prod(shape or ()) for shape in given),
            sum(math.prod(shape or ()) for shape in made),
            self.window(operator),
        )


def shape_of(operator: Operator, place: int | None) -> Shape:
    """Return the shape of an input, or (None) of the first output.

    Raises:
        Uncountable: A size is unknown, or the input is missing.
    """
    tensors = operator.outputs[:1] if place is None else operator.inputs[place : place + 1]
    if not tensors or tensors[0] is None or tensors[0].known is None:
        raise Uncountable("an input size is unknown; give input_shape (--input-shape)")
    return tensors[0].known


def convolution(first: int, last: int | None, place: int | None = None) -> Rule:
    """Make the rule of a convolution: each number of the output meets some axes of the kernel.

    Args:
        first, last: The axes of the kernel, which is the second input: all but the filters.
        place: Of a transposed convolution: the input that takes the place of the output.
    """
    return lambda operator: (
        math.prod(shape_of(operator, place)) * math.prod(shape_of(operator, 1)[first:last])
    )


def matmul(operator: Operator, *turned: bool) -> int:
    """Count a product of matrices.

    Args:
        operator: With two inputs.
        turned: Whether each of them is transposed first.
    """
    shapes = [list(shape_of(operator, place)) for place in (0, 1)]
    for shape, turn in zip(shapes, turned, strict=True):
        if turn:
            shape[-2:] = shape[:-3:-1]
    return rules.matmul(*shapes)


def names(text: str, value: str) -> dict[str, str]:
    """Return a table in which every kind of a text has the same value."""
    return dict.fromkeys(text.split(), value)


def _tf_matmul(operator: Operator) -> int:
    flags = (("transpose_a", "adj_x"), ("transpose_b", "adj_y"))
    return matmul(operator, *(any(operator.options[name].b for name in names) for names in flags))


def _tf_einsum(operator: Operator) -> int:
    if len(operator.inputs) == 1:
        return 0  # a transposition or a sum
    shapes = [shape_of(operator, place) for place in range(len(operator.inputs))]
    return rules.einsum(operator.options["equation"].s.decode(), *shapes)


TENSORFLOW = Table(
    rules={
        **dict.fromkeys(("Conv", "Conv2D", "Conv3D"), convolution(0, -1)),
        # (height, width, channels, multiplier)
        "DepthwiseConv2dNative": convolution(0, 2),
        **dict.fromkeys(
            ("Conv2DBackpropInput", "Conv2DBackpropInputV2", "Conv3DBackpropInput",
             "Conv3DBackpropInputV2"),
            convolution(0, -1, 2),
        ),
        "DepthwiseConv2dNativeBackpropInput": convolution(0, 2, 2),
        **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _tf_matmul),
        "Einsum": _tf_einsum,
    },
    alike={
        **names("""
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
        """, "Identity"),
        **names("""
        Sum Mean Max Min Prod All Any ArgMax ArgMin Cumsum Cumprod EuclideanNorm TopK TopKV2
        SegmentSum UnsortedSegmentSum UnsortedSegmentMax UnsortedSegmentMin SegmentMean SegmentMax
        Unique UniqueV2 Bincount DenseBincount InTopKV2
        """, "Sum"),
        **names("AvgPool AvgPool3D MaxPool MaxPoolV2 MaxPool3D MaxPoolWithArgmax", "MaxPool"),
        **names("""
        FusedBatchNorm FusedBatchNormV2 FusedBatchNormV3 LRN
        """, "Normalize"),
        **names("""
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
        """, "Relu"),
    },
    reasons={
        **names("FFT FFT2D FFT3D IFFT IFFT2D IFFT3D RFFT RFFT2D IRFFT IRFFT2D", _TRANSFORM),
        **names("""
        Cholesky MatrixInverse MatrixDeterminant MatrixSolve MatrixSolveLs MatrixTriangularSolve
        Qr Svd SelfAdjointEigV2 Eig Lu
        """, _SOLVER),
        **names("""
        SparseTensorDenseMatMul SparseMatMul NonMaxSuppressionV3 NonMaxSuppressionV4
        NonMaxSuppressionV5 CombinedNonMaxSuppression
        """, _VALUES),
        **names("LSTMBlockCell BlockLSTM BlockLSTMV2 GRUBlockCell CudnnRNN CudnnRNNV3",
                "a fused cell of TensorFlow 1"),
        **names("PyFunc EagerPyFunc", "Python code, which is not in the graph"),
    },
    moves=frozenset(
        ("Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast", "StopGradient")
    ),
    loops=frozenset(LOOPS),
    branches=frozenset(BRANCHES),
    calls=frozenset(),
    sources=frozenset(("Const", "Placeholder")),
    window=lambda operator: math.prod(operator.options["ksize"].list.i),
)  # fmt: skip


def _matmul(operator: Operator) -> int:
    return matmul(operator, bool(operator.options.get("adjX")), bool(operator.options.get("adjY")))


def _recurrent(operator: Operator) -> int:
    """Each step meets each matrix of the cell, the projection among them.

    Vectors (biases, peepholes) work elementwise. A gate that is coupled to another has no
    matrices, and a sequence runs over all axes but the last.
    """
    source = shape_of(operator, 0)
    matrices = [
        tensor.known
        for tensor in operator.inputs[1:]
        if tensor is not None and tensor.values is not None and len(tensor.shape or ()) == 2
    ]
    if not matrices:
        raise Uncountable("its matrices are not constants")
    return math.prod(source[:-1]) * sum(math.prod(matrix or ()) for matrix in matrices)


def _svdf(operator: Operator) -> int:
    """A filter over features, then one over time for each of its outputs."""
    features, time = shape_of(operator, 1), shape_of(operator, 2)
    return shape_of(operator, 0)[0] * (math.prod(features) + math.prod(time))


TFLITE = Table(
    rules={
        "CONV_2D": convolution(1, None),  # (filters, height, width, channels of a group)
        "CONV_3D": convolution(0, -1),
        "DEPTHWISE_CONV_2D": convolution(1, 3),  # (1, height, width, channels * multiplier)
        "TRANSPOSE_CONV": convolution(0, -1, 2),
        "CONV_3D_TRANSPOSE": convolution(0, -1, 2),
        "FULLY_CONNECTED": convolution(1, 2),  # (units, inputs)
        "BATCH_MATMUL": _matmul,
        "SVDF": _svdf,
        **dict.fromkeys(
            ("UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "RNN",
             "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN"),
            _recurrent,
        ),
    },
    alike={
        **names("""
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
        """, "Identity"),
        **names("""
        ARG_MAX ARG_MIN CUMSUM MEAN REDUCE_ALL REDUCE_ANY REDUCE_MAX REDUCE_MIN REDUCE_PROD
        SEGMENT_SUM SUM TOPK_V2 UNIQUE UNSORTED_SEGMENT_MAX UNSORTED_SEGMENT_MIN
        UNSORTED_SEGMENT_PROD UNSORTED_SEGMENT_SUM
        """, "Sum"),
        **names("AVERAGE_POOL_2D L2_POOL_2D MAX_POOL_2D", "MaxPool"),
        **names("L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION", "Normalize"),
        **names("""
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
        """, "Relu"),
        # operations of TensorFlow's that a file may ask for by name
        **{f"Flex{kind}": alike for kind, alike in TENSORFLOW.alike.items()},
    },
    reasons={
        **dict.fromkeys(
            ("STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "STABLEHLO_CUSTOM_CALL",
             "STABLEHLO_REDUCE", "STABLEHLO_REDUCE_WINDOW", "STABLEHLO_SORT", "STABLEHLO_CASE",
             "STABLEHLO_WHILE"),
            "an operation of StableHLO, which LiteRT's own kernels do not run",
        ),
        **dict.fromkeys(
            ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "EMBEDDING_LOOKUP_SPARSE",
             "LSH_PROJECTION", "SKIP_GRAM"),
            _VALUES,
        ),
        "RFFT2D": _TRANSFORM,
        "REDUCE_WINDOW": "what it does in a window is not in its shapes",
        "CUSTOM": "code that is not in the file",
        "DELEGATE": "compiled for one device: what it does is not in the file",
        "PLACEHOLDER_FOR_GREATER_OP_CODES": "an operator that this version of the format lacks",
    },
    moves=frozenset(
        ("DEQUANTIZE", "DENSIFY", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CAST")
    ),
    loops=frozenset(("WHILE",)),
    branches=frozenset(("IF",)),
    calls=frozenset(("CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE")),
    sources=frozenset(("VAR_HANDLE",)),
    window=lambda operator: math.prod(
        operator.options.get(side, 1) for side in ("filterHeight", "filterWidth")
    ),
    unknown="an operator that is not LiteRT's own: what it does is not in the file",
)  # fmt: skip

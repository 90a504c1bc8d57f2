"""TensorFlow's operations: counting rules, and what is no multiply-accumulate."""

from __future__ import annotations

import math
from typing import Any

from compress.measure import macs
from compress.measure.graph_files.records import Operator
from compress.measure.graph_files.tables import (
    Rule,
    Table,
    convolution,
    made_by,
    matmul,
    names,
    shape_of,
    transposed_convolution,
)
from compress.measure.graph_files.tf_builder import BRANCHES, LOOPS


def _attribute(operator: Operator, name: str) -> Any:
    return operator.options["node"][name]


def _depthwise(operator: Operator) -> int:
    kernel = shape_of(operator, 1)  # (height, width, channels, multiplier)
    return math.prod(made_by(operator)) * math.prod(kernel[:2])


def _depthwise_transposed(operator: Operator) -> int:
    return math.prod(shape_of(operator, 2)) * math.prod(shape_of(operator, 1)[:2])


def _matmul(operator: Operator) -> int:
    flags = (("transpose_a", "adj_x"), ("transpose_b", "adj_y"))
    return matmul(
        operator, *(any(_attribute(operator, name).b for name in names) for names in flags)
    )


def _einsum(operator: Operator) -> int:
    if len(operator.inputs) == 1:
        return 0  # a transposition or a sum
    shapes = [shape_of(operator, place) for place in range(len(operator.inputs))]
    return macs.einsum(_attribute(operator, "equation").s.decode(), *shapes)


RULES: dict[str, Rule] = {
    **dict.fromkeys(("Conv", "Conv2D", "Conv3D"), convolution),
    "DepthwiseConv2dNative": _depthwise,
    **dict.fromkeys(
        ("Conv2DBackpropInput", "Conv2DBackpropInputV2", "Conv3DBackpropInput",
         "Conv3DBackpropInputV2"),
        transposed_convolution,
    ),
    "DepthwiseConv2dNativeBackpropInput": _depthwise_transposed,
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3"), _matmul),
    "Einsum": _einsum,
}  # fmt: skip

ALIKE = {
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
}  # fmt: skip

_TRANSFORM = "a fast transform, not a sum of products by this convention"
_SOLVER = "a matrix decomposition or solver, whose work is not a fixed number of products"
_VALUES = "its work depends on values"
_CELL = "a fused cell of TensorFlow 1"
REASONS = {
    **names("FFT FFT2D FFT3D IFFT IFFT2D IFFT3D RFFT RFFT2D IRFFT IRFFT2D", _TRANSFORM),
    **names("""
        Cholesky MatrixInverse MatrixDeterminant MatrixSolve MatrixSolveLs MatrixTriangularSolve
        Qr Svd SelfAdjointEigV2 Eig Lu
    """, _SOLVER),
    **names("""
        SparseTensorDenseMatMul SparseMatMul NonMaxSuppressionV3 NonMaxSuppressionV4
        NonMaxSuppressionV5 CombinedNonMaxSuppression
    """, _VALUES),
    **names("LSTMBlockCell BlockLSTM BlockLSTMV2 GRUBlockCell CudnnRNN CudnnRNNV3", _CELL),
    **names("PyFunc EagerPyFunc", "Python code, which is not in the graph"),
}  # fmt: skip


def _window(operator: Operator) -> int:
    return math.prod(_attribute(operator, "ksize").list.i)


TENSORFLOW = Table(
    rules=RULES,
    alike=ALIKE,
    reasons=REASONS,
    moves=frozenset(
        ("Identity", "Reshape", "Squeeze", "ExpandDims", "Transpose", "Cast", "StopGradient")
    ),
    loops=frozenset(LOOPS),
    branches=frozenset(BRANCHES),
    calls=frozenset(),
    sources=frozenset(("Const", "Placeholder")),
    window=_window,
)

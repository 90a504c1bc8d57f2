"""LiteRT's operators: counting rules, and what is no multiply-accumulate."""

from __future__ import annotations

import math

from compress.measure import macs
from compress.measure.graph_files import tf_table
from compress.measure.graph_files.records import Operator
from compress.measure.graph_files.tables import (
    Rule,
    Table,
    convolution,
    convolved,
    made_by,
    matmul,
    names,
    shape_of,
    transposed_convolution,
)
from compress.measure.rules import Uncountable


def _conv(operator: Operator) -> int:
    kernel = shape_of(operator, 1)  # (filters, size ..., channels of a group)
    return convolved(made_by(operator), kernel, kernel[0])


def _depthwise(operator: Operator) -> int:
    kernel = shape_of(operator, 1)  # (1, height, width, channels * multiplier)
    return math.prod(made_by(operator)) * math.prod(kernel[1:3])


def _dense(operator: Operator) -> int:
    units, inputs = shape_of(operator, 1)[:2]
    return macs.dense(math.prod(made_by(operator)) // max(1, units), inputs, units)


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


RULES: dict[str, Rule] = {
    "CONV_2D": _conv,
    "CONV_3D": convolution,
    "DEPTHWISE_CONV_2D": _depthwise,
    "TRANSPOSE_CONV": transposed_convolution,
    "CONV_3D_TRANSPOSE": transposed_convolution,
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _matmul,
    "SVDF": _svdf,
    **dict.fromkeys(
        ("UNIDIRECTIONAL_SEQUENCE_LSTM", "BIDIRECTIONAL_SEQUENCE_LSTM", "LSTM", "RNN",
         "UNIDIRECTIONAL_SEQUENCE_RNN", "BIDIRECTIONAL_SEQUENCE_RNN"),
        _recurrent,
    ),
}  # fmt: skip

ALIKE = {
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
    **{f"Flex{kind}": alike for kind, alike in tf_table.ALIKE.items()},
}  # fmt: skip

_STABLEHLO = "an operation of StableHLO, which LiteRT's own kernels do not run"
_CHOOSES = "its work depends on values"
REASONS = {
    **dict.fromkeys(
        ("STABLEHLO_CONVOLUTION", "STABLEHLO_DOT_GENERAL", "STABLEHLO_CUSTOM_CALL",
         "STABLEHLO_REDUCE", "STABLEHLO_REDUCE_WINDOW", "STABLEHLO_SORT", "STABLEHLO_CASE",
         "STABLEHLO_WHILE"),
        _STABLEHLO,
    ),
    **dict.fromkeys(
        ("NON_MAX_SUPPRESSION_V4", "NON_MAX_SUPPRESSION_V5", "EMBEDDING_LOOKUP_SPARSE",
         "LSH_PROJECTION", "SKIP_GRAM"),
        _CHOOSES,
    ),
    "RFFT2D": "a fast transform, not a sum of products by this convention",
    "REDUCE_WINDOW": "what it does in a window is not in its shapes",
    "CUSTOM": "code that is not in the file",
    "DELEGATE": "compiled for one device: what it does is not in the file",
    "PLACEHOLDER_FOR_GREATER_OP_CODES": "an operator that this version of the format lacks",
}  # fmt: skip


def _window(operator: Operator) -> int:
    return int(operator.options.get("filterHeight", 1)) * int(
        operator.options.get("filterWidth", 1)
    )


TFLITE = Table(
    rules=RULES,
    alike=ALIKE,
    reasons=REASONS,
    moves=frozenset(
        ("DEQUANTIZE", "DENSIFY", "RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "CAST")
    ),
    loops=frozenset(("WHILE",)),
    branches=frozenset(("IF",)),
    calls=frozenset(("CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE")),
    sources=frozenset(("VAR_HANDLE",)),
    window=_window,
    unknown="an operator that is not LiteRT's own: what it does is not in the file",
)

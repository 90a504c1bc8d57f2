"""Classification of Keras's layer and operation classes, and tables of rules by class.

Layers and raw operations share one table: `keras.layers.ReLU` and `keras.ops.relu` compute the same
function. To add a class, put its name into the row of similar classes or give it a row of its own.
The names are strings, so that Keras is not imported.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from compress.core.lazy_modules import keras

KERNEL, BIAS, NORMALIZATION = "kernels", "biases", "normalization"
EMBEDDING, DEPTHWISE = "embeddings", "depthwise"

MOVES, REDUCES, POOLS = "moves", "reduces", "pools"
NORMALIZES, ELEMENTWISE = "normalizes", "elementwise"
UNCOUNTED = frozenset([MOVES, REDUCES, POOLS, NORMALIZES, ELEMENTWISE])
"""Kinds of work without multiply-accumulates.

`MOVES`: moves, selects or fills values, no arithmetic. `REDUCES`: one operation per element of the
first input. `POOLS`: one operation per element of each window. `NORMALIZES`: two operations (scale
and shift) per output element. `ELEMENTWISE`: one operation per output element.
"""

TRAITS = {
    "linear": "linear except for its activation; pooling and normalization count as linear, "
    "because shortcuts consist of them",
    "linear_by_constant": "linear where only one operand is a tensor",
    "entrywise": "a raw operation that computes each entry for itself, with broadcasting",
    "multiplies": "multiplies activations by each other",
    "loose": "computes each element for itself or moves it; in integer files it is computed in "
    "floats if it follows a product of activations",
    "keeps_shifts": "a constant added to an input channel is added to the output channel",
    "pads": "puts zeros around positions",
    "inert": "passes values on unchanged in inference",
    "left_out": "inert, but draws random numbers that no converter supports: excluded from files",
}
"""Traits of a class by name, with their meanings."""


@dataclass(frozen=True)
class LayerClass:
    """Row of the class table: properties of one Keras class.

    Attributes:
        work: One of `UNCOUNTED`, the name of the rule in `compress.measure.rules` that counts the
            multiply-accumulates of the class, or the reason why they are not counted. Empty if the
            class is unknown.
        traits: Names from `TRAITS`.
        weights: Pairs of the name of an attribute that holds prunable weights and their kind, like
            `KERNEL`.
    """

    work: str = ""
    traits: frozenset[str] = frozenset()
    weights: tuple[tuple[str, str], ...] = ()


def _build_rows(
    names: str, work: str, traits: str = "", weights: tuple[tuple[str, str], ...] = ()
) -> dict[str, LayerClass]:
    return dict.fromkeys(names.split(), LayerClass(work, frozenset(traits.split()), weights))


_KERNEL = (("kernel", KERNEL), ("bias", BIAS))
_CELL = (("kernel", KERNEL), ("recurrent_kernel", KERNEL), ("bias", BIAS))
_DEPTHWISE = (("kernel", DEPTHWISE), ("bias", BIAS))
_SEPARABLE = (("depthwise_kernel", DEPTHWISE), ("pointwise_kernel", KERNEL), ("bias", BIAS))
_SCALED = (("gamma", NORMALIZATION), ("beta", NORMALIZATION))

CLASSES = {
    # layers with kernels
    **_build_rows("Conv1D Conv2D Conv3D", "convolution", "linear", _KERNEL),
    **_build_rows(
        "Conv1DTranspose Conv2DTranspose Conv3DTranspose", "transposed", "linear", _KERNEL
    ),
    **_build_rows("DepthwiseConv1D DepthwiseConv2D", "depthwise", "linear", _DEPTHWISE),
    **_build_rows("SeparableConv1D SeparableConv2D", "separable", "linear", _SEPARABLE),
    **_build_rows("Dense", "dense", "linear", _KERNEL),
    **_build_rows("EinsumDense", "einsum_dense", "linear", _KERNEL),
    **_build_rows("LSTM GRU SimpleRNN RNN", "recurrent"),
    **_build_rows("LSTMCell GRUCell SimpleRNNCell StackedRNNCells", "recurrent_cell", "", _CELL),
    **_build_rows("ConvLSTM1D ConvLSTM2D ConvLSTM3D", "convolutional_lstm"),
    **_build_rows("Bidirectional", "bidirectional"),
    **_build_rows("TimeDistributed", "time_distributed"),
    **_build_rows("SpectralNormalization", "wrapper"),
    **_build_rows("Embedding", MOVES, "", (("embeddings", EMBEDDING),)),
    **_build_rows("ReversibleEmbedding", "reversible_embedding"),
    # attention and raw products
    **_build_rows("MultiHeadAttention", "multi_head_attention"),
    **_build_rows("GroupedQueryAttention", "grouped_query_attention"),
    **_build_rows("Attention", "dot_attention"),
    **_build_rows("AdditiveAttention", "additive_attention"),
    **_build_rows("DotProductAttention", "dot_product_attention", "multiplies"),
    **_build_rows("Dot", "dot", "multiplies"),
    **_build_rows("Einsum", "einsum", "multiplies"),
    **_build_rows("Matmul", "matmul", "multiplies"),
    **_build_rows("Inner", "dot"),
    **_build_rows("Tensordot", "tensordot"),
    **_build_rows("Vdot", "vdot"),
    **_build_rows("Conv", "raw_convolution"),
    **_build_rows("ConvTranspose", "raw_transposed"),
    **_build_rows("DepthwiseConv", "raw_depthwise"),
    **_build_rows("SeparableConv", "raw_separable"),
    # normalization and pooling
    **_build_rows(
        "BatchNormalization LayerNormalization GroupNormalization", NORMALIZES, "linear", _SCALED
    ),
    **_build_rows("RMSNormalization", NORMALIZES, "linear", (("scale", NORMALIZATION),)),
    **_build_rows(
        "UnitNormalization Normalization BatchNorm LayerNorm RMSNorm Normalize",
        NORMALIZES,
        "linear",
    ),
    **_build_rows(
        """
        MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
        """,
        POOLS,
        "linear keeps_shifts",
    ),
    **_build_rows("MaxPool AveragePool", POOLS, "linear"),
    **_build_rows(
        "GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D",
        REDUCES,
        "linear keeps_shifts",
    ),
    **_build_rows(
        "GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D", REDUCES, "keeps_shifts"
    ),
    # no effect in inference
    **_build_rows(
        """
        Dropout GaussianDropout Identity SpatialDropout1D SpatialDropout2D SpatialDropout3D
        """,
        MOVES,
        "linear inert keeps_shifts",
    ),
    **_build_rows("GaussianNoise", MOVES, "linear inert left_out keeps_shifts"),
    **_build_rows("ActivityRegularization AlphaDropout", MOVES, "linear inert"),
    **_build_rows("StopGradient", MOVES, "linear inert entrywise"),
    **_build_rows(
        """
        AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration
        RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
        RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
        RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
        RandomTranslation RandomZoom
        """,
        MOVES,
        "linear inert left_out",
    ),
    **_build_rows("Equalization Solarization", ELEMENTWISE, "inert left_out"),
    # moves, selects or fills values
    **_build_rows("ZeroPadding1D ZeroPadding2D ZeroPadding3D", MOVES, "linear pads"),
    **_build_rows("UpSampling1D UpSampling2D UpSampling3D", MOVES, "linear keeps_shifts"),
    **_build_rows(
        "ExpandDims Permute Reshape Split Squeeze Swapaxes Transpose", MOVES, "linear loose"
    ),
    **_build_rows(
        """
        Array Cast ConvertToTensor Copy FullLike Imag OnesLike Real SaturateCast ZerosLike
        """,
        MOVES,
        "linear entrywise",
    ),
    **_build_rows("MultiHot OneHot", MOVES),
    **_build_rows(
        """
        Append Arange ArraySplit BroadcastTo CenterCrop Concatenate CropImages Cropping1D
        Cropping2D Cropping3D DepthToSpace Diag Diagflat Diagonal Dsplit Dstack EmptyLike
        ExtractPatches ExtractSequences Eye Flatten Flip Fliplr Flipud Full Geomspace GetItem
        Hsplit Hstack InputLayer Linspace Logspace Masking MaxNumBoundingBoxes Meshgrid Moveaxis
        Ndim Ones Pad PadImages Ravel Rearrange Repeat RepeatVector Roll Rot90 Scatter
        ScatterUpdate Size Slice SliceUpdate SpaceToDepth Stack Take TakeAlongAxis Tile Tril Triu
        Unfold UnravelIndex Unstack View ViewAsComplex ViewAsReal Vsplit Vstack Zeros
        """,
        MOVES,
        "linear",
    ),
    # reductions
    **_build_rows("Mean Sum", REDUCES, "linear"),
    **_build_rows(
        """
        AdaptiveAveragePool AdaptiveAveragePooling1D AdaptiveAveragePooling2D
        AdaptiveAveragePooling3D AdaptiveMaxPool AdaptiveMaxPooling1D AdaptiveMaxPooling2D
        AdaptiveMaxPooling3D All AllClose Amax Amin Any Argmax Argmin Argpartition Argsort
        BinaryCrossentropy Bincount CTCDecode CTCLoss CategoricalCrossentropy CountNonzero Cumprod
        Cumsum Digitize Histogram InTopK IsIn Logsumexp Max Median Min Moments Nanargmax Nanargmin
        Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile
        Nanstd Nansum Nanvar Nonzero Norm PSNR Percentile Prod Ptp Quantile SearchSorted SegmentMax
        SegmentMin SegmentProd SegmentReduction SegmentSum Sort SparseCategoricalCrossentropy Std
        TopK Trace Trapezoid Unique Var
        """,
        REDUCES,
    ),
    # elementwise
    **_build_rows("Add Subtract", ELEMENTWISE, "linear entrywise loose"),
    **_build_rows("Divide Multiply TrueDivide", ELEMENTWISE, "linear_by_constant entrywise loose"),
    **_build_rows("Maximum Minimum Relu Sigmoid Tanh Where", ELEMENTWISE, "entrywise loose"),
    **_build_rows("Activation", ELEMENTWISE, "linear loose"),
    **_build_rows("Softmax", ELEMENTWISE, "loose"),
    **_build_rows("Negative", ELEMENTWISE, "linear entrywise"),
    **_build_rows(
        """
        Absolute Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh BitwiseAnd
        BitwiseInvert BitwiseNot BitwiseOr BitwiseXor Cbrt Ceil Celu Clip Conjugate Cos Cosh
        Deg2rad DivideNoNan Elu Equal Erf Erfc Erfinv Exp Exp2 Expm1 Fabs Floor FloorDivide Fmax
        Fmin Fmod Gelu Greater GreaterEqual HardShrink HardSigmoid HardSilu HardTanh Heaviside
        Hypot I0 Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Ldexp LeakyRelu Less
        LessEqual Log Log10 Log1p Log2 LogSigmoid Logaddexp Logaddexp2 LogicalAnd LogicalNot
        LogicalOr LogicalXor Mod NanToNum NotEqual Power Rad2deg Reciprocal Relu6 Round Rsqrt Selu
        Sign Signbit Silu Sin Sinc Sinh SoftShrink Softplus Softsign SparsePlus SparseSigmoid Sqrt
        Square Squareplus Tan TanhShrink Threshold Trunc
        """,
        ELEMENTWISE,
        "entrywise",
    ),
    **_build_rows("Average LayerScale Rescaling Resize Resizing", ELEMENTWISE, "linear"),
    **_build_rows(
        """
        Abs AffineTransform AutoContrast BitwiseLeftShift BitwiseRightShift CategoryEncoding Conj
        ContrastLimitedAdaptiveHistogramEqualization Cross Diff Discretization ELU ElasticTransform
        Fold Gcd Glu HSVToRGB HashedCrossing Hashing IntegerLookup Kron Lcm LeakyReLU LeftShift
        LogSoftmax MapCoordinates Nextafter Outer PReLU PerspectiveTransform Polar RGBToGrayscale
        RGBToHSV ReLU RightShift ScaleAndTranslate Select Sparsemax StringLookup TextVectorization
        Vander
        """,
        ELEMENTWISE,
    ),
    # of InceptionResNetV2: counted as its inner sum and product
    **_build_rows("CustomScaleLayer", "", "linear"),
    # not counted
    **_build_rows(
        "AssociativeScan Cond ForiLoop JVP Map Scan Switch VectorizedMap WhileLoop",
        "control flow: how often its body runs is not in its shapes",
    ),
    **_build_rows(
        "FFT FFT2 IFFT2 IRFFT ISTFT MelSpectrogram RFFT STFT STFTSpectrogram",
        "a fast transform, not a sum of products by this convention",
    ),
    **_build_rows(
        """
        Cholesky CholeskyInverse Det Eig Eigh Inv Logdet Lstsq LuFactor MatrixRank Pinv Qr SVD
        Slogdet Solve SolveTriangular
        """,
        "a matrix decomposition or solver, whose work is not a fixed number of products",
    ),
    **_build_rows(
        "CDist Corrcoef Correlate GaussianBlur SSIM SobelEdges",
        "filters whose products are inside the operation",
    ),
    **_build_rows("FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper", "code of another framework"),
}
_UNKNOWN = LayerClass()


def find_named_class(name: str) -> LayerClass:
    """Return the row of a class name, for Keras's class and for others of the same name."""
    return CLASSES.get(name, _UNKNOWN)


def find_layer_class(operation: Any, *, keras_only: bool = False) -> LayerClass:
    """Return the row of a layer or raw operation, looked up by its class name.

    Args:
        operation: A layer or raw operation.
        keras_only: Treat a user's class as unknown even if it has the name of a Keras class.
    """
    if keras_only and not is_keras(operation):
        return _UNKNOWN
    return find_named_class(type(operation).__name__)


def is_keras(operation: Any) -> bool:
    """Return whether the class of a layer or raw operation is defined by Keras."""
    return type(operation).__module__.startswith("keras.")


def select_classes(*terms: str) -> frozenset[str]:
    """Return the names of all classes that have one of the given kinds of work or traits.

    Example:
        >>> sorted(select_classes("dense", "separable"))
        ['Dense', 'SeparableConv1D', 'SeparableConv2D']
    """
    return frozenset(
        name for name, row in CLASSES.items() if {row.work, *row.traits}.intersection(terms)
    )


Rule = TypeVar("Rule", bound=Callable[..., Any])
R = TypeVar("R", bound=Callable[..., Any])


class RuleTable(Generic[Rule]):
    """Rules by class, for Keras's layers, raw operations (`keras.ops`) and users' layers."""

    def __init__(self) -> None:
        self._layers: dict[str, Rule] = {}
        self._operations: dict[str, Rule] = {}
        self._custom: dict[type, Rule] = {}

    def register_layer(self, *names: str) -> Callable[[R], R]:
        """Return a decorator that registers a rule for Keras layers.

        Args:
            *names: Class names, like "Conv2D".
        """
        return self._build_decorator(self._layers, names)

    def register_operation(self, *names: str) -> Callable[[R], R]:
        """Return a decorator that registers a rule for raw operations.

        Args:
            *names: Class names, like "Add".
        """
        return self._build_decorator(self._operations, names)

    def register(self, layer_class: type, rule: Rule | None = None) -> Any:
        """Register a rule for a user's layer; usable as a decorator.

        Args:
            layer_class: The class of the layer. The rule also applies to subclasses that do not
                override its `call`.
            rule: The rule. Default: a decorator is returned.

        Returns:
            The rule, or the decorator.
        """
        if rule is None:
            return lambda function: self.register(layer_class, function)
        self._custom[layer_class] = rule
        return rule

    def find_rule(self, operation: Any) -> Rule | None:
        """Return the rule for a layer or raw operation, or None if there is none.

        The rule of a class also applies to subclasses that do not override `call`.
        """
        kind = type(operation)
        for parent in kind.__mro__:
            rule = self._custom.get(parent)
            if rule is None and parent.__module__.startswith("keras."):
                is_layer = issubclass(parent, keras.layers.Layer)
                rule = (self._layers if is_layer else self._operations).get(parent.__name__)
            if rule is not None:
                keeps_call = getattr(kind, "call", None) is getattr(parent, "call", None)
                return rule if keeps_call else None
        return None

    def list_rules(self) -> tuple[Rule, ...]:
        """Return the distinct rules for Keras classes."""
        return tuple(dict.fromkeys([*self._layers.values(), *self._operations.values()]))

    @staticmethod
    def _build_decorator(table: dict[str, Any], names: tuple[str, ...]) -> Callable[[R], R]:
        def register(rule: R) -> R:
            table.update(dict.fromkeys(names, rule))
            return rule

        return register

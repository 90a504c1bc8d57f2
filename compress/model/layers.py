"""One table of Keras's layer and operation classes, and tables of rules by class.

Layers and raw operations share the table: `keras.layers.ReLU` and `keras.ops.relu` do the same
work. A new class is a name in the row of classes like it, or a row of its own. The names are
strings: nothing of Keras is imported.
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
"""Work without multiply-accumulates: moves, selects or fills numbers; one operation an element of
the first input; one an element of each window; two an element of the output, scale and shift; one
an element of the output."""

TRAITS = {
    "linear": "no nonlinearity but its activation; pooling and normalization count as linear, "
    "shortcuts are made of them",
    "linear_by_constant": "linear where only one operand is a tensor",
    "entrywise": "a raw operation that computes each entry for itself, with broadcasting",
    "multiplies": "multiplies activations by each other",
    "loose": "computes each element for itself or moves it: in integer files it is computed in "
    "floats behind a product of activations",
    "keeps_shifts": "what is added to all of a channel it is given is added to what it returns",
    "pads": "puts zeros around positions",
    "inert": "passes values on unchanged in inference",
    "left_out": "inert, but draws random numbers that no converter knows: no part of a file",
}
"""Names and meanings of the traits of a class."""


@dataclass(frozen=True)
class LayerClass:
    """The table's row of a Keras class.

    Attributes:
        work: One of `UNCOUNTED`; the name of the rule in `compress.measure.rules` that counts its
            multiply-accumulates; or why they are not counted. Empty: the class is unknown.
        traits: Of `TRAITS`.
        weights: Attributes that hold weights to prune, and what these are.
    """

    work: str = ""
    traits: frozenset[str] = frozenset()
    weights: tuple[tuple[str, str], ...] = ()


def _row(
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
    **_row("Conv1D Conv2D Conv3D", "convolution", "linear", _KERNEL),
    **_row("Conv1DTranspose Conv2DTranspose Conv3DTranspose", "transposed", "linear", _KERNEL),
    **_row("DepthwiseConv1D DepthwiseConv2D", "depthwise", "linear", _DEPTHWISE),
    **_row("SeparableConv1D SeparableConv2D", "separable", "linear", _SEPARABLE),
    **_row("Dense", "dense", "linear", _KERNEL),
    **_row("EinsumDense", "einsum_dense", "linear", _KERNEL),
    **_row("LSTM GRU SimpleRNN RNN", "recurrent"),
    **_row("LSTMCell GRUCell SimpleRNNCell StackedRNNCells", "recurrent_cell", "", _CELL),
    **_row("ConvLSTM1D ConvLSTM2D ConvLSTM3D", "convolutional_lstm"),
    **_row("Bidirectional", "bidirectional"),
    **_row("TimeDistributed", "time_distributed"),
    **_row("SpectralNormalization", "wrapper"),
    **_row("Embedding", MOVES, "", (("embeddings", EMBEDDING),)),
    **_row("ReversibleEmbedding", "reversible_embedding"),
    # attention and raw products
    **_row("MultiHeadAttention", "multi_head_attention"),
    **_row("GroupedQueryAttention", "grouped_query_attention"),
    **_row("Attention", "dot_attention"),
    **_row("AdditiveAttention", "additive_attention"),
    **_row("DotProductAttention", "dot_product_attention", "multiplies"),
    **_row("Dot", "dot", "multiplies"),
    **_row("Einsum", "einsum", "multiplies"),
    **_row("Matmul", "matmul", "multiplies"),
    **_row("Inner", "dot"),
    **_row("Tensordot", "tensordot"),
    **_row("Vdot", "vdot"),
    **_row("Conv", "raw_convolution"),
    **_row("ConvTranspose", "raw_transposed"),
    **_row("DepthwiseConv", "raw_depthwise"),
    **_row("SeparableConv", "raw_separable"),
    # normalization and pooling
    **_row("BatchNormalization LayerNormalization GroupNormalization", NORMALIZES, "linear",
           _SCALED),
    **_row("RMSNormalization", NORMALIZES, "linear", (("scale", NORMALIZATION),)),
    **_row("UnitNormalization Normalization BatchNorm LayerNorm RMSNorm Normalize", NORMALIZES,
           "linear"),
    **_row("""
        MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
        """, POOLS, "linear keeps_shifts"),
    **_row("MaxPool AveragePool", POOLS, "linear"),
    **_row("GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D", REDUCES,
           "linear keeps_shifts"),
    **_row("GlobalMaxPooling1D GlobalMaxPooling2D GlobalMaxPooling3D", REDUCES, "keeps_shifts"),
    # what does nothing in inference
    **_row("""
        Dropout GaussianDropout Identity SpatialDropout1D SpatialDropout2D SpatialDropout3D
        """, MOVES, "linear inert keeps_shifts"),
    **_row("GaussianNoise", MOVES, "linear inert left_out keeps_shifts"),
    **_row("ActivityRegularization AlphaDropout", MOVES, "linear inert"),
    **_row("StopGradient", MOVES, "linear inert entrywise"),
    **_row("""
        AugMix CutMix MixUp RandAugment RandomBrightness RandomColorDegeneration
        RandomColorJitter RandomContrast RandomCrop RandomElasticTransform RandomErasing RandomFlip
        RandomGaussianBlur RandomGrayscale RandomHue RandomInvert RandomPerspective
        RandomPosterization RandomRotation RandomSaturation RandomSharpness RandomShear
        RandomTranslation RandomZoom
        """, MOVES, "linear inert left_out"),
    **_row("Equalization Solarization", ELEMENTWISE, "inert left_out"),
    # what moves, selects or fills numbers
    **_row("ZeroPadding1D ZeroPadding2D ZeroPadding3D", MOVES, "linear pads"),
    **_row("UpSampling1D UpSampling2D UpSampling3D", MOVES, "linear keeps_shifts"),
    **_row("ExpandDims Permute Reshape Split Squeeze Swapaxes Transpose", MOVES, "linear loose"),
    **_row("""
        Array Cast ConvertToTensor Copy FullLike Imag OnesLike Real SaturateCast ZerosLike
        """, MOVES, "linear entrywise"),
    **_row("MultiHot OneHot", MOVES),
    **_row("""
        Append Arange ArraySplit BroadcastTo CenterCrop Concatenate CropImages Cropping1D
        Cropping2D Cropping3D DepthToSpace Diag Diagflat Diagonal Dsplit Dstack EmptyLike
        ExtractPatches ExtractSequences Eye Flatten Flip Fliplr Flipud Full Geomspace GetItem
        Hsplit Hstack InputLayer Linspace Logspace Masking MaxNumBoundingBoxes Meshgrid Moveaxis
        Ndim Ones Pad PadImages Ravel Rearrange Repeat RepeatVector Roll Rot90 Scatter
        ScatterUpdate Size Slice SliceUpdate SpaceToDepth Stack Take TakeAlongAxis Tile Tril Triu
        Unfold UnravelIndex Unstack View ViewAsComplex ViewAsReal Vsplit Vstack Zeros
        """, MOVES, "linear"),
    # what reduces
    **_row("Mean Sum", REDUCES, "linear"),
    **_row("""
        AdaptiveAveragePool AdaptiveAveragePooling1D AdaptiveAveragePooling2D
        AdaptiveAveragePooling3D AdaptiveMaxPool AdaptiveMaxPooling1D AdaptiveMaxPooling2D
        AdaptiveMaxPooling3D All AllClose Amax Amin Any Argmax Argmin Argpartition Argsort
        BinaryCrossentropy Bincount CTCDecode CTCLoss CategoricalCrossentropy CountNonzero Cumprod
        Cumsum Digitize Histogram InTopK IsIn Logsumexp Max Median Min Moments Nanargmax Nanargmin
        Nancumprod Nancumsum Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod Nanquantile
        Nanstd Nansum Nanvar Nonzero Norm PSNR Percentile Prod Ptp Quantile SearchSorted SegmentMax
        SegmentMin SegmentProd SegmentReduction SegmentSum Sort SparseCategoricalCrossentropy Std
        TopK Trace Trapezoid Unique Var
        """, REDUCES),
    # what computes each element of its output
    **_row("Add Subtract", ELEMENTWISE, "linear entrywise loose"),
    **_row("Divide Multiply TrueDivide", ELEMENTWISE, "linear_by_constant entrywise loose"),
    **_row("Maximum Minimum Relu Sigmoid Tanh Where", ELEMENTWISE, "entrywise loose"),
    **_row("Activation", ELEMENTWISE, "linear loose"),
    **_row("Softmax", ELEMENTWISE, "loose"),
    **_row("Negative", ELEMENTWISE, "linear entrywise"),
    **_row("""
        Absolute Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh BitwiseAnd
        BitwiseInvert BitwiseNot BitwiseOr BitwiseXor Cbrt Ceil Celu Clip Conjugate Cos Cosh
        Deg2rad DivideNoNan Elu Equal Erf Erfc Erfinv Exp Exp2 Expm1 Fabs Floor FloorDivide Fmax
        Fmin Fmod Gelu Greater GreaterEqual HardShrink HardSigmoid HardSilu HardTanh Heaviside
        Hypot I0 Isclose Isfinite Isinf Isnan Isneginf Isposinf Isreal Ldexp LeakyRelu Less
        LessEqual Log Log10 Log1p Log2 LogSigmoid Logaddexp Logaddexp2 LogicalAnd LogicalNot
        LogicalOr LogicalXor Mod NanToNum NotEqual Power Rad2deg Reciprocal Relu6 Round Rsqrt Selu
        Sign Signbit Silu Sin Sinc Sinh SoftShrink Softplus Softsign SparsePlus SparseSigmoid Sqrt
        Square Squareplus Tan TanhShrink Threshold Trunc
        """, ELEMENTWISE, "entrywise"),
    **_row("Average LayerScale Rescaling Resize Resizing", ELEMENTWISE, "linear"),
    **_row("""
        Abs AffineTransform AutoContrast BitwiseLeftShift BitwiseRightShift CategoryEncoding Conj
        ContrastLimitedAdaptiveHistogramEqualization Cross Diff Discretization ELU ElasticTransform
        Fold Gcd Glu HSVToRGB HashedCrossing Hashing IntegerLookup Kron Lcm LeakyReLU LeftShift
        LogSoftmax MapCoordinates Nextafter Outer PReLU PerspectiveTransform Polar RGBToGrayscale
        RGBToHSV ReLU RightShift ScaleAndTranslate Select Sparsemax StringLookup TextVectorization
        Vander
        """, ELEMENTWISE),
    # of InceptionResNetV2: counted as the sum and the product that it is made of
    **_row("CustomScaleLayer", "", "linear"),
    # what is not counted
    **_row("AssociativeScan Cond ForiLoop JVP Map Scan Switch VectorizedMap WhileLoop",
           "control flow: how often its body runs is not in its shapes"),
    **_row("FFT FFT2 IFFT2 IRFFT ISTFT MelSpectrogram RFFT STFT STFTSpectrogram",
           "a fast transform, not a sum of products by this convention"),
    **_row("""
        Cholesky CholeskyInverse Det Eig Eigh Inv Logdet Lstsq LuFactor MatrixRank Pinv Qr SVD
        Slogdet Solve SolveTriangular
        """, "a matrix decomposition or solver, whose work is not a fixed number of products"),
    **_row("CDist Corrcoef Correlate GaussianBlur SSIM SobelEdges",
           "filters whose products are inside the operation"),
    **_row("FlaxLayer JaxLayer TFSMLayer TorchModuleWrapper", "code of another framework"),
}  # fmt: skip
_UNKNOWN = LayerClass()


def class_named(name: str) -> LayerClass:
    """Return the row of a class name, whether Keras's class or another of the same name."""
    return CLASSES.get(name, _UNKNOWN)


def class_of(operation: Any, *, keras_only: bool = False) -> LayerClass:
    """Return the row of a layer's or raw operation's class, by the class's name.

    Args:
        operation: Any.
        keras_only: Know nothing of a class of the user's that bears a name of Keras's.
    """
    if keras_only and not is_keras(operation):
        return _UNKNOWN
    return class_named(type(operation).__name__)


def is_keras(operation: Any) -> bool:
    """Return whether the class of a layer or raw operation is Keras's own."""
    return type(operation).__module__.startswith("keras.")


def select_classes(*terms: str) -> frozenset[str]:
    """Return the names of all classes that have one of the given works or traits.

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
    """Rules by class: of Keras's layers, of raw operations (`keras.ops`), and of users' layers."""

    def __init__(self) -> None:
        self._layers: dict[str, Rule] = {}
        self._operations: dict[str, Rule] = {}
        self._custom: dict[type, Rule] = {}

    def layer(self, *names: str) -> Callable[[R], R]:
        """Register a rule for Keras's own layers of these class names."""
        return self._registering(self._layers, names)

    def operation(self, *names: str) -> Callable[[R], R]:
        """Register a rule for raw operations of these class names."""
        return self._registering(self._operations, names)

    def register(self, layer_class: type, rule: Rule | None = None) -> Any:
        """Register a rule for a layer of the user's; usable as a decorator.

        Args:
            layer_class: The layer's class; subclasses that keep its `call` are meant too.
            rule: Default: returns a decorator.

        Returns:
            The rule.
        """
        if rule is None:
            return lambda function: self.register(layer_class, function)
        self._custom[layer_class] = rule
        return rule

    def of(self, operation: Any) -> Rule | None:
        """Return the rule for a layer or raw operation; None: there is none.

        A subclass of a known layer is known too as long as it does not change `call`.
        """
        kind = type(operation)
        for parent in kind.__mro__:
            rule = self._custom.get(parent)
            if rule is None and parent.__module__.startswith("keras."):
                layer = issubclass(parent, keras.layers.Layer)
                rule = (self._layers if layer else self._operations).get(parent.__name__)
            if rule is not None:
                own = getattr(kind, "call", None) is getattr(parent, "call", None)
                return rule if own else None
        return None

    def names(self) -> tuple[str, ...]:
        """Return all names with a rule: "Conv2D", "ops.Add"."""
        return (*sorted(self._layers), *(f"ops.{name}" for name in sorted(self._operations)))

    def rules(self) -> tuple[Rule, ...]:
        """Return every rule for a class of Keras once."""
        return tuple(dict.fromkeys([*self._layers.values(), *self._operations.values()]))

    @staticmethod
    def _registering(table: dict[str, Any], names: tuple[str, ...]) -> Callable[[R], R]:
        def register(rule: R) -> R:
            table.update(dict.fromkeys(names, rule))
            return rule

        return register

"""What Keras's classes do that is no multiply-accumulate, by class name.

Layers and raw operations share the table: `keras.layers.ReLU` and `keras.ops.relu` do the same
work. A class that stands nowhere here and has no counting rule is reported by name.
"""

from __future__ import annotations


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


MOVES = _names("""
    Dropout SpatialDropout1D SpatialDropout2D SpatialDropout3D GaussianDropout GaussianNoise
    AlphaDropout ActivityRegularization Concatenate Flatten Reshape Permute RepeatVector
    ZeroPadding1D ZeroPadding2D ZeroPadding3D Cropping1D Cropping2D Cropping3D UpSampling1D
    UpSampling2D UpSampling3D Embedding Identity Masking InputLayer CenterCrop
    RandomBrightness RandomColorDegeneration RandomColorJitter RandomContrast RandomCrop
    RandomElasticTransform RandomErasing RandomFlip RandomGaussianBlur RandomGrayscale RandomHue
    RandomInvert RandomPerspective RandomPosterization RandomRotation RandomSaturation
    RandomSharpness RandomShear RandomTranslation RandomZoom RandAugment AugMix MixUp CutMix
    MaxNumBoundingBoxes
    Transpose Squeeze ExpandDims Pad GetItem Split Stack Cast SaturateCast ConvertToTensor
    Scatter ScatterUpdate Slice SliceUpdate StopGradient Unstack Rearrange CropImages
    ExtractPatches PadImages ExtractSequences ViewAsComplex ViewAsReal DepthToSpace SpaceToDepth
    Unfold OneHot MultiHot Append Arange Array ArraySplit BroadcastTo Copy Diag Diagflat Diagonal
    Dsplit Dstack EmptyLike Flip Fliplr Flipud Full FullLike Geomspace Hsplit Hstack Imag
    Linspace Logspace Meshgrid Moveaxis Ndim OnesLike Ravel Real Repeat Roll Rot90 Size Swapaxes
    Take TakeAlongAxis Tile Tril Triu UnravelIndex View Vsplit Vstack ZerosLike
    Eye Identity Ones Zeros
""")
"""They move, select or fill numbers; random layers do nothing in inference."""

REDUCES = _names("""
    Sum Mean Max Min Amax Amin All Any Argmax Argmin Prod Std Var Median Quantile Percentile Ptp
    CountNonzero Nanargmax Nanargmin Nanmax Nanmean Nanmedian Nanmin Nanpercentile Nanprod
    Nanquantile Nanstd Nansum Nanvar Logsumexp Norm Moments Trapezoid Trace Cumsum Cumprod
    Nancumsum Nancumprod SegmentMax SegmentMin SegmentProd SegmentReduction SegmentSum
    GlobalAveragePooling1D GlobalAveragePooling2D GlobalAveragePooling3D GlobalMaxPooling1D
    GlobalMaxPooling2D GlobalMaxPooling3D AdaptiveAveragePooling1D AdaptiveAveragePooling2D
    AdaptiveAveragePooling3D AdaptiveMaxPooling1D AdaptiveMaxPooling2D AdaptiveMaxPooling3D
    AdaptiveAveragePool AdaptiveMaxPool AllClose Bincount Histogram Unique Nonzero
    Argpartition Argsort Sort TopK InTopK SearchSorted Digitize IsIn
    BinaryCrossentropy CategoricalCrossentropy SparseCategoricalCrossentropy CTCLoss CTCDecode
    PSNR
""")
"""One operation an element of the first input."""

POOLS = _names("""
    MaxPooling1D MaxPooling2D MaxPooling3D AveragePooling1D AveragePooling2D AveragePooling3D
    MaxPool AveragePool
""")
"""One operation an element of each window."""

NORMALIZES = _names("""
    BatchNormalization LayerNormalization GroupNormalization RMSNormalization UnitNormalization
    Normalization BatchNorm LayerNorm RMSNorm Normalize
""")
"""Two operations an element of the output: scale and shift."""

ELEMENTWISE = _names("""
    Activation ReLU LeakyReLU PReLU ELU Softmax Rescaling Add Subtract Multiply Average Maximum
    Minimum Resizing AutoContrast ContrastLimitedAdaptiveHistogramEqualization Equalization
    Solarization CategoryEncoding Discretization Hashing HashedCrossing IntegerLookup StringLookup
    TextVectorization
    Divide Negative Absolute Sqrt Square Exp Log Relu Relu6 Sigmoid Silu Gelu Tanh HardSigmoid
    HardSilu Softplus Clip Abs Angle Arccos Arccosh Arcsin Arcsinh Arctan Arctan2 Arctanh
    BitwiseAnd BitwiseInvert BitwiseLeftShift BitwiseNot BitwiseOr BitwiseRightShift BitwiseXor
    Cbrt Ceil Conj Conjugate Cos Cosh Cross Deg2rad Diff DivideNoNan Equal Exp2 Expm1 Fabs Floor
    FloorDivide Fmax Fmin Fmod Gcd Greater GreaterEqual Heaviside Hypot I0 Isclose Isfinite Isinf
    Isnan Isneginf Isposinf Isreal Kron Lcm Ldexp LeftShift Less LessEqual Log10 Log1p Log2
    Logaddexp Logaddexp2 LogicalAnd LogicalNot LogicalOr LogicalXor Mod NanToNum Nextafter
    NotEqual Outer Power Rad2deg Reciprocal RightShift Round Select Sign Signbit Sin Sinc Sinh
    Tan TrueDivide Trunc Vander Where Celu Elu Glu HardShrink HardTanh LeakyRelu LogSigmoid
    LogSoftmax Polar Selu SoftShrink Softsign SparsePlus SparseSigmoid Sparsemax Squareplus
    TanhShrink Threshold Erf Erfc Erfinv Rsqrt HSVToRGB RGBToGrayscale RGBToHSV Resize
    AffineTransform ElasticTransform MapCoordinates PerspectiveTransform ScaleAndTranslate Fold
    LayerScale
""")
"""One operation an element of the output."""

COUNTED_ZERO = MOVES | REDUCES | POOLS | NORMALIZES | ELEMENTWISE

_FLOW = "control flow: how often its body runs is not in its shapes"
_TRANSFORM = "a fast transform, not a sum of products by this convention"
_SOLVER = "a matrix decomposition or solver, whose work is not a fixed number of products"
_FILTER = "filters whose products are inside the operation"
_FOREIGN = "code of another framework"
REASONS = {
    **dict.fromkeys(
        ("AssociativeScan", "Cond", "ForiLoop", "Map", "Scan", "Switch", "VectorizedMap",
         "WhileLoop", "JVP"),
        _FLOW,
    ),
    **dict.fromkeys(
        ("FFT", "FFT2", "IFFT2", "IRFFT", "ISTFT", "RFFT", "STFT", "STFTSpectrogram",
         "MelSpectrogram"),
        _TRANSFORM,
    ),
    **dict.fromkeys(
        ("Cholesky", "CholeskyInverse", "Det", "Eig", "Eigh", "Inv", "Lstsq", "LuFactor",
         "MatrixRank", "Pinv", "Qr", "SVD", "Solve", "SolveTriangular", "Logdet", "Slogdet"),
        _SOLVER,
    ),
    **dict.fromkeys(
        ("Correlate", "Corrcoef", "CDist", "GaussianBlur", "SobelEdges", "SSIM"), _FILTER
    ),
    **dict.fromkeys(("TFSMLayer", "JaxLayer", "FlaxLayer", "TorchModuleWrapper"), _FOREIGN),
}  # fmt: skip
"""Why a class of Keras's is not counted."""


def other_ops(kind: str, source: int, target: int, window: int) -> int:
    """Returns the elementwise operations of a call, by the convention of this module.

    Args:
        kind: Class name.
        source: Elements of the first input.
        target: Elements of all outputs.
        window: Elements of a pooling window.
    """
    if kind in MOVES:
        return 0
    if kind in REDUCES:
        return source
    if kind in POOLS:
        return target * window
    if kind in NORMALIZES:
        return 2 * target
    return target if kind in ELEMENTWISE else 0

"""The plan: the frozen record that says everything the compress stage does."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from compress.options import option, require, require_choice

SCHEDULES = ("constant", "cosine", "exponential")
OPTIMIZERS = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw")
NORMALIZATIONS = ("auto", "standardize", "unit", "none")
FORMATS = ("float32", "int8", "sparse")
RUNTIMES = ("litert", "mnn")
CLASS_WEIGHTS = ("none", "balanced")
DEVICES = ("auto", "cpu", "gpu")

MIN_FINETUNE_EPOCHS = 4
FINETUNE_STEPS = 1000


def require_epochs(name: str, value: int) -> None:
    """Checks an epoch count."""
    require(value >= 1, name, "be at least 1", value)


@dataclass(frozen=True)
class DataOptions:
    """Where the examples come from and how they are split and scaled."""

    source: str = option(
        "digits",
        "--data",
        "digits, fashion_mnist, mnist, cifar10, ...; a folder of IDX files or of class "
        "sub-folders; an .npz file; package.module:function",
    )
    normalize: str = option(
        "auto",
        "--normalize",
        "standardize (per channel, training statistics), unit (pixels to [0, 1]), none, or "
        "auto: what the model's own run stored, else standardize",
    )
    val_fraction: float = option(
        0.15, "--val-fraction", "share of the training part held out where there is no validation"
    )
    test_fraction: float = option(
        0.2, "--test-fraction", "share held out for the test where the source has no test part"
    )

    def __post_init__(self) -> None:
        require_choice("normalization", self.normalize, NORMALIZATIONS)
        for name in ("val_fraction", "test_fraction"):
            value = getattr(self, name)
            require(0 < value < 1, name, "be in (0, 1)", value)


@dataclass(frozen=True)
class TrainSettings:
    """How a model is trained, by the one training loop.

    `epochs=None` means enough epochs for 1,000 steps and no fewer than 4: on small
    data an epoch is too short to prune in.
    """

    epochs: int | None = option(
        None,
        "--finetune-epochs --epochs",
        "epochs of fine-tuning; default: enough for 1000 steps, at least 4",
    )
    optimizer: str = option("adam", "--finetune-optimizer --optimizer", ", ".join(OPTIMIZERS))
    learning_rate: float = option(1e-3, "--learning-rate", "peak learning rate of fine-tuning")
    schedule: str = option("cosine", "--schedule", "learning rate: " + ", ".join(SCHEDULES))
    batch_size: int = option(128, "--batch-size", "examples per step of fine-tuning")
    weight_decay: float = option(0.0, "--weight-decay", "decoupled weight decay of kernels")
    label_smoothing: float = option(0.0, "--label-smoothing", "share moved to the other classes")
    class_weights: str = option(
        "none", "--class-weights", "none, or balanced: rare classes weigh more, in every training"
    )

    def __post_init__(self) -> None:
        if self.epochs is not None:
            require_epochs("epochs", self.epochs)
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_choice("learning-rate schedule", self.schedule, SCHEDULES)
        require_choice("class weighting", self.class_weights, CLASS_WEIGHTS)
        require(self.learning_rate > 0, "learning_rate", "be above 0", self.learning_rate)
        require(self.batch_size >= 1, "batch_size", "be at least 1", self.batch_size)
        require(self.weight_decay >= 0, "weight_decay", "be at least 0", self.weight_decay)
        require(
            0 <= self.label_smoothing < 1, "label_smoothing", "be in [0, 1)", self.label_smoothing
        )

    def epochs_for(self, steps_per_epoch: int) -> int:
        """Returns the number of epochs when an epoch has `steps_per_epoch` steps."""
        if self.epochs is not None:
            return self.epochs
        return max(MIN_FINETUNE_EPOCHS, -(-FINETUNE_STEPS // steps_per_epoch))


def parsed_share(text: str) -> tuple[str, float]:
    """Splits "pattern=0.3"; the number is NaN where there is none."""
    pattern, _, digits = text.rpartition("=")
    try:
        return pattern, float(digits)
    except ValueError:
        return pattern, math.nan


CHANNEL_COSTS = ("macs", "params", "amount")
CHANNEL_SCOPES = ("global", "layer")
AGGREGATES = ("mean", "sum", "max", "norm")
SCORE_SCALES = ("mean", "max", "none")


@dataclass(frozen=True)
class ChannelOptions:
    """Removal of whole channels, neurons and heads."""

    target: str = option(
        "",
        "--channels",
        "what to keep: 0.5x (of the model's MACs) or an absolute 12M; empty: every channel",
    )
    of: str = option(
        "macs",
        "--channels-of",
        "what the target counts: macs, params, or amount (share of each layer removed: 0.5)",
    )
    criterion: str = option(
        "l2",
        "--channel-criterion",
        "l1, l2, bn_scale, fpgm, taylor, activation, random",
    )
    scope: str = option(
        "global", "--channel-scope", "global: one ranking of all layers; layer: one share for all"
    )
    aggregate: str = option(
        "mean", "--channel-aggregate", "how a channel's weights are put together: mean, sum, ..."
    )
    normalize: str = option(
        "mean", "--channel-normalize", "scores within a group are divided by their mean, max, none"
    )
    cost_aware: bool = option(
        False, "--channel-cost-aware", "rank by score per MAC that a channel costs"
    )
    round_to: int = option(
        0,
        "--round-to",
        "kept channels are multiples of this; 0: 16 from 32 channels on, 8 below, else 4",
    )
    min_kept: float = option(0.1, "--min-kept", "smallest share of a layer's channels to keep")
    limits: tuple[str, ...] = option(
        (), "--channel-limits", "most to remove by layer name pattern: conv1*=0.3,head=0"
    )
    exclude: tuple[str, ...] = option(
        (), "--channel-exclude", "patterns of layer names whose channels stay"
    )
    sensitivity: str = option(
        "",
        "--channel-sensitivity",
        "a folder of sensitivity maps: rank by loss of accuracy, measured once a model",
    )
    steps: int = option(1, "--channel-steps", "prune in so many steps, fine-tuning after each")
    recalibrate: int = option(
        0, "--recalibrate", "batches that re-estimate normalization statistics after pruning"
    )

    def __post_init__(self) -> None:
        require_choice("channel target", self.of, CHANNEL_COSTS)
        require_choice("channel scope", self.scope, CHANNEL_SCOPES)
        require_choice("channel aggregation", self.aggregate, AGGREGATES)
        require_choice("channel normalization", self.normalize, SCORE_SCALES)
        require(self.round_to >= 0, "round_to", "be at least 0", self.round_to)
        require(0 <= self.min_kept <= 1, "min_kept", "be in [0, 1]", self.min_kept)
        require(self.steps >= 1, "channel_steps", "be at least 1", self.steps)
        require(self.recalibrate >= 0, "recalibrate", "be at least 0", self.recalibrate)
        if self.target:
            self.parsed()
        for limit in self.limits:
            self.parsed_limit(limit)

    @property
    def active(self) -> bool:
        """Whether any channel is to be removed."""
        return bool(self.target)

    def parsed(self) -> tuple[float, bool]:
        """Returns the target's number and whether it is a share of the original.

        Raises:
            InputError: It is no number, or out of range.
        """
        text = self.target.strip()
        units = {"k": 1e3, "M": 1e6, "G": 1e9}
        share = text.endswith("x") or self.of == "amount"
        digits = text[:-1] if text[-1:] in {"x", *units} else text
        try:
            value = float(digits) * units.get(text[-1:], 1.0)
        except ValueError:
            value = math.nan
        name = f"channels ({self.of})"
        if self.of == "amount":
            require(0 <= value < 1, "amount", "be in [0, 1)", self.target)
        elif share:
            require(0 < value <= 1, name, "keep a share in (0, 1], like 0.5x", self.target)
        else:
            require(value >= 1, name, "be a share like 0.5x or a count like 12M", self.target)
        return value, share

    @staticmethod
    def parsed_limit(limit: str) -> tuple[str, float]:
        """Splits "pattern=0.3".

        Raises:
            InputError: There is no pattern, or the share is not in [0, 1].
        """
        pattern, share = parsed_share(limit)
        require(bool(pattern) and 0 <= share <= 1, "channel limit", "be pattern=share", limit)
        return pattern, share


WEIGHT_SCHEDULES = ("polynomial", "constant")
POOLINGS = ("avg", "max")
WEIGHT_SCOPES = ("layer", "global", "erk")
PRUNED_TOO = ("ends", "biases", "normalization", "embeddings", "depthwise")
TIME_UNITS = {"%": "share", "e": "epochs", "": "steps"}


def parsed_time(text: str) -> tuple[float, str]:
    """Reads a time of training: "50%" of it, "2e" epochs, "400" steps.

    Returns:
        The number (of "50%": 0.5) and its unit: "share", "epochs" or "steps".

    Raises:
        InputError: It is none of these, or negative.
    """
    digits, unit = (text[:-1], text[-1:]) if text[-1:] in ("%", "e") else (text, "")
    try:
        value = float(digits)
    except ValueError:
        value = math.nan
    require(
        value >= 0 and math.isfinite(value) and (unit != "%" or value <= 100),
        "a pruning time",
        "be a share of training (50%), epochs (2e) or steps (400)",
        repr(text),
    )
    return value / 100 if unit == "%" else value, TIME_UNITS[unit]


@dataclass(frozen=True)
class WeightOptions:
    """Magnitude pruning of single weights, of N:M groups or of blocks."""

    sparsity: float = option(0.8, "--sparsity", "share of each pruned kernel set to zero; 0: none")
    pattern: str = option(
        "unstructured",
        "--prune-pattern",
        "unstructured; 2:4 (2 kept of 4 along the inputs, any N:M); 1x4 (blocks of 1 input x 4 "
        "outputs, any size)",
    )
    pooling: str = option("avg", "--prune-pooling", "what a block counts by: avg or max")
    scope: str = option(
        "layer",
        "--prune-scope",
        "layer: the same sparsity everywhere; global: one ranking of all kernels; erk: by shape",
    )
    overrides: tuple[str, ...] = option(
        (), "--prune-overrides", "sparsity by layer name pattern: conv1*=0.5,head=0 (0 keeps it)"
    )
    also: tuple[str, ...] = option(
        (), "--prune-also", "prune these too: " + ", ".join(PRUNED_TOO) + " (first and last layer)"
    )
    schedule: str = option(
        "polynomial", "--prune-schedule", "sparsity over time: " + ", ".join(WEIGHT_SCHEDULES)
    )
    initial_sparsity: float = option(0.0, "--initial-sparsity", "sparsity at the first update")
    begin: str = option(
        "0%", "--prune-begin", "when pruning begins: 10% of training, 1e (epochs) or 100 (steps)"
    )
    end: str = option("50%", "--prune-end", "when the final sparsity is reached, likewise")
    power: float = option(3.0, "--prune-power", "exponent of the polynomial schedule")
    updates: int = option(50, "--prune-updates", "mask updates between begin and end, at most")
    frequency: str = option(
        "", "--prune-frequency", "distance of mask updates (100 or 0.1e), instead of their number"
    )
    freeze: bool = option(
        False, "--prune-freeze", "keep an N:M pattern's first masks, as tfmot does"
    )
    recalibrate: int = option(
        0,
        "--prune-recalibrate",
        "batches that re-estimate normalization statistics after pruning",
    )

    def __post_init__(self) -> None:
        for name in ("sparsity", "initial_sparsity"):
            value = getattr(self, name)
            require(0 <= value < 1, name, "be in [0, 1)", value)
        require(
            self.initial_sparsity <= self.sparsity,
            "initial_sparsity",
            f"be at most sparsity ({self.sparsity})",
            self.initial_sparsity,
        )
        require_choice("pruning scope", self.scope, WEIGHT_SCOPES)
        kind = self.parsed_pattern()[0]
        require(
            kind != "n:m" or self.scope == "layer",
            "pruning scope",
            "be layer for an N:M pattern, which fixes the sparsity of every layer",
            self.scope,
        )
        require_choice("block pooling", self.pooling, POOLINGS)
        require_choice("pruning schedule", self.schedule, WEIGHT_SCHEDULES)
        for item in self.also:
            require_choice("kind of weights to prune too", item, PRUNED_TOO)
        times = [parsed_time(text) for text in (self.begin, self.end)]
        require(
            times[0][1] != times[1][1] or times[0][0] < times[1][0],
            "prune_begin, prune_end",
            "satisfy begin < end",
            f"{self.begin}, {self.end}",
        )
        if self.frequency:
            parsed_time(self.frequency)
        require(self.power > 0, "prune_power", "be above 0", self.power)
        require(self.updates >= 1, "prune_updates", "be at least 1", self.updates)
        require(self.recalibrate >= 0, "prune_recalibrate", "be at least 0", self.recalibrate)
        overridden = any(share > 0 for _, share in self.parsed_overrides())
        require(
            self.sparsity > 0 or not overridden,
            "sparsity",
            "be above 0 where overrides prune: they grow with it",
            self.sparsity,
        )

    @property
    def label(self) -> str:
        """How names of models tell what was done: "p80", "p2_4", "p90_1x4"."""
        kind, first, second = self.parsed_pattern()
        if kind == "n:m":
            return f"p{first}_{second}"
        share = f"p{self.sparsity * 100:g}".replace(".", "_")
        return share if kind == "unstructured" else f"{share}_{first}x{second}"

    def parsed_pattern(self) -> tuple[str, int, int]:
        """Returns ("unstructured", 0, 0), ("n:m", N, M) or ("block", rows, columns).

        Raises:
            InputError: It is none of these, or N is not below M.
        """
        if self.pattern == "unstructured":
            return "unstructured", 0, 0
        found = re.fullmatch(r"(\d+)([:x])(\d+)", self.pattern)
        rule = "be unstructured, N:M with N < M (2:4), or ROWSxCOLUMNS (1x4)"
        first, second = (int(found[1]), int(found[3])) if found else (0, 0)
        kind = "n:m" if found and found[2] == ":" else "block"
        valid = 1 <= first < second if kind == "n:m" else min(first, second) >= 1
        require(valid, "prune_pattern", rule, self.pattern)
        return kind, first, second

    def parsed_overrides(self) -> tuple[tuple[str, float], ...]:
        """Returns (pattern of layer names, sparsity in [0, 1)).

        Raises:
            InputError: There is no pattern, or the sparsity is out of range.
        """
        found = tuple(parsed_share(text) for text in self.overrides)
        for text, (pattern, share) in zip(self.overrides, found, strict=True):
            valid = bool(pattern) and 0 <= share < 1
            require(valid, "pruning override", "be pattern=sparsity, in [0, 1)", text)
        return found


@dataclass(frozen=True)
class DistillOptions:
    """Who teaches during fine-tuning, and how much."""

    teacher: str = option(
        "auto",
        "--teacher",
        "a .keras file; auto: the best candidate of the run, or the unpruned model itself; "
        "none: labels only",
    )
    temperature: float = option(4.0, "--temperature", "softens both distributions")
    weight: float = option(0.7, "--distill-weight", "share of the teacher's term in the loss")

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "be above 0", self.temperature)
        require(0 <= self.weight <= 1, "distill_weight", "be in [0, 1]", self.weight)


@dataclass(frozen=True)
class ExportOptions:
    """Which files are made of a model."""

    formats: tuple[str, ...] = option(
        ("float32", "int8"),
        "--formats",
        "LiteRT files: float32, int8, sparse (float32 without the zeros, of pruned models)",
    )
    calibration: int = option(200, "--calibration", "training examples that calibrate int8")

    def __post_init__(self) -> None:
        require(bool(self.formats), "formats", "name at least one format", self.formats)
        for name in self.formats:
            require_choice("export format", name, FORMATS)
        require(self.calibration >= 1, "calibration", "be at least 1", self.calibration)


@dataclass(frozen=True)
class LatencyOptions:
    """The block protocol of latency measurement."""

    threads: int = option(1, "--latency-threads", "threads of the LiteRT interpreter")
    precision: float = option(
        0.02, "--latency-precision", "stop when each ratio's 95 % half-width is below this share"
    )
    budget: float = option(60.0, "--latency-budget", "seconds after which timing stops anyway")

    runtimes: tuple[str, ...] = option(
        ("litert",),
        "--runtimes",
        "litert, mnn (whose kernels skip zeros; float32 files; pip install 'paretune[mnn]')",
    )

    def __post_init__(self) -> None:
        for name in self.runtimes:
            require_choice("runtime", name, RUNTIMES)
        require(bool(self.runtimes), "runtimes", "name at least one runtime", self.runtimes)
        require(self.threads >= 1, "latency_threads", "be at least 1", self.threads)
        require(self.precision > 0, "latency_precision", "be above 0", self.precision)
        require(self.budget > 0, "latency_budget", "be above 0", self.budget)


@dataclass(frozen=True)
class Plan:
    """Everything that the compress stage does; `paretune compress` and `compress_model` take it."""

    data: DataOptions = field(default_factory=DataOptions)
    finetune: TrainSettings = field(default_factory=TrainSettings)
    channels: ChannelOptions = field(default_factory=ChannelOptions)
    weights: WeightOptions = field(default_factory=WeightOptions)
    distill: DistillOptions = field(default_factory=DistillOptions)
    export: ExportOptions = field(default_factory=ExportOptions)
    latency: LatencyOptions = field(default_factory=LatencyOptions)
    seed: int = option(0, "--seed", "seeds splits, initial weights, shuffling and sampling")
    device: str = option("auto", "--device", "auto, cpu or gpu", extendable=True)
    threads: int | None = option(
        None,
        "--threads",
        "CPU threads of a training; default: every core, shared out among a run's workers",
        extendable=True,
    )
    out: str = option("", "--out", "folder of the results", extendable=True)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**31, "seed", "be in [0, 2^31)", self.seed)
        require_choice("device", self.device, DEVICES)
        require(self.threads is None or self.threads >= 1, "threads", "be at least 1", self.threads)

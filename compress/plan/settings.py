"""Keywords of public functions: made by `python -m compress.plan.write_settings --write`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from compress.plan.layers import LayerPair, LayerShare
from compress.plan.pattern import PatternSpec
from compress.plan.ramp import Ramp
from compress.plan.target import SizeTarget, Target, TimeTarget
from compress.plan.teacher import TeacherChoice
from compress.plan.train_time import TrainTime

Count = int | float | str
"""A whole number as people write it: 200_000, 2e6 or "2M"."""


class PruneChannelsSettings(TypedDict, total=False):
    """Keywords of `prune_channels`."""

    scope: str
    """how channel counts are chosen: global (one ranking), layer (the same share of each), damage
    (measured output error) or auto (with data the best of the three, else global). Default:
    auto."""

    aggregate: str
    """how the scores of a channel's weights are combined: mean, sum, max, norm. Default: mean."""

    normalize: str
    """what the scores of a group are divided by: mean, max, none. Default: mean."""

    round_to: Count
    """keep a multiple of this many channels; 0: of 16 from 32 channels on, 8 below, else 4.
    Default: 0."""

    min_kept: float
    """smallest share of a layer's channels to keep. Default: 0.1."""

    limits: Iterable[str | LayerShare] | Mapping[str, float]
    """the largest share to remove, by layer name pattern: conv1*=0.3,head=0."""

    exclude: Iterable[str]
    """patterns of layer names whose channels all stay."""

    blocks: bool
    """also remove whole residual blocks (depth pruning); with --channel-scope damage or auto.
    Default: False."""

    tries: Count
    """number of neighbouring configurations to reconstruct and evaluate, the best one is kept; with
    --channel-scope damage or auto. Default: 16."""

    steps: Count
    """prune in this many steps, with fine-tuning after each. Default: 1."""

    recalibrate: Count
    """batches that re-estimate normalization statistics after pruning. Default: 0."""


class PruneWeightsSettings(TypedDict, total=False):
    """Keywords of `prune_weights`."""

    normalize: str
    """how inputs are scaled: standardize (per channel, by training statistics), unit (pixels to [0,
    1]), symmetric (to [-1, 1]), center (minus the mean per channel), caffe or torch (ImageNet's
    means, as in keras.applications), none; auto: standardize for new models; for a model that
    exists what its run stored, else what scores best on validation data. Default: auto."""

    val_fraction: float
    """share of the training part to hold out where there is no validation part. Default: 0.15."""

    group_column: str
    """the column of a table (or NAME_train of an .npz) whose equal values stay in one part: a
    person, a recording, a site; it is no input."""

    time_column: str
    """the column of a table (or NAME_train of an .npz) to split by time: the latest examples are
    the test part, those before them the validation part; it is no input."""

    metric: str
    """the quality that judges; default: the task's first (accuracy, mean_iou, r2, ...); of several
    outputs like box.r2; of a compiled model's metrics -NAME where less is better."""

    label: Iterable[str]
    """the column of a table, or the feature of records, that is the label; several with commas:
    columns of one label, or a label for each of a model's outputs, by the outputs' names; default:
    the one called label, y or target."""

    resize: tuple[Count, Count] | None
    """height and width that images of a folder or of records become of: 96,96; default: they must
    have one size."""

    skip_damaged: float
    """share of a folder's images that may be skipped, where they are damaged; they are named.
    Default: 0."""

    epochs: Count | None
    """epochs of fine-tuning; default: enough for 1,000 steps, at least 4; 0: none, what was pruned
    is repaired and exported."""

    optimizer: str
    """optimizer of fine-tuning: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw. Default:
    adam."""

    learning_rate: float
    """peak learning rate of fine-tuning. Default: 0.001."""

    learning_rate_schedule: str
    """how the learning rate of fine-tuning falls: constant, cosine, exponential. Default:
    cosine."""

    batch_size: Count
    """examples per step of fine-tuning. Default: 128."""

    weight_decay: float
    """decoupled weight decay of kernels, in fine-tuning. Default: 0."""

    label_smoothing: float
    """share of each label that is moved to the other classes, in fine-tuning. Default: 0."""

    class_weights: str
    """none, or balanced: rare classes weigh more, in every training. Default: none."""

    augment: Iterable[str]
    """random changes of training images, in every training: flip (left to right), shift (by up to
    an eighth); a teacher sees the same changed images."""

    own_train_step: bool
    """fine-tune by the train_step of the model's own class, without a teacher (task custom).
    Default: False."""

    sparsity: float
    """share of each pruned kernel to set to zero; 0: none. Default: 0.8."""

    pattern: PatternSpec | str
    """unstructured; 2:4 (keep 2 of 4 along the inputs; any N:M); 1x4 (blocks of 1 input x 4
    outputs; any size). Default: unstructured."""

    pooling: str
    """how the weights of a block are combined: avg or max. Default: avg."""

    scope: str
    """global: one ranking of all kernels; layer: the same sparsity everywhere; erk: by shape; auto:
    global of single weights, layer of N:M and blocks. Default: auto."""

    overrides: Iterable[str | LayerShare] | Mapping[str, float]
    """sparsity by layer name pattern: conv1*=0.5,head=0 (0 leaves a layer alone)."""

    include: Iterable[str]
    """prune these too: ends, biases, normalization, embeddings, depthwise (ends: first and last
    layer)."""

    initial_sparsity: float
    """sparsity at the first update. Default: 0."""

    begin: TrainTime | str | float
    """when pruning begins: 10% of the training, 1e (epochs) or 100 (steps). Default: 0%."""

    end: TrainTime | str | float
    """when the final sparsity is reached, written in the same way. Default: 50%."""

    power: float
    """exponent of the polynomial schedule. Default: 3."""

    updates: Count
    """mask updates between begin and end, at most. Default: 50."""

    frequency: TrainTime | str | float | None
    """time between mask updates (100 or 0.1e), instead of their number."""

    freeze: bool
    """keep an N:M pattern's first masks, as tfmot does. Default: False."""

    recalibrate: Count
    """batches that re-estimate normalization statistics after pruning. Default: 0."""


class WeightPrunerSettings(TypedDict, total=False):
    """Keywords of `WeightPruner`."""

    sparsity: float
    """share of each pruned kernel to set to zero; 0: none. Default: 0.8."""

    pattern: PatternSpec | str
    """unstructured; 2:4 (keep 2 of 4 along the inputs; any N:M); 1x4 (blocks of 1 input x 4
    outputs; any size). Default: unstructured."""

    pooling: str
    """how the weights of a block are combined: avg or max. Default: avg."""

    scope: str
    """global: one ranking of all kernels; layer: the same sparsity everywhere; erk: by shape; auto:
    global of single weights, layer of N:M and blocks. Default: auto."""

    overrides: Iterable[str | LayerShare] | Mapping[str, float]
    """sparsity by layer name pattern: conv1*=0.5,head=0 (0 leaves a layer alone)."""

    include: Iterable[str]
    """prune these too: ends, biases, normalization, embeddings, depthwise (ends: first and last
    layer)."""

    initial_sparsity: float
    """sparsity at the first update. Default: 0."""

    begin: TrainTime | str | float
    """when pruning begins: 10% of the training, 1e (epochs) or 100 (steps). Default: 0%."""

    end: TrainTime | str | float
    """when the final sparsity is reached, written in the same way. Default: 50%."""

    power: float
    """exponent of the polynomial schedule. Default: 3."""

    updates: Count
    """mask updates between begin and end, at most. Default: 50."""

    frequency: TrainTime | str | float | None
    """time between mask updates (100 or 0.1e), instead of their number."""

    freeze: bool
    """keep an N:M pattern's first masks, as tfmot does. Default: False."""


class DistillSettings(TypedDict, total=False):
    """Keywords of `distill`."""

    normalize: str
    """how inputs are scaled: standardize (per channel, by training statistics), unit (pixels to [0,
    1]), symmetric (to [-1, 1]), center (minus the mean per channel), caffe or torch (ImageNet's
    means, as in keras.applications), none; auto: standardize for new models; for a model that
    exists what its run stored, else what scores best on validation data. Default: auto."""

    val_fraction: float
    """share of the training part to hold out where there is no validation part. Default: 0.15."""

    group_column: str
    """the column of a table (or NAME_train of an .npz) whose equal values stay in one part: a
    person, a recording, a site; it is no input."""

    time_column: str
    """the column of a table (or NAME_train of an .npz) to split by time: the latest examples are
    the test part, those before them the validation part; it is no input."""

    metric: str
    """the quality that judges; default: the task's first (accuracy, mean_iou, r2, ...); of several
    outputs like box.r2; of a compiled model's metrics -NAME where less is better."""

    label: Iterable[str]
    """the column of a table, or the feature of records, that is the label; several with commas:
    columns of one label, or a label for each of a model's outputs, by the outputs' names; default:
    the one called label, y or target."""

    resize: tuple[Count, Count] | None
    """height and width that images of a folder or of records become of: 96,96; default: they must
    have one size."""

    skip_damaged: float
    """share of a folder's images that may be skipped, where they are damaged; they are named.
    Default: 0."""

    epochs: Count | None
    """epochs of fine-tuning; default: enough for 1,000 steps, at least 4; 0: none, what was pruned
    is repaired and exported."""

    optimizer: str
    """optimizer of fine-tuning: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw. Default:
    adam."""

    learning_rate: float
    """peak learning rate of fine-tuning. Default: 0.001."""

    learning_rate_schedule: str
    """how the learning rate of fine-tuning falls: constant, cosine, exponential. Default:
    cosine."""

    batch_size: Count
    """examples per step of fine-tuning. Default: 128."""

    weight_decay: float
    """decoupled weight decay of kernels, in fine-tuning. Default: 0."""

    label_smoothing: float
    """share of each label that is moved to the other classes, in fine-tuning. Default: 0."""

    class_weights: str
    """none, or balanced: rare classes weigh more, in every training. Default: none."""

    augment: Iterable[str]
    """random changes of training images, in every training: flip (left to right), shift (by up to
    an eighth); a teacher sees the same changed images."""

    own_train_step: bool
    """fine-tune by the train_step of the model's own class, without a teacher (task custom).
    Default: False."""

    teacher_weights: Iterable[float] | str
    """weights of several teachers, with commas; default: all equal."""

    loss: str
    """distillation loss on logits: kd, dkd, none. Default: kd."""

    temperature: Ramp | float | str
    """softens both distributions; 8:2 goes from 8 to 2 during the training. Default: 4."""

    weight: Ramp | float | str
    """share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth.
    Default: 0.7."""

    hints: Iterable[str]
    """distillation losses on features: fitnets."""

    hint_weight: Ramp | float | str
    """factor on each hint's own usual weight. Default: 1."""

    pairs: Iterable[str | LayerPair | tuple[str, str]] | Mapping[str, str]
    """layers to compare, student_layer=teacher_layer, with commas; default: by resolution and
    depth."""

    cache: str
    """where the teacher's outputs are kept: memory, disk, off (it runs at every step), or auto:
    memory up to --cache-limit, disk above; always off under --augment. Default: auto."""

    cache_limit: Count
    """MiB of teacher outputs to keep in memory; or 2GB, 2GiB. Default: 1024."""


class QuantizeSettings(TypedDict, total=False):
    """Keywords of `quantize`."""

    normalize: str
    """how inputs are scaled: standardize (per channel, by training statistics), unit (pixels to [0,
    1]), symmetric (to [-1, 1]), center (minus the mean per channel), caffe or torch (ImageNet's
    means, as in keras.applications), none; auto: standardize for new models; for a model that
    exists what its run stored, else what scores best on validation data. Default: auto."""

    val_fraction: float
    """share of the training part to hold out where there is no validation part. Default: 0.15."""

    group_column: str
    """the column of a table (or NAME_train of an .npz) whose equal values stay in one part: a
    person, a recording, a site; it is no input."""

    time_column: str
    """the column of a table (or NAME_train of an .npz) to split by time: the latest examples are
    the test part, those before them the validation part; it is no input."""

    metric: str
    """the quality that judges; default: the task's first (accuracy, mean_iou, r2, ...); of several
    outputs like box.r2; of a compiled model's metrics -NAME where less is better."""

    label: Iterable[str]
    """the column of a table, or the feature of records, that is the label; several with commas:
    columns of one label, or a label for each of a model's outputs, by the outputs' names; default:
    the one called label, y or target."""

    resize: tuple[Count, Count] | None
    """height and width that images of a folder or of records become of: 96,96; default: they must
    have one size."""

    skip_damaged: float
    """share of a folder's images that may be skipped, where they are damaged; they are named.
    Default: 0."""

    optimizer: str
    """optimizer of fine-tuning: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw. Default:
    adam."""

    learning_rate_schedule: str
    """how the learning rate of fine-tuning falls: constant, cosine, exponential. Default:
    cosine."""

    batch_size: Count
    """examples per step of fine-tuning. Default: 128."""

    weight_decay: float
    """decoupled weight decay of kernels, in fine-tuning. Default: 0."""

    label_smoothing: float
    """share of each label that is moved to the other classes, in fine-tuning. Default: 0."""

    class_weights: str
    """none, or balanced: rare classes weigh more, in every training. Default: none."""

    augment: Iterable[str]
    """random changes of training images, in every training: flip (left to right), shift (by up to
    an eighth); a teacher sees the same changed images."""

    loss: str
    """distillation loss on logits: kd, dkd, none. Default: kd."""

    temperature: Ramp | float | str
    """softens both distributions; 8:2 goes from 8 to 2 during the training. Default: 4."""

    weight: Ramp | float | str
    """share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth.
    Default: 0.7."""

    hints: Iterable[str]
    """distillation losses on features: fitnets."""

    hint_weight: Ramp | float | str
    """factor on each hint's own usual weight. Default: 1."""

    pairs: Iterable[str | LayerPair | tuple[str, str]] | Mapping[str, str]
    """layers to compare, student_layer=teacher_layer, with commas; default: by resolution and
    depth."""

    cache: str
    """where the teacher's outputs are kept: memory, disk, off (it runs at every step), or auto:
    memory up to --cache-limit, disk above; always off under --augment. Default: auto."""

    cache_limit: Count
    """MiB of teacher outputs to keep in memory; or 2GB, 2GiB. Default: 1024."""

    epochs: Count
    """epochs of that training; 0: ranges and kernels are calibrated alone. Default: 2."""

    learning_rate: float
    """its peak learning rate. Default: 0.0001."""

    calibration: str
    """where ranges begin: mse (what rounding and cutting off lose least by), minmax or percentile
    (99.99 %). Default: mse."""

    examples: Count
    """training examples that ranges begin with. Default: 512."""

    learned_ranges: bool
    """ranges are trained with the weights; else they move with what passes. Default: False."""

    integer_products: bool
    """multiply activations (attention) in whole numbers too, for hardware that has no others.
    Default: False."""


class ExportSettings(TypedDict, total=False):
    """Keywords of `export`."""

    formats: Iterable[str]
    """LiteRT: float32, float16, dynamic, int8, int8-qat, int16x8, int8-mixed, int4-weights, sparse;
    ONNX: onnx, onnx_int8, onnx_int8-qat (pip install 'paretune[mixed,onnx]'). Default:
    float32,int8."""

    calibration: Count
    """training examples that calibrate int8. Default: 200."""

    opset: Count | None
    """ONNX operator set; default: the converter's."""

    mixed_levels: Iterable[str]
    """precisions among which int8-mixed chooses for each layer: int4 (weights; what passes in 8
    bits), int8, dynamic4 and dynamic (the same weights, what passes is rounded as it comes), int16
    (what passes), float16 (weights, computed in floats), float32. Default: int8,dynamic,float16."""

    mixed_loss: float
    """share of what the outputs lose where all layers have the lowest of these precisions that
    int8-mixed may leave. Default: 0.25."""

    mixed_size: SizeTarget | str | float | None
    """limit of int8-mixed: 0.3x (of the float32 file) or 200KB."""

    mixed_latency: TimeTarget | str | float | None
    """limit of int8-mixed on LiteRT here: 0.5x (of the float32 file; also: 2x faster) or 3ms."""


class CompressModelSettings(TypedDict, total=False):
    """Keywords of `compress_model`."""

    task: str
    """what labels mean, where they and the model do not tell: multiclass, binary, multilabel,
    regression, segmentation, tagging, masks, reconstruction, custom, unlabelled; of several outputs
    NAME=TASK,NAME=TASK. Default: auto."""

    normalize: str
    """how inputs are scaled: standardize (per channel, by training statistics), unit (pixels to [0,
    1]), symmetric (to [-1, 1]), center (minus the mean per channel), caffe or torch (ImageNet's
    means, as in keras.applications), none; auto: standardize for new models; for a model that
    exists what its run stored, else what scores best on validation data. Default: auto."""

    val_fraction: float
    """share of the training part to hold out where there is no validation part. Default: 0.15."""

    test_fraction: float
    """share to hold out for the test where the source has no test part. Default: 0.2."""

    group_column: str
    """the column of a table (or NAME_train of an .npz) whose equal values stay in one part: a
    person, a recording, a site; it is no input."""

    time_column: str
    """the column of a table (or NAME_train of an .npz) to split by time: the latest examples are
    the test part, those before them the validation part; it is no input."""

    metric: str
    """the quality that judges; default: the task's first (accuracy, mean_iou, r2, ...); of several
    outputs like box.r2; of a compiled model's metrics -NAME where less is better."""

    label: Iterable[str]
    """the column of a table, or the feature of records, that is the label; several with commas:
    columns of one label, or a label for each of a model's outputs, by the outputs' names; default:
    the one called label, y or target."""

    resize: tuple[Count, Count] | None
    """height and width that images of a folder or of records become of: 96,96; default: they must
    have one size."""

    skip_damaged: float
    """share of a folder's images that may be skipped, where they are damaged; they are named.
    Default: 0."""

    finetune_epochs: Count | None
    """epochs of fine-tuning; default: enough for 1,000 steps, at least 4; 0: none, what was pruned
    is repaired and exported."""

    epochs: Count | None
    """The same as `finetune_epochs`."""

    as_long: bool
    """also train the dense model for as many more epochs, in the same way: the report then says
    what compression itself changes. Default: False."""

    finetune_optimizer: str
    """optimizer of fine-tuning: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw. Default:
    adam."""

    optimizer: str
    """The same as `finetune_optimizer`."""

    learning_rate: float
    """peak learning rate of fine-tuning. Default: 0.001."""

    schedule: str
    """how the learning rate of fine-tuning falls: constant, cosine, exponential. Default:
    cosine."""

    batch_size: Count
    """examples per step of fine-tuning. Default: 128."""

    weight_decay: float
    """decoupled weight decay of kernels, in fine-tuning. Default: 0."""

    label_smoothing: float
    """share of each label that is moved to the other classes, in fine-tuning. Default: 0."""

    class_weights: str
    """none, or balanced: rare classes weigh more, in every training. Default: none."""

    augment: Iterable[str]
    """random changes of training images, in every training: flip (left to right), shift (by up to
    an eighth); a teacher sees the same changed images."""

    own_train_step: bool
    """fine-tune by the train_step of the model's own class, without a teacher (task custom).
    Default: False."""

    channels: Target | str | float | None
    """what to keep: 0.5x (half of the model's MACs; also: 2x smaller) or an absolute 12M; empty:
    every channel."""

    channels_of: str
    """what --channels counts: macs, params, or amount (the share of each layer to remove: 0.5).
    Default: macs."""

    channel_criterion: str
    """how channels are ranked: auto (l2, or reconstruction with scope damage), l1, l2, bn_scale,
    fpgm, taylor, activation, reconstruction, random, or your own package.module:function. Default:
    auto."""

    channel_scope: str
    """how channel counts are chosen: global (one ranking), layer (the same share of each), damage
    (measured output error) or auto (with data the best of the three, else global). Default:
    auto."""

    channel_aggregate: str
    """how the scores of a channel's weights are combined: mean, sum, max, norm. Default: mean."""

    channel_normalize: str
    """what the scores of a group are divided by: mean, max, none. Default: mean."""

    round_to: Count
    """keep a multiple of this many channels; 0: of 16 from 32 channels on, 8 below, else 4.
    Default: 0."""

    min_kept: float
    """smallest share of a layer's channels to keep. Default: 0.1."""

    channel_limits: Iterable[str | LayerShare] | Mapping[str, float]
    """the largest share to remove, by layer name pattern: conv1*=0.3,head=0."""

    channel_exclude: Iterable[str]
    """patterns of layer names whose channels all stay."""

    blocks: bool
    """also remove whole residual blocks (depth pruning); with --channel-scope damage or auto.
    Default: False."""

    channel_tries: Count
    """number of neighbouring configurations to reconstruct and evaluate, the best one is kept; with
    --channel-scope damage or auto. Default: 16."""

    channel_steps: Count
    """prune in this many steps, with fine-tuning after each. Default: 1."""

    recalibrate: Count
    """batches that re-estimate normalization statistics after pruning. Default: 0."""

    sparsity: float
    """share of each pruned kernel to set to zero; 0: none. Default: 0.8."""

    prune_pattern: PatternSpec | str
    """unstructured; 2:4 (keep 2 of 4 along the inputs; any N:M); 1x4 (blocks of 1 input x 4
    outputs; any size). Default: unstructured."""

    prune_pooling: str
    """how the weights of a block are combined: avg or max. Default: avg."""

    prune_scope: str
    """global: one ranking of all kernels; layer: the same sparsity everywhere; erk: by shape; auto:
    global of single weights, layer of N:M and blocks. Default: auto."""

    prune_overrides: Iterable[str | LayerShare] | Mapping[str, float]
    """sparsity by layer name pattern: conv1*=0.5,head=0 (0 leaves a layer alone)."""

    prune_also: Iterable[str]
    """prune these too: ends, biases, normalization, embeddings, depthwise (ends: first and last
    layer)."""

    prune_schedule: str
    """how sparsity grows: polynomial, constant. Default: polynomial."""

    initial_sparsity: float
    """sparsity at the first update. Default: 0."""

    prune_begin: TrainTime | str | float
    """when pruning begins: 10% of the training, 1e (epochs) or 100 (steps). Default: 0%."""

    prune_end: TrainTime | str | float
    """when the final sparsity is reached, written in the same way. Default: 50%."""

    prune_power: float
    """exponent of the polynomial schedule. Default: 3."""

    prune_updates: Count
    """mask updates between begin and end, at most. Default: 50."""

    prune_frequency: TrainTime | str | float | None
    """time between mask updates (100 or 0.1e), instead of their number."""

    prune_freeze: bool
    """keep an N:M pattern's first masks, as tfmot does. Default: False."""

    prune_recalibrate: Count
    """batches that re-estimate normalization statistics after pruning. Default: 0."""

    teacher: TeacherChoice | str | Path | Iterable[str | Path] | None
    """a .keras file, or several with commas (double quotes around a name with a comma); auto: the
    best candidate of the run, else the unpruned model itself; none: labels only. Default: auto."""

    teacher_weights: Iterable[float] | str
    """weights of several teachers, with commas; default: all equal."""

    distill_loss: str
    """distillation loss on logits: kd, dkd, none. Default: kd."""

    temperature: Ramp | float | str
    """softens both distributions; 8:2 goes from 8 to 2 during the training. Default: 4."""

    distill_weight: Ramp | float | str
    """share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth.
    Default: 0.7."""

    hints: Iterable[str]
    """distillation losses on features: fitnets."""

    hint_weight: Ramp | float | str
    """factor on each hint's own usual weight. Default: 1."""

    hint_pairs: Iterable[str | LayerPair | tuple[str, str]] | Mapping[str, str]
    """layers to compare, student_layer=teacher_layer, with commas; default: by resolution and
    depth."""

    teacher_cache: str
    """where the teacher's outputs are kept: memory, disk, off (it runs at every step), or auto:
    memory up to --cache-limit, disk above; always off under --augment. Default: auto."""

    cache_limit: Count
    """MiB of teacher outputs to keep in memory; or 2GB, 2GiB. Default: 1024."""

    qat: bool
    """train the smaller model on as its file of whole numbers computes (format int8-qat). Default:
    False."""

    qat_epochs: Count
    """epochs of that training; 0: ranges and kernels are calibrated alone. Default: 2."""

    qat_learning_rate: float
    """its peak learning rate. Default: 0.0001."""

    qat_calibration: str
    """where ranges begin: mse (what rounding and cutting off lose least by), minmax or percentile
    (99.99 %). Default: mse."""

    qat_examples: Count
    """training examples that ranges begin with. Default: 512."""

    qat_learned_ranges: bool
    """ranges are trained with the weights; else they move with what passes. Default: False."""

    qat_integer_products: bool
    """multiply activations (attention) in whole numbers too, for hardware that has no others.
    Default: False."""

    formats: Iterable[str]
    """LiteRT: float32, float16, dynamic, int8, int8-qat, int16x8, int8-mixed, int4-weights, sparse;
    ONNX: onnx, onnx_int8, onnx_int8-qat (pip install 'paretune[mixed,onnx]'). Default:
    float32,int8."""

    calibration: Count
    """training examples that calibrate int8. Default: 200."""

    opset: Count | None
    """ONNX operator set; default: the converter's."""

    mixed_levels: Iterable[str]
    """precisions among which int8-mixed chooses for each layer: int4 (weights; what passes in 8
    bits), int8, dynamic4 and dynamic (the same weights, what passes is rounded as it comes), int16
    (what passes), float16 (weights, computed in floats), float32. Default: int8,dynamic,float16."""

    mixed_loss: float
    """share of what the outputs lose where all layers have the lowest of these precisions that
    int8-mixed may leave. Default: 0.25."""

    mixed_size: SizeTarget | str | float | None
    """limit of int8-mixed: 0.3x (of the float32 file) or 200KB."""

    mixed_latency: TimeTarget | str | float | None
    """limit of int8-mixed on LiteRT here: 0.5x (of the float32 file; also: 2x faster) or 3ms."""

    latency_threads: Count
    """CPU threads of the timed runtime. Default: 1."""

    latency_precision: float
    """stop timing when each ratio's 95 % half-width is below this share. Default: 0.02."""

    latency_budget: float | str
    """seconds (or 2m) after which timing stops in any case. Default: 60."""

    runtimes: Iterable[str]
    """what times the files: litert; mnn (whose kernels skip zeros; float32 files; pip install
    'paretune[mnn]'); onnx and openvino (the ONNX files among --formats; pip install
    'paretune[onnx,openvino]'). Default: litert."""

    seed: Count
    """seeds splits, initial weights, shuffling and sampling. Default: 0."""

    device: str
    """auto, cpu or gpu. Default: auto."""

    threads: Count | None
    """CPU threads of a training; default: every core, shared among a run's workers."""

    memory: Count | None
    """memory that all processes of a run may occupy together, like 4GB; batches are as large as it
    allows; default: 90 % of what the machine or container has free."""

    out: str | Path | None
    """folder for the results; default: one in runs/."""

    repair: Count
    """training examples on which what pruning broke is solved for, layer by layer, before any fine-
    tuning; labels are not used; 0: no repair. Default: 1000."""

    log: Iterable[str]
    """where epochs, candidates and files are logged beside the run's folder, with commas:
    tensorboard, mlflow, wandb."""

    plugins: Iterable[str]
    """modules to import first, with commas: they register plug-ins of yours."""


class BenchSettings(TypedDict, total=False):
    """Keywords of `bench`."""

    runtimes: Iterable[str]
    """with commas: litert, mnn, onnx, openvino, tensorflow. Default: litert."""

    formats: Iterable[str]
    """formats of Keras models, where the runtime has them: float32, float16, dynamic, int8.
    Default: float32."""

    threads: Iterable[Count] | Count | str
    """numbers of CPU threads, with commas: 1,2. Default: 1."""

    compare: Iterable[str]
    """two of the models, A,B: is B faster than A, and by how much."""

    input_shape: Mapping[str, Iterable[Count]] | Iterable[Count] | str | None
    """sizes of one example, where a model leaves them open: 224,224,3; of several inputs by name:
    image=96,96,3,table=12."""

    signature: str
    """of SavedModels that have several: the one that is timed."""

    precision: float
    """stop when each ratio's 95 % half-width is below this share. Default: 0.02."""

    budget: float | str
    """seconds (or 2m) after which timing stops in any case. Default: 120."""

    seed: Count
    """seeds inputs, order and bootstrap. Default: 0."""

    out: str | Path | None
    """folder for the converted files, bench.json, bench.csv and bench.png."""

    plugins: Iterable[str]
    """modules to import first, with commas: they register plug-ins of yours."""


class ShrinkSettings(TypedDict, total=False):
    """Keywords of `shrink`."""

    task: str
    """what labels mean, where they and the model do not tell: multiclass, binary, multilabel,
    regression, segmentation, tagging, masks, reconstruction, custom, unlabelled; of several outputs
    NAME=TASK,NAME=TASK. Default: auto."""

    normalize: str
    """how inputs are scaled: standardize (per channel, by training statistics), unit (pixels to [0,
    1]), symmetric (to [-1, 1]), center (minus the mean per channel), caffe or torch (ImageNet's
    means, as in keras.applications), none; auto: standardize for new models; for a model that
    exists what its run stored, else what scores best on validation data. Default: auto."""

    val_fraction: float
    """share of the training part to hold out where there is no validation part. Default: 0.15."""

    test_fraction: float
    """share to hold out for the test where the source has no test part. Default: 0.2."""

    group_column: str
    """the column of a table (or NAME_train of an .npz) whose equal values stay in one part: a
    person, a recording, a site; it is no input."""

    time_column: str
    """the column of a table (or NAME_train of an .npz) to split by time: the latest examples are
    the test part, those before them the validation part; it is no input."""

    metric: str
    """the quality that judges; default: the task's first (accuracy, mean_iou, r2, ...); of several
    outputs like box.r2; of a compiled model's metrics -NAME where less is better."""

    label: Iterable[str]
    """the column of a table, or the feature of records, that is the label; several with commas:
    columns of one label, or a label for each of a model's outputs, by the outputs' names; default:
    the one called label, y or target."""

    resize: tuple[Count, Count] | None
    """height and width that images of a folder or of records become of: 96,96; default: they must
    have one size."""

    skip_damaged: float
    """share of a folder's images that may be skipped, where they are damaged; they are named.
    Default: 0."""

    finetune_epochs: Count | None
    """epochs of fine-tuning; default: enough for 1,000 steps, at least 2; 0: none."""

    epochs: Count | None
    """The same as `finetune_epochs`."""

    finetune_optimizer: str
    """optimizer of fine-tuning: sgd, momentum, nesterov, adagrad, rmsprop, adam, adamw. Default:
    adam."""

    optimizer: str
    """The same as `finetune_optimizer`."""

    learning_rate: float
    """peak learning rate of fine-tuning. Default: 0.001."""

    schedule: str
    """how the learning rate of fine-tuning falls: constant, cosine, exponential. Default:
    cosine."""

    batch_size: Count
    """examples per step of fine-tuning. Default: 128."""

    weight_decay: float
    """decoupled weight decay of kernels, in fine-tuning. Default: 0."""

    label_smoothing: float
    """share of each label that is moved to the other classes, in fine-tuning. Default: 0."""

    class_weights: str
    """none, or balanced: rare classes weigh more, in every training. Default: none."""

    augment: Iterable[str]
    """random changes of training images, in every training: flip (left to right), shift (by up to
    an eighth); a teacher sees the same changed images."""

    channel_criterion: str
    """how channels are ranked: auto (l2, or reconstruction with scope damage), l1, l2, bn_scale,
    fpgm, taylor, activation, reconstruction, random, or your own package.module:function. Default:
    auto."""

    channel_aggregate: str
    """how the scores of a channel's weights are combined: mean, sum, max, norm. Default: mean."""

    channel_normalize: str
    """what the scores of a group are divided by: mean, max, none. Default: mean."""

    round_to: Count
    """keep a multiple of this many channels; 0: of 16 from 32 channels on, 8 below, else 4.
    Default: 0."""

    min_kept: float
    """smallest share of a layer's channels to keep. Default: 0.1."""

    channel_limits: Iterable[str | LayerShare] | Mapping[str, float]
    """the largest share to remove, by layer name pattern: conv1*=0.3,head=0."""

    channel_exclude: Iterable[str]
    """patterns of layer names whose channels all stay."""

    blocks: bool
    """also remove whole residual blocks (depth pruning); with --channel-scope damage or auto.
    Default: True."""

    channel_tries: Count
    """number of neighbouring configurations to reconstruct and evaluate, the best one is kept; with
    --channel-scope damage or auto. Default: 8."""

    recalibrate: Count
    """batches that re-estimate normalization statistics after pruning. Default: 0."""

    teacher: TeacherChoice | str | Path | Iterable[str | Path] | None
    """a .keras file, or several with commas (double quotes around a name with a comma); auto: the
    best candidate of the run, else the unpruned model itself; none: labels only. Default: auto."""

    teacher_weights: Iterable[float] | str
    """weights of several teachers, with commas; default: all equal."""

    distill_loss: str
    """distillation loss on logits: kd, dkd, none. Default: kd."""

    temperature: Ramp | float | str
    """softens both distributions; 8:2 goes from 8 to 2 during the training. Default: 4."""

    distill_weight: Ramp | float | str
    """share of the teacher's term in the loss, in [0, 1]; 0:0.7@20% reaches 0.7 after a fifth.
    Default: 0.7."""

    hints: Iterable[str]
    """distillation losses on features: fitnets."""

    hint_weight: Ramp | float | str
    """factor on each hint's own usual weight. Default: 1."""

    hint_pairs: Iterable[str | LayerPair | tuple[str, str]] | Mapping[str, str]
    """layers to compare, student_layer=teacher_layer, with commas; default: by resolution and
    depth."""

    teacher_cache: str
    """where the teacher's outputs are kept: memory, disk, off (it runs at every step), or auto:
    memory up to --cache-limit, disk above; always off under --augment. Default: auto."""

    cache_limit: Count
    """MiB of teacher outputs to keep in memory; or 2GB, 2GiB. Default: 1024."""

    qat: bool
    """train the smaller model on as its file of whole numbers computes (format int8-qat). Default:
    False."""

    qat_epochs: Count
    """epochs of that training; 0: ranges and kernels are calibrated alone. Default: 2."""

    qat_learning_rate: float
    """its peak learning rate. Default: 0.0001."""

    qat_calibration: str
    """where ranges begin: mse (what rounding and cutting off lose least by), minmax or percentile
    (99.99 %). Default: mse."""

    qat_examples: Count
    """training examples that ranges begin with. Default: 512."""

    qat_learned_ranges: bool
    """ranges are trained with the weights; else they move with what passes. Default: False."""

    qat_integer_products: bool
    """multiply activations (attention) in whole numbers too, for hardware that has no others.
    Default: False."""

    formats: Iterable[str]
    """LiteRT: float32, float16, dynamic, int8, int8-qat, int16x8, int8-mixed, int4-weights, sparse;
    ONNX: onnx, onnx_int8, onnx_int8-qat (pip install 'paretune[mixed,onnx]'). Default:
    float32,int8."""

    calibration: Count
    """training examples that calibrate int8. Default: 200."""

    opset: Count | None
    """ONNX operator set; default: the converter's."""

    mixed_levels: Iterable[str]
    """precisions among which int8-mixed chooses for each layer: int4 (weights; what passes in 8
    bits), int8, dynamic4 and dynamic (the same weights, what passes is rounded as it comes), int16
    (what passes), float16 (weights, computed in floats), float32. Default: int8,dynamic,float16."""

    mixed_loss: float
    """share of what the outputs lose where all layers have the lowest of these precisions that
    int8-mixed may leave. Default: 0.25."""

    mixed_size: SizeTarget | str | float | None
    """limit of int8-mixed: 0.3x (of the float32 file) or 200KB."""

    mixed_latency: TimeTarget | str | float | None
    """limit of int8-mixed on LiteRT here: 0.5x (of the float32 file; also: 2x faster) or 3ms."""

    latency_threads: Count
    """CPU threads of the timed runtime. Default: 1."""

    latency_precision: float
    """stop timing when each ratio's 95 % half-width is below this share. Default: 0.02."""

    latency_budget: float | str
    """seconds (or 2m) after which timing stops in any case. Default: 60."""

    runtimes: Iterable[str]
    """what times the files: litert; mnn (whose kernels skip zeros; float32 files; pip install
    'paretune[mnn]'); onnx and openvino (the ONNX files among --formats; pip install
    'paretune[onnx,openvino]'). Default: litert."""

    seed: Count
    """seeds splits, initial weights, shuffling and sampling. Default: 0."""

    device: str
    """auto, cpu or gpu. Default: auto."""

    threads: Count | None
    """CPU threads of a training; default: every core, shared among a run's workers."""

    memory: Count | None
    """memory that all processes of a run may occupy together, like 4GB; batches are as large as it
    allows; default: 90 % of what the machine or container has free."""

    out: str | Path | None
    """folder for the results; default: one in runs/."""

    repair: Count
    """training examples on which what pruning broke is solved for, layer by layer, before any fine-
    tuning; labels are not used; 0: no repair. Default: 1000."""

    log: Iterable[str]
    """where epochs, candidates and files are logged beside the run's folder, with commas:
    tensorboard, mlflow, wandb."""

    plugins: Iterable[str]
    """modules to import first, with commas: they register plug-ins of yours."""

    latency: TimeTarget | str | float | None
    """time of one inference: 0.5x (of the model's float32 file; also: 2x faster) or 3ms; measured
    with the first of --runtimes (litert, onnx or openvino) and --latency-threads."""

    latency_table: str | Path | None
    """times of another device, which the latency is of: a file of paretune latency-table import."""

    size: SizeTarget | str | float | None
    """size of the file: 0.25x (of the model's float32 file) or 200KB."""

    peak_memory: SizeTarget | str | float | None
    """memory for what flows through one inference, LiteRT's arena: 0.5x (of the model's float32
    file) or 64KB."""

    macs: Target | str | float | None
    """multiply-accumulates of one inference: 0.5x or 12M."""

    params: Target | str | float | None
    """parameters: 0.5x or 200k."""

    max_drop: float | None
    """maximum drop of the metric, in percentage points, at least 0: 1 is from 93 % to 92 %."""

    min_quality: float | None
    """least value of the metric, as the metric counts: 0.92."""

    budget: float | str | None
    """seconds (or 30m) within which all is to be done; default: as long as it takes."""

    no_train: bool
    """repair alone, no fine-tuning: minutes, and no labels are needed. Default: False."""

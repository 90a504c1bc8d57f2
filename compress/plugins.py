"""Registries of plug-ins for `compress`: a plug-in is one line here and one module.

Users register their own plug-ins with `CRITERIA.add("mine", score)`, or use "package.module:score"
as the name. Packages that build on `compress` have their own registries.
"""

from __future__ import annotations

from typing import Any

from compress.core.registry import Entry, Registry

_CRITERIA = "compress.prune.channels.criteria"
CRITERIA: Registry[Any] = Registry(
    "channel criterion",
    {
        "l1": f"{_CRITERIA}.magnitude:score_l1",
        "l2": f"{_CRITERIA}.magnitude:score_l2",
        "taylor": f"{_CRITERIA}.taylor:score_taylor",
        "activation": f"{_CRITERIA}.magnitude:score_activation",
        "reconstruction": f"{_CRITERIA}.reconstruction:score_reconstruction",
        "random": f"{_CRITERIA}.magnitude:score_random",
    },
    removed=dict.fromkeys(
        ("bn_scale", "fpgm"),
        "No figure showed that it gains anything over l2. Use l2, or a criterion of your own.",
    ),
)
"""Functions `score(group, context) -> (units,)`: `compress.prune.channels.criteria.Criterion`."""

_LOSSES = "compress.distillation.losses"
LOGIT_LOSSES: Registry[Any] = Registry(
    "distillation loss",
    {
        "kd": f"{_LOSSES}.hinton:HintonKD",
        "dkd": f"{_LOSSES}.dkd:DKD",
    },
    removed={
        "dist": "It gained nothing over labels alone (0.31 pp below them for a student from "
        "scratch, 0.52 pp for a pruned one). Use kd.",
    },
)
"""Subclasses of `compress.distillation.losses.LogitLoss`."""

HINTS: Registry[Any] = Registry(
    "feature loss",
    {"fitnets": f"{_LOSSES}.fitnets:FitNets"},
    removed=dict.fromkeys(
        ("attention", "similarity", "relational"),
        "No figure showed that it gains anything. Use fitnets, or a loss of your own.",
    ),
)
"""Subclasses of `compress.distillation.losses.FeatureLoss`, created without arguments."""

_RUNTIMES = "compress.measure.runtimes"
RUNTIMES: Registry[Any] = Registry(
    "runtime",
    {
        "litert": f"{_RUNTIMES}.litert:RUNTIME",
        "mnn": Entry(f"{_RUNTIMES}.mnn:RUNTIME", ("MNN",)),
        "onnx": Entry(f"{_RUNTIMES}.onnx:RUNTIME", ("onnxruntime",)),
        "openvino": Entry(f"{_RUNTIMES}.openvino:RUNTIME", ("openvino",)),
        "tensorflow": f"{_RUNTIMES}.tensorflow:RUNTIME",
    },
)
"""Instances of `compress.measure.runtimes.Runtime`."""
MAIN_RUNTIME = "litert"
"""Runtime whose latencies are in the main tables of a run; others get separate tables."""

_DATA = "compress.data"
SOURCES: Registry[Any] = Registry(
    "data set",
    {
        "digits": f"{_DATA}.keras_datasets:read_digits",
        "mnist": f"{_DATA}.keras_datasets:load_keras_dataset",
        "fashion_mnist": f"{_DATA}.keras_datasets:load_keras_dataset",
        "cifar10": f"{_DATA}.keras_datasets:load_keras_dataset",
        "cifar100": f"{_DATA}.keras_datasets:load_keras_dataset",
    },
)
"""Functions `load(name) -> RawData`; `compress.data.load_data` also takes users' functions, files,
folders and hubs."""
FILES: Registry[Any] = Registry(
    "data file of kind",
    {
        "npz": f"{_DATA}.npz:KIND",
        "csv": Entry(f"{_DATA}.tables:CSV", ("pandas",)),
        "parquet": Entry(f"{_DATA}.tables:PARQUET", ("pyarrow",)),
        "tfrecord": f"{_DATA}.tfrecords:RECORDS",
        "tfrecords": f"{_DATA}.tfrecords:RECORDS",
    },
)
"""Instances of `compress.data.kinds.Kind` by extension (`compress.data.kinds.parse_extension`)."""
FOLDERS: Registry[Any] = Registry(
    "data folder of kind",
    {
        "idx": f"{_DATA}.keras_datasets:KIND",
        "tfrecord": f"{_DATA}.tfrecords:RECORDS",
    },
)
"""Instances of `compress.data.kinds.Kind`. The first that matches a folder reads it; a folder
without a match is read as images."""
HUBS: Registry[Any] = Registry(
    "data hub",
    {"tfds": Entry(f"{_DATA}.tfrecords:TFDS", ("tensorflow_datasets",))},
)
"""Instances of `compress.data.kinds.Kind` by the prefix of a name like `tfds:mnist`."""

TASKS: Registry[Any] = Registry(
    "task",
    {
        "multiclass": f"{_DATA}.tasks.classes:MultiClass",
        "binary": f"{_DATA}.tasks.binary:Binary",
        "multilabel": f"{_DATA}.tasks.binary:MultiLabel",
        "regression": f"{_DATA}.tasks.regression:Regression",
        "segmentation": f"{_DATA}.tasks.classes:Segmentation",
        "tagging": f"{_DATA}.tasks.classes:Tagging",
        "masks": f"{_DATA}.tasks.binary:Masks",
        "reconstruction": f"{_DATA}.tasks.regression:Reconstruction",
        "unlabelled": f"{_DATA}.tasks.model_tasks:Answers",
        "several": f"{_DATA}.tasks.model_tasks:Several",
        "custom": f"{_DATA}.tasks.model_tasks:Custom",
    },
)
"""Subclasses of `compress.data.tasks.Task`."""

_LOGS = "compress.run.logs"
LOGS: Registry[Any] = Registry(
    "log",
    {
        "tensorboard": Entry(f"{_LOGS}.tensorboard:TensorBoardLog", ("tensorboard",)),
        "mlflow": Entry(f"{_LOGS}.mlflow:MlflowLog", ("mlflow",)),
        "wandb": Entry(f"{_LOGS}.wandb:WandbLog", ("wandb",)),
    },
)
"""Functions `make(folder, name, plan) -> Log`, see `compress.run.logs.Log`."""

CALIBRATORS: Registry[Any] = Registry(
    "calibrator", {"int8": "compress.quantization.quantizer:calibrate_for_file"}
)
"""Functions `make(model, inputs) -> (fake-quantized model, notes)` by file format, for models that
the format's own converter does not support. The export looks them up here, because it must not
import the quantization package."""

STEPS: Registry[Any] = Registry(
    "conversion",
    {
        "litert": "compress.exporting.litert:convert_litert",
        "litert_graph": "compress.exporting.batch_conversion:convert_litert_graph",
        "mixed": "compress.exporting.mixed.units:convert_mixed",
        "mixed_ranges": "compress.exporting.mixed.units:observe_ranges",
        "onnx": "compress.exporting.onnx:convert_onnx",
        "onnx_graph": "compress.exporting.batch_conversion:convert_onnx_graph",
        "onnx_int8": "compress.exporting.onnx:convert_onnx_int8",
    },
)
"""Conversions of the converter process, see `compress.exporting.converter`."""

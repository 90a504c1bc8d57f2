"""The tables of what can be added to `compress`: one line here and one file there is a plug-in.

A user's own need no line: `CRITERIA.add("mine", score)`, or "package.module:score" as the name.
What stands on `compress` has tables of its own.
"""

from __future__ import annotations

from typing import Any

from compress.core.registry import Entry, Registry

_CRITERIA = "compress.prune.channels.criteria"
CRITERIA: Registry[Any] = Registry(
    "channel criterion",
    {
        "l1": f"{_CRITERIA}.magnitude:l1",
        "l2": f"{_CRITERIA}.magnitude:l2",
        "bn_scale": f"{_CRITERIA}.magnitude:bn_scale",
        "fpgm": f"{_CRITERIA}.magnitude:fpgm",
        "taylor": f"{_CRITERIA}.taylor:taylor",
        "activation": f"{_CRITERIA}.magnitude:activation",
        "reconstruction": f"{_CRITERIA}.reconstruction:reconstruction",
        "random": f"{_CRITERIA}.magnitude:random",
    },
)
"""`score(group, context) -> (units,)`: `compress.prune.channels.criteria.Criterion`."""

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
"""Classes of `compress.distillation.losses.LogitLoss`."""

HINTS: Registry[Any] = Registry(
    "hint",
    {"fitnets": f"{_LOSSES}.fitnets:FitNets"},
    removed=dict.fromkeys(
        ("attention", "similarity", "relational"),
        "No figure showed that it gains anything. Use fitnets, or a loss of your own.",
    ),
)
"""Classes of `compress.distillation.losses.FeatureLoss`, made without arguments."""

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
"""`compress.measure.runtimes.Runtime`."""
MAIN_RUNTIME = "litert"
"""Whose times stand in the tables of a run; the others get a table each."""

_DATA = "compress.data"
SOURCES: Registry[Any] = Registry(
    "data set",
    {
        "digits": f"{_DATA}.keras_datasets:read_digits",
        "mnist": f"{_DATA}.keras_datasets:load",
        "fashion_mnist": f"{_DATA}.keras_datasets:load",
        "cifar10": f"{_DATA}.keras_datasets:load",
        "cifar100": f"{_DATA}.keras_datasets:load",
    },
)
"""`load(name) -> RawData`; `compress.data.load_data` also takes functions, and what follows."""
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
"""`compress.data.kinds.Kind`, by how a file's name ends (see `compress.data.kinds.ending`)."""
FOLDERS: Registry[Any] = Registry(
    "data folder of kind",
    {
        "idx": f"{_DATA}.keras_datasets:KIND",
        "tfrecord": f"{_DATA}.tfrecords:RECORDS",
    },
)
"""`compress.data.kinds.Kind`: the first that holds a folder reads it, else it is of images."""
HUBS: Registry[Any] = Registry(
    "data hub",
    {"tfds": Entry(f"{_DATA}.tfrecords:TFDS", ("tensorflow_datasets",))},
)
"""`compress.data.kinds.Kind`, by what stands before the colon of `tfds:mnist`."""

_TASKS = "compress.data.tasks"
TASKS: Registry[Any] = Registry(
    "task",
    {
        "multiclass": f"{_TASKS}.classes:MultiClass",
        "binary": f"{_TASKS}.yes_no:Binary",
        "multilabel": f"{_TASKS}.yes_no:MultiLabel",
        "regression": f"{_TASKS}.regression:Regression",
        "segmentation": f"{_TASKS}.classes:Segmentation",
        "tagging": f"{_TASKS}.classes:Tagging",
        "masks": f"{_TASKS}.yes_no:Masks",
        "reconstruction": f"{_TASKS}.regression:Reconstruction",
        "unlabelled": f"{_TASKS}.model_tasks:Answers",
        "several": f"{_TASKS}.model_tasks:Several",
        "custom": f"{_TASKS}.model_tasks:Custom",
    },
)
"""Classes of `compress.data.tasks.Task`."""

_LOGS = "compress.run.logs"
LOGS: Registry[Any] = Registry(
    "log",
    {
        "tensorboard": Entry(f"{_LOGS}.tensorboard:TensorBoardLog", ("tensorboard",)),
        "mlflow": Entry(f"{_LOGS}.mlflow:MlflowLog", ("mlflow",)),
        "wandb": Entry(f"{_LOGS}.wandb:WandbLog", ("wandb",)),
    },
)
"""`make(folder, name, plan) -> Log`, see `compress.run.logs.Log`."""

CALIBRATORS: Registry[Any] = Registry(
    "calibrator", {"int8": "compress.quantization.quantizing:calibrate_for_file"}
)
"""`make(model, inputs) -> (model that rounds its values, notes)`, by the format of the file: for
models that the format's own converter does not take. What exports stands below what quantizes."""

STEPS: Registry[Any] = Registry(
    "conversion",
    {
        "litert": "compress.exporting.litert:convert_litert",
        "litert_graph": "compress.exporting.side_by_side:convert_litert_graph",
        "mixed": "compress.exporting.mixed.units:convert_mixed",
        "mixed_ranges": "compress.exporting.mixed.units:observe_ranges",
        "onnx": "compress.exporting.onnx:convert_onnx",
        "onnx_graph": "compress.exporting.side_by_side:convert_onnx_graph",
        "onnx_int8": "compress.exporting.onnx:convert_onnx_int8",
    },
)
"""What the process that converts can do: `compress.exporting.converter`."""

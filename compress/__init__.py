"""paretune's compressing half: load data and models, prune, distil, export, measure, report.

Importing this package is quick and has no side effects: TensorFlow is imported by the
first function that needs it.
"""

from compress._version import __version__
from compress.benchmarking import BenchPlan, bench
from compress.core.errors import (
    FeasibleError,
    InputError,
    MissingDependency,
    ParetuneError,
    TrainingDiverged,
)
from compress.data import Dataset, Split, load_data
from compress.distillation import distill
from compress.exporting import export
from compress.measure import count_macs, measure_latency
from compress.model.io import load_model
from compress.pipeline.compression import compress_model
from compress.plan import Plan
from compress.prune.channels import coupled_groups, prune_channels
from compress.prune.weights import prune_weights

__all__ = [
    "BenchPlan",
    "Dataset",
    "FeasibleError",
    "InputError",
    "MissingDependency",
    "ParetuneError",
    "Plan",
    "Split",
    "TrainingDiverged",
    "__version__",
    "bench",
    "compress_model",
    "count_macs",
    "coupled_groups",
    "distill",
    "export",
    "load_data",
    "load_model",
    "measure_latency",
    "prune_channels",
    "prune_weights",
]

"""Compression of Keras models: load data and models, prune, distil, export, measure, report.

Each name is imported at first use, and TensorFlow by the first function that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from compress._version import __version__
from compress.core.registry import build_lazy_getattr

if TYPE_CHECKING:
    from compress.benchmarking import BenchPlan, BenchResult, bench
    from compress.core.errors import (
        FeasibleError,
        InputError,
        MissingDependency,
        ParetuneError,
        RunFailed,
        TrainingDiverged,
    )
    from compress.data import Dataset, Split, load_data
    from compress.devices import DeviceTimes, channel_times, import_latency_table
    from compress.devices.exporting import export_latency_table
    from compress.distillation import DistillResult, distill
    from compress.exporting import Exported, export
    from compress.measure import Analysis, count_macs, measure_latency
    from compress.model.io import load_model
    from compress.plan import (
        ChannelOptions,
        DataOptions,
        DistillOptions,
        ExportOptions,
        LatencyOptions,
        Plan,
        QuantizeOptions,
        TrainSettings,
        WeightOptions,
    )
    from compress.plan.shrink import GoalLimits, GoalOptions, ShrinkPlan
    from compress.prune.channels import (
        PruneResult,
        SensitivityMap,
        coupled_groups,
        prune_channels,
        sensitivity_map,
    )
    from compress.prune.recalibrate import recalibrate
    from compress.prune.weights import (
        PruneWeightsResult,
        WeightPruner,
        prune_weights,
        resume_pruning,
        save_pruning,
    )
    from compress.quantization import QuantizeResult, quantize
    from compress.reconstruction import RepairReport, repair
    from compress.report import Report
    from compress.shrinking.compression import CompressResult, compress_model
    from compress.shrinking.shrink import ShrinkResult, shrink
    from compress.train.dataset_loading import as_dataset

_PLACES = {
    "Analysis": "compress.measure:Analysis",
    "BenchPlan": "compress.benchmarking:BenchPlan",
    "BenchResult": "compress.benchmarking:BenchResult",
    "ChannelOptions": "compress.plan:ChannelOptions",
    "CompressResult": "compress.shrinking.compression:CompressResult",
    "DataOptions": "compress.plan:DataOptions",
    "Dataset": "compress.data:Dataset",
    "DeviceTimes": "compress.devices:DeviceTimes",
    "DistillOptions": "compress.plan:DistillOptions",
    "DistillResult": "compress.distillation:DistillResult",
    "ExportOptions": "compress.plan:ExportOptions",
    "Exported": "compress.exporting:Exported",
    "FeasibleError": "compress.core.errors:FeasibleError",
    "GoalLimits": "compress.plan.shrink:GoalLimits",
    "GoalOptions": "compress.plan.shrink:GoalOptions",
    "InputError": "compress.core.errors:InputError",
    "LatencyOptions": "compress.plan:LatencyOptions",
    "MissingDependency": "compress.core.errors:MissingDependency",
    "ParetuneError": "compress.core.errors:ParetuneError",
    "Plan": "compress.plan:Plan",
    "PruneResult": "compress.prune.channels:PruneResult",
    "PruneWeightsResult": "compress.prune.weights:PruneWeightsResult",
    "QuantizeOptions": "compress.plan:QuantizeOptions",
    "QuantizeResult": "compress.quantization:QuantizeResult",
    "RepairReport": "compress.reconstruction:RepairReport",
    "Report": "compress.report:Report",
    "RunFailed": "compress.core.errors:RunFailed",
    "SensitivityMap": "compress.prune.channels:SensitivityMap",
    "ShrinkPlan": "compress.plan.shrink:ShrinkPlan",
    "ShrinkResult": "compress.shrinking.shrink:ShrinkResult",
    "Split": "compress.data:Split",
    "TrainSettings": "compress.plan:TrainSettings",
    "TrainingDiverged": "compress.core.errors:TrainingDiverged",
    "WeightOptions": "compress.plan:WeightOptions",
    "WeightPruner": "compress.prune.weights:WeightPruner",
    "as_dataset": "compress.train.dataset_loading:as_dataset",
    "bench": "compress.benchmarking:bench",
    "channel_times": "compress.devices:channel_times",
    "compress_model": "compress.shrinking.compression:compress_model",
    "count_macs": "compress.measure:count_macs",
    "coupled_groups": "compress.prune.channels:coupled_groups",
    "distill": "compress.distillation:distill",
    "export": "compress.exporting:export",
    "export_latency_table": "compress.devices.exporting:export_latency_table",
    "import_latency_table": "compress.devices:import_latency_table",
    "load_data": "compress.data:load_data",
    "load_model": "compress.model.io:load_model",
    "measure_latency": "compress.measure:measure_latency",
    "prune_channels": "compress.prune.channels:prune_channels",
    "prune_weights": "compress.prune.weights:prune_weights",
    "quantize": "compress.quantization:quantize",
    "recalibrate": "compress.prune.recalibrate:recalibrate",
    "repair": "compress.reconstruction:repair",
    "resume_pruning": "compress.prune.weights:resume_pruning",
    "save_pruning": "compress.prune.weights:save_pruning",
    "sensitivity_map": "compress.prune.channels:sensitivity_map",
    "shrink": "compress.shrinking.shrink:shrink",
}

__all__ = [
    "Analysis",
    "BenchPlan",
    "BenchResult",
    "ChannelOptions",
    "CompressResult",
    "DataOptions",
    "Dataset",
    "DeviceTimes",
    "DistillOptions",
    "DistillResult",
    "ExportOptions",
    "Exported",
    "FeasibleError",
    "GoalLimits",
    "GoalOptions",
    "InputError",
    "LatencyOptions",
    "MissingDependency",
    "ParetuneError",
    "Plan",
    "PruneResult",
    "PruneWeightsResult",
    "QuantizeOptions",
    "QuantizeResult",
    "RepairReport",
    "Report",
    "RunFailed",
    "SensitivityMap",
    "ShrinkPlan",
    "ShrinkResult",
    "Split",
    "TrainSettings",
    "TrainingDiverged",
    "WeightOptions",
    "WeightPruner",
    "__version__",
    "as_dataset",
    "bench",
    "channel_times",
    "compress_model",
    "count_macs",
    "coupled_groups",
    "distill",
    "export",
    "export_latency_table",
    "import_latency_table",
    "load_data",
    "load_model",
    "measure_latency",
    "prune_channels",
    "prune_weights",
    "quantize",
    "recalibrate",
    "repair",
    "resume_pruning",
    "save_pruning",
    "sensitivity_map",
    "shrink",
]

if not TYPE_CHECKING:  # type checkers use the imports above
    __getattr__ = build_lazy_getattr(__name__, _PLACES)


def __dir__() -> list[str]:
    return __all__

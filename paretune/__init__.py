"""Search, compression and measurement of Keras models: the public API of `compress` and `search`.

    import paretune as pt

    small = pt.prune_channels("model.keras", macs=0.5)

Each name is imported at first use, and TensorFlow by the first function that needs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paretune._own_packages import load_own_packages

load_own_packages()

import compress  # noqa: E402
import search  # noqa: E402
from compress._version import __version__  # noqa: E402
from compress.core.registry import build_lazy_getattr  # noqa: E402

if TYPE_CHECKING:
    from compress import (
        Analysis,
        BenchPlan,
        BenchResult,
        ChannelOptions,
        CompressResult,
        DataOptions,
        Dataset,
        DeviceTimes,
        DistillOptions,
        DistillResult,
        Exported,
        ExportOptions,
        FeasibleError,
        GoalLimits,
        GoalOptions,
        InputError,
        LatencyOptions,
        MissingDependency,
        ParetuneError,
        Plan,
        PruneResult,
        PruneWeightsResult,
        QuantizeOptions,
        QuantizeResult,
        RepairReport,
        Report,
        RunFailed,
        SensitivityMap,
        ShrinkPlan,
        ShrinkResult,
        Split,
        TrainingDiverged,
        TrainSettings,
        WeightOptions,
        WeightPruner,
        as_dataset,
        bench,
        channel_times,
        compress_model,
        count_macs,
        coupled_groups,
        distill,
        export,
        export_latency_table,
        import_latency_table,
        load_data,
        load_model,
        measure_latency,
        prune_channels,
        prune_weights,
        quantize,
        recalibrate,
        repair,
        resume_pruning,
        save_pruning,
        sensitivity_map,
        shrink,
    )
    from search import (
        FinalOptions,
        SearchData,
        SearchOptions,
        SearchPlan,
        Workers,
        run,
        run_search,
    )

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
    "FinalOptions",
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
    "SearchData",
    "SearchOptions",
    "SearchPlan",
    "SensitivityMap",
    "ShrinkPlan",
    "ShrinkResult",
    "Split",
    "TrainSettings",
    "TrainingDiverged",
    "WeightOptions",
    "WeightPruner",
    "Workers",
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
    "run",
    "run_search",
    "save_pruning",
    "sensitivity_map",
    "shrink",
]

if not TYPE_CHECKING:  # type checkers use the imports above
    __getattr__ = build_lazy_getattr(
        __name__,
        {name: f"{half.__name__}:{name}" for half in (compress, search) for name in half.__all__},
    )


def __dir__() -> list[str]:
    return __all__

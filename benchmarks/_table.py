"""All benchmarks: what `python -m benchmarks` (and so `make bench`) runs, in this order.

A module with a `main` that is missing here fails a test.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """One command.

    Attributes:
        name: A module of benchmarks.
        minutes: About how long it takes on two quiet cores.
        words: Its options.
    """

    name: str
    minutes: float
    words: tuple[str, ...] = ()

    @property
    def command(self) -> tuple[str, ...]:
        """What follows the interpreter."""
        return ("-m", f"benchmarks.{self.name}", *self.words)


TABLE = (
    Entry("train_loop", 5),
    Entry("trial_speed", 40),
    Entry("channel_speed", 5),
    Entry("weights_speed", 10),
    Entry("distill_speed", 4),
    Entry("latency_repeat", 15),
    Entry("latency_runtimes", 6),
    Entry("latency_table", 24),
    Entry("recurrent_files", 5),
    Entry("file_agreement", 4),
    Entry("applications_macs", 20),
    Entry("applications_channels", 60),
    Entry("prune_resnet20", 70),
    Entry("weights_resnet20", 60),
    Entry("distill_resnet20", 75),
    Entry("repair_resnet20", 25),
    Entry("repair_resnet20", 20, ("--latency",)),
    Entry("repair_resnet20", 120, ("--finetune",)),
    Entry("repair_weights", 20),
    Entry("repair_weights", 130, ("--finetune",)),
    Entry("repair_models", 120),
    Entry("repair_int8", 90),
    Entry("channel_methods", 120),
    Entry("repair_cost", 70),
    Entry("quantize_speed", 5),
    Entry("quantize_nets", 150),
    Entry("quantize_pruned", 40),
    Entry("quantize_mixed", 60),
    Entry("quantize_four_bits", 20),
    Entry("quantize_attention", 8),
    Entry("token_files", 20),
    Entry("any_model", 120),
    Entry("large_data", 40),
    Entry("memory_budget", 150),
    Entry("shrink_goals", 240),
    Entry("shrink_peers", 180),
    Entry("verdicts", 12),
    Entry("around_rates", 10),
    Entry(
        "around_front", 40, ("--beside", "benchmarks/results/shrink_peers/2026-11-28-2a7388f.json")
    ),
    Entry("search_curves", 25),
    Entry("search_stopping", 1),
    Entry("search_strategies", 10),
    Entry("search_recorded", 5),
    Entry("search_proxies", 10),
    Entry("search_scale", 10),
    Entry("report_page", 3),
    Entry("search_nas_table", 15),
    Entry("search_front", 37),
    Entry("search_front", 37, ("--space", "own")),
    Entry("search_front", 37, ("--own-first",)),
    Entry("search_left_out", 110),
    Entry("search_samplers", 26),
    Entry("search_transfer", 25),
    Entry("search_faults", 15),
    Entry("cluster_overhead", 50),
    Entry("whole_run", 50),
)

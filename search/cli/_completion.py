"""Values that the shell completes: names of plug-ins and the choices of a plan."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from compress import plan as plans
from compress.core.device import DEVICES
from compress.core.plugins import CRITERIA, HINTS, LOGIT_LOSSES, LOGS, RUNTIMES, SOURCES, TASKS
from compress.data.tasks import qualities
from compress.plan.bench import BENCH_FORMATS
from compress.plan.data import AUTO
from compress.plan.distill import NO_LOSS
from compress.plan.quantize import CALIBRATIONS
from search.plan import COSTS
from search.plan.stopping import RULES
from search.plugins import ENGINES, SAMPLERS, SPACES

Names = Callable[[], Iterable[str]]

# a table is asked when the shell asks: it may have got new names since this was imported
VALUES: dict[str, Names] = {
    "data": SOURCES.names,
    "task": TASKS.names,
    "normalize": lambda: plans.NORMALIZATIONS,
    "space": lambda: (*SPACES.names(), "around:"),
    "sampler": lambda: (AUTO, *SAMPLERS.names()),
    "engine": ENGINES.names,
    "optimizers": lambda: plans.OPTIMIZERS,
    "objectives": lambda: (*qualities(), *COSTS),
    "stopping": lambda: RULES,
    "channels_of": lambda: plans.CHANNEL_COSTS,
    "channel_criterion": lambda: (AUTO, *CRITERIA.names()),
    "channel_scope": lambda: plans.CHANNEL_SCOPES,
    "channel_aggregate": lambda: plans.AGGREGATES,
    "channel_normalize": lambda: plans.SCORE_SCALES,
    "prune_pattern": lambda: ("unstructured", "2:4", "1x4"),
    "prune_pooling": lambda: plans.POOLINGS,
    "prune_scope": lambda: (AUTO, *plans.WEIGHT_SCOPES),
    "prune_also": lambda: plans.PRUNED_TOO,
    "prune_schedule": lambda: plans.WEIGHT_SCHEDULES,
    "finetune_optimizer": lambda: plans.OPTIMIZERS,
    "schedule": lambda: plans.SCHEDULES,
    "class_weights": lambda: plans.CLASS_WEIGHTS,
    "augment": lambda: plans.AUGMENTATIONS,
    "teacher": lambda: ("auto", "none"),
    "distill_loss": lambda: (*LOGIT_LOSSES, NO_LOSS),
    "hints": HINTS.names,
    "teacher_cache": lambda: plans.CACHES,
    "qat_calibration": lambda: CALIBRATIONS,
    "formats": lambda: plans.FORMATS,
    "mixed_levels": lambda: plans.LEVELS,
    "runtimes": RUNTIMES.names,
    "log": LOGS.names,
    "device": lambda: DEVICES,
}
"""What each option takes, by its name in Python; options that take anything are not here."""
BENCH_VALUES: dict[str, Names] = {**VALUES, "formats": lambda: BENCH_FORMATS}
"""The same for `bench`, whose formats are those of Keras models that it converts."""


def completer(names: Names, several: bool) -> Callable[[str], list[str]]:
    """Returns what typer asks for values.

    Args:
        names: Called when the shell asks.
        several: Whether the option takes several with commas: the last one is completed then.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",") if several else ("", "", incomplete)
        taken = before.split(",")
        return [
            f"{before}{comma}{name}"
            for name in names()
            if name.startswith(last) and name not in taken
        ]

    return complete

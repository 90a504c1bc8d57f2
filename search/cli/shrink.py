"""`paretune shrink MODEL`: say what is needed, get the file to ship."""

from __future__ import annotations

from pathlib import Path

from compress.plan.shrink import ShrinkPlan
from search.cli._console import display, reporting_errors
from search.cli.run import print_report

BASIC = (
    "data", "latency", "size", "macs", "params", "max_drop", "min_quality", "budget", "no_train",
    "formats", "task", "finetune_epochs", "device", "out",
)  # fmt: skip
"""The options that `paretune shrink --help` shows."""
REFUSED = {
    "max_latency": "Give --latency.",
    "max_size": "Give --size.",
    "max_macs": "Give --macs.",
    "max_params": "Give --params.",
}
"""Limits of a search, which are goals here."""


def shrink(model: Path, plan: ShrinkPlan) -> None:
    """Shrink a Keras model of your own to a goal: a time, a size, a quality, or a whole front."""
    from compress.shrinking.shrink import shrink as to_goal

    with (
        reporting_errors("The same command goes on where it ended."),
        display() as shown,
    ):
        shown.phase(f"Shrinking {model.name}", 0, 1, steps=True)
        result = to_goal(
            model, plan=plan, on_progress=lambda text, share: shown.worker(0, text, share)
        )
    print_report(result.report)

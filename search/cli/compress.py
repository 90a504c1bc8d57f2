"""`paretune compress MODEL`: prune, distil, export and measure the user's own model."""

from __future__ import annotations

from pathlib import Path

from compress.plan import Plan
from search.cli._console import display, reporting_errors
from search.cli.run import print_report

BASIC = (
    "data", "channels", "sparsity", "finetune_epochs", "learning_rate", "teacher", "formats",
    "runtimes", "task", "device", "out",
)  # fmt: skip
"""The options that `paretune compress --help` shows."""
OLD = {"epochs": "finetune_epochs", "optimizer": "finetune_optimizer"}
"""What options were called in the first release, where `--epochs` was fine-tuning's here alone."""


def compress(model: Path, plan: Plan) -> None:
    """Prune, distil, export and measure a Keras model of your own."""
    from compress.shrinking.compression import compress_model

    with (
        reporting_errors("The same command continues after the last whole epoch."),
        display() as shown,
    ):
        shown.phase(f"Compressing {model.name}", 0, 1, steps=True)
        result = compress_model(
            model, plan=plan, on_progress=lambda text, share: shown.worker(0, text, share)
        )
    print_report(result.report)

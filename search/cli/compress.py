"""`paretune compress MODEL`: prune, distil, export and measure the user's own model."""

from __future__ import annotations

from pathlib import Path

from compress.plan import Plan
from search.cli._console import display, reporting_errors
from search.cli.run import print_report


def compress(model: Path, plan: Plan) -> None:
    """Prune and distil a Keras model that you bring, export it, measure and report."""
    from compress.pipeline.compression import compress_model

    with (
        reporting_errors("The same command goes on after the last whole epoch."),
        display() as shown,
    ):
        shown.phase(f"Compressing {model.name}", 0, 1, steps=True)
        result = compress_model(
            model, plan=plan, on_progress=lambda text, share: shown.worker(0, text, share)
        )
    print_report(result.report)

"""Searches networks for scikit-learn's digits, compresses the best and reports.

    python find_a_network.py [--trials 6] [--epochs 3] [--max-macs 500k] [--out runs/example]

Run it again with more trials: it continues.
"""

from __future__ import annotations

import argparse

import paretune as pt

if __name__ == "__main__":  # trials run in processes of their own
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--max-macs", default="500k")
    parser.add_argument("--out", default="runs/example")
    given = parser.parse_args()

    report = pt.run(
        "digits",
        space="cnn",
        trials=given.trials,
        epochs=given.epochs,
        finetune_epochs=given.epochs,  # of the compressed front; by default enough for 1,000 steps
        max_macs=given.max_macs,  # larger networks are rejected before they are trained
        latency_budget="10s",  # of timing
        out=given.out,
    )
    print(report)
    print("open", f"{given.out}/report.html")

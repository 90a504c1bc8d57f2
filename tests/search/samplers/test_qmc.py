"""A low-discrepancy check of qmc."""

from __future__ import annotations

import numpy as np
import optuna

from search.samplers import SAMPLERS


def test_qmc_points_of_one_study_are_one_sequence() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(directions=["maximize", "minimize"])
    points = []
    for count in range(17):
        study.sampler = SAMPLERS["qmc"](1000 * count)
        trial = study.ask()
        points.append([trial.suggest_float(name, 0.0, 1.0) for name in "xyz"])
        study.tell(trial, [1.0, 1.0])
    # the first is random; Sobol's first 16 fall one into each sixteenth of each axis
    cells = np.floor(16 * np.array(points[1:])).astype(int)
    for axis in cells.T:
        assert sorted(axis) == list(range(16))

"""Stopping rules against arithmetic by hand, and on recorded learning curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from benchmarks.search_front import volume
from compress.core.errors import InputError
from compress.plan.nesting import from_flat
from search.plan import SearchPlan
from search.plan.search import compute_rungs
from search.study.objective import STOP_MARGIN, DominanceStopper, is_dominated


def losses(*rows: tuple[float, float]) -> Any:
    """(accuracy, MACs) pairs as losses."""
    return np.array([[-accuracy, cost] for accuracy, cost in rows])


@pytest.mark.parametrize(
    ("own", "stops"),
    [
        ((0.78, 100), True),  # 0.80 at 100 is better by exactly the margin, at no more cost
        ((0.781, 100), False),
        ((0.78, 99), False),  # cheaper than all that are better
        ((0.60, 50), False),  # 0.61 at 50: better by less than the margin
        ((0.58, 50), True),
        ((0.10, 10), False),
    ],
)
def test_dominance_by_a_margin(own: tuple[float, float], stops: bool) -> None:
    table = losses((0.80, 100), (0.61, 50), (0.90, 1000), own)
    assert is_dominated(table, 3, 0.02) is stops


def test_dominance_without_margin_does_not_stop_a_trial_by_itself() -> None:
    assert not is_dominated(losses((0.5, 100), (0.6, 200)), 0, 0.0)
    assert is_dominated(losses((0.5, 100), (0.5, 100)), 0, 0.0)  # an equal one is there


def test_dominance_needs_every_cost_to_be_no_more() -> None:
    table = np.array([[-0.9, 100.0, 5.0], [-0.5, 100.0, 4.0]])
    assert not is_dominated(table, 1, 0.02)
    table[1, 2] = 5.0
    assert is_dominated(table, 1, 0.02)


def test_rungs() -> None:
    assert compute_rungs("dominance", 8) == (1, 2, 4)
    assert compute_rungs("dominance", 12) == (2, 3, 6)
    assert compute_rungs("dominance", 4) == (1, 2)
    assert compute_rungs("dominance", 2) == (1,)
    assert compute_rungs("dominance", 1) == ()
    assert compute_rungs("none", 8) == ()


@pytest.mark.parametrize(
    ("flat", "message"),
    [
        ({"stopping": "median"}, "Unknown stopping rule 'median'. Choices: dominance, none"),
        ({"trial_minutes": 0.0}, "trial_minutes must be above 0"),
        ({"max_minutes": -1.0}, "max_minutes must be above 0"),
    ],
)
def test_bad_options(flat: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        from_flat(SearchPlan, flat)


def test_rungs_stand_in_the_storage() -> None:
    """Two trials of one study, as two processes have them: the second learns of the first."""
    study = optuna.create_study(directions=["maximize", "minimize"])

    def stopper() -> DominanceStopper:
        return DominanceStopper(study.ask(), (2, 4), [1000.0])

    first, second = stopper(), stopper()
    assert not second.should_stop(2, 0.5)  # nobody else has reached the rung
    assert not first.should_stop(1, 0.1)  # no rung
    assert not first.should_stop(2, 0.9)
    assert not second.should_stop(3, 0.1)
    assert not first.should_stop(4, 0.9)
    assert second.should_stop(4, 0.6)
    assert study.trials[1].user_attrs == {"costs": [1000.0], "rung2": 0.5, "rung4": 0.6}


def replay(
    curves: Sequence[dict[str, Any]], margin: float, epochs: Sequence[int]
) -> tuple[int, float]:
    """Run candidates in this order; return epochs trained and the front's hypervolume."""
    at: dict[int, list[tuple[float, float]]] = {epoch: [] for epoch in epochs}
    spent, finished = 0, []
    for item in curves:
        accuracy, macs = item["accuracy"], float(item["macs"])
        stopped = False
        for epoch in epochs if accuracy else ():
            at[epoch].append((-max(accuracy[:epoch]), macs))
            if is_dominated(np.array(at[epoch]), len(at[epoch]) - 1, margin):
                spent, stopped = spent + epoch, True
                break
        if not stopped:
            spent += len(accuracy)
            finished += [(-max(accuracy), macs)] if accuracy else []
    return spent, volume(finished)


def test_replay_by_hand() -> None:
    curves = [
        {"macs": 1e4, "accuracy": [0.5, 0.6, 0.7, 0.75]},
        {"macs": 1e5, "accuracy": [0.5, 0.5, 0.5, 0.5]},  # stopped after 2: 0.6 is cheaper
        {"macs": 1e6, "accuracy": [0.7, 0.8, 0.9, 0.9]},
    ]
    spent, found = replay(curves, 0.05, (2,))
    assert spent == 4 + 2 + 4
    # (0.75, 1e4): 0.25 of 0.5 high, all 4 of 4 wide; (0.9, 1e6) adds 0.15 / 0.5 over 2 of 4
    assert found == pytest.approx(0.5 + 0.3 * 0.5)
    assert volume([(-0.75, 1e4)]) == pytest.approx(0.5)


def test_the_default_rule_on_recorded_curves() -> None:
    """At least half of the epochs saved at under 0.5 % less hypervolume.

    Fifty candidates of the space `cnn` on Fashion-MNIST, trained for eight epochs each.
    """
    content = json.loads(Path(__file__).with_name("recorded_curves.json").read_text("utf-8"))
    curves, epochs = content["candidates"], compute_rungs("dominance", content["epochs"])
    all_epochs, best = replay(curves, STOP_MARGIN, ())
    rng = np.random.default_rng(0)
    orders = [rng.permutation(len(curves)) for _ in range(60)]
    replayed = [replay([curves[i] for i in order], STOP_MARGIN, epochs) for order in orders]
    spent, volumes = zip(*replayed, strict=True)
    assert all_epochs / np.median(spent) >= 2.0
    assert 1 - np.median(volumes) / best < 0.005

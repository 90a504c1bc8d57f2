"""Warm starts: the fronts of finished searches first, those of the nearest data set first."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from compress.core.errors import InputError
from compress.core.pareto import crowding_distance, front_mask
from compress.data import Dataset
from search.samplers._base import losses_of
from search.study.storage import open_storage

ABOUT_ATTR = "paretune"
"""Study attribute: what its search was about."""
WARM_ATTR = "warm_start"
"""Trial attribute: which trial of which study it was taken from."""
SCALES = {"classes": 1.0, "examples": 0.25, "size": 1.0, "channels": 1.0, "balance": 2.0}
"""Weights of the meta-features' differences; the first four are differences of logarithms."""


def meta_features(data: Dataset) -> dict[str, float]:
    """Describe a data set by features that can be compared with another's.

    Returns:
        classes (outputs), examples (for training), size (pixels or numbers of an example
        without channels), channels, balance (entropy of the class shares over its largest
        value, 1: all as frequent; 1 where there are no classes).
    """
    shape = data.input_shape
    channels = shape[-1] if len(shape) == 3 else 1
    labels = data.train.y
    balance = 1.0
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and data.num_classes > 1:
        shares = np.bincount(labels, minlength=data.num_classes) / len(labels)
        seen = shares[shares > 0]
        balance = float(-(seen * np.log(seen)).sum() / math.log(data.num_classes))
    return {
        "classes": float(data.task.outputs),
        "examples": float(len(data.train)),
        "size": math.prod(shape) / channels,
        "channels": float(channels),
        "balance": balance,
    }


def distance(one: dict[str, float], two: dict[str, float]) -> float:
    """Return how different two data sets are; 0: alike in every meta-feature.

    Euclidean over natural logarithms of the counts and the plain difference of balances,
    weighted by `SCALES`.
    """
    gaps = {name: math.log(one[name]) - math.log(two[name]) for name in SCALES if name != "balance"}
    gaps["balance"] = one["balance"] - two["balance"]
    return math.sqrt(sum((SCALES[name] * gap) ** 2 for name, gap in gaps.items()))


def about(space: str, objectives: tuple[str, ...], data: Dataset) -> dict[str, Any]:
    """Return the record that a study keeps of its search, for warm starts from it."""
    return {
        "space": space,
        "objectives": list(objectives),
        "data": data.name,
        "features": meta_features(data),
        "test": _test_part(data),
    }


def _test_part(data: Dataset) -> str:
    return hashlib.sha256(np.sort(data.keys["test"]).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """A finished search.

    Attributes:
        name: As it was given.
        trials: Its front, the most isolated trial first.
        distance: Of its data set to the new one.
    """

    name: str
    trials: tuple[optuna.trial.FrozenTrial, ...]
    distance: float


def find_sources(
    names: tuple[str, ...], space: str, objectives: tuple[str, ...], data: Dataset
) -> list[Source]:
    """Read the fronts of finished searches, nearest data set first.

    Args:
        names: Folders of runs, or Optuna storage URLs (all paretune studies in them).
        space: Of the new search; the others must have the same.
        objectives: Of the new search; the others must have the same.
        data: Of the new search.

    Raises:
        InputError: Nothing is found under a name, its space or objectives differ, or it has
            used what is the test part here (of folders `check_choices` tells).
    """
    found = []
    for name in names:
        studies = list(_studies(name))
        if not studies:
            raise InputError(
                f"warm_start must be folders of runs or storage URLs. Received: '{name}' without "
                "a study of paretune in it."
            )
        for study in studies:
            stored = study.user_attrs[ABOUT_ATTR]
            for key, own in (("space", space), ("objectives", list(objectives))):
                if stored[key] != own:
                    raise InputError(
                        f"warm_start must name searches of the same {key} ({own}). Received: "
                        f"'{name}' with {stored[key]}."
                    )
            other = stored.get("test", _test_part(data)) != _test_part(data)
            if "://" in name and stored["data"] == data.name and other:
                raise InputError(
                    "warm_start must name searches that have not trained on, or chosen by, what is "
                    f"the test part here. Received: '{name}', on other parts of '{data.name}'. "
                    "Give that search's --seed, --val-fraction and --test-fraction."
                )
            gap = distance(stored["features"], meta_features(data))
            found.append(Source(name, tuple(_front(study)), gap))
    return sorted(found, key=lambda source: source.distance)


def first_of(sources: list[Source]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the sources' fronts, each choice once, with the attributes of their trials.

    Returns:
        (choices, user attributes) of each trial.
    """
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for source in sources:
        for trial in source.trials:
            if not any(trial.params == choices for choices, _ in found):
                found.append((trial.params, {WARM_ATTR: f"{source.name} {trial.number:04d}"}))
    return found


def _studies(name: str) -> Iterator[optuna.Study]:
    journal = Path(name) / "study.journal"
    if not journal.is_file() and (Path(name).exists() or "://" not in name):
        return
    storage = open_storage(journal if journal.is_file() else name, "warm_start")
    for summary in optuna.get_all_study_summaries(storage):
        if ABOUT_ATTR in summary.user_attrs:
            yield optuna.load_study(study_name=summary.study_name, storage=storage)


def _front(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the front, by falling crowding distance: a first few of it are spread out."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        return []
    losses = losses_of(study, trials)
    members = np.flatnonzero(front_mask(losses))
    order = np.argsort(-crowding_distance(losses[members]), kind="stable")
    return [trials[index] for index in members[order]]

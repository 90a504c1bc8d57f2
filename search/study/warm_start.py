"""Warm starts: from candidates, and from the fronts of finished searches, nearest data first."""

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
from compress.core.pareto import compute_crowding_distance, compute_front_mask
from compress.data import Dataset
from compress.run.records import read_record
from search.samplers._base import compute_losses
from search.study.directory import LOST, Candidate
from search.study.storage import open_storage

SEARCH_ATTR = "paretune"
"""Study attribute that holds the description of its search."""
WARM_START_ATTR = "warm_start"
"""Trial attribute that holds the study and trial from which it was taken."""
FEATURE_WEIGHTS = {"classes": 1.0, "examples": 0.25, "size": 1.0, "channels": 1.0, "balance": 2.0}
"""Weights of the meta-features' differences; the first four are differences of logarithms."""


def compute_meta_features(data: Dataset) -> dict[str, float]:
    """Return the features of a data set for comparison with another data set.

    Returns:
        classes (outputs), examples (for training), size (pixels or values of an example
        without channels), channels, balance (entropy of the class shares as a share of its
        maximum, 1: all classes equally frequent; 1 without classes).
    """
    shape = data.input_shape
    channels = shape[-1] if len(shape) == 3 else 1
    labels = data.train.y
    balance = 1.0
    if labels.ndim == 1 and np.issubdtype(labels.dtype, np.integer) and data.num_classes > 1:
        shares = np.bincount(labels, minlength=data.num_classes) / len(labels)
        positive = shares[shares > 0]
        balance = float(-(positive * np.log(positive)).sum() / math.log(data.num_classes))
    return {
        "classes": float(data.task.outputs),
        "examples": float(len(data.train)),
        "size": math.prod(shape) / channels,
        "channels": float(channels),
        "balance": balance,
    }


def compute_distance(first: dict[str, float], second: dict[str, float]) -> float:
    """Return the distance of two data sets' meta-features; 0: equal in all of them.

    The distance is Euclidean over natural logarithms of the counts and the plain difference of
    balances, weighted by `FEATURE_WEIGHTS`.

    Args:
        first: Result of `compute_meta_features`.
        second: Result of `compute_meta_features` for the other data set.
    """
    gaps = {
        name: math.log(first[name]) - math.log(second[name])
        for name in FEATURE_WEIGHTS
        if name != "balance"
    }
    gaps["balance"] = first["balance"] - second["balance"]
    return math.sqrt(sum((FEATURE_WEIGHTS[name] * gap) ** 2 for name, gap in gaps.items()))


def describe_search(space: str, objectives: tuple[str, ...], data: Dataset) -> dict[str, Any]:
    """Return the description of a search that its study stores for later warm starts.

    Args:
        space: Name of the space.
        objectives: Names of the objectives.
        data: The data of the search.
    """
    return {
        "space": space,
        "objectives": list(objectives),
        "data": data.name,
        "features": compute_meta_features(data),
        "test": _hash_test_part(data),
    }


def _hash_test_part(data: Dataset) -> str:
    return hashlib.sha256(np.sort(data.keys["test"]).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Source:
    """A finished search.

    Attributes:
        name: The name given by the user.
        trials: Its Pareto front, with the most isolated trial first.
        distance: Distance of its data set to the new one.
    """

    name: str
    trials: tuple[optuna.trial.FrozenTrial, ...]
    distance: float


def is_candidate_file(name: str) -> bool:
    """Return whether a warm start names the record of a candidate."""
    return "://" not in name and name.endswith(".json") and not Path(name).is_dir()


def read_replayed(names: tuple[str, ...]) -> list[Candidate]:
    """Read the candidates whose choices and seeds are tried again.

    Args:
        names: Warm starts; those that name no record of a candidate are left out.

    Raises:
        InputError: A file is missing or holds no candidate that ended.
    """
    candidates = []
    for name in filter(is_candidate_file, names):
        candidate = read_record(Path(name), Candidate)
        if candidate.state == LOST:
            raise InputError(
                "warm_start must name the record of a candidate that ended. Received: "
                f"'{name}', which says that {candidate.reason}; it ran again under another number."
            )
        candidates.append(candidate)
    return candidates


def find_sources(
    names: tuple[str, ...], space: str, objectives: tuple[str, ...], data: Dataset
) -> list[Source]:
    """Return the Pareto fronts of finished searches, nearest data set first.

    Args:
        names: Folders of runs, or Optuna storage URLs (all paretune studies in them); records of
            candidates are left out.
        space: Space of the new search; the others must have the same.
        objectives: Objectives of the new search; the others must have the same.
        data: Data of the new search.

    Raises:
        InputError: A name has no study, its space or objectives differ, or it was trained on the
            test part of the new search (for folders, `check_choices` checks this).
    """
    sources = []
    for name in names:
        if is_candidate_file(name):
            continue
        studies = list(_open_studies(name))
        if not studies:
            raise InputError(
                "warm_start must be folders of runs, storage URLs or records of candidates "
                f"(.json). Received: '{name}' without a study of paretune in it."
            )
        for study in studies:
            stored = study.user_attrs[SEARCH_ATTR]
            for key, expected in (("space", space), ("objectives", list(objectives))):
                if stored[key] != expected:
                    raise InputError(
                        f"warm_start must name searches of the same {key} ({expected}). Received: "
                        f"'{name}' with {stored[key]}."
                    )
            is_other_split = stored.get("test", _hash_test_part(data)) != _hash_test_part(data)
            if "://" in name and stored["data"] == data.name and is_other_split:
                raise InputError(
                    "warm_start must name searches that have not trained on, or chosen by, what is "
                    f"the test part here. Received: '{name}', on other parts of '{data.name}'. "
                    "Give that search's --seed, --val-fraction and --test-fraction."
                )
            gap = compute_distance(stored["features"], compute_meta_features(data))
            sources.append(Source(name, tuple(_select_front(study)), gap))
    return sorted(sources, key=lambda source: source.distance)


def list_choices(sources: list[Source]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Return the distinct choices of the sources' fronts, with the attributes of their trials.

    Returns:
        (choices, user attributes) of each trial.
    """
    queued: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for source in sources:
        for trial in source.trials:
            if not any(trial.params == choices for choices, _ in queued):
                queued.append(
                    (trial.params, {WARM_START_ATTR: f"{source.name} {trial.number:04d}"})
                )
    return queued


def _open_studies(name: str) -> Iterator[optuna.Study]:
    journal = Path(name) / "study.journal"
    if not journal.is_file() and (Path(name).exists() or "://" not in name):
        return
    storage = open_storage(journal if journal.is_file() else name, "warm_start")
    for summary in optuna.get_all_study_summaries(storage):
        if SEARCH_ATTR in summary.user_attrs:
            yield optuna.load_study(study_name=summary.study_name, storage=storage)


def _select_front(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """Return the Pareto front in descending order of crowding distance.

    The first few trials are then spread over the front.
    """
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if not trials:
        return []
    losses = compute_losses(study, trials)
    members = np.flatnonzero(compute_front_mask(losses))
    order = np.argsort(-compute_crowding_distance(losses[members]), kind="stable")
    return [trials[index] for index in members[order]]

"""Checks that a model is evaluated on held-out data, with the scaling of its run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from compress.core.errors import InputError
from compress.data import Dataset
from compress.data.example_hashing import is_among
from compress.data.leakage import compare_with_training
from compress.run.directory import RunFolder
from compress.run.origin import EXAMPLE_KINDS, Origin, find_origin


def check_held_out(path: Path, data: Dataset, model_name: str) -> tuple[str, ...]:
    """Check that the evaluation data were not used to train a model, if its training is known.

    Args:
        path: The model's file.
        data: Data for training, selection and testing.
        model_name: Name of the model for errors: "Model 'x.keras'".

    Returns:
        Notes for reports.

    Raises:
        InputError: The test part or the validation part contains training examples of the model;
            the message names the options of its run.
    """
    origin = find_origin(path)
    if origin is None:
        return (
            f"what {_lower_first(model_name)} was trained on is not known (paretune did not train "
            "it): figures flatter it if it has seen the validation or test examples",
        )
    trained_keys = origin.read_trained_keys()
    if trained_keys is None:
        _check_fingerprint(origin, data, model_name)
        return ()
    notes: list[str] = []
    for part, name in (("test", "test"), ("val", "validation")):
        overlap = compare_with_training(data, part, trained_keys)
        if overlap.is_leak:
            raise _build_refusal(
                origin,
                model_name,
                f"{overlap.count:,} of the {overlap.unique_count:,} {name} examples that "
                "occur once in the data are among those that it was trained on",
            )
        if overlap.count:
            notes.append(
                f"{overlap.count:,} of the {overlap.unique_count:,} {name} examples that occur "
                f"once in the data are among those that {_lower_first(model_name)} was trained on "
                "(chance duplicates)"
            )
    return tuple(notes)


def check_choices(folder: RunFolder, data: Dataset, choices_name: str) -> None:
    """Check that a run's hyperparameters were not selected on the test examples of other data.

    Hyperparameters carry no weights, so the validation part is not checked.

    Args:
        folder: Folder of the run that selected the hyperparameters.
        data: Data of the new run.
        choices_name: Name of the hyperparameters, for errors.

    Raises:
        InputError: The test part contains examples that the run used for training or selection.
    """
    if not folder.data.is_file():
        return
    origin = Origin(folder.models / "any.keras", folder, folder.read_data_record())
    stored = origin.read_examples()
    if stored is None:
        _check_fingerprint(origin, data, choices_name)
        return
    used_keys = np.unique(np.concatenate([stored[name] for name in EXAMPLE_KINDS]))
    overlap = compare_with_training(data, "test", used_keys)
    if overlap.is_leak:
        raise _build_refusal(
            origin,
            choices_name,
            f"{overlap.count:,} of the {overlap.unique_count:,} test examples that occur "
            "once in the data are among those that it has trained on or chosen by",
        )


def check_scaling(path: Path, data: Dataset, model_name: str) -> tuple[str, ...]:
    """Check that a model's inputs are scaled as in its run, if the run is known.

    Args:
        path: The model's file.
        data: Data that the model is fed with.
        model_name: Name of the model, for errors.

    Returns:
        Notes for reports; on other data another scaling may be correct.

    Raises:
        InputError: The data are those of the model's run, with another scaling.
    """
    origin = find_origin(path)
    run_scaling = origin.preprocess if origin is not None else None
    if origin is None or run_scaling is None or run_scaling.is_equivalent(data.preprocess):
        return ()
    trained_keys = origin.read_trained_keys()
    if trained_keys is None:
        is_same = _is_same_source(str(origin.data.get("source")), data.name)
    else:
        is_same = bool(is_among(data.keys["train"], trained_keys).mean() > 0.5)
    if is_same:
        raise InputError(
            f"{model_name} must be fed in the scaling of its run '{origin.folder.path}'. Received: "
            "another one. Leave --normalize out (in Python: give load_data that preprocess)."
        )
    return (
        f"{_lower_first(model_name)} is fed in another scaling than in its run "
        f"'{origin.folder.path}'",
    )


def _check_fingerprint(origin: Origin, data: Dataset, model_name: str) -> None:
    """Compare data with a run of the first release, which stored only one hash of all data."""
    stored = origin.data.get("fingerprint")
    if stored is None or not _is_same_source(str(origin.data.get("source")), data.name):
        return
    scaled = origin.preprocess or data.preprocess
    fingerprints = {data.fingerprint(), replace(data, preprocess=scaled).fingerprint()}
    if stored not in fingerprints:
        raise _build_refusal(
            origin,
            model_name,
            f"other parts of '{data.name}', or other examples, than those that it was trained on",
        )


def _is_same_source(first: str, second: str) -> bool:
    if first == second:
        return True
    return (
        Path(first).exists()
        and Path(second).exists()
        and Path(first).resolve() == Path(second).resolve()
    )


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]


def _build_refusal(origin: Origin, model_name: str, received: str) -> InputError:
    return InputError(
        f"{model_name} must be evaluated on examples that it was not trained on in its run "
        f"'{origin.folder.path}'. Received: {received}. Give that run's {origin.options}."
    )

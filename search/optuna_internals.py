"""The uses of Optuna beyond its public API, each with its reason.

No other module uses private names of Optuna. The module is tested with the versions that
pyproject.toml allows; review it before allowing another minor version.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages.journal._storage import JournalStorageReplayResult
from optuna.trial import FrozenTrial, Trial, TrialState

FIXED_PARAMS_ATTR = "fixed_params"
"""System attribute that holds the parameters of a queued trial.

`Study.enqueue_trial` writes it, and Optuna has no public function that reads it.
"""


def begin_trial(study: optuna.Study, queued_trials: Iterable[FrozenTrial]) -> Trial:
    """Begin the first queued trial that no other worker has begun, or else a new one.

    `Study.ask` would read the queue from the storage again, and only takes trials in the order of
    their numbers.

    Args:
        study: The study.
        queued_trials: Waiting trials, in order of preference.
    """
    storage = study._storage
    for trial in queued_trials:
        # another worker may have begun and ended it
        with suppress(UpdateFinishedTrialError):
            if storage.set_trial_state_values(trial._trial_id, state=TrialState.RUNNING):
                return Trial(study, trial._trial_id)
    return Trial(study, storage.create_new_trial(study._study_id))


def end_trial(
    study: optuna.Study,
    number: int,
    state: TrialState,
    values: Sequence[float] | None,
) -> None:
    """End a trial, unless it has ended already.

    `Study.tell` first reads the trial, which takes several times as long with a database.

    Args:
        study: The study.
        number: The number of the trial.
        state: The final state.
        values: One value per objective; None: no values.
    """
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    with suppress(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, state, values)


def set_trial_attr(study: optuna.Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Set a system attribute of a running trial.

    Samplers receive a `FrozenTrial`, and Optuna has no public function to set its attributes.

    Args:
        study: The study of the trial.
        trial: The running trial.
        name: Name of the attribute.
        value: A value that JSON can represent.
    """
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def set_study_attr(study: optuna.Study, name: str, value: Any) -> None:
    """Set a system attribute of a study.

    Optuna keeps names of objectives and states of samplers there, such as the next index of a
    quasi-random sequence, and `Study` has no public method that writes them.

    Args:
        study: The study.
        name: Name of the attribute.
        value: A value that JSON can represent.
    """
    study._storage.set_study_system_attr(study._study_id, name, value)


def replay_journal(
    lines: Iterable[bytes], name: str
) -> tuple[Mapping[str, Any], Mapping[str, Any], list[FrozenTrial], int]:
    """Replay the operations of a journal and count the unreadable lines.

    `JournalStorage` stops at the first line that it cannot read.

    Args:
        lines: Lines of the journal, without an incomplete last line.
        name: Name of the study.

    Returns:
        The study's user attributes, its system attributes, its trials, and the number of
        unreadable lines.
    """
    replay = JournalStorageReplayResult("reader")

    unreadable = 0
    for line in lines:
        try:
            log = json.loads(line)
            if not isinstance(log["worker_id"], str):  # Optuna checks only after applying a change
                raise TypeError
            replay.apply_logs([log])
        except Exception:  # a corrupt line may raise any error
            unreadable += 1
    for study in replay.get_all_studies():
        if study.study_name == name:
            trials = replay.get_all_trials(study._study_id, None)
            return study.user_attrs, study.system_attrs, trials, unreadable
    return {}, {}, [], unreadable


def serve_storage(
    storage: optuna.storages.BaseStorage,
    read_trials: Callable[[int], Sequence[FrozenTrial]],
    server: Any,
) -> None:
    """Serve a storage with a gRPC server, serializing each trial once for all clients.

    `run_grpc_proxy_server` creates its own server, reports neither its port nor a port conflict,
    and serializes each trial anew for each client. With a hundred workers that request the same
    trials, serializing a trial takes as long as reading it.

    Args:
        storage: The storage behind the server.
        read_trials: Returns the trials of a study by its id.
        server: The `grpc.Server` to which the service is added.
    """
    import grpc
    from optuna.storages._grpc import servicer
    from optuna.storages._grpc.auto_generated import api_pb2, api_pb2_grpc

    messages: dict[int, tuple[FrozenTrial, Any]] = {}

    def to_message(trial: FrozenTrial) -> Any:
        # the storage creates a new object when a trial changes, so identity is enough
        cached_trial, message = messages.get(trial._trial_id, (None, None))
        if cached_trial is not trial:
            message = servicer._to_proto_trial(trial)
            messages[trial._trial_id] = trial, message
        return message

    class Service(servicer.OptunaStorageProxyService):
        def GetTrials(self, request: Any, context: Any) -> Any:  # noqa: N802 (name of the protocol)
            try:
                trials = read_trials(request.study_id)
            except KeyError as error:
                context.abort(code=grpc.StatusCode.NOT_FOUND, details=str(error))
            included_ids = set(request.included_trial_ids)
            return api_pb2.GetTrialsReply(
                trials=[
                    to_message(trial)
                    for trial in trials
                    if trial._trial_id > request.trial_id_greater_than
                    or trial._trial_id in included_ids
                ]
            )

    add_service: Any = api_pb2_grpc.add_StorageServiceServicer_to_server
    add_service(Service(storage), server)

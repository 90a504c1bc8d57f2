"""Uses of Optuna beyond its public API, each with the reason; no other module has any.

Tested with the versions that pyproject.toml allows: another minor version is looked through first.
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

FIXED = "fixed_params"
"""System attribute of a queued trial: its choices. `Study.enqueue_trial` writes it, and nothing
public reads it."""


def begin_trial(study: optuna.Study, queued: Iterable[FrozenTrial]) -> Trial:
    """Begin the first of some queued trials that nobody else has taken, else a new one.

    `Study.ask` would read the queue from the storage once more, and take its trials in their order
    alone.
    """
    storage = study._storage
    for trial in queued:
        # another may have had it, and have ended it
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
    """End a trial; one that has ended stays as it is.

    `Study.tell` reads the trial before, and of a database that costs several times as much.
    """
    storage = study._storage
    trial_id = storage.get_trial_id_from_study_id_trial_number(study._study_id, number)
    with suppress(UpdateFinishedTrialError):
        storage.set_trial_state_values(trial_id, state, values)


def set_trial_attr(study: optuna.Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Set a system attribute of a running trial.

    Samplers are given a `FrozenTrial`, of which nothing public sets any attribute.
    """
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def set_study_attr(study: optuna.Study, name: str, value: Any) -> None:
    """Set a system attribute of a study, which `Study` itself cannot.

    Optuna keeps there what its dashboard shows: artifacts, notes, names of the objectives.
    """
    study._storage.set_study_system_attr(study._study_id, name, value)


def replay_journal(
    lines: Iterable[bytes], name: str
) -> tuple[Mapping[str, Any], Mapping[str, Any], list[FrozenTrial], int]:
    """Replay the operations of a journal, and count the lines that hold none.

    `JournalStorage` stops at the first line that it cannot read.

    Args:
        lines: Of the file, without a torn last one.
        name: Of the study.

    Returns:
        The study's user attributes; its system attributes; its trials; how many lines say nothing.
    """
    replay = JournalStorageReplayResult("reader")

    dropped = 0
    for line in lines:
        try:
            log = json.loads(line)
            if not isinstance(log["worker_id"], str):  # Optuna asks behind a change that is made
                raise TypeError
            replay.apply_logs([log])
        except Exception:  # whatever a line that is none may set off
            dropped += 1
    for study in replay.get_all_studies():
        if study.study_name == name:
            trials = replay.get_all_trials(study._study_id, None)
            return study.user_attrs, study.system_attrs, trials, dropped
    return {}, {}, [], dropped


def serve_storage(
    storage: optuna.storages.BaseStorage,
    read_trials: Callable[[int], Sequence[FrozenTrial]],
    server: Any,
) -> None:
    """Let a server of gRPC answer for a storage, and write a trial once for all that ask.

    `run_grpc_proxy_server` makes a server of its own, tells neither its port nor that another
    listens there, and writes each trial anew for all that ask: a hundred workers ask for the same
    trials, and to write one for the way takes as long as to read it.

    Args:
        storage: What it speaks to.
        read_trials: Reads the trials of a study, by its id.
        server: Of gRPC.
    """
    import grpc
    from optuna.storages._grpc import servicer
    from optuna.storages._grpc.auto_generated import api_pb2, api_pb2_grpc

    written: dict[int, tuple[FrozenTrial, Any]] = {}

    def write(trial: FrozenTrial) -> Any:
        # a trial that has changed is another object: the storage below makes it anew
        held, message = written.get(trial._trial_id, (None, None))
        if held is not trial:
            message = servicer._to_proto_trial(trial)
            written[trial._trial_id] = trial, message
        return message

    class Service(servicer.OptunaStorageProxyService):
        def GetTrials(self, request: Any, context: Any) -> Any:  # noqa: N802 (the protocol's name)
            try:
                trials = read_trials(request.study_id)
            except KeyError as error:
                context.abort(code=grpc.StatusCode.NOT_FOUND, details=str(error))
            wanted = set(request.included_trial_ids)
            return api_pb2.GetTrialsReply(
                trials=[
                    write(trial)
                    for trial in trials
                    if trial._trial_id > request.trial_id_greater_than or trial._trial_id in wanted
                ]
            )

    join: Any = api_pb2_grpc.add_StorageServiceServicer_to_server
    join(Service(storage), server)

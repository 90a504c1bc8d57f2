"""The connections of a run's process to its actors."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress.core.errors import ParetuneError, to_one_line
from compress.core.faults import explain_fault, find_fault
from search.engines import messages
from search.engines._base import KILLED, NODE_LOST, Job
from search.engines.pool import OnMessage
from search.engines.ray.host import ENDED, REFUSED

END_SECONDS = 10.0
"""Seconds that an actor has to end its worker before it is killed."""
FETCH_SLOTS = threading.BoundedSemaphore(8)
"""Limit for the number of workers whose files are fetched at the same time."""
_MEMORY_WORDS = ("OutOfMemory", "OOM", "memory pressure", "low on memory")


class RayLink:
    """The connection of a run's process to one actor, with its own thread.

    Args:
        actor: Handle of a `RayHost` actor.
        on_message: Called with its worker's messages, and with None when the worker ends.
        environment: Environment variables of the worker; see `RayHost.begin`.
        fetch_files: Fetches published files of the worker, by name.
        log: Local file for the output of a dead worker whose log is on its node only.
    """

    def __init__(
        self,
        actor: Any,
        on_message: OnMessage,
        environment: Mapping[str, str],
        fetch_files: Callable[[list[str]], None],
        log: Path,
    ) -> None:
        self._actor, self._on_message = actor, on_message
        self._fetch_files, self._log = fetch_files, log
        self._exit_cause = NODE_LOST
        self._has_begun, self._end_event = False, threading.Event()
        self._thread = threading.Thread(
            target=self._forward_answers, args=(environment,), daemon=True
        )
        self._thread.start()

    def _forward_answers(self, environment: Mapping[str, str]) -> None:
        """Forward the actor's messages until its worker has ended, then end the actor."""
        import ray

        try:
            answer = ray.get(self._actor.begin.remote(dict(environment)))
            self._has_begun = True
            if answer["problem"]:
                self._report_refusal(answer["node"], answer["problem"])
            else:
                while self._forward_messages(ray.get(self._actor.poll.remote())):
                    pass
        except Exception as error:  # errors of the actor's code or of Ray
            self._report_failure(error)
        if self._has_begun:
            with contextlib.suppress(Exception):  # it may have ended already
                ray.get(self._actor.end.remote(), timeout=END_SECONDS)
        self._kill_actor()

    def _forward_messages(self, received: list[dict[str, Any]]) -> bool:
        """Forward messages, and return whether more are expected."""
        for message in received:
            is_end = message["kind"] == ENDED
            if not self._end_event.is_set():  # messages of an abandoned worker are dropped
                try:
                    self._store_files(message)
                except Exception as error:  # errors of this machine's disk or of the store
                    self._on_message({"kind": messages.FATAL, "reason": _explain_error(error)})
                    return False
                self._on_message(None if is_end else message)
            if is_end:
                return False
        return True

    def _store_files(self, message: dict[str, Any]) -> None:
        """Write a message's files, or the log that comes with an end, to this machine's disk."""
        if message["kind"] == ENDED:
            self._exit_cause = message["how"]
            if message["printed"]:
                with open(self._log, "a", encoding="utf-8") as stream:
                    stream.write(message["printed"])
        elif message.get("files"):
            with FETCH_SLOTS:
                self._fetch_files(message["files"])

    def _report_refusal(self, node: str, reason: str) -> None:
        self._on_message({"kind": REFUSED, "node": node, "reason": reason})

    def _report_failure(self, error: Exception) -> None:
        """Report that the actor is lost or could not be created."""
        if self._end_event.is_set():
            return
        text = str(error)
        is_dead = type(error).__name__ in ("ActorDiedError", "RayActorError")
        if self._has_begun or (is_dead and "creation" not in text):
            # Ray kills workers of a node whose memory is nearly full, as the system would
            self._exit_cause = KILLED if any(word in text for word in _MEMORY_WORDS) else NODE_LOST
            self._on_message(None)
            return
        missing = re.search(r"No module named '[\w.]+'", text)
        reason = (
            f"paretune is not installed there, or another version ({missing[0]})"
            if missing
            else to_one_line(text, 300)
        )
        self._report_refusal("of the cluster", reason)

    def send(self, message: Job) -> None:
        """See `search.engines.pool.Link.send`."""
        with contextlib.suppress(Exception):  # the end of a lost actor is reported separately
            self._actor.send.remote(message)

    def kill(self) -> None:
        """Kill the worker; the actor reports its end."""
        with contextlib.suppress(Exception):
            self._actor.kill.remote()

    def describe_exit(self) -> str:
        """Return the worker's exit code or signal, or `NODE_LOST`."""
        return self._exit_cause

    def end(self) -> None:
        """End the worker, then the actor."""
        self._end_event.set()
        if not self._has_begun:  # it may wait for room on the cluster forever
            self._kill_actor()
            return
        with contextlib.suppress(Exception):
            self._actor.end.remote()

    def join(self, seconds: float) -> None:
        """Wait for the actor to end, and kill it after the timeout.

        Args:
            seconds: The timeout.
        """
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._kill_actor()

    def _kill_actor(self) -> None:
        import ray

        with contextlib.suppress(Exception):  # it may have ended already
            ray.kill(self._actor)


def _explain_error(error: Exception) -> str:
    """Return the explanation of a failure to fetch a worker's files.

    The same command fetches them again.
    """
    fault = find_fault(error)
    if fault is not None:
        return str(explain_fault(fault))
    if isinstance(error, ParetuneError):
        return str(error)
    return to_one_line(
        f"A worker's files could not be fetched ({type(error).__name__}: {error}).", 300
    )

"""The run's end of the actors: their answers and their ends."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from compress.core.errors import ParetuneError, one_line
from compress.core.faults import explain_fault, fault_of
from search.engines import messages
from search.engines._base import KILLED, LOST, Job
from search.engines.pool import Tell
from search.engines.ray.host import ENDED, REFUSED

END_SECONDS = 10.0
"""So long an actor has to end its worker before it is killed."""
FETCHING = threading.BoundedSemaphore(8)
"""Workers whose files are fetched at once."""
_MEMORY = ("OutOfMemory", "OOM", "memory pressure", "low on memory")


class RayLink:
    """The run's end of one actor, heard by a thread of its own.

    Args:
        actor: A `RayHost`.
        tell: Called with its worker's messages, and with None at its end.
        environment: Variables of the worker; see `RayHost.begin`.
        receive: Fetches files that the worker has put elsewhere, by name.
        log: Where what a dead worker printed goes, if its log is on its node alone.
    """

    def __init__(
        self,
        actor: Any,
        tell: Tell,
        environment: Mapping[str, str],
        receive: Callable[[list[str]], None],
        log: Path,
    ) -> None:
        self._actor, self._tell = actor, tell
        self._receive, self._log = receive, log
        self._how = LOST
        self._begun, self._over = False, threading.Event()
        self._thread = threading.Thread(target=self._listen, args=(environment,), daemon=True)
        self._thread.start()

    def _listen(self, environment: Mapping[str, str]) -> None:
        """Hand on the actor's answers until its worker has ended, then end the actor."""
        import ray

        try:
            answer = ray.get(self._actor.begin.remote(dict(environment)))
            self._begun = True
            if answer["problem"]:
                self._refuse(answer["node"], answer["problem"])
            else:
                while self._hear(ray.get(self._actor.poll.remote())):
                    pass
        except Exception as error:  # of the actor's code, or of Ray
            self._fail(error)
        if self._begun:
            with contextlib.suppress(Exception):  # it is gone already
                ray.get(self._actor.end.remote(), timeout=END_SECONDS)
        self._kill_actor()

    def _hear(self, said: list[dict[str, Any]]) -> bool:
        """Hand on messages, and return whether more are to be expected."""
        for message in said:
            ended = message["kind"] == ENDED
            if not self._over.is_set():  # nothing of a worker that was given up may arrive
                try:
                    self._keep(message)
                except Exception as error:  # of this machine's disk, or of the store
                    self._tell({"kind": messages.FATAL, "reason": _reason(error)})
                    return False
                self._tell(None if ended else message)
            if ended:
                return False
        return True

    def _keep(self, message: dict[str, Any]) -> None:
        """Write a message's files, or the log that comes with an end, to this machine's disk."""
        if message["kind"] == ENDED:
            self._how = message["how"]
            if message["printed"]:
                with open(self._log, "a", encoding="utf-8") as stream:
                    stream.write(message["printed"])
        elif message.get("files"):
            with FETCHING:
                self._receive(message["files"])

    def _refuse(self, where: str, reason: str) -> None:
        self._tell({"kind": REFUSED, "node": where, "reason": reason})

    def _fail(self, error: Exception) -> None:
        """Report that the actor is gone, or could not be made."""
        if self._over.is_set():
            return
        text = str(error)
        died = type(error).__name__ in ("ActorDiedError", "RayActorError")
        if self._begun or (died and "creation" not in text):
            # Ray ends workers of a node whose memory is nearly full; so would the system
            self._how = KILLED if any(word in text for word in _MEMORY) else LOST
            self._tell(None)
            return
        missing = re.search(r"No module named '[\w.]+'", text)
        reason = (
            f"paretune is not installed there, or another version ({missing[0]})"
            if missing
            else one_line(text, 300)
        )
        self._refuse("of the cluster", reason)

    def send(self, message: Job) -> None:
        """See `search.engines.pool.Link.send`."""
        with contextlib.suppress(Exception):  # of an actor that is gone: its end is on the way
            self._actor.send.remote(message)

    def kill(self) -> None:
        """Kill the worker; the actor tells of it."""
        with contextlib.suppress(Exception):
            self._actor.kill.remote()

    def how(self) -> str:
        """Return how the worker ended, or that its node was lost."""
        return self._how

    def end(self) -> None:
        """End the worker, then the actor."""
        self._over.set()
        if not self._begun:  # it may wait for room, and for ever
            self._kill_actor()
            return
        with contextlib.suppress(Exception):
            self._actor.end.remote()

    def join(self, seconds: float) -> None:
        """Wait until the actor has ended; kill it where it has not in this time."""
        self._thread.join(max(0.0, seconds))
        if self._thread.is_alive():
            self._kill_actor()

    def _kill_actor(self) -> None:
        import ray

        with contextlib.suppress(Exception):  # it is gone already
            ray.kill(self._actor)


def _reason(error: Exception) -> str:
    """Explain why a worker's files could not be fetched; the same command fetches them again."""
    fault = fault_of(error)
    if fault is not None:
        return str(explain_fault(fault))
    if isinstance(error, ParetuneError):
        return str(error)
    return one_line(
        f"A worker's files could not be fetched ({type(error).__name__}: {error}).", 300
    )

"""The run's end of the actors: what they answer, and when they are gone."""

from __future__ import annotations

import contextlib
import re
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compress.core.errors import ParetuneError, one_line
from compress.core.faults import explain_fault, fault_of
from compress.run.directory import LOG
from search.engines import messages
from search.engines._base import KILLED, LOST, Job
from search.engines.pool import Tell
from search.engines.ray.host import ENDED, REFUSED

WATCH_SECONDS = 0.2
ASIDE = 8
"""Workers whose files are fetched at once."""
Answered = Callable[[Any], None]
_MEMORY = ("OutOfMemory", "OOM", "memory pressure", "low on memory")


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps Ray's own words off the screen; its warnings are of its next version."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class RayLink:
    """The run's end of one actor.

    Args:
        actor: A `RayHost`.
        watch: Waits for its answers.
        tell: Called with its worker's messages, and with None at its end.
        environment: Variables of the worker; see `RayHost.begin`.
        receive: Fetches files that the worker has put elsewhere, by name.
        log: Where what a dead worker printed goes, if its log is on its node alone.
    """

    def __init__(
        self,
        actor: Any,
        watch: Watch,
        tell: Tell,
        environment: Mapping[str, str],
        receive: Callable[[list[str]], None],
        log: Path,
    ) -> None:
        self._actor, self._watch, self._tell = actor, watch, tell
        self._receive, self._log = receive, log
        self._how = LOST
        self._answered = False
        watch.add(actor.begin.remote(dict(environment)), self._begun, self._not_begun)

    def _begun(self, answer: dict[str, str]) -> None:
        self._answered = True
        if answer["problem"]:
            self._tell({"kind": REFUSED, "node": answer["node"], "reason": answer["problem"]})
            return
        self._poll()

    def _not_begun(self, error: Exception) -> None:
        text = str(error)
        if type(error).__name__ in ("ActorDiedError", "RayActorError") and "creation" not in text:
            self._gone(error)
            return
        missing = re.search(r"No module named '[\w.]+'", text)
        reason = (
            f"paretune is not installed there, or another version ({missing[0]})"
            if missing
            else one_line(text, 300)
        )
        self._tell({"kind": REFUSED, "node": "of the cluster", "reason": reason})

    def _poll(self) -> None:
        self._watch.add(self._actor.poll.remote(), self._heard, self._gone)

    def _heard(self, said: list[dict[str, Any]]) -> None:
        if any(message.get("files") for message in said):
            # it takes a while, in which others are heard; what comes after it waits for it
            self._watch.aside(lambda: self._told(said))
        else:
            self._told(said)

    def _told(self, said: list[dict[str, Any]]) -> None:
        try:
            for message in said:
                # nothing of a worker that was given up may arrive
                if self._tell is _nobody:
                    return
                if message["kind"] == ENDED:
                    self._ended(message)
                    return
                if message.get("files"):
                    self._receive(message["files"])
                self._tell(message)
        except Exception as error:  # of this machine's disk, or of the store
            self._tell({"kind": messages.FATAL, "reason": _reason(error)})
            return
        self._poll()

    def _ended(self, message: dict[str, Any]) -> None:
        self._how = message["how"]
        if message["printed"]:
            with open(self._log, "a", encoding="utf-8") as stream:
                stream.write(message["printed"])
        self._tell(None)
        self._dismiss()

    def _gone(self, error: Exception) -> None:
        # Ray ends workers of a node whose memory is nearly full; so would the system
        self._how = KILLED if any(word in str(error) for word in _MEMORY) else LOST
        self._tell(None)
        # one that could not be reached for a moment may still be there, and hold its place
        self._kill_actor()

    def send(self, message: Job) -> None:
        """See `search.engines.pool.Link.send`."""
        with contextlib.suppress(Exception):  # of an actor that is gone: its end is on the way
            self._actor.send.remote(message)

    def kill(self) -> None:
        """Kills the worker; the actor tells of it."""
        with contextlib.suppress(Exception):
            self._actor.kill.remote()

    def how(self) -> str:
        """Returns how the worker ended, or that its node was lost."""
        return self._how

    def end(self) -> None:
        """Ends the worker, then the actor."""
        self._tell = _nobody
        self._dismiss()

    def _dismiss(self) -> None:
        if not self._answered:  # it may wait for room, and for ever
            self._kill_actor()
            return
        with contextlib.suppress(Exception):
            over = self._kill_actor
            self._watch.add(self._actor.end.remote(), over, over, last=True)

    def _kill_actor(self, _: object = None) -> None:
        import ray

        with contextlib.suppress(Exception):  # it is gone already
            ray.kill(self._actor)


def _reason(error: Exception) -> str:
    """Says why a worker's files could not be fetched; the same command fetches them again."""
    fault = fault_of(error)
    if fault is not None:
        return str(explain_fault(fault))
    if isinstance(error, ParetuneError):
        return str(error)
    return one_line(
        f"A worker's files could not be fetched ({type(error).__name__}: {error}).", 300
    )


def _nobody(_: dict[str, Any] | None) -> None:
    """Hears nothing any more."""


class Watch:
    """One thread that waits for the answers of all actors, and hands them on."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[Any, tuple[Answered, Answered, bool]] = {}
        self._over = threading.Event()
        self._aside = ThreadPoolExecutor(ASIDE)
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begins to wait."""
        self._thread.start()

    def add(
        self, reference: Any, answered: Answered, failed: Answered, *, last: bool = False
    ) -> None:
        """Waits for one answer.

        Args:
            reference: Of a call.
            answered: Called with what it returns.
            failed: Called with the exception, where it raises one or the actor is gone.
            last: `join` waits for it.
        """
        with self._lock:
            self._waiting[reference] = answered, failed, last

    def aside(self, work: Callable[[], None]) -> None:
        """Does what takes long beside the waiting."""
        self._aside.submit(work)

    def join(self, seconds: float) -> None:
        """Waits until what was added as last has been answered, or the time is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with self._lock:
                if not any(last for _, _, last in self._waiting.values()):
                    return
            time.sleep(0.05)

    def stop(self) -> None:
        """Waits for nothing more; what `join` did not wait for in vain has failed."""
        self._over.set()
        self._thread.join()
        self._aside.shutdown(cancel_futures=True)
        for _, failed, last in self._waiting.values():
            if last:
                failed(TimeoutError())

    @staticmethod
    def _hand_on(reference: Any, answered: Answered, failed: Answered) -> None:
        import ray

        try:
            answer = ray.get(reference)
        except Exception as error:  # of the actor's code, or of Ray
            failed(error)
        else:
            answered(answer)

    def _watch(self) -> None:
        import ray

        while not self._over.is_set():
            with self._lock:
                references = list(self._waiting)
            if not references:
                time.sleep(WATCH_SECONDS)
                continue
            found, _ = ray.wait(references, timeout=WATCH_SECONDS)
            for reference in found:
                with self._lock:
                    answered, failed, _ = self._waiting.pop(reference)
                try:
                    self._hand_on(reference, answered, failed)
                except Exception as error:  # this thread must not end: nobody would be heard
                    LOG.warning("an answer of Ray's was lost: %s", one_line(repr(error), 300))

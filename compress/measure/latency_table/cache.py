"""Tables of measured calls, kept between commands.

One file for each machine, runtime, format and number of threads.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from compress.core.device import cpu_name
from compress.core.errors import InputError
from compress.measure.latency import BUSY
from compress.measure.latency_table.record import LatencyTable
from compress.measure.runtimes import RUNTIMES
from compress.run.directory import LOG

_KIND = "quiet blocks"
"""What the times are of; tables of others are not mixed with them."""
VARIABLE = "PARETUNE_CACHE"
"""Names the folder of what is kept between commands."""


def cache_folder() -> Path:
    """Returns where tables are kept: `PARETUNE_CACHE`, or paretune/ in the user's cache folder."""
    own = os.environ.get(VARIABLE)
    if own:
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paretune"


def kept_table(runtime: str, format: str, threads: int) -> LatencyTable | None:
    """Returns what was measured before on this machine; None: nothing was.

    A file that cannot be read is left alone, and a warning tells of it.

    Args:
        runtime: A name in `compress.measure.runtimes.RUNTIMES`.
        format: Of the files.
        threads: CPU threads.
    """
    described, device = RUNTIMES[runtime].describe(), cpu_name()
    path = _path(described, format, threads, device)
    if not path.exists():
        return None
    try:
        table = LatencyTable.load(path)
    except InputError as error:
        LOG.warning("a table of times that was kept is not used: %s", error)
        return None
    alike = (table.runtime, table.format, table.threads, table.device)
    return table if alike == (described, format, threads, device) else None


def keep_table(table: LatencyTable) -> Path | None:
    """Adds a table to what is kept, and returns its file; None where it is not kept.

    That is where it was measured while other processes worked, or cannot be written; the log
    says so.
    """
    if any(warning.startswith(BUSY) for warning in table.warnings):
        LOG.info("note: the table of times is not kept for later: %s", "; ".join(table.warnings))
        return None
    path = _path(table.runtime, table.format, table.threads, table.device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            try:
                table = LatencyTable.load(path).joined(table)
            except InputError as error:
                LOG.warning("a table of times that was kept is replaced: %s", error)
        table.save(path)
    except OSError as error:
        LOG.warning("the table of times is not kept for later: %s", error)
        return None
    return path


def _path(runtime: str, format: str, threads: int, device: str) -> Path:
    text = f"{runtime}|{format}|{threads}|{device}|{_KIND}"
    name = re.sub(r"[^A-Za-z0-9]+", "-", f"{runtime} {format} {threads} threads").strip("-").lower()
    return (
        cache_folder() / "latency" / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    )

"""Writes `settings.py` for the functions of a search; see `compress.plan.write_settings`."""

from __future__ import annotations

from pathlib import Path

from compress.plan.write_settings import main
from search.plan.keywords import RUN

if __name__ == "__main__":
    main("search.plan.write_settings", [RUN], Path(__file__).with_name("settings.py"))

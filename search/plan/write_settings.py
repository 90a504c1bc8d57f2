"""Write `settings.py` of both plans: `python -m search.plan.write_settings`."""

from __future__ import annotations

from pathlib import Path

from compress.plan import keywords
from compress.plan.write_settings import write_settings
from search.plan.keywords import RUN, RUN_SEARCH

if __name__ == "__main__":
    compressing = [item for item in keywords.FUNCTIONS if item not in (RUN, RUN_SEARCH)]
    write_settings(compressing, Path(keywords.__file__).with_name("settings.py"))
    write_settings([RUN], Path(__file__).with_name("settings.py"))

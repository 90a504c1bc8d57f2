"""Build step: options as typed keywords of the public functions, for editors and type checkers."""

import subprocess
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildSettings(build_py):
    """Write the modules of keywords into the tree, then build the packages as usual."""

    def run(self) -> None:
        """Build the packages."""
        command = [sys.executable, "-m", "search.plan.write_settings"]
        subprocess.run(command, cwd=Path(__file__).parent, check=True)
        super().run()


setup(cmdclass={"build_py": BuildSettings})

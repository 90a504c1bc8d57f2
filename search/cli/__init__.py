"""The command line: each command calls one public function with one plan."""

from search.cli.main import app, main

__all__ = ["app", "main"]

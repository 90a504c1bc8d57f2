"""Decisions of a run with a time budget: forecasts, and the step that is worth most per second."""

"""Trials of a search: storage, resuming, warm starts and stopping conditions."""

"""Pruning of channels and blocks (`channels`) and of single weights (`weights`)."""

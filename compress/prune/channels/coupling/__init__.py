"""Coupling of channels: slots, layer calls, units, groups and blocks."""

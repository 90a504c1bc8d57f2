"""Coupling of channels: slots, calls as rules see them, units, groups and blocks."""

"""Devices that are not at hand: files to time there, and goals by what was timed."""

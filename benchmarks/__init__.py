"""Measurements, each with its own command.

A package with this file, or an installed one of the same name hides it (pyarrow 17 has one).
"""

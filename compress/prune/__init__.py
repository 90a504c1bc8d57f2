"""Pruning: `weights` zeroes single weights by magnitude."""

"""Shrinking: from a goal (size, latency, quality) to the file to deploy."""

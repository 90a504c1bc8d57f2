"""The Ray engine: Ray places workers and tells of their deaths, the rest is ours.

Ray's tuner is not used: trials are asked of the study's storage by our own workers, with their
stopping and limits.
"""

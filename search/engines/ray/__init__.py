"""The Ray engine, in which Ray only places workers on nodes and reports their deaths.

Ray's tuner is not used: our workers take trials from the study's storage, with our own early
stopping and limits.
"""

"""Malformed inputs for every command, by family, and what the command line makes of them."""

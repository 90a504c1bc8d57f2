"""Mixed-precision files: each layer has the cheapest precision that keeps the outputs."""

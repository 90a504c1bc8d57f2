"""Files of mixed precision: each layer has the cheapest precision that the outputs allow."""

"""Files of mixed precision: each layer has the cheapest that the outputs allow."""

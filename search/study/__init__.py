"""All trials of a search: storage, resuming, warm starts, when it is over."""

"""shrink: from a goal to the file to ship."""

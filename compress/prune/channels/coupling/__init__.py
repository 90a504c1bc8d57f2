"""Which channels belong together: slots, what rules say of calls, units and groups."""

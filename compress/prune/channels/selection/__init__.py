"""Which units stay: costs, targets, sensitivity and the solver."""

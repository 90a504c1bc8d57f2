"""compress_model: from a model and a plan to files, their qualities and their times."""

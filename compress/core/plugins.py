"""Where the tables of plug-ins were until version 0.1."""

raise ImportError("compress.core.plugins was renamed: import compress.plugins.")

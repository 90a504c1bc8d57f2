"""Former module of the plug-in tables, up to version 0.1."""

raise ImportError("compress.core.plugins was renamed: import compress.plugins.")

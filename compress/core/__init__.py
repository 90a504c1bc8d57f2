"""Foundations of all packages: errors, files, processes, the machine. Linux is required."""

import sys

if sys.platform != "linux":
    raise ImportError(
        f"paretune must run on Linux. Received: {sys.platform}. "
        "Use a Linux container or virtual machine (on Windows: WSL 2)."
    )

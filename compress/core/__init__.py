"""What every room stands on: errors, files, processes, the machine; Linux is needed."""

import sys

if sys.platform != "linux":
    raise ImportError(
        f"paretune must run on Linux. Received: {sys.platform}. "
        "Use a Linux container or virtual machine (on Windows: WSL 2)."
    )

"""A Ray cluster of several nodes on this machine, and runs on it in processes of their own."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.search.test_run import ROOT

# a node that is gone is missed within three seconds, not thirty
HEALTH = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
# what we start listens to this machine alone
NODE = {"node_ip_address": "127.0.0.1", "object_store_memory": 80 * 2**20}


@contextmanager
def ray_cluster(nodes: int, cpus: int = 2, **more: Any) -> Iterator[Any]:
    """Runs a cluster while the context lasts; the head has no cores."""
    before = {name: os.environ.get(name) for name in ("PYTHONPATH", "RAY_ADDRESS")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # nodes import what this process tests, wherever it lies
        os.environ["PYTHONPATH"] = str(ROOT)
        # read when Ray is imported: 127.0.0.1 is then not taken for the machine's own address
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        from ray.cluster_utils import Cluster

        head = {**NODE, "num_cpus": 0, "include_dashboard": False, "_system_config": HEALTH}
        made = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(nodes):
                made.add_node(**NODE, num_cpus=cpus, **more)
            os.environ["RAY_ADDRESS"] = made.address  # of the commands that are started
            yield made
        finally:
            made.shutdown()
            for name, value in before.items():
                os.environ.pop(name, None)
                os.environ |= {} if value is None else {name: value}

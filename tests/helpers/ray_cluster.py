"""Score files on a Ray cluster of two nodes, and kill one node meanwhile.

Arguments: DATA OUTPUT [DATA OUTPUT ...]; the node is killed during the first pair.
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

# On a busy machine a node starts slowly, and workers with Ray's default niceness, 15, hardly run.
os.environ |= {"RAY_raylet_start_wait_time_s": "300", "RAY_worker_niceness": "0"}

import ray
from ray.cluster_utils import Cluster

from train import PROJECT
from training.scoring.ray_data import score_on_ray

MEMORY = 150 << 20  # bytes in the object store of a node


def kill_when_written(cluster, node, output):
    """Kill a node once a task has written a file of the output."""
    while not any(path.stat().st_size for path in output.glob(".*")):
        time.sleep(0.05)
    cluster.remove_node(node, allow_graceful=False)
    print(json.dumps({"killed_after": len(list(output.glob(".*")))}), flush=True)


def main(pairs):
    """Run the cluster and score each pair."""
    cluster = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 2, "object_store_memory": MEMORY}
    )
    node = cluster.add_node(num_cpus=2, object_store_memory=MEMORY)
    cluster.wait_for_nodes()
    killer = threading.Thread(
        target=kill_when_written, args=(cluster, node, Path(pairs[0][1])), daemon=True
    )
    killer.start()
    for data, output in pairs:
        has_rejected = score_on_ray(PROJECT, PROJECT.name, data, output, cluster.address)
        print(json.dumps({"output": output, "has_rejected": has_rejected}), flush=True)
    ray.shutdown()
    cluster.shutdown()


if __name__ == "__main__":
    paths = sys.argv[1:]
    main(list(zip(paths[::2], paths[1::2], strict=True)))

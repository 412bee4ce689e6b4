"""The preallocated files of the metrics, with and without disk space."""

import fcntl
import os
import sys

import pytest

from serving._bentoml.metrics_files import PreallocatedFile
from tests.helpers.commands import run

# Increments a counter 100 times in a process and in its child, and from two threads at once.
COUNT_IN_TWO_PROCESSES = """
import os
import sys
from threading import Thread
from serving._bentoml import metrics_files
metrics_files.install()
from prometheus_client import Counter
counter = Counter("n", "n")
child = os.fork()
for _ in range(100):
    counter.inc()
if not child:
    sys.exit()
_, status = os.waitpid(child, 0)
assert not status
sys.setswitchinterval(1e-6)
threads = [Thread(target=lambda: [counter.inc() for _ in range(50_000)]) for _ in range(2)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


# Creates the application of a worker, and prints the type of the file of each metric.
PRINT_FILE_TYPES = """
from service import HousePrice
HousePrice.to_asgi()
from prometheus_client import REGISTRY
for metric in REGISTRY._collector_to_names:
    for value in vars(metric).values():
        if hasattr(value, "_file"):
            print(type(value._file).__name__)
"""


@pytest.fixture
def full_disk():
    """The path of a file that cannot grow beyond its initial size, as on a full disk."""
    file = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    os.truncate(file, 1 << 16)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    yield f"/proc/self/fd/{file}"
    os.close(file)


def test_disk_space_is_allocated_before_the_first_write(tmp_path):
    """Writing to a sparse file on a full disk would kill the process with SIGBUS."""
    path = tmp_path / "counter_1.db"
    file = PreallocatedFile(str(path))
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
    file.close()


def test_metrics_are_kept_in_memory_if_the_file_cannot_be_created(tmp_path):
    """No empty file remains, which /metrics would fail to read."""
    path = tmp_path / "missing" / "counter_1.db"
    file = PreallocatedFile(str(path))
    file.write_value("key", 2.0, 1.0)
    assert file.read_value("key") == (2.0, 1.0)
    assert not path.exists()
    file.close()


def test_metrics_move_to_memory_if_the_file_cannot_grow(full_disk):
    """The values that the file already has are kept."""
    file = PreallocatedFile(full_disk)
    names = [f"{'x' * 1000}{n}" for n in range(200)]
    for number, name in enumerate(names):
        file.write_value(name, float(number), 0.0)
    assert [file.read_value(name)[0] for name in names] == list(map(float, range(200)))
    file.close()


def test_counts_of_a_process_are_in_its_file_at_its_end(tmp_path):
    """No increment by two threads is lost, and a forked child writes nothing."""
    run(sys.executable, "-c", COUNT_IN_TWO_PROCESSES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    (path,) = tmp_path.glob("counter_*.db")
    file = PreallocatedFile(str(path))
    assert [value for _, value, *_ in file.read_all_values()] == [100_100]
    file.close()


def test_all_metrics_of_a_worker_are_in_preallocated_files(model, tmp_path):
    """Two types of files with the same path would overwrite each other's values."""
    done = run(sys.executable, "-c", PRINT_FILE_TYPES, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    file_types = done.stdout.split()
    assert len(file_types) > 3
    assert {*file_types} == {"PreallocatedFile"}

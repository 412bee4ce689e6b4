"""The files of the metrics, where there is no space for them."""

import fcntl
import os
import sys

import pytest

from serving._bentoml.metrics_files import PreallocatedFile
from tests.helpers.commands import run

# Counts in two processes; the kernel may be asked once in each for its ID.
COUNT = """
import os
from unittest.mock import Mock
from serving._bentoml import metrics_files
os.getpid = Mock(side_effect=os.getpid)
metrics_files.install()
from prometheus_client import Counter
counter = Counter("n", "n")
child = os.fork()
for _ in range(100):
    counter.inc()
assert os.getpid.call_count <= 3, os.getpid.mock_calls
if not child:
    os._exit(0)
_, status = os.waitpid(child, 0)
assert not status
"""


# Makes a worker's application, and tells whose files its metrics are in.
SERVE = """
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
    """The path of a file that can't grow beyond its first size, as on a full disk."""
    file = os.memfd_create("full", os.MFD_ALLOW_SEALING)
    os.truncate(file, 1 << 16)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
    yield f"/proc/self/fd/{file}"
    os.close(file)


def test_file_has_its_space_before_it_is_written_to(tmp_path):
    """Or a full disk would end the process with SIGBUS."""
    path = tmp_path / "counter_1.db"
    file = PreallocatedFile(str(path))
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
    file.close()


def test_metrics_go_on_in_memory_where_no_file_can_be(tmp_path):
    """And leave nothing that /metrics would fail to read."""
    path = tmp_path / "missing" / "counter_1.db"
    file = PreallocatedFile(str(path))
    file.write_value("key", 2.0, 1.0)
    assert file.read_value("key") == (2.0, 1.0)
    assert not path.exists()
    file.close()


def test_metrics_go_on_in_memory_when_a_file_can_not_grow(full_disk):
    """With the values that it holds."""
    file = PreallocatedFile(full_disk)
    names = [f"{'x' * 1000}{n}" for n in range(200)]
    for number, name in enumerate(names):
        file.write_value(name, float(number), 0.0)
    assert [file.read_value(name)[0] for name in names] == list(map(float, range(200)))
    file.close()


def test_process_is_asked_once_who_it_is(tmp_path):
    """And again after a fork: each process has a file of its own."""
    run(sys.executable, "-c", COUNT, PROMETHEUS_MULTIPROC_DIR=str(tmp_path))
    files = [PreallocatedFile(str(path)) for path in tmp_path.glob("counter_*.db")]
    assert [value for file in files for _, value, *_ in file.read_all_values()] == [100, 100]
    for file in files:
        file.close()


def test_all_metrics_of_a_worker_are_in_such_files(model, tmp_path):
    """Two kinds of files, of one name, would not know of each other's values."""
    out = run(sys.executable, "-c", SERVE, PROMETHEUS_MULTIPROC_DIR=str(tmp_path)).stdout.split()
    assert len(out) > 3
    assert {*out} == {"PreallocatedFile"}

"""The files of the metrics, where there is no space for them."""

import fcntl
import os

import pytest

from serving.metrics_files import MetricsFile


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
    file = MetricsFile(str(path))
    assert path.stat().st_blocks * 512 >= path.stat().st_size > 0
    file.close()


def test_metrics_go_on_in_memory_where_no_file_can_be(tmp_path):
    """And leave nothing that /metrics would fail to read."""
    path = tmp_path / "missing" / "counter_1.db"
    file = MetricsFile(str(path))
    file.write_value("key", 2.0, 1.0)
    assert file.read_value("key") == (2.0, 1.0)
    assert not path.exists()
    file.close()


def test_metrics_go_on_in_memory_when_a_file_can_not_grow(full_disk):
    """With the values that it holds."""
    file = MetricsFile(full_disk)
    names = [f"{'x' * 1000}{n}" for n in range(200)]
    for number, name in enumerate(names):
        file.write_value(name, float(number), 0.0)
    assert [file.read_value(name)[0] for name in names] == list(map(float, range(200)))
    file.close()

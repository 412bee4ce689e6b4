"""An earlier bundle is upgraded by replacing its folders serving/ and training/.

tests/data/earlier_bundle.tar.gz is what the first `make new` wrote for the example, with the edits
of its author, but without these two folders and the pages.
"""

import shutil
import tarfile

import pytest

from tests.helpers.clones import share_venv
from tests.helpers.commands import ROOT, run

pytestmark = pytest.mark.slow  # trains, serves and builds another model


@pytest.fixture
def earlier_bundle(tmp_path):
    """The bundle, with today's serving/ and training/."""
    with tarfile.open(ROOT / "tests/data/earlier_bundle.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    bundle = tmp_path / "car_price"
    for folder in ("serving", "training"):
        shutil.copytree(ROOT / folder, bundle / folder)
    share_venv(bundle)
    return bundle


def test_earlier_bundle_passes_its_own_tests(earlier_bundle):
    """They train, serve, and build a Bento."""
    tested = run("make", "test", cwd=earlier_bundle, timeout=600).stdout
    assert " passed" in tested
    assert "failed" not in tested


def test_earlier_bundle_writes_its_model_card(earlier_bundle):
    """Its template extends one of training/."""
    (earlier_bundle / "docs").mkdir()
    run("make", "report", cwd=earlier_bundle, timeout=600)
    assert "car" in (earlier_bundle / "docs/MODEL_CARD.md").read_text()

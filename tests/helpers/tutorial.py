"""The tutorial's answer to its example record."""

import pytest

TUTORIAL_PREDICTION = pytest.approx(12.273424794987879, abs=1e-9)
TUTORIAL_RESPONSE = {"prediction": TUTORIAL_PREDICTION}

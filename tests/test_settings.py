"""Settings come from the environment, and a wrong one is named before anything starts."""

from conftest import run


def test_wrong_settings_are_named_without_a_traceback():
    """All of them, with what was given and what is wanted."""
    failed = run("bentoml", "serve", check=False, PORT="http", WORKERS="0", MODEL="a b")
    assert failed.returncode == 1
    assert "PORT=http: Input should be a valid integer" in failed.stderr
    assert "WORKERS=0: Input should be greater than or equal to 1" in failed.stderr
    assert "MODEL=a b: String should match pattern" in failed.stderr
    assert "Traceback" not in failed.stderr

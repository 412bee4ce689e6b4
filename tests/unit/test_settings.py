"""Settings: environment variables, their validation, and the messages for invalid ones."""

import pytest
from bentoml.exceptions import BentoMLConfigException

from serving.settings import Settings, find_misspelled, load_settings
from tests.helpers.commands import run

VALID_KEY = "a-key-of-17-signs"


def test_all_invalid_settings_are_reported_at_start():
    """One message names each variable, its value and the rule; there is no traceback."""
    failed = run("bentoml", "serve", check=False, PORT="http", WORKERS="0", MODEL="a b")
    assert failed.returncode == 1
    assert "PORT=http: Input should be a valid integer" in failed.stderr
    assert "WORKERS=0: Input should be greater than or equal to 1" in failed.stderr
    assert "MODEL=a b: String should match pattern" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_prediction_log_must_be_a_folder(monkeypatch, tmp_path):
    """With any other path, every line would be lost. The folder may be missing; ~ is expanded."""
    (tmp_path / "file").touch()
    for path in (str(tmp_path / "file"), "~nobody-here/log", "x" * 1000):
        monkeypatch.setenv("PREDICTION_LOG", path)
        with pytest.raises(BentoMLConfigException, match=f"PREDICTION_LOG={path}: .* be a folder"):
            load_settings()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(prediction_log="~/new").prediction_log == str(tmp_path / "new")
    assert Settings(prediction_log="").prediction_log == ""


def test_misspelled_setting_is_found():
    """API_KEY instead of API_KEYS would disable authentication. Other variables are ignored."""
    variables = ["API_KEY", "WORKER", "workers", "PORT", "PATH", "OPENAI_API_KEY", "MODEL_TAG"]
    assert list(find_misspelled(variables)) == [("API_KEY", "API_KEYS"), ("WORKER", "WORKERS")]


@pytest.mark.parametrize(
    ("keys", "position"),
    [
        ("secret-of-15-ab", 1),
        (f"{VALID_KEY},secret", 2),
        (f"{VALID_KEY},", 2),
        (f"{VALID_KEY},secret with 2 spaces", 2),
        (f"secret-but-not-ascii-é,{VALID_KEY}", 1),
        (f"{VALID_KEY},secret-with-\x1b[31m-colour", 2),
        (" ", 1),
        (",", 1),
    ],
)
def test_invalid_key_is_reported_by_its_position(monkeypatch, keys, position):
    """The message never contains a key. A space or a comma does not disable authentication."""
    monkeypatch.setenv("API_KEYS", keys)
    with pytest.raises(BentoMLConfigException) as caught:
        load_settings()
    expected = (
        f"API_KEYS: Key {position} should be 16 or more printable ASCII characters, none a space"
    )
    assert str(caught.value) == expected


def test_keys_are_comma_separated():
    """Spaces around a key are removed, and so is the line feed that ends a secrets file."""
    assert Settings(api_keys=f"{VALID_KEY}1, {VALID_KEY}2\n").keys == [
        f"{VALID_KEY}1",
        f"{VALID_KEY}2",
    ]
    assert Settings(api_keys="x" * 16).keys == ["x" * 16]
    assert Settings(api_keys="").keys == []


@pytest.mark.parametrize(
    "origins",
    ["*", "https://a.example", "http://localhost:8080,http://[::1]:8443", "https://a-b.c:80"],
)
def test_valid_origins_are_passed_to_bentoml(origins):
    """An origin has the form that browsers send; `*` allows all."""
    assert Settings(cors_origins=origins).http["cors"]["access_control_allow_origins"] == (
        origins.split(",")
    )


@pytest.mark.parametrize(
    ("origins", "position"),
    [
        ("a.example", 1),
        ("null", 1),
        ("https://a.example/", 1),
        ("https://A.example", 1),
        ("https://a.example:443", 1),
        ("http://a.example:80", 1),
        ("http://a.example:", 1),
        ("file://a.example", 1),
        ("https://a.example, ftp://a.example", 2),
        ("https://a.example,*", 2),
        ("https://*.example", 1),
        ("https://a.example,", 2),
        (" ", 1),
    ],
)
def test_invalid_origin_is_reported_by_its_position(monkeypatch, origins, position):
    """No browser sends it, so it would never match. `*` is valid only by itself."""
    monkeypatch.setenv("CORS_ORIGINS", origins)
    with pytest.raises(BentoMLConfigException) as caught:
        load_settings()
    message = f"Origin {position} should be like https://example.com or http://localhost:8080"
    assert str(caught.value) == f"CORS_ORIGINS={origins}: {message}"


def test_keys_are_masked_when_settings_are_printed():
    """In `repr` and `str`, and in both kinds of dump."""
    settings = Settings(api_keys=VALID_KEY)
    assert (
        VALID_KEY
        not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )

"""Settings come from the environment, and a wrong one is named before anything starts."""

import pytest
from bentoml.exceptions import BentoMLConfigException

from serving.settings import Settings, find_misspelled, load_settings
from tests.helpers.commands import run

LONG = "a-key-of-17-signs"


def test_wrong_settings_are_named_without_a_traceback():
    """All of them, with what was given and what is wanted."""
    failed = run("bentoml", "serve", check=False, PORT="http", WORKERS="0", MODEL="a b")
    assert failed.returncode == 1
    assert "PORT=http: Input should be a valid integer" in failed.stderr
    assert "WORKERS=0: Input should be greater than or equal to 1" in failed.stderr
    assert "MODEL=a b: String should match pattern" in failed.stderr
    assert "Traceback" not in failed.stderr


def test_log_that_is_no_folder_is_refused(monkeypatch, tmp_path):
    """Or each line would be lost; the folder itself need not be there, nor be spelled out."""
    (tmp_path / "file").touch()
    for path in (str(tmp_path / "file"), "~nobody-here/log", "x" * 1000):
        monkeypatch.setenv("PREDICTION_LOG", path)
        with pytest.raises(BentoMLConfigException, match=f"PREDICTION_LOG={path}: .* be a folder"):
            load_settings()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert Settings(prediction_log="~/new").prediction_log == str(tmp_path / "new")
    assert Settings(prediction_log="").prediction_log == ""


def test_misspelled_setting_is_told():
    """Above all one without which there are no keys; other variables mean something else."""
    variables = ["API_KEY", "WORKER", "workers", "PORT", "PATH", "OPENAI_API_KEY", "MODEL_TAG"]
    assert list(find_misspelled(variables)) == [("API_KEY", "API_KEYS"), ("WORKER", "WORKERS")]


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        ("secret-of-15-ab", 1),
        (f"{LONG},secret", 2),
        (f"{LONG},", 2),
        (f"{LONG},secret with 2 spaces", 2),
        (f"secret-but-not-ascii-é,{LONG}", 1),
        (f"{LONG},secret-with-\x1b[31m-colour", 2),
        (" ", 1),
        (",", 1),
    ],
)
def test_unusable_key_is_named_and_not_shown(monkeypatch, keys, wrong):
    """By its number in the list; what is nearly empty does not switch the keys off."""
    monkeypatch.setenv("API_KEYS", keys)
    with pytest.raises(BentoMLConfigException) as caught:
        load_settings()
    expected = (
        f"API_KEYS: Key {wrong} should be 16 or more printable ASCII characters, none a space"
    )
    assert str(caught.value) == expected


def test_keys_are_split_at_commas():
    """With spaces around them, or a line feed at the end of a file of secrets."""
    assert Settings(api_keys=f"{LONG}1, {LONG}2\n").keys == [f"{LONG}1", f"{LONG}2"]
    assert Settings(api_keys="x" * 16).keys == ["x" * 16]
    assert Settings(api_keys="").keys == []


@pytest.mark.parametrize(
    "origins",
    ["*", "https://a.example", "http://localhost:8080,http://[::1]:8443", "https://a-b.c:80"],
)
def test_origins_are_those_that_a_browser_sends(origins):
    """Or all of them, with *."""
    assert Settings(cors_origins=origins).http["cors"]["access_control_allow_origins"] == (
        origins.split(",")
    )


@pytest.mark.parametrize(
    ("origins", "wrong"),
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
def test_origin_that_no_browser_sends_is_named(monkeypatch, origins, wrong):
    """For it would never match; and * beside others is not what it seems."""
    monkeypatch.setenv("CORS_ORIGINS", origins)
    with pytest.raises(BentoMLConfigException) as caught:
        load_settings()
    words = f"Origin {wrong} should be like https://example.com or http://localhost:8080"
    assert str(caught.value) == f"CORS_ORIGINS={origins}: {words}"


def test_keys_are_not_shown():
    """Wherever somebody prints the settings."""
    settings = Settings(api_keys=LONG)
    assert (
        LONG not in f"{settings!r} {settings} {settings.model_dump()} {settings.model_dump_json()}"
    )

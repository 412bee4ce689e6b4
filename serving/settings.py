"""Settings, read from environment variables."""

import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

from bentoml.exceptions import BentoMLConfigException
from pydantic import AfterValidator, Field, SecretStr, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError
from pydantic_settings import BaseSettings

KEY_PATTERN = re.compile("[!-~]{16,}")
# Browsers send an origin in lower case, without a path or the default port of its scheme.
ORIGIN_PATTERN = re.compile(
    r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?"
)
TAG_PATTERN = r"^([a-z0-9._-]+(:[a-z0-9._-]+)?)?$"


def split_list(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",")] if text else []


def validate_keys(keys: SecretStr) -> SecretStr:
    """Return the keys; raise PydanticCustomError if one is too short or can't be in a header."""
    for number, key in enumerate(split_list(keys.get_secret_value()), 1):
        if not KEY_PATTERN.fullmatch(key):
            message = "Key {number} should be 16 or more printable ASCII characters, none a space"
            raise PydanticCustomError("key", message, {"number": number})
    return keys


def validate_origins(origins: str) -> str:
    """Return the origins; raise PydanticCustomError if no browser would send one of them."""
    for number, origin in enumerate(split_list(origins), 1):
        if not ORIGIN_PATTERN.fullmatch(origin) and origins != "*":
            message = "Origin {number} should be like https://example.com or http://localhost:8080"
            raise PydanticCustomError("origin", message, {"number": number})
    return origins


def validate_folder(path: str) -> str:
    """Return the path with ~ expanded; raise PydanticCustomError if it can't be a folder."""
    if not path:
        return path
    try:
        expanded = Path(path).expanduser()
        valid = expanded.is_dir() or not expanded.exists()
    except (OSError, RuntimeError):  # too long a name; ~user of an unknown user
        valid = False
    if not valid:
        raise PydanticCustomError("folder", "Input should be a folder")
    return str(expanded)


class Settings(BaseSettings):
    """The settings: environment variables with these names in capitals."""

    port: int = Field(3000, ge=1, le=65535, description="TCP port")
    workers: int = Field(1, ge=1, description="Server processes; each loads the model")
    model: str = Field(
        "",
        pattern=TAG_PATTERN,
        description="Tag of the model to serve; empty: the newest. Ignored in a Bento, which "
        "serves the model that it was built with",
    )
    api_keys: Annotated[SecretStr, AfterValidator(validate_keys)] = Field(
        SecretStr(""),
        description="API keys of 16 characters or more, comma-separated; empty: no authentication",
    )
    cors_origins: Annotated[str, AfterValidator(validate_origins)] = Field(
        "", description="Origins whose web pages may send requests, comma-separated, or * for all"
    )
    max_records: int = Field(  # 2 or more, because BentoML's `max_batch_size` must be above 1
        1000,
        ge=2,
        description="Maximum records in the array of a request, and in a batch that the service "
        "makes of requests to /predict_batch",
    )
    max_body_bytes: int = Field(1 << 20, ge=1, description="Maximum size of a request body, bytes")
    max_concurrency: int = Field(
        1000, ge=1, description="Maximum prediction requests in progress per worker; beyond it, 429"
    )
    request_timeout: float = Field(
        5,
        gt=0,
        description="Time limit in seconds for each step: from connecting to the first byte; "
        "receiving the headers; receiving the body and predicting; waiting for a client to read "
        "its response",
    )
    keep_alive: int = Field(75, gt=0, description="Seconds that an idle connection stays open")
    shutdown_timeout: int = Field(
        8, gt=0, description="Seconds that requests in progress may take during shutdown"
    )
    try_page: bool = Field(True, description="false: no page at /try")
    access_log: Literal["text", "json", "off"] = Field(
        "text", description="text, json (then also for other messages of the service) or off"
    )
    log_exception_text: bool = Field(
        False, description="true: log the text of exceptions, which may quote a record"
    )
    prediction_log: Annotated[str, AfterValidator(validate_folder)] = Field(
        "", description="Folder of the prediction log; empty: no log"
    )
    prediction_log_sample: float = Field(
        1, ge=0, le=1, description="Fraction of the requests in the prediction log, 0 to 1"
    )
    prediction_log_mb: int = Field(
        100, ge=1, description="Maximum size of the prediction log of all workers, MB"
    )

    @property
    def keys(self) -> list[str]:
        """The API keys."""
        return split_list(self.api_keys.get_secret_value())

    @property
    def http(self) -> dict[str, Any]:
        """The `http` configuration of the Service in BentoML: port and CORS."""
        origins = split_list(self.cors_origins)
        cors = {
            "enabled": bool(origins),
            "access_control_allow_origins": origins,
            "access_control_allow_methods": ["GET", "POST"],
            "access_control_allow_headers": [
                "Authorization",
                "Content-Type",
                "X-Request-ID",
                "X-What-If",
            ],
            "access_control_expose_headers": ["Retry-After", "X-Model-Tag", "X-Request-ID"],
        }
        return {"port": self.port, "cors": cors}


def load_settings() -> Settings:
    """Read the settings; raise BentoMLConfigException that names each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        messages = (f"{describe_value(details)}: {details['msg']}" for details in error.errors())
        raise BentoMLConfigException("; ".join(messages)) from None


def find_misspelled(variables: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each variable whose name resembles that of a setting, and the name of the setting."""
    settings = [name.upper() for name in Settings.model_fields]
    for name in variables:
        for setting in get_close_matches(name.upper(), settings, n=1, cutoff=0.9):
            if name.upper() != setting:
                yield name, setting


def describe_value(details: ErrorDetails) -> str:
    """Return the name of an invalid variable and its value, unless that is secret."""
    name = str(details["loc"][0])
    secret = Settings.model_fields[name].annotation is SecretStr
    return name.upper() if secret else f"{name.upper()}={details['input']}"

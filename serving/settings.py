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

KEY = re.compile("[!-~]{16,}")
# As browsers send it: lower case, no path, and no port if it is the default of the scheme.
ORIGIN = re.compile(
    r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?"
)
TAG = r"^([a-z0-9._-]+(:[a-z0-9._-]+)?)?$"


def split_list(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",")] if text else []


def validate_keys(keys: SecretStr) -> SecretStr:
    """Return the keys; raise PydanticCustomError if one is short or does not fit in a header."""
    for number, key in enumerate(split_list(keys.get_secret_value()), 1):
        if not KEY.fullmatch(key):
            message = "Key {number} should be 16 or more printable ASCII characters, none a space"
            raise PydanticCustomError("key", message, {"number": number})
    return keys


def validate_origins(origins: str) -> str:
    """Return the origins; raise PydanticCustomError if one is nothing that a browser sends."""
    for number, origin in enumerate(split_list(origins), 1):
        if not ORIGIN.fullmatch(origin) and origins != "*":
            message = "Origin {number} should be like https://example.com or http://localhost:8080"
            raise PydanticCustomError("origin", message, {"number": number})
    return origins


def validate_folder(path: str) -> str:
    """Return the expanded path of a folder, which need not exist; raise PydanticCustomError."""
    if not path:
        return path
    try:
        expanded = Path(path).expanduser()
        valid = expanded.is_dir() or not expanded.exists()
    except (OSError, RuntimeError):  # the name is too long; the user of ~user is unknown
        valid = False
    if not valid:
        raise PydanticCustomError("folder", "Input should be a folder")
    return str(expanded)


class Settings(BaseSettings):
    """The settings; each is an environment variable with the name in capitals."""

    port: int = Field(3000, ge=1, le=65535, description="TCP port")
    workers: int = Field(1, ge=1, description="Server processes, each with the model loaded")
    model: str = Field(
        "", pattern=TAG, description="Model to serve, if not the newest; a Bento has its own"
    )
    api_keys: Annotated[SecretStr, AfterValidator(validate_keys)] = Field(
        SecretStr(""),
        description="Keys of 16 characters or more, comma-separated, of which a caller needs one",
    )
    cors_origins: Annotated[str, AfterValidator(validate_origins)] = Field(
        "", description="Origins, comma-separated, whose web pages may call, or *"
    )
    max_records: int = Field(
        1000, ge=2, description="Records in one array, and in one batch of arrays"
    )
    max_body_bytes: int = Field(1 << 20, ge=1, description="Bytes in the body of a request")
    max_concurrency: int = Field(
        1000, ge=1, description="Prediction requests at once in one worker"
    )
    request_timeout: float = Field(5, gt=0, description="Seconds to read a request and to predict")
    keep_alive: int = Field(75, gt=0, description="Seconds that an idle connection stays open")
    shutdown_timeout: int = Field(
        8, gt=0, description="Seconds for the requests in progress when the service is stopped"
    )
    try_page: bool = Field(True, description="false: no page at /try")
    access_log: Literal["text", "json", "off"] = Field("text", description="text, json or off")
    log_exception_text: bool = Field(
        False, description="true: the log has messages of exceptions, which may quote a record"
    )
    prediction_log: Annotated[str, AfterValidator(validate_folder)] = Field(
        "", description="Folder for the prediction log; none without"
    )
    prediction_log_sample: float = Field(
        1, ge=0, le=1, description="Share of the requests that it takes"
    )
    prediction_log_mb: int = Field(100, ge=1, description="MB that its files take at most")

    @property
    def keys(self) -> list[str]:
        """The API keys."""
        return split_list(self.api_keys.get_secret_value())

    @property
    def http(self) -> dict[str, Any]:
        """BentoML's configuration of its HTTP server."""
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
    """Read the settings; raise BentoMLConfigException naming each invalid variable."""
    try:
        return Settings()
    except ValidationError as error:
        messages = (f"{describe_value(details)}: {details['msg']}" for details in error.errors())
        raise BentoMLConfigException("; ".join(messages)) from None


def find_misspelled(variables: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each variable whose name resembles a setting, and the setting."""
    settings = [name.upper() for name in Settings.model_fields]
    for name in variables:
        for setting in get_close_matches(name.upper(), settings, n=1, cutoff=0.9):
            if name.upper() != setting:
                yield name, setting


def describe_value(details: ErrorDetails) -> str:
    """Return the name of an invalid variable and, unless it is secret, its value."""
    name = str(details["loc"][0])
    secret = Settings.model_fields[name].annotation is SecretStr
    return name.upper() if secret else f"{name.upper()}={details['input']}"

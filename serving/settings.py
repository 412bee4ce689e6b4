"""Runtime settings, read from the environment."""

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
# As a browser sends it: in lower case, without a path, and without the port if it is the usual one.
ORIGIN = re.compile(
    r"(http(?!.*:80$)|https(?!.*:443$))://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?"
)
TAG = r"^([a-z0-9._-]+(:[a-z0-9._-]+)?)?$"


def split(text: str) -> list[str]:
    """Return the parts of a comma-separated list."""
    return [part.strip() for part in text.split(",")] if text else []


def usable(keys: SecretStr) -> SecretStr:
    """Return keys that a header can carry and nobody guesses; raise PydanticCustomError."""
    for number, key in enumerate(split(keys.get_secret_value()), 1):
        if not KEY.fullmatch(key):
            words = "Key {number} should be 16 or more printable ASCII characters, none a space"
            raise PydanticCustomError("key", words, {"number": number})
    return keys


def reachable(origins: str) -> str:
    """Return origins that a browser may send, or *; raise PydanticCustomError."""
    for number, origin in enumerate(split(origins), 1):
        if not ORIGIN.fullmatch(origin) and origins != "*":
            words = "Origin {number} should be like https://example.com or http://localhost:8080"
            raise PydanticCustomError("origin", words, {"number": number})
    return origins


def folder(path: str) -> str:
    """Return the path of a folder, which need not be there yet; raise PydanticCustomError."""
    if not path:
        return path
    try:
        expanded = Path(path).expanduser()
        usable = expanded.is_dir() or not expanded.exists()
    except (OSError, RuntimeError):  # of a name too long, of an unknown user
        usable = False
    if not usable:
        raise PydanticCustomError("folder", "Input should be a folder")
    return str(expanded)


class Settings(BaseSettings):
    """Each setting is the environment variable of its name in capitals."""

    port: int = Field(3000, ge=1, le=65535, description="TCP port")
    workers: int = Field(1, ge=1, description="Server processes, each with the model loaded")
    model: str = Field(
        "", pattern=TAG, description="Model to serve, if not the newest; a Bento has its own"
    )
    api_keys: Annotated[SecretStr, AfterValidator(usable)] = Field(
        SecretStr(""),
        description="Keys of 16 characters or more, comma-separated, of which a caller needs one",
    )
    cors_origins: Annotated[str, AfterValidator(reachable)] = Field(
        "", description="Origins, comma-separated, whose web pages may call, or *"
    )
    allow_other_sklearn: bool = Field(
        False, description="Serve a model that another scikit-learn trained"
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
    access_log: Literal["text", "json", "off"] = Field("text", description="text, json or off")
    prediction_log: Annotated[str, AfterValidator(folder)] = Field(
        "", description="Folder for the prediction log; none without"
    )
    prediction_log_sample: float = Field(
        1, ge=0, le=1, description="Share of the requests that it takes"
    )
    prediction_log_mb: int = Field(100, ge=1, description="MB that its files take at most")

    @property
    def keys(self) -> list[str]:
        """The API keys, one by one."""
        return split(self.api_keys.get_secret_value())

    @property
    def http(self) -> dict[str, Any]:
        """BentoML's configuration of its HTTP server."""
        origins = split(self.cors_origins)
        cors = {
            "enabled": bool(origins),
            "access_control_allow_origins": origins,
            "access_control_allow_methods": ["GET", "POST"],
            "access_control_allow_headers": ["Authorization", "Content-Type", "X-Request-ID"],
            "access_control_expose_headers": ["Retry-After", "X-Model-Tag", "X-Request-ID"],
        }
        return {"port": self.port, "cors": cors}


def load_settings() -> Settings:
    """Read the settings; raise BentoMLConfigException naming each variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        faults = (f"{told(fault)}: {fault['msg']}" for fault in error.errors())
        raise BentoMLConfigException("; ".join(faults)) from None


def misspelled(variables: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each variable that is no setting, but nearly one, and the setting."""
    settings = [name.upper() for name in Settings.model_fields]
    for name in variables:
        for meant in get_close_matches(name.upper(), settings, n=1, cutoff=0.9):
            if name.upper() != meant:
                yield name, meant


def told(fault: ErrorDetails) -> str:
    """Return the variable at fault and, unless it is secret, what was given."""
    name = str(fault["loc"][0])
    secret = Settings.model_fields[name].annotation is SecretStr
    return name.upper() if secret else f"{name.upper()}={fault['input']}"

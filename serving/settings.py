"""Runtime settings, read from the environment."""

from typing import Literal

from bentoml.exceptions import BentoMLConfigException
from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings

TAG = r"^([a-z0-9._-]+(:[a-z0-9._-]+)?)?$"


class Settings(BaseSettings):
    """Each setting is the environment variable of its name in capitals."""

    port: int = Field(3000, ge=1, le=65535, description="TCP port")
    workers: int = Field(1, ge=1, description="Server processes, each with the model loaded")
    model: str = Field("", pattern=TAG, description="Model to serve, if not the newest")
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
    access_log: Literal["text", "json", "off"] = Field("text", description="text, json or off")


def load_settings() -> Settings:
    """Read the settings; raise BentoMLConfigException naming each variable at fault."""
    try:
        return Settings()
    except ValidationError as error:
        faults = (
            f"{str(fault['loc'][0]).upper()}={fault['input']}: {fault['msg']}"
            for fault in error.errors()
        )
        raise BentoMLConfigException("; ".join(faults)) from None

"""Warn of options and configuration of BentoML that have no effect on this service."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import yaml
from bentoml._internal import configuration
from bentoml._internal.configuration.containers import BentoMLContainer
from click.core import ParameterSource

logger = logging.getLogger("bentoml.serve")

# The settings to use instead.
COMMAND_LINE = {"api_workers": "WORKERS", "timeout": "REQUEST_TIMEOUT"}
TRAFFIC, ACCESS_LOG = "REQUEST_TIMEOUT or MAX_CONCURRENCY", "ACCESS_LOG"
USED = {"skip_paths", "format"}  # of the configuration of the access log


def warn_of_ignored_options() -> None:
    """Log a warning for each option and each part of the configuration that has no effect."""
    for name, setting in [*ignored_options(), *ignored_configuration()]:
        logger.warning("%s has no effect on this service: set %s", name, setting)


def ignored_options() -> Iterator[tuple[str, str]]:
    """Yield each option of the command line that was given in vain, and the setting to use."""
    context = click.get_current_context(silent=True)
    if not context:  # BentoML was started from Python
        return
    for name, setting in COMMAND_LINE.items():
        if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
            yield f"--{name.replace('_', '-')}", setting


def ignored_configuration() -> Iterator[tuple[str, str]]:
    """Yield each key of BentoML's configuration that was set in vain, and the setting to use."""
    folder = Path(configuration.__file__).parent
    defaults = yaml.safe_load((folder / "v2/default_configuration.yaml").read_text())["services"]
    traffic, access_log = configured("traffic"), configured("logging")["access"]
    for name in changed(traffic, defaults["traffic"]):
        yield f"BentoML's configuration traffic.{name}", TRAFFIC
    for name in changed(access_log, defaults["logging"]["access"]):
        yield f"BentoML's configuration logging.access.{name}", ACCESS_LOG


def configured(section: str) -> dict[str, Any]:
    """Return a section of the configuration of BentoML's server."""
    return BentoMLContainer.api_server_config.get()[section]


def changed(values: dict[str, Any], defaults: dict[str, Any]) -> list[str]:
    """Return the keys whose value is not the default, except those in use."""
    return [key for key in values if key not in USED and values[key] != defaults.get(key)]

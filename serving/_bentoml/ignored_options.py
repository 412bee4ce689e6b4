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

# The settings to use instead of options of the command line, and of sections of the configuration.
OPTION_REPLACEMENTS = {"api_workers": "WORKERS", "timeout": "REQUEST_TIMEOUT"}
SECTION_REPLACEMENTS = {
    "traffic": "REQUEST_TIMEOUT or MAX_CONCURRENCY",
    "logging.access": "ACCESS_LOG",
}
# Keys that do have an effect: the paths without access log, and the format of IDs in BentoML's log.
USED_KEYS = {"skip_paths", "format"}


def warn_of_ignored_options() -> None:
    """Log a warning for each option and each part of the configuration that has no effect."""
    for name, setting in [*ignored_options(), *ignored_configuration()]:
        logger.warning("%s has no effect on this service: set %s", name, setting)


def ignored_options() -> Iterator[tuple[str, str]]:
    """Yield each given option of the command line that has no effect, and the setting to use."""
    context = click.get_current_context(silent=True)
    if not context:  # BentoML was started from Python
        return
    for name, setting in OPTION_REPLACEMENTS.items():
        if context.get_parameter_source(name) not in (None, ParameterSource.DEFAULT):
            yield f"--{name.replace('_', '-')}", setting


def ignored_configuration() -> Iterator[tuple[str, str]]:
    """Yield each changed key of BentoML's configuration without effect, and the setting to use."""
    folder = Path(configuration.__file__).parent
    defaults = yaml.safe_load((folder / "v2/default_configuration.yaml").read_text())["services"]
    configured = BentoMLContainer.api_server_config.get()
    for section, setting in SECTION_REPLACEMENTS.items():
        values, default_values = find_section(configured, section), find_section(defaults, section)
        for key, value in values.items():
            if key not in USED_KEYS and value != default_values.get(key):
                yield f"BentoML's configuration {section}.{key}", setting


def find_section(values: dict[str, Any], path: str) -> dict[str, Any]:
    """Return a section of a configuration, such as "logging.access"."""
    for name in path.split("."):
        values = values[name]
    return values

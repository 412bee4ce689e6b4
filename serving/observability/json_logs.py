"""Write the log of the service as JSON, one object in each line."""

import json
import logging

from serving.observability.timestamp import format_timestamp


class JsonFormatter(logging.Formatter):
    """Formats a record of the log as JSON; a traceback is part of the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line without its line feed."""
        entry = {
            "time": format_timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": super().format(record),
        }
        return json.dumps(entry)


def use_json_logs() -> None:
    """Make all handlers write JSON that the server has configured in this process."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    for logger in [logging.root, *loggers]:
        for handler in logger.handlers:
            handler.setFormatter(JsonFormatter())

"""Write the log of the service as JSON, one object per line."""

import json
import logging

from serving.observability.timestamp import format_timestamp


class JsonFormatter(logging.Formatter):
    """Formats log records as JSON; a traceback becomes part of the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a log record as one line, without a line feed."""
        entry = {
            "time": format_timestamp(record.created),
            "level": record.levelname,
            "logger": record.name,
            "message": super().format(record),
        }
        return json.dumps(entry)


def use_json_logs() -> None:
    """Set the JSON formatter on every logging handler that exists now."""
    loggers = [logging.getLogger(name) for name in logging.root.manager.loggerDict]
    for logger in [logging.root, *loggers]:
        for handler in logger.handlers:
            handler.setFormatter(JsonFormatter())

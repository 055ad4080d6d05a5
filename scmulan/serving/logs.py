"""Logs as one JSON object a line: what happened, never what a client sent."""

from __future__ import annotations

import json
import logging
import sys
import time

USUAL = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """A record as JSON; what was given as ``extra`` beside time, level and message."""

    def format(self, record: logging.LogRecord) -> str:
        said = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(record.created)),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
        }
        said |= {key: value for key, value in vars(record).items() if key not in USUAL}
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, default=str)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Let scmulan's server log to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("scmulan.serving")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level)

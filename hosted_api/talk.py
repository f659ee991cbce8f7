"""The log of the API: lines for people, or JSON for machines, each with the prediction's id."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone


class _AsJson(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as one line of JSON."""
        told = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(),
            "level": record.levelname.lower(),
            "prediction": getattr(record, "prediction", None),
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["error"] = self.formatException(record.exc_info)
        return json.dumps({name: value for name, value in told.items() if value is not None})


class _AsText(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        """Return a record as a line."""
        whose = getattr(record, "prediction", "")
        record.prediction = f" {whose}" if whose else ""
        return super().format(record)


def set_up_log(*, as_json: bool) -> None:
    """Let the process write its log to standard error."""
    handler = logging.StreamHandler()
    text = "%(asctime)s %(levelname)s%(prediction)s %(message)s"
    handler.setFormatter(_AsJson() if as_json else _AsText(text))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)

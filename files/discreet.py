"""Keeps the queries of our addresses out of urllib3's debug log: they can be signatures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator
from contextlib import contextmanager

from .addresses import bare_url

__all__ = ["discreet", "keep_queries_out_of_logs"]


class _NoQueries(logging.Filter):
    """Changes the records of our own requests, and of nobody else's."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Cut the query off every text of a record that one of our requests made."""
        if getattr(_ours, "active", False) and isinstance(record.args, tuple):
            record.args = tuple(
                bare_url(arg) if isinstance(arg, str) else arg for arg in record.args
            )
        return True


_ours = threading.local()
_no_queries = _NoQueries()


def keep_queries_out_of_logs() -> None:
    """Put the filter into urllib3's log, once."""
    log = logging.getLogger("urllib3.connectionpool")
    if _no_queries not in log.filters:
        log.addFilter(_no_queries)


@contextmanager
def discreet() -> Generator[None, None, None]:
    """Mark what this thread logs meanwhile as ours."""
    _ours.active = True
    try:
        yield
    finally:
        _ours.active = False

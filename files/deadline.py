"""An end to waiting for a server that keeps sending, but never what was asked for.

A timeout of a socket begins anew with every byte, so a head that drips, or `100 Continue` for ever,
outlasts it. Here the connection itself is shut when its time is over.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from typing import Any, cast

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

__all__ = ["POOLS", "answer_within"]

_allowed = threading.local()


@contextmanager
def answer_within(seconds: float) -> Generator[None, None, None]:
    """Give the requests that this thread sends so many seconds in all, each to the end of its head.

    Only connections of `POOLS` keep to it.
    """
    _allowed.until = time.monotonic() + seconds
    try:
        yield
    finally:
        _allowed.until = None


class _Plain(HTTPConnection):
    def getresponse(self) -> HTTPResponse:
        """Wait for the head of an answer until the time is over.

        Raises:
            TimeoutError: it is.
        """
        with _shut_in_time(self.sock):
            return super().getresponse()


class _Secure(HTTPSConnection):
    def getresponse(self) -> HTTPResponse:
        """Wait for the head of an answer until the time is over.

        Raises:
            TimeoutError: it is.
        """
        with _shut_in_time(self.sock):
            return super().getresponse()


class _PlainPool(HTTPConnectionPool):
    ConnectionCls = cast("Any", _Plain)  # the protocol that is declared, urllib3's own lack too


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = cast("Any", _Secure)


POOLS = {"http": _PlainPool, "https": _SecurePool}
"""Pools of connections that keep to `answer_within`, by scheme."""


@contextmanager
def _shut_in_time(sock: socket.socket | None) -> Generator[None, None, None]:
    until: float | None = getattr(_allowed, "until", None)
    if until is None or sock is None:
        yield
        return
    late = threading.Event()
    below = cast("socket.socket", getattr(sock, "socket", sock))  # a proxy's encryption in between

    def shut() -> None:
        late.set()
        with suppress(OSError):  # it has ended by itself
            # Below any encryption, which belongs to the thread that reads.
            socket.socket.shutdown(below, socket.SHUT_RDWR)

    timer = threading.Timer(max(0.0, until - time.monotonic()), shut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except Exception as error:
        if late.is_set():
            raise TimeoutError("timed out") from error
        raise
    finally:
        timer.cancel()
    if late.is_set():  # http.client takes the end of a connection for the end of a head
        raise TimeoutError("timed out")

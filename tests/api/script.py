"""The frame of a client's cases, which run in a process of their own.

The setting comes as JSON on standard input; what each case gave goes out as a line of JSON:
{"case": name, "value": ..., "error": {"type", "status", "text"} or null, "seconds": ...}.
"""

from __future__ import annotations

import base64
import itertools
import json
import sys
import time
import urllib.request
from collections.abc import Callable, Iterable
from typing import Any

Case = Callable[["Setting"], Any]

# Loopback must not go through a proxy, whatever the environment says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Setting:
    """What `Site.setting` says, and requests of it.

    Attributes:
        open: address of the API that is open to all.
        front: https address of the one that wants a token.
        receiver: where webhooks go.
        token: one that is taken.
        others: a second one.
        wrong: one that is not.
        version: that of acme/flux.
        lora: a file of ComfyUI's loras folder.
        image: path of a picture.
        bad: fields that are wrong one at a time, each as [name, its part of the request].
        client: what the cases call.
    """

    def __init__(self, given: dict[str, Any]) -> None:
        self.open: str = given["open"]
        self.front: str = given["front"]
        self.receiver: str = given["receiver"]
        self.token: str = given["token"]
        self.others: str = given["others"]
        self.wrong: str = given["wrong"]
        self.version: str = given["version"]
        self.lora: str = given["lora"]
        self.image: str = given["image"]
        self.bad: list[tuple[str, dict[str, Any]]] = given["bad"]
        self.client: Any = None
        self._quick: dict[str, Any] = given["quick"]
        self._slow: dict[str, Any] = given["slow"]
        self._seeds = itertools.count(given["seed"])

    def quick(self, **more: Any) -> dict[str, Any]:
        """A request that is drawn at once: often the same picture, which ComfyUI kept."""
        return {**self._quick, **more}

    def slow(self, **more: Any) -> dict[str, Any]:
        """A request that takes seconds, another one each time."""
        return {**self._quick, **self._slow, "seed": next(self._seeds), **more}

    def delivered(self, name: str) -> list[dict[str, Any]]:
        """What the receiver got for a webhook, once its prediction has ended."""
        with _DIRECT.open(f"{self.receiver}/{name}", timeout=90) as answer:
            return json.load(answer)


def files(output: Iterable[Any]) -> list[dict[str, str]]:
    """What a client's file objects are: the start of their address, and their bytes."""
    return [_file(each, each.read()) for each in output]


def _file(shown: Any, data: bytes) -> dict[str, str]:
    address = getattr(shown, "url", None) or str(shown)
    return {"address": address[:60], "data": base64.b64encode(data).decode()}


class Script:
    """Cases by the names of their functions.

    Args:
        shared: whose cases it has too.
    """

    def __init__(self, shared: Script | None = None) -> None:
        self._cases: dict[str, Case] = {} if shared is None else dict(shared._cases)

    def case(self, function: Case) -> Case:
        """Add a function as a case."""
        self._cases[function.__name__] = function
        return function

    def main(self, client: Callable[[Setting], Any], refused: Callable[..., Any]) -> None:
        """Run all cases.

        Args:
            client: makes the client that most cases call.
            refused: posts a request that is wrong.
        """
        setting = Setting(json.load(sys.stdin))
        setting.client = client(setting)
        for name, function in self._cases.items():
            _run(name, lambda function=function: function(setting))
        for name, request in setting.bad:
            _run(f"bad: {name}", lambda request=request: refused(setting, request))


def _run(name: str, call: Callable[[], Any]) -> None:
    start = time.monotonic()
    value, error = None, None
    try:
        value = call()
    except Exception as raised:  # noqa: BLE001 - whatever a client raises is what is asked for
        status = getattr(raised, "status_code", None) or getattr(raised, "status", None)
        error = {"type": type(raised).__name__, "status": status, "text": str(raised)}
    seconds = time.monotonic() - start
    line = {"case": name, "value": value, "error": error, "seconds": seconds}
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()

"""Calls of a folder elsewhere, in a process that has the package for it.

The calls come as JSON on standard input, each as [address, method, argument...]; what each raised
goes out as JSON, null or its type and text.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from flux_hotswap.errors import StoreError
from flux_hotswap.hosted_api.folder import Folder


def method(address: str, name: str) -> Any:
    """A method of the folder, which takes texts."""
    folder = Folder(address)
    methods: dict[str, Any] = {
        "put": lambda path, *rest: folder.put(Path(path), *rest),
        "remove": folder.remove,
        "remove_folder": folder.remove_folder,
    }
    return methods[name]


def raised(call: Any, *words: str) -> dict[str, str] | None:
    """What a call raised."""
    try:
        call(*words)
    except StoreError as error:
        return {"type": type(error).__name__, "text": str(error)}
    return None


if __name__ == "__main__":
    made = [raised(method(*call[:2]), *call[2:]) for call in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(made))

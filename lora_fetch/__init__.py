"""Any LoRA source to a checked file on disk: parse, resolve, download, verify, store.

Needs neither torch nor ComfyUI, and imports no other folder of the pack. It is used as
``python -m lora_fetch`` and as a part of the pack, so it imports itself relatively only.
Network connections are opened in `net` alone, and only for a source that the user named.

text -> `parse` -> `Source` -> `resolve` -> `Resolved` -> `Download` -> `header.read` -> `Store`
"""

from .errors import (
    BadFileError,
    CancelledError,
    FetchError,
    NoRoomError,
    NotAuthorisedError,
    NotFoundError,
    OfflineError,
    RefusedError,
    SettingsError,
    SourceError,
    StoreError,
)
from .fetch import Fetched, fetch
from .parser import parse
from .settings import Endpoints, Settings
from .store import Store

__all__ = [
    "BadFileError",
    "CancelledError",
    "Endpoints",
    "FetchError",
    "Fetched",
    "NoRoomError",
    "NotAuthorisedError",
    "NotFoundError",
    "OfflineError",
    "RefusedError",
    "Settings",
    "SettingsError",
    "SourceError",
    "Store",
    "StoreError",
    "fetch",
    "parse",
]

"""Pictures of inputs that lie here: those that clients sent, and those that were drawn."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from ..prediction.data_uri import DATA_LIMIT, is_data_uri
from .ask import PICTURES, refused
from .outputs import Outputs
from .uploads import Uploads

TOGETHER: Final = 72 * 2**20
"""Bytes of all pictures of a call: ComfyUI takes prompts of 100 MB, where they are in base64."""


class Sources:
    """Finds and checks them.

    Args:
        uploads: what clients sent.
        outputs: what was drawn.
        base: gives the public address of this server, without a slash at its end.
    """

    def __init__(self, uploads: Uploads, outputs: Outputs, base: Callable[[], str]) -> None:
        self._uploads = uploads
        self._outputs = outputs
        self._base = base

    def find(self, owner: str, text: str) -> Path | None:
        """Return where a picture lies that an input names by an address of ours; else None.

        Args:
            owner: whose input it is; files that others sent are none.
            text: the input.
        """
        return self._uploads.find(owner, text) or self._outputs.find(text)

    def check(self, request: Mapping[str, Any], owner: str) -> None:
        """Refuse what cannot be drawn from.

        Raises:
            CallError: a picture of ours is not there, or somebody else's, or too large.
        """
        total = 0
        for name in PICTURES:
            total += self._size(name, str(request.get(name) or ""), owner)
        if total > TOGETHER:
            limit = TOGETHER // 2**20
            raise refused([("mask", f"has more than {limit} MB together with image; shrink them")])

    def _size(self, name: str, text: str, owner: str) -> int:
        """Return the bytes of a picture that lies here, or is in the call; 0 for any other."""
        size = len(text) * 3 // 4 if is_data_uri(text) else 0
        if self.is_here(text):
            path = self.find(owner, text)
            try:
                size = -1 if path is None else path.stat().st_size
            except FileNotFoundError:  # its time has just ended
                size = -1
        if size < 0:
            raise refused([(name, "is not there any more, or not yours; send it to /v1/files")])
        if size > DATA_LIMIT:
            raise refused([(name, f"has more than {DATA_LIMIT // 2**20} MB; send a smaller one")])
        return size

    def is_here(self, text: str) -> bool:
        """Whether an input is an address of ours, with a picture there or not."""
        base = self._base()
        return text.startswith(("/v1/files/", f"{base}/v1/files/", f"{base}/v1/outputs/"))

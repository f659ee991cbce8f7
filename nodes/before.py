"""The input image of a request beside what became of it, for the editor to compare the two."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Final

import folder_paths

from ..ops.encode import encode_batch
from ..ops.picture import resize_picture

if TYPE_CHECKING:
    from .wire import Prediction

QUALITY: Final = 90
KEPT: Final = 64
START: Final = "flux-hotswap_before_"

log = logging.getLogger(__name__)


def keep_before(request: Prediction) -> dict[str, str] | None:
    """Write the input image of a request, sized as the model saw it, into ComfyUI's temp folder.

    The same image is written once, and only the last `KEPT` stay. ComfyUI empties the folder when
    it starts.

    Returns:
        The file as `/view` takes it; None without an image, or where the folder cannot be written,
        which stops no run.
    """
    if request.image is None:
        return None
    image = resize_picture(request.image, *request.plan.size)
    data = encode_batch(image, "jpg", QUALITY)[0].data
    name = f"{START}{hashlib.sha256(data).hexdigest()[:16]}.jpg"
    path = Path(folder_paths.get_temp_directory(), name)
    try:
        _write(path, data)
    except OSError as error:
        log.warning("The input image cannot be kept to compare with: %s", error)
        return None
    return {"filename": name, "subfolder": "", "type": "temp"}


def _write(path: Path, data: bytes) -> None:
    if path.is_file():
        os.utime(path)  # used last, so it goes last
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{uuid.uuid4().hex}.part")
    part.write_bytes(data)
    part.replace(path)
    kept = sorted(path.parent.glob(f"{START}*.jpg"), key=lambda each: each.stat().st_mtime)
    for old in kept[:-KEPT]:
        old.unlink(missing_ok=True)

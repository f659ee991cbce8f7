"""What a LoRA file on this machine is, for the lines in the graph editor; nothing is applied."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import BadFileError
from ..texts import one_line

if TYPE_CHECKING:
    from ..ops.lora.inspect import Inspection

_REMEMBERED: Final = 32
_LARGEST: Final = 8 * 2**30
"""Bytes of the largest file that is read, the store's own limit: a checkpoint is no LoRA."""
_LINE: Final = 500
_SHORT: Final = 80

ONE_AT_A_TIME: Final = ThreadPoolExecutor(1, thread_name_prefix="flux-hotswap-look")
"""Where `look` is run: two large files are never held at once, and nobody else's thread waits."""


def look(path: Path) -> Mapping[str, Any] | None:
    """Return what a file is and what of it fits FLUX.1; None if it is not there to be read.

    The answer is remembered until the file is another one.
    """
    try:
        state = path.stat()
        if state.st_size > _LARGEST:
            return None
        return _look(path, state.st_size, state.st_mtime_ns)
    except OSError:
        return None


@lru_cache(_REMEMBERED)
def _look(path: Path, size: int, mtime_ns: int) -> Mapping[str, Any]:  # noqa: ARG001 - its key
    # torch is not needed to start ComfyUI's server with the pack in it.
    from ..files import header
    from ..lora_fetch.fetch import phrase_of
    from ..ops.lora.inspect import inspect

    try:
        words = phrase_of(header.read(path))
        return {**_told(inspect(path)), "words": words}
    except BadFileError as error:
        return {"refused": one_line(str(error), _LINE), "words": []}


def _told(report: Inspection) -> dict[str, Any]:
    from ..ops.lora.fit import shown
    from ..ops.lora.inspect import counted
    from ..ops.lora.trainer import NOT_SAID

    fit = report.fit
    left = [*fit.unread, *fit.text, *fit.misfits]
    return {
        "kind": one_line(counted(report.kinds), _SHORT),
        "rank": one_line(counted(report.ranks), _SHORT),
        "alpha": one_line(counted(report.alphas), _SHORT),
        "trainer": "" if report.trainer == NOT_SAID else one_line(report.trainer, _SHORT),
        "family": one_line(fit.family.name, _SHORT),
        "keys": fit.keys,
        "matched": fit.matched,
        "left": one_line(shown(left), _LINE),
        "refused": None if report.refused is None else one_line(report.refused, _LINE),
    }

"""Checkpoints quantised once and kept on disk, in a form that ComfyUI's own loader opens too."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ..errors import NoRoomError, SettingsError, StoreError
from ..ops.checkpoint import kept as cache
from ..ops.checkpoint.layout import Target

if TYPE_CHECKING:
    from torch import Tensor

    from ..ops.checkpoint.convert import Made, Sink, Source

SIZE: Final = "FLUX_HOTSWAP_INT8_CACHE"
DEFAULT_SIZE: Final = 40 * 2**30
"""Bytes: dev and schnell with room for another checkpoint."""

RESERVE: Final = 2**30
"""This much of the disk stays free."""

log = logging.getLogger(__name__)

OnProgress = Callable[[int, int], None]


def cache_bytes(text: str | None) -> int:
    """Return how much the cache may take, from what the environment says.

    Raises:
        SettingsError: it is no size.
    """
    from ..files.settings import parse_size

    if not text or not text.strip():
        return DEFAULT_SIZE
    try:
        return parse_size(text)
    except ValueError:
        raise SettingsError(f"{SIZE} is {text!r}: write a size such as 500M or 20G.") from None


@dataclass(frozen=True)
class Job:
    """One checkpoint that is wanted in int8.

    Attributes:
        source: the checkpoint.
        targets: its tensors as ComfyUI runs them.
        head: the checkpoint's bytes before its data.
        modulation: whether the modulation layers go to int8 too.
        folder: of the cache.
        room: bytes that the cache may take; 0 keeps nothing.
        on_progress: (bytes read, bytes in all); what it raises ends the work.
    """

    source: Source
    targets: list[Target]
    head: bytes
    modulation: bool
    folder: Path
    room: int
    on_progress: OnProgress

    def file(self) -> Path | None:
        """Return the kept file, made now if it is not there; None where it cannot be kept.

        A folder that cannot be used costs the time to quantise again, and a warning.

        Raises:
            CheckpointError: the source cannot be quantised.
        """
        from ..files.lock import locked
        from .fetching import cancelled, cancelled_as_comfy_does

        if self.room == 0:
            return None
        path, key = self._place()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = locked(self.folder / ".lock", sleep=time.sleep, cancelled=cancelled)
            with cancelled_as_comfy_does(), lock:
                if not self._is_whole(path, key):
                    self._make(path, key)
                self._used(path)
                return path
        except (OSError, StoreError, NoRoomError) as error:
            if self._is_whole(path, key):
                return path  # a folder that can only be read
            log.warning(
                "%s will be quantised again when it is loaded next: the result cannot be kept in "
                "%s (%s)",
                *(self.source.path.name, self.folder, error),
            )
            return None

    def state(self) -> dict[str, Tensor]:
        """Return the quantised tensors, in memory.

        Raises:
            CheckpointError: the source cannot be quantised.
        """
        from ..ops.checkpoint.convert import MemorySink

        sink = MemorySink(self._plan())
        self._convert(sink)
        return sink.state

    @property
    def quantised(self) -> list[Target]:
        """The tensors that are int8 in the result."""
        from ..ops.checkpoint.convert import quantised

        return quantised(self.targets, modulation=self.modulation)

    def _place(self) -> tuple[Path, str]:
        key = cache.key_of(print_of(self.source, self.head), modulation=self.modulation)
        return cache.path_for(self.folder, self.source.path.name, key), key

    def _is_whole(self, path: Path, key: str) -> bool:
        record = cache.read_record(path)
        if record is None or record.key != key:
            return False
        if record.check and check_of(path) == record.check:
            return True
        log.warning("%s is damaged and is made again", path)
        return False

    def _make(self, path: Path, key: str) -> None:
        """Quantise into the cache; the file appears there whole or not at all."""
        from ..ops.checkpoint.convert import FileSink, quantisation_metadata

        for left in self.folder.glob("*.part"):
            left.unlink()  # of a process that was killed: the lock is ours
        cache.remove(path)
        made = self._plan()
        need = sum(tensor.size for tensor in made)
        if need > self.room:
            raise NoRoomError(
                f"it needs {need / 1e9:.1f} GB, {SIZE} allows {self.room / 1e9:.1f} GB"
            )
        cache.prune(self.folder, room=self.room - need, keep=path)
        free = shutil.disk_usage(self.folder).free
        if need + RESERVE > free:
            raise NoRoomError(f"it needs {need / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
        metadata = {
            "format": "pt",
            "_quantization_metadata": quantisation_metadata(self.quantised),
            "flux_hotswap": f"{self.source.path.name} in int8",
        }
        part = path.with_suffix(f".{os.getpid()}.part")
        try:
            with part.open("wb", buffering=0) as file:
                self._convert(FileSink(file, made, metadata))
                os.fsync(file.fileno())
            record = cache.Record(self.source.path.name, key, part.stat().st_size, check_of(part))
            part.replace(path)
            cache.write_record(path, record)
        finally:
            part.unlink(missing_ok=True)
        log.info("%s is quantised and kept in %s", self.source.path.name, path)

    def _used(self, path: Path) -> None:
        cache.touch(path)
        for gone in cache.prune(self.folder, room=self.room, keep=path):
            log.info("%s made room in the cache", gone)

    def _plan(self) -> list[Made]:
        from ..ops.checkpoint.convert import plan

        return plan(self.targets, modulation=self.modulation)

    def _convert(self, sink: Sink) -> None:
        import comfy.model_management

        from ..ops.checkpoint.convert import convert

        convert(
            self.source,
            self.targets,
            sink,
            modulation=self.modulation,
            device=comfy.model_management.get_torch_device(),
            on_progress=self.on_progress,
        )


def print_of(source: Source, head: bytes) -> str:
    """Return a fingerprint of a checkpoint.

    Args:
        source: the checkpoint.
        head: its bytes before its data.
    """
    base = source.base
    spans = [(base + entry.start, base + entry.end) for entry in source.tensors.values()]
    return cache.fingerprint(source.path, head, spans)


def check_of(path: Path) -> str:
    """Return a fingerprint of a cached file; empty if it is none."""
    from ..errors import BadFileError
    from ..files import header
    from ..ops.checkpoint.convert import Source

    try:
        read = header.read(path)
        return print_of(Source(path, read.tensors, read.base), read.head)
    except (BadFileError, OSError):
        return ""


def read_state(path: Path) -> dict[str, Any]:
    """Return the tensors of a safetensors file, mapped from the disk."""
    import comfy.utils

    state: Any = comfy.utils.load_torch_file(str(path), safe_load=True)
    return state

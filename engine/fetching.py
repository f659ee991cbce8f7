"""The fetcher inside ComfyUI: its settings, its progress bar, its cancel button.

The fetcher itself is imported when something is fetched, so that ComfyUI starts without it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from ..files.settings import Settings
    from ..lora_fetch.store import Store

LORAS: Final = "loras"
"""ComfyUI's folder for LoRAs."""

PICTURE_LIMIT: Final = 64 * 2**20
"""Largest input picture that a link may serve, in bytes."""


PICTURE_SECONDS: Final = 300.0
"""Longest that an input picture may take to come."""


def settings() -> Settings:
    """Return the rules that the environment and the private token file set.

    Raises:
        SettingsError: one of them cannot be used.
    """
    from ..files.settings import Settings
    from ..files.tokens import default_file

    return Settings.from_environment(os.environ, token_file=default_file())


def fetch_picture(url: str) -> bytes:
    """Return the picture behind a link, under the rules of LoRA links.

    Raises:
        FetchError: it cannot be had.
    """
    from ..files.plain import read_link

    with cancelled_as_comfy_does():
        return read_link(
            url,
            settings=settings(),
            max_bytes=PICTURE_LIMIT,
            seconds=PICTURE_SECONDS,
            cancelled=cancelled,
        )


def open_store() -> Store:
    """Return the store in ComfyUI's first loras folder.

    Raises:
        SettingsError: an environment variable or the token file cannot be used.
    """
    import folder_paths

    from ..lora_fetch.store import Store

    folders = [Path(folder) for folder in folder_paths.get_folder_paths(LORAS)]
    return Store(folders[0], settings(), folders=folders)


def cancelled() -> bool:
    """Tell whether the user pressed cancel."""
    import comfy.model_management

    return comfy.model_management.processing_interrupted()


@contextmanager
def cancelled_as_comfy_does() -> Generator[None, None, None]:
    """Raise ComfyUI's own interrupt where the fetcher was cancelled."""
    import comfy.model_management

    from ..errors import CancelledError

    try:
        yield
    except CancelledError:
        comfy.model_management.throw_exception_if_processing_interrupted()
        raise


def progress_bar() -> Callable[[int, int | None], None]:
    """Return a callback that moves the node's progress bar."""
    import comfy.utils

    bar = comfy.utils.ProgressBar(1)

    def tell(done: int, total: int | None) -> None:
        bar.update_absolute(done, total or done + 1)

    return tell

"""The files of the hosted safety checker: where they lie, which are missing, and how they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..ops.safety.weights import FILES, FOLDER, locate_or_fetch
from .fetching import settings

if TYPE_CHECKING:
    from ..ops.safety.weights import WeightFile

NAMES: Final = tuple(FILES)


def folders() -> list[Path]:
    """Return where the files may lie; asked at run time, when all extra paths are known."""
    import folder_paths

    if FOLDER not in folder_paths.folder_names_and_paths:
        folder_paths.add_model_folder_path(FOLDER, str(Path(folder_paths.models_dir) / FOLDER))
    return [Path(folder) for folder in folder_paths.get_folder_paths(FOLDER)]


def missing_weights() -> list[str]:
    """Return the files that are in none of the folders."""
    places = folders()
    return [
        name
        for name, file in FILES.items()
        if not any((folder / file.name).is_file() for folder in places)
    ]


def weight_file(
    name: str, progress: Callable[[int, int | None], None], cancelled: Callable[[], bool]
) -> Path:
    """Return a file, fetched unless it is there.

    Raises:
        WeightsError: it cannot be had, or is not the right one.
        CancelledError: `cancelled` said so.
    """

    def fetch(file: WeightFile, target: Path) -> None:
        from ..errors import CancelledError, FetchError
        from ..files.plain import fetch_file

        try:
            rules = settings()
            fetch_file(
                file.url_at(rules.endpoints.hub),
                target,
                size=file.size,
                sha256=file.sha256,
                settings=rules,
                progress=progress,
                cancelled=cancelled,
            )
        except CancelledError:
            raise
        except FetchError as error:
            raise OSError(str(error)) from error

    return locate_or_fetch(name, folders(), fetch)

"""The user's tokens: where they come from, and the one place each of them may go.

A token is read from the environment or from a private file, never from a workflow. It is bound to
the origin (scheme, host and port) of the service it belongs to, so no redirect can carry it away.
Nothing here shows a token: not its ``repr``, not an error.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..errors import SettingsError
from .addresses import origin

__all__ = ["CIVITAI", "HUB", "REPLICATE", "Tokens", "default_file", "hub_login", "load"]

FILE_VARIABLE = "FLUX_HOTSWAP_TOKENS"
HUB = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")
CIVITAI = ("CIVITAI_API_TOKEN",)
REPLICATE = ("REPLICATE_API_TOKEN",)

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_SHAPE = re.compile(r"[\x21-\x7e]+")


def default_file() -> Path | None:
    """Where tokens are looked for when ``FLUX_HOTSWAP_TOKENS`` is not set.

    None for a user without a home folder, as in a container.
    """
    try:
        return Path.home() / ".config" / "flux-hotswap" / "tokens"
    except RuntimeError:
        return None


@dataclass(frozen=True)
class Tokens:
    """Tokens by the origin they belong to."""

    by_origin: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)

    def for_url(self, url: str) -> str | None:
        """The token that may be shown to this address, if any."""
        return self.by_origin.get(origin(url))

    def scrub(self, text: str) -> str:
        """Blank every token in a text that came from outside."""
        for secret in self.by_origin.values():
            text = text.replace(secret, "***")
        return text


def load(
    environ: Mapping[str, str],
    *,
    hub: str,
    civitai: str,
    replicate_api: str,
    default_file: Path | None = None,
    login: Callable[[], str | None] = lambda: None,
) -> Tokens:
    """Collect the tokens: the environment first, then the private file, then the hub's own login.

    Args:
        environ: The environment.
        hub: Address of the Hugging Face hub, the only place its token goes.
        civitai: Address of CivitAI, likewise.
        replicate_api: Address of Replicate's API, likewise.
        default_file: The file to read when ``FLUX_HOTSWAP_TOKENS`` names none; it may be missing.
        login: Gives the token that the user saved with the hub's own tool, if any.

    Raises:
        SettingsError: the file cannot be trusted or read, or a token cannot be one.
    """
    named = environ.get(FILE_VARIABLE, "").strip()
    path = expanded(named, FILE_VARIABLE) if named else default_file
    saved = _read(path, must_exist=bool(named)) if path is not None else {}
    found: dict[str, str] = {}
    for names, url in ((HUB, hub), (CIVITAI, civitai), (REPLICATE, replicate_api)):
        token = _first(names, environ) or _first(names, saved)
        if not token and names is HUB:
            token = (login() or "").strip()
        if token:
            if _SHAPE.fullmatch(token) is None:
                raise SettingsError(
                    f"{names[0]} is not a token: it holds spaces or odd signs. Copy it again, or "
                    "remove it."
                )
            found[origin(url)] = token
    return Tokens(found)


def hub_login() -> str | None:
    """The token that ``hf auth login`` saved, read by the hub's own library."""
    from huggingface_hub import get_token

    return get_token()


def _first(names: tuple[str, ...], values: Mapping[str, str]) -> str:
    return next((text for name in names if (text := values.get(name, "").strip())), "")


def expanded(named: str, variable: str) -> Path:
    """Return the path that a variable names, with the user's home folder for `~`.

    Raises:
        SettingsError: this user has none.
    """
    try:
        return Path(named).expanduser()
    except RuntimeError:
        raise SettingsError(
            f"{named}, which {variable} names, starts with ~, and there is no such home folder. "
            "Write the whole path."
        ) from None


def _read(path: Path, *, must_exist: bool) -> dict[str, str]:
    """Read NAME=value lines from a file that only its owner can read."""
    try:
        with path.open(encoding="utf-8") as file:
            mode = os.fstat(file.fileno()).st_mode
            if os.name == "posix" and stat.S_IMODE(mode) & 0o077:
                raise SettingsError(
                    f"{path} holds tokens and other users can read it. Run: chmod 600 {path}"
                )
            lines = file.read().splitlines()
    except FileNotFoundError:
        if must_exist:
            raise SettingsError(
                f"{path}, which {FILE_VARIABLE} names, is missing. Make it, or unset the variable."
            ) from None
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(
            f"{path} cannot be read as a file of tokens ({type(error).__name__}). Check its "
            "permissions, and that it is plain text."
        ) from None
    return dict(_pair(path, number, line) for number, line in enumerate(lines, 1) if _holds(line))


def _holds(line: str) -> bool:
    line = line.strip()
    return bool(line) and not line.startswith("#")


def _pair(path: Path, number: int, line: str) -> tuple[str, str]:
    match = _LINE.fullmatch(line.strip())
    if match is None:
        raise SettingsError(f"{path}, line {number}: write NAME=value there, as in HF_TOKEN=hf_...")
    return match[1], match[2].strip().strip("\"'")

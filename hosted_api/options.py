"""What the one who runs the API decides: frozen, read from the command line and a few files."""

from __future__ import annotations

import argparse
import fnmatch
import hashlib
import ipaddress
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from ..errors import RequestError, SettingsError
from ..files.settings import parse_size
from ..prediction.request import parse_request
from .job import URGENCY

_LEVEL: Final = re.compile(r"u=([0-7])", re.ASCII)

LOOPBACK: Final = "127.0.0.1"
WILDCARDS: Final = ("0.0.0.0", "::")  # noqa: S104 - compared with, not listened on
PORT: Final = 5000
"""Cog's."""

LOCAL: Final = "local"
RAY: Final = "ray"

UNNAMED: Final = "flux-hotswap/flux"
"""The model of a call that names none: a bare version, or one to a Cog container."""

KNOWN: Final[Mapping[str, Mapping[str, Any]]] = {
    UNNAMED: {},
    "black-forest-labs/flux-dev": {},
    "black-forest-labs/flux-dev-lora": {},
    "black-forest-labs/flux-schnell": {"model": "schnell", "num_inference_steps": 4},
    "black-forest-labs/flux-schnell-lora": {"model": "schnell", "num_inference_steps": 4},
}
"""Names that mean a model without a LoRA, with the fields that they stand for."""

_RAYS: Final = frozenset({"ray_address", "replicas", "idle"})
"""Options that say nothing to workers that are started here."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the API runs. Times are in seconds, sizes in bytes.

    Attributes:
        host: address to listen on.
        port: 0 for any free one.
        public: how clients reach it, without a slash at the end; empty for where it listens.
        state: folder of the database, the pictures and the secret.
        comfyui: addresses of ComfyUIs that run already.
        start: folders of ComfyUIs to start, each once for each time it is named.
        python: what runs those.
        arguments: further arguments for their main.py.
        workers: "local" or "ray".
        ray_address: of the cluster that `--workers ray` joins; empty to start one here.
        replicas: so many ComfyUIs in it, such as 2 or 0-8; empty for one on each GPU.
        idle: after so long without work a replica above the least ends.
        workflow: the API prompt that requests are filled into; None for the shipped ones.
        tokens: bearer tokens that are taken, each with its usual and most urgent level, 0 to 7;
            none: everybody is taken, and may ask for any.
        names: owner/name, owner/name:version or a bare version to the fields that it stands for.
            Most calls say the version alone, so the model of a version is found here.
        allow: patterns of LoRA sources that are fetched; all but files of this machine need one.
        outputs: "data", "link" or the address of a folder that fsspec knows (s3://...).
        outputs_public: where that folder can be read, for the addresses in answers.
        queue: so many jobs may wait.
        body: longest body of a call.
        upload: largest file, and `uploads` all files of clients together.
        keep: after so long the data of an ended job goes, and `keep_rows` the job itself.
        keep_uploads: after so long a client's file goes.
        deadline: so long a job may take, waiting included, if it does not say so itself.
        stall: after so long without a sign of life a ComfyUI is given up.
        attempts: so often a job is begun.
        log: "text" or "json".
    """

    host: str = LOOPBACK
    port: int = PORT
    public: str = ""
    state: Path = Path("hosted_api_state")
    comfyui: tuple[str, ...] = ()
    start: tuple[Path, ...] = ()
    python: Path | None = None
    arguments: tuple[str, ...] = ()
    workers: str = LOCAL
    ray_address: str = ""
    replicas: str = ""
    idle: float = 300.0
    workflow: Path | None = None
    tokens: Mapping[str, int] = field(default_factory=dict[str, int], repr=False)
    names: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    allow: tuple[str, ...] = ()
    outputs: str = ""
    outputs_public: str = ""
    queue: int = 200
    body: int = 100 * 2**20
    upload: int = 100 * 2**20
    uploads: int = 4 * 2**30
    keep: float = 3600.0
    keep_rows: float = 7 * 24 * 3600.0
    keep_uploads: float = 24 * 3600.0
    deadline: float = 1800.0
    stall: float = 900.0
    attempts: int = 5
    log: str = "text"

    def __post_init__(self) -> None:
        if not self.tokens and not is_loopback(self.host):
            raise SettingsError(
                f"--host {self.host} lets others in, so tokens are needed: write one on each line "
                "of a private file and name it with --tokens."
            )

    def permits(self, source: str) -> bool:
        """Whether a LoRA source may be fetched.

        Args:
            source: in its one spelling, such as `replicate:owner/name`, or with a file of this
                machine its name after `local:`.
        """
        if source.startswith("local:"):
            return True
        plain = source.removeprefix("replicate:")
        return any(
            fnmatch.fnmatchcase(text, pattern)
            for pattern in self.allow
            for text in (source, plain, plain.partition(":")[0])
        )

    def model_of(self, version: str) -> str:
        """Return the model of a name that a version belongs to; empty where none says."""
        ends = f":{version}"
        pinned = [name.removesuffix(ends) for name in self.names if name.endswith(ends)]
        ours = [name for name in (*self.names, *KNOWN) if own_version(name) == version]
        return (*pinned, *ours, "")[0]

    def named(self, model: str, version: str) -> Mapping[str, Any] | None:
        """Return the fields that a name stands for; None where it is not mapped."""
        whole = f"{model}:{version}" if model and version else model or version
        for name in (whole, version, model):
            if name and (found := self.names.get(name, KNOWN.get(name))) is not None:
                return found
        return None


def own_version(model: str) -> str:
    """Return the version that we give a model of which we know no other."""
    return hashlib.sha256(f"flux-hotswap/{model}".encode()).hexdigest()


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is reached from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def parser() -> argparse.ArgumentParser:
    """Return the reader of the command line; unset options are not in what it reads."""
    made = argparse.ArgumentParser(
        prog="python -m hosted_api",
        description="Serve the hosted model's HTTP API from your own ComfyUI.",
        argument_default=argparse.SUPPRESS,
    )
    add = made.add_argument
    where = made.add_argument_group("where")
    where.add_argument("--host", help=f"address to listen on (default: {LOOPBACK})")
    where.add_argument("--port", type=int, help=f"0 for any free one (default: {PORT})")
    where.add_argument("--public", metavar="URL", help="how clients reach it, behind a proxy")
    where.add_argument("--state", type=Path, metavar="FOLDER", help="database, pictures, secret")
    drawn = made.add_argument_group("what draws")
    drawn.add_argument(
        "--comfyui", action="append", metavar="URL", help="a ComfyUI that runs; several allowed"
    )
    drawn.add_argument(
        "--start",
        action="append",
        type=Path,
        metavar="FOLDER",
        help="a ComfyUI to start; several allowed",
    )
    drawn.add_argument("--python", type=Path, metavar="FILE", help="what runs it")
    drawn.add_argument(
        "--arguments", metavar="TEXT", help="further arguments for its main.py, in one text"
    )
    drawn.add_argument(
        "--workflow", type=Path, metavar="FILE", help="an API prompt of your own to draw with"
    )
    many = made.add_argument_group("many GPUs")
    many.add_argument("--workers", choices=(LOCAL, RAY), help="who starts it (default: local)")
    many.add_argument("--ray-address", metavar="ADDRESS", help="a Ray cluster that runs already")
    many.add_argument("--replicas", metavar="N", help="so many, or a range such as 0-8")
    many.add_argument(
        "--idle", type=float, metavar="SECONDS", help="end idle ones of a range (default: 300)"
    )
    who = made.add_argument_group("who may")
    who.add_argument("--tokens", type=Path, metavar="FILE", help="bearer tokens, one on each line")
    who.add_argument("--names", type=Path, metavar="FILE", help="JSON: model names to fields")
    who.add_argument(
        "--model", action="append", metavar="NAME",
        help="owner/name:version to serve by its version alone; several allowed",
    )  # fmt: skip
    who.add_argument(
        "--allow", action="append", metavar="PATTERN", help="LoRAs that may be fetched: owner/*"
    )
    add("--outputs", metavar="HOW", help="data, link, or a folder such as s3://bucket/path")
    add("--outputs-public", metavar="URL", help="where that folder can be read")
    add("--queue", type=int, help="so many jobs may wait (default: 200)")
    add("--keep", type=float, metavar="SECONDS", help="keep data so long (default: 3600)")
    add("--deadline", type=float, metavar="SECONDS", help="end jobs after (default: 1800)")
    add("--stall", type=float, metavar="SECONDS", help="give a silent ComfyUI up (default: 900)")
    add("--upload", metavar="SIZE", help="largest file of a client (default: 100M)")
    add("--log", choices=("text", "json"), help="how the log is written (default: text)")
    return made


def read_options(argv: Sequence[str]) -> Options:
    """Return the options of a command line.

    Raises:
        SettingsError: one of them cannot be used; the message names it.
    """
    given: dict[str, Any] = vars(parser().parse_args(argv))
    if "tokens" in given:
        given["tokens"] = _tokens(given["tokens"])
    names = read_names(given["names"]) if "names" in given else {}
    given["names"] = {name: {"lora": name} for name in given.pop("model", ())} | names
    if "arguments" in given:
        given["arguments"] = tuple(words_of("--arguments", given["arguments"]))
    if "upload" in given:
        given["upload"] = _size("--upload", given["upload"])
    for name in ("comfyui", "start", "allow"):
        if name in given:
            given[name] = tuple(given[name])
    for name in ("public", "outputs_public"):
        if name in given:
            given[name] = _address(f"--{name.replace('_', '-')}", given[name])
    for place in given.get("start", ()) if "ray_address" not in given else ():
        _check_comfyui(place)
    given["comfyui"] = tuple(_address("--comfyui", url) for url in given.get("comfyui", ()))
    host = str(given.get("host", LOOPBACK))
    # Who is alone on the machine decides by calling; whoever lets others in has to say what they
    # may have fetched.
    given.setdefault("allow", ("*",) if is_loopback(host) and not given.get("tokens") else ())
    if given.get("workers", LOCAL) == LOCAL and (alone := sorted(_RAYS & given.keys())):
        raise SettingsError(
            f"--{alone[0].replace('_', '-')} is for a cluster of Ray: add --workers ray, or leave "
            "it out."
        )
    return Options(**given)


def _check_comfyui(place: Path) -> None:
    if not place.is_file() and not (place / "main.py").is_file():
        raise SettingsError(
            f"--start {place}: no ComfyUI lies there, since {place.resolve()} has no main.py. Give "
            "ComfyUI's folder."
        )


def words_of(what: str, text: str) -> list[str]:
    """Return the words of a text. Quotes hold one together; a backslash is a part of a path.

    Args:
        what: the text is, for the error.
        text: such as `--base-directory "D:/my files"`.

    Raises:
        SettingsError: a quote has no end.
    """
    lexer = shlex.shlex(text, posix=True)
    lexer.whitespace_split = True
    lexer.escape = lexer.commenters = ""
    try:
        return list(lexer)
    except ValueError:
        raise SettingsError(f"{what}: a quote has no end in {text!r:.200}: write it.") from None


def read_names(path: Path) -> dict[str, Mapping[str, Any]]:
    """Return what a file of names says.

    Raises:
        SettingsError: it cannot be read, or is no object of objects.
    """
    try:
        read: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SettingsError(f"--names {path} cannot be read: {error}. Give a JSON file.") from None
    names = cast("dict[str, object]", read) if isinstance(read, dict) else {}
    if not isinstance(read, dict) or not all(isinstance(each, dict) for each in names.values()):
        raise SettingsError(
            f'--names {path} is no object of objects. Write {{"owner/name": {{"lora": "..."}}}}.'
        )
    found = cast("dict[str, Mapping[str, Any]]", names)
    for name, fields in found.items():
        _check_fields(f"--names {path}, {name}", fields)
    return found


def _check_fields(where: str, fields: Mapping[str, Any]) -> None:
    try:
        parse_request({"prompt": "", **fields})
    except RequestError as error:
        raise SettingsError(f"{where}: {error}") from None


def _tokens(path: Path) -> dict[str, int]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise SettingsError(f"--tokens {path} cannot be read: {error}") from None
    tokens: dict[str, int] = {}
    for number, line in enumerate(lines, 1):
        token, *rest = line.split() or [""]
        if not token or line.startswith("#"):
            continue
        level = _LEVEL.fullmatch("".join(rest) or f"u={URGENCY}")
        if len(token) < 16 or not token.isascii():
            raise SettingsError(f"--tokens {path}: give tokens of 16 or more plain characters.")
        if len(rest) > 1 or level is None:
            raise SettingsError(
                f"--tokens {path}, line {number}: write nothing behind a token, or u= with 0 to 7. "
                "Tokens have no spaces."
            )
        tokens[token] = int(level[1])
    if not tokens:
        raise SettingsError(f"--tokens {path} holds no token. Write one on each line.")
    return tokens


def _size(name: str, text: str) -> int:
    try:
        return parse_size(text)
    except ValueError:
        raise SettingsError(f"{name} is {text!r}: write a size such as 500M or 20G.") from None


def _address(name: str, text: str) -> str:
    if not text.startswith(("http://", "https://")):
        raise SettingsError(f"{name} is {text!r}: write an address such as http://127.0.0.1:8188.")
    return text.rstrip("/")

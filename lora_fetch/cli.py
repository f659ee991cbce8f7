"""Fetch LoRAs from the command line, and look after the folder they live in.

python -m lora_fetch SOURCE...      fetch, with a progress bar
python -m lora_fetch list           what is there
python -m lora_fetch inspect SOURCE what a file is, and what of it fits FLUX.1
python -m lora_fetch path SOURCE    where a fetched source is, without any network
python -m lora_fetch verify         read every file again and compare its hash
python -m lora_fetch prune          remove the least recently used
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from ..errors import FetchError, SettingsError
from ..files.settings import Settings, parse_size
from ..files.tokens import default_file, expanded
from .fetch import fetch
from .parser import parse
from .pasted import displayed
from .services.local import LocalFile
from .store import Store

BAR_WIDTH = 24
DAY = 24 * 3600.0


class Report(Protocol):
    """What is known of a file."""

    @property
    def refused(self) -> str | None:
        """Why it cannot be used; None if it can."""

    def lines(self) -> list[str]:
        """The report in lines."""
        ...

    def table(self) -> dict[str, Any]:
        """The same for programs."""
        ...


Look = Callable[[Path], Report]


def main(argv: Sequence[str], environ: Mapping[str, str], look: Look) -> int:
    """Run one command.

    Args:
        argv: The arguments after the program's name.
        environ: The environment.
        look: Says what a file is.

    Returns:
        The exit status: 0 if all went well, 1 if something failed, 130 if interrupted.
    """
    command, rest = (argv[0], argv[1:]) if argv and argv[0] in _COMMANDS else ("fetch", argv)
    run, arguments = _COMMANDS[command], _parser(command).parse_args(rest)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        settings = Settings.from_environment(environ, token_file=default_file())
        arguments.look = look
        return run(_store(arguments, environ, settings), arguments)
    except FetchError as error:
        _complain(str(error))
        return 1
    except KeyboardInterrupt:
        _complain("Stopped. What has arrived is kept; the same command goes on from there.")
        return 130


def _parser(command: str) -> argparse.ArgumentParser:
    program = "python -m lora_fetch" + ("" if command == "fetch" else f" {command}")
    parser = argparse.ArgumentParser(
        prog=program,
        description=__doc__ if command == "fetch" else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--dir",
        type=Path,
        help="the loras folder; else FLUX_HOTSWAP_LORAS, or COMFYUI_DIR/models/loras",
    )
    if command == "fetch":
        parser.add_argument("source", nargs="+", help="owner/name, hf:owner/name, a link ...")
        parser.add_argument("--quiet", action="store_true", help="no progress bar")
        parser.add_argument("--pin", action="store_true", help="never evict these")
    elif command == "path":
        parser.add_argument("source")
    elif command == "inspect":
        parser.add_argument("source", help="fetched first if it is not here")
        parser.add_argument("--json", action="store_true", help="for programs")
        parser.add_argument("--quiet", action="store_true", help="no progress bar")
    elif command == "list":
        parser.add_argument("--json", action="store_true", help="for programs")
    elif command == "prune":
        parser.add_argument("--max-size", type=parse_size, help="keep this much, such as 20G")
        parser.add_argument("--older-than", type=float, metavar="DAYS", help="unused for so long")
    return parser


def _store(arguments: argparse.Namespace, environ: Mapping[str, str], settings: Settings) -> Store:
    named: Path | None = arguments.dir
    for variable, below in (("FLUX_HOTSWAP_LORAS", ""), ("COMFYUI_DIR", "models/loras")):
        if named is None and (folder := environ.get(variable)):
            named = expanded(folder, variable) / below
    if named is None:
        raise SettingsError(
            "Which loras folder? Give --dir, or set FLUX_HOTSWAP_LORAS or COMFYUI_DIR."
        )
    return Store(named, settings)


def _fetch(store: Store, arguments: argparse.Namespace) -> int:
    failed = 0
    for text in arguments.source:
        bar = _Bar(text, quiet=arguments.quiet or not sys.stderr.isatty())
        try:
            found = fetch(text, store=store, settings=store.settings, progress=bar.show)
        except FetchError as error:
            bar.clear()
            _complain(str(error))
            failed += 1
            continue
        bar.clear()
        if arguments.pin:
            store.update(parse(text), pinned=True)
        for warning in found.warnings:
            _complain(f"Warning: {warning}")
        _say(str(found.path))
        if found.trigger_words:
            _complain(f"Trigger words: {', '.join(found.trigger_words)}")
    return 1 if failed else 0


def _inspect(store: Store, arguments: argparse.Namespace) -> int:
    text: str = arguments.source
    bar = _Bar(text, quiet=arguments.quiet or not sys.stderr.isatty())
    try:
        found = fetch(text, store=store, settings=store.settings, progress=bar.show)
    finally:
        bar.clear()
    for warning in found.warnings:
        _complain(f"Warning: {warning}")
    look: Look = arguments.look
    report, words = look(found.path), list(found.trigger_words)
    about = {"source": found.source, "file": str(found.path), "sha256": found.sha256}
    if arguments.json:
        whole = {**about, "size": found.size, **report.table(), "trigger_words": words}
        _say(json.dumps(whole, indent=1))
    else:
        told = [f"{name}: {value}" for name, value in about.items()]
        told += [f"size: {_size(found.size)}", *report.lines()]
        told += [f"trigger words: {', '.join(words)}"] if words else []
        _say("\n".join(told))
    return 0 if report.refused is None else 1


def _list(store: Store, arguments: argparse.Namespace) -> int:
    entries = sorted(store.entries().values(), key=lambda entry: -entry.used)
    if arguments.json:
        _say(json.dumps([{**asdict(e), "path": str(store.path(e))} for e in entries], indent=1))
        return 0
    for entry in entries:
        used = time.strftime("%Y-%m-%d", time.localtime(entry.used))
        pin = "pinned" if entry.pinned else ""
        _say(f"{_size(entry.size):>9}  {used}  {pin:6}  {entry.source}  ->  {entry.file}")
    _say(f"{_size(store.size()):>9}  in {len(entries)} entries, {store.root}")
    return 0


def _path(store: Store, arguments: argparse.Namespace) -> int:
    source = parse(arguments.source)
    if isinstance(source, LocalFile):
        _say(str(store.local(source)))
        return 0
    entry = store.find(source)
    if entry is None:
        _complain(f"{source.shown()} has not been fetched.")
        return 1
    _say(str(store.path(entry)))
    return 0


def _verify(store: Store, _: argparse.Namespace) -> int:
    wrong = 0
    for entry in store.entries().values():
        state = store.check(entry, thorough=True)
        wrong += state != "ok"
        _say(f"{state:8} {entry.file}  {entry.source}")
    if wrong:
        _complain(f"{wrong} not as they should be; they are fetched again when next used.")
    return 1 if wrong else 0


def _prune(store: Store, arguments: argparse.Namespace) -> int:
    keep = store.settings.cache_bytes if arguments.max_size is None else arguments.max_size
    days = arguments.older_than
    since = None if days is None else store.settings.clock() - days * DAY
    before = store.size()
    for name in store.prune(keep_bytes=keep, unused_since=since):
        _say(f"removed {name}")
    _say(f"{_size(before - store.size())} freed, {_size(store.size())} left.")
    return 0


class _Bar:
    """One line on the terminal that shows how far a fetch is."""

    def __init__(self, text: str, *, quiet: bool) -> None:
        self._label = displayed(text.strip())[:40]
        self._quiet = quiet
        self._began: tuple[float, int] | None = None

    def show(self, done: int, total: int | None) -> None:
        """Draw the line again."""
        if self._quiet:
            return
        began, first = self._began = self._began or (time.monotonic(), done)
        seconds = time.monotonic() - began
        rate = (done - first) / seconds if seconds > 0 else 0.0
        line = f"{self._label}  {_size(done)}"
        if total:
            full = min(BAR_WIDTH, BAR_WIDTH * done // total)
            line = (
                f"{self._label} [{'#' * full}{'.' * (BAR_WIDTH - full)}] {100 * done // total:3}%  "
                f"{_size(done)} of {_size(total)}"
            )
            if rate:
                left = int((total - done) / rate)
                line += f"  {left // 60}:{left % 60:02} left"
        sys.stderr.write(f"\r{line}  {_size(int(rate))}/s \x1b[K")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave no line behind."""
        if self._began is not None:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _size(count: int) -> str:
    size, units = float(count), ["B", "KB", "MB", "GB"]
    while size >= 1000 and len(units) > 1:
        size /= 1000
        units.pop(0)
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")


_COMMANDS: Mapping[str, Callable[[Store, argparse.Namespace], int]] = {
    "fetch": _fetch,
    "inspect": _inspect,
    "list": _list,
    "path": _path,
    "verify": _verify,
    "prune": _prune,
}

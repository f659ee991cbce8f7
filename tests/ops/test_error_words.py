"""Each kind of error as the code raises it: what is wrong with which thing, and what to do."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

from flux_hotswap.engine.checkpoint import look_at
from flux_hotswap.errors import (
    BadFileError,
    CancelledError,
    CheckpointError,
    HotswapError,
    ImageError,
    InputError,
    LoraError,
    NoRoomError,
    NotFluxError,
    NotFoundError,
    OfflineError,
    RefusedError,
    RequestError,
    SafetyError,
    SaveError,
    SettingsError,
    SourceError,
    StoreError,
    UnsafeError,
    WeightsError,
)
from flux_hotswap.files import header
from flux_hotswap.files.addresses import AllowList, check
from flux_hotswap.files.lock import try_lock
from flux_hotswap.files.pump import cancel_check
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.store import Store
from flux_hotswap.ops.checkpoint.layout import targets
from flux_hotswap.ops.hosted.merge import Part
from flux_hotswap.ops.naming import clean_prefix
from flux_hotswap.ops.picture_file import upright_size
from flux_hotswap.ops.safety.decide import Verdict, act
from flux_hotswap.ops.safety.weights import locate_or_fetch
from flux_hotswap.prediction.fill import fill_prompt
from flux_hotswap.prediction.request import parse_request

PICTURES = torch.zeros(1, 8, 8, 3)
UNSAFE = [Verdict(unsafe=True, reason="a test")]
NOON = datetime(2026, 1, 1, 12, tzinfo=timezone.utc)


def nobody(host: str, port: int) -> list[str]:
    raise socket.gaierror(socket.EAI_NONAME, "no such name")


def a_text(folder: Path) -> Path:
    path = folder / "lora.safetensors"
    path.write_text("<!DOCTYPE html><html>log in first</html>")
    return path


def store(folder: Path, **rules: Any) -> Store:
    (folder / "loras").mkdir()
    return Store(folder / "loras", replace(Settings(), **rules))


def locked(folder: Path) -> None:
    (folder / "file").write_text("")
    with try_lock(folder / "file" / "x.lock"):
        pass


Row = tuple[type[HotswapError], Callable[[Path], Any], str, str | None]
"""No remedy where whoever knows the file adds it; the tests of those hold it."""

ROWS: list[Row] = [
    (RequestError, lambda _: parse_request({"prompt": "a", "seed": "x"}), "seed: 'x'", "; "),
    (ImageError, lambda _: upright_size(b"<html>", "mask"), "mask: not a picture", "give a PNG"),
    (CheckpointError, lambda path: look_at(a_text(path)), "lora.safetensors", "Check|download"),
    (NotFluxError, lambda _: targets({"a.weight": (1, 1)}), "another model", None),
    (
        LoraError,
        lambda _: Part(torch.ones(4, 2), torch.ones(2, 4)).fit(8, 8),
        "fit",
        "use one made",
    ),
    (InputError, lambda _: fill_prompt({}, {"prompt": "a"}), "has 0 Flux", "give one that has"),
    (SaveError, lambda _: clean_prefix("../x", NOON), "filename_prefix '../x'", "Remove it"),
    (SafetyError, lambda _: act(PICTURES, [], "burn"), "burn", "choose one of drop"),  # type: ignore[arg-type]
    (WeightsError, lambda path: locate_or_fetch("compvis", [path], None), "is missing", "Download"),
    (SourceError, lambda _: parse("ftp://a/b.safetensors"), "ftp://a/b.safetensors", "Accepted"),
    (
        NotFoundError,
        lambda path: store(path).local(parse("a.safetensors")),  # type: ignore[arg-type]
        "a.safetensors: there is no such file",
        "Write hf:owner/name",
    ),
    (
        RefusedError,
        lambda _: check("http://a.example/x", allow=AllowList(), resolver=nobody),
        "http://a.example is not fetched",
        "Use the https address",
    ),
    (
        OfflineError,
        lambda _: check("https://a.example/x", allow=AllowList(), resolver=nobody),
        "a.example cannot be found",
        "Check the spelling",
    ),
    (BadFileError, lambda path: header.read(a_text(path)), "a web page", None),
    (
        NoRoomError,
        lambda path: store(path, free_space=lambda _: 5).make_room(10**9),
        "1000000000 bytes are needed, 5 are free",
        "Free some space",
    ),
    (StoreError, locked, "x.lock cannot be locked", "Check the folder's permissions"),
    (SettingsError, lambda _: AllowList.parse("http://"), "FLUX_HOTSWAP_ALLOW_HOSTS", "Write a"),
    (CancelledError, lambda _: cancel_check(lambda: True), "ancel", "kept for the next try"),
    (UnsafeError, lambda _: act(PICTURES, UNSAFE, "drop"), "left out", "Change the prompt"),
]


@pytest.mark.parametrize(
    ("kind", "provoke", "problem", "remedy"), ROWS, ids=[row[0].__name__ for row in ROWS]
)
def test_it_says_what_is_wrong_and_what_to_do(
    tmp_path: Path, kind: type[HotswapError], provoke: Any, problem: str, remedy: str | None
) -> None:
    with pytest.raises(HotswapError, match=problem) as raised:
        provoke(tmp_path)
    assert type(raised.value) is kind
    if remedy is not None:
        assert any(words and words in str(raised.value) for words in remedy.split("|"))

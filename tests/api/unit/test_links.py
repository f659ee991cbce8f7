"""Signed addresses, and the secrets that are made once."""

from __future__ import annotations

import base64
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from flux_hotswap.errors import StoreError
from flux_hotswap.hosted_api.links import SECRETS, Links, load_secrets

ROOT = Path(__file__).resolve().parents[3]
PATH = "/v1/outputs/abc/1-0.png"


class Clock:
    now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def asked(address: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(address)
    return parts.path, dict(parse_qsl(parts.query))


def test_a_link_opens_its_path_until_it_expires() -> None:
    clock = Clock()
    links = Links(b"secret", clock)
    path, query = asked(links.sign(PATH, 60))
    assert path == PATH
    assert links.check(path, query)
    clock.now += 59
    assert links.check(path, query)
    clock.now += 1
    assert not links.check(path, query)


def test_a_link_opens_nothing_else() -> None:
    links = Links(b"secret", Clock())
    path, query = asked(links.sign(PATH, 60))
    later = str(int(query["expires"]) + 1)
    signature = query["signature"]
    other = "B" if signature[0] == "A" else "A"
    for changed in (
        {**query, "expires": later},
        {**query, "signature": other + signature[1:]},
        {**query, "signature": signature[:-1]},
        {**query, "signature": "\u00e9"},
        {**query, "expires": ""},
        {"expires": query["expires"]},
        {},
    ):
        assert not links.check(path, changed), changed
    assert not links.check(path + "x", query)
    assert not Links(b"other", Clock()).check(path, query)


def test_a_link_until_a_moment_stays_the_same() -> None:
    clock = Clock()
    links = Links(b"secret", clock)
    first = links.until(PATH, clock.now + 100.5)
    clock.now += 50
    assert links.until(PATH, 1_800_000_100.5) == first


def test_secrets_are_made_once_and_private(tmp_path: Path) -> None:
    state = tmp_path / "state"
    made = load_secrets(state)
    assert made == load_secrets(state)
    assert len(made.links) == 32
    prefix, _, key = made.webhooks.partition("_")
    assert (prefix, len(base64.b64decode(key, validate=True))) == ("whsec", 24)
    assert made.webhooks.count("_") == 1, "a client splits it there"
    assert made != load_secrets(tmp_path / "other")
    assert made.webhooks not in repr(made)
    if os.name == "posix":
        assert stat.S_IMODE((state / SECRETS).stat().st_mode) == 0o600


def test_a_damaged_file_is_told_and_kept(tmp_path: Path) -> None:
    load_secrets(tmp_path)
    for text in ("", "{}", '{"links": "AA==", "webhooks": "whsec_AA=="}', "[1]"):
        (tmp_path / SECRETS).write_text(text)
        with pytest.raises(StoreError, match=r"secrets\.json is damaged\. Remove it"):
            load_secrets(tmp_path)
        assert (tmp_path / SECRETS).read_text() == text


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib\n"
        "from flux_hotswap.hosted_api.links import load_secrets\n"
        "print('up', flush=True); sys.stdin.readline()\n"
        "print(load_secrets(pathlib.Path(sys.argv[1])).webhooks)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    started = [
        subprocess.Popen(
            command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    for process in started:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
    said = {process.communicate("go\n", timeout=30)[0] for process in started}
    assert len(said) == 1
    assert next(iter(said)).startswith("whsec_")


@pytest.mark.skipif(os.name != "posix", reason="needs SIGKILL")
def test_a_process_killed_while_writing_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib, time\n"
        "from flux_hotswap.hosted_api import links\n"
        "def stuck(path, text, *, by):\n"
        "    by.write_text(text[:9]); print('here', flush=True); time.sleep(60)\n"
        "links.write_whole = stuck\n"
        "links.load_secrets(pathlib.Path(sys.argv[1]))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    began = time.monotonic()
    assert load_secrets(tmp_path).webhooks.startswith("whsec_")
    assert time.monotonic() - began < 5, "the lock went with the process"
    assert not list(tmp_path.glob("*.new"))

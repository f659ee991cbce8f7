"""What comes from the environment, and the file of tokens."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flux_hotswap.errors import SettingsError
from flux_hotswap.files.explain import retry_after
from flux_hotswap.files.settings import Settings, free_space, parse_size
from flux_hotswap.files.tokens import hub_login

HUB, CIVITAI, API = "https://huggingface.co", "https://civitai.com", "https://api.replicate.com"


def make(environ: dict[str, str], file: Path | None = None, login: str | None = None) -> Settings:
    return Settings.from_environment(environ, token_file=file, login=lambda: login)


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_nothing_set() -> None:
    found = make({})
    assert found.tokens.for_url(HUB) is None
    assert found.endpoints.hub == HUB
    assert found.endpoints.civitai_twin == "https://civitai.red"
    assert found.ca_bundle is None
    assert not found.allow.hosts
    assert not found.offline


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (f"{HUB}/a/b", "HF_TOKEN"),
        ("https://civitai.com:443/api", "CIVITAI_API_TOKEN"),
        ("https://api.replicate.com/v1", "REPLICATE_API_TOKEN"),
        ("https://civitai.red/api", "token"),
    ],
)
def test_whose_token_it_is(url: str, name: str) -> None:
    assert make({}).endpoints.token_name(url) == name


def test_no_token_goes_to_the_twin() -> None:
    found = make({"CIVITAI_API_TOKEN": "x"})
    assert found.tokens.for_url(found.endpoints.civitai) == "x"
    assert found.tokens.for_url(found.endpoints.civitai_twin) is None


def test_everything_set() -> None:
    found = make(
        {
            "FLUX_HOTSWAP_ALLOW_HOSTS": "nas, 10.0.0.5:8080",
            "FLUX_HOTSWAP_MAX_SIZE": "500M",
            "FLUX_HOTSWAP_CACHE_SIZE": "1.5GiB",
            "FLUX_HOTSWAP_RECHECK_HOURS": "0.5",
            "FLUX_HOTSWAP_OFFLINE": "1",
            "HF_ENDPOINT": "https://mirror.example/",
            "SSL_CERT_FILE": "/certs.pem",
            "HF_TOKEN": "hf_x",
        }
    )
    assert found.allow.permits("nas", 1)
    assert not found.allow.permits("10.0.0.5", 80)
    assert (found.max_bytes, found.cache_bytes) == (500 * 2**20, 3 * 2**29)
    assert found.recheck_after == 1800
    assert found.offline
    assert found.ca_bundle == "/certs.pem"
    assert found.tokens.for_url("https://mirror.example/a/b") == "hf_x"
    assert found.tokens.for_url(HUB) is None


@pytest.mark.parametrize(
    ("text", "offline"),
    [
        *(("1", True), (" True ", True), ("on", True), ("yes", True)),
        *(("", False), ("0", False), ("False", False), ("off", False), ("no", False)),
    ],
)
def test_a_switch(text: str, offline: bool) -> None:
    assert make({"FLUX_HOTSWAP_OFFLINE": text}).offline is offline


@pytest.mark.parametrize(
    "environ",
    [
        {"FLUX_HOTSWAP_MAX_SIZE": "big"},
        {"FLUX_HOTSWAP_MAX_SIZE": "-1"},
        {"FLUX_HOTSWAP_CACHE_SIZE": "1X"},
        {"FLUX_HOTSWAP_RECHECK_HOURS": "soon"},
        {"FLUX_HOTSWAP_RECHECK_HOURS": "-1"},
        {"FLUX_HOTSWAP_OFFLINE": "perhaps"},
        {"FLUX_HOTSWAP_ALLOW_HOSTS": "a/b"},
        {"FLUX_HOTSWAP_TOKENS": "/nowhere/tokens"},
        {"HF_ENDPOINT": "mirror"},
        {"HF_TOKEN": "two words"},
    ],
    ids=str,
)
def test_what_cannot_be_used_names_the_variable(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        make(environ)
    assert next(iter(environ)) in str(caught.value)
    assert "two words" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "size"), [("0", 0), ("17", 17), ("2k", 2048), ("1 MB", 2**20), ("1.5G", 3 * 2**29)]
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("environ", "saved", "login", "token"),
    [
        ({"HF_TOKEN": " a "}, "HF_TOKEN=b", "c", "a"),
        ({"HUGGING_FACE_HUB_TOKEN": "a"}, "", None, "a"),
        ({"HF_TOKEN": "", "HUGGING_FACE_HUB_TOKEN": "a"}, "", None, "a"),
        ({}, "# mine\n\nexport HF_TOKEN = 'b'\n", "c", "b"),
        ({}, "CIVITAI_API_TOKEN=x", "c", "c"),
        ({}, "", None, None),
    ],
)
def test_where_a_token_comes_from(
    tmp_path: Path, environ: dict[str, str], saved: str, login: str | None, token: str | None
) -> None:
    found = make(environ, private(tmp_path / "tokens", saved), login)
    assert found.tokens.for_url(HUB + "/a/b") == token


def test_each_token_has_its_own_place(tmp_path: Path) -> None:
    path = private(tmp_path / "t", "HF_TOKEN=hf1\nCIVITAI_API_TOKEN=cv2\nREPLICATE_API_TOKEN=rp3\n")
    tokens = make({"FLUX_HOTSWAP_TOKENS": str(path)}).tokens
    assert tokens.for_url(HUB) == "hf1"
    assert tokens.for_url(CIVITAI + ":443/api") == "cv2"
    assert tokens.for_url(API) == "rp3"
    for other in (
        "https://replicate.com/a/b",
        "https://replicate.delivery/x.tar",
        "http://huggingface.co/",
        "https://huggingface.co:444/",
        "https://huggingface.co.evil.example/",
        "https://cdn.huggingface.co/",
    ):
        assert tokens.for_url(other) is None
    assert tokens.scrub("a hf1 b cv2") == "a *** b ***"
    assert "hf1" not in repr(tokens)


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o640, 0o604])
def test_file_that_others_can_read(tmp_path: Path, mode: int) -> None:
    path = private(tmp_path / "t", "HF_TOKEN=hf1", mode)
    with pytest.raises(SettingsError, match="chmod 600") as caught:
        make({}, path)
    assert "hf1" not in str(caught.value)


def test_file_that_is_missing_or_unreadable(tmp_path: Path) -> None:
    assert make({}, tmp_path / "none").tokens.for_url(HUB) is None
    with pytest.raises(SettingsError, match="cannot be read"):
        make({}, tmp_path)
    private(tmp_path / "latin", "").write_bytes(b"HF_TOKEN=\xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        make({}, tmp_path / "latin")
    with pytest.raises(SettingsError, match="line 2: write NAME=value") as caught:
        make({}, private(tmp_path / "odd", "# x\nhf_secret\n"))
    assert "hf_secret" not in str(caught.value)


def test_login_of_the_hubs_own_tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_from_login")
    assert hub_login() == "hf_from_login"


def test_free_space(tmp_path: Path) -> None:
    assert free_space(tmp_path) > 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("7", 7),
        (" 0 ", 0),
        ("9" * 30, 999_999_999),
        ("", None),
        ("soon", None),
        ("Thu, 01 Jan 1970 00:02:00 GMT", 20),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("-5", None),
    ],
)
def test_retry_after(text: str, seconds: float | None) -> None:
    assert retry_after(text, now=100) == seconds

"""What an administrator decides, and what is refused of it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flux_hotswap.errors import SettingsError
from flux_hotswap.hosted_api.app import tell_of_address
from flux_hotswap.hosted_api.options import Options, parser, read_options, words_of
from flux_hotswap.lora_fetch.parser import parse

ROOT = Path(__file__).parents[3]
HEX = "6b8e" * 16
TOKEN = "r8_0123456789abcdef"  # noqa: S105 - made for this test


@pytest.mark.parametrize(
    ("host", "public", "url", "told"),
    [
        ("127.0.0.1", "", "http://127.0.0.1:5000", False),
        ("0.0.0.0", "", "http://0.0.0.0:5000", True),  # noqa: S104
        ("0.0.0.0", "", "http://127.0.0.1:8188/hotswap", True),  # noqa: S104
        ("::", "", "http://[::]:5000", True),
        ("0.0.0.0", "https://flux.example.org", "http://0.0.0.0:5000", False),  # noqa: S104
        ("192.168.1.5", "", "http://192.168.1.5:5000", False),
    ],
)
def test_addresses_that_nobody_else_reaches_are_told(
    host: str, public: str, url: str, told: bool, caplog: pytest.LogCaptureFixture
) -> None:
    tell_of_address(Options(host=host, public=public, tokens={TOKEN: 3}), url)
    assert ("--public" in caplog.text) is told


def test_alone_on_the_machine_everything_may_be_fetched() -> None:
    options = read_options([])
    assert (options.host, options.port, options.allow, options.tokens) == (
        "127.0.0.1", 5000, ("*",), {},
    )  # fmt: skip
    assert options.permits("replicate:anybody/anything")


def test_with_tokens_only_what_is_named(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(f"# ours\n{TOKEN}\n\n{TOKEN}2  u=1\n", encoding="utf-8")
    assert read_options(["--tokens", str(path)]).allow == ()
    options = read_options(["--tokens", str(path), "--host", "0.0.0.0", "--allow", "acme/*"])  # noqa: S104
    assert options.tokens == {TOKEN: 3, f"{TOKEN}2": 1}
    assert TOKEN not in repr(options)


@pytest.mark.parametrize(
    ("source", "pattern", "permitted"),
    [
        ("replicate:acme/flux", "acme/*", True),
        ("acme/flux:" + HEX, "acme/flux", True),
        ("replicate:acme/flux", "replicate:acme/*", True),
        ("replicate:other/flux", "acme/*", False),
        ("https://huggingface.co/acme/flux", "hf:*", True),
        ("hf:acme/flux", "acme/*", False),
        ("https://civitai.com/models/12?modelVersionId=3", "civitai:*", True),
        ("https://example.com/a.safetensors", "https://example.com/*", True),
        ("https://example.org/a.safetensors", "https://example.com/*", False),
        ("a.safetensors", "none", True),
    ],
)
def test_what_a_pattern_permits(source: str, pattern: str, permitted: bool) -> None:
    assert Options(allow=(pattern,)).permits(parse(source).canonical()) is permitted


WORDS = {
    r'--listen 127.0.0.1 --base-directory "D:\my files"': [
        "--listen", "127.0.0.1", "--base-directory", r"D:\my files",
    ],
    r"--extra-model-paths-config C:\x\y.yaml --cpu": [
        "--extra-model-paths-config", r"C:\x\y.yaml", "--cpu",
    ],
    "--user-directory='/a b/c' #1": ["--user-directory=/a b/c", "#1"],
    "": [],
}  # fmt: skip


@pytest.mark.parametrize(("text", "words"), WORDS.items(), ids=list(WORDS))
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert words_of("--arguments", text) == words
    assert read_options([f"--arguments={text}"]).arguments == tuple(words)


def test_a_quote_without_an_end() -> None:
    with pytest.raises(SettingsError, match="--arguments: a quote has no end"):
        read_options(["--arguments", '--a "b'])


def test_a_folder_without_comfyui(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="no ComfyUI lies there"):
        read_options(["--start", str(tmp_path)])


@pytest.mark.parametrize("way", [["-m", "hosted_api"], ["-I", "hosted_api"]], ids=" ".join)
def test_as_a_program(way: list[str]) -> None:
    """In the portable ComfyUI, Python looks in no folder of its own accord, as with -I."""
    command = [sys.executable, *way, "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=30)
    assert "--start FOLDER" in done.stdout


def test_models_that_calls_name_by_their_version(tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(json.dumps({"acme/mine": {"lora": "mine.safetensors"}}), encoding="utf-8")
    model = f"acme/flux:{HEX}"
    options = read_options(["--names", str(path), "--model", model])
    assert options.named("", HEX) is None
    assert options.model_of(HEX) == "acme/flux"
    assert options.named("acme/flux", HEX) == {"lora": model}
    assert options.named("acme/mine", "") == {"lora": "mine.safetensors"}
    assert options.model_of("f" * 64) == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["--host", "0.0.0.0"], "tokens are needed", id="open without tokens"),  # noqa: S104
        pytest.param(["--comfyui", "localhost:8188"], "--comfyui", id="no address"),
        pytest.param(["--public", "flux.example.org"], "--public", id="no public address"),
        pytest.param(["--upload", "many"], "--upload", id="no size"),
        pytest.param(["--tokens", "missing"], "--tokens", id="no file of tokens"),
        pytest.param(["--names", "missing"], "--names", id="no file of names"),
    ],
)
def test_bad_options(words: list[str], said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        read_options(words)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "no object of objects"),
        ('{"acme/flux": "x.safetensors"}', "no object of objects"),
        ('{"acme/flux": {"lora_scale": 9}}', "acme/flux: lora_scale"),
        ('{"acme/flux": {"strength": 1}}', "acme/flux: strength"),
        ("{", "cannot be read"),
    ],
)
def test_bad_names(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "names.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match=said):
        read_options(["--names", str(path)])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "short\n",
        f"{TOKEN}\N{SNOWMAN}\n",
        f"{TOKEN} u=8\n",
        f"{TOKEN} 1\n",
        f"{TOKEN} u=1 u=2\n",
    ],
)
def test_bad_tokens(text: str, tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError, match="--tokens") as caught:
        read_options(["--tokens", str(path)])
    assert TOKEN not in str(caught.value)


def test_the_page_has_a_row_for_each_option() -> None:
    page = (Path(__file__).parents[3] / "docs" / "api.md").read_text(encoding="utf-8")
    table = page[page.index("<!-- options -->") :]
    known = {word for action in parser()._actions for word in action.option_strings}
    assert {word for word in known - {"-h", "--help"} if f"`{word}" not in table} == set()

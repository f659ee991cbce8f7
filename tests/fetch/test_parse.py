"""Text to source: every row of the reference tables with our value, and what else people type."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux_hotswap.errors import SourceError
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.services.civitai import CivitAI
from flux_hotswap.lora_fetch.services.data import DataURI
from flux_hotswap.lora_fetch.services.huggingface import HuggingFace
from flux_hotswap.lora_fetch.services.link import Link, Tar
from flux_hotswap.lora_fetch.services.local import LocalFile
from flux_hotswap.lora_fetch.services.replicate import Replicate
from flux_hotswap.lora_fetch.source import Source

CARS = Replicate("fofr", "flux-pixar-cars")
PINNED = Replicate("fofr", "flux-pixar-cars", "132c98d2")
FILE = HuggingFace("a/b", "main", "lora.safetensors")
HASH = "ab" * 32
COMMIT = "0123456789abcdef0123456789abcdef01234567"

# The verified vectors of the hosted parser; where it mis-reads or refuses, ours is the right value.
HOSTED: list[tuple[str, Source | None]] = [
    ("fofr/flux-pixar-cars", CARS),
    ("fofr/flux-pixar-cars/", CARS),
    ("fofr/flux-pixar-cars/132c98d2", PINNED),
    ("fofr/flux-pixar-cars/versions/132c98d2", PINNED),
    ("https://replicate.com/fofr/flux-pixar-cars", CARS),
    ("fofr/flux-pixar-cars:132c98d2", PINNED),
    ("replicate.com/fofr/flux-pixar-cars", CARS),
    ("https://www.replicate.com/a/b", Replicate("a", "b")),
    ("huggingface.co/a/b", HuggingFace("a/b")),
    ("https://huggingface.co/a/b", HuggingFace("a/b")),
    ("https://huggingface.co/a/b/", HuggingFace("a/b")),
    ("huggingface.co/a/b/lora.safetensors", HuggingFace("a/b", None, "lora.safetensors")),
    ("https://huggingface.co/a/b/resolve/main/lora.safetensors", FILE),
    ("https://huggingface.co/a/b/resolve/main/lora.safetensors?download=true", FILE),
    ("https://huggingface.co/a/b/blob/main/lora.safetensors", FILE),
    ("huggingface.co/a/b/resolve/main/lora.safetensors", FILE),
    ("huggingface.co/a/b/tree/main", HuggingFace("a/b", "main")),
    ("huggingface.co/a/b/sub", HuggingFace("a/b", None, "sub")),
    ("huggingface.co/a", None),
    ("hf.co/a/b", HuggingFace("a/b")),
    ("HTTPS://huggingface.co/a/b", HuggingFace("a/b")),
    ("civitai.com/models/12345", CivitAI(12345)),
    ("https://civitai.com/models/12345/name", CivitAI(12345)),
    ("https://civitai.com/models/12345/name/", CivitAI(12345)),
    ("https://civitai.com/models/12345?modelVersionId=678", CivitAI(12345, 678)),
    ("civitai.com/models/12345?modelVersionId=678", CivitAI(12345, 678)),
    ("civitai.com/models/abc", None),
    ("https://civitai.com/api/download/models/678", CivitAI(None, 678)),
    (
        "https://civitai.com/api/download/models/678?type=Model&format=SafeTensor",
        CivitAI(None, 678),
    ),
    ("civitai.com/api/download/models/678", CivitAI(None, 678)),
    ("https://www.civitai.com/models/12345", CivitAI(12345)),
    (
        "https://example.com/x.safetensors?sig=abc",
        Link("https://example.com/x.safetensors?sig=abc"),
    ),
    ("https://example.com/x.safetensors#frag", Link("https://example.com/x.safetensors")),
    ("https://example.com/x.tar", Tar("https://example.com/x.tar")),
    ("https://pbxt.replicate.delivery/a.tar", Tar("https://pbxt.replicate.delivery/a.tar")),
    ("example.com/x.safetensors", Link("https://example.com/x.safetensors")),
    (
        "https://replicate.delivery/x/y/trained_model.tar",
        Tar("https://replicate.delivery/x/y/trained_model.tar"),
    ),
    ("/local/path/lora.safetensors", None),
    ("lora.safetensors", LocalFile("lora.safetensors")),
    ("owner", None),
    ("a/b/c/d", None),
    ("", None),
    ("  fofr/x ", Replicate("fofr", "x")),
]

MORE: list[tuple[str, Source]] = [
    ("replicate:fofr/x", Replicate("fofr", "x")),
    ("Replicate:fofr/x:132C98D2", Replicate("fofr", "x", "132c98d2")),
    ("https://replicate.com/a/b/versions/132c98d2", Replicate("a", "b", "132c98d2")),
    ("https://replicate.com/a/b:132c98d2", Replicate("a", "b", "132c98d2")),
    ("https://replicate.com/a/b/versions", Replicate("a", "b")),
    ("https://replicate.com/a/b/api/learn-more"[:31], Replicate("a", "b")),
    ("https://replicate.com/a/b/_weights", Replicate("a", "b")),
    ("replicate.com/a/b?prediction=x#top", Replicate("a", "b")),
    ("black-forest-labs/flux.1-dev", Replicate("black-forest-labs", "flux.1-dev")),
    ("hf:a/b", HuggingFace("a/b")),
    ("HF: a/b ", HuggingFace("a/b")),
    ("hf://a/b", HuggingFace("a/b")),
    ("huggingface:a/b/c.safetensors", HuggingFace("a/b", None, "c.safetensors")),
    ("hf:a/b@v1", HuggingFace("a/b", "v1")),
    ("hf:a/b@refs%2Fpr%2F1/c.safetensors", HuggingFace("a/b", "refs/pr/1", "c.safetensors")),
    (
        "https://huggingface.co/a/b/blob/refs/pr/1/c.safetensors",
        HuggingFace("a/b", "refs/pr/1", "c.safetensors"),
    ),
    (f"https://hf.co/a/b/commit/{COMMIT}", HuggingFace("a/b", COMMIT)),
    ("https://hf.co/a/b/tree/main/sub/folder", HuggingFace("a/b", "main", "sub/folder")),
    ("https://hf.co/a/b/tree", HuggingFace("a/b")),
    (
        "https://hf.co/a/b/resolve/main/my%20lora.safetensors",
        HuggingFace("a/b", "main", "my lora.safetensors"),
    ),
    ("http://huggingface.co:80/a/b", HuggingFace("a/b")),
    ("civitai:12345", CivitAI(12345)),
    ("civitai:12345@678", CivitAI(12345, 678)),
    ("civitai:@678?fileId=9&fp=fp16", CivitAI(None, 678, 9, (("fp", "fp16"),))),
    ("https://civitai.red/models/5", CivitAI(5)),
    ("https://civitai.green/model-versions/6", CivitAI(None, 6)),
    ("https://civitai.com/api/v1/models/5", CivitAI(5)),
    ("https://civitai.com/api/v1/model-versions/6", CivitAI(None, 6)),
    ("https://civitai.com/models/5?utm_source=x&modelVersionId=6", CivitAI(5, 6)),
    ("urn:air:flux1:lora:civitai:12345@678", CivitAI(12345, 678)),
    ("URN:AIR:flux1:lora:civitai:12345@678.safetensors", CivitAI(12345, 678)),
    ("air:flux1:lora:civitai:12345", CivitAI(12345)),
    ("urn:air:flux1:lora:huggingface:a/b", HuggingFace("a/b")),
    ("HTTPS://Example.COM:443/X.safetensors/", Link("https://example.com/X.safetensors")),
    ("https://h.io:8443/a b.safetensors", Link("https://h.io:8443/a%20b.safetensors")),
    ("http://h.io/a.safetensors", Link("http://h.io/a.safetensors")),
    ("https://h.io/get?file=a.safetensors", Link("https://h.io/get?file=a.safetensors")),
    (f"https://h.io/a.safetensors#sha256={HASH.upper()}", Link("https://h.io/a.safetensors", HASH)),
    (f"https://h.io/a.tar#sha256:{HASH}", Tar("https://h.io/a.tar", HASH)),
    ("https://[2606:4700::1]/a.safetensors", Link("https://[2606:4700::1]/a.safetensors")),
    ("https://bücher.example/a.safetensors", Link("https://xn--bcher-kva.example/a.safetensors")),
    ("127.0.0.1:8000/a.safetensors", Link("https://127.0.0.1:8000/a.safetensors")),
    ("localhost/a.safetensors", Link("https://localhost/a.safetensors")),
    ("huggingface.co:8443/a/b.safetensors", Link("https://huggingface.co:8443/a/b.safetensors")),
    ("flux/my lora.safetensors", LocalFile("flux/my lora.safetensors")),
    ("flux\\mine.SafeTensors", LocalFile("flux/mine.SafeTensors")),
    ("./a.safetensors", LocalFile("a.safetensors")),
    ("v1.0/a.safetensors", LocalFile("v1.0/a.safetensors")),
    ("local:example.com/a.safetensors", LocalFile("example.com/a.safetensors")),
    ("data:;base64,AAEC", DataURI(b"\0\1\2")),
    ("DATA:application/x-tar;base64, AA EC ", DataURI(b"\0\1\2")),
    ("data:;base64,-_8", DataURI(b"\xfb\xff")),
    ("data:,%00%01", DataURI(b"\0\1")),
]

WRONG: list[tuple[str, str]] = [
    ("   ", "empty"),
    ("a" * 5000, "longer than"),
    ("a/b\nc", "cannot be seen"),
    ("a/\ud800", "cannot be seen"),
    ("ftp://h.io/a.safetensors", "only https"),
    ("https:///a.safetensors", "not a web address"),
    ("http://[::1", "not a web address"),
    ("https://h.io:99999/a.safetensors", "not a web address"),
    ("https://user:secret@h.io/a.safetensors", "user name or password"),
    ("https://h.io/page", "must end in .safetensors"),
    ("https://h.io/a.ckpt", "only .safetensors files"),
    ("a.ckpt", "only .safetensors files"),
    ("huggingface.co/a/b/blob/main/x.bin", "only a .safetensors"),
    ("hf:a/b/x.ckpt", "only a .safetensors"),
    ("hf:a/b/resolve/main", "only a .safetensors"),
    ("hf:a/b/../c.safetensors", "'..'"),
    ("hf:a/b/%2e%2e/c.safetensors", "'..'"),
    ("hf:a/..b", "write the repository as"),
    ("hf:a", "no model repository"),
    ("https://huggingface.co/datasets/a/b", "no model repository"),
    ("https://civitai.com/images/1", "not a model"),
    ("https://civitai.com/models", "as a number"),
    ("https://civitai.com/api/download/models/", "as a number"),
    ("https://civitai.com/models/5?token=secret", "CIVITAI_API_TOKEN"),
    ("https://civitai.com/api/download/models/5?format=PickleTensor", "SafeTensor"),
    ("civitai:", "civitai:<model"),
    ("civitai:x", "civitai:<model"),
    ("civitai:0", "as a number"),
    ("urn:isbn:1", "write an AIR as"),
    ("urn:air:flux1:checkpoint:civitai:1@2", "names a checkpoint"),
    ("urn:air:flux1:lora:tensorart:1@2", "tensorart"),
    ("https://replicate.com/explore", "not a model"),
    ("https://replicate.com/p/abcdef", "not a model"),
    ("a/b/c", "version would be 'c'"),
    ("a/b:nothex", "version would be"),
    ("a/b:", "version would be"),
    ("a b/c", "as owner/name"),
    ("a/b:132c98d2/c", "too many parts"),
    ("../a.safetensors", "without '..'"),
    ("C:\\loras\\a.safetensors", "outside the loras folders"),
    ("~/a.safetensors", "outside the loras folders"),
    ("\\\\server\\share\\a", "outside the loras folders"),
    ("data:nothing", "comma"),
    ("data:;base64,!!!!", "valid base64"),
    ("data:;base64,", "1 byte"),
    ("data:;base64,AAAAA", "valid base64"),
]


def text_id(value: object) -> str | None:
    return value[:40] if isinstance(value, str) else None


@pytest.mark.parametrize(("text", "expected"), HOSTED, ids=text_id)
def test_hosted_table(text: str, expected: Source | None) -> None:
    if expected is None:
        with pytest.raises(SourceError):
            parse(text)
    else:
        assert parse(text) == expected


@pytest.mark.parametrize(("text", "expected"), MORE, ids=text_id)
def test_more_forms(text: str, expected: Source) -> None:
    assert parse(text) == expected
    assert parse(expected.canonical()) == expected
    assert expected.shown()


@pytest.mark.parametrize(("text", "words"), WRONG, ids=text_id)
def test_what_is_wrong_is_said(text: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        parse(text)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("size", [2**26, 2**28], ids=["decoded", "encoded"])
def test_data_is_bounded(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flux_hotswap.lora_fetch.services.data.MAX_DATA", size // 2**20)
    with pytest.raises(SourceError, match="MB"):
        parse("data:;base64," + base64.b64encode(b"x" * (size // 2**19 - 8)).decode())


@pytest.mark.parametrize(
    ("text", "moving"),
    [
        ("a/b", True),
        ("a/b:132c98d2", False),
        ("hf:a/b", True),
        ("hf:a/b@main", True),
        (f"hf:a/b@{COMMIT}", False),
        ("civitai:5", True),
        ("civitai:5@6", False),
        ("https://h.io/a.safetensors", True),
        (f"https://h.io/a.safetensors#sha256={HASH}", False),
        ("https://h.io/a.tar", True),
        ("https://pbxt.replicate.delivery/a.tar", False),
        ("https://notreplicate.delivery/a.tar", True),
        ("a.safetensors", False),
        ("data:,x", False),
    ],
)
def test_what_can_move(text: str, moving: bool) -> None:
    source = parse(text)
    assert source.moving is moving
    assert source.label


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://h.io/a.safetensors?sig=secret", "https://h.io/a.safetensors"),
        ("https://h.io/a.tar?sig=secret", "https://h.io/a.tar"),
        ("data:;base64,AAEC", "data:(3 bytes, sha256 ae4b3280e56e)"),
        ("local:a.safetensors", "a.safetensors"),
        ("a/b", "replicate:a/b"),
        ("civitai.com/models/5", "civitai:5"),
        ("hf.co/a/b", "hf:a/b"),
    ],
)
def test_what_is_shown_has_no_secret(text: str, shown: str) -> None:
    assert parse(text).shown() == shown


# Pieces that lead deep into the parser, and any text between them.
PIECES = st.sampled_from(
    [
        *("https://", "http://", "HTTPS://", "www.", "huggingface.co", "hf.co", "civitai.com"),
        *("replicate.com", "replicate.delivery", "h.io", "hf:", "civitai:", "replicate:", "local:"),
        *(
            "data:",
            ";base64",
            "urn:air:flux1:lora:",
            "air:",
            "civitai:1@2",
            "/",
            "//",
            "\\",
            "..",
            ".",
        ),
        *(
            "resolve",
            "blob",
            "tree",
            "main",
            "refs/pr/1",
            "models",
            "api/download/models",
            "versions",
        ),
        *(
            "owner",
            "name",
            "132c98d2",
            "12345",
            "@",
            ":",
            "?",
            "&",
            "=",
            "#",
            "%",
            "%2F",
            "%00",
            "'",
        ),
        *("modelVersionId=", "fileId=3", "fp=fp16", "lora.safetensors", ".safetensors", ".tar"),
        *(
            "[::1]",
            ":443",
            ":8080",
            " ",
            "~",
            "\x00",
            "\u00df",
            "\u3002",
            "\ud800",
            "#sha256=" + HASH,
        ),
    ]
)


@given(st.one_of(st.lists(PIECES | st.text(max_size=3), max_size=9).map("".join), st.text()))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        source = parse(text)
    except SourceError:
        return
    canonical = source.canonical()
    assert parse(canonical) == source
    assert parse(f"  {canonical} ") == source
    assert isinstance(source.moving, bool)
    assert source.shown()
    assert isinstance(source.label, str)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://example.com/x.safetensors#sha256=12", "64 hexadecimal digits"),
        (f"https://example.com/x.tar#sha256={'g' * 64}", "64 hexadecimal digits"),
        (f"https://huggingface.co/a/b/blob/main/x.safetensors#sha256={'0' * 64}", "a commit"),
        (f"https://civitai.com/models/5#sha256={'0' * 64}", "a version"),
        (f"replicate.com/a/b#sha256:{'0' * 64}", "a version"),
    ],
)
def test_a_hash_that_would_not_be_compared_is_refused(text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        parse(text)


@pytest.mark.parametrize("text", ["/etc/passwd", "~/loras", "/owner/name"])
def test_a_path_is_not_taken_for_a_model(text: str) -> None:
    with pytest.raises(SourceError, match="outside the loras folders"):
        parse(text)

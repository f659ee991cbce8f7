"""Texts as people copy them: quotes, tabs of pages, share links, signed addresses, lost secrets."""

from __future__ import annotations

import pytest

from fetch.test_parse import COMMIT, HASH, text_id
from flux_hotswap.errors import SourceError
from flux_hotswap.lora_fetch.parser import parse
from flux_hotswap.lora_fetch.services.civitai import CivitAI
from flux_hotswap.lora_fetch.services.huggingface import HUB_TABS, HuggingFace
from flux_hotswap.lora_fetch.services.link import Link, Tar, named_in
from flux_hotswap.lora_fetch.services.replicate import Replicate
from flux_hotswap.lora_fetch.services.shares import page_hint
from flux_hotswap.lora_fetch.source import Source

LONG = "132c98d22d2171c64e55fe7eb539fbeef0085cb0bd5cac3e8d005234b53ef1cb"
FILE = "https://h.io/x.safetensors"
DRIVE = "https://drive.usercontent.google.com/download?id=1AbC-_d&export=download&confirm=t"
BOX = "https://www.dropbox.com/scl/fi/q1/x.safetensors?rlkey=k"

AROUND = [
    *('"{}"', "'{}'", "`{}`", "<{}>", "({})", "[{}]", "{{{}}}", "\u201c{}\u201d", "\u201d{}\u201d"),
    *("\u201e{}\u201c", "\u2018{}\u2019", "\u00ab{}\u00bb", '"{}",', "'{}';", '  "{}" ', '"<{}>"'),
    *('"{}', '{}"', "<{}", "{}>", "`{}", "{}\u201d", "\ufeff{}", "{}\u200b", "\u200e{}\u200f "),
    *("{}\n", "\t{}\r\n", "[my lora]({})", "![x]( {} )"),
]
SOURCES = [
    *("fofr/cars", f"fofr/cars:{LONG}", "hf:a/b@v1/c.safetensors", "huggingface.co/a/b"),
    *(f"{FILE}?sig=a%2Fb,", f"https://h.io/a.tar#sha256={HASH}", "civitai.com/models/5/name"),
    *("civitai:5@6?fileId=7", "urn:air:flux1:lora:civitai:1@2", "folder/x.safetensors"),
    *("data:;base64,AAEC", "https://civitai.com/models/5?modelVersionId=6"),
]


@pytest.mark.parametrize("around", AROUND, ids=ascii)
@pytest.mark.parametrize("text", SOURCES, ids=text_id)
def test_what_clings_to_a_source(text: str, around: str) -> None:
    assert parse(around.format(text)) == parse(text)


TABS = [
    "api",
    "api/learn-more",
    "examples",
    "playground",
    "readme",
    "train",
    "versions",
    "_weights",
]


@pytest.mark.parametrize(
    "start", ["https://replicate.com/", "replicate.com/", "www.replicate.com/"]
)
@pytest.mark.parametrize("tab", ["", "/", *(f"/{tab}" for tab in TABS), "?tab=x", "/api?tab=x#y"])
@pytest.mark.parametrize("pin", ["versions/{}", ":{}", "{}", ""])
def test_every_tab_of_a_replicate_model_keeps_its_version(start: str, tab: str, pin: str) -> None:
    version = LONG if pin else None
    between = "" if pin.startswith(":") or not pin else "/"
    text = f"{start}me/m{between}{pin.format(version)}{tab}"
    assert parse(text) == Replicate("me", "m", version)


HUB_LINKS: list[tuple[str, Source]] = [
    *((f"{verb}/main/c/x.safetensors", HuggingFace("a/b", "main", "c/x.safetensors"))
      for verb in ("resolve", "blob", "raw", "blame", "edit", "delete", "commits")),
    *((f"{verb}/v%2F1", HuggingFace("a/b", "v/1")) for verb in ("tree", "commits", "upload")),
    *((page, HuggingFace("a/b")) for page in (
        "discussions", "discussions/3", "discussions/3/files", "community", "settings", "tree",
        "discussions?status=open", "commits", "activity", "colab",
    )),
    (f"commit/{COMMIT}", HuggingFace("a/b", COMMIT)),
    ("blame/refs/pr/3/x.safetensors", HuggingFace("a/b", "refs/pr/3", "x.safetensors")),
]  # fmt: skip


@pytest.mark.parametrize(("page", "expected"), HUB_LINKS, ids=text_id)
@pytest.mark.parametrize("end", ["", "/", "#L1", "?not-for-all-audiences=true"])
def test_every_tab_of_a_repository(page: str, expected: Source, end: str) -> None:
    if end == "?not-for-all-audiences=true" and "?" in page:
        end = ""
    assert parse(f"https://huggingface.co/a/b/{page}{end}") == expected


def test_the_hubs_api_addresses() -> None:
    assert parse("https://huggingface.co/api/models/a/b/tree/dev") == HuggingFace("a/b", "dev")
    assert parse("https://huggingface.co/api/models/a/b") == HuggingFace("a/b")


NAMES = [
    *("x.safetensors", "my lora #1.safetensors", "50%.safetensors", "a?b&c.safetensors"),
    *("sub dir/\u00fcber+x.safetensors", "a@b.safetensors", "x:y.safetensors", "'x'.safetensors"),
    *(f"{tab}/main/x.safetensors" for tab in sorted(HUB_TABS)),
]


@pytest.mark.parametrize("revision", [None, "main", "refs/pr/1", "v 1#2", "a%b"])
@pytest.mark.parametrize("name", NAMES)
def test_a_files_spelling_can_be_pasted_back(name: str, revision: str | None) -> None:
    source = HuggingFace("a/b", revision, name)
    assert parse(source.canonical()) == source


CIVITAI: list[tuple[str, Source]] = [
    ("https://civitai.com/models/5?modelVersionId=6/", CivitAI(5, 6)),
    ("https://civitai.com/models/5/name/?modelVersionId=6&", CivitAI(5, 6)),
    ("https://civitai.com/models/5&modelVersionId=6", CivitAI(5, 6)),
    ("https://civitai.com/models/5/model-versions/6/wizard?step=1", CivitAI(5, 6)),
    ("https://civitai.red/model-versions/6/edit", CivitAI(None, 6)),
    ("https://civitai.com/api/v1/model-versions/6/", CivitAI(None, 6)),
    ("https://civitai.green/api/download/models/6?fileId=9/", CivitAI(None, 6, 9)),
    ("civitai:5?modelVersionId=6", CivitAI(5, 6)),
    ("civitai: 5 @ 6", CivitAI(5, 6)),
    ("civitai:5@6/", CivitAI(5, 6)),
    ("urn:air:flux1:lora:civitai:5@6/", CivitAI(5, 6)),
]
SHARED: list[tuple[str, Source]] = [
    ("https://drive.google.com/file/d/1AbC-_d/view?usp=sharing", Link(DRIVE)),
    ("drive.google.com/file/u/0/d/1AbC-_d/edit", Link(DRIVE)),
    ("https://drive.google.com/open?id=1AbC-_d&usp=drive_copy", Link(DRIVE)),
    ("https://drive.google.com/uc?export=download&id=1AbC-_d", Link(DRIVE)),
    ("https://docs.google.com/uc?id=1AbC-_d", Link(DRIVE)),
    (f"{DRIVE}&uuid=1&at=secret", Link(DRIVE)),
    ("https://drive.google.com/uc?id=1AbC-_d&resourcekey=0-x", Link(f"{DRIVE}&resourcekey=0-x")),
    (f"{BOX}&dl=0", Link(f"{BOX}&dl=1")),
    (f"{BOX}&dl=0/", Link(f"{BOX}&dl=1")),
    (f"{BOX}&dl=1", Link(f"{BOX}&dl=1")),
    (f"{BOX}&raw=1", Link(f"{BOX}&dl=1")),
    (BOX, Link(f"{BOX}&dl=1")),
    ("dropbox.com/s/k/x.tar", Tar("https://www.dropbox.com/s/k/x.tar?dl=1")),
    (
        "https://github.com/o/r/blob/main/loras/x.safetensors?raw=true",
        Link("https://github.com/o/r/raw/main/loras/x.safetensors?raw=true"),
    ),
    (f"https://drive.google.com/uc?id=1AbC-_d#sha256={HASH}", Link(DRIVE, HASH)),
]
REPLICATE: list[tuple[str, Source]] = [
    ("https://api.replicate.com/v1/models/me/m", Replicate("me", "m")),
    (f"https://api.replicate.com/v1/models/me/m/versions/{LONG}", Replicate("me", "m", LONG)),
    (f"me/m/versions/{LONG}/api", Replicate("me", "m", LONG)),
]


@pytest.mark.parametrize(("text", "expected"), [*CIVITAI, *SHARED, *REPLICATE], ids=text_id)
def test_links_of_pages_and_shares(text: str, expected: Source) -> None:
    assert parse(text) == expected
    assert parse(expected.canonical()) == expected


SIGNED = [
    (
        "response-content-disposition=inline%3B+filename*%3DUTF-8%27%27my%2520x.safetensors%3B",
        "my x",
    ),
    (
        "response-content-disposition=attachment%3B%20filename%3D%22x.safetensors%22&X-Amz-Date=1",
        "x",
    ),
    ("rscd=attachment;+filename=x.safetensors&sig=a", "x"),
    ("file=a/b/x.safetensors", "x"),
    ("fileName=x.SafeTensors&download", "x"),
]


@pytest.mark.parametrize(("query", "label"), SIGNED)
@pytest.mark.parametrize("path", ["/repos/aa/0123", "/", "", "/download.php"])
def test_a_file_named_in_the_query(path: str, query: str, label: str) -> None:
    source = parse(f"https://cas-bridge.xethub.hf.co{path}?{query}")
    assert isinstance(source, Link)
    assert not isinstance(source, Tar)
    assert source.label == label
    assert "?" not in source.shown()
    assert parse(source.canonical()) == source


def test_a_tar_named_in_the_query() -> None:
    assert isinstance(parse("https://h.io/1?f=attachment;filename=%22a.tar%22"), Tar)


@pytest.mark.parametrize(
    "query",
    ["f=x.safetensors.index.json", "f=x.safetensors-old", "f=x.tar.gz", "f=safetensors", ""],
)
def test_other_names_in_the_query_are_none(query: str) -> None:
    assert named_in(f"https://h.io/1?{query}") == ""
    with pytest.raises(SourceError, match=r"must end in \.safetensors"):
        parse(f"https://h.io/1?{query}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("https://drive.google.com/drive/folders/1AbC", "Share the file itself"),
        ("https://drive.google.com/drive/my-drive", "Share the file itself"),
        ("https://www.dropbox.com/scl/fo/a/b?rlkey=k&preview=x.safetensors", "shares a folder"),
        ("https://www.dropbox.com/sh/a/b?dl=0", "shares a folder"),
        ("https://github.com/o/r/blob/main/x.ckpt", "only .safetensors"),
        ("https://civitai.com/api/v1/images", "not a model"),
    ],
)
def test_shares_that_name_no_file(text: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        parse(text)


def test_what_to_do_about_drives_page() -> None:
    assert "Share the file with everyone" in page_hint(DRIVE)


def test_a_link_without_any_name_has_a_label() -> None:
    assert parse(DRIVE).label == "download"
    assert Link("https://h.io").label == "h.io"


HIDDEN = "abcdef1234567890"


@pytest.mark.parametrize(
    "text",
    [
        f"https://civitai.com/api/download/models/5?token={HIDDEN}",
        f"https://civitai.com/api/download/models/5&token={HIDDEN}",
        f"https://civitai.com/api/download/models/x&token={HIDDEN}",
        f"civitai:5&token={HIDDEN}",
        f"civitai:x?token={HIDDEN}",
        f"me/m token={HIDDEN}",
        f"hf_{HIDDEN}",
        f"me/m:hf_{HIDDEN}",
        f"me/m/r8_{HIDDEN}",
        f"https://h.io/page/token={HIDDEN}/x",
        f"https://h.io/page;api_key={HIDDEN}",
        f"Authorization: Bearer {HIDDEN}",
        f"https://user:{HIDDEN}@h.io/x.safetensors",
        f"user:{HIDDEN}@h.io/x.safetensors",
        f"https://h.io/page?sig={HIDDEN}",
        f"hf:a/x y?token={HIDDEN}",
    ],
)
def test_a_secret_in_the_text_is_not_shown(text: str) -> None:
    for around in ("{}", '"{}"', "<{}>"):
        with pytest.raises(SourceError) as caught:
            parse(around.format(text))
        assert HIDDEN not in str(caught.value)
        assert HIDDEN not in caught.value.text

"""What goes out of a text before it is saved: every form of a secret, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
import time
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flux_hotswap.ops import metadata
from flux_hotswap.ops.redact import REDACTED, clean, clean_text

SECRET = "s3cr3tS3CR3T"  # noqa: S105 - none
PLACE = "https://a.example:8443/x/y.safetensors"
DIGEST = "0123456789abcdef" * 4

QUERIES = [
    f"{name}={SECRET}"
    for name in (
        *("token", "TOKEN", "%74oken", "access_token", "accessToken", "auth", "Authorization"),
        *("key", "api_key", "apikey", "access_key", "AccessKeyId", "AWSAccessKeyId", "x-api-key"),
        *("secret", "client_secret", "password", "pwd", "pass", "jwt", "sas", "sig", "signature"),
        *("Signature", "Policy", "Key-Pair-Id", "X-Amz-Signature", "X-Amz-Security-Token", "st"),
        *("X-Goog-Signature", "hdnts", "md5", "expires", "session", "code", "a[b]", "a.b", ""),
    )
] + [SECRET, f"a=1&b={SECRET}", f"a;b={SECRET}", f"modelVersionId={SECRET}", f"a?{SECRET}"]

ADDRESSES: dict[str, tuple[str, str]] = {
    **{f"?{query}": (f"{PLACE}?{query}", PLACE) for query in QUERIES},
    **{f"#{query}": (f"{PLACE}#{query}", PLACE) for query in QUERIES},
    "query and fragment": (f"{PLACE}?a#{SECRET}", PLACE),
    "query and hash": (f"{PLACE}?{SECRET}#sha256={DIGEST}", f"{PLACE}#sha256={DIGEST}"),
    "no real hash": (f"{PLACE}#sha256={SECRET}", PLACE),
    "parameters of a path": (f"{PLACE};token={SECRET}", PLACE),
    "no question mark": (f"{PLACE}&token={SECRET}", PLACE),
    "escaped": (f"{PLACE}%3Ftoken%3D{SECRET}", PLACE),
    "quotes": (f"{PLACE}?a='{SECRET}", PLACE),
    "brackets": (f"{PLACE}?a=(b)[c]{SECRET}", PLACE),
    "capitals": (f"HTTPS://A.example/x?{SECRET}", "HTTPS://A.example/x"),
    "http": (f"http://127.0.0.1:80/x?{SECRET}", "http://127.0.0.1:80/x"),
    "six": (f"https://[2001:db8::1]:80/x?{SECRET}", "https://[2001:db8::1]:80/x"),
    "no path": (f"https://a.example?{SECRET}", "https://a.example"),
    "s3": (f"s3://bucket/x?{SECRET}", "s3://bucket/x"),
    "no scheme": (f"a.example/x.safetensors?q={SECRET}", "a.example/x.safetensors"),
    "no scheme, port": (f"localhost:80/x?{SECRET}", "localhost:80/x"),
    "no scheme, number": (f"10.0.0.1/x#t={SECRET}", "10.0.0.1/x"),
    "no scheme, no path": (f"a.example?q={SECRET}", "a.example"),
    "the page's scheme": (f"//a.example/x?{SECRET}", "//a.example/x"),
    "Hugging Face": (f"hf:a/b/c.safetensors?q={SECRET}", "hf:a/b/c.safetensors"),
    "CivitAI": (
        f"https://civitai.com/models/7?modelVersionId=9&token={SECRET}",
        "https://civitai.com/models/7?modelVersionId=9",
    ),
    "CivitAI's download": (
        f"https://civitai.com/api/download/models/7?type=Model&{SECRET}&format=SafeTensor",
        "https://civitai.com/api/download/models/7?type=Model&format=SafeTensor",
    ),
    "CivitAI in short": (f"civitai:1@2?fileId=3&q={SECRET}", "civitai:1@2?fileId=3"),
    "not CivitAI": (
        f"https://evil.example/civitai.com/?type={SECRET}",
        "https://evil.example/civitai.com/",
    ),
    "login": (f"https://anna:{SECRET}@a.example/x", f"https://{REDACTED}@a.example/x"),
    "login alone": (f"https://{SECRET}@a.example/x", f"https://{REDACTED}@a.example/x"),
    "login with @": (f"https://anna:@{SECRET}@a.example/x", f"https://{REDACTED}@a.example/x"),
    "login with #": (f"https://anna:#{SECRET}@a.example/x", f"https://{REDACTED}"),
    "login with ?": (f"https://anna:?{SECRET}@a.example/x", f"https://{REDACTED}"),
    "login with /": (f"https://anna:{SECRET}/@a.example/x", f"https://{REDACTED}"),
    "login, no scheme": (f"anna:{SECRET}@a.example/x", f"{REDACTED}@a.example/x"),
    "login and query": (f"https://a:b@a.example/x?{SECRET}", f"https://{REDACTED}@a.example/x"),
    "@ in a query": (f"https://a.example?a=b@{SECRET}", f"https://{REDACTED}"),
}


@pytest.mark.parametrize(("address", "left"), ADDRESSES.values(), ids=ADDRESSES)
def test_an_address_keeps_where_it_leads(address: str, left: str) -> None:
    ways = {
        "{}": "{}",
        " {}\n": None,
        "see {} there": "see {} there",
        "see\n{}, and": "see\n{}, and",
        "[a page]({}).": "[a page]({}).",
        "<a href={}>": None,
        '{{"lora": "{}", "seed": 3}}': '{{"lora": "{}", "seed": 3}}',
    }
    for way, kept in ways.items():
        text = clean_text(way.format(address), "")
        assert SECRET not in text, way
        assert kept is None or text == kept.format(left), way
    packed = metadata.pack({"prompt": {"1": {"inputs": {"lora": address}}}, "workflow": [address]})
    assert json.loads(packed.items["prompt"]) == {"1": {"inputs": {"lora": left}}}
    assert json.loads(packed.items["workflow"]) == [left]
    inner = json.dumps({"lora": address}).replace("/", "\\/")
    assert SECRET not in clean_text(inner, "")


@given(st.text(min_size=1, max_size=30), st.sampled_from("?#"))
@example("'\"", "?")
@example(" a", "?")
def test_no_query_of_a_field_stays(query: str, sign: str) -> None:
    address = f"{PLACE}{sign}{query}".strip()
    if "\n" not in address and "\r" not in address and not address.endswith((".", "!")):
        text = clean_text(address, "")
        assert text in (PLACE, address[: len(PLACE) + 1].rstrip(sign)) or set(query) <= set("\"'")


ORDINARY = [
    "https://civitai.com/models/7?modelVersionId=9",
    "https://civitai.com/api/download/models/7?type=Model&format=SafeTensor&size=pruned&fp=fp16",
    f"https://a.example/x.safetensors#sha256={DIGEST}",
    "https://a.example/a&b/c%20d+e.safetensors",
    "Do you know https://a.example/x?",
    "https://a.example",
    "civitai:1@2?fileId=3&fp=fp16",
    "urn:air:flux1:lora:civitai:1@2",
    "hf:owner/name@main/folder/my file #1.safetensors",
    "owner/name:0123456789",
    "and/or? What: yes, a cat; #1, 50% & more",
    "my.pictures/cat #1.png [input]",
    "my.pictures/cat#1.png",
    "C:\\Users\\x\\a#1.png",
    "anna@example.com",
    "ratio 1:2@3, 16:9",
    "data: red, blue and green",
    "the data:red,blue",
    "data:",
    "a (token) of love, key: C major",
    "16:9 // 4:3",
    "a\tb\n\nc",
    "猫? #é",
]


@pytest.mark.parametrize("text", ORDINARY)
def test_ordinary_texts_stay(text: str) -> None:
    assert clean_text(text, "/home/anna") == text


LINUX, WINDOWS, SHARE = "/home/anna", "C:\\Users\\Jürgen M", "\\\\server\\homes\\anna"
HOMES: dict[str, tuple[str, str, str]] = {
    "a path": (LINUX, "/home/anna/a.png", "~/a.png"),
    "the folder itself": (LINUX, "/home/anna", "~"),
    "an option": (LINUX, "--dir=/home/anna/x", "--dir=~/x"),
    "an address": (LINUX, "file:///home/anna/a.png", "file://~/a.png"),
    "escaped slashes": (LINUX, '{"p": "\\/home\\/anna\\/a"}', '{"p": "~\\/a"}'),
    "in quotes": (LINUX, "'/home/anna' \"/home/anna\"", "'~' \"~\""),
    "in brackets": (LINUX, "[/home/anna] (/home/anna) </home/anna>", "[~] (~) <~>"),
    "in a sentence": (LINUX, "/home/anna, /home/anna; in /home/anna.", "~, ~; in ~."),
    "in a list of paths": (LINUX, "/home/anna:ro:/home/anna/x", "~:ro:~/x"),
    "somebody else": (LINUX, "/home/annabel /home/anna-2 /home/anna.old", ""),
    "somewhere else": (LINUX, "/mnt.2/home/anna /x/home/anna/y", ""),
    "other capitals": (LINUX, "/Home/Anna/a.png", ""),
    "Windows": (WINDOWS, "C:\\Users\\Jürgen M\\a.png", "~\\a.png"),
    "its other slashes": (WINDOWS, "C:/Users/Jürgen M/a.png", "~/a.png"),
    "both": (WINDOWS, "C:\\Users/Jürgen M", "~"),
    "its other capitals": (WINDOWS, "c:\\users\\jürgen m\\a.png", "~\\a.png"),
    "its address": (WINDOWS, "file:///C:/Users/J%C3%BCrgen%20M/a.png", "file:///~/a.png"),
    "JSON": (WINDOWS, json.dumps({"p": WINDOWS + "\\a"}), '{"p": "~\\\\a"}'),
    "JSON of letters": (WINDOWS, json.dumps({"p": WINDOWS}, ensure_ascii=False), '{"p": "~"}'),
    "JSON in JSON": (WINDOWS, json.dumps(json.dumps(WINDOWS, ensure_ascii=False)), r'"\"~\""'),
    "a sentence of Windows": (WINDOWS, f"in {WINDOWS}.", "in ~."),
    "another user": (WINDOWS, "C:\\Users\\Jürgen Meier", ""),
    "another drive": (WINDOWS, "D:\\Users\\Jürgen M", ""),
    "a share": (SHARE, "\\\\Server\\homes\\anna\\a.png", "~\\a.png"),
    "a share in JSON": (SHARE, json.dumps([SHARE]), '["~"]'),
    **{f"no home: {home!r}": (home, "/ ~/x C:\\x \\\\x", "") for home in ("", "/", "~", "C:\\")},
}


@pytest.mark.parametrize(("home", "text", "left"), HOMES.values(), ids=HOMES)
def test_the_home_folder_is_not_told(home: str, text: str, left: str) -> None:
    """However it is written; empty for what stays as it is."""
    assert clean_text(text, home) == (left or text)
    assert clean({text: [text]}, home) == {left or text: [left or text]}


PICTURE = bytes(range(256)) * 40
PACKED = base64.b64encode(PICTURE).decode()
SHA = hashlib.sha256(PICTURE).hexdigest()
SAYS = f"data:(image/png, {len(PICTURE)} bytes, sha256 {SHA})"

DATA: dict[str, tuple[str, str]] = {
    "picture": (f"data:image/png;base64,{PACKED}", SAYS),
    "capitals": (f"DATA:image/png;BASE64,{PACKED}", SAYS),
    "spaces": (f"  data: image/png ; base64 ,{PACKED[:76]}\n {PACKED[76:]} ", SAYS),
    "for addresses": (f"data:image/png;base64,{PACKED.replace('+', '-').replace('/', '_')}", SAYS),
    "no padding": (f"data:image/png;base64,{PACKED.rstrip('=')}", SAYS),
    "escaped": ("data:image/png;base64," + PACKED.replace("A", "%41"), SAYS),
    "no base64": ("data:image/png," + "".join(f"%{b:02x}" for b in PICTURE), SAYS),
    "a LoRA": (f"data:;base64,{PACKED}", SAYS.replace("image/png, ", "")),
    "parameters": (f"data:image/png;name={SHA};base64,{PACKED}", SAYS),
    "in a text": (f"see data:image/png;base64,{PACKED}, there", f"see {SAYS}, there"),
    "in lines": (
        "see:\ndata:image/png;base64,"
        + "\n".join(PACKED[at : at + 76] for at in range(0, len(PACKED), 76)),
        "see:\n" + SAYS,
    ),
    "in JSON": (
        json.dumps({"image": f"data:image/png;base64,{PACKED}", "seed": 3}),
        json.dumps({"image": SAYS, "seed": 3}),
    ),
}


@pytest.mark.parametrize(("text", "left"), DATA.values(), ids=DATA)
def test_inline_data_becomes_kind_size_and_hash(text: str, left: str) -> None:
    assert clean_text(text, "") == left


@pytest.mark.parametrize(
    "text",
    [
        "data:image/png;base64,A",
        f"data:image/png;base64,{'!' * 99}",
        f"data:image/png;base64,{PACKED[:5]}\ud800",
        f"data:text/plain,{'x' * 99}\ud800",
        f"data:,{'%4' * 40}",
    ],
    ids=ascii,
)
def test_broken_data_is_described_too(text: str) -> None:
    assert clean_text(text, "").startswith("data:(")
    assert " bytes, sha256 " in clean_text(text, "")


def test_the_rest_of_a_graph_stays() -> None:
    graph: dict[str, Any] = {
        "1": {"class_type": "A", "inputs": {"image": DATA["picture"][0], "seed": 3, "on": True}},
        "2": {"class_type": "B", "inputs": {"from": ["1", 0], "text": "a cat", "none": None}},
    }
    cleaned: Any = clean(graph, "")
    assert cleaned["1"]["inputs"].pop("image") == SAYS
    del graph["1"]["inputs"]["image"]
    assert cleaned == graph


LARGE: dict[str, str] = {
    "letters": "a" * 2**22,
    "dots": "a." * 2**21,
    "colons": "a:" * 2**21,
    "at": "a:b@" * 2**20,
    "slashes": "/" * 2**22,
    "backslashes": "\\" * 2**22,
    "drives": "C:\\" * 2**20,
    "hosts": "a.example/" * 2**19,
    "schemes": "https://" * 2**19,
    "queries": "https://a.example/?" * 2**18,
    "one query": PLACE + "?" + "a" * 2**22,
    "punctuation": PLACE + "?" + ")" * 2**21 + "a",
    "words": "see https://a.example/x?y=z " * 2**17,
    "data": "data:," * 2**19,
    "heads": "data:;" * 2**19,
    "base64": "data:;base64," + "A" * 2**24,
    "escapes": "data:," + "%41" * 2**21,
    "spaces": "data:;base64,A" + " " * 2**21,
    "escaped": PLACE + "%3f" * 2**20,
    "ampersands": PLACE + "&a" * 2**20,
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_no_text_takes_long(text: str) -> None:
    began = time.thread_time()
    clean_text(text, "/home/anna")
    clean_text(text, WINDOWS)
    assert time.thread_time() - began < 16


def test_a_large_data_uri_takes_little_memory() -> None:
    text = "data:image/png," + "%41" * 2**21
    tracemalloc.start()
    clean_text(text, "")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * len(text)

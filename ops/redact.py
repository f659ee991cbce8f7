"""What goes out of a text before it is written into a picture that people pass on.

An address keeps where it leads and loses its query, its fragment, user and password: those hold
tokens and signatures under any name. A `data:` URI becomes its kind, size and hash. Known forms of
tokens go wherever they stand, and the home folder becomes `~`. Imports the standard library alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Final
from urllib.parse import quote, unquote_to_bytes

REDACTED: Final = "[removed]"

_SECRET_NAME = re.compile(
    r"(?i)(^|[_-])(token|secret|password|passwd|(api|access)_?key|jwt|sas|authorization)$"
)
_SECRET_TEXT = (
    re.compile(r"\b(?:hf|r8)_[A-Za-z0-9]{16,}"),
    re.compile(r"(?i)(?<=bearer )[\w.~+/=-]{8,}"),
    re.compile(
        r"(?i)(?<=[?&])((?:[\w-]{0,40}token|(?:api|access)?_?key|secret|password|sig|jwt|sas"
        r"|x-amz-\w{1,40}|[\w-]{0,40}signature)=)[^&#\s\"']+"
    ),
)

# --- addresses ---

_REST = r"(?:[^\s\"<>\\]|\\/|\\u[0-9a-fA-F]{4})*"
"""The rest of an address in a text, also of one in JSON that is itself a text."""

_HOST = (
    r"(?:localhost|(?:[\w-]{1,63}\.){1,10}[a-z][\w-]{1,62}\.?|\d{1,3}(?:\.\d{1,3}){3})"
    r"(?::\d{1,5})?(?:\\?/|(?=\?[\w%.-]{1,80}=))"
)
_SCHEME = r"[a-z][a-z0-9+.-]{1,20}:(?:\\?/){2}"
_ADDRESS = re.compile(
    rf"(?i)(?<![a-z0-9+.-]){_SCHEME}{_REST}"
    rf"|(?<![\w/:\\])(?:\\?/){{2}}(?={_HOST}){_REST}"
    rf"|(?<!\w)(?:hf|huggingface|civitai|replicate|urn|air):{_REST}"
    rf"|(?<![\w./\\-]){_HOST}{_REST}"
)
_WHOLE = re.compile(r"(?i)\s*https?:[/\\]{2}.*")
"""A text that is nothing but one address, which may have spaces in its query."""

_LOGIN = re.compile(
    rf"(?i)(?<![^\s\"'(<>])[^\s/@:\"<>()\[\]]{{1,100}}:[^\s/\"<>]{{1,200}}@(?={_HOST})"
)
_FRONT = re.compile(rf"(?i){_SCHEME}|(?:\\?/){{2}}|https?:[/\\]{{2}}")
_PLACE = re.compile(r"(?:\[[0-9a-fA-F:.%]{1,60}\]|[^:@]*)(?::\d{0,5})?")
"""Host and port, without user or password."""

_PUNCTUATION = ")]}>'`.,;:!?*"
"""What may end the sentence or the bracket around an address."""

_QUERY = re.compile(r"(?i)[?#]|[&;][\w%.-]{1,80}=|%3f(?=[^/]{0,200}(?:=|%3d))")
_QUERY_OR_NAME = re.compile(r"(?i)\?|[#&;][\w%.-]{1,80}=|%3f(?=[^/]{0,200}(?:=|%3d))")
"""The same where the text may be the path of a file, in which `#` is a letter like others."""

_HASH = re.compile(r"(?i)#sha256[=:][0-9a-f]{64}$")
_CIVITAI = re.compile(r"(?i)(?:https?://)?(?:www\.)?civitai\.(?:com|red|green)/|civitai:")
_CIVITAI_PAIR = re.compile(
    r"(?:modelVersionId|fileId)=\d{1,12}|(?:type|format|size|fp|quantType)=\w{1,16}"
)
"""What of a query of CivitAI says which file is meant."""

# --- data: URIs ---

_HEAD = re.compile(r"(?:[\w.+-]{1,80}/[\w.+-]{1,80})?(?:;[\w.+-]{1,80}(?:=[\w.+-]{0,80})?){0,9}")
_WHOLE_DATA = re.compile(r"(?is)\s*data:([^,\"<>]{0,200}),(.*)")
_DATA = re.compile(rf"(?i)(?<![\w.+-])data:([\w.+/=;-]{{0,200}}),({_REST}(?:\s+[\w+/=-]{{40,}})*)")
_SENTENCE = 64
"""Letters after `data:word,` that may be a sentence."""

_SLICE = 2**16


def clean(value: object, home: str) -> object:
    """Return a JSON value whose texts are clean; NaN and infinity become null.

    Args:
        value: not modified.
        home: the user's home folder, or empty.
    """
    if isinstance(value, str):
        return clean_text(value, home)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {
            clean_text(str(k), home): REDACTED
            if isinstance(v, str) and v and _SECRET_NAME.search(str(k))
            else clean(v, home)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [clean(item, home) for item in value]
    return value


def clean_text(text: str, home: str) -> str:
    """Return a text without secrets, queries of addresses, inline data and the home folder."""
    text = _without_data(text)
    if _WHOLE.fullmatch(text):
        text = _bare(text.strip())
    else:
        text = _LOGIN.sub(f"{REDACTED}@", text)
        text = _ADDRESS.sub(lambda match: _bare_word(match[0]), text)
    for pattern in _SECRET_TEXT:
        text = pattern.sub(lambda m: (m.group(1) if m.lastindex else "") + REDACTED, text)
    if pattern := _home_pattern(home):
        text = pattern.sub("~", text)
    return text


# --- the home folder ---


@cache
def _home_pattern(home: str) -> re.Pattern[str] | None:
    """Return what finds a home folder as people, addresses and JSON within a text write it.

    Args:
        home: an absolute path, or one that is no folder of somebody's: empty, a root, `~`.
    """
    first, *parts = re.split(r"[\\/]+", home.rstrip("\\/"))
    if not parts:
        return None
    start = "" if first else r"(?:\\?/|\\{1,4})"
    names = r"[\\/]{1,8}".join(_spelt(part) for part in (first, *parts) if part)
    how = re.IGNORECASE if "\\" in home else 0  # Windows tells no capitals apart
    return re.compile(rf"(?<![\w.-]){start}{names}(?!\.?[\w-])", how)


def _spelt(part: str) -> str:
    # A name as it is, in an address and in JSON; half a character must not end the run.
    ways = {part: None, quote(part, errors="replace"): None, json.dumps(part)[1:-1]: None}
    return f"(?:{'|'.join(map(re.escape, ways))})"


# --- addresses ---


def _bare_word(word: str) -> str:
    address = word.rstrip(_PUNCTUATION)
    return _bare(address) + word[len(address) :]


def _bare(address: str) -> str:
    """Return where an address leads."""
    front = _FRONT.match(address)
    start = front.end() if front else 0
    query = (_QUERY if front else _QUERY_OR_NAME).search(address, start)
    end = query.start() if query else len(address)
    rest = address[start:end] + (_kept(address, end) if query else "")
    if front is None:
        return rest
    first, slash, path = rest.partition("/")
    _, at, place = first.rpartition("@")
    # A password may hold the sign that ends the host or starts the query.
    hidden = "" if slash else address[end:].partition("/")[0]
    if "@" in hidden or not _PLACE.fullmatch(place):
        return front[0] + REDACTED
    return front[0] + (f"{REDACTED}@" if at else "") + place + slash + path


def _kept(address: str, start: int) -> str:
    """What of a query and a fragment stays: which file is meant, and the hash it must have."""
    query = re.split(r"[?#&]", address[start:]) if _CIVITAI.match(address) else []
    pairs = [pair for pair in query if _CIVITAI_PAIR.fullmatch(pair)]
    digest = _HASH.search(address)
    return ("?" + "&".join(pairs) if pairs else "") + (digest[0] if digest else "")


# --- data: URIs ---


def _without_data(text: str) -> str:
    if whole := _WHOLE_DATA.fullmatch(text):
        head = re.sub(r"\s+", "", whole[1])
        if _HEAD.fullmatch(head) and (head == whole[1] or _is_base64(head)):
            return _described(head, whole[2])
    return _DATA.sub(_described_word, text)


def _described_word(match: re.Match[str]) -> str:
    head, body = match[1], match[2].rstrip(_PUNCTUATION)
    if not (_is_base64(head) or "/" in head or len(body) >= _SENTENCE):
        return match[0]
    return _described(head, body) + match[2][len(body) :]


def _described(head: str, body: str) -> str:
    """Return what stands for a data: URI: kind, size and hash of its bytes."""
    data = b"".join(_unquoted(body.encode("utf-8", "surrogatepass")))
    if _is_base64(head):
        packed = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        try:
            data = base64.b64decode(packed + b"=" * (-len(packed) % 4))
        except binascii.Error:
            head = "broken"
    kind = head.partition(";")[0]
    size = f"{len(data)} bytes, sha256 {hashlib.sha256(data).hexdigest()}"
    return f"data:({kind}, {size})" if kind else f"data:({size})"


def _unquoted(body: bytes) -> Iterator[bytes]:
    """Yield the bytes that a body stands for, in pieces: one call would take 70 times its size."""
    at = 0
    while at < len(body):
        end = at + _SLICE
        cut = body.rfind(b"%", end - 2, end)
        end = end if cut < 0 else cut
        yield unquote_to_bytes(body[at:end])
        at = end


def _is_base64(head: str) -> bool:
    return head.lower().endswith(";base64")

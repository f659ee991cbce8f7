"""From the body of a call to what is to be drawn. Pure.

What is refused is refused here, in words that hold nothing of the values: one client sends its own
token in them when it is told to send files as data.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, cast

from ..errors import CallError, NotThisWayError, RequestError, SourceError
from ..lora_fetch.parser import parse
from ..lora_fetch.source import Source
from ..prediction.data_uri import check_data_uri, is_data_uri
from ..prediction.plan import make_plan
from ..prediction.request import by_field, check_value, parse_request
from ..prediction.spec import FIELD, FIELD_OF
from .job import Event
from .options import UNNAMED, Options, own_version

HIDDEN: Final = "hidden"
"""The version of a model that was called without one."""

WAIT_LIMIT: Final = 59.0
"""A call is answered before the clients stop waiting for it, 60.5 s, and then ask twice."""

_VERSION: Final = re.compile(r"[0-9a-fA-F]{6,64}")
_NAME: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,94}/[A-Za-z0-9][\w.-]{0,94}", re.ASCII)
_PLAIN: Final = re.compile(r"\w{1,40}", re.ASCII)
_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_LORAS: Final = ("lora", "extra_lora")
PICTURES: Final = ("image", "mask")
_PICTURE_FORMS: Final = "give a data: URI, an https link, or a file sent to /v1/files"


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A call that is taken.

    Attributes:
        model: owner/name.
        version: as it was called, or `HIDDEN`.
        input: the fields that were given, by the names that were used.
        request: the fields that are drawn, all but the seed where none was given.
        notes: what the client should know, in lines.
        webhook: where to, or empty.
        events: what is told there.
        digest: of everything that was asked.
    """

    model: str
    version: str
    input: dict[str, Any] = field(repr=False)
    request: dict[str, Any] = field(repr=False)
    notes: tuple[str, ...]
    webhook: str = field(repr=False)
    events: tuple[str, ...]
    digest: str


def read_call(
    body: object, options: Options, *, model: str = "", version: str = "",
    issued: Callable[[str], str] = lambda _: "",
) -> Asked:  # fmt: skip
    """Return what a body asks for.

    Args:
        body: of the call, decoded.
        options: names and what is allowed.
        model: owner/name that the path names; empty where the body's `version` says it.
        version: the same for Cog, whose body has none.
        issued: gives the model that was told this version of its own; empty for any other.

    Raises:
        CallError: it is not taken.
    """
    if not isinstance(body, dict):
        raise CallError(400, "Send a JSON object with the fields under input.", title="Bad body")
    given = cast("dict[str, Any]", body)
    if not model and not version:
        model, version = split_version(given.get("version"))
        model = model or options.model_of(version) or issued(version)
    base = stands_for(model, version, options)
    fields, dropped = _fields(given.get("input"))
    request = _request(base, fields, dropped, options)
    return Asked(
        model=model or UNNAMED,
        version=version or HIDDEN,
        input=fields,
        request=request,
        notes=_notes(dropped),
        webhook=_webhook(given),
        events=_events(given),
        digest=digest(given, model, version),
    )


def digest(body: Mapping[str, Any], model: str, version: str) -> str:
    """Return a hash of a call, the same for the same one."""
    text = json.dumps([model, version, body], sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def split_version(text: object) -> tuple[str, str]:
    """Return owner/name and version of what a body calls `version`; either may be empty.

    Raises:
        CallError: it is neither.
    """
    if isinstance(text, str):
        name, _, version = text.strip().partition(":")
        if _NAME.fullmatch(name) and (not version or _VERSION.fullmatch(version)):
            return name, version
        if not version and _VERSION.fullmatch(name):
            return "", name
    raise CallError(
        422,
        "version: write owner/name, owner/name:version or a version's 64 digits.",
        title="Invalid version",
    )


def is_name(text: str) -> bool:
    """Whether a text is owner/name."""
    return _NAME.fullmatch(text) is not None


# --- what the name means ---


def stands_for(model: str, version: str, options: Options) -> Mapping[str, Any]:
    """Return the fields that a model's name stands for.

    Raises:
        CallError: it is not served here.
    """
    pinned = "" if version in (HIDDEN, own_version(model)) else version
    mapped = options.named(model, pinned)
    if mapped is not None:
        return mapped
    if not model:
        raise CallError(
            404,
            "This version belongs to no model that is known here: a call says the version alone. "
            "If you run this server, add --model owner/name:version, or give it a name in the "
            "file of --names. A call of owner/name, without a version, needs neither.",
            title="Version not found",
        )
    source = f"{model}:{pinned}" if pinned else model
    try:
        permitted = options.permits(parse(source).canonical())
    except SourceError:
        permitted = False
    if not permitted:
        raise CallError(
            403,
            f"{model} is not served here. If you run this server, give it a name in the file of "
            "--names, or allow its weights to be fetched with --allow.",
            title="Not allowed",
        )
    return {"lora": source}


# --- the fields ---


def _fields(raw: object) -> tuple[dict[str, Any], list[str]]:
    """Return the fields of an input that are known, and the names of the others."""
    if raw is None:
        raw = {}
    if not isinstance(raw, dict):
        raise CallError(422, "input: give an object with the fields.", title="Invalid input")
    known: dict[str, Any] = {}
    dropped: list[str] = []
    for name, value in cast("dict[str, Any]", raw).items():
        if name in FIELD_OF:
            known[name] = value
        else:
            dropped.append(name)
    return known, dropped


def _request(
    base: Mapping[str, Any], fields: Mapping[str, Any], dropped: Sequence[str], options: Options
) -> dict[str, Any]:
    """Return the whole request.

    Raises:
        CallError: fields are wrong; it names each.
    """
    wrong = list(_each(fields))
    if fields.get("prompt") is None:
        hint = "; send files with the strategy 'upload'" if "auth" in dropped else ""
        wrong.insert(0, ("prompt", f"is missing; {FIELD['prompt'].allowed}{hint}"))
    if wrong:
        raise refused(wrong)
    try:
        given = {name: _bare(name, value) for name, value in by_field(fields).items()}
        parsed = parse_request({**by_field(base), **given})
        # An image's size is known only where it is drawn.
        make_plan(parsed, seed=0, image=(1, 1) if parsed.image else None, mask=bool(parsed.mask))
    except RequestError as error:
        raise refused([(error.field, error.allowed)]) from None
    wrong += [(name, why) for name in _LORAS if (why := _lora(given.get(name, ""), options))]
    wrong += [(name, why) for name in PICTURES if (why := _picture(given.get(name, "")))]
    if wrong:
        raise refused(wrong)
    return {name: value for name, value in asdict(parsed).items() if value is not None}


def refused(wrong: Sequence[tuple[str, str]]) -> CallError:
    """Return the error of fields that are wrong."""
    reason = "".join(f"- input.{name}: {why}\n" for name, why in wrong)
    return CallError(422, reason, title="Input validation failed", fields=wrong)


def _each(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what is wrong with single values."""
    wrong: list[tuple[str, str]] = []
    for name, value in fields.items():
        known = FIELD[FIELD_OF[name]]
        if value is None:
            continue
        try:
            check_value(known, value)
        except RequestError as error:
            wrong.append((name, error.allowed))
    return wrong


def _lora(text: str, options: Options) -> str:
    """Return why a LoRA is not taken; empty if it is."""
    if not text:
        return ""
    try:
        source: Source = parse(text)
    except NotThisWayError as error:
        return str(error)
    except SourceError:
        return "names no LoRA; write owner/name, a link to one, or a file of the loras folder"
    if not options.permits(source.canonical()):
        return "is not allowed here; whoever runs this server can allow it with --allow"
    return ""


def _picture(text: str) -> str:
    """Return why a picture is not taken; empty if it may be. Files of this machine are not."""
    if not text or text.startswith(("https://", "http://", "/v1/files/")):
        return ""
    if is_data_uri(text):
        try:
            check_data_uri(text)
        except ValueError:
            return _PICTURE_FORMS
        return ""
    return _PICTURE_FORMS


def _bare(name: str, value: Any) -> Any:
    """Return a source as it is checked, and so as it is drawn: without the blanks around it."""
    return value.strip() if name in (*_LORAS, *PICTURES) else value


def _notes(dropped: Sequence[str]) -> tuple[str, ...]:
    names = ", ".join(name if _PLAIN.fullmatch(name) else "(another)" for name in dropped[:20])
    return (f"Not a field of this model, left out: {names}",) if names else ()


# --- the rest of the call ---


def _webhook(body: Mapping[str, Any]) -> str:
    url = body.get("webhook") or body.get("webhook_completed") or ""
    if not isinstance(url, str) or len(url) > 4096:
        raise CallError(422, "webhook: give an https address.", title="Invalid webhook")
    return url


def _events(body: Mapping[str, Any]) -> tuple[str, ...]:
    every, names = tuple(event.value for event in Event), body.get("webhook_events_filter")
    if names is None or names == []:
        # The older name of the field says when it is called.
        return every if body.get("webhook") else (Event.COMPLETED.value,)
    if not isinstance(names, list) or not all(
        name in every for name in cast("list[object]", names)
    ):
        raise CallError(
            422, f"webhook_events_filter: choose from {', '.join(every)}.", title="Invalid filter"
        )
    return tuple(cast("list[str]", names))


def wait_seconds(prefer: str) -> float | None:
    """Return how long a call's answer is held back; None where it is not.

    Args:
        prefer: the header's text: `wait`, or `wait=5`, among others.
    """
    for part in prefer.split(","):
        name, _, value = part.strip().partition("=")
        if name.strip().lower() != "wait":
            continue
        try:
            seconds = float(value) if value.strip() else WAIT_LIMIT
        except ValueError:
            return None
        return min(seconds, WAIT_LIMIT) if seconds > 0 else None
    return None


def duration(text: str) -> float:
    """Return the seconds of a text such as `1m30s`, `15s` or `90`.

    Raises:
        CallError: it is none.
    """
    parts = _DURATION.findall(text.strip().lower())
    if not parts or "".join(number + unit for number, unit in parts) != text.strip().lower():
        raise CallError(
            422, "Cancel-After: write a time such as 15s, 1m or 1h.", title="Invalid header"
        )
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
    return min(max(seconds, 1.0), 24 * 3600.0)

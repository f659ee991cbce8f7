"""From the body of a call to what is drawn, and what is refused in which words."""

from __future__ import annotations

from typing import Any

import pytest

from flux_hotswap.engine.pictures import is_link
from flux_hotswap.errors import CallError
from flux_hotswap.hosted_api.ask import (
    HIDDEN,
    WAIT_LIMIT,
    duration,
    read_call,
    split_version,
    wait_seconds,
)
from flux_hotswap.hosted_api.options import KNOWN, UNNAMED, Options, own_version

HEX, OTHER = "6b8e" * 16, "5c7d" * 16
OPTIONS = Options(
    names={
        "acme/mapped": {"lora": "sticker.safetensors", "lora_scale": 0.5},
        HEX: {"model": "schnell"},
    },
    allow=("acme/*", "hf:*"),
)
SECRET = "r8_0123456789abcdef0123"  # noqa: S105 - what must not come back


def ask(given: dict[str, Any] | None = None, /, version: str = "acme/flux", **body: Any) -> Any:
    fields = {"prompt": "a star", **(given or {})}
    return read_call({"version": version, "input": fields, **body}, OPTIONS)


@pytest.mark.parametrize(
    ("version", "lora", "model", "called"),
    [
        pytest.param("acme/flux", "acme/flux", "acme/flux", HIDDEN, id="a name is the LoRA"),
        pytest.param(f"acme/x:{OTHER}", f"acme/x:{OTHER}", "acme/x", OTHER, id="a version"),
        pytest.param(
            f"acme/flux:{own_version('acme/flux')}", "acme/flux", "acme/flux",
            own_version("acme/flux"), id="the version that we gave it",
        ),
        pytest.param("acme/mapped", "sticker.safetensors", "acme/mapped", HIDDEN, id="mapped"),
        pytest.param(HEX, None, UNNAMED, HEX, id="a mapped version alone"),
        pytest.param("black-forest-labs/flux-dev", None, "black-forest-labs/flux-dev", HIDDEN,
                     id="the model without a LoRA"),
    ],
)  # fmt: skip
def test_a_name_means_a_lora(version: str, lora: str | None, model: str, called: str) -> None:
    asked = ask(version=version)
    assert (asked.request.get("lora"), asked.model, asked.version) == (lora, model, called)


@pytest.mark.parametrize("name", ["acme/mapped", *KNOWN])
def test_the_version_that_we_gave_a_name_means_it_alone_too(name: str) -> None:
    alone, named = (ask(version=version) for version in (own_version(name), name))
    assert (alone.model, alone.request) == (name, named.request)


def test_a_version_that_was_told_for_a_name_means_it_alone_too() -> None:
    told = {own_version("acme/told"): "acme/told", own_version("other/x"): "other/x"}

    def call(version: str) -> Any:
        body = {"version": version, "input": {"prompt": "a star"}}
        return read_call(body, OPTIONS, issued=lambda each: told.get(each, ""))

    assert call(own_version("acme/told")).request["lora"] == "acme/told"
    for version, status in ((own_version("acme/never"), 404), (own_version("other/x"), 403)):
        with pytest.raises(CallError) as refused:
            call(version)
        assert refused.value.status == status


def test_what_is_given_wins_over_what_a_name_stands_for() -> None:
    asked = ask({"lora_weights": "acme/other", "lora_scale": 2}, version="acme/mapped")
    assert asked.request["lora"] == "acme/other"
    assert asked.request["lora_scale"] == 2
    assert ask(version=HEX).request["model"] == "schnell"
    assert ask({"model": "dev"}, version=HEX).request["model"] == "dev"


def test_a_name_stands_for_fields_by_any_of_their_names() -> None:
    options = Options(names={"acme/alias": {"lora_weights": "a.safetensors", "lora_scale": 0.5}})
    for given, lora in (({}, "a.safetensors"), ({"lora": "b.safetensors"}, "b.safetensors")):
        asked = read_call({"version": "acme/alias", "input": {"prompt": "x", **given}}, options)
        assert (asked.request["lora"], asked.request["lora_scale"]) == (lora, 0.5)


BLANKS = "".join(chr(code) for code in range(0x110000) if chr(code).isspace())


@pytest.mark.parametrize("field", ["image", "mask"])
@pytest.mark.parametrize("blanks", ["", *BLANKS, BLANKS, "\u200b", "\ufeff"], ids=ascii)
def test_what_is_checked_is_what_is_drawn(field: str, blanks: str) -> None:
    """A text that looks like a link to one and like a name to the other would read any file."""
    given = {"image": "https://x.org/a.png", field: f"{blanks}https://../private.png [output]"}
    try:
        drawn = ask(given).request[field]
    except CallError as error:
        assert [name for name, _ in error.fields] == [field]
    else:
        assert is_link(drawn)


@pytest.mark.parametrize(
    "text", ["\t/v1/files/../x.png", "\u2003data:,x", " https://x.org/a.png\n"]
)
def test_a_source_is_taken_without_the_blanks_around_it(text: str) -> None:
    asked = ask({"image": text, "lora": " acme/flux\n"})
    assert asked.request["image"] == text.strip()
    assert asked.request["lora"] == "acme/flux"


def test_the_request_is_whole_but_for_the_seed() -> None:
    request = ask({"num_outputs": 2}).request
    assert (request["num_outputs"], request["go_fast"]) == (2, True)
    assert "seed" not in request
    assert ask({"seed": 7}).request["seed"] == 7


def test_the_input_is_kept_as_it_was_given() -> None:
    asked = ask({"seed": None, "lora_weights": "acme/flux"})
    assert asked.input == {"prompt": "a star", "seed": None, "lora_weights": "acme/flux"}


def test_unknown_fields_are_left_out_and_told_by_name() -> None:
    asked = ask({"foo": SECRET, "a b": 1, SECRET + "!": 2})
    assert asked.notes == ("Not a field of this model, left out: foo, (another), (another)",)
    assert SECRET not in f"{asked.input} {asked.request} {asked.notes}"


WRONG = [
    pytest.param({"prompt": None}, ["prompt"], id="prompt missing"),
    pytest.param({"prompt": 7}, ["prompt"], id="prompt no text"),
    pytest.param({"image": "photo.png"}, ["image"], id="image a file of this machine"),
    pytest.param({"image": "/etc/passwd"}, ["image"], id="image a path"),
    pytest.param({"image": "data:image/png;base64"}, ["image"], id="image broken data"),
    pytest.param({"mask": "https://x.org/m.png"}, ["mask"], id="mask alone"),
    pytest.param({"aspect_ratio": "5:7"}, ["aspect_ratio"], id="aspect_ratio"),
    pytest.param({"aspect_ratio": "custom", "width": 512}, ["height"], id="custom without height"),
    pytest.param({"height": 100}, ["height"], id="height"),
    pytest.param({"width": "512"}, ["width"], id="width as text"),
    pytest.param({"prompt_strength": 1.5}, ["prompt_strength"], id="prompt_strength"),
    pytest.param({"model": "pro"}, ["model"], id="model"),
    pytest.param({"num_outputs": 9}, ["num_outputs"], id="num_outputs"),
    pytest.param({"num_inference_steps": 2.5}, ["num_inference_steps"], id="num_inference_steps"),
    pytest.param({"guidance_scale": float("nan")}, ["guidance_scale"], id="guidance_scale"),
    pytest.param({"seed": -1}, ["seed"], id="seed"),
    pytest.param({"output_format": "gif"}, ["output_format"], id="output_format"),
    pytest.param({"output_quality": 101}, ["output_quality"], id="output_quality"),
    pytest.param({"disable_safety_checker": "true"}, ["disable_safety_checker"], id="boolean"),
    pytest.param({"go_fast": 1}, ["go_fast"], id="go_fast"),
    pytest.param({"megapixels": 1}, ["megapixels"], id="megapixels"),
    pytest.param({"lora": "../x.safetensors"}, ["lora"], id="lora outside"),
    pytest.param({"lora": "other/flux"}, ["lora"], id="lora not allowed"),
    pytest.param({"lora_scale": 9}, ["lora_scale"], id="lora_scale"),
    pytest.param({"extra_lora": "https://x.org/a.safetensors"}, ["extra_lora"], id="extra_lora"),
    pytest.param({"extra_lora_scale": "1"}, ["extra_lora_scale"], id="extra_lora_scale"),
    pytest.param({"num_outputs": 9, "seed": -1}, ["num_outputs", "seed"], id="two at once"),
]


@pytest.mark.parametrize(("given", "fields"), WRONG)
def test_bad_fields_are_refused_by_name(given: dict[str, Any], fields: list[str]) -> None:
    with pytest.raises(CallError) as refused:
        ask(given)
    assert refused.value.status == 422
    assert [name for name, _ in refused.value.fields] == fields
    assert all(f"- input.{name}: " in str(refused.value) for name in fields)


@pytest.mark.parametrize("field", ["image", "mask", "lora", "extra_lora", "seed", "model", "width"])
def test_no_value_comes_back(field: str) -> None:
    with pytest.raises(CallError) as refused:
        ask({field: f"{SECRET}/x"})
    assert SECRET not in f"{refused.value} {refused.value.fields}"


def test_a_client_that_sends_itself_is_told_what_to_change() -> None:
    """The one for JavaScript, 1.4.0, does so with the strategy 'data-uri'."""
    body = {"version": "acme/flux", "input": {"auth": SECRET, "baseUrl": "http://127.0.0.1"}}
    with pytest.raises(CallError, match="'upload'") as refused:
        read_call(body, OPTIONS)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param([], 400, id="a list"),
        pytest.param({"input": {"prompt": "x"}}, 422, id="no version"),
        pytest.param({"version": 7, "input": {}}, 422, id="version a number"),
        pytest.param({"version": "x", "input": {}}, 422, id="version a word"),
        pytest.param({"version": "f" * 64, "input": {"prompt": "x"}}, 404, id="version unknown"),
        pytest.param({"version": "other/x", "input": {"prompt": "x"}}, 403, id="name not allowed"),
        pytest.param({"version": "acme/flux", "input": []}, 422, id="input a list"),
        pytest.param({"version": "acme/flux", "input": {"prompt": "x"}, "webhook": 1}, 422,
                     id="webhook a number"),
        pytest.param({"version": "acme/flux", "input": {"prompt": "x"},
                      "webhook_events_filter": ["end"]}, 422, id="event unknown"),
    ],
)  # fmt: skip
def test_bad_bodies(body: Any, status: int) -> None:
    with pytest.raises(CallError) as refused:
        read_call(body, OPTIONS)
    assert refused.value.status == status


def test_the_same_call_has_the_same_digest() -> None:
    first, second = ask({"seed": 1}), ask({"seed": 1})
    assert first.digest == second.digest
    assert (
        len({first.digest, ask({"seed": 2}).digest, ask({"seed": 1}, webhook="https://a.b").digest})
        == 3
    )


def test_webhooks() -> None:
    asked = ask(webhook="https://a.b/c", webhook_events_filter=["completed"])
    assert (asked.webhook, asked.events) == ("https://a.b/c", ("completed",))
    older = ask(webhook_completed="https://a.b/c")
    assert (older.webhook, older.events) == ("https://a.b/c", ("completed",))
    assert ask(webhook="https://a.b/c").events == ("start", "output", "logs", "completed")


@pytest.mark.parametrize(
    ("prefer", "seconds"),
    [
        ("", None),
        ("wait", WAIT_LIMIT),
        ("wait=5", 5.0),
        ("wait=0", None),
        ("wait=600", WAIT_LIMIT),
        ("respond-async, wait=3", 3.0),
        ("wait=x", None),
        ("respond-async", None),
    ],
)
def test_prefer(prefer: str, seconds: float | None) -> None:
    assert wait_seconds(prefer) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15s", 15), ("1m", 60), ("1m30s", 90), ("90", 90), ("1500ms", 1.5), ("2h", 7200)],
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "5x", "-1s", "1s later"])
def test_no_durations(text: str) -> None:
    with pytest.raises(CallError, match="Cancel-After"):
        duration(text)


def test_versions() -> None:
    assert split_version("acme/flux:" + HEX) == ("acme/flux", HEX)
    assert split_version("acme/flux") == ("acme/flux", "")
    assert split_version(HEX) == ("", HEX)

"""Pictures as people have them and as strangers send them, in a real ComfyUI."""

from __future__ import annotations

import base64
import io
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from faults.test_slow import BODY, LATE, SERVERS, drip
from graphs import form_graph
from PIL import Image
from runtime.client import Client, ExecutionError, HTTPStatusError, PromptRejectedError
from runtime.session import Comfy

from flux_hotswap.prediction.fill import Prompt

SMALL: dict[str, Any] = {"prompt": "a star", "num_inference_steps": 1, "prompt_strength": 1}
SMALL |= {"disable_safety_checker": True}
seeds = iter(range(1000, 2000))


def graph(**fields: Any) -> Prompt:
    """The graph for every request, with a seed of its own, so that the form runs."""
    return form_graph({**SMALL, "seed": next(seeds), **fields})


def encoded(kind: str, width: int, height: int) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(values).save(stream, kind)
    return stream.getvalue()


# --- cancel ---


@pytest.mark.parametrize("name", [*SERVERS, "a body that drips"])
@pytest.mark.parametrize("field", ["image", "mask"])
def test_cancel_is_heard_within_a_second(comfy: Comfy, name: str, field: str) -> None:
    path = f"/{name.replace(' ', '-')}.png"
    comfy.files.routes[path] = SERVERS.get(name) or (lambda got: drip(got, BODY, ever=b"x"))
    fields = {field: comfy.files.url + path}
    if field == "mask":
        fields["image"] = comfy.client.upload("plain.png", encoded("PNG", 64, 64))
    pressed: list[float] = []

    def press() -> None:
        comfy.client.interrupt()
        pressed.append(time.monotonic())

    def later(node: str, value: int, maximum: int) -> None:
        if not pressed and not maximum:
            timer = threading.Timer(0.4, press)
            timer.daemon = True
            timer.start()

    with pytest.raises(ExecutionError) as stopped:
        comfy.run(graph(**fields), on_progress=later)
    ended = time.monotonic()
    assert stopped.value.interrupted
    assert ended - pressed[0] < 1 + LATE


# --- the server answers others meanwhile ---


@contextmanager
def asked(client: Client) -> Iterator[list[float]]:
    """Ask the server for its queue again and again; how long each answer took."""
    waits: list[float] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            begun = time.monotonic()
            client.queue()
            waits.append(time.monotonic() - begun)
            time.sleep(0.02)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    yield waits
    over.set()
    thread.join()


def usual(client: Client, letters: int) -> float:
    """How long an answer takes while a prompt of that size is refused that holds no picture.

    ComfyUI itself reads it within the loop that answers; on a busy machine that takes its time.
    """
    with asked(client) as waits, pytest.raises((PromptRejectedError, HTTPStatusError)):
        client.submit(graph(seed="A" * letters))
    return max(waits)


DATA: dict[str, tuple[Callable[[], str], str]] = {
    "24 MB of escapes": (lambda: "data:image/png," + "%41" * (8 * 2**20), "escaped characters"),
    "24 MB of escapes as base64": (
        lambda: "data:image/png;base64," + "%41" * (8 * 2**20),
        "escaped characters",
    ),
    "90 MB": (lambda: "data:image/png;base64," + "A" * (90 * 2**20), "64 MB at most"),
    "no comma": (lambda: "data:image/png;base64" + "A" * (24 * 2**20), "needs a comma"),
}


@pytest.mark.parametrize("name", DATA)
def test_a_costly_data_uri_is_refused_and_keeps_nobody_waiting(comfy: Comfy, name: str) -> None:
    make, words = DATA[name]
    given = make()
    prompt, before = graph(image=given), usual(comfy.client, len(given))
    with asked(comfy.client) as waits, pytest.raises((PromptRejectedError, HTTPStatusError)) as no:
        comfy.client.submit(prompt)
    assert words in str(no.value)
    assert len(str(no.value)) < 10_000
    assert max(waits) < 1.5 + 2 * before, (max(waits), before)


def test_a_large_data_uri_is_read_and_keeps_nobody_waiting(comfy: Comfy) -> None:
    """Wrapped at 76 letters and in the alphabet of addresses, as two tools write it."""
    data = encoded("PNG", 128, 96) + bytes(12 * 2**20)
    wrapped = base64.encodebytes(data).decode().replace("+", "-").replace("/", "_").rstrip("=\n")
    before = usual(comfy.client, len(wrapped))
    with asked(comfy.client) as waits:
        found = comfy.run(graph(image=f"data:image/png;base64,{wrapped}"))
    assert found.shown("flux_hotswap")[0]["width"] == 128
    assert max(waits) < 1.5 + 2 * before, (max(waits), before)


# --- damage is told, other formats are not opened ---


def test_a_picture_that_is_cut_short_is_used_with_a_warning(comfy: Comfy) -> None:
    whole = encoded("JPEG", 128, 96)
    name = comfy.client.upload("cut.jpg", whole[: len(whole) * 2 // 3])
    (plan,) = comfy.run(graph(image=name)).shown("flux_hotswap_plan")
    assert (plan["width"], plan["height"]) == (128, 96)
    assert any("image: the file is damaged or cut short" in text for text in plan["warnings"])


def test_a_format_that_starts_a_program_is_not_opened(comfy: Comfy) -> None:
    name = comfy.client.upload("picture.png", encoded("EPS", 64, 64))
    comfy.expect_traceback("not a picture")
    with pytest.raises(ExecutionError) as failed:
        comfy.run(graph(image=name))
    assert "image: not a picture" in failed.value.message
    assert "give a PNG, JPEG, WebP, GIF, BMP or TIFF" in failed.value.message

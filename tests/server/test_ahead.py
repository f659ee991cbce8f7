"""What has to be fetched is fetched before the models load, or beside it: what ran tells."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from fetch.servers import File, Request, Server
from graphs import form_graph
from mini_flux import loras
from runtime.client import Client, ExecutionError
from runtime.comfyui import find_comfyui
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import Comfy

from flux_hotswap.ops.safety.weights import FILES
from flux_hotswap.prediction.fill import Prompt

SMALL: dict[str, Any] = {"prompt": "a star", "aspect_ratio": "custom", "width": 256, "height": 256}
SMALL |= {"num_inference_steps": 1, "disable_safety_checker": True}
LOADERS = {"FluxHotswapLoader", "DualCLIPLoader", "VAELoader"}
seeds = iter(range(1000, 2000))


def graph(**fields: Any) -> Prompt:
    """The graph for every request, with a seed of its own, so that the form runs."""
    return form_graph({**SMALL, "seed": next(seeds), **fields})


def failing(client: Client, prompt: Prompt) -> tuple[ExecutionError, set[str]]:
    """Run a prompt that fails; how, and the classes of the nodes that ran."""
    client.free()
    with pytest.raises(ExecutionError) as failed:
        client.run(prompt)
    return failed.value, {prompt[key]["class_type"] for key in failed.value.result.executed_nodes}


@pytest.mark.parametrize("field", ["lora", "extra_lora"])
@pytest.mark.parametrize("status", [404, 401])
def test_a_lora_that_cannot_be_had_loads_nothing(comfy: Comfy, field: str, status: int) -> None:
    link = comfy.files.file(f"/{field}-{status}.safetensors", b"", statuses=[(status, {})] * 9)
    comfy.expect_traceback(f"{field}: {link}")
    comfy.expect_traceback(link)
    error, ran = failing(comfy.client, graph(**{field: link}))
    assert error.node_type == "FluxHotswapInputs"
    assert error.message.startswith(f"{field}: {link}")
    assert ran == {"FluxHotswapInputs"}


def test_a_picture_that_cannot_be_had_loads_nothing(comfy: Comfy) -> None:
    link = f"{comfy.files.url}/gone.png"
    comfy.expect_traceback(link)
    error, ran = failing(comfy.client, graph(image=link))
    assert error.message.startswith(f"image: {link}")
    assert ran == {"FluxHotswapInputs"}


def test_an_end_of_the_fetch_that_is_bad_names_the_lora(comfy: Comfy) -> None:
    """What is found out only when all bytes are here fails before sampling."""
    link = comfy.files.file("/not-a-lora.safetensors", b"x" * 300_000, rate=1e6)
    comfy.expect_traceback("not-a-lora.safetensors")
    error, ran = failing(comfy.client, graph(lora=link))
    assert "not-a-lora.safetensors" in error.message
    assert "SamplerCustomAdvanced" not in ran


def test_the_models_load_while_a_lora_comes(comfy: Comfy) -> None:
    """The second half of the file is sent when all loaders have begun, and not before."""
    data = loras.as_bytes(loras.diffusers(loras.blocks()) | padding(400_000))
    loading, sent_in_time = threading.Event(), threading.Event()
    comfy.files.routes["/ahead-halves.safetensors"] = halves(data, loading, sent_in_time)
    prompt = graph(lora=f"{comfy.files.url}/ahead-halves.safetensors")
    begun: list[str] = []
    comfy.client.free()

    def look(node: str, value: int, maximum: int) -> None:
        if not maximum:
            begun.append(prompt[node]["class_type"])
            if set(begun) >= LOADERS:
                loading.set()

    result = comfy.run(prompt, on_progress=look)
    assert sent_in_time.is_set(), f"the file had to come first, then ran {begun}"
    assert begun.index("FluxHotswapLora") > begun.index("FluxHotswapLoader")
    assert result.shown("flux_hotswap")[0]["loras"][0]["file"].endswith(".safetensors")
    fetched = [seen for seen in comfy.files.asked("/ahead-halves") if seen.method == "GET"]
    assert len(fetched) == 1


def halves(
    data: bytes, signal: threading.Event, sent_in_time: threading.Event
) -> Callable[[Request], None]:
    """A route that sends half of a file, waits for a signal, and sends the rest."""

    def route(request: Request) -> None:
        request.send_response(200)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        for at in range(4):  # in pieces: what comes at once is put together and told at once
            request.wfile.write(data[at * len(data) // 8 : (at + 1) * len(data) // 8])
            request.wfile.flush()
            time.sleep(0.1)
        if signal.wait(25):  # less than the silence that the fetcher takes for an end
            sent_in_time.set()
        request.wfile.write(data[4 * len(data) // 8 :])

    return route


def test_two_loras_come_side_by_side(comfy: Comfy) -> None:
    state = loras.diffusers(loras.blocks())
    one, two = (
        comfy.files.file(
            f"/ahead-side-{number}.safetensors",
            loras.as_bytes(state | padding(400_000 + number)),
            rate=400_000,
        )
        for number in (0, 2)
    )
    routes = [comfy.files.routes[link.removeprefix(comfy.files.url)] for link in (one, two)]
    both = threading.Event()
    watch = watching(lambda: all(isinstance(r, File) and r.open > 0 for r in routes), both)
    found = comfy.run(graph(lora=one, extra_lora=two)).shown("flux_hotswap")[0]["loras"]
    watch.join()
    assert both.is_set()
    assert [lora["source"] for lora in found] == [one, two]


def test_the_same_lora_twice_is_fetched_once(comfy: Comfy) -> None:
    data = loras.as_bytes(loras.diffusers(loras.blocks()) | padding(8))
    link = comfy.files.file("/ahead-twice.safetensors", data)
    found = comfy.run(graph(lora=link, extra_lora=link)).shown("flux_hotswap")[0]["loras"]
    assert len(found) == 2
    assert len([seen for seen in comfy.files.asked("/ahead-twice") if seen.method == "GET"]) == 1


def test_two_forms_in_one_graph(comfy: Comfy) -> None:
    """The second form lets the first one's fetch go on."""
    state = loras.diffusers(loras.blocks())
    prompt: Prompt = {}
    for letter in "ab":
        data = loras.as_bytes(state | padding(400_000 + 4 * ord(letter)))
        link = comfy.files.file(
            f"/ahead-form-{letter}.safetensors", data, rate=400_000, ranges=False
        )
        for key, node in graph(lora=link).items():
            prompt[f"{letter}{key}"] = json.loads(json.dumps(node))
            for value in prompt[f"{letter}{key}"]["inputs"].values():
                if isinstance(value, list):
                    value[0] = f"{letter}{value[0]}"
    found = comfy.run(prompt).shown("flux_hotswap")
    assert [len(record["loras"]) for record in found] == [1, 1]
    for letter in "ab":
        whole = [s for s in comfy.files.asked(f"/ahead-form-{letter}") if s.method == "GET"]
        assert len(whole) == 1


def test_a_lora_of_no_strength_is_not_fetched(comfy: Comfy) -> None:
    link = f"{comfy.files.url}/ahead-never.safetensors"
    comfy.run(graph(lora=link, lora_scale=0))
    assert comfy.files.asked("/ahead-never") == []


@pytest.mark.parametrize("where", ["waiting for it", "while the models load"])
def test_cancel_ends_what_was_begun(comfy: Comfy, where: str) -> None:
    """The download ends, wherever the prompt is when the user presses Cancel."""
    data = loras.as_bytes(padding(20_000_000))
    name = f"/endless-{where.replace(' ', '-')}.safetensors"
    link = comfy.files.file(name, data, rate=1_000_000, ranges=False)
    route = comfy.files.routes[name]
    assert isinstance(route, File)
    prompt = graph(lora=link)
    at = "FluxHotswapLora" if where == "waiting for it" else "DualCLIPLoader"
    comfy.client.free()

    def cancel(node: str, value: int, maximum: int) -> None:
        if not maximum and prompt[node]["class_type"] == at:
            comfy.client.interrupt()

    with pytest.raises(ExecutionError) as stopped:
        comfy.run(prompt, on_progress=cancel)
    assert stopped.value.interrupted
    ended = threading.Event()
    watching(lambda: route.open == 0, ended).join()
    assert ended.is_set(), "20 MB at 1 MB/s: the download went on"


def test_a_prompt_that_fails_ends_what_was_begun(comfy: Comfy) -> None:
    data = loras.as_bytes(padding(20_000_000))
    link = comfy.files.file("/unwanted.safetensors", data, rate=1_000_000, ranges=False)
    route = comfy.files.routes["/unwanted.safetensors"]
    assert isinstance(route, File)
    prompt = graph(lora=link)
    (comfy.server.models_dir / "text_encoders" / "broken.safetensors").write_bytes(b"broken")
    encoders = next(node for node in prompt.values() if node["class_type"] == "DualCLIPLoader")
    encoders["inputs"]["clip_name1"] = "broken.safetensors"
    comfy.client.free()
    with pytest.raises(ExecutionError) as failed:
        comfy.run(prompt)
    assert failed.value.node_type == "DualCLIPLoader"
    ended = threading.Event()
    watching(lambda: route.open == 0, ended).join()
    assert ended.is_set(), "20 MB at 1 MB/s: the download went on"


# --- the safety checker's files ---


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, Server]]:
    """A server without safety files, and the hub that it asks for them."""
    models = tmp_path_factory.mktemp("bare") / "models"
    for folder in small_models().iterdir():
        if folder.is_dir() and folder.name != "safety_checker":
            shutil.copytree(folder, models / folder.name)
    hub = Server()
    env = {"HF_ENDPOINT": hub.url, "FLUX_HOTSWAP_ALLOW_HOSTS": "127.0.0.1"}
    with ComfyServer(find_comfyui(), models=models, env=env) as server:
        yield Client(server.url), hub
    hub.close()


def test_safety_files_that_cannot_be_had_load_nothing(bare: tuple[Client, Server]) -> None:
    client, hub = bare
    hub.fallback = not_there_for(len(FILES))
    error, ran = failing(client, graph(disable_safety_checker=False))
    assert error.message.startswith("disable_safety_checker: The safety checker's file")
    assert "is missing and the download failed" in error.message
    assert ran == {"FluxHotswapInputs"}
    assert {seen.path.partition("/resolve/")[0] for seen in hub.asked()} == {
        f"/{file.repo}" for file in FILES.values()
    }


def not_there_for(many: int) -> Callable[[Request], None]:
    """A route that answers 404 once so many have asked, so that none of them asks later."""
    asked = threading.Barrier(many)

    def route(request: Request) -> None:
        asked.wait(8)
        request.reply(404)

    return route


@pytest.mark.parametrize("how", ["switched off", "another checker"])
def test_safety_files_that_are_not_needed_are_not_fetched(
    bare: tuple[Client, Server], how: str
) -> None:
    client, hub = bare
    hub.reset()
    prompt = graph(disable_safety_checker=how == "switched off")
    checker = next(node for node in prompt.values() if node["class_type"] == "FluxHotswapSafety")
    if how == "another checker":
        checker["inputs"]["checker"] = "opennsfw"
    client.run(prompt)
    assert hub.asked() == []


def padding(size: int) -> dict[str, torch.Tensor]:
    """A tensor that makes a file large; no model has a place for it."""
    return {"text_model.padding.lora_down.weight": torch.zeros(1, size // 4)}


def watching(seen: Callable[[], bool], event: threading.Event) -> threading.Thread:
    """Set an event once something is seen; look for it at most eight seconds."""

    def watch() -> None:
        end = time.monotonic() + 8
        while time.monotonic() < end and not event.is_set():
            if seen():
                event.set()
            time.sleep(0.01)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread

"""The record of a picture: what ran, from the nodes that did it, in the history and in the file."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from fast_site import KEPT
from mini_flux import loras
from PIL import Image
from runtime.client import Client, Result
from runtime.comfyui import find_comfyui
from runtime.environment import ROOT
from runtime.models import small_models
from runtime.server import ComfyServer
from runtime.session import Comfy

from flux_hotswap.ops import metadata
from flux_hotswap.prediction.fill import Prompt, fill_prompt
from flux_hotswap.prediction.request import parse_request

ASK: dict[str, Any] = {"prompt": "a star", "megapixels": "0.25", "num_inference_steps": 1}
ASK |= {"seed": 11, "lora": "record-1.safetensors", "lora_scale": 0.5}
ASK |= {"extra_lora": "record-2.safetensors", "extra_lora_scale": -1}
SMALL: dict[str, Any] = {"aspect_ratio": "custom", "width": 256, "height": 256, "megapixels": None}
STATE = loras.diffusers(loras.blocks())


@pytest.fixture(scope="module", autouse=True)
def lora_files(comfy: Comfy) -> None:
    for number in (1, 2):
        write(comfy.server, f"record-{number}.safetensors", number)


def write(server: ComfyServer, name: str, note: int) -> None:
    loras.write(STATE, server.models_dir / "loras" / name, {"number": str(note)})


def graph(name: str = "text_to_image", **fields: Any) -> Prompt:
    shipped = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text("utf-8"))
    return fill_prompt(shipped, {**ASK, **fields})


def small(**fields: Any) -> Prompt:
    """The same in 256x256, drawn in a quarter of the time, in bf16."""
    return graph(**{**SMALL, **fields})


def inputs(prompt: Prompt, class_type: str) -> dict[str, Any]:
    return next(node["inputs"] for node in prompt.values() if node["class_type"] == class_type)


def record(result: Result) -> dict[str, Any]:
    """What the Save node, and it alone, says of a run."""
    (found,) = result.shown("flux_hotswap")
    assert any("images" in shown and "flux_hotswap" in shown for shown in result.outputs.values())
    return found


def embedded(client: Client, result: Result) -> dict[str, str]:
    (entry,) = result.images()
    with Image.open(BytesIO(client.view(entry))) as picture:
        return metadata.read(picture)


# --- what it says ---


def test_what_ran(comfy: Comfy) -> None:
    result = comfy.run(graph(num_inference_steps=2))
    found = record(result)
    first, second = found.pop("loras")
    assert found == {
        "prompt": "a star",
        "guidance": 3,
        "t5_length": 512,
        "model": "dev",
        "checkpoint": "flux1-dev.safetensors",
        "engine": "int8 storage",
        "engine_reason": "CPU has no int8 matmul",
        "mode": "txt2img",
        "width": 512,
        "height": 512,
        "num_outputs": 1,
        "steps": 2,
        "start_step": 0,
        "seed": 11,
        "noise": "hosted",
        "safety": {"checker": "hosted", "flags": [False]},
        "warnings": [],
        "version": "0.1.0",
    }
    data = (comfy.server.models_dir / "loras" / "record-1.safetensors").read_bytes()
    assert first["sha256"] == hashlib.sha256(data).hexdigest()
    assert (first["source"], first["file"]) == ("record-1.safetensors", "record-1.safetensors")
    assert first["matched"] == first["keys"] == len(STATE)
    assert first["weights"] > 0
    assert [first["strength"], second["strength"]] == [0.75, -1.5]
    assert first["sha256"] != second["sha256"]


def test_nothing_but_pictures_is_counted(comfy: Comfy) -> None:
    """Later versions of ComfyUI count every dict in a list of outputs as one picture."""
    result = comfy.run(small(seed=4711))
    lists = [values for shown in result.outputs.values() for values in shown.values()]
    counted = [value for values in lists for value in values if isinstance(value, dict)]
    assert counted == result.images()
    assert len(counted) == 1
    assert result.shown("flux_hotswap_plan") != [] != result.shown("flux_hotswap")


def test_what_ran_on_a_picture(comfy: Comfy) -> None:
    buffer = BytesIO()
    Image.new("RGB", (100, 60), "red").save(buffer, "PNG")
    name = comfy.client.upload("record.png", buffer.getvalue())
    fields = {"image": name, "prompt_strength": 0.5, "num_inference_steps": 4}
    found = record(comfy.run(graph("flux_lora_schema", **fields)))
    assert (found["mode"], found["width"], found["height"]) == ("img2img", 112, 64)
    assert (found["steps"], found["start_step"], found["prompt_strength"]) == (2, 2, 0.5)
    assert (found["engine"], found["engine_reason"]) == ("bf16", "image input")
    assert [lora["strength"] for lora in found["loras"]] == [0.5, -1]
    assert found["warnings"] == ["megapixels: ignored, the image sets the size"]


def test_strengths_are_those_that_were_used(comfy: Comfy) -> None:
    """Also where a node was taken off the wire: the plan says 0.75, the node applied 0.3."""
    prompt = graph()
    own = inputs(prompt, "FluxHotswapLora")
    del own["request"]
    own |= {"source": "record-2.safetensors", "scale": 0.2, "go_fast_multiplier": 1.5}
    (lora,) = record(comfy.run(prompt))["loras"]
    assert (lora["file"], round(lora["strength"], 6)) == ("record-2.safetensors", 0.3)


def test_loras_follow_each_other_in_the_order_of_the_nodes(comfy: Comfy) -> None:
    """One more LoRA node behind the request's, which has no request itself."""
    prompt = small()
    ours = next(k for k, node in prompt.items() if node["class_type"] == "FluxHotswapLora")
    more = {"model": [ours, 0], "source": "record-1.safetensors", "scale": 0.1}
    prompt["more"] = {"class_type": "FluxHotswapLora", "inputs": more}
    inputs(prompt, "BasicGuider")["model"] = ["more", 0]
    found = record(comfy.run(prompt))["loras"]
    assert [round(lora["strength"], 6) for lora in found] == [0.5, -1, 0.1]


def test_what_of_a_lora_was_not_applied(comfy: Comfy) -> None:
    state = STATE | {"nothing.knows.this.lora_A.weight": next(iter(STATE.values()))}
    loras.write(state, comfy.server.models_dir / "loras" / "odd.safetensors")
    found = record(comfy.run(small(lora="odd.safetensors", extra_lora=None)))
    (lora,), (warning,) = found["loras"], found["warnings"]
    assert (lora["keys"], lora["matched"]) == (len(state), len(STATE))
    assert warning == "odd.safetensors: not matched: nothing.knows.this.lora_A.weight"


def test_the_forms_multiplier(comfy: Comfy) -> None:
    prompt = graph()
    inputs(prompt, "FluxHotswapInputs")["go_fast_multiplier"] = 1
    assert [lora["strength"] for lora in record(comfy.run(prompt))["loras"]] == [0.5, -1]


def test_nodes_of_others_are_not_guessed_at(comfy: Comfy) -> None:
    """The core draws the noise: nobody of ours knows its seed, and the record claims none."""
    prompt = small()
    sampler = inputs(prompt, "SamplerCustomAdvanced")
    prompt["core"] = {"class_type": "RandomNoise", "inputs": {"noise_seed": 5}}
    sampler["noise"] = ["core", 0]
    assert "seed" not in record(comfy.run(prompt))


def test_two_branches_keep_their_own_record(comfy: Comfy) -> None:
    """Two Save nodes behind one form: each tells of the LoRA node before it."""
    prompt = small()
    branch = {key: json.loads(json.dumps(node)) for key, node in prompt.items()}
    twins = {"FluxHotswapLora", "BasicGuider", "SamplerCustomAdvanced", "VAEDecode"}
    twins |= {"FluxHotswapSafety", "FluxHotswapSave", "FluxHotswapPrompt"}
    renamed = {key for key, node in branch.items() if node["class_type"] in twins}
    for key in renamed:
        for value in branch[key]["inputs"].values():
            if isinstance(value, list) and value[0] in renamed:
                value[0] = f"b{value[0]}"
        prompt[f"b{key}"] = branch[key]
        if branch[key]["class_type"] == "FluxHotswapLora":
            del branch[key]["inputs"]["request"]
            branch[key]["inputs"] |= {"source": "record-2.safetensors", "scale": 2}
    both = comfy.run(prompt).outputs
    told = {
        node: [lora["strength"] for lora in json.loads(shown["flux_hotswap"][0])["loras"]]
        for node, shown in both.items()
        if "flux_hotswap" in shown
    }
    assert sorted(told.values()) == [[0.5, -1], [2]]


# --- it is there in every run ---


def test_again_from_the_cache(comfy: Comfy) -> None:
    prompt = small(seed=12)
    first = record(comfy.run(prompt))
    again = comfy.run(prompt)
    assert again.executed_nodes == []
    assert record(again) == first


def test_only_the_save_node_runs(comfy: Comfy) -> None:
    """The form and all others come from the cache; the record is whole all the same."""
    prompt = small(seed=13)
    first = record(comfy.run(prompt))
    inputs(prompt, "FluxHotswapSave")["filename_prefix"] = "another"
    again = comfy.run(prompt)
    assert [prompt[node]["class_type"] for node in again.executed_nodes] == ["FluxHotswapSave"]
    assert record(again) == first


def test_another_number_of_a_node_does_not_matter(comfy: Comfy) -> None:
    prompt = small(seed=14)
    first = record(comfy.run(prompt))
    moved = {f"9{key}": json.loads(json.dumps(node)) for key, node in prompt.items()}
    for node in moved.values():
        for value in node["inputs"].values():
            if isinstance(value, list):
                value[0] = f"9{value[0]}"
    assert record(comfy.run(moved)) == first


def test_a_lora_file_that_is_another_one_now(comfy: Comfy) -> None:
    write(comfy.server, "record-3.safetensors", 3)
    prompt = small(lora="record-3.safetensors")
    before = record(comfy.run(prompt))["loras"][0]["sha256"]
    write(comfy.server, "record-3.safetensors", 4)
    assert record(comfy.run(prompt))["loras"][0]["sha256"] != before


def test_a_drawn_seed(comfy: Comfy) -> None:
    """The seed that is told draws the same picture."""
    fields = {"seed": None, "output_format": "png"}
    drawn = comfy.run(small(**fields))
    seed = record(drawn)["seed"]
    same = comfy.run(small(**{**fields, "seed": seed}))
    pictures = []
    for result in (drawn, same):
        (entry,) = result.images()
        with Image.open(BytesIO(comfy.client.view(entry))) as picture:
            pictures.append(picture.tobytes())
    assert pictures[0] == pictures[1]
    assert json.loads(embedded(comfy.client, drawn)["flux_hotswap"])["seed"] == seed


@pytest.fixture(scope="module")
def other() -> Iterator[ComfyServer]:
    """A server that keeps the results of many prompts, no model in int8, no text in its files."""
    arguments = ["--cache-lru", "100", "--disable-metadata"]
    options: dict[str, Any] = {"arguments": arguments, "env": {"FLUX_HOTSWAP_INT8_CACHE": "0"}}
    with ComfyServer(find_comfyui(), models=small_models(), **options) as server:
        for number in (1, 2):
            write(server, f"record-{number}.safetensors", number)
        yield server


def test_back_to_an_earlier_prompt(other: ComfyServer) -> None:
    """A cache of many prompts brings one back: its record is not that of the prompt between."""
    client = Client(other.url)
    one, two = small(seed=1), small(seed=2, lora_scale=1)
    first = record(client.run(one))
    client.run(two)
    inputs(one, "FluxHotswapSave")["filename_prefix"] = "back"
    back = client.run(one)
    assert [one[node]["class_type"] for node in back.executed_nodes] == ["FluxHotswapSave"]
    assert record(back) == first


# --- the request itself, for the editor ---


def asked(result: Result) -> dict[str, Any]:
    (found,) = result.shown("flux_hotswap_request")
    return found


def test_the_request_as_it_was_with_the_seed_that_was_used(comfy: Comfy) -> None:
    fields = {**SMALL, "seed": None, "prompt_strength": 0.25, "output_format": "png"}
    result = comfy.run(graph(**fields))
    seed = record(result)["seed"]
    assert parse_request(asked(result)["fields"]) == parse_request({**ASK, **fields, "seed": seed})
    assert result.shown("flux_hotswap_before") == [], "nothing was given to compare with"
    assert asked(result)["left_out"] == []
    assert "request" not in record(result)
    assert "request" not in json.loads(embedded(comfy.client, result)["flux_hotswap"])
    assert asked(comfy.run(graph(**fields)))["fields"]["seed"] != seed


def test_the_request_without_bytes(comfy: Comfy) -> None:
    """A connected picture has no name, and a picture as text is as long as its file.

    The editor compares either with the result.
    """
    buffer = BytesIO()
    Image.new("RGB", (64, 64), "red").save(buffer, "PNG")
    data = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    result = comfy.run(graph("flux_lora_schema", image=data))
    found = asked(result)
    assert found["left_out"] == ["image"]
    assert found["fields"]["prompt_strength"] == 0.8
    assert "image" not in found["fields"]
    prompt = graph("image_to_image")
    loader = inputs(prompt, "LoadImage")
    loader["image"] = comfy.client.upload("wired.png", buffer.getvalue())
    wired = comfy.run(prompt)
    found = asked(wired)
    assert found["left_out"] == ["image"]
    assert "image" not in found["fields"]
    (before,), size = result.shown("flux_hotswap_before"), record(result)
    assert wired.shown("flux_hotswap_before") == [before], "the same image, kept once"
    assert (before["type"], before["subfolder"], len(result.images())) == ("temp", "", 1)
    with Image.open(BytesIO(comfy.client.view(before))) as picture:
        assert picture.size == (size["width"], size["height"])
        assert np.abs(np.asarray(picture, np.int16) - (255, 0, 0)).max() < 4, "all red"


# --- in the file ---


@pytest.mark.parametrize("output_format", ["png", "webp", "jpg"])
def test_the_file_holds_it(comfy: Comfy, output_format: str) -> None:
    result = comfy.run(graph(output_format=output_format, seed=15))
    texts = embedded(comfy.client, result)
    assert json.loads(texts["flux_hotswap"]) == record(result)
    last = texts["parameters"].splitlines()[-1]
    assert texts["parameters"].startswith("a star\n")
    assert "Steps: 1, Sampler: Euler" in last
    assert "Seed: 15, Size: 512x512, Model: flux1-dev" in last
    first = record(result)["loras"][0]
    assert f"record-1: {first['sha256'][:10]}" in last
    assert 0.7 < first["arrives"] < first["strength"] == 0.75
    assert f"<lora:record-1:{first['arrives']:.4g}>" in texts["parameters"]


def test_a_jpg_without_room_for_the_graph(comfy: Comfy) -> None:
    large = {"extra_pnginfo": {"workflow": {"x": "y" * 100_000}}}
    result = comfy.client.run(small(output_format="jpg", seed=16), extra_data=large)
    texts = embedded(comfy.client, result)
    assert set(texts) == {"flux_hotswap", "parameters"}
    assert json.loads(texts["flux_hotswap"])["seed"] == 16


def test_without_metadata(other: ComfyServer) -> None:
    """ComfyUI's switch keeps everything out of the file; the history has the record."""
    client = Client(other.url)
    result = client.run(small(lora=None, extra_lora=None, output_format="png"))
    assert record(result)["seed"] == 11
    assert embedded(client, result) == {}


def test_without_room_for_what_is_quantised(other: ComfyServer) -> None:
    found = record(Client(other.url).run(graph(seed=3)))
    assert (found["engine"], found["engine_reason"]) == ("int8 storage", "CPU has no int8 matmul")
    assert not (other.models_dir / "diffusion_models" / KEPT).exists()


# --- README's example ---


def test_the_example_of_the_readme_twice(comfy: Comfy, tmp_path: Any, capsys: Any) -> None:
    """The snippet as it stands there, but for the address, run twice in a row."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (code,) = (part for part in text.split("```python\n")[1:] if "urlopen" in part)
    code = code.partition("```")[0]
    code = code.replace("http://127.0.0.1:8188", comfy.server.url)
    code = code.replace('"workflows/api', f'"{ROOT.as_posix()}/workflows/api')
    code = code.replace(
        'Path(image["filename"])', f'(Path("{tmp_path.as_posix()}") / image["filename"])'
    )
    small = '"megapixels": "0.25", "num_inference_steps": 1, "seed": 4, '
    code = code.replace(
        '{"prompt": "a red fox in snow", ', '{"prompt": "a red fox in snow", ' + small
    )
    for _ in range(2):
        exec(compile(code, "README.md", "exec"), {})  # noqa: S102 - our own page
        assert capsys.readouterr().out == "seed 4\n"
    assert len(list(tmp_path.iterdir())) == 1

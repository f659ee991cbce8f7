"""The ground under all server tests: ComfyUI starts, draws with core nodes, and fails clearly."""

from __future__ import annotations

import io
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from mini_flux.load_diffusers import load_clip, load_pipeline, load_t5, load_tokenizers
from PIL import Image
from runtime.client import ExecutionError, PromptRejectedError
from runtime.comfyui import ComfyUI, find_comfyui
from runtime.environment import requirement_lines
from runtime.models import missing_models, models_config
from runtime.server import ComfyServer, ServerError
from runtime.session import Comfy, tracebacks


def core_prompt(
    model: str = "dev", *, seed: int = 7, text: str = "a red fox", steps: int = 2, batch: int = 1
) -> dict[str, Any]:
    """A text-to-image prompt of ComfyUI's own nodes, 256x256."""

    def node(kind: str, **inputs: Any) -> dict[str, Any]:
        return {"class_type": kind, "inputs": inputs}

    return {
        "unet": node("UNETLoader", unet_name=f"flux1-{model}.safetensors", weight_dtype="default"),
        "clip": node(
            "DualCLIPLoader",
            clip_name1="clip_l.safetensors",
            clip_name2="t5xxl_fp16.safetensors",
            type="flux",
        ),
        "vae": node("VAELoader", vae_name="ae.safetensors"),
        "text": node("CLIPTextEncode", clip=["clip", 0], text=text),
        "guidance": node("FluxGuidance", conditioning=["text", 0], guidance=3.5),
        "guider": node("BasicGuider", model=["unet", 0], conditioning=["guidance", 0]),
        "noise": node("RandomNoise", noise_seed=seed),
        "euler": node("KSamplerSelect", sampler_name="euler"),
        "sigmas": node(
            "BasicScheduler", model=["unet", 0], scheduler="simple", steps=steps, denoise=1.0
        ),
        "empty": node("EmptySD3LatentImage", width=256, height=256, batch_size=batch),
        "sample": node(
            "SamplerCustomAdvanced",
            noise=["noise", 0],
            guider=["guider", 0],
            sampler=["euler", 0],
            sigmas=["sigmas", 0],
            latent_image=["empty", 0],
        ),
        "decode": node("VAEDecode", samples=["sample", 0], vae=["vae", 0]),
        "save": node("SaveImage", images=["decode", 0], filename_prefix=f"core-{model}"),
    }


def saving_tensors(prompt: dict[str, Any], name: str) -> dict[str, Any]:
    """The same prompt with noise, sigmas, latents and conditioning saved as `name`."""
    tensors = {"latent": ["sample", 0], "sigmas": ["sigmas", 0], "noise": ["noise", 0]}
    cond = {"conditioning": ["guidance", 0], "filename": f"{name}-cond"}
    return {
        **prompt,
        "tensors": {"class_type": "TestSaveTensor", "inputs": {"filename": name, **tensors}},
        "cond": {"class_type": "TestSaveConditioning", "inputs": cond},
    }


@pytest.mark.parametrize("model", ["dev", "schnell"])
def test_core_nodes_draw_a_picture(comfy: Comfy, model: str) -> None:
    seen: list[tuple[str, int, int]] = []
    result = comfy.run(core_prompt(model), on_progress=lambda *event: seen.append(event))

    (shown,) = result.images()
    image = Image.open(io.BytesIO(comfy.client.view(shown)))
    assert image.size == (256, 256)
    assert (comfy.server.output_dir / shown["filename"]).is_file()
    channels = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    assert 20 < channels.float().std() < 110, "neither flat nor saturated"
    assert ("sample", 2, 2) in seen
    assert result.executed_nodes[-1] == "save"


def test_second_run_is_cached_and_still_shows_its_files(comfy: Comfy) -> None:
    prompt = core_prompt(seed=11)
    first = comfy.run(prompt)
    second = comfy.run(prompt)
    assert second.executed_nodes == []
    assert set(second.cached_nodes) == set(prompt)
    assert second.images() == first.images()


def test_a_changed_input_runs_only_what_depends_on_it(comfy: Comfy) -> None:
    comfy.run(core_prompt(seed=12))
    again = comfy.run(core_prompt(seed=13))
    assert again.executed_nodes == ["noise", "sample", "decode", "save"]


def test_refused_prompts_name_node_and_input(comfy: Comfy) -> None:
    prompt = core_prompt()
    prompt["empty"]["inputs"]["width"] = 3
    with pytest.raises(PromptRejectedError) as caught:
        comfy.run(prompt)
    (error,) = caught.value.node_errors["empty"]["errors"]
    assert error["type"] == "value_smaller_than_min"
    assert error["extra_info"]["input_name"] == "width"


def test_failing_nodes_raise_with_their_message(comfy: Comfy) -> None:
    prompt = {
        "noise": {"class_type": "RandomNoise", "inputs": {"noise_seed": 1}},
        "save": {
            "class_type": "TestSaveTensor",
            "inputs": {"filename": "never", "noise": ["noise", 0]},
        },
    }
    with pytest.raises(ExecutionError, match="connect the LATENT") as caught:
        comfy.run(prompt)
    assert caught.value.node_type == "TestSaveTensor"
    assert caught.value.exception_type == "ValueError"


def test_a_run_can_be_interrupted(comfy: Comfy) -> None:
    def stop_at_first_step(node: str, value: int, maximum: int) -> None:
        if value == 1:
            comfy.client.interrupt()

    with pytest.raises(ExecutionError) as caught:
        comfy.run(core_prompt(seed=14, steps=50), on_progress=stop_at_first_step)
    assert caught.value.interrupted


def test_uploaded_images_load(comfy: Comfy) -> None:
    data = io.BytesIO()
    Image.new("RGB", (64, 32), (250, 0, 0)).save(data, "PNG")
    name = comfy.client.upload("red.png", data.getvalue())
    prompt = {
        "load": {"class_type": "LoadImage", "inputs": {"image": name}},
        "save": {
            "class_type": "TestSaveTensor",
            "inputs": {"filename": "red", "image": ["load", 0]},
        },
    }
    comfy.run(prompt)
    image = comfy.saved("red")["image"]
    assert image.shape == (1, 32, 64, 3)
    assert image[0, 0, 0, 0] == pytest.approx(250 / 255, abs=1e-6)


def test_text_encoders_hold_the_same_weights_in_transformers(comfy: Comfy) -> None:
    text = "a cat on a mat"
    comfy.run(saving_tensors(core_prompt(text=text), "encoders"))
    ours = comfy.saved("encoders-cond")
    clip, t5 = load_tokenizers(comfy.server.comfyui.path)
    clip_ids = clip(text, padding="max_length", max_length=77, return_tensors="pt").input_ids
    t5_ids = t5(text, padding="max_length", max_length=256, return_tensors="pt").input_ids
    with torch.no_grad():
        cond = load_t5(comfy.models)(t5_ids)[0]
        pooled = load_clip(comfy.models)(clip_ids).pooler_output
    assert (ours["cond"] - cond).abs().max() < 1e-5
    assert (ours["pooled_output"] - pooled).abs().max() < 1e-5


@pytest.mark.parametrize("model", ["dev", "schnell"])
def test_sampling_equals_diffusers(comfy: Comfy, model: str) -> None:
    prompt = saving_tensors(core_prompt(model, seed=21, batch=2, steps=4), f"same-{model}")
    comfy.run(prompt)
    theirs = comfy.saved(f"same-{model}")
    cond = comfy.saved(f"same-{model}-cond")
    pipe = load_pipeline(model, comfy.models)  # type: ignore[arg-type]
    packed = pipe._pack_latents(theirs["noise"], 2, 16, 32, 32)
    state = packed
    ids = pipe._prepare_latent_image_ids(2, 16, 16, torch.device("cpu"), torch.float32)
    guidance = torch.full((2,), 3.5) if model == "dev" else None
    sigmas = theirs["sigmas"]
    with torch.no_grad():
        for now, after in itertools.pairwise(sigmas):
            velocity = pipe.transformer(
                hidden_states=state,
                timestep=now.expand(2),
                guidance=guidance,
                encoder_hidden_states=cond["cond"].expand(2, -1, -1),
                pooled_projections=cond["pooled_output"].expand(2, -1),
                txt_ids=torch.zeros(cond["cond"].shape[1], 3),
                img_ids=ids,
                return_dict=False,
            )[0]
            state = state + (after - now) * velocity
    ours = pipe._unpack_latents(state, 256, 256, 8)
    # SamplerCustomAdvanced hands out latents scaled as FLUX's VAE has them.
    scaled = (theirs["latent"] - 0.1159) * 0.3611
    assert (scaled - ours).abs().max() < 1e-5
    assert ours.abs().max() < 6


def test_a_server_that_cannot_start_says_why() -> None:
    server = ComfyServer(find_comfyui(), arguments=["--no-such-flag"])
    with pytest.raises(ServerError, match="unrecognized arguments: --no-such-flag"):
        server.start()
    assert not server.base.exists()


def test_stopping_removes_links_and_not_what_they_point_to(tmp_path: Path) -> None:
    models = tmp_path / "models"
    (models / "vae").mkdir(parents=True)
    (models / "vae" / "ae.safetensors").write_bytes(b"kept")
    server = ComfyServer(find_comfyui(), models=models)
    server._make_base()
    base = server.base
    assert (base / "custom_nodes" / "flux-hotswap" / "dev.py").is_file()
    assert (base / "models" / "vae" / "ae.safetensors").read_bytes() == b"kept"
    server.stop()
    assert not base.exists()
    assert (models / "vae" / "ae.safetensors").read_bytes() == b"kept"
    assert (Path(__file__).parents[2] / "dev.py").is_file()


def test_a_users_models_are_found_where_comfyui_keeps_them(tmp_path: Path) -> None:
    assert missing_models(tmp_path, "schnell") == [
        "models/diffusion_models/flux1-schnell.safetensors",
        "models/vae/ae.safetensors",
        "models/text_encoders/clip_l.safetensors",
        "models/text_encoders/t5xxl_fp16.safetensors",
    ]
    for place in ("unet/flux1-schnell", "vae/ae", "clip/clip_l", "text_encoders/t5xxl_fp16"):
        file = tmp_path / "models" / f"{place}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    assert missing_models(tmp_path, "schnell") == []
    assert missing_models(tmp_path, "dev") == ["models/diffusion_models/flux1-dev.safetensors"]
    assert str(tmp_path) in models_config(tmp_path)


def test_requirements_leave_torch_to_us(tmp_path: Path) -> None:
    file = tmp_path / "requirements.txt"
    file.write_text("torch\ntorchsde\ntorchvision>=0.2\ntorchaudio # sound\n\n# x\nav>=14.2\n")
    assert requirement_lines(file) == ["torchsde", "av>=14.2"]


def test_a_named_folder_without_comfyui_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COMFYUI_DIR", str(tmp_path))
    with pytest.raises(RuntimeError, match="is not a ComfyUI folder"):
        find_comfyui()


def test_tracebacks_are_found_in_a_log() -> None:
    log = (
        "one\nTraceback (most recent call last):\n"
        '  File "x.py", line 1, in f\n    raise ValueError\nValueError: bad\ntwo\n'
    )
    (found,) = tracebacks(log)
    assert found.endswith("ValueError: bad")


def test_version_is_what_comfyui_says(tmp_path: Path) -> None:
    (tmp_path / "comfyui_version.py").write_text('# generated\n__version__ = "0.3.75"\n')
    assert ComfyUI(tmp_path, tmp_path, ours=False).version == "0.3.75"

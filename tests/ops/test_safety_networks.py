"""The two networks against diffusers and transformers, on small random weights."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from runtime import rescue
from safetensors.torch import load_file, save_file

from flux_hotswap.errors import SafetyError
from flux_hotswap.ops.safety.networks import CompVis, Falcon, load_compvis, load_falcon, rule
from flux_hotswap.ops.safety.prepare import for_compvis, for_falcon

rescue.install()  # transformers' picture classes ask for torchvision
transformers: Any = importlib.import_module("transformers")

COUNT = 200
TOWER = {
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 224,
    "patch_size": 32,
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Networks this small lose more by waiting for other threads than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def random_picture(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    width, height = rng.integers(20, 420, 2)
    cells = rng.integers(0, 256, (*rng.integers(2, 9, 2), 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(cells).resize((width, height), Image.Resampling.BICUBIC))
    noise = rng.normal(0, rng.uniform(0, 40), picture.shape)
    return Image.fromarray(np.clip(picture + noise, 0, 255).astype(np.uint8))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    return [random_picture(seed) for seed in range(COUNT)]


def processor(name: str) -> Any:
    """Return the processor that resizes with Pillow; newer versions put it beside another."""
    return getattr(transformers, f"{name}Pil", None) or getattr(transformers, name)


@pytest.fixture(scope="module")
def clip_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    return processor("CLIPImageProcessor")()(pictures, return_tensors="pt")["pixel_values"]


@pytest.fixture(scope="module")
def vit_pixels(pictures: list[Image.Image]) -> torch.Tensor:
    return processor("ViTImageProcessor")()(pictures, return_tensors="pt")["pixel_values"]


def shuffle_weights(network: torch.nn.Module, seed: int) -> None:
    """Give a fresh network weights large enough that pictures get different answers."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in network.named_parameters():
            spread = torch.randn(value.shape, generator=generator)
            value.copy_(1 + 0.1 * spread if "norm" in name and value.ndim == 1 else 0.15 * spread)


@pytest.fixture(scope="module")
def compvis_reference(clip_pixels: torch.Tensor) -> Any:
    from diffusers.pipelines.stable_diffusion import safety_checker as module

    config = transformers.CLIPConfig(vision_config=TOWER, projection_dim=64)
    network = module.StableDiffusionSafetyChecker(config).eval()
    shuffle_weights(network, 0)
    with torch.no_grad():
        embeds = network.visual_projection(network.vision_model(clip_pixels)[1])
        for kind, quantile in (("concept", 0.985), ("special_care", 0.9)):
            vectors = getattr(network, f"{kind}_embeds")
            distances = module.cosine_distance(embeds, vectors)
            thresholds = torch.quantile(distances, quantile, dim=0)
            getattr(network, f"{kind}_embeds_weights").copy_(thresholds + 1e-4)
    return network


@pytest.fixture(scope="module")
def compvis_file(compvis_reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("compvis")
    compvis_reference.save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def compvis(compvis_file: Path) -> CompVis:
    return load_compvis(compvis_file)


@pytest.fixture(scope="module")
def falcon_reference(vit_pixels: torch.Tensor) -> Any:
    labels = {0: "normal", 1: "nsfw"}
    config = transformers.ViTConfig(**TOWER, id2label=labels)
    network = transformers.ViTForImageClassification(config).eval()
    shuffle_weights(network, 1)
    with torch.no_grad():
        logits = network(vit_pixels).logits
        # Between the two pictures in the middle: on one of them, rounding would decide.
        network.classifier.bias[0] -= torch.quantile(logits[:, 0] - logits[:, 1], 0.5)
    return network


@pytest.fixture(scope="module")
def falcon_file(falcon_reference: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("falcon")
    falcon_reference.save_pretrained(folder)
    return folder / "model.safetensors"


@pytest.fixture(scope="module")
def falcon(falcon_file: Path) -> Falcon:
    return load_falcon(falcon_file)


def test_preparation_equals_clip(pictures: list[Image.Image], clip_pixels: torch.Tensor) -> None:
    for picture, expected in zip(pictures, clip_pixels, strict=True):
        torch.testing.assert_close(for_compvis(picture)[0], expected, rtol=0, atol=1e-6)


def test_preparation_equals_vit(pictures: list[Image.Image], vit_pixels: torch.Tensor) -> None:
    for picture, expected in zip(pictures, vit_pixels, strict=True):
        torch.testing.assert_close(for_falcon(picture)[0], expected, rtol=0, atol=1e-6)


def reference_scores(network: Any, pixels: torch.Tensor) -> list[tuple[list[float], list[float]]]:
    """Return what diffusers computes on the way to its flags, which it does not return."""
    from diffusers.pipelines.stable_diffusion.safety_checker import cosine_distance

    with torch.no_grad():
        embeds = network.visual_projection(network.vision_model(pixels)[1])
        special = cosine_distance(embeds, network.special_care_embeds).numpy()
        plain = cosine_distance(embeds, network.concept_embeds).numpy()
    results = []
    for i in range(len(pixels)):
        adjustment, special_scores = 0.0, []
        for j, threshold in enumerate(network.special_care_embeds_weights):
            special_scores.append(round(special[i][j] - threshold.item() + adjustment, 3))
            if special_scores[-1] > 0:
                adjustment = 0.01
        thresholds = network.concept_embeds_weights
        scores = [round(plain[i][j] - t.item() + adjustment, 3) for j, t in enumerate(thresholds)]
        results.append((special_scores, scores))
    return results


def test_compvis_equals_diffusers(
    compvis: CompVis,
    compvis_reference: Any,
    clip_pixels: torch.Tensor,
    pictures: list[Image.Image],
) -> None:
    _, flags = compvis_reference(clip_pixels, torch.zeros(COUNT, 1))
    found = [compvis.judge(picture) for picture in pictures]
    assert [concepts.flagged for concepts in found] == flags
    assert 20 < sum(flags) < COUNT - 20, "the weights must make both answers common"
    care = exact = 0
    expected = reference_scores(compvis_reference, clip_pixels)
    for concepts, (special, plain) in zip(found, expected, strict=True):
        # A value on the edge between two thousandths may be rounded either way.
        np.testing.assert_allclose(concepts.special, special, atol=1.001e-3)
        np.testing.assert_allclose(concepts.scores, plain, atol=1.001e-3)
        care += any(score > 0 for score in concepts.special)
        exact += np.allclose(concepts.scores, plain, atol=1e-6)
    assert 10 < care < COUNT - 10
    assert exact >= 0.98 * COUNT


def test_falcon_equals_transformers(
    falcon: Falcon, falcon_reference: Any, vit_pixels: torch.Tensor, pictures: list[Image.Image]
) -> None:
    with torch.no_grad():
        expected = falcon_reference(vit_pixels).logits
        found = falcon(torch.cat([for_falcon(picture) for picture in pictures]))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    names = falcon_reference.config.id2label
    labels = [names[int(index)] for index in expected.argmax(-1)]
    assert [falcon.judge(picture) for picture in pictures] == labels
    assert 20 < labels.count("nsfw") < COUNT - 20


def test_published_names_have_a_doubled_prefix(
    compvis_file: Path, compvis: CompVis, pictures: list[Image.Image], tmp_path: Path
) -> None:
    stored = {
        name.replace("vision_model.", "vision_model.vision_model."): value.half()
        for name, value in load_file(compvis_file).items()
    }
    stored["vision_model.vision_model.embeddings.position_ids"] = torch.arange(50)[None]
    save_file(stored, tmp_path / "half.safetensors")
    half = load_compvis(tmp_path / "half.safetensors")
    assert half.concept_embeds.dtype == torch.float32
    for picture in pictures[:5]:
        scores = half.judge(picture).scores
        np.testing.assert_allclose(scores, compvis.judge(picture).scores, atol=2e-2)


def test_networks_loaded_in_inference_mode_are_ordinary(compvis_file: Path) -> None:
    with torch.inference_mode():
        network = load_compvis(compvis_file, torch.float16)
    assert not any(value.is_inference() for value in network.parameters())
    network.float()


def test_half_precision_runs(compvis_file: Path, falcon_file: Path) -> None:
    picture = random_picture(1)
    assert len(load_compvis(compvis_file, torch.bfloat16).judge(picture).scores) == 17
    assert load_falcon(falcon_file, torch.bfloat16).judge(picture) in ("normal", "nsfw")


def test_special_care_is_per_picture_and_in_order() -> None:
    plain = np.full(17, -0.005, np.float32)
    calm = rule(np.array([-0.1, -0.1, -0.1], np.float32), plain)
    assert not calm.flagged
    assert calm.special == pytest.approx((-0.1, -0.1, -0.1))
    alert = rule(np.array([-0.005, 0.001, -0.005], np.float32), plain)
    assert alert.special == pytest.approx((-0.005, 0.001, 0.005))
    assert alert.flagged
    assert "special care" in alert.text


def test_rounding_decides_at_the_edge() -> None:
    none = np.full(3, -1, np.float32)
    assert not rule(none, np.array([0.0004], np.float32)).flagged
    assert rule(none, np.array([0.0006], np.float32)).flagged


def test_scores_that_are_no_numbers_are_flagged() -> None:
    assert rule(np.full(3, -1, np.float32), np.array([np.nan], np.float32)).flagged
    care = rule(np.array([np.nan, -1, -1], np.float32), np.array([-0.005], np.float32))
    assert care.flagged


def test_falcon_that_overflows_is_no_answer(falcon_file: Path) -> None:
    broken = load_falcon(falcon_file)
    broken.classifier.bias.fill_(float("nan"))
    with pytest.raises(SafetyError, match="not a number"):
        broken.judge(random_picture(0))


@pytest.mark.parametrize("kind", ["empty", "text", "cut", "other network", "missing weight"])
def test_broken_files(kind: str, compvis_file: Path, falcon_file: Path, tmp_path: Path) -> None:
    path = tmp_path / "file.safetensors"
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "text":
            path.write_text("<html>not found</html>")
        case "cut":
            path.write_bytes(compvis_file.read_bytes()[:-1000])
        case "other network":
            path.write_bytes(falcon_file.read_bytes())
        case _:
            stored = load_file(compvis_file)
            del stored["special_care_embeds_weights"]
            save_file(stored, path)
    with pytest.raises(SafetyError, match="is not the safety network it should be"):
        load_compvis(path)
    with pytest.raises(SafetyError, match="is not the safety network it should be"):
        load_falcon(path if kind != "other network" else compvis_file)

"""The rule, the actions, whole batches, the weight files and the small third checker."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flux_hotswap.errors import SafetyError, UnsafeError, WeightsError
from flux_hotswap.ops.encode import encode
from flux_hotswap.ops.safety.decide import ACTIONS, Action, Verdict, act, describe, two_stages
from flux_hotswap.ops.safety.prepare import for_compvis, for_falcon
from flux_hotswap.ops.safety.review import check_batch, unchecked
from flux_hotswap.ops.safety.weights import FILES, WeightFile, locate_or_fetch


def batch(count: int, channels: int = 3) -> torch.Tensor:
    """Pictures whose brightest value is their index, [B,20,30,C]."""
    noise = torch.rand(count, 20, 30, channels, generator=torch.Generator().manual_seed(count))
    return noise * 0.05 + torch.arange(count).reshape(-1, 1, 1, 1) / 10


def marked(unsafe: set[int], count: int) -> list[Verdict]:
    return [Verdict(index in unsafe, "test") for index in range(count)]


# --- the rule: the seven vectors of the hosted model ----------------------------------------------


def second_stage(answers: list[str]) -> Callable[[], str]:
    """Answer in turn."""
    return lambda: answers.pop(0)


@pytest.mark.parametrize(
    ("flagged", "answers", "kept"),
    [
        pytest.param("FF", [], [0, 1], id="none flagged, second never asked"),
        pytest.param("TF", ["normal"], [0, 1], id="overruled"),
        pytest.param("TF", ["nsfw"], [1], id="confirmed"),
        pytest.param("FTFT", ["nsfw", "normal"], [0, 2, 3], id="one of two confirmed"),
        pytest.param("TT", ["nsfw", "nsfw"], None, id="none left"),
    ],
)
def test_hosted_vectors(flagged: str, answers: list[str], kept: list[int] | None) -> None:
    images, ask = batch(len(flagged)), second_stage(answers)
    stage_one = iter(flagged)
    checker = lambda _: two_stages(next(stage_one) == "T", "first", ask)  # noqa: E731
    if kept is None:
        with pytest.raises(UnsafeError, match="Change the prompt"):
            check_batch(images, checker, "drop")
    else:
        checked = check_batch(images, checker, "drop")
        assert torch.equal(checked.images, images[kept])
        assert [i for i, flag in enumerate(checked.flags) if not flag] == kept
    assert answers == []


def test_hosted_vector_disabled() -> None:
    images = batch(2)
    checked = unchecked(images)
    assert checked.images is images
    assert checked.flags == (False, False)
    assert "disabled" in checked.report


@pytest.mark.parametrize("label", ["Normal", "", "safe", "nsfw"])
def test_only_the_exact_label_overrules(label: str) -> None:
    assert two_stages(True, "", lambda: label).unsafe


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("broken driver"), MemoryError("no room"), ValueError("odd"), OSError(5, "disk")],
    ids=lambda error: type(error).__name__,
)
def test_an_error_of_the_machine_is_no_verdict(
    error: Exception, stage: int, action: Action
) -> None:
    """Neither safe nor unsafe: nothing passes, not even blackened, and what failed is said."""
    asked: list[int] = []

    def second() -> str:
        raise error

    def checker(_: Image.Image) -> Verdict:
        asked.append(1)
        if len(asked) == 1:
            return Verdict(False, "first picture")
        if stage == 1:
            raise error
        return two_stages(True, "concept 3", second)

    with pytest.raises(SafetyError, match="failed on picture 1") as failed:
        check_batch(batch(3), checker, action)
    assert not isinstance(failed.value, UnsafeError)
    assert type(error).__name__ in str(failed.value)
    assert str(error) in str(failed.value)
    assert "unsafe" not in str(failed.value)


@pytest.mark.parametrize("action", ACTIONS)
def test_what_comfyui_deals_with_is_passed_on(action: Action) -> None:
    class InterruptedByUserError(Exception):
        pass

    def checker(_: Image.Image) -> Verdict:
        raise InterruptedByUserError

    with pytest.raises(InterruptedByUserError):
        check_batch(batch(1), checker, action, stop=(InterruptedByUserError,))


# --- actions --------------------------------------------------------------------------------------


@pytest.mark.parametrize("unsafe", [set(), {0}, {1, 3}, {0, 1, 2, 3}], ids=str)
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_actions(action: Action, unsafe: set[int], channels: int) -> None:
    images = batch(4, channels)
    before = images.clone()
    if action == "drop" and len(unsafe) == 4:
        with pytest.raises(UnsafeError, match="All 4 pictures"):
            act(images, marked(unsafe, 4), action)
        return
    result = act(images, marked(unsafe, 4), action)
    assert torch.equal(images, before)
    assert result.dtype == images.dtype
    kept = [i for i in range(4) if action != "drop" or i not in unsafe]
    assert len(result) == len(kept)
    for picture, index in zip(result, kept, strict=True):
        same = torch.equal(picture, before[index])
        assert same == (action in ("drop", "flag") or index not in unsafe)


def test_black_is_black_and_opaque() -> None:
    result = act(batch(2, 4), marked({1}, 2), "black")
    assert (result[1, ..., :3] == 0).all()
    assert (result[1, ..., 3] == 1).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("height", "width"), [(256, 256), (5, 300), (300, 5), (1, 1)])
def test_blur_keeps_colour_and_hides_content(height: int, width: int, dtype: torch.dtype) -> None:
    images = torch.rand(2, height, width, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    result = act(images, marked({0}, 2), "blur")
    assert result.shape == images.shape
    assert result.dtype == dtype
    assert (result[0].mean((0, 1)) - images[0].mean((0, 1))).abs().max() < 0.02
    if height == width == 256:
        assert result[0].float().std() < 0.25 * images[0].float().std()


def test_blur_of_broken_values() -> None:
    images = torch.full((1, 40, 40, 3), float("nan"))
    assert (act(images, marked({0}, 1), "blur") == 0).all()


def test_one_picture_none_left() -> None:
    with pytest.raises(UnsafeError, match="The picture was judged unsafe") as caught:
        act(batch(1), [Verdict(True, "concepts 4, highest score 0.031")], "drop")
    assert "highest score 0.031" in caught.value.report


def test_action_and_verdicts_are_checked() -> None:
    with pytest.raises(SafetyError, match="choose one of drop, black, blur, flag"):
        act(batch(1), marked(set(), 1), "ignore")  # pyright: ignore[reportArgumentType]
    with pytest.raises(SafetyError, match="2 pictures but 1 verdicts"):
        act(batch(2), marked(set(), 1), "flag")


def test_description_names_the_index() -> None:
    text = describe([Verdict(False, "no concept"), Verdict(True, "concepts 2")])
    assert text.splitlines() == [
        "1 of 2 pictures are safe",
        "picture 0: safe, no concept",
        "picture 1: unsafe, concepts 2",
    ]


# --- batches --------------------------------------------------------------------------------------


def bright(picture: Image.Image) -> Verdict:
    return Verdict(np.asarray(picture).mean() > 0.2 * 255, f"{np.asarray(picture).mean():.6f}")


def test_any_order_gives_the_same_answers() -> None:
    images = batch(4)
    alone = [check_batch(images[i : i + 1], bright, "flag").report.split(": ")[1] for i in range(4)]
    for order in itertools.permutations(range(4)):
        checked = check_batch(images[list(order)], bright, "flag")
        answers = [line.split(": ")[1] for line in checked.report.splitlines()[1:]]
        assert answers == [alone[i] for i in order]
        assert [checked.flags[order.index(i)] for i in range(4)] == [False, False, True, True]


@pytest.mark.parametrize("action", ACTIONS)
def test_inputs_are_never_changed(action: Action) -> None:
    with torch.inference_mode():
        images = batch(4)
        before = images.clone()
        check_batch(images, bright, action)
        assert torch.equal(images, before)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_checkers_see_rgb(channels: int, dtype: torch.dtype) -> None:
    modes: list[str] = []

    def look(picture: Image.Image) -> Verdict:
        modes.append(f"{picture.mode} {picture.size}")
        return Verdict(False, "")

    check_batch(batch(2, channels).to(dtype), look, "drop")
    assert modes == ["RGB (30, 20)"] * 2


def test_progress_and_interrupts_come_before_each() -> None:
    seen: list[int] = []
    check_batch(batch(3), bright, "flag", before_each=seen.append)
    assert seen == [0, 1, 2]


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4, 3), (1, 0, 4, 3), (1, 4, 4, 5)])
def test_shapes_are_checked(shape: tuple[int, ...]) -> None:
    with pytest.raises(SafetyError, match="Connect an IMAGE output"):
        check_batch(torch.zeros(shape), bright, "drop")


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("alpha", [0.0, 1 / 255, 0.5, 1.0])
def test_what_is_judged_is_what_is_saved(channels: int, dtype: torch.dtype, alpha: float) -> None:
    """No colour lies hidden below what is transparent."""
    images = batch(2, channels).to(dtype)
    if channels in (2, 4):
        images[..., -1] = alpha
    seen: list[np.ndarray] = []

    def look(picture: Image.Image) -> Verdict:
        seen.append(np.asarray(picture))
        return Verdict(False, "")

    passed = check_batch(images, look, "drop").images
    assert passed.shape[-1] in (1, 3)
    for picture, judged in zip(passed, seen, strict=True):
        with Image.open(BytesIO(encode(picture, "png", 0))) as saved:
            assert not saved.has_transparency_data
            assert (np.asarray(saved.convert("RGB")) == judged).all()
    if alpha == 0 and channels in (2, 4):
        assert all((judged == 255).all() for judged in seen)


@pytest.mark.parametrize("size", [(1, 20_000), (20_000, 1), (3, 30_000), (1, 65_000)])
def test_a_line_costs_no_more_than_a_picture(size: tuple[int, int]) -> None:
    sizes: list[tuple[int, int]] = []

    class Watched(Image.Image):
        def resize(self, size: Any, *args: Any, **options: Any) -> Image.Image:
            sizes.append(size)
            return super().resize(size, *args, **options)

        def crop(self, box: Any = None) -> Image.Image:
            return watched(super().crop(box))

    def watched(picture: Image.Image) -> Image.Image:
        made = Watched()
        made.__dict__.update(picture.__dict__)
        return made

    line = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8))
    for prepare in (for_compvis, for_falcon):
        assert prepare(watched(line)).shape == (1, 3, 224, 224)
    assert max(width * height for width, height in sizes) <= 64 * 224 * 224
    blurred = act(torch.rand(1, *size, 3), marked({0}, 1), "blur")
    assert blurred.shape == (1, *size, 3)


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (640, 10), (7, 448)])
def test_other_pictures_are_prepared_as_ever(size: tuple[int, int]) -> None:
    picture = Image.linear_gradient("L").resize(size).convert("RGB")
    short = min(size)
    large = (224 * size[0] // short, 224 * size[1] // short)
    left, top = (large[0] - 224) // 2, (large[1] - 224) // 2
    square = picture.resize(large, Image.Resampling.BICUBIC)
    square = square.crop((left, top, left + 224, top + 224))
    assert torch.equal(for_compvis(picture), for_compvis(square))


# --- weight files ---------------------------------------------------------------------------------

CONTENT = b"the weights"
FILE = WeightFile(
    name="net.safetensors",
    repo="owner/name",
    revision="0" * 40,
    path="model.safetensors",
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    size=len(CONTENT),
)
TABLE = {"net": FILE}


def test_table_is_pinned() -> None:
    for file in FILES.values():
        assert len(file.revision) == 40
        assert len(file.sha256) == 64
        assert file.url.startswith("https://huggingface.co/")
        assert file.name.endswith(".safetensors")
        assert file.path.endswith(".safetensors")
    assert len({file.name for file in FILES.values()}) == len(FILES)


def test_file_put_there_by_hand(tmp_path: Path) -> None:
    second = tmp_path / "b"
    second.mkdir()
    (second / FILE.name).write_bytes(CONTENT)
    folders = [tmp_path / "a", second]
    assert locate_or_fetch("net", folders, None, files=TABLE) == second / FILE.name


def test_file_is_fetched_into_the_first_folder(tmp_path: Path) -> None:
    asked: list[WeightFile] = []

    def fetch(file: WeightFile, target: Path) -> None:
        asked.append(file)
        target.write_bytes(CONTENT)

    folders = [tmp_path / "new" / "a", tmp_path / "b"]
    for _ in range(2):
        path = locate_or_fetch("net", folders, fetch, files=TABLE)
        assert path == folders[0] / FILE.name
    assert asked == [FILE]


@pytest.mark.parametrize("way", ["no fetch", "offline", "empty"])
def test_missing_file(way: str, tmp_path: Path) -> None:
    def fetch(_file: WeightFile, _target: Path) -> None:
        if way == "offline":
            raise ConnectionError("no route to host")

    with pytest.raises(WeightsError) as caught:
        locate_or_fetch("net", [tmp_path], None if way == "no fetch" else fetch, files=TABLE)
    message = str(caught.value)
    assert FILE.url in message
    assert FILE.name in message
    assert str(tmp_path) in message
    assert "No picture passes unchecked" in message


@pytest.mark.parametrize(
    ("content", "match"),
    [(b"other bytes", "has SHA-256"), (b"short", "5 bytes instead of 11"), (b"", "0 bytes")],
)
@pytest.mark.parametrize("fetched", [False, True])
def test_wrong_file(content: bytes, match: str, fetched: bool, tmp_path: Path) -> None:
    def fetch(_file: WeightFile, target: Path) -> None:
        target.write_bytes(content)

    if not fetched:
        (tmp_path / FILE.name).write_bytes(content)
    with pytest.raises(WeightsError, match=match):
        locate_or_fetch("net", [tmp_path], fetch if fetched else None, files=TABLE)

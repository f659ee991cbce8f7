"""The record where a node is called for each item of a list, or one branch of two runs."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from record_probe import PROBE
from runtime.client import Client, ExecutionError, Result
from runtime.comfyui import find_comfyui
from runtime.server import ComfyServer

from flux_hotswap.prediction.fill import Prompt

SMALL: dict[str, Any] = {"prompt": "x", "disable_safety_checker": True, "output_format": "png"}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    base: Path = tmp_path_factory.mktemp("record")
    (base / "custom_nodes").mkdir()
    (base / "custom_nodes" / "record_probe.py").write_text(PROBE, encoding="utf-8")
    with ComfyServer(find_comfyui(), base=base) as server:
        yield Client(server.url)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def painted(**fields: Any) -> Prompt:
    """A form whose seed is the brightness of what is saved."""
    return {
        "form": node("FluxHotswapInputs", **SMALL, **fields),
        "noise": node("FluxHotswapNoise", request=["form", 0]),
        "paint": node("TestPaint", noise=["noise", 0]),
        "save": node("FluxHotswapSave", images=["paint", 0], request=["form", 0]),
    }


def brightness(client: Client, result: Result) -> list[int]:
    """Of each saved file: the seed that it was painted with."""
    found: list[int] = []
    for entry in result.images():
        with Image.open(BytesIO(client.view(entry))) as picture:
            found.append(picture.convert("RGB").tobytes()[0])
    return found


# --- lists ---


@pytest.mark.parametrize("seeds", [(1, 2, 3), (7, 5), (9,), (4, 4, 6)], ids=str)
def test_each_picture_of_a_list_has_its_own_record(client: Client, seeds: tuple[int, ...]) -> None:
    lines = " ".join(map(str, seeds))
    prompt = painted(seed=["items", 1]) | {"items": node("TestItems", lines=lines)}
    prompt["form"]["inputs"]["prompt"] = ["items", 0]
    result = client.run(prompt)
    assert brightness(client, result) == list(seeds)
    records = result.shown("flux_hotswap")
    assert [record["seed"] for record in records] == list(seeds)
    requests = result.shown("flux_hotswap_request")
    assert [request["fields"]["seed"] for request in requests] == list(seeds)
    assert [request["fields"]["prompt"] for request in requests] == lines.split()


@pytest.mark.parametrize("images", ["teal.png - teal.png", "- teal.png", "- -"])
def test_a_list_of_which_some_have_an_input_image(client: Client, images: str) -> None:
    buffer = BytesIO()
    Image.new("RGB", (64, 64), "teal").save(buffer, "PNG")
    client.upload("teal.png", buffer.getvalue())
    prompt = painted(seed=8, image=["names", 0]) | {"names": node("TestNames", words=images)}
    result = client.run(prompt)
    given = images.split()
    for shown in (result.images(), result.shown("flux_hotswap")):
        assert len(shown) == len(given)
    assert len(result.shown("flux_hotswap_request")) == len(given)
    assert len(result.shown("flux_hotswap_before")) == given.count("teal.png")


def test_what_is_made_once_counts_for_every_item(client: Client) -> None:
    """One request, and a list of noises that has nothing to do with it."""
    prompt = painted(seed=8) | {"items": node("TestItems", lines="1 2 3")}
    prompt["noise"] = node("FluxHotswapNoise", seed=["items", 1])
    result = client.run(prompt)
    assert [record["seed"] for record in result.shown("flux_hotswap")] == [1, 2, 3]
    assert [each["fields"]["seed"] for each in result.shown("flux_hotswap_request")] == [8, 8, 8]


def test_a_list_from_the_cache(client: Client) -> None:
    prompt = painted(seed=8) | {"items": node("TestItems", lines="11 12 13")}
    prompt["noise"] = node("FluxHotswapNoise", seed=["items", 1])
    client.run(prompt)
    prompt["save"]["inputs"]["filename_prefix"] = "again"
    again = client.run(prompt)
    assert again.executed_nodes == ["save"]
    assert [record["seed"] for record in again.shown("flux_hotswap")] == [11, 12, 13]


def test_a_batch_of_a_list_claims_what_holds_for_all(client: Client) -> None:
    prompt = painted(seed=["items", 1]) | {"items": node("TestItems", lines="1 2 3")}
    prompt["batch"] = node("RebatchImages", images=["paint", 0], batch_size=3)
    prompt["save"] = node("FluxHotswapSave", images=["batch", 0])
    result = client.run(prompt)
    (record,) = result.shown("flux_hotswap")
    assert len(result.images()) == record["num_outputs"] == 3
    assert "seed" not in record
    assert record["noise"] == "hosted"
    assert result.shown("flux_hotswap_request") == []


# --- branches ---


def two_branches(*, first: bool, seeds: tuple[int, int] = (1, 2)) -> Prompt:
    """Only one branch of either seed runs; a form stands before both."""
    prompt = painted(seed=seeds[0])
    prompt["other"] = node("FluxHotswapNoise", seed=seeds[1])
    prompt["other paint"] = node("TestPaint", noise=["other", 0])
    prompt["either"] = node("TestEither", first=first, one=["paint", 0], two=["other paint", 0])
    prompt["save"]["inputs"]["images"] = ["either", 0]
    return prompt


def test_a_branch_that_did_not_run_claims_nothing(client: Client) -> None:
    """Once both have run: no seed at all is better than the other picture's."""
    for number, first in enumerate((True, False, True, False)):
        result = client.run(two_branches(first=first))
        assert brightness(client, result) == [1 if first else 2]
        (record,) = result.shown("flux_hotswap")
        assert record.get("seed") == (None if number else 1)
        assert record["noise"] == "hosted", "the same in both"


def test_branches_that_agree(client: Client) -> None:
    for first in (True, False):
        (record,) = client.run(two_branches(first=first, seeds=(6, 6))).shown("flux_hotswap")
        assert (record["seed"], record["noise"]) == (6, "hosted")


def test_a_branch_of_others_is_no_branch_of_ours(client: Client) -> None:
    prompt = two_branches(first=False, seeds=(21, 22))
    prompt["other paint"] = node("EmptyImage", width=16, height=16, batch_size=1, color=0)
    assert "seed" not in client.run(prompt).shown("flux_hotswap")[0]
    prompt["either"]["inputs"]["first"] = True
    assert "seed" not in client.run(prompt).shown("flux_hotswap")[0]


def test_what_stands_before_both_branches_is_sure(client: Client) -> None:
    prompt = painted(seed=3)
    prompt["smaller"] = node("ImageScale", image=["paint", 0], upscale_method="area")
    prompt["smaller"]["inputs"] |= {"width": 8, "height": 8, "crop": "disabled"}
    prompt["either"] = node("TestEither", first=False, one=["paint", 0], two=["smaller", 0])
    prompt["save"]["inputs"]["images"] = ["either", 0]
    result = client.run(prompt)
    (record,) = result.shown("flux_hotswap")
    assert (record["seed"], record["width"]) == (3, 8)
    assert result.shown("flux_hotswap_request")[0]["fields"]["seed"] == 3


# --- nobody has a home folder here ---


def test_settings_are_read_without_a_home(client: Client) -> None:
    """The tests above saved without one; to fetch, the file of tokens is looked for in it."""
    prompt = painted(seed=1, image="http://127.0.0.1:1/x.png")
    with pytest.raises(ExecutionError, match=r"127\.0\.0\.1 is not fetched"):
        client.run(prompt)

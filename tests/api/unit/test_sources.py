"""Pictures of inputs that lie here: which are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from flux_hotswap.errors import CallError, InputError
from flux_hotswap.hosted_api.job import Job
from flux_hotswap.hosted_api.links import Links
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.outputs import Outputs
from flux_hotswap.hosted_api.prompts import Prompts, read_workflow
from flux_hotswap.hosted_api.sources import TOGETHER, Sources
from flux_hotswap.hosted_api.store import Store
from flux_hotswap.hosted_api.uploads import Uploads
from flux_hotswap.prediction.data_uri import DATA_LIMIT

BASE = "http://127.0.0.1:5000"
HALF = TOGETHER // 2


class World:
    """The files of one state folder."""

    def __init__(self, folder: Path) -> None:
        self.store = Store(folder / "jobs.sqlite")
        options, links = Options(state=folder), Links(b"secret", time.time)
        self.uploads = Uploads(options, self.store, links, lambda: BASE, lambda _: "", time.time)
        self.sources = Sources(self.uploads, Outputs(options, links, lambda: BASE), lambda: BASE)

    def sent(self, size: int) -> str:
        """A file of mine that has so many bytes; its address."""
        address = self.uploads.keep("me", "image", b"x", 60.0)
        path = self.uploads.find("me", address)
        assert path is not None
        with path.open("r+b") as file:
            file.truncate(size)
        return address


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    with closing(world.store):
        yield world


@pytest.mark.parametrize(
    ("sizes", "field"),
    [
        pytest.param([DATA_LIMIT], "", id="the largest"),
        pytest.param([DATA_LIMIT + 1], "image", id="larger"),
        pytest.param([HALF, HALF], "", id="the largest two"),
        pytest.param([HALF, HALF + 1], "mask", id="larger together"),
        pytest.param([1, DATA_LIMIT + 1], "mask", id="a larger mask"),
    ],
)
def test_what_comfyui_would_not_take_is_refused_at_once(
    here: World, sizes: list[int], field: str
) -> None:
    names = ("image", "mask")
    request = {name: here.sent(size) for name, size in zip(names, sizes, strict=False)}
    assert refusal(here, request) == field


def refusal(here: World, request: dict[str, str], owner: str = "me") -> str:
    """The field that is refused, or an empty text."""
    try:
        here.sources.check(request, owner)
    except CallError as error:
        ((field, _),) = error.fields
        return str(field)
    return ""


def test_pictures_in_the_call_count_as_well(here: World) -> None:
    data = f"data:image/png;base64,{'A' * (HALF // 3 * 4 + 400)}"
    assert refusal(here, {"image": here.sent(HALF), "mask": data}) == "mask"
    assert refusal(here, {"image": here.sent(HALF - 400), "mask": data}) == ""


def test_files_of_others_are_none(here: World) -> None:
    address = here.sent(5)
    assert refusal(here, {"image": address}) == ""
    assert refusal(here, {"image": address}, owner="you") == "image"


@pytest.mark.parametrize(
    "address",
    [
        f"{BASE}/v1/files/{'a' * 26}",
        f"/v1/files/{'a' * 26}",
        "/v1/files/../../private.png",
        f"{BASE}/v1/outputs/{'a' * 26}/1-0.png",
    ],
)
def test_what_is_not_here_is_refused_at_once(here: World, address: str) -> None:
    assert refusal(here, {"mask": address}) == "mask"


def test_what_has_gone_while_the_job_waited_is_told(here: World) -> None:
    """ComfyUI, which would be asked to fetch it from us, may not."""
    request = {"seed": 1, "prompt": "a", "image": here.sent(5)}
    job = Job(
        id="j", owner="me", model="a/b", version="c", input={}, request=request, created=0.0,
        deadline=9.0,
    )  # fmt: skip
    prompts = Prompts(read_workflow(None), here.sources)
    filled = asyncio.run(prompts.of(job))
    assert "data:application/octet-stream;base64," in str(filled)
    path = here.sources.find("me", request["image"])
    assert path is not None
    path.unlink()
    with pytest.raises(InputError, match="image: it is not there any more"):
        asyncio.run(prompts.of(job))


@pytest.mark.parametrize("address", ["https://x.org/v1/files/a", "http://127.0.0.1:5001/a.png"])
def test_links_to_elsewhere_are_left_to_who_fetches_them(here: World, address: str) -> None:
    assert refusal(here, {"image": address}) == ""
    assert here.sources.find("me", address) is None

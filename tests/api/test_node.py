"""replicate 1.4.0 for node, unchanged, against our API."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from runtime.clients import find_node_client

from api import checks
from api.checks import COMMON, IMAGES, Check, pictures, raises, refuses
from api.site import LEAKED, Said, Site, bad_requests

SCRIPT = Path(__file__).with_name("node_cases.mjs")
ERROR = "ApiError"


def told(said: Said) -> None:
    assert said.given[0] == "starting"
    assert said.given[-1] == "succeeded"


def aborted(said: Said) -> None:
    assert said.given == {"output": None, "status": "canceled"}


def has_types(said: Said) -> None:
    """Pictures, and the client knows from their address that they are."""
    pictures(address="data:image/webp")(said)
    assert said.given[0]["type"] == "image/webp"


CHECKS: dict[str, Check] = {
    **COMMON,
    **checks.errors({401: ERROR, 404: ERROR, 429: ERROR}),
    "run_model": has_types,
    "run_base_without_v1": pictures(),
    "run_failed": raises("Error", None, "Prediction failed: ", "missing.safetensors"),
    "run_told": told,
    "run_aborted": aborted,
    "progress": checks.rising,
    "file_buffer": IMAGES,
    "file_blob": IMAGES,
    "file_upload": IMAGES,
    "stream": checks.streamed,
    "error_data_uri": raises(ERROR, 422, "input.prompt", "upload"),
    "error_bare_version": raises("Error"),
    "error_not_allowed": raises(ERROR, 403, "somebody/model"),
}
CHECKS |= {f"bad: {name}": refuses(name, ERROR) for name, _ in bad_requests()}


@pytest.fixture(scope="module")
def said(site: Site) -> dict[str, Said]:
    node = shutil.which("node")
    if node is None:
        pytest.skip("waits for node 20 or later on this machine")
    return site.say([node, SCRIPT], {"REPLICATE_CLIENT": str(find_node_client())})


@pytest.mark.parametrize("case", CHECKS)
def test_case(case: str, said: dict[str, Said]) -> None:
    CHECKS[case](said[case])


def test_every_case_is_checked(said: dict[str, Said]) -> None:
    assert set(said) == set(CHECKS)


def test_a_token_that_the_client_sends_as_input_is_kept_nowhere(
    said: dict[str, Said], site: Site
) -> None:
    assert LEAKED not in said["error_data_uri"].raised["text"]
    assert site.open.holds(LEAKED) == []
    assert site.open.holds("a red circle"), "where the input of others is found"

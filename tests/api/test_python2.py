"""replicate 2.x for Python, unchanged, against our API."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime.clients import find_python2
from runtime.environment import ROOT, VENV, venv_python

from api import checks
from api.checks import COMMON, IMAGES, URI, Check, pictures, raises, refuses
from api.site import Said, Site, bad_requests

SCRIPT = Path(__file__).with_name("python2_cases.py")
REFUSED = "UnprocessableEntityError"


def used(said: Said) -> None:
    output, logs = said.given
    assert output == [URI]
    assert "Using seed: 7" in logs


def drawn_once(said: Said) -> None:
    """It asked several times, and one prediction was made."""
    assert said.given["new"] == [said.given["made"]["id"]]
    assert said.given["made"]["status"] == "succeeded"
    assert said.seconds > 0.5, "it never had to ask again"


def out_of_time(said: Said) -> None:
    assert said.given["status"] == "canceled"
    assert said.seconds < 3


def told_of_the_end(said: Said) -> None:
    (message,) = said.given["came"]
    assert said.given["made"] in message["body"]
    assert said.given["secret"].startswith("whsec_")


CHECKS: dict[str, Check] = {
    **COMMON,
    **checks.errors({401: "AuthenticationError", 404: "NotFoundError", 429: "RateLimitError"}),
    "run_async": pictures(),
    "run_base_without_v1": pictures(),
    "run_default_client": pictures(),
    "run_failed": raises("ModelError", None, "missing.safetensors"),
    "use_model": checks.uris,
    "use_mapped": checks.uris,
    "use_without_lora": checks.uris,
    "use_unmapped": checks.uris,
    "use_version": used,
    "use_streaming": checks.uris,
    "use_https": pictures(),
    "create_slug": checks.of_model,
    "cancel_after": out_of_time,
    "repeated": drawn_once,
    "file_handle": IMAGES,
    "file_path": IMAGES,
    "file_base64": IMAGES,
    "stream": checks.uris,
    "webhook": told_of_the_end,
    "error_bare_version": raises("ValueError"),
    "error_not_allowed": raises("PermissionDeniedError", 403, "somebody/model"),
}
CHECKS |= {f"bad: {name}": refuses(name, REFUSED) for name, _ in bad_requests()}


@pytest.fixture(scope="module")
def said(site: Site) -> dict[str, Said]:
    path = os.pathsep.join([str(find_python2()), str(ROOT / "tests")])
    env = {"PYTHONPATH": path, "REPLICATE_BASE_URL": f"{site.open.url}/v1"}
    return site.say([venv_python(VENV), SCRIPT], env)


@pytest.mark.parametrize("case", CHECKS)
def test_case(case: str, said: dict[str, Said]) -> None:
    CHECKS[case](said[case])


def test_every_case_is_checked(said: dict[str, Said]) -> None:
    assert set(said) == set(CHECKS)

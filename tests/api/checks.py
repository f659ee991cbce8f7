"""What must be true of a case's value, whichever client gave it."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image
from runtime.environment import ROOT

from api.caller import SIZE
from api.receiver import ENDS
from api.site import IMAGE_SIZE, MARK, SLOW, TOKENS, VERSION, Said

Check = Callable[[Said], None]
URI = "data:image/webp;base64,"
PROGRESS = re.compile(r"^\s*\d+%\s*\|", re.MULTILINE)
"""A line of the log as the clients look for it."""
SCHEMA = json.loads((ROOT / "prediction" / "schema.json").read_text(encoding="utf-8"))


def picture(data: bytes, form: str = "WEBP", size: tuple[int, int] = SIZE) -> Image.Image:
    """Decode a picture, which must be of this form and size, and not of one colour."""
    image = Image.open(io.BytesIO(data))
    image.load()
    assert (image.format, image.size) == (form, size)
    assert any(low < high for low, high in _extrema(image)), "it is of one colour"
    return image


def pixels(data: bytes) -> bytes:
    """The pixels of a picture; its file has the record of what drew it beside them."""
    return picture(data).tobytes()


def _extrema(image: Image.Image) -> list[tuple[int, int]]:
    found: Any = image.convert("RGB").getextrema()
    return list(found)


def uri_bytes(uri: str) -> bytes:
    """The bytes of a data: URI."""
    assert uri.startswith("data:image/"), uri[:60]
    return base64.b64decode(uri.partition(",")[2], validate=True)


def pictures(
    count: int = 1, form: str = "WEBP", size: tuple[int, int] = SIZE, address: str = ""
) -> Check:
    """Files of the client are so many pictures, with an address that starts so."""

    def check(said: Said) -> None:
        assert len(said.given) == count
        for each in said.given:
            picture(base64.b64decode(each["data"]), form, size)
            assert each["address"].startswith(address)

    return check


def uris(said: Said) -> None:
    assert said.given == [URI]


def succeeded(said: Said) -> None:
    prediction(said.given)


def prediction(found: Mapping[str, Any], version: str | None = None) -> None:
    """A prediction that drew one picture is whole, with the types that clients rely on."""
    assert (found["status"], found["error"]) == ("succeeded", None)
    (output,) = found["output"]
    picture(uri_bytes(output))
    assert found["model"] == "acme/flux"
    assert version is None or found["version"] == version
    assert "Using seed: 7\n" in found["logs"]
    assert 0 < found["metrics"]["predict_time"] <= found["metrics"]["total_time"]
    times = [found[name] for name in ("created_at", "started_at", "completed_at")]
    assert times == sorted(times)
    assert all(url.startswith("http") for url in found["urls"].values())
    assert {"get", "cancel"} <= set(found["urls"])


def of_version(said: Said) -> None:
    prediction(said.given, VERSION)
    assert said.given.get("first", "starting") == "starting"


def of_model(said: Said) -> None:
    prediction(said.given)
    assert said.given["version"], "1.0.7 wants a text"


def same_twice(said: Said) -> None:
    first, second = said.given
    assert first == second
    prediction(first)


def same_picture(said: Said) -> None:
    first, second = (pixels(uri_bytes(output)) for (output,) in said.given["outputs"])
    assert first == second
    assert 0 <= said.given["seed"] < 2**32


def starting(said: Said) -> None:
    assert said.given["status"] == "starting"
    # 1.0.7 waits for half a second more than it asks for
    assert 0.9 < said.given["seconds"] < 1.5


def canceled(said: Said) -> None:
    running, (at_once, later) = said.given["running"], said.given["queued"]
    for each in (running, at_once, later):
        assert (each["status"], each["output"], each["error"]) == ("canceled", None, None)
        assert each["completed_at"]
    assert at_once["started_at"] is None
    # the goal is a second; the clients look each half second
    assert said.given["seconds"] < 2


def rising(said: Said) -> None:
    """Progress as (share, steps, steps in all), or as a whole, rises to its end."""
    seen, steps = said.given, SLOW["num_inference_steps"]
    assert seen[-1] == [1.0, steps, steps]
    assert [each[1] for each in seen] == sorted(each[1] for each in seen)
    assert any(0 < each[1] < steps for each in seen), seen


def listed(said: Said) -> None:
    pages = said.given["pages"]
    ids = [each["id"] for page in pages for each in page]
    assert ids[0] == said.given["made"]
    assert len(ids) == len(set(ids))
    made = [each["created_at"] for page in pages for each in page]
    assert made == sorted(made, reverse=True)
    done = next(each for each in pages[0] if each["id"] == ids[0])
    # A page of pictures as data: would be megabytes.
    assert all(output.startswith("http") for output in done["output"])


def kept_file(said: Said) -> None:
    made, found = said.given["made"], said.given["found"]
    assert made["id"] in said.given["listed"]
    assert made["id"] not in said.given["left"]
    assert said.given["deleted"] is True
    assert made["content_type"] == "image/png"
    assert made["metadata"] == {"case": 1}
    assert made["size"] > 100
    assert len(made["checksums"]["sha256"]) == 64
    assert {name: found[name] for name in made} == made


def streamed(said: Said) -> None:
    """Events of a stream: pieces of the log, the picture, the end."""
    kinds = [kind for kind, _, _ in said.given]
    assert kinds[-1] == "done"
    assert set(kinds) == {"logs", "output", "done"}
    logs = "".join(data for kind, data, _ in said.given if kind == "logs")
    assert "Using seed: 7" in logs.splitlines()
    assert PROGRESS.search(logs), logs
    assert all(number for _, _, number in said.given)
    (output,) = (data for kind, data, _ in said.given if kind == "output")
    assert output[0]["address"].startswith("data:image/webp")
    picture(base64.b64decode(output[0]["data"]))


def model(said: Said) -> None:
    found = said.given
    assert (found["owner"], found["name"]) == ("acme", "flux")
    assert found["latest"] in found["versions"]
    components = found["schema"]["components"]["schemas"]
    assert list(components["Input"]["properties"]) == list(
        SCHEMA["components"]["schemas"]["Input"]["properties"]
    )
    assert components["Output"]["type"] == "array"
    assert "x-cog-array-type" not in components["Output"], "with it, run() gives a generator"


def is_flux(said: Said) -> None:
    assert said.given == ["acme", "flux"]


def account(said: Said) -> None:
    assert said.given["type"] in ("user", "organization")
    assert said.given["username"]


def hardware(said: Said) -> None:
    assert said.given
    assert all(each["name"] and each["sku"] for each in said.given)


def delivered(said: Said) -> None:
    """The client found every signature good; what came tells of the prediction from its start."""
    came = [json.loads(each["body"]) for each in said.given["came"]]
    assert {each["id"] for each in came} == {said.given["made"]}
    prediction(came[-1])
    # A quick one may have ended before its start is told.
    ended = [each["status"] in ENDS for each in came]
    assert ended == sorted(ended)
    assert ended[-1]
    ids = [each["headers"]["webhook-id"] for each in said.given["came"]]
    assert len(ids) == len(set(ids))


def drops(said: Said) -> None:
    """A field that is unknown is left out, and named in the log; its value is not."""
    prediction(said.given)
    assert "disco_mode" in said.given["logs"]
    assert MARK not in said.given["logs"]


def raises(kind: str, status: int | None = None, *texts: str) -> Check:
    """The client raises an error of this type, with this status of HTTP and these texts."""

    def check(said: Said) -> None:
        assert (said.raised["type"], said.raised["status"]) == (kind, status), said.raised
        for text in texts:
            assert text in said.raised["text"]
        assert not any(token in said.raised["text"] for token in TOKENS)

    return check


IMAGES = pictures(size=IMAGE_SIZE)

COMMON: dict[str, Check] = {
    "run_version": pictures(address="data:image/webp"),
    "run_model": pictures(address="data:image/webp"),
    "run_latest_version": pictures(),
    "run_wait_5": pictures(),
    "run_wait_too_short": pictures(),
    "run_poll": pictures(),
    "run_two": pictures(2, "PNG"),
    "run_chunks": pictures(),
    "run_plain": uris,
    "run_https": pictures(address="https://127.0.0.1"),
    "create_version": of_version,
    "create_wait": of_version,
    "create_model": of_model,
    "create_deployment": of_model,
    "get": same_twice,
    "seed_again": same_picture,
    "wait_ends_before": starting,
    "cancel": canceled,
    "listed": listed,
    "file_guarded": IMAGES,
    "file_kept": kept_file,
    "model": model,
    "deployment": is_flux,
    "account": account,
    "hardware": hardware,
    "webhook": delivered,
    "unknown_field": drops,
}
"""Cases that every client has, and gives the same for."""


def errors(kinds: Mapping[int, str]) -> dict[str, Check]:
    """Cases in which every client raises, by the type that it has for each status of HTTP."""
    return {
        "error_no_prediction": raises(kinds[404], 404),
        "error_no_version": raises(kinds[404], 404),
        "error_token": raises(kinds[401], 401),
        "error_of_another": raises(kinds[404], 404),
        "error_full": raises(kinds[429], 429),
    }


def refuses(name: str, kind: str) -> Check:
    """The client raises what it has for 422, which names the field and repeats no value."""

    def check(said: Said) -> None:
        raises(kind, 422, f"input.{name.partition(' ')[0]}", "Input validation failed")(said)
        assert MARK not in said.raised["text"]

    return check

"""The API's page in a real browser, before the real server; what is drawn is in its database."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from api.hosted import HostedApi
from browser.editor import picture, shoot
from playwright.sync_api import Browser, ConsoleMessage, Page, expect

from flux_hotswap.hosted_api.job import Job, Status, new_id
from flux_hotswap.hosted_api.links import Links, load_secrets
from flux_hotswap.hosted_api.options import Options
from flux_hotswap.hosted_api.outputs import Outputs
from flux_hotswap.hosted_api.service import owner_of
from flux_hotswap.hosted_api.store import Store

NOBODY = "http://127.0.0.1:9"
"""A ComfyUI that is not there, so that jobs change only as a test says."""
TOKEN = secrets.token_hex(16)
MARKUP = '<img src=x onerror="document.title=1"><b>bold</b> {{x}} javascript:alert(1)'
WAIT_MS = 15_000


@dataclass
class Api:
    """The server, and its database as the dispatcher changes it."""

    server: HostedApi
    store: Store
    outputs: Outputs
    owner: str = ""

    def ask(self, prompt: str, **more: Any) -> Job:
        now = time.time()
        job = Job(
            id=new_id(), model="owner/name", version="6" * 64, input={"prompt": prompt},
            request={}, created=now, deadline=now + 600, owner=self.owner,
        )  # fmt: skip
        self.store.add(replace(job, **more), digest="")
        return job

    def begin(self, job: Job, log: str = "") -> Job:
        running = self.store.lease(job.id, "worker", time.time())
        assert running
        self.store.log(job.id, running.attempt, log)
        return running

    def finish(self, job: Job, status: Status, *pictures: bytes, error: str = "") -> None:
        async def kept() -> list[str]:
            return [
                await self.outputs.keep(job.id, job.attempt, number, "x.png", data)
                for number, data in enumerate(pictures)
            ]

        with ThreadPoolExecutor(1) as beside:  # Playwright has a loop in this one
            files = tuple(beside.submit(lambda: asyncio.run(kept())).result())
        ended = self.store.finish(
            job.id, job.attempt, status, time.time(), message="", files=files, error=error
        )
        assert ended


@dataclass
class Opened:
    """The page, and what went wrong in it."""

    page: Page
    errors: list[str] = field(default_factory=list)

    def card(self, job: Job) -> Any:
        return self.page.locator(f'article[data-id="{job.id}"]')

    def order(self) -> list[str]:
        return self.page.eval_on_selector_all("article", "cards => cards.map(c => c.dataset.id)")


def api_in(folder: Path, *arguments: str, owner: str = "") -> Iterator[Api]:
    with HostedApi(folder, NOBODY, *arguments) as server:
        store = Store(server.state / "jobs.sqlite")
        links = Links(load_secrets(server.state).links, time.time)
        outputs = Outputs(Options(state=server.state), links, lambda: server.url)
        yield Api(server, store, outputs, owner)
        store.close()


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    yield from api_in(tmp_path_factory.mktemp("api"))


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "tokens").write_text(TOKEN, encoding="utf-8")
    yield from api_in(folder, "--tokens", str(folder / "tokens"), owner=owner_of(TOKEN))


Open = Callable[[str], Opened]


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open an address; nothing may go wrong there, the policy of the page included."""
    context = browser.new_context(viewport={"width": 1000, "height": 900}, locale="en-GB")
    made: list[Opened] = []

    def opened(url: str) -> Opened:
        page = context.new_page()
        page.set_default_timeout(WAIT_MS)
        now = Opened(page)
        page.on("pageerror", lambda error: now.errors.append(str(error)))
        page.on("console", lambda message: _note(message, now.errors))
        page.goto(url)
        made.append(now)
        return now

    yield opened
    assert [error for each in made for error in each.errors] == []
    context.close()


def _note(message: ConsoleMessage, errors: list[str]) -> None:
    if message.type in ("error", "warning") and "401 (Unauthorized)" not in message.text:
        errors.append(message.text)


def test_predictions_are_followed(api: Api, open_page: Open) -> None:
    here = open_page(api.server.url)
    expect(here.page.get_by_text("There are none yet")).to_be_visible()

    first, second = api.ask("a red fox in snow"), api.ask("two blue stars")
    expect(here.card(second).locator(".status")).to_have_text("starting")
    assert here.order() == [second.id, first.id]
    expect(here.page.locator("#state")).to_have_text("0 running, 2 waiting")

    first = api.begin(first, " 25%|██▌       | 7/28 [00:01<00:03, 7.0it/s]\n")
    bar = here.card(first).locator("progress")
    expect(bar).to_have_js_property("value", 0.25)
    button = here.card(first).get_by_role("button").element_handle()
    api.store.log(first.id, 1, " 75%|███████▌  | 21/28 [00:03<00:01, 7.0it/s]\n")
    expect(bar).to_have_js_property("value", 0.75)
    assert button.evaluate("one => one.isConnected"), "it can be clicked while the bar moves"

    api.finish(first, Status.SUCCEEDED, picture(96, 64), picture(64, 96))
    images = here.card(first).locator("img")
    expect(images).to_have_count(2)
    expect(images.first).to_have_js_property("naturalWidth", 96)
    expect(here.card(first).get_by_role("button")).to_have_count(0)
    expect(here.card(first).locator(".status")).to_have_text("succeeded")

    failing = api.begin(second)
    api.finish(failing, Status.FAILED, error="The prompt failed in ComfyUI. Look at its log.")
    expect(here.card(second).locator(".error")).to_have_text(
        "The prompt failed in ComfyUI. Look at its log."
    )
    running = api.begin(api.ask("a green hill"), " 50%|█████     | 14/28 [00:01<00:01, 9.3it/s]\n")
    expect(here.card(running).locator("progress")).to_have_js_property("value", 0.5)
    shoot(here.page, "api_page")
    api.finish(running, Status.CANCELED)


def test_a_button_cancels(api: Api, open_page: Open) -> None:
    here, job = open_page(f"{api.server.url}/"), api.ask("to be canceled")
    here.card(job).get_by_role("button", name="Cancel").click()
    expect(here.card(job).locator(".status")).to_have_text("canceled")
    stored = api.store.get(job.id)
    assert stored
    assert stored.status is Status.CANCELED


def test_a_cancel_that_failed_can_be_tried_again(api: Api, open_page: Open) -> None:
    here, job = open_page(f"{api.server.url}/"), api.ask("to be canceled twice")
    button = here.card(job).get_by_role("button", name="Cancel")
    expect(button).to_be_visible()
    here.page.route("**/cancel", lambda route: route.fulfill(status=503, json={"detail": "Later."}))
    button.click()
    expect(button).to_be_enabled()
    here.page.unroute("**/cancel")
    button.click()
    expect(here.card(job).locator(".status")).to_have_text("canceled")
    here.errors = [error for error in here.errors if "503" not in error]


def test_texts_of_others_stay_texts(api: Api, open_page: Open) -> None:
    job = api.ask(MARKUP, model="a/<i>b</i>")
    api.finish(api.begin(job, MARKUP), Status.FAILED, error=MARKUP)
    here = open_page(f"{api.server.url}/?prediction={job.id}")
    expect(here.card(job).locator(".error")).to_have_text(MARKUP)
    expect(here.card(job).locator(".prompt")).to_have_text(MARKUP)
    expect(here.card(job).locator(".model")).to_contain_text("<i>b</i>")
    assert here.card(job).locator("img, b, i, script").count() == 0
    assert here.page.title() == "Predictions"


def test_one_prediction_alone(api: Api, open_page: Open) -> None:
    one, _ = api.ask("wanted"), api.ask("another")
    here = open_page(f"{api.server.url}/?prediction={one.id}")
    expect(here.card(one)).to_be_visible()
    assert here.order() == [one.id]
    here.page.get_by_role("link", name="Show all").click()
    expect(here.page.get_by_text("another")).to_be_visible()
    api.store.cancel(one.id, time.time(), message="")


def test_pictures_show_under_another_name_of_the_server(api: Api, open_page: Open) -> None:
    job = api.begin(api.ask("by another name"))
    api.finish(job, Status.SUCCEEDED, picture(32, 32))
    here = open_page(api.server.url.replace("127.0.0.1", "localhost"))
    expect(here.card(job).locator("img")).to_have_js_property("naturalWidth", 32)


def test_older_ones_come_when_asked_for(api: Api, open_page: Open) -> None:
    jobs = many(api)
    here = open_page(api.server.url)
    expect(here.card(jobs[1])).to_be_visible()
    assert jobs[0].id not in here.order()
    here.page.get_by_role("button", name="Older ones").click()
    expect(here.card(jobs[0])).to_be_visible()
    assert here.order()[:101] == [job.id for job in reversed(jobs)]


def test_all_come_that_were_asked_for_behind_its_back(api: Api, open_page: Open) -> None:
    before = many(api)
    here = open_page(api.server.url)
    expect(here.card(before[-1])).to_be_visible()
    here.page.evaluate("Object.defineProperty(document, 'hidden', {value: true, writable: true})")
    here.page.wait_for_timeout(500)  # what it is asking just now
    jobs = many(api)
    here.page.evaluate("document.hidden = false")
    expect(here.card(jobs[0])).to_be_visible()
    assert here.order()[:101] == [job.id for job in reversed(jobs)]
    assert before[0].id not in here.order(), "it goes on where it was"
    here.page.get_by_role("button", name="Older ones").click()
    expect(here.card(before[0])).to_be_visible()


def many(api: Api) -> list[Job]:
    """Predictions that have ended, one more than a page of the list holds."""
    jobs = [api.ask(f"number {number}") for number in range(101)]
    for job in jobs:
        api.store.cancel(job.id, time.time(), message="")
    return jobs


def test_a_server_that_is_gone_is_told(tmp_path: Path, open_page: Open) -> None:
    with HostedApi(tmp_path, NOBODY) as server:
        here = open_page(server.url)
        expect(here.page.locator("#state")).to_have_text("0 running, 0 waiting")
    expect(here.page.locator("#state")).to_have_text("The server does not answer.")
    here.errors = [error for error in here.errors if "ERR_CONNECTION_REFUSED" not in error]


def test_a_token_is_asked_for_and_kept_in_the_tab(guarded: Api, open_page: Open) -> None:
    job, other = guarded.ask("mine"), guarded.ask("of another", owner="somebody")
    here = open_page(guarded.server.url)
    field = here.page.get_by_label("This server asks for one of its tokens")
    field.fill("no token of it")
    field.press("Enter")
    expect(here.page.get_by_role("alert")).to_have_text("It is not one of them.")
    field.fill(TOKEN)
    field.press("Enter")
    expect(here.card(job)).to_be_visible()
    expect(field).to_be_hidden()
    assert here.order() == [job.id]
    assert other.id not in here.page.content()
    here.page.reload()
    expect(here.card(job)).to_be_visible()
    assert here.page.evaluate("[localStorage.length, document.cookie]") == [0, ""]
    here.card(job).get_by_role("button", name="Cancel").click()
    expect(here.card(job).locator(".status")).to_have_text("canceled")
    expect(open_page(guarded.server.url).page.get_by_label("This server asks")).to_be_visible()

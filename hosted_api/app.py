"""Puts the API together: what it keeps, who draws, what answers."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import aiohttp
from aiohttp import web

from ..errors import HotswapError, SettingsError
from ..files.settings import Settings
from ..prediction.fill import Prompt, workflow_for
from .calls import counted, guarded, owner
from .changes import Changes
from .cog_routes import Cog
from .comfy_client import ComfyClient
from .comfy_process import ComfyProcess
from .comfy_worker import ComfyWorker
from .dispatch import Dispatcher
from .links import Links, load_secrets
from .metrics import Metrics
from .operate import Operate
from .options import Options
from .outputs import Outputs
from .ports import free_port
from .present import Presenter, with_pictures
from .routes import Hosted
from .service import Service
from .store import Store
from .streams import Streams
from .uploads import Uploads
from .webhooks import Webhooks

WORKFLOWS: Final = Path(__file__).parents[1] / "workflows" / "api"
SWEEP: Final = 60.0
"""Seconds between two looks for what is too old."""

log = logging.getLogger(__name__)


@dataclass
class Where:
    """Where the API is reached; known when it listens."""

    url: str = ""


async def build(
    options: Options, where: Where, stop: Callable[[], None] | None = None
) -> web.Application:
    """Return the application; its start and its end come with it.

    Args:
        options: how it runs.
        where: filled in before the first call.
        stop: ends the process; None inside of another server.

    Raises:
        SettingsError: an option cannot be used.
        StoreError: the state folder cannot be used.
    """
    async with contextlib.AsyncExitStack() as failing:
        session = await failing.enter_async_context(aiohttp.ClientSession())
        service, work = _service(options, where, session)
        failing.pop_all()  # it is closed when the application ends
    app = web.Application(
        client_max_size=options.body, middlewares=[counted(service.metrics), guarded(options)]
    )
    hosted = Hosted(service)
    if stop is not None:
        Cog(service, hosted, stop).add_to(app)
    hosted.add_to(app)
    Streams(service).add_to(app)
    Operate(service).add_to(app)

    async def running(_: web.Application) -> AsyncIterator[None]:
        tasks = [asyncio.ensure_future(each) for each in work]
        yield
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(service.outputs.close)
        await session.close()
        service.store.close()

    app.cleanup_ctx.append(running)
    return app


def _service(
    options: Options, where: Where, session: aiohttp.ClientSession
) -> tuple[Service, list[Coroutine[Any, Any, None]]]:
    """Return what answers need, and what runs beside them."""
    secrets = load_secrets(options.state)
    settings = Settings.from_environment(os.environ)
    store = Store(options.state / "jobs.sqlite")
    links = Links(secrets.links, time.time)

    def base() -> str:
        return options.public or where.url

    outputs = Outputs(options, links, base)
    changes = Changes()
    metrics = Metrics()

    def stored(size: int) -> None:
        metrics.stored.add(size, what="uploads")

    uploads = Uploads(options, store, links, base, owner, time.time, stored)
    present = Presenter(links, outputs, base)

    def counting(event: str, outcome: str) -> None:
        metrics.webhooks.add(event=event, outcome=outcome)

    webhooks = Webhooks(store, settings, secrets.webhooks, present.told, time.time, counting)
    workers = _workers(options, session, secrets.mark)
    pictures = functools.partial(with_pictures, uploads)
    dispatcher = Dispatcher(options, store, outputs, workers, changes, webhooks, pictures, metrics)
    service = Service(
        options, store, links, outputs, present, uploads, webhooks, changes, dispatcher, metrics,
        secrets.webhooks,
    )  # fmt: skip
    _recover(store, outputs)
    work = [worker.run(dispatcher.added) for worker in workers]
    return service, [*work, webhooks.run(), dispatcher.run(), _sweeping(service)]


def _recover(store: Store, outputs: Outputs) -> None:
    """Take up what an earlier process left."""
    for job in store.recover():
        log.warning("drawn again, since the API was started anew", extra={"prediction": job.id})

    def files(job_id: str) -> tuple[str, ...] | None:
        job = store.get(job_id)
        return None if job is None else job.files

    outputs.sweep(files)


async def _sweeping(service: Service) -> None:
    while True:
        try:
            await service.sweep()
        except (HotswapError, OSError, sqlite3.Error):
            log.exception("what is too old could not be removed")
        await asyncio.sleep(SWEEP)


def _workers(options: Options, session: aiohttp.ClientSession, mark: str) -> list[ComfyWorker]:
    workflow = _workflow(options)

    def worker(url: str, process: ComfyProcess | None = None) -> ComfyWorker:
        return ComfyWorker(
            ComfyClient(url, session, mark), session, workflow, options.stall, process=process
        )

    started: list[ComfyWorker] = []
    for number, place in enumerate(options.start):
        port = free_port()
        folder = options.state.resolve() / f"comfyui-{number}"
        # One GPU each, in their order.
        own = {"CUDA_VISIBLE_DEVICES": str(number)} if len(options.start) > 1 else None
        process = ComfyProcess(
            place.resolve(), options.python, port, folder, options.arguments, own
        )
        started.append(worker(f"http://127.0.0.1:{port}", process))
    return [*(worker(url) for url in options.comfyui), *started]


def _workflow(options: Options) -> Callable[[dict[str, Any]], Prompt]:
    """Return what gives the API prompt that serves a request."""
    if options.workflow is not None:
        own = _read_prompt(options.workflow)
        return lambda _: own
    shipped = {path.stem: _read_prompt(path) for path in WORKFLOWS.glob("*.json")}
    return lambda request: shipped[workflow_for(request)]


def _read_prompt(path: Path) -> Prompt:
    with contextlib.suppress(ValueError, OSError):
        read: object = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(read, dict):
            return cast("Prompt", read)
    raise SettingsError(
        f"--workflow {path} is no API prompt. Save one with the editor's Export (API)."
    )

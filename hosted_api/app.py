"""Puts the API together: what it keeps, who draws, what answers."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web

from ..errors import HotswapError, SettingsError
from ..files.settings import Settings
from .calls import counted, guarded, owner
from .changes import Changes
from .cog_routes import Cog
from .dispatch import Dispatcher
from .links import Links, Secrets, load_secrets
from .local import LocalPool
from .metrics import Metrics
from .operate import Operate
from .options import LOCAL, WILDCARDS, Options, is_loopback
from .outputs import Outputs
from .present import Presenter
from .prompts import Prompts, read_workflow
from .routes import Hosted
from .service import Service
from .sources import Sources
from .store import Store
from .streams import Streams
from .uploads import Uploads
from .webhooks import Webhooks
from .worker import Pool

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
        # It speaks to ComfyUI alone. Inside that it does so by its own machine's address, which no
        # certificate names.
        connector = aiohttp.TCPConnector(ssl=stop is not None)
        session = await failing.enter_async_context(aiohttp.ClientSession(connector=connector))
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
        for task in tasks:
            task.add_done_callback(partial(_tell_fault, service))
        yield
        for task in reversed(tasks):  # who draws goes last: the others have things there
            task.cancel()
            await asyncio.wait([task])
        await asyncio.to_thread(service.outputs.close)
        await session.close()
        service.store.close()

    async def stopping(_: web.Application) -> None:
        service.stopping = True

    app.on_shutdown.append(stopping)
    app.cleanup_ctx.append(running)
    return app


def tell_of_address(options: Options, url: str) -> None:
    """Warn where answers hold addresses that others who are let in cannot reach."""
    host = urlsplit(url).hostname or ""
    alone = is_loopback(host) or host in WILDCARDS
    if alone and not options.public and not is_loopback(options.host):
        log.warning(
            "Answers hold addresses that begin with %s, which no other machine reaches. Say with "
            "--public how clients reach this one.",
            url,
        )


def _service(
    options: Options, where: Where, session: aiohttp.ClientSession
) -> tuple[Service, Sequence[Coroutine[Any, Any, None]]]:
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

    webhooks = Webhooks(store, settings, secrets.webhook_key, present.told, time.time, counting)
    pool = _pool(options, session, secrets)
    sources = Sources(uploads, outputs, base)
    prompts = Prompts(read_workflow(options.workflow), sources)
    dispatcher = Dispatcher(options, store, outputs, pool, changes, webhooks, prompts.of, metrics)
    service = Service(
        options, store, links, outputs, present, uploads, sources, webhooks, changes, dispatcher,
        metrics, secrets.webhook_key,
    )  # fmt: skip
    _recover(store, outputs)
    work = [pool.run(dispatcher.added), webhooks.run(), dispatcher.run(), _sweeping(service)]
    return service, work


def _pool(options: Options, session: aiohttp.ClientSession, secrets: Secrets) -> Pool:
    """Return who draws.

    Raises:
        SettingsError: Ray is wanted and not installed, or its replicas cannot be made.
    """
    if options.workers == LOCAL:
        return LocalPool(options, session, secrets.mark)
    try:
        from .cluster.start import cluster_pool
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise SettingsError(
            "--workers ray needs Ray. Run: python -m pip install -r requirements-ray.txt"
        ) from None
    return cluster_pool(options, secrets.links)


def _recover(store: Store, outputs: Outputs) -> None:
    """Take up what an earlier process left."""
    for job in store.recover():
        log.warning("drawn again, since the API was started anew", extra={"prediction": job.id})

    def files(job_id: str) -> tuple[str, ...] | None:
        job = store.get(job_id)
        return None if job is None else job.files

    outputs.sweep(files)


def _tell_fault(service: Service, task: asyncio.Future[None]) -> None:
    """Tell of the end of what goes on as long as the API: nobody else would hear of it."""
    fault = None if task.cancelled() else task.exception()
    if fault is not None:
        service.faulty = True
        log.error("a part of the API has ended; start the API anew", exc_info=fault)


async def _sweeping(service: Service) -> None:
    while True:
        try:
            await service.sweep()
        except (HotswapError, OSError, sqlite3.Error):
            log.exception("what is too old could not be removed")
        await asyncio.sleep(SWEEP)

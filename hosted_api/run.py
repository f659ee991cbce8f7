"""The server as a process: until a signal comes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Sequence
from typing import Final

from aiohttp import web

from ..errors import HotswapError, SettingsError
from .app import Where, build, tell_of_address
from .options import Options, read_options
from .state import claimed
from .talk import set_up_log

STOP_SECONDS: Final = 1.0

log = logging.getLogger("hosted_api")


def main(argv: Sequence[str]) -> int:
    """Serve until told to stop; 2 where an option cannot be used."""
    try:
        options = read_options(argv)
        set_up_log(as_json=options.log == "json")
        with claimed(options.state):
            asyncio.run(serve(options))
    except HotswapError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


async def serve(options: Options) -> None:
    """Serve until a signal comes.

    Raises:
        SettingsError: the port is taken.
    """
    if not options.comfyui and not options.start and not options.ray_address:
        raise SettingsError(
            "Nothing draws: name a ComfyUI that runs with --comfyui URL, or one to start with "
            "--start FOLDER."
        )
    stopped = asyncio.Event()
    _heed_signals(stopped)
    where = Where()
    app = await build(options, where, stopped.set)
    # A handler of Cog's has to know that its client has gone.
    # Whoever follows a stream or waits for an end calls again, so nobody is waited for at our end.
    runner = web.AppRunner(
        app, access_log=None, handler_cancellation=True, shutdown_timeout=STOP_SECONDS
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, options.host, options.port).start()
        except OSError as error:
            raise SettingsError(
                f"--port {options.port} of {options.host} cannot be used ({error.strerror})."
            ) from None
        host, port = runner.addresses[0][:2]
        shown = f"[{host}]" if ":" in host else host
        where.url = f"http://{shown}:{port}"
        tell_of_address(options, where.url)
        sys.stdout.write(f"listening on {where.url}\n")
        sys.stdout.flush()
        await stopped.wait()
    finally:
        await runner.cleanup()


def _heed_signals(stopped: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # on Windows Ctrl-C raises KeyboardInterrupt
        for name in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(name, stopped.set)

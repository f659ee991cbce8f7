"""A process of its own that fetches one source; the tests kill it, race it and starve it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from flux_hotswap.errors import FetchError
from flux_hotswap.files.addresses import AllowList
from flux_hotswap.files.settings import Settings
from flux_hotswap.lora_fetch.fetch import fetch
from flux_hotswap.lora_fetch.store import Store


def main(folder: str, text: str, *, limit: int, user: int, machine: str) -> int:
    if user:  # everything is imported by now
        os.setuid(user)
    if limit:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    settings = Settings(
        allow=AllowList.parse("127.0.0.1"),
        reserve_bytes=0,
        parallel_from=2**20,
        probe_seconds=0.1,
        piece_bytes=2**20,
        connections=4,
        machine=machine,
    )
    try:
        found = fetch(text, store=Store(Path(folder), settings), settings=settings)
    except FetchError as error:
        sys.stdout.write(json.dumps({"error": type(error).__name__, "text": str(error)}))
        return 1
    sys.stdout.write(json.dumps({"path": str(found.path), "from_cache": found.from_cache}))
    return 0


if __name__ == "__main__":
    folder, text, limit, user, machine = sys.argv[1:]
    sys.exit(main(folder, text, limit=int(limit), user=int(user), machine=machine))

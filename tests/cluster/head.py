"""A Ray cluster of this machine, with a proxy that another application may have: a script.

It reads a word and its JSON from each line of standard input, does that, and answers a line:

    status NAME     of an application
    ledger [...]    deploys replicas that write down what they draw; ours by our router, all other
                    applications by Ray's own
    delete NAME     an application
    mix [...]       calls by that router: seconds of each
    knock PORT      what a gRPC port says to somebody without the token
    processes {}    the process ids of Serve's controller, proxies and replicas
    end {}          the cluster
"""

# pyright: basic

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import psutil
import ray
from ray import serve

from flux_hotswap.hosted_api.cluster.app import options_of
from flux_hotswap.hosted_api.cluster.replica import ComfyReplica
from flux_hotswap.hosted_api.cluster.settings import APP, as_data, read_settings
from flux_hotswap.hosted_api.job import Job
from flux_hotswap.hosted_api.prompts import read_workflow
from flux_hotswap.hosted_api.worker import Told
from flux_hotswap.prediction.fill import Prompt, fill_prompt

NAMES = {"controller": "ServeController", "proxy": "ProxyActor", "replica": "ServeReplica"}


def processes() -> dict[str, list[int]]:
    titles = {each.pid: each.name() + " ".join(each.cmdline()) for each in _descendants()}
    return {
        kind: [pid for pid, title in titles.items() if f"ray::{name}" in title]
        for kind, name in NAMES.items()
    }


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


class Ledger(ComfyReplica):
    """A replica that writes down what it loads."""

    async def draw(self, job: Job, prompt: Prompt, replica: str) -> AsyncIterator[Told]:
        with Path(os.environ["LEDGER"]).open("a") as file:
            file.write(f"{json.dumps([os.getpid(), *job.kind])}\n")
        async for told in super().draw(job, prompt, replica):
            yield told


def deploy_ledger(given: dict[str, Any], name: str, path: str) -> None:
    settings = read_settings(given)
    options = options_of(settings)
    if name != APP:
        del options["request_router_config"]
    options["ray_actor_options"]["runtime_env"]["env_vars"]["LEDGER"] = path
    deployment: Any = serve.deployment(Ledger)
    bound = deployment.options(**options).bind(as_data(settings))
    serve.run(bound, name=name, route_prefix=None)


async def mix(name: str, requests: list[dict[str, Any]], callers: int) -> list[float]:
    """Draw requests, so many callers at a time; the seconds of each."""
    handle: Any = serve.get_app_handle(name).options(stream=True)
    workflow = read_workflow(None)
    left = iter(enumerate(requests))
    took: list[float] = []

    async def caller() -> None:
        for number, request in left:
            begun = time.monotonic()
            job = Job(
                id=f"mix{number}", model="", version="", input={}, request=request, created=0.0,
                deadline=0.0, attempt=1,
            )  # fmt: skip
            prompt = fill_prompt(workflow(request), request)
            async for _ in handle.draw.remote(job, prompt, ""):
                pass
            took.append(time.monotonic() - begun)

    await asyncio.gather(*(caller() for _ in range(callers)))
    return took


def knock(port: int) -> str:
    """Call a gRPC port without the cluster's token; what it says to that."""
    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(
        "/ray.serve.ASGIService/HandleRequest",
        request_serializer=bytes,
        response_deserializer=bytes,
    )
    try:
        call(b"", timeout=10)
    except grpc.RpcError as error:
        failed: Any = error
        return failed.code().name
    return "OK"


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray says things of its own there

    def say(answer: object) -> None:
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()

    context: Any = ray.init(
        address="local", num_cpus=8, include_dashboard=False, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": 0})
    say(context.address_info["gcs_address"])
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        answer: object = None
        if word == "status":
            known = serve.status().applications.get(json.loads(rest))
            answer = None if known is None else known.status.value
        elif word == "processes":
            answer = processes()
        elif word == "ledger":
            deploy_ledger(*json.loads(rest))
        elif word == "delete":
            serve.delete(json.loads(rest))
        elif word == "mix":
            answer = asyncio.run(mix(*json.loads(rest)))
        elif word == "knock":
            answer = knock(json.loads(rest))
        else:
            break
        say(answer)
    ray.shutdown()


if __name__ == "__main__":
    main()

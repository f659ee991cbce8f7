"""A Ray cluster of this machine, with a proxy that another application may have: a script.

It reads a word and its JSON from each line of standard input, does that, and answers a line:

    deploy {...}    the application, anew: a rolling update where it is there already
    knock PORT      what a gRPC port says to somebody without the token
    processes {}    the process ids of Serve's controller, proxies and replicas
    end {}          the cluster
"""

# pyright: basic

from __future__ import annotations

import json
import os
import sys

import grpc
import psutil
import ray
from ray import serve

from flux_hotswap.hosted_api.cluster.app import build
from flux_hotswap.hosted_api.cluster.settings import APP

NAMES = {"controller": "ServeController", "proxy": "ProxyActor", "replica": "ServeReplica"}


def processes() -> dict[str, list[int]]:
    titles = {each.pid: each.name() + " ".join(each.cmdline()) for each in _descendants()}
    return {
        kind: [pid for pid, title in titles.items() if f"ray::{name}" in title]
        for kind, name in NAMES.items()
    }


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def knock(port: int) -> str:
    """Call a gRPC port without the cluster's token; what it says to that."""
    call = grpc.insecure_channel(f"127.0.0.1:{port}").unary_unary(
        "/ray.serve.ASGIService/Streaming",
        request_serializer=bytes,
        response_deserializer=bytes,
    )
    try:
        call(b"", timeout=10)
    except grpc.RpcError as error:
        return error.code().name
    return "OK"


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Ray says things of its own there

    def say(answer: object) -> None:
        answers.write(f"{json.dumps(answer)}\n")
        answers.flush()

    context = ray.init(
        address="local", num_cpus=8, include_dashboard=False, log_to_driver=False,
        configure_logging=False,
    )  # fmt: skip
    serve.start(proxy_location="HeadOnly", http_options={"host": "127.0.0.1", "port": 0})
    say(context.address_info["gcs_address"])
    for line in sys.stdin:
        word, _, rest = line.partition(" ")
        answer: object = None
        if word == "deploy":
            serve.run(build(json.loads(rest)), name=APP, route_prefix=None)
        elif word == "processes":
            answer = processes()
        elif word == "knock":
            answer = knock(json.loads(rest))
        else:
            break
        say(answer)
    ray.shutdown()


if __name__ == "__main__":
    main()

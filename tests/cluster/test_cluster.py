"""Many ComfyUIs behind the API: kills, updates and scaling lose nothing and draw nothing twice."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from api.caller import Caller
from api.hosted import HostedApi
from runtime import ray
from runtime.environment import ROOT, clean_env
from runtime.server import LAUNCHER

from cluster.farm import REPLICAS, START_SECONDS, Farm, cluster_env, farm, small_server

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Ray's kills are tried on POSIX")

SEEDS = {"comfyui": 11, "replica": 12, "controller": 13, "proxy": 14, "api": 15}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Farm]:
    with farm(tmp_path_factory.mktemp("cluster")) as made:
        yield made


@pytest.fixture(scope="module")
def undisturbed(running: Farm) -> dict[str, np.ndarray[Any, Any]]:
    """The pictures as they are when nothing is killed."""
    jobs = {name: running.caller.create(seed) for name, seed in SEEDS.items()}
    return {name: running.caller.pixels(job) for name, job in jobs.items()}


def fresh(running: Farm) -> None:
    """Replicas that have kept no picture, so that each is truly drawn again."""
    running.caller.pixels(running.caller.create(1))
    running.caller.pixels(running.caller.create(2))


@pytest.mark.parametrize("first", ["call", "end"])
def test_a_call_to_a_replica_that_has_gone_is_given_up(first: str) -> None:
    """Also where it went after it was chosen for the job, and before the call."""
    assert script("gone.py", first) == "The replica was gone before the job reached it."


@pytest.mark.parametrize("least", ["0", "1"])
def test_a_change_leaves_as_many_replicas_as_there_are(least: str) -> None:
    assert script("updated.py", least) == f"{least} 8"


@pytest.mark.parametrize("word", ["before", "after"])
def test_scaled_to_zero_is_ready_as_soon_as_ray_says_so(word: str) -> None:
    """Where Ray was asked last in the midst of an update, which has ended since."""
    assert float(script("zero.py", word)) < 1.0


def script(name: str, *words: str) -> str:
    """What a script says where Ray is."""
    command = [sys.executable, str(Path(__file__).with_name(name)), *words]
    env = {**clean_env(), "PYTHONPATH": os.pathsep.join([ray.ray_path(), str(ROOT)])}
    done = subprocess.run(
        command, env=env, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_only_the_loopback_address_is_listened_on(running: Farm) -> None:
    """But for a port that Serve opens for each replica, which answers to nobody without token."""
    places = listened(running.head.pid)
    open_ports = [port for ip, port in places if not ip.endswith("127.0.0.1")]
    assert len(open_ports) == REPLICAS
    assert {running.head.ask("knock", port) for port in open_ports} == {"UNAUTHENTICATED"}


def listened(pid: int) -> list[tuple[str, int]]:
    """Where a process and its children listen."""
    return [
        (each.laddr.ip, each.laddr.port)
        for process in psutil.Process(pid).children(recursive=True)
        for each in process.net_connections("inet")
        if each.status == psutil.CONN_LISTEN
    ]


@pytest.mark.parametrize(
    ("what", "attempts"), [("comfyui", 2), ("replica", 2), ("proxy", 1), ("controller", 1)]
)
def test_a_kill_in_the_midst_of_a_draw(
    running: Farm, undisturbed: dict[str, np.ndarray[Any, Any]], what: str, attempts: int
) -> None:
    running.wait()
    fresh(running)
    job = running.caller.create(SEEDS[what])
    running.caller.until_steps(job)
    running.kill(what)
    pixels = running.caller.pixels(job)
    told = running.caller.get(job)
    assert told["logs"].count("Using seed") == attempts, told["logs"]
    assert np.array_equal(pixels, undisturbed[what])
    running.wait()  # what was killed is there again


def test_a_kill_of_the_api(running: Farm, undisturbed: dict[str, np.ndarray[Any, Any]]) -> None:
    fresh(running)
    caller = running.caller
    job, waiting = caller.create(SEEDS["api"]), [caller.create(seed) for seed in (3, 4)]
    caller.until_steps(job)
    running.api.kill()
    with running.api:
        assert np.array_equal(caller.pixels(job), undisturbed["api"])
        assert [caller.end(each)["status"] for each in waiting] == ["succeeded"] * 2
        assert caller.get(job)["logs"].count("Using seed") == 2
        running.api.kill()
    running.api.__enter__()
    running.wait()


def test_a_cancelled_draw_frees_its_replica(running: Farm) -> None:
    jobs = [running.caller.create(seed) for seed in (31, 32)]
    for job in jobs:
        running.caller.until_steps(job)
    begun = time.monotonic()
    assert [running.caller.cancel(job)["status"] for job in jobs] == ["canceled"] * 2
    running.caller.pixels(running.caller.create(1))
    assert time.monotonic() - begun < 20.0
    assert "lost" not in running.api.log_text().rpartition(jobs[1])[2]


def test_a_rolling_update_and_scaling_to_zero(running: Farm) -> None:
    before = set(running.workers())
    caller, ready = running.caller, f"{running.api.url}/readyz"
    with ThreadPoolExecutor(1) as pool:
        updating = pool.submit(running.deploy, least=0, idle=4.0)
        drawn = 0
        while not updating.done() or before & set(running.workers()):
            told = [caller.end(caller.create(100 + drawn + each)) for each in range(2)]
            assert [each["status"] for each in told] == ["succeeded"] * 2, told
            assert [each["logs"].count("Using seed") for each in told] == [1, 1], told
            drawn += 2
        updating.result()
    assert drawn > 0

    running.wait(0)
    # The first job brings them back; Ray may tell last of all that the update has ended.
    assert running.until(lambda: requests.get(ready, timeout=30).status_code == 200) < 2.0
    assert caller.end(caller.create(5))["status"] == "succeeded"


def test_a_cluster_of_its_own_ends_with_the_api(tmp_path: Path) -> None:
    server = small_server(tmp_path)
    words = ("--workers", "ray", "--replicas", "1")
    with HostedApi(tmp_path, "", *server.prepared(), *words, env=cluster_env(server)) as api:
        caller = Caller(api)
        job = caller.create(1)
        assert caller.end(job)["status"] == "succeeded"
        away = [ip for ip, _ in listened(api.pid) if not ip.endswith("127.0.0.1")]
        assert len(away) == 1  # the replica's own
        processes = psutil.Process(api.pid).children(recursive=True)
        assert any("launch.py" in " ".join(each.cmdline()) for each in processes)
        # Two of Ray's helpers ask for a minute more whether their cluster is really gone.
        staying = [each for each in processes if "Agent" in each.name() + " ".join(each.cmdline())]
        ends = [each for each in processes if each not in staying]
        assert len(staying) <= 2
        assert len(ends) >= 6
        api.kill()
        _, alive = psutil.wait_procs(ends, timeout=30)
        assert alive == []


def test_a_comfyui_that_fails_at_first_is_tried_again(tmp_path: Path) -> None:
    """Ray gives up for ever after three: a drive may only come later than the machine."""
    server = small_server(tmp_path)
    words, begin = server.prepared(), tmp_path / "begin.py"
    drive = tmp_path / "drive"
    begin.write_text(
        "import pathlib, runpy, sys\n"
        f"pathlib.Path({str(drive)!r}).stat()\n"
        f"sys.path[0] = {str(LAUNCHER.parent)!r}\n"
        f"runpy.run_path({str(LAUNCHER)!r}, run_name='__main__')\n",
        encoding="utf-8",
    )
    words[1] = str(begin)
    more = ("--workers", "ray", "--replicas", "1")
    with HostedApi(tmp_path, "", *words, *more, env=cluster_env(server)) as api:
        caller = Caller(api)
        job = caller.create(1)
        end = time.monotonic() + START_SECONDS
        while "No replica has started" not in api.log_text():
            assert time.monotonic() < end, api.log_text()[-4000:]
            time.sleep(0.1)
        drive.touch()
        assert caller.end(job)["status"] == "succeeded"
        assert "never retrieved" not in api.log_text()

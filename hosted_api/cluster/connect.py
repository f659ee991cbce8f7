"""Joins a cluster, or starts one on this machine, and deploys the application there."""

# pyright: basic

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray import serve
from ray.serve.handle import DeploymentHandle
from ray.serve.schema import ApplicationStatus

from ...errors import SettingsError, WorkerLostError
from ..options import Options
from .app import build
from .settings import APP, DEPLOYMENT, as_data, settings_of


@dataclass(frozen=True)
class Cluster:
    """A cluster of ours, or one that runs already. Its methods wait, so a thread calls them.

    Attributes:
        options: which, and what runs there.
    """

    options: Options

    @property
    def own(self) -> bool:
        """Whether it is started here, and ends with us."""
        return not self.options.ray_address

    def join(self) -> None:
        """Start it, or connect.

        Raises:
            ConnectionError: there is none at the address.
        """
        known: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self.own:
            settings = settings_of(self.options, 0.0)
            cpus = max(os.cpu_count() or 1, round(settings.most * settings.cpus))
            known |= {"num_cpus": cpus, "include_dashboard": False}
        ray.init(address=self.options.ray_address or "local", **known)
        serve.start(proxy_location="Disabled")  # one that runs already stays as it is

    def handle(self) -> DeploymentHandle[Any]:
        """Return what calls the application; one that is not there is deployed first.

        So is one that Ray has given up, where we know what it is. Its replicas need not be up yet.

        Raises:
            SettingsError: it is not there, and `--start` does not say what it is.
        """
        known = serve.status().applications.get(APP)
        if known is not None and self._given_up(known):
            serve.delete(APP)
        elif known is not None:
            return serve.get_app_handle(APP)
        if not self.options.start:
            raise SettingsError(
                f"--ray-address {self.options.ray_address}: no application {APP} runs there. "
                "Deploy one with `serve deploy deploy/serve.yaml` in a clone of the pack's "
                "repository, or name a ComfyUI that lies on each of its machines with --start "
                "FOLDER."
            )
        gpus = ray.cluster_resources().get("GPU", 0.0)
        cores = os.cpu_count() if self.own else None  # of others no machine may have that many
        settings = settings_of(self.options, gpus, cores or 1)
        target = serve.RunTarget(build(as_data(settings)), name=APP, route_prefix=None)
        (handle,) = serve.run_many([target], wait_for_applications_running=False)
        return handle

    def trouble(self) -> str | None:
        """Return what Ray says is wrong with the application; empty while it only begins.

        None where it is well; one that has scaled to zero is.

        Raises:
            WorkerLostError: Ray has given it up, and `handle` can deploy it again.
        """
        known = serve.status().applications.get(APP)
        if known is None:
            return "it is not there"
        if known.status is ApplicationStatus.RUNNING:
            return None
        told = [known.message, *(each.message for each in known.deployments.values())]
        said = "; ".join(filter(None, told))
        if self._given_up(known):
            raise WorkerLostError(f"No replica has started: {said}")
        return said

    def _given_up(self, known: Any) -> bool:
        """Whether Ray starts no replica any more, none runs, and we can say what to start.

        Three that fail as they start end an application for ever, also where it was a drive that
        was not there yet.
        """
        running = known.deployments[DEPLOYMENT].replica_states if known.deployments else {}
        failed = known.status is ApplicationStatus.DEPLOY_FAILED
        return failed and bool(self.options.start) and not running.get("RUNNING")

    def leave(self) -> None:
        """End it if it is ours, else leave it as it is."""
        ray.shutdown()

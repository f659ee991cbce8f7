"""The application of Ray Serve: `serve deploy deploy/serve.yaml` finds it here by name."""

# pyright: basic

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from ray import serve

from .replica import ComfyReplica
from .router import Named
from .settings import DEPLOYMENT, ReplicaSettings, as_data, read_settings

PACK: Final = Path(__file__).parents[2]

ROUTER: Final = {
    "request_router_class": f"{Named.__module__}:{Named.__name__}",
    "request_routing_stats_period_s": 1.0,
    "request_routing_stats_timeout_s": 10.0,
    # A replica that has just ended a job may say no once; the next try should not wait long.
    "initial_backoff_s": 0.01,
    "max_backoff_s": 0.25,
}


def build(args: Mapping[str, Any]) -> serve.Application:
    """Return the application.

    Args:
        args: see `read_settings`.

    Raises:
        SettingsError: one of them cannot be used.
    """
    settings = read_settings(args)
    deployment: Any = serve.deployment(ComfyReplica)
    return deployment.options(**options_of(settings)).bind(as_data(settings))


def options_of(settings: ReplicaSettings) -> dict[str, Any]:
    """Return how Ray Serve is to keep replicas up, as its deployments take it."""
    options: dict[str, Any] = {
        "name": DEPLOYMENT,
        "max_ongoing_requests": 1,
        "max_queued_requests": -1,  # the queue is the API's; what waits here is one job a replica
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_timeout_s": settings.longest,
        "graceful_shutdown_wait_loop_s": 0.5,
        "max_constructor_retry_count": 3,
        "ray_actor_options": {
            "num_cpus": settings.cpus,
            "num_gpus": settings.gpus,
            "runtime_env": {"env_vars": {"PYTHONPATH": _python_path()}},
        },
        "request_router_config": ROUTER,
    }
    if not settings.scales:
        return {**options, "num_replicas": settings.most}
    # No number to begin with: Ray would go back to it at each change, whatever runs.
    options["autoscaling_config"] = {
        "min_replicas": settings.least,
        "max_replicas": settings.most,
        "target_ongoing_requests": 1,
        "upscale_delay_s": 3.0,
        "downscale_delay_s": settings.idle,
        "downscale_to_zero_delay_s": settings.idle,
        "metrics_interval_s": 1.0,
        "look_back_period_s": 5.0,
    }
    return options


def _python_path() -> str:
    environment: Mapping[str, str] = os.environ
    return os.pathsep.join(filter(None, [str(PACK), environment.get("PYTHONPATH", "")]))

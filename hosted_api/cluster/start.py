"""The way in: checks what the command line says before Ray is even loaded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import MutableMapping

from ...errors import SettingsError
from ..options import Options
from ..worker import Pool
from .settings import settings_of


def cluster_pool(options: Options, key: bytes) -> Pool:
    """Return the replicas of a cluster as the API's workers.

    Args:
        options: how the API runs.
        key: a secret of the API, which the token of its own cluster is made of.

    Raises:
        SettingsError: an option cannot be used.
        ModuleNotFoundError: Ray is not installed.
    """
    if options.comfyui:
        raise SettingsError(
            "--comfyui is for --workers local. With ray, name one to start: --start FOLDER."
        )
    if options.start or not options.ray_address:
        settings_of(options, 0.0)
    _prepare(key, own=not options.ray_address)
    from .connect import Cluster
    from .pool import ClusterPool

    return ClusterPool(Cluster(options))


def _prepare(key: bytes, *, own: bool) -> None:
    """Set what Ray reads from the environment. What an administrator has set stays.

    Args:
        key: the token of our own cluster is made of it.
        own: whether the cluster is ours.
    """
    environment: MutableMapping[str, str] = os.environ
    token = hashlib.sha256(b"ray" + key).hexdigest()
    defaults = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_AUTH_MODE": "token"}
    if own:
        # By this name Ray is told to stay on the loopback address; it holds on every system.
        defaults["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        if "RAY_AUTH_TOKEN_PATH" not in environment:
            defaults["RAY_AUTH_TOKEN"] = token
    for name, value in defaults.items():
        environment.setdefault(name, value)

"""How many replicas Ray wants after a first deployment and after a change: a script."""

# pyright: basic

from __future__ import annotations

import sys
from pathlib import Path

import yaml
from ray.serve._private.autoscaling_state import DeploymentAutoscalingState
from ray.serve._private.common import DeploymentID
from ray.serve._private.config import DeploymentConfig, ReplicaConfig
from ray.serve._private.deployment_info import DeploymentInfo

from flux_hotswap.hosted_api.cluster.app import PACK, options_of
from flux_hotswap.hosted_api.cluster.replica import ComfyReplica
from flux_hotswap.hosted_api.cluster.settings import APP, DEPLOYMENT, read_settings

RUNNING = 8


def deployed(version: str, **changes: object) -> DeploymentInfo:
    config = yaml.safe_load(Path(PACK, "deploy", "serve.yaml").read_text(encoding="utf-8"))
    (app,) = config["applications"]
    options = options_of(read_settings({**app["args"], **changes}))
    return DeploymentInfo(
        deployment_config=DeploymentConfig.from_default(
            autoscaling_config=options["autoscaling_config"]
        ),
        replica_config=ReplicaConfig.create(ComfyReplica),
        start_time_ms=0,
        deployer_job_id="",
        version=version,
    )


def main(least: int) -> tuple[int, int]:
    state = DeploymentAutoscalingState(DeploymentID(DEPLOYMENT, APP))
    first = state.register(deployed("1", least=least), -1)
    return first, state.register(deployed("2", least=least, longest=700), RUNNING)


if __name__ == "__main__":
    sys.stdout.write("{} {}".format(*main(int(sys.argv[1]))))

"""What a replica is: frozen, and plain data in Ray's configuration. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Final, cast

from ...errors import SettingsError
from ..options import Options

APP: Final = "flux_hotswap"
"""Ray Serve's application, and `DEPLOYMENT` what it consists of."""

DEPLOYMENT: Final = "ComfyReplica"


@dataclass(frozen=True, kw_only=True)
class ReplicaSettings:
    """One ComfyUI on one GPU, or on the processor. Times are in seconds.

    Attributes:
        comfyui: its folder, on each machine.
        python: what runs it; empty for the Python that runs Ray.
        arguments: further arguments for its main.py.
        folder: in which logs and temporary files get a folder of their own, on each machine; empty
            for the system's.
        gpus: of a replica: 1, a part of one, or 0.
        cpus: of a replica; torch uses as many threads.
        least: replicas that are always there, 0 where all may go while nothing is asked for.
        most: replicas that there may be.
        idle: after so long without work a replica above the least ends.
        stall: after so long without a sign of life a ComfyUI is given up.
        longest: a replica that is to end may finish its picture so long.
    """

    comfyui: str
    python: str = ""
    arguments: tuple[str, ...] = ()
    folder: str = ""
    gpus: float = 1.0
    cpus: float = 1.0
    least: int = 1
    most: int = 1
    idle: float = 300.0
    stall: float = 900.0
    longest: float = 600.0

    def __post_init__(self) -> None:
        if not 0 <= self.least <= self.most or self.most < 1:
            raise SettingsError(
                f"{self.least} to {self.most} replicas cannot be had. Write a number such as 2, or "
                "a range such as 0-8."
            )

    @property
    def scales(self) -> bool:
        """Whether there are more replicas at some times than at others."""
        return self.least < self.most


def settings_of(options: Options, gpus: float, cores: int = 1) -> ReplicaSettings:
    """Return what the command line says of replicas.

    Args:
        options: with one folder to start.
        gpus: so many the cluster has.
        cores: that replicas on GPUs share, where all are on one machine.

    Raises:
        SettingsError: `--replicas` or `--start` cannot be used.
    """
    if len(options.start) != 1:
        raise SettingsError(
            "--workers ray starts one ComfyUI several times: give one --start FOLDER, and "
            "--replicas for how often."
        )
    each = max(1, int(gpus))
    least, most = read_range(options.replicas) if options.replicas else (each, each)
    return ReplicaSettings(
        comfyui=str(options.start[0].resolve()),
        python=str(options.python or ""),
        arguments=options.arguments,
        gpus=1.0 if gpus else 0.0,
        cpus=float(max(1, cores // most)) if gpus else 1.0,
        least=least,
        most=most,
        idle=options.idle,
        stall=options.stall,
    )


def as_data(settings: ReplicaSettings) -> dict[str, Any]:
    """Return settings as `read_settings` takes them."""
    return {**asdict(settings), "arguments": list(settings.arguments)}


def read_settings(given: Mapping[str, Any]) -> ReplicaSettings:
    """Return the settings of Ray Serve's configuration file.

    Args:
        given: its `args`: names of `ReplicaSettings` to their values.

    Raises:
        SettingsError: one is missing, unknown or of another type.
    """
    known = {field.name: field.type for field in fields(ReplicaSettings)}
    unknown = sorted(set(given) - set(known))
    if unknown or not given.get("comfyui"):
        problem = f"{unknown[0]} is no setting" if unknown else "comfyui is missing"
        raise SettingsError(f"args: {problem}. Use {', '.join(known)}.")
    read: dict[str, Any] = {}
    for name, value in given.items():
        read[name] = _read(name, str(known[name]), value)
    return ReplicaSettings(**read)


def read_range(text: str) -> tuple[int, int]:
    """Return the least and the most of a number such as 2 or a range such as 0-8.

    Raises:
        SettingsError: it is neither.
    """
    least, dash, most = text.partition("-")
    try:
        return int(least), int(most) if dash else int(least)
    except ValueError:
        raise SettingsError(
            f"--replicas is {text!r}: write a number such as 2, or a range such as 0-8."
        ) from None


def _read(name: str, kind: str, value: object) -> object:
    if kind == "str" and isinstance(value, str):
        return value
    if kind == "int" and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind == "float" and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind.startswith("tuple") and isinstance(value, (list, tuple)):
        return tuple(str(each) for each in cast("Sequence[object]", value))
    raise SettingsError(f"args: {name} is {value!r}. Give a {kind.partition('[')[0]}.")

"""The options of work that may run on Ray: `vtr extract`, `vtr compress`, `vtr data verify`."""

from __future__ import annotations

import re
from typing import Annotated, Self

import pydantic

from vtr.errors import ConfigError
from vtr.extras import require_extra
from vtr.settings import Settings, flag_of, option

_GROUP = "Several machines"
MOST_PARTS = 99_999


def _address(text: str | None) -> str | None:
    if text is None or text in ("local", "auto"):
        return text
    if text.startswith("ray://"):
        raise ConfigError(
            f"{text} is a port of Ray's client, which vtr does not speak. Start vtr on a machine "
            "of the cluster with --ray auto, or name the head node as HOST:6379"
        )
    host = re.fullmatch(r"(?:[\w.-]+|\[[0-9a-fA-F:]+\]):(\d{1,5})", text)
    if host is None or not 1 <= int(host[1]) <= 65535:
        raise ValueError("no address")
    return text


class OnRay(Settings):
    """Where work runs that is cut into parts."""

    ray: Annotated[str | None, pydantic.AfterValidator(_address)] = option(
        None, group=_GROUP, file_key="-", metavar="[ADDRESS]", unset="this process does the work",
        allowed="HOST:PORT of the head node, auto or local",
    )  # fmt: skip
    """Work on Ray: with an address (HOST:6379 of the head node, or auto on a machine of the
    cluster) on that cluster, without one on all cores here."""
    parts: int | None = option(
        None, group=_GROUP, file_key="-", metavar="N",
        unset="4 for each worker, of 4,096 videos at most", ge=1, le=MOST_PARTS,
    )  # fmt: skip
    """Pieces that Ray's workers take one after the other."""
    gpus_per_worker: float | None = option(
        None, group=_GROUP, file_key="-", metavar="G",
        unset="1 where the cluster has any and --device is not cpu", ge=0,
    )  # fmt: skip
    """GPUs of one of Ray's workers."""
    cpus_per_worker: int | None = option(
        None, group=_GROUP, file_key="-", metavar="C", unset="8, or what the smallest node has",
        ge=1,
    )  # fmt: skip
    """Cores of one of Ray's workers: so many videos does it decode at once."""

    def check_ray(self, settings: Settings) -> None:
        """Refuses what cannot be done on Ray, before a folder is made or a video looked for."""
        if self.ray is not None:
            settings.refuse_typed(
                ("workers",),
                "is about the processes of this machine, and with --ray each of Ray's workers "
                "decodes as many videos at once as it has cores: give --cpus-per-worker",
            )
            require_extra("ray", ["ray"], "--ray", needs="the package ray")

    @pydantic.model_validator(mode="after")
    def _only_on_ray(self) -> Self:
        for name in ("parts", "gpus_per_worker", "cpus_per_worker"):
            if self.ray is None and getattr(self, name) is not None:
                flag = flag_of(name, type(self).model_fields[name])
                raise ConfigError(f"{flag} is about Ray's workers; it needs --ray")
        return self

"""The options of `vtr serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pydantic

from vtr.clip.device import check_device_name
from vtr.settings import Settings, option


class Options(Settings):
    """Where the page can be seen, and what it searches with."""

    host: str | None = option(
        None, "Address of this machine by which others may open the page, with a token.",
        group="Page", metavar="ADDRESS", unset="only this machine",
    )  # fmt: skip
    port: int = option(
        8642,
        "Port of the page; 0 is any that is free.",
        group="Page",
        bounds={"ge": 0, "le": 65535},
    )
    open_browser: bool = option(
        False, "Open the page in the browser.", group="Page", flag="--open", file_key="-"
    )
    follow_links: bool = option(
        False, "Also show files elsewhere that links in the folder point to.", group="Page"
    )
    model: str | None = option(
        None, "The backbone: an image-text model by hub id, or a local folder.",
        group="Index", metavar="ID",
        unset="the one that the index was made with, at first openai/clip-vit-base-patch32",
    )  # fmt: skip
    index: Path | None = option(
        None, "Where the features lie.", group="Index", metavar="DIR",
        unset="hidden in the folder, or in the user's cache",
    )  # fmt: skip
    device: Annotated[str, pydantic.AfterValidator(check_device_name)] = option(
        "auto", "Where the model runs: auto, cpu, cuda, cuda:1.", group="Index", metavar="DEVICE"
    )
    workers: int | None = option(
        None, "Decoding processes.", group="Index", unset="one per core", bounds={"ge": 1}
    )

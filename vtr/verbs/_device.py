"""The option that says where a model runs."""

from __future__ import annotations

from typing import Annotated

import pydantic

from vtr.clip.device import check_device_name

DeviceName = Annotated[str, pydantic.AfterValidator(check_device_name)]

"""Your own folder of videos.

Every video file in the folder and in the folders below it is one video. Its id is its path relative
to the folder, with `/` and with its extension: adding files never renames others, and x.mp4 and
x.webm stay apart.
"""

from __future__ import annotations

from pathlib import Path

from vtr.datasets.base import Dataset
from vtr.datasets.files import find_videos, video_id


def load(annotations: Path | None, videos: Path) -> Dataset:
    """Lists the videos of a folder as a dataset without captions.

    Args:
        annotations: Not read.
        videos: The folder.

    Returns:
        The dataset; an id occurs twice where two names differ only in their Unicode composition
        (`unique_videos` tells them apart).

    Raises:
        ConfigError: `videos` is missing or no folder.
    """
    return Dataset(name="folder", video_ids=tuple(map(video_id, find_videos(videos).names)))

"""The reference systems' way from a video to embeddings, for comparison.

The same work as CLIP4Clip's extractor (OpenCV; one seek per wanted frame; Pillow, one picture at
a time; float32 tensors) followed by a CLIP tower with plain attention, all in one process.
OpenCV and torch use as many threads as they like.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image

SIZE = 224
MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def read_video(path: Path, *, frames_per_second: int = 1) -> torch.Tensor:
    """Returns (L, 3, 224, 224) float32: frames by number, as the reference picks them.

    Its arithmetic: the rate cut to an integer, the last second included, and the first frame
    that cannot be read ends everything.
    """
    video = cv2.VideoCapture(str(path))
    try:
        rate = int(video.get(cv2.CAP_PROP_FPS))
        seconds = math.ceil(int(video.get(cv2.CAP_PROP_FRAME_COUNT)) / rate)
        offsets = range(0, rate, max(1, rate // frames_per_second))[:frames_per_second]
        wanted = [second * rate + offset for second in range(seconds + 1) for offset in offsets]
        return torch.stack(list(_frames(video, wanted)))
    finally:
        video.release()


def _frames(video: Any, numbers: list[int]) -> Iterator[torch.Tensor]:
    for number in numbers:
        video.set(cv2.CAP_PROP_POS_FRAMES, number)
        found, picture = video.read()
        if not found:
            return
        yield preprocess(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB))


def preprocess(picture: np.ndarray) -> torch.Tensor:
    """Returns one (H, W, 3) uint8 RGB picture as CLIP's normalised (3, 224, 224) float32."""
    image = Image.fromarray(picture)
    width, height = image.size
    scale = SIZE / min(width, height)
    image = image.resize((int(width * scale), int(height * scale)), Image.Resampling.BICUBIC)
    left, top = round((image.width - SIZE) / 2), round((image.height - SIZE) / 2)
    image = image.crop((left, top, left + SIZE, top + SIZE))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous()
    return pixels.to(torch.float32).div(255).sub_(MEAN).div_(STD)


class EagerTower:
    """CLIP's vision tower as transformers runs it with `attn_implementation="eager"`.

    Args:
        folder: A Hugging Face model folder.
        batch_size: Pictures per forward pass, across videos: the reference's best case.
    """

    def __init__(self, folder: Path, *, batch_size: int = 32) -> None:
        from transformers import CLIPModel
        from transformers.utils import logging

        logging.disable_progress_bar()
        self._model = CLIPModel.from_pretrained(folder, attn_implementation="eager").eval()
        self._batch_size = batch_size

    @torch.no_grad()
    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Returns the (B, D) embeddings of (B, 3, 224, 224) normalised pictures."""
        output = self._model.get_image_features(pixel_values=pixels)
        return output if isinstance(output, torch.Tensor) else output.pooler_output

    def encode_videos(self, paths: list[Path]) -> torch.Tensor:
        """Returns the embeddings of all frames of some videos, in order."""
        waiting: list[torch.Tensor] = []
        done = []
        for path in paths:
            waiting.extend(read_video(path))
            while len(waiting) >= self._batch_size:
                done.append(self.encode(torch.stack(waiting[: self._batch_size])))
                del waiting[: self._batch_size]
        if waiting:
            done.append(self.encode(torch.stack(waiting)))
        return torch.cat(done)

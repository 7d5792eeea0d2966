"""Several encoders of one model, each on a device of its own, that share the batches of a run.

What is written does not depend on how many they are: batches are cut before they are handed out,
and their answers are taken in that order.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ModelError
from vtr.extract.settings import Encoder
from vtr.foreign import first_line

Embeddings = NDArray[np.float32]
_AHEAD = 2  # Batches under way for each encoder: one is computed, one waits


class EncoderGroup:
    """One encoder for the pipeline. Use as a context manager: leaving it ends its threads.

    A single one works in the caller's thread; of several each has its own, so that a batch is
    copied to one device, or to the same device by its second lane, while another is computed.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.encoders = tuple(encoders)
        self.device, self.describe = encoders[0].device, encoders[0].describe
        self.pad_embedding = encoders[0].pad_embedding
        self._room = threading.Semaphore(_AHEAD * len(encoders))
        self._seconds = [0.0] * len(encoders)
        self._own = threading.local()  # `number`: which encoder is a thread's
        self._threads = ThreadPoolExecutor(len(encoders), "vtr-encoder")
        if len(encoders) > 1:  # all at once: left to itself it may have one thread do all the work
            together = threading.Barrier(len(encoders))
            for _ in encoders:
                self._threads.submit(self._begin_thread, together)

    def __enter__(self) -> EncoderGroup:
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the threads after the batches that they are at; others are dropped."""
        self._threads.shutdown(cancel_futures=True)

    def _begin_thread(self, together: threading.Barrier) -> None:
        self._own.number = together.wait()

    @property
    def seconds(self) -> float:
        """Wall-clock time within the encoders so far, over all of them."""
        return sum(self._seconds)

    def submit(
        self, crops: NDArray[np.uint8], *, offsets: Sequence[int] | None = None
    ) -> Future[Embeddings]:
        """Hands a batch (B, h, w, 3) to the encoder that is free; waits while enough are under way.

        `offsets` say where each clip's frames begin, for one that must know. The answer becomes
        (B, D), or raises ModelError where the device failed.
        """
        if len(self.encoders) == 1:
            answer: Future[Embeddings] = Future()
            answer.set_result(self.encode_frames(crops, offsets=offsets))
            return answer
        self._room.acquire()
        answer = self._threads.submit(self.encode_frames, crops, offsets=offsets)
        answer.add_done_callback(lambda _: self._room.release())
        return answer

    def encode_frames(
        self, crops: NDArray[np.uint8], *, offsets: Sequence[int] | None = None
    ) -> Embeddings:
        """Returns (B, D), by the encoder of this thread; in one of the caller's by the first."""
        number = getattr(self._own, "number", 0)
        more: dict[str, Any] = {} if offsets is None else {"offsets": offsets}
        encoder, start = self.encoders[number], time.perf_counter()
        try:
            return encoder.encode_frames(crops, **more)
        except RuntimeError as error:  # what torch raises for a device that is lost, too
            raise ModelError(
                f"the model failed on {encoder.device}: {first_line(error)}. What was published "
                "before is whole: run the same command again to go on, on another --device if it "
                "fails there again"
            ) from error
        finally:
            self._seconds[number] += time.perf_counter() - start

"""Several encoders of one model, each on a device of its own, that share the batches of a run.

What is written does not depend on how many they are: batches are cut before they are handed out,
and their answers are taken in that order.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vtr.errors import ModelError
from vtr.extract.settings import Encoder
from vtr.foreign import first_line

Embeddings = NDArray[np.float32]
_Task = tuple[NDArray[np.uint8], list[int] | None, "Future[Embeddings]"]
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
        self._tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._room = threading.Semaphore(_AHEAD * len(encoders))
        self._threads: list[threading.Thread] = []
        self._seconds = [0.0] * len(encoders)

    def __enter__(self) -> EncoderGroup:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """Wall-clock time within the encoders so far, over all of them."""
        return sum(self._seconds)

    def encode_frames(
        self, crops: NDArray[np.uint8], *, offsets: Sequence[int] | None = None
    ) -> Embeddings:
        """Returns (B, D), by the first encoder."""
        return self._encode(0, crops, offsets)

    def submit(
        self, crops: NDArray[np.uint8], *, offsets: list[int] | None = None
    ) -> Future[Embeddings]:
        """Hands a batch (B, h, w, 3) to the encoder that is free; waits while enough are under way.

        `offsets` say where each clip's frames begin, for one that must know. The answer becomes
        (B, D), or raises ModelError where the device failed.
        """
        answer: Future[Embeddings] = Future()
        if len(self.encoders) == 1:
            answer.set_result(self._encode(0, crops, offsets))
            return answer
        if not self._threads:
            self._threads = [
                threading.Thread(target=self._serve, args=(i,), name="vtr-encoder", daemon=True)
                for i in range(len(self.encoders))
            ]
            for thread in self._threads:
                thread.start()
        self._room.acquire()
        self._tasks.put((crops, offsets, answer))
        return answer

    def close(self) -> None:
        """Ends the threads after the batches that they are at; others are dropped."""
        while self._threads and not self._tasks.empty():
            self._tasks.get()
        for _ in self._threads:
            self._tasks.put(None)
        for thread in self._threads:
            thread.join()
        self._threads = []

    def _serve(self, number: int) -> None:
        while (task := self._tasks.get()) is not None:
            crops, offsets, answer = task
            try:
                answer.set_result(self._encode(number, crops, offsets))
            except BaseException as error:  # noqa: BLE001  (raised where the answer is taken)
                answer.set_exception(error)
            del task, crops
            self._room.release()

    def _encode(
        self, number: int, crops: NDArray[np.uint8], offsets: Sequence[int] | None
    ) -> Embeddings:
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

"""The training loop: epochs of steps, validation after each, a checkpoint after each."""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vtr.counts import counted, human_seconds
from vtr.errors import ConfigError, ModelError
from vtr.files import publish
from vtr.foreign import first_few
from vtr.json_files import parse_json
from vtr.progress import note, progress
from vtr.train.batches import BatchPlan, Step, halve
from vtr.train.checkpoint import Progress, load_checkpoint, save_checkpoint
from vtr.train.data import PairedData, Resident
from vtr.train.distributed import ALONE, World
from vtr.train.gradients import BatchGradient
from vtr.train.health import first_non_finite
from vtr.train.memory import ShortOfMemoryError, fitting_videos, is_out_of_memory, within_memory
from vtr.train.mining import confusable_groups
from vtr.train.model import RetrievalModel
from vtr.train.optim import make_optimiser
from vtr.train.presets import TrainSettings
from vtr.train.run import (
    BEST,
    LAST,
    METRICS,
    append_line,
    read_tensors,
    remove_files,
    save_model,
    write_json,
)
from vtr.train.scoring import SELECTION, Validation, selection_value
from vtr.train.teacher import Teacher
from vtr.train.vision_tower import PictureBatch

FAILURE = "failure.json"
NOTHING_TO_TRAIN = (
    "there is nothing to train: the head has no parameters, the text side is frozen and the "
    "temperature is fixed. Use --text projection or --text tune, or evaluate with vtr eval "
    "--zero-shot"
)
_SHOW_SECONDS = 0.2


class AstrayError(ModelError):
    """Numbers that are not finite any more: each of several processes raises it alike."""


@dataclass(frozen=True)
class TrainResult:
    """What came out."""

    best_epoch: int  # Whose weights are in best.safetensors; 0 is before any training
    epochs: int  # Whole epochs done
    metrics: Mapping[str, float]  # Of the best epoch on the validation data; empty without
    selection: str  # How the best epoch was chosen
    seconds: float  # In all
    stopped_early: bool  # Whether patience ran out
    # Things that happened on the way, such as a halved batch.
    events: tuple[Mapping[str, Any], ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields in JSON types."""
        return {**vars(self), "metrics": dict(self.metrics), "events": list(self.events)}


@dataclass
class _EpochSums:
    """Sums over one epoch."""

    steps: int = 0
    pairs: int = 0
    items: int = 0
    # Of both directions, of texts, of videos.
    losses: NDArray[np.float64] = field(default_factory=lambda: np.zeros(3))
    start: float = field(default_factory=time.perf_counter)

    def add(self, step: Step, losses: list[float]) -> None:
        self.steps += 1
        self.pairs += len(step.texts)
        self.items += len(step.videos)
        self.losses += losses

    @property
    def mean_losses(self) -> list[float]:
        means: list[float] = (self.losses / self.steps).tolist()
        return means

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start


class Trainer:
    """Trains one model on one device, or its share of it among several processes.

    The model is trained in place, into a run folder made by `start_run`. Without validation the
    last epoch is the best; `on_epoch` is called after each with its line of metrics.jsonl.

    Raises:
        ConfigError: Nothing to train, or fewer than two videos.
    """

    def __init__(  # noqa: PLR0913  (the parts of a training; a bundle would only rename them)
        self,
        model: RetrievalModel,
        data: PairedData,
        settings: TrainSettings,
        *,
        folder: Path,
        validation: Validation | None = None,
        device: torch.device | str = "cpu",
        world: World = ALONE,
        teacher: Teacher | None = None,
        on_epoch: Callable[[Mapping[str, Any]], None] | None = None,
        quiet: bool = False,
    ) -> None:
        self.device = torch.device(device)
        self.settings = settings
        self.folder = folder
        self.validation = validation
        self.world = world
        self.on_epoch = on_epoch
        self.quiet = quiet or not world.is_first
        if teacher is not None and len(teacher) != len(data.texts):
            raise ValueError(f"{len(data.texts)} captions, the teacher has {len(teacher)}")
        with within_memory("the model with all texts and videos"):
            self.model = model.to(self.device)
            self.data = Resident(data, self.device)
        self.events: list[dict[str, Any]] = []
        if not any(p.requires_grad for n, p in model.named_parameters() if n != "logit_bias"):
            raise ConfigError(NOTHING_TO_TRAIN)
        self.optimiser, self.schedule = make_optimiser(self.model, settings)
        self.gradient = BatchGradient(
            self.model, self.data, settings.loss, settings.chunk, world=world, teacher=teacher
        )
        self.model.compute(short=settings.short, checkpointing=settings.checkpointing)
        self.progress = Progress(vision_chunk=settings.vision_chunk)
        self.plan = self._make_plan(0)

    def run(self, *, resume: bool = False) -> TrainResult:
        """Trains until the last epoch or until patience runs out; `resume` goes on from before.

        Raises:
            ModelError: The loss is no longer a finite number, or memory does not hold two videos.
        """
        begun = resume and (self.folder / LAST).is_file()
        if begun:
            self._restore()
        else:
            self._begin()
        stopped = self._exhausted
        self._fit_pictures()
        if self.model.logit_bias is not None and not begun:
            self.gradient.start_bias(self.plan.epoch(1)[0])
        devices = [self.device] if self.device.type == "cuda" else []
        with (
            progress("training", quiet=self.quiet) as self._show,
            torch.random.fork_rng(devices=devices),
        ):
            while self.progress.epoch < self.settings.epochs and not stopped:
                self._one_epoch(self.progress.epoch + 1)
                stopped = self._exhausted
        self.model.eval()
        return self._result(stopped and self.progress.epoch < self.settings.epochs)

    @property
    def _exhausted(self) -> bool:
        patience = self.settings.patience
        return bool(patience and self.validation and self.progress.stale >= patience)

    def _make_plan(self, batch_size: int) -> BatchPlan:
        options = self.settings.batch
        if batch_size:
            options = replace(options, size=batch_size)
        plan = BatchPlan(self.data.data.text_video, options, seed=self.settings.seed)
        if plan.size < options.size and not batch_size:
            self.events.append(
                {"event": "batch larger than the data", "asked": options.size, "used": plan.size}
            )
        plan.check_share(self.world.size)
        return plan

    # ---- start and end

    def _begin(self) -> None:
        """Judges the untrained model: where it starts from zero-shot it may stay the best."""
        if self.world.is_first:
            remove_files(self.folder, METRICS, LAST, BEST, FAILURE)
        start = time.perf_counter()
        metrics = self._validate()
        self._judge(0, metrics)
        self.progress.seconds = time.perf_counter() - start
        self._record({"epoch": 0, **metrics, "seconds": self.progress.seconds})

    def _restore(self) -> None:
        self.progress = load_checkpoint(self.folder / LAST, self.model, self.optimiser)
        # Found only after the last epoch, a lost best epoch would have cost all of them.
        if self.world.is_first:
            read_tensors(self.folder / BEST)
        if self.progress.batch_size:
            self.plan = self._make_plan(self.progress.batch_size)
        if self.world.is_first:
            rows = [row for row in read_metrics(self.folder) if row["epoch"] <= self.progress.epoch]
            lost = self.progress.epoch + 1 - len(rows)
            if lost > 0:
                there = f"{self.folder / METRICS} is cut off"
                note(f"{there}: the numbers of {counted(lost, 'epoch')} are lost, no weights")
            text = "".join(json.dumps(row) + "\n" for row in rows)
            publish(self.folder / METRICS, text.encode())
        self.world.wait()

    def _fit_pictures(self) -> None:
        """Sets how many videos the vision tower encodes at once, by the memory that is free."""
        if self.model.vision is None:
            return
        if self.progress.vision_chunk is None:
            longest = int(np.argmax(self.data.videos.lengths))
            self.model.train()
            batch = self.data.videos.batch(np.array([longest]))
            assert isinstance(batch, PictureBatch)
            sharing = self.world.size if self.device.type == "cpu" else 1
            fits = max(1, fitting_videos(self.model, batch) // sharing)
            mine = -(-self.plan.size // self.world.size)
            self.progress.vision_chunk = 0 if fits >= mine else fits
            if fits < mine:
                self.events.append({"event": "vision chunk", "videos": fits})
        self.gradient = replace(self.gradient, vision_chunk=self.progress.vision_chunk)

    def _result(self, stopped_early: bool) -> TrainResult:
        best = self.progress.best_epoch
        rows = read_metrics(self.folder) if self.world.is_first else []
        metrics = next((row for row in rows if row["epoch"] == best), {})
        return TrainResult(
            best_epoch=best,
            epochs=self.progress.epoch,
            metrics={k: v for k, v in metrics.items() if k.startswith(("t2v/", "v2t/"))},
            selection=SELECTION if self.validation else "last epoch: no validation data",
            seconds=self.progress.seconds,
            stopped_early=stopped_early,
            events=tuple(self.events),
        )

    # ---- one epoch

    def _one_epoch(self, epoch: int) -> None:
        start = time.perf_counter()
        _seed_generators(self.settings.seed, epoch)
        self.model.train()
        sums = self._steps(epoch)
        train_seconds = sums.seconds
        metrics = self._measure(epoch)
        self.progress.epoch = epoch
        self.progress.seconds += time.perf_counter() - start
        self._judge(epoch, metrics)
        self._record(
            {
                "epoch": epoch,
                **dict(zip(("loss", "loss/t2v", "loss/v2t"), sums.mean_losses, strict=True)),
                **metrics,
                "scale": float(self.model.scale().detach()),
                **({} if (bias := self.model.logit_bias) is None else {"bias": bias.item()}),
                "steps": sums.steps,
                "pairs_per_second": sums.pairs / train_seconds,
                "seconds": time.perf_counter() - start,
            }
        )
        if self.world.is_first:
            save_checkpoint(self.folder / LAST, self.model, self.optimiser, self.progress)
        self.world.wait()

    def _steps(self, epoch: int) -> _EpochSums:
        groups = None
        if self.settings.mine == "global":
            groups = confusable_groups(self.model, self.data, self.plan, epoch)
        waiting = deque(self.plan.epoch(epoch, groups=groups))
        total = sum(len(step.videos) for step in waiting)
        sums, shown = _EpochSums(), 0.0
        while waiting:
            step = waiting.popleft()
            following = waiting[0] if waiting else None
            losses = self._try_step(step, epoch - 1 + sums.items / total, following)
            if losses is None:
                waiting.appendleft(step)
                if not self._halve_chunk(step, epoch):
                    waiting = self._halve(list(waiting), epoch)
                continue
            sums.add(step, losses)
            if sums.seconds - shown > _SHOW_SECONDS or not waiting:
                shown = sums.seconds
                self._show_progress(epoch, sums, sums.steps + len(waiting))
        return sums

    def _show_progress(self, epoch: int, sums: _EpochSums, steps: int) -> None:
        epochs = self.settings.epochs
        self._show(
            (epoch - 1) * steps + sums.steps,
            epochs * steps,
            f"epoch {epoch}/{epochs}, loss {sums.mean_losses[0]:.3f}, "
            f"{sums.pairs / sums.seconds:,.0f} pairs/s",
        )

    def _try_step(
        self, step: Step, epochs_done: float, following: Step | None
    ) -> list[float] | None:
        """Returns the losses of one step; None where the GPU's memory did not hold it."""
        try:
            return self._step(step, epochs_done, following)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.world.size > 1:
                raise ModelError(
                    "memory does not hold the batch: use a smaller --batch-size, --chunk or "
                    "--vision-chunk (with several processes it is not halved on the way)"
                ) from None
        # Outside the handler: its traceback keeps the tensors alive until it ends.
        return None

    def _step(self, step: Step, epochs_done: float, following: Step | None = None) -> list[float]:
        self.schedule.set(epochs_done / self.settings.epochs)
        self.optimiser.zero_grad(set_to_none=True)
        loss = self.gradient(step, following)
        norm = self._clip()
        values = torch.stack([loss.total, loss.t2v, loss.v2t, norm]).detach().tolist()
        if not np.isfinite(values).all():
            self._fail(step, values)
        self.optimiser.step()
        self.model.clamp_scale()
        return values[:3]

    def _clip(self) -> torch.Tensor:
        limit = self.settings.clip_norm or float("inf")
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        return torch.nn.utils.clip_grad_norm_(parameters, limit).detach()

    def _halve_chunk(self, step: Step, epoch: int) -> bool:
        """Encodes fewer pictures at once, which changes no number, where there are several."""
        self.optimiser.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
        chunk = min(self.gradient.vision_chunk or len(step.videos), len(step.videos))
        if self.model.vision is None or chunk < 2:
            return False
        self.progress.vision_chunk = chunk // 2
        self._fit_pictures()
        event = {"event": "out of memory: vision chunk halved", "epoch": epoch}
        self.events.append({**event, "vision_chunk": chunk // 2})
        return True

    def _halve(self, steps: list[Step], epoch: int) -> deque[Step]:
        smaller = halve(steps)
        if len(smaller[0].videos) == len(steps[0].videos):
            raise ModelError(
                "memory does not hold a step of two videos: use --captions one, fewer frames, "
                "--checkpointing where towers are trained, or on a GPU --device cpu"
            )
        size = max(2, self.plan.size // 2)
        self.progress.batch_size = size
        self.plan = self._make_plan(size)
        event = {"event": "out of memory: batch halved", "epoch": epoch, "batch_size": size}
        self.events.append(event)
        return deque(smaller)

    def _fail(self, step: Step, values: list[float]) -> None:
        """Stops; the checkpoint of the last whole epoch stays as it is."""
        culprit = first_non_finite(self.model, self.data, step)
        videos = [self.data.videos.ids[v] for v in dict.fromkeys(step.videos.tolist())]
        captions = [self.data.texts.ids[t] for t in step.texts.tolist()]
        epoch = self.progress.epoch + 1
        if self.world.is_first:
            record = {"epoch": epoch, "culprit": culprit, "videos": videos, "captions": captions}
            write_json(self.folder / FAILURE, record)
        what = "loss" if not np.isfinite(values[0]) else "norm of the gradients"
        kept = f"the weights after epoch {epoch - 1} are kept" if epoch > 1 else "nothing is lost"
        raise AstrayError(
            f"the {what} became {values[0] if what == 'loss' else values[3]} in epoch {epoch}. "
            f"First tensor that is not finite: {culprit}. Videos of the batch: "
            f"{first_few(videos, 5)} (all in {self.folder / FAILURE}); {kept}. Check these "
            "videos, or use a smaller --lr"
        )

    # ---- after an epoch

    def _measure(self, epoch: int) -> dict[str, float]:
        """Returns the validation's metrics; weights that have gone astray never reach a file."""
        kept, smaller = f"the weights after epoch {epoch - 1} are kept", "use a smaller --lr"
        for name, parameter in self.model.named_parameters():
            if not bool(parameter.isfinite().all()):
                raise AstrayError(
                    f"weight {name} is not finite after epoch {epoch}: {kept}; {smaller}"
                )
        try:
            return self._validate()
        except ShortOfMemoryError as error:
            raise ShortOfMemoryError(f"after epoch {epoch} {error}; {kept}") from None
        except ModelError as error:
            raise ModelError(f"after epoch {epoch} {error}; {kept}; {smaller}") from None

    def _validate(self) -> dict[str, float]:
        if self.validation is None:
            return {}
        metrics = self.validation(self.model) if self.world.is_first else {}
        value = selection_value(metrics) if self.world.is_first else 0.0
        self._value = self.world.share([value])[0]
        return metrics

    def _judge(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Keeps the weights where they are the best so far; an equal later epoch is not better."""
        if self.validation is None:
            better, value = True, None
        else:
            value = self._value
            better = self.progress.best_value is None or value > self.progress.best_value
        if not better:
            self.progress.stale += 1
            return
        self.progress.best_epoch, self.progress.best_value, self.progress.stale = epoch, value, 0
        if self.world.is_first:
            # No more than one entry: safetensors writes several in an order of its own each time,
            # and equal trainings are to be equal files.
            save_model(self.folder / BEST, self.model, {"epoch": str(epoch)})

    def _record(self, row: dict[str, Any]) -> None:
        if not self.world.is_first:
            return
        append_line(self.folder / METRICS, json.dumps(row))
        if self.on_epoch is not None:
            self.on_epoch(row)
        if not self.quiet:
            note(epoch_line(row))


def epoch_line(row: Mapping[str, Any]) -> str:
    """Returns a line of metrics.jsonl in words."""
    parts = ["before training" if row["epoch"] == 0 else f"epoch {row['epoch']}"]
    if "loss" in row:
        parts.append(f"loss {row['loss']:.4f}")
    if "t2v/R@1" in row:
        parts.append(f"validation t2v R@1 {row['t2v/R@1']:.1f}")
    if "v2t/R@1" in row:
        parts.append(f"v2t R@1 {row['v2t/R@1']:.1f}")
    if any("/R@" in key for key in row):
        parts.append(f"mean recall {selection_value(row):.2f} (the best epoch has most)")
    return ", ".join([*parts, human_seconds(row["seconds"])])


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Returns the lines of metrics.jsonl up to the first that is none, such as half a line."""
    path = folder / METRICS
    rows: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            row = parse_json(line, source=path, needed="a line of metrics")
        except ConfigError:
            break
        if type(row.get("epoch")) is not int:
            break
        rows.append(row)
    return rows


def _seed_generators(seed: int, epoch: int) -> None:
    """Every process draws the same, as all of them score the whole batch."""
    state = np.random.SeedSequence([seed, epoch, 0]).generate_state(1, np.uint64)[0]
    torch.manual_seed(int(state) >> 1)

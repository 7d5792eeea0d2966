"""`vtr train --teacher`: a run loaded, checked, and made ready to be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.counts import counted
from vtr.progress import embedding, note

if TYPE_CHECKING:
    from vtr.api.training import Material
    from vtr.clip.backbone import Backbone
    from vtr.train.run import Run
    from vtr.train.teacher import Teacher


@dataclass(frozen=True)
class Teaching:
    """A teacher of one training, or of several that differ in their seed."""

    run: Run  # Its run
    config: dict[str, Any]  # What the student's config.json says of it
    material: Material  # What the student is trained on
    backbone: Backbone  # The text model of both

    @classmethod
    def load(cls, folder: str, material: Material, backbone: Backbone) -> Teaching:
        """Loads and checks a teacher.

        Raises:
            ConfigError: No run there, or one of other frames or another text model.
            CheckpointError: Its weights are missing or damaged.
            ModelError: Features of another size or another vision tower.
        """
        from vtr.errors import ConfigError
        from vtr.files import file_sha256
        from vtr.train.distill import DistillWeights
        from vtr.train.run import BEST, load_run
        from vtr.train.teacher import check_teacher, describe_teacher

        place = Path(folder)
        try:
            run = load_run(place)
        except ConfigError as error:
            raise ConfigError(f"--teacher: {error}") from None
        check_teacher(run, material.store, {"weights_sha256": backbone.weights_sha256})
        config = describe_teacher(run, DistillWeights(), weights_sha256=file_sha256(place / BEST))
        return cls(run, config, material, backbone)

    def prepare(self, *, chunk: int, device: str) -> Teacher:
        """Embeds the training captions as the teacher reads them."""
        from vtr.train.inputs import embed_for
        from vtr.train.teacher import Teacher

        material, spec = self.material, self.run.spec
        train = material.train
        note(f"embedding {counted(len(train.texts), 'caption')} for the teacher")
        with embedding(len(train.texts)) as tell:
            texts = embed_for(
                spec,
                self.backbone,
                train.texts,
                ids=train.text_ids,
                cache=material.store.folder,
                tell=tell,
            )
        pad = material.store.pad_embedding if spec.choice.info.needs_pad else None
        self._warn()
        return Teacher(self.run.model, texts, pad=pad, chunk=chunk, device=device)

    def _warn(self) -> None:
        task, seen = self.material.task, self.run.train_ids
        shared = set() if task is None or seen is None else seen.intersection(task.video_ids)
        if shared:
            note(
                f"the teacher was trained on {len(shared):,} of the validation videos: the best "
                "epoch is chosen on videos that it has seen"
            )

    def seen(self, train_ids: tuple[str, ...]) -> frozenset[str] | None:
        """Returns all videos that the student knows, itself or through its teacher.

        Args:
            train_ids: Those it is trained on.

        Returns:
            None where nobody knows what the teacher was trained on.
        """
        return None if self.run.train_ids is None else self.run.train_ids.union(train_ids)

    def refuse_itself(self, folder: Path) -> None:
        """Refuses to write a student over its own teacher.

        Raises:
            ConfigError: It is the same folder.
        """
        from vtr.errors import ConfigError

        if folder.resolve() == self.run.folder.resolve():
            raise ConfigError(f"{folder} is the teacher itself: give the student another --name")

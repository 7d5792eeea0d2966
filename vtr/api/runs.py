"""Train and evaluate from Python: names and options are checked before torch is imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.api import _check_names, _checked
from vtr.arithmetic import prepare_arithmetic
from vtr.choices import check_names
from vtr.errors import ConfigError
from vtr.settings import takes
from vtr.verbs.eval import Options as EvalOptions
from vtr.verbs.train import Options as TrainOptions
from vtr.workspace import Workspace

if TYPE_CHECKING:
    from vtr.evaluate.reporting.results import Result
    from vtr.train.run import Run

_OF_THE_SHELL = ("zero_shot", "seeds", "moments", "dry_run")
"""Options of the commands that ask for something else than a run or a result."""


@takes(TrainOptions, but=_OF_THE_SHELL)
def train_head(
    workspace: Workspace, head: str | None = None, *, quiet: bool = True, **options: Any
) -> Run:
    """Trains a head on the cached features and returns the run with its best epoch; `vtr train`.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world")
    >>> run = vtr.train_head(world, "meanP", epochs=1, sampler="uniform", name="one", device="cpu")
    >>> run.folder.name, run.spec.head
    ('one', 'meanP')

    Args:
        workspace: Where everything is.
        head: Name and options, such as "seqTransf:layers=2"; by default the preset's.
        quiet: No progress.
        options: The options of `vtr train` with `_` for `-`: `text="projection"`, `epochs=5`,
            `batch_size=64`, `seed=1`, `device="cpu"`, ... A run of the given `name` is replaced,
            unless it is to `resume`; without a name one is made that is free.

    Raises:
        ConfigError: An unknown option, or a value that is not allowed.
        DatasetError: No training video has features.
    """
    _checked(workspace)
    _check_names("option", options, TrainOptions.model_fields.keys() - {"head", *_OF_THE_SHELL})
    options.setdefault("overwrite", options.get("name") is not None and not options.get("resume"))
    chosen = TrainOptions.of(head=head, **options)
    check_names(chosen.given)
    prepare_arithmetic()
    from vtr.api.train import train
    from vtr.train.run import load_run

    document = train(workspace, chosen, quiet=quiet)
    assert document is not None  # only other processes of torchrun get nothing
    return load_run(document["run"])


@takes(EvalOptions, but=_OF_THE_SHELL)
def evaluate_run(
    workspace: Workspace, run: Run | str | Path | None = None, **options: Any
) -> Result:
    """Evaluates a run, or CLIP without training, and returns the result; `vtr eval`.

    >>> import vtr
    >>> world = vtr.open_workspace("demo-world", sampler="uniform")
    >>> result = vtr.evaluate_run(world, device="cpu")
    >>> result.metrics["t2v/R@1"]["n"]
    30

    Args:
        workspace: Where everything is.
        run: From `train_head` or `load_run`, or its folder. None is zero-shot: CLIP's text against
            the mean of the frames.
        options: The fields of `vtr.verbs.eval.Options`: `protocol="msvd"`, `sampler="uniform"`,
            `missing="restrict"`, `k=(1, 5, 10)` (once called `ks`), `dual_softmax=True`,
            `qb_norm=True`, `rerank=50`, `force=True`, `out="folder"`, `device="cpu"`.

    Raises:
        ConfigError: An option that is unknown or not allowed; a run that was trained on test
            videos, without `force`.
        DatasetError: The dataset lacks the split or its captions.
        ModelError: Text and frames of different models.
    """
    if options.get("k") is not None and "ks" in options:
        raise ConfigError("k and ks are two names of one setting: give k alone")
    if "ks" in options:
        options["k"] = options.pop("ks")
    folder = getattr(run, "folder", run)
    if folder is not None and not isinstance(folder, str | Path):
        raise ConfigError(f"run is {run!r:.60}; it must be a run, the path of one, or None")
    check_names(options)
    own = EvalOptions.model_fields.keys() - {"run", *_OF_THE_SHELL}
    _check_names("option of vtr eval", options, own)
    named = None if folder is None else str(folder)
    asked = EvalOptions.of(**options, run=named, zero_shot=folder is None)
    _checked(workspace)
    from vtr.api.evaluate import evaluate
    from vtr.evaluate.reporting.results import load_result

    return load_result(evaluate(workspace, asked)[1])

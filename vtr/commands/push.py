"""`vtr push` and `vtr pull`: runs and stores to the Hugging Face hub, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vtr.commands.console import AsJson, near, print_json, say
from vtr.commands.flags import with_options
from vtr.counts import counted
from vtr.verbs.pull import Options as PullOptions
from vtr.verbs.push import Options as PushOptions


@with_options("push")
def push(
    target: Annotated[str, typer.Argument(metavar="RUN|STORE", help="Folder, or name of a run.")],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.")],
    options: PushOptions,
    as_json: AsJson = False,
) -> None:
    """Push a run (a model) or a feature store (a data set) to the Hugging Face hub.

    Says what goes up before it does; videos, captions and folders of this machine do not. An
    interrupted push goes on when it is run again, a second one sends what has changed. The token is
    that of `hf auth login` or HF_TOKEN.
    """
    from vtr.api.push import push as push_it

    told = push_it(target, repo, **options.given)
    if as_json:
        print_json(told._asdict())
    elif told.commit is None:
        for name, size in told.files.items():
            say(f"{size:>14,}  {name}")
    else:
        sent = counted(len(told.sent), "file") if told.sent else "nothing new"
        say(f"{target} -> {told.url}: {sent} sent, {counted(len(told.files), 'file')} proven")


@with_options("pull")
def pull(
    repo: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub.")],
    options: PullOptions,
    folder: Annotated[
        Path | None,
        typer.Argument(
            metavar="FOLDER", show_default=False,
            help="To make. (default: NAME, of a run among the workspace's runs)",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Pull a run or a feature store from the Hugging Face hub.

    Every file is proven by its digest before the folder is made. An interrupted pull goes on when
    it is run again, within a file too.
    """
    from vtr.api.pull import pull as pull_it

    made = pull_it(repo, folder, **options.given)
    if as_json:
        print_json({"folder": str(made)})
    else:
        say(f"{repo} -> {near(made)}")

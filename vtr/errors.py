"""Every error a user can meet, as one tree.

VtrError
├── ConfigError            a setting that cannot be used (vtr.toml, a flag)
│   └── UnknownNameError   a name that is not on the list; suggests the nearest
├── DatasetError           annotation files that cannot be read or do not agree
├── ModelError             a backbone that cannot be found or must not be used
│   ├── ModelNotFoundError
│   ├── HubOfflineError
│   └── CheckpointError    missing or unexpected weights, wrong activation
├── DecodeError            one video that cannot be read; carries the ledger class
├── WorkersLostError       processes that work together cannot start, or died
├── HubError               the Hugging Face hub refuses, or holds something else than was pushed
└── StoreError             the feature cache
    ├── FingerprintError   made with other settings than those asked for
    ├── ShardError         a shard that is damaged or not ours
    ├── StoreLockedError   another run is writing
    └── StoreWriteError    the disk refused

A message says what happened, the value, what is allowed and what to try.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

SOME_FAILED = 3
"""Exit code of work that is finished, but for some of its inputs."""
INTERRUPTED = 130
"""Exit code of an interrupt, as shells have it: 128 and the number of the signal."""


class VtrError(Exception):
    """Base of all errors that are the user's or the input's, never a bug of ours.

    >>> import vtr
    >>> try:
    ...     vtr.load_protocol("msrvtt-1ka")
    ... except vtr.VtrError as error:
    ...     print(str(error).partition(" Known")[0])
    no protocol named 'msrvtt-1ka'. Did you mean 'msrvtt-1kA'?
    """


class ConfigError(VtrError):
    """A setting that cannot be used."""


class UnknownNameError(ConfigError):
    """A name that is not on the list of what exists.

    >>> print(UnknownNameError("sampler", "unifrom", ["head", "uniform"]))
    no sampler named 'unifrom'. Did you mean 'uniform'? Known: head, uniform
    """

    def __init__(self, kind: str, name: str, allowed: Iterable[str]) -> None:
        names = sorted(allowed)
        # Upper and lower case are the commonest slip (msrvtt-1ka), and must not decide.
        plain = {known.casefold(): known for known in reversed(names)}
        near = difflib.get_close_matches(name.casefold(), plain, n=1, cutoff=0.5)
        hint = f" Did you mean {plain[near[0]]!r}?" if near else ""
        super().__init__(f"no {kind} named {name!r}.{hint} Known: {', '.join(names) or 'none'}")
        self.name = name


class DatasetError(VtrError):
    """Annotation files that cannot be read or do not agree."""


class ModelError(VtrError):
    """A backbone that cannot be found or must not be used."""


class ModelNotFoundError(ModelError):
    """Neither a local folder nor a hub repository of this name exists."""


class HubOfflineError(ModelError):
    """The hub cannot be reached, and what is asked of it is not here."""


class CheckpointError(ModelError):
    """Weights that do not fit the architecture they claim."""


class DecodeError(VtrError):
    """One video that cannot be read.

    Args:
        kind: The ledger class, such as "not-a-video"; see `vtr.extract.limits.FAILURES`.
        detail: One line: what happened, ending with the decoder's own last line where it gave one.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail

    def __reduce__(self) -> tuple[type[DecodeError], tuple[str, str]]:
        return type(self), (self.kind, self.detail)


class WorkersLostError(VtrError):
    """Processes that work together cannot start, or died; no single input is to blame."""


class HubError(VtrError):
    """The hub refuses, or holds something else than was pushed to it."""


class StoreError(VtrError):
    """The feature cache cannot be used as asked."""


class FingerprintError(StoreError):
    """The store was made with other settings than those asked for."""


class ShardError(StoreError):
    """A shard that is damaged, foreign or unsafe to read."""


class StoreLockedError(StoreError):
    """Another process is writing to this store."""


class OverBudgetError(StoreError):
    """The pictures take more than they may; what came before is published."""


class StoreWriteError(StoreError):
    """The file system refused a write; what was published before is intact."""

"""Everything that decides the numbers in a store, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from vtr.errors import ShardError
from vtr.json_files import as_fields, flat, parse_json

SCHEMA = 1
_FLAT = "2d"


@dataclass(frozen=True)
class FeatureSpec:
    """What a store's numbers depend on; two stores with equal specs may be mixed.

    >>> import vtr
    >>> spec = vtr.FeatureStore("demo-world/features", sampler="uniform").spec
    >>> spec.embedding_dim, spec.storage_dtype
    (96, 'float16')
    """

    backbone: str  # Hub id or folder name of the dual encoder
    revision: str  # Commit hash on the hub, or "local"
    weights_sha256: str  # Digest of the weights, independent of the file format
    embedding_dim: int  # D
    compute_dtype: str  # dtype of the tower ("float32")
    storage_dtype: str  # dtype in the shards ("float16")
    preprocessing: Mapping[str, Any]  # Size, crop, mean, std, filter and route, as JSON values
    candidate_fps: float | None  # Candidate rate in frames per second; None is every frame
    num_frames: int | None  # Budget K of the samplers; None where only `dense` was asked for
    samplers: tuple[str, ...]  # Labels of the samplers, with their options, sorted
    seed: int  # Seed of the random samplers
    # Pixels of the square brightness thumbnails, for samplers that choose later, if any are kept.
    thumbnail_side: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)  # Of what decodes, resizes, encodes
    # "3d" where an embedding also depends on the neighbouring frames of its selection (CLIP4Clip's
    # temporal patches), else "2d".
    linear_patch: str = _FLAT
    # What of the tower's configuration decides numbers and does not show in its weights
    # ("hidden_act", ...); empty in older stores, and where it is not known.
    vision: Mapping[str, Any] = field(default_factory=dict)
    # Which rules made pictures of decoded frames (`vtr.extract.limits.DECODING`); 1 in older
    # stores and in imported ones.
    decoding: int = 1
    engine: str = "torch"  # What ran the tower
    # By which share of their distance candidates come later at most, each by another one; 0 is
    # even steps.
    candidate_jitter: float = 0.0

    @property
    def window_frames(self) -> int:
        """How many pictures make a row: above 1 rows are windows, with start and end."""
        return int(self.preprocessing.get("frames", 1))

    def to_json(self) -> str:
        """Returns the canonical JSON: sorted keys, no spaces; what the fingerprint digests."""
        # Written only where it says something: the many stores without it keep their fingerprints.
        silent = {
            "linear_patch": _FLAT, "vision": {}, "decoding": 1, "engine": "torch",
            "candidate_jitter": 0.0,
        }  # fmt: skip
        values = {k: v for k, v in asdict(self).items() if k not in silent or v != silent[k]}
        return json.dumps({"schema": SCHEMA, **values}, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> FeatureSpec:
        """Reads `to_json`'s answer.

        Raises:
            ShardError: Not JSON, another schema, or other fields than ours.
        """
        values = parse_json(text, source="the spec", needed="a FeatureSpec", error=ShardError)
        schema = values.pop("schema", None)
        if schema != SCHEMA:
            raise ShardError(f"schema {schema!r}; this vtr reads schema {SCHEMA}")
        return as_fields(cls, values, source="the spec", error=ShardError)

    @property
    def fingerprint(self) -> str:
        """The sha256 of the canonical JSON, as 64 hexadecimal digits."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()

    def differences(self, other: FeatureSpec) -> list[tuple[str, Any, Any]]:
        """Returns (field, ours, theirs) for every field in which two specs differ.

        Fields of nested mappings are named with a dot ("preprocessing.route").
        """
        ours, theirs = (dict(flat(json.loads(json.dumps(asdict(spec))))) for spec in (self, other))
        names = sorted(ours.keys() | theirs.keys())
        return [(n, ours.get(n), theirs.get(n)) for n in names if ours.get(n) != theirs.get(n)]

"""Reading result folders: `result.json`, and the tables per query and per video beside it."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vtr.counts import counted
from vtr.datasets.documents import long_rows
from vtr.errors import ConfigError
from vtr.evaluate.ranks import Ranks
from vtr.files import file_sha256
from vtr.foreign import csv_text, printable
from vtr.json_files import flat, read_json
from vtr.result_schema import PER_QUERY, PER_VIDEO, RESULT_FILE, read_result

RUN_CONFIG = "config.json"
RUN_WEIGHTS = "best.safetensors"
_MOST_DIGITS = 15
_CONFIG_SECTIONS = ("model", "text_model", "features", "data", "settings", "preset")


@dataclass(frozen=True)
class Result:
    """One evaluation as it was written.

    >>> import vtr
    >>> result = vtr.load_result("demo-world/features/zero-shot/demo")
    >>> sorted(result.metrics["t2v/R@1"])
    ['high', 'low', 'n', 'optimistic', 'pessimistic', 'value']
    """

    folder: Path  # where it lies
    document: Mapping[str, Any] = field(repr=False)  # the whole of `result.json`

    def part(self, name: str) -> Mapping[str, Any]:
        """Returns a section of the document, empty where it has none."""
        section = self.document.get(name)
        return section if isinstance(section, Mapping) else {}

    @property
    def title(self) -> str:
        """The short name for tables: the setup's title, or the folder.

        Titles of older results do not say that their first candidates were re-ranked or that test
        videos were trained on; here they do.
        """
        setup = self.part("setup")
        return marked(
            str(setup.get("title") or self.folder.name),
            rerank=setup.get("rerank"),
            trained_on_test=setup.get("trained_on_test"),
        )

    def renamed(self, title: str) -> Result:
        """Returns the same result under another title."""
        setup = {**self.part("setup"), "title": title}
        return replace(self, document={**self.document, "setup": setup})

    @property
    def protocol(self) -> str:
        """Name of the protocol."""
        return str(self.part("protocol").get("name", "unknown"))

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Any]]:
        """Key such as "t2v/R@1" to value, low, high, n."""
        return self.part("metrics")

    @property
    def is_zero_shot(self) -> bool:
        """Whether nothing was trained."""
        return bool(self.part("setup").get("zero_shot"))

    def breakdown(self, name: str) -> list[Mapping[str, Any]]:
        """Returns the rows of one breakdown ("category", "query_words"), empty where absent."""
        return [row for row in self.part("breakdowns").get(name) or [] if isinstance(row, Mapping)]

    def examples(self, kind: str) -> list[Mapping[str, Any]]:
        """Returns the examples of one kind ("success", "failure")."""
        return [row for row in self.part("examples").get(kind) or [] if isinstance(row, Mapping)]

    @cached_property
    def settings(self) -> Mapping[str, Any]:
        """The setup and, of a trained result, the run's configuration, with dotted keys.

        The configuration is looked for where `vtr eval` puts results (RUN/eval/PROTOCOL), then
        where the setup says; a result that was moved away from its run has only its setup.
        """
        if self._run_folder is None:
            return self.part("setup")
        config = self._run_folder / RUN_CONFIG
        document = read_json(config, needed="the configuration of a run")
        kept = {name: document.get(name) for name in _CONFIG_SECTIONS}
        return {**self.part("setup"), **dict(flat(kept))}

    @cached_property
    def _run_folder(self) -> Path | None:
        """The run that was evaluated, where it is still there."""
        run = self.part("setup").get("run")
        places = (self.folder.absolute().parent.parent, Path(str(run))) if run else ()
        return next((place for place in places if (place / RUN_CONFIG).is_file()), None)

    @cached_property
    def outdated(self) -> str:
        """Why the figures are not those of the run as it is now; empty where nothing says so."""
        measured, run = self.part("setup").get("weights_sha256"), self._run_folder
        if not measured or run is None or not (run / RUN_WEIGHTS).is_file():
            return ""
        # Two heads may have the same weights: meanP and maxP have none.
        head, held = self.part("setup").get("head"), self.settings.get("model.head")
        if None not in (head, held) and head != held:
            return f"measured with head {head}, and {run} holds {held} now. Evaluate again"
        same = file_sha256(run / RUN_WEIGHTS) == measured
        return "" if same else f"measured on other weights than {run} holds now. Evaluate again"

    @property
    def per_query(self) -> Path:
        """Where the table of queries is, whether it exists or not."""
        return self.folder / str(self.part("files").get("per_query") or PER_QUERY)

    @property
    def per_video(self) -> Path:
        """Where the table of videos (v2t) is, whether it exists or not."""
        return self.folder / str(self.part("files").get("per_video") or PER_VIDEO)


def marked(
    name: str,
    *,
    sampler: str | None = None,
    rerank: int | None = None,
    trained_on_test: int | None = None,
) -> str:
    """Returns a name that says what sets a result apart from the plain one of its run.

    >>> marked("hn", rerank=5), marked("ls-seed0", sampler="motion")
    ('hn, first 5 re-ranked', 'ls-seed0, motion')
    """
    marks = [f"first {rerank} re-ranked"] if rerank else []
    marks += [f"trained on {counted(trained_on_test, 'test video')}"] if trained_on_test else []
    new = [mark for mark in marks if mark not in name]
    return ", ".join([name, *filter(None, [sampler]), *new])


def told_apart(titles: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Returns the titles, equal ones followed by what sets their results' folders apart.

    >>> told_apart(["x", "x", "y"], [Path("a/eval/p"), Path("b/eval/p"), Path("c")])
    ['x (a)', 'x (b)', 'y']
    """
    found = list(titles)
    for title in {title for title in titles if titles.count(title) > 1}:
        members = [i for i, other in enumerate(titles) if other == title]
        for i, ending in zip(members, _endings([folders[i] for i in members]), strict=True):
            found[i] = f"{title} ({ending})"
    return found


def _endings(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ, without what all of them end in; else numbers."""
    paths = [folder.absolute().parts for folder in folders]
    for length in range(1, max(map(len, paths)) + 1):
        if len({path[-length:] for path in paths}) == len(paths):
            same = 0
            while len({path[-same - 1 :][:1] for path in paths}) == 1:
                same += 1
            return [str(Path(*path[-length : len(path) - same])) for path in paths]
    return [str(n) for n in range(1, len(paths) + 1)]


def comparability(result: Result) -> dict[str, Any]:
    """Returns, by name, what two results must share to be compared; all values are hashable.

    The policy stands before the digest and the counts: it is why these differ, where videos lack.
    """
    protocol, coverage = result.part("protocol"), result.part("coverage")
    absent = sorted(str(row.get("id")) for row in coverage.get("absent") or [])
    return {
        **{f"protocol.{key}": protocol.get(key) for key in ("name", "part")},
        "coverage.policy": coverage.get("policy"),
        **{f"protocol.{key}": protocol.get(key) for key in ("digest", "num_videos", "num_queries")},
        "coverage.present": coverage.get("present"),
        "coverage.absent": tuple(absent),
    }


def other_features(a: Result, b: Result) -> str:
    """Says where the features differ though their settings are the same; else empty."""
    ours, theirs = a.part("setup"), b.part("setup")
    same = all(ours.get(key) == theirs.get(key) for key in ("fingerprint", "sampler"))
    a_digest, b_digest = (setup.get("frames_sha256") for setup in (ours, theirs))
    if not same or a_digest is None or b_digest is None or a_digest == b_digest:
        return ""
    return f"measured on other features than {a.title}, of the same settings (another extraction)"


def load_result(path: Path | str) -> Result:
    """Reads one result, given its folder or its `result.json`.

    >>> import vtr
    >>> vtr.load_result("demo-world/features/zero-shot/demo").metrics["t2v/R@1"]["n"]
    30

    Raises:
        ConfigError: It is missing, damaged, or no result of this schema.
    """
    given = Path(path)
    file = given / RESULT_FILE if given.is_dir() else given
    return Result(file.parent, read_result(file))


def read_rows(file: Path, columns: tuple[str, ...]) -> Iterator[Mapping[str, str]]:
    """Yields the rows of a CSV file that must have some columns, one at a time."""
    try:
        with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            reader = csv.DictReader(stream)
            missing = set(columns) - set(reader.fieldnames or ())
            if missing:
                raise ConfigError(
                    f"{file} lacks the column {sorted(missing)[0]!r}; evaluate again with this vtr"
                )
            for row in long_rows(reader):
                if any(row[column] is None for column in columns):
                    line = f"{file}: line {reader.line_num}"
                    raise ConfigError(f"{line} has too few columns; evaluate again")
                yield {name: csv_text(row[name]) for name in row if name is not None}
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror or error}. It is written by `vtr eval` beside "
            f"{RESULT_FILE}"
        ) from None
    except csv.Error as error:
        raise ConfigError(f"{file} is damaged: {error}; evaluate again") from None


def has_ranks(result: Result, direction: str) -> bool:
    """Returns whether a result has the table of a direction, with its columns."""
    if direction == "t2v":
        return result.per_query.is_file()
    if not result.per_video.is_file():
        return False
    with result.per_video.open(newline="", encoding="utf-8", errors="replace") as stream:
        columns = next(csv.reader(stream), [])
    return direction == "v2t" or "group_better" in columns


def check_count(result: Result, direction: str, file: Path, rows: int) -> None:
    """Refuses a table that does not have a row for every query that the metrics count."""
    entries = (e for key, e in result.metrics.items() if key.startswith(f"{direction}/"))
    count = next((entry.get("n") for entry in entries), None)
    if isinstance(count, int) and rows != count:
        raise ConfigError(
            f"{file} has {rows:,} rows and {RESULT_FILE} counts {count:,} for {direction}; "
            "the table is not whole or not of this result. Evaluate again"
        )


@dataclass(frozen=True)
class RankTable:
    """The ranks of one direction, one row per query."""

    ids: tuple[str, ...]  # Q ids of the queries (captions, or videos for v2t)
    clusters: tuple[str, ...]  # Q ids of the videos that the queries belong to
    ranks: Ranks  # (Q,) rows in the same order


def read_ranks(result: Result, direction: str) -> RankTable:
    """Reads the ranks of "t2v" (`per_query.csv`), "v2t" or "v2t_groups" (`per_video.csv`)."""
    is_t2v = direction == "t2v"
    file = result.per_query if is_t2v else result.per_video
    key, candidates = ("query_id", "num_videos") if is_t2v else ("video_id", "num_queries")
    prefix = ""
    if direction == "v2t_groups":
        prefix, candidates = "group_", "num_videos"
    names = (f"{prefix}better", f"{prefix}tied")
    ids, clusters, numbers, missed = [], [], [], []
    # Results of before #12 have no mark of a miss in their tables.
    absent = {printable(str(video["id"])) for video in result.part("coverage").get("absent", ())}
    for row in read_rows(file, (key, "video_id", *names)):
        ids.append(row[key])
        clusters.append(row["video_id"])
        correct = row.get("correct") if direction == "v2t" else None
        try:
            counts = [whole(text) for text in (*(row[name] for name in names), correct or "1")]
        except ValueError as error:
            raise ConfigError(f"{file}: {row[key]!r} has no whole ranks ({error})") from None
        missed.append(row["video_id"] in absent)
        numbers.append((0, 1, 1) if missed[-1] else counts)
    check_count(result, direction, file, len(ids))
    if not numbers:
        raise ConfigError(f"{file} has no rows; evaluate again")
    better, tied, several = np.array(numbers).T
    among = result.part("protocol").get(candidates)
    among = among if isinstance(among, int) else int((better + tied).max())
    try:
        ranks = Ranks(np.where(missed, among, better), tied, among, several)
    except ValueError as error:
        raise ConfigError(f"{file} contradicts itself: {error}") from None
    return RankTable(tuple(ids), tuple(clusters), ranks)


def whole(text: str) -> int:
    """Returns the number that digits stand for; ValueError for anything else."""
    if not (text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS):
        raise ValueError(f"{text!r:.40}")
    return int(text)

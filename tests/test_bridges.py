"""A store in forms of others, and back: bit by bit, or refused by name."""

import io
import json
import os
import re
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import full_disk, run_app, write_store
from hypothesis import given
from hypothesis import settings as tries
from hypothesis import strategies as some

from vtr.api.export_store import export_store
from vtr.api.features import import_features
from vtr.errors import ConfigError, StoreError, StoreWriteError
from vtr.features import FeatureSpec, FeatureStore, LedgerRow, VideoRow
from vtr.files import TEMPORARY_PREFIX
from vtr.verbs.export import Options
from vtr.verbs.features import Options as ImportOptions

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:
    pa = pq = None
needs_arrow = pytest.mark.skipif(pa is None, reason="needs the extra vtr[arrow]")

SPEC = FeatureSpec(
    backbone="tiny", revision="local", weights_sha256="0" * 64, embedding_dim=3,
    compute_dtype="float32", storage_dtype="float16", preprocessing={"size": [4, 4]},
    candidate_fps=None, num_frames=2, samplers=("head", "scene:k=2"), seed=1,
)  # fmt: skip
ODD_IDS = (
    "a/b.c.mp4",
    "../../etc/x",
    "vidéo 1",
    "дом",
    "x" * 300,
    "a.npy",
    "%2F",
    "-",
    " ",
    "a\nb",
)
FIELDS = ("video_id", "row", "pts_seconds", "embedding")
LETTERS = some.characters(exclude_categories=["Cs"], exclude_characters="\0")
FORMS = {
    "folder": {"parquet": "p"},
    "file": {"parquet": "deep/p.parquet"},
    "tar": {"webdataset": "p.tar"},
    "tars": {"webdataset": "deep/p-%05d.tar"},
    "lance": {"lance": "l"},
}


def odd_frames(spec: FeatureSpec, count: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Any bits: -0.0, subnormals, infinities and NaN with payloads are among them."""
    size = np.dtype(spec.storage_dtype).itemsize
    bits = np.random.default_rng(seed).integers(0, 1 << 8 * size, (count, spec.embedding_dim))
    bits[:1, :3] = np.array([1, 1 << (8 * size - 1), 3])[: spec.embedding_dim]
    return bits.astype(f"u{size}").view(spec.storage_dtype)


def odd_rows(
    counts: Sequence[int], spec: FeatureSpec, ids: Sequence[str] = ODD_IDS
) -> list[VideoRow]:
    rows = []
    for number, (video_id, count) in enumerate(zip(ids, counts, strict=False)):
        ledger = LedgerRow(
            video_id, "partial", "cut-short: é \x1b", number, count, count / 3, 0.1 * number,
            320, 240, 10**18 + number, "ab" * 32,
        )  # fmt: skip
        if not count or number % 2:
            ledger = replace(ledger, status="ok" if count else "failed")
        chosen = {"head": np.arange(min(1, count)), "scene:k=2": np.arange(count)[::-2][::-1]}
        side = spec.thumbnail_side
        luma = None if side is None else np.full((count, side, side), number, np.uint8)
        times = np.cumsum(np.full(count, 1 / 3)) - 1
        picked = {label: chosen[label] for label in spec.samplers}
        spans = np.stack([times, times + 0.1], 1) if spec.window_frames > 1 else None
        frames = odd_frames(spec, count, number)
        rows.append(VideoRow(ledger, frames, times, picked, luma, spans=spans))
    return rows


def odd_store(folder: Path, **changes: Any) -> Path:
    """Two shards; odd ids; failed videos at both ends; the first id a second time."""
    spec = replace(SPEC, **changes)
    pad = np.array([0.1, -0.0, 1e-40], np.float32)
    rows = odd_rows([0, 2, 1, 5, 3, 1, 2, 1, 1, 0], spec)
    write_store(folder, rows[:4], spec, pad=pad)
    return write_store(folder, [*rows[4:], rows[0]], spec, sequence=1, pad=pad)


def assert_same(first: Path, second: Path) -> None:
    """Two stores hold the same bits."""
    one, other = FeatureStore(first), FeatureStore(second)
    assert (one.spec, one.fingerprint) == (other.spec, other.fingerprint)
    assert (one.ids, one.input_ids) == (other.ids, other.input_ids)
    assert list(map(asdict, one.ledger)) == list(map(asdict, other.ledger))
    assert one.pad_embedding.tobytes() == other.pad_embedding.tobytes()
    for label in (None, *one.spec.samplers):
        for store in (one, other):
            store.__dict__.pop("_rows", None)
            store.sampler = label
        ours, theirs = one.packed(), other.packed()
        assert ours.frames.tobytes() == theirs.frames.tobytes()
        assert ours.pts_seconds.tobytes() == theirs.pts_seconds.tobytes()
        assert ours.offsets.tolist() == theirs.offsets.tolist()
        np.testing.assert_array_equal(ours.spans, theirs.spans)
    if one.spec.thumbnail_side is not None:
        for video_id in one:
            np.testing.assert_array_equal(one.thumbnails(video_id), other.thumbnails(video_id))


def there_and_back(store: Path, place: Path, form: dict[str, str], **options: Any) -> Path:
    """Exports, imports; returns the export."""
    ((name, target),) = form.items()
    module = {"parquet": "pyarrow", "lance": "lance"}.get(name)
    if module:
        pytest.importorskip(module, reason="needs an extra")
    export_store(store, Options.of(**{name: place / target}, **options))
    report = import_features(place / target, place / "back", ImportOptions())
    assert report.failed == {}
    return place / target


def refused(path: Path, reason: str, kind: type[Exception] = StoreError) -> None:
    """Nothing is made of an export that is not ours."""
    back = path.with_name("refused")
    with pytest.raises(kind, match=reason):
        import_features(path, back, ImportOptions())
    assert not back.exists()


def exported(name: str, place: Path) -> Path:
    """The odd store in a form; returns it."""
    export_store(odd_store(place.parent / "store"), Options.of(**{name: place}))
    return place


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"storage_dtype": "float32"},
        {"thumbnail_side": 2, "samplers": ("head",)},
        {"preprocessing": {**SPEC.preprocessing, "frames": 8}},
    ],
)
def test_a_store_comes_back_bit_by_bit(
    tmp_path: Path, form: dict[str, str], changes: dict[str, Any]
) -> None:
    store = odd_store(tmp_path / "store", **changes)
    there_and_back(store, tmp_path, form)
    assert_same(store, tmp_path / "back")


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@given(
    ids=some.lists(some.text(LETTERS, min_size=1), unique=True, min_size=1, max_size=4),
    counts=some.lists(some.integers(0, 4), min_size=4, max_size=4),
    dim=some.integers(1, 9),
)
@tries(max_examples=12)
def test_any_store_comes_back(
    form: dict[str, str], ids: list[str], counts: list[int], dim: int
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        place, spec = Path(folder), replace(SPEC, embedding_dim=dim)
        store = write_store(place / "store", odd_rows(counts, spec, ids), spec)
        there_and_back(store, place, form)
        assert_same(store, place / "back")


@needs_arrow
def test_parquet_opens_elsewhere_with_a_row_per_frame(tmp_path: Path) -> None:
    """pyarrow and pandas, given the folder; `datasets` where it is installed."""
    store = odd_store(tmp_path / "store")
    run_app("export", "--features", store, "--parquet", tmp_path / "p", "--json")
    held = FeatureStore(store)
    table = pq.read_table(tmp_path / "p")
    assert table.column_names == list(FIELDS)
    assert table.schema.field("embedding").type == pa.list_(pa.float16(), 3)
    assert table.schema.metadata[b"vtr.fingerprint"].decode() == held.fingerprint
    assert FeatureSpec.from_json(table.schema.metadata[b"vtr.spec"].decode()) == held.spec
    assert table.num_rows == 16
    assert set(table["video_id"].to_pylist()) == set(held)
    ledger = pq.read_table(tmp_path / "p" / "__ledger__")
    assert ledger["video_id"].to_pylist() == list(held.input_ids)
    assert ledger["status"].to_pylist().count("failed") == 2
    pandas = pytest.importorskip("pandas")
    assert len(pandas.read_parquet(tmp_path / "p")) == 16


@needs_arrow
@pytest.mark.slow
def test_datasets_sees_a_row_per_frame(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="comes with the extra vtr[mteb]")
    exported("parquet", tmp_path / "p")
    datasets.disable_progress_bars()
    for name, options in (
        ("parquet", {"data_dir": str(tmp_path / "p")}),
        (str(tmp_path / "p"), {}),
    ):
        loaded = datasets.load_dataset(name, **options, cache_dir=str(tmp_path / "c"))["train"]
        assert (loaded.num_rows, loaded.column_names) == (16, list(FIELDS))


@needs_arrow
def test_frames_are_split_into_files_above_a_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also within a video."""
    monkeypatch.setattr("vtr.bridges.arrow.BATCH_BYTES", 100_000)
    spec = replace(SPEC, embedding_dim=1000, samplers=("head",))
    rows = odd_rows([400, 0, 500, 1], spec)
    store = write_store(tmp_path / "store", rows, spec)
    there_and_back(store, tmp_path, FORMS["folder"], file_mb=1)
    names = sorted(path.name for path in (tmp_path / "p").glob("*.parquet"))
    assert names == ["frames-00000.parquet", "frames-00001.parquet"]
    assert_same(store, tmp_path / "back")
    (tmp_path / "p" / names[1]).unlink()
    refused(tmp_path / "p", r"500 frames of 'vid.* Is a file missing, or was it sort")


def members(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]


def write_members(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def test_a_tar_is_what_webdataset_groups_to_samples(tmp_path: Path) -> None:
    """Its rule: members `__NAME__/...` are passed over, a key ends at the base's first dot."""
    store = odd_store(tmp_path / "store", thumbnail_side=2)
    export_store(store, Options.of(webdataset=tmp_path / "p.tar"))
    samples: dict[str, dict[str, bytes]] = {}
    for name, content in members(tmp_path / "p.tar").items():
        assert len(name) < 256
        if not re.match(r"__[^/]*__($|/)", name):
            key, ending = re.fullmatch(r"((?:.*/|)[^.]+)[.]([^/]*)", name).groups()  # type: ignore[union-attr]
            samples.setdefault(key, {})[ending] = content
    held = FeatureStore(store, sampler="head")
    held.sampler = None
    assert all(files.keys() == {"json", "npy", "luma.npy"} for files in samples.values())
    ids = [json.loads(files["json"])["video_id"] for files in samples.values()]
    assert ids == list(held)
    for video_id, files in zip(ids, samples.values(), strict=True):
        frames = np.load(io.BytesIO(files["npy"]), allow_pickle=False)
        assert frames.tobytes() == held[video_id].frames.tobytes()


def test_tars_are_split_above_a_size(tmp_path: Path) -> None:
    spec = replace(SPEC, embedding_dim=1000, samplers=("head",))
    ids = [f"v{number}" for number in range(15)]
    store = write_store(tmp_path / "store", odd_rows([50] * 15, spec, ids), spec)
    there_and_back(store, tmp_path, {"webdataset": "p-%03d.tar"}, file_mb=1)
    names = sorted(path.name for path in tmp_path.glob("p-*"))
    assert names == ["p-000.tar", "p-001.tar"]
    assert_same(store, tmp_path / "back")
    with pytest.raises(ConfigError, match=r"p-000\.tar is there already"):
        export_store(store, Options.of(webdataset=tmp_path / "p-%03d.tar"))
    for name, reason in zip(
        names, ("part 0 of the store is not there", "not the last part"), strict=True
    ):
        (tmp_path / name).rename(tmp_path / "away")
        refused(tmp_path / "p-%03d.tar", reason)
        (tmp_path / "away").rename(tmp_path / name)
    (tmp_path / "d").mkdir()
    for name in names:
        (tmp_path / name).rename(tmp_path / "d" / name)
    import_features(tmp_path / "d", tmp_path / "again", ImportOptions())
    assert_same(store, tmp_path / "again")
    shutil.copy(tmp_path / "d" / names[0], tmp_path / "d" / "z.tar")
    refused(tmp_path / "d", "part 0 of the store is twice")


def _json(files: dict[str, bytes], name: str, **values: Any) -> dict[str, bytes]:
    document = {**json.loads(files[name]), **values}
    return {**files, name: json.dumps(document).encode()}


FIRST = "%2E%2E%2F%2E%2E%2Fetc%2Fx"
BOTH: dict[str, Any] = {"head": [0], "scene:k=2": [0]}
HEAD = "__vtr__/store.json"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda f: {k: v for k, v in f.items() if k != HEAD}, "lacks vtr.schema, vtr.spec"),
        (lambda f: _json(f, HEAD, part="x"), "part is x; allowed: a whole number"),
        (lambda f: _json(f, HEAD, part=3), "part 0 of the store is not there"),
        (lambda f: {k: v for k, v in f.items() if k != f"{FIRST}.npy"}, "npy' is missing"),
        (lambda f: {k: v for k, v in f.items() if k != f"{FIRST}.json"}, "that vtr never"),
        (lambda f: {k: v for k, v in f.items() if k != "__vtr__/end.json"}, "is cut off or dam"),
        (lambda f: {**f, f"{FIRST}.npy": f[f"{FIRST}.npy"][:-1] + b"x"}, "is cut off or damaged"),
        (lambda f: {HEAD: f[HEAD], "new.txt": b"", **f}, "has a member 'new.txt' that vtr never"),
        (lambda f: _json(f, f"{FIRST}.json", pts_seconds=["x", {}]), "pts_seconds in .* no num"),
        (lambda f: _json(f, f"{FIRST}.json", pts_seconds=[1.0]), "times for 2 frames"),
        (lambda f: _json(f, f"{FIRST}.json", selections={}), "selections are not those"),
        (lambda f: _json(f, f"{FIRST}.json", selections={**BOTH, "head": [2]}), "are not there"),
        (lambda f: _json(f, f"{FIRST}.json", selections={**BOTH, "head": 0}), "are not there"),
        (lambda f: _json(f, f"{FIRST}.json", width=1 << 40), "width is 1099511627776; allowed"),
        (lambda f: _json(f, f"{FIRST}.json", status=None), "status is None; allowed: Literal"),
        (lambda f: _json(f, f"{FIRST}.json", video_id="a\0"), "video_id is .*; allowed: a text"),
        (lambda f: _json(f, f"{FIRST}.json", sha256=7), "has unknown 'sha256'"),
    ],
)  # fmt: skip
def test_a_tar_that_is_not_ours_is_refused(
    tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    path = exported("webdataset", tmp_path / "p.tar")
    write_members(path, change(members(path)))
    refused(path, reason)


def test_a_damaged_tar_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, of links, or with a size that is not there."""
    path = exported("webdataset", tmp_path / "p.tar")
    whole = path.read_bytes()
    for length in (0, 9, 512, 1024, len(whole) // 3, len(whole) // 2, whole.index(b"end.json") - 9):
        path.write_bytes(whole[:length])
        refused(path, r"p\.tar")
    link, huge = tarfile.TarInfo(HEAD), tarfile.TarInfo(HEAD)
    link.type, link.linkname, huge.size = tarfile.SYMTYPE, "/etc/passwd", 1 << 40
    for member in (link, huge):
        path.write_bytes(member.tobuf() + b"\0" * 1024)
        refused(path, r"store\.json' is not ours")
    refused(tmp_path / "none-%d.tar", "no file ", ConfigError)
    refused(tmp_path / "none.tar", r"none\.tar cannot be read as a tar: No such file")


@needs_arrow
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("name", ["p.parquet", "p.ledger.parquet", "p.tar"])
def test_other_bits_are_refused_or_change_nothing(tmp_path: Path, name: str, seed: int) -> None:
    store = odd_store(tmp_path / "store")
    tar, parquet = tmp_path / "p.tar", tmp_path / "p.parquet"
    export_store(store, Options.of(parquet=parquet, webdataset=tar))
    rng = np.random.default_rng(seed)
    payload = bytearray((tmp_path / name).read_bytes())
    payload[int(rng.integers(0, len(payload)))] = int(rng.integers(0, 256))
    (tmp_path / name).write_bytes(payload)
    try:
        import_features(tar if name == "p.tar" else parquet, tmp_path / "back", ImportOptions())
    except StoreError:
        assert not (tmp_path / "back").exists()
    else:
        assert_same(store, tmp_path / "back")


@needs_arrow
def test_a_store_without_one_frame(tmp_path: Path) -> None:
    store = write_store(tmp_path / "store", odd_rows([0, 0], SPEC), SPEC)
    for form in FORMS.values():
        there_and_back(store, tmp_path, form)
        assert_same(store, tmp_path / "back")
        shutil.rmtree(tmp_path / "back")
    assert pq.read_table(tmp_path / "p").num_rows == 0


# ---- what is refused


def changed(path: Path, change: Callable[[Any], Any]) -> None:
    pq.write_table(change(pq.read_table(path)), path)


def _head(table: Any, **texts: str) -> Any:
    new = {f"vtr.{name}".encode(): text for name, text in texts.items()}
    return table.replace_schema_metadata({**table.schema.metadata, **new})


def _cell(table: Any, name: str, values: list[Any]) -> Any:
    place = table.column_names.index(name)
    kind = pa.field(name, table.schema.field(name).type)
    return table.set_column(place, kind, pa.array(values, kind.type))


@needs_arrow
@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("p", lambda t: t.rename_columns(["id", "row", "pts_seconds", "vector"]),
         r"has no column video_id, embedding; it has id, row, pts_seconds, vector. A table "),
        ("p", lambda t: t.replace_schema_metadata(None), "lacks vtr.schema, vtr.spec.*can be read"),
        ("p", lambda t: _head(t, schema="2"), "is of schema 2; this vtr reads 1"),
        ("p", lambda t: _head(t, fingerprint="0" * 64), "its fingerprint does not fit its spec"),
        ("p", lambda t: _head(t, pad_embedding="[1, 2]"), "is no list of 3 numbers"),
        ("p", lambda t: _head(t, pad_embedding="[[1], 2, 3]"), "is no list of 3 numbers"),
        ("p", lambda t: _head(t, spec="{}"), "schema None"),
        ("p", lambda t: t.slice(1), "cannot be read in order: row 0 is not there"),
        ("p", lambda t: t.take(list(range(16))[::-1]), "is not there. Is a file missing"),
        ("p", lambda t: pa.concat_tables([t, t.slice(15)]), "frames of videos that are not in its"),
        ("p", lambda t: t.cast(t.schema.set(3, pa.field("embedding", pa.list_(pa.float32(), 3)))),
         r"column embedding is fixed_size_list<element: float>\[3\]; needed: fixed_size_list"),
        ("l", lambda t: t.drop_columns(["error"]), r"has no column error; it has video_id, status"),
        ("l", lambda t: _cell(t, "status", ["fine"] * 10), "status is 'fine'; allowed: Literal"),
        ("l", lambda t: _cell(t, "num_frames", [-1] * 10), "has frames float16"),
        ("l", lambda t: _cell(t, "width", [1 << 40] * 10), "width is 1099511627776; allow"),
        ("l", lambda t: _cell(t, "selection/head", [[99]] * 10), "selection 'head' names row"),
        ("l", lambda t: pa.concat_tables([t.slice(0, 1), t]), r"b.c.mp4' is there twice"),
    ],
)  # fmt: skip
def test_a_parquet_that_is_not_ours_is_refused(
    tmp_path: Path, name: str, change: Callable[[Any], Any], reason: str
) -> None:
    path = exported("parquet", tmp_path / "p.parquet")
    changed({"p": path, "l": tmp_path / "p.ledger.parquet"}[name], change)
    refused(path, reason)


@needs_arrow
def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    """Cut anywhere, or with other bits among the numbers: pages have checksums."""
    path = exported("parquet", tmp_path / "p.parquet")
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(odd_frames(SPEC, 2, 1).tobytes())] ^= 1
    for damaged in (b"", whole[:9], whole[:-5], whole[: len(whole) // 2], bytes(flipped)):
        path.write_bytes(damaged)
        refused(path, r"p\.parquet cannot be read as parquet")
    path.write_bytes(whole)
    (tmp_path / "p.ledger.parquet").unlink()
    refused(path, r"p\.ledger\.parquet is missing: the ledger of")


@needs_arrow
def test_a_folder_of_one_file_and_its_ledger(tmp_path: Path) -> None:
    store = odd_store(tmp_path / "store")
    export_store(store, Options.of(parquet=tmp_path / "it" / "p.parquet"))
    import_features(tmp_path / "it", tmp_path / "back", ImportOptions())
    assert_same(store, tmp_path / "back")


@needs_arrow
def test_tables_beside_arrays_are_no_export(tmp_path: Path) -> None:
    """Sets of features come with tables of captions and the like."""
    (tmp_path / "it" / "sub").mkdir(parents=True)
    np.save(tmp_path / "it" / "sub" / "v.npy", np.ones((2, 8), np.float32))
    pq.write_table(pa.table({"caption": ["a"]}), tmp_path / "it" / "captions.parquet")
    (tmp_path / "it" / "videos.tar").touch()
    report = import_features(tmp_path / "it", tmp_path / "back", ImportOptions())
    assert (report.ok, report.skipped) == (1, 2)


@needs_arrow
@pytest.mark.parametrize(
    "changes",
    [{"storage_dtype": "float99"}, {"embedding_dim": 0}, {"preprocessing": {"frames": "many"}}],
)
def test_a_spec_that_no_store_has_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = exported("parquet", tmp_path / "p.parquet")
    other = replace(SPEC, **changes)
    head = {"spec": other.to_json(), "fingerprint": other.fingerprint, "pad_embedding": "[]"}
    changed(path, lambda table: _head(table, **head))
    refused(path, r"its spec is none that a store has")


@needs_arrow
def test_what_an_export_says_of_itself_is_not_said_again(tmp_path: Path) -> None:
    exported("parquet", tmp_path / "p.parquet")
    with pytest.raises(ConfigError, match=r"says itself what its features are: leave out --fps"):
        import_features(tmp_path / "p.parquet", tmp_path / "back", ImportOptions.of(fps=2.0))
    with pytest.raises(ConfigError, match="is a store already"):
        import_features(tmp_path / "p.parquet", tmp_path / "store", ImportOptions())


# ---- places


@needs_arrow
def test_an_export_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    spec = replace(SPEC, embedding_dim=1000, samplers=("head",))
    store = write_store(tmp_path / "store", odd_rows([50], spec), spec)
    for place, form in FORMS.items():
        if place == "lance":
            continue  # writes so much more that its own test is below
        ((name, target),) = form.items()
        options = Options.of(**{name: tmp_path / place / target})
        with (
            full_disk(9_000),
            pytest.raises(StoreWriteError, match=r"cannot write .*File too large"),
        ):
            export_store(store, options)
        assert not [path for path in (tmp_path / place).rglob("*") if path.is_file()]
        export_store(store, options)


@needs_arrow
def test_tables_of_lance(tmp_path: Path) -> None:
    """Two tables; other ones, a missing one and a full disk are refused."""
    lance = pytest.importorskip("lance", reason="needs the extra vtr[lance]")
    store = odd_store(tmp_path / "store")
    with full_disk(300), pytest.raises(StoreWriteError, match=r"cannot write .*Nothing is left"):
        export_store(store, Options.of(lance=tmp_path / "l"))
    assert not (tmp_path / "l").exists()
    export_store(store, Options.of(lance=tmp_path / "l"))
    with pytest.raises(ConfigError, match=r"--lance .* cannot be used: File name too long"):
        export_store(store, Options.of(lance=tmp_path / ("x" * 256)))
    table = lance.dataset(str(tmp_path / "l" / "frames.lance"))
    assert (table.count_rows(), table.schema.names) == (16, list(FIELDS))
    with pytest.raises(ConfigError, match=r"--lance .*l is in use"):
        export_store(store, Options.of(lance=tmp_path / "l"))
    shutil.rmtree(tmp_path / "l" / "ledger.lance")
    refused(tmp_path / "l", r"cannot be read as Lance: .*ledger\.lance was not found")
    other = pa.table({"id": ["x"], "vector": pa.array([[0.1, 0.2]], pa.list_(pa.float32(), 2))})
    lance.write_dataset(other, str(tmp_path / "l" / "ledger.lance"))
    refused(tmp_path / "l", r"ledger\.lance has no column video_id, .* has id, vector")
    lance.write_dataset(other, str(tmp_path / "l" / "frames.lance"), mode="overwrite")
    refused(tmp_path / "l", r"no column video_id, row, pts_.* A table of frames has")


@needs_arrow
def test_what_a_killed_export_left_is_removed_by_the_next(tmp_path: Path) -> None:
    store = odd_store(tmp_path / "store")
    left = [tmp_path / f"{TEMPORARY_PREFIX}99-{name}" for name in ("p.parquet", "other-p.parquet")]
    for path in left:
        path.touch()
    export_store(store, Options.of(parquet=tmp_path / "p.parquet"))
    assert [path.exists() for path in left] == [False, True]


@needs_arrow
@pytest.mark.parametrize(("name", "module"), [("arrow", "pyarrow"), ("lance", "lance")])
def test_a_missing_extra_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str
) -> None:
    pytest.importorskip(module, reason=f"needs the extra vtr[{name}]")
    store = odd_store(tmp_path / "store")
    option = {"arrow": "parquet"}.get(name, name)
    export_store(store, Options.of(**{option: tmp_path / "p"}))
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ConfigError, match=rf"--{option} needs .*: pip install 'vtr\[{name}\]'"):
        export_store(store, Options.of(**{option: tmp_path / "q"}))
    refused(tmp_path / "p", rf"p is .*needs .*: pip install 'vtr\[{name}\]'", ConfigError)


@needs_arrow
def test_a_place_in_use_is_refused(tmp_path: Path) -> None:
    store = odd_store(tmp_path / "store")
    (tmp_path / "x.parquet").mkdir()
    for words, reason in (
        ({"parquet": store}, "--parquet .*store is in use"),
        ({"parquet": tmp_path / "x.parquet"}, "x.parquet is a folder"),
        ({"webdataset": tmp_path / "p"}, "it must end in .tar: one file, or with %05d"),
        ({"webdataset": tmp_path / "p-{00..10}.tar"}, "must end in .tar: .* with %05d once"),
        ({"webdataset": tmp_path / "p-%d-%d.tar"}, "must end in .tar: .* with %05d once"),
        ({}, "nothing to export: name a run"),
    ):
        with pytest.raises(ConfigError, match=reason):
            export_store(store, Options.of(**words))
    with pytest.raises(
        StoreWriteError, match=r"File name too long.*choose a shorter name, then run"
    ):
        export_store(store, Options.of(parquet=tmp_path / f"{'x' * 245}.parquet"))
    with pytest.raises(StoreError, match=r"no features: .*none does not exist"):
        export_store(tmp_path / "none", Options.of(parquet=tmp_path / "p"))
    with pytest.raises(ConfigError, match="a run is exported with --run RUN --out DIR"):
        run_app("export", "--run", "x", "--parquet", "p", cwd=tmp_path)
    if os.geteuid():  # root may write anywhere
        (tmp_path / "x.parquet").chmod(0o500)
        with pytest.raises(StoreWriteError, match="choose a folder that you may write to"):
            export_store(store, Options.of(parquet=tmp_path / "x.parquet" / "p.parquet"))

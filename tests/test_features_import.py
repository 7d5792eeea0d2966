"""Features of others: what layouts are understood, and what each file that is not one costs."""

import contextlib
import io
import math
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from builders import full_disk, put, run_app
from safetensors.numpy import save_file

from vtr.api.features import read_torch
from vtr.api.stores import meet
from vtr.errors import ConfigError, StoreError, StoreWriteError, VtrError
from vtr.features import FeatureStore
from vtr.features.importing import ImportReport, import_arrays

D = 24
ROWS = [
    np.random.default_rng(n).standard_normal((n + 3, D)).astype(np.float32) for n in range(3)
]  # fmt: skip


def write(folder: Path, change: Callable[[np.ndarray], np.ndarray], name: str = "v{}.npy") -> Path:
    for number, rows in enumerate(ROWS):
        path = folder / name.format(number)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:  # np.save would add .npy to other endings
            np.save(file, change(rows))
    return folder


def imported(source: Path, **options: object) -> tuple[ImportReport, FeatureStore]:
    store = source.parent / "store"
    report = import_arrays(source, store, **options, tensors=read_torch)  # type: ignore[arg-type]
    return report, FeatureStore(store)


def padded(value: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda rows: np.concatenate([rows, np.full((9 - len(rows), D), value, np.float32)])


def _h5(path: Path, name: str, *beside: str, **options: str) -> None:
    with h5py.File(path / "all.h5", "w") as file:
        for number, rows in enumerate(ROWS):
            file.create_dataset(name.format(number), data=rows, **options)
            for other in beside:
                file[other.format(number)] = np.arange(len(rows))


def _save(path: Path, value: object, name: str = "all.pt") -> None:
    def tensors(value: object) -> object:
        if isinstance(value, dict):
            return {name: tensors(inner) for name, inner in value.items()}
        return torch.from_numpy(value) if isinstance(value, np.ndarray) else value

    torch.save(tensors(value), path / name)


def _dump(path: Path, value: object, name: str = "all.pkl", **options: int) -> None:
    (path / name).write_bytes(pickle.dumps(value, **options))


V = {f"v{number}": rows for number, rows in enumerate(ROWS)}
PLAIN: dict[str, Callable[[Path], object]] = {
    "npz": lambda p: np.savez_compressed(p / "all.npz", **V),
    "npz, each": lambda p: [np.savez(p / k, features=v, fps=np.array(1.0)) for k, v in V.items()],
    "pickle, each": lambda p: [
        _dump(p, v, f"{k}.pkl", protocol=n) for n, (k, v) in enumerate(V.items(), 2)
    ],
    "pickle": lambda p: _dump(p, V, "all.pickle"),
    "hdf5": lambda p: _h5(p, "v{}", compression="gzip"),
}
CONTAINERS: dict[str, Callable[[Path], object]] = {
    **PLAIN,
    "group of one": lambda p: _h5(p, "v{}/feature"),
    "group of one, any name": lambda p: _h5(p, "v{}/clip"),
    "group of several": lambda p: _h5(p, "v{}/features", "v{}/times"),
    "bytes": lambda p: _dump(p, {k.encode(): v for k, v in V.items()}),
    "ordered": lambda p: _dump(p, OrderedDict(V)),
    "defaultdict": lambda p: _dump(p, defaultdict(list, V)),
    "nested": lambda p: _dump(p, {k: {"feat": v} for k, v in V.items()}),
    "torch": lambda p: _save(p, V),
    "torch, each": lambda p: [_save(p, v, f"{k}.pt") for k, v in V.items()],
    "torch, nested": lambda p: _save(p, {k: {"clip": v} for k, v in V.items()}),
    "torch, beside numbers and texts": lambda p: _save(
        p, {k: {"x": v, "fps": 25.0, "of": "a"} for k, v in V.items()}
    ),
    "torch, arrays of numpy": lambda p: torch.save(V, p / "all.pth"),
    "lists of rows": lambda p: torch.save({k: list(v) for k, v in V.items()}, p / "all.pth"),
    "safetensors": lambda p: save_file(V, p / "all.safetensors"),
}


@pytest.mark.parametrize("make", CONTAINERS.values(), ids=CONTAINERS)
def test_a_container_is_understood(tmp_path: Path, make: Callable[[Path], object]) -> None:
    """Videos of one file have their own names, whether it or its folder is named."""
    folder = tmp_path / "it"
    folder.mkdir()
    make(folder)
    first, *others = folder.iterdir()
    for source in (folder,) if others else (folder, first):
        report, store = imported(source)
        assert (sorted(store), report.failed) == (["v0", "v1", "v2"], {})
        for name, rows in V.items():
            np.testing.assert_array_equal(store[name].frames, rows.astype(np.float16))


def test_what_arrays_are_is_no_name_of_a_video(tmp_path: Path) -> None:
    """Rows of many videos are not the frames of one, nor are x and y of each file two videos."""
    (tmp_path / "it").mkdir()
    pooled = np.stack([rows.mean(0) for rows in ROWS])
    np.savez(tmp_path / "it" / "all.npz", features=pooled, video_ids=np.array(["a", "b", "c"]))
    with pytest.raises(
        StoreError, match=r"all \(several-videos: .* videos of 'video_ids'; write one"
    ):
        imported(tmp_path / "it")
    (tmp_path / "it" / "all.npz").unlink()
    for name, rows in V.items():
        np.savez(tmp_path / "it" / f"{name}.npz", x=rows, y=rows)
    with pytest.raises(
        StoreError, match=r"v0 \(several-arrays: x, y; call that of the frames feat"
    ):
        imported(tmp_path / "it")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda rows: rows, id="plain"),
        pytest.param(lambda rows: rows.astype(np.float64), id="float64"),
        pytest.param(lambda rows: rows.astype(">f4"), id="big-endian"),
        pytest.param(np.asfortranarray, id="fortran"),
        pytest.param(lambda rows: rows[None], id="(1, n, D)"),
        pytest.param(lambda rows: rows[:, None], id="(n, 1, D)"),
        pytest.param(lambda rows: rows[:, :, None, None], id="(n, D, 1, 1)"),
        pytest.param(padded(0.0), id="padded with zeros"),
        pytest.param(padded(math.nan), id="padded with NaN"),
    ],
)
def test_a_layout_is_understood(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    report, store = imported(write(tmp_path / "it", change))
    assert (report.ok, report.failed, report.dim, report.dtype) == (3, {}, D, "float16")
    for number, rows in enumerate(ROWS):
        found = store[f"v{number}"]
        np.testing.assert_array_equal(found.frames, rows.astype(np.float16))
        np.testing.assert_array_equal(found.pts_seconds, np.arange(len(rows)))


def test_one_row_of_a_pooled_video(tmp_path: Path) -> None:
    _, store = imported(write(tmp_path / "it", lambda rows: rows.mean(0)))
    assert store["v2"].frames.shape == (1, D)


@pytest.mark.parametrize(
    "change", [lambda rows: rows.T, lambda rows: np.ascontiguousarray(ROWS[0].T)]
)
def test_turned_arrays_are_refused_or_turned_when_told(
    tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    source = write(tmp_path / "it", change)
    with pytest.raises(ConfigError, match=r"D, n\) with D = 24. Say .* --dim 3 or --dim 24"):
        imported(source)
    assert not (tmp_path / "store").exists()
    _, store = imported(source, dim=D)
    np.testing.assert_array_equal(store["v0"].frames, ROWS[0].astype(np.float16))
    with pytest.raises(ConfigError, match="--dim is 7, but the arrays are"):
        import_arrays(source, tmp_path / "other", dim=7)


@pytest.mark.parametrize("factor", [1e5, 1e-9, 1e-6])
def test_what_float16_would_lose_is_kept_in_float32(tmp_path: Path, factor: float) -> None:
    report, store = imported(write(tmp_path / "it", lambda rows: rows * np.float32(factor)))
    assert (report.dtype, store.spec.storage_dtype) == ("float32", "float32")
    np.testing.assert_array_equal(store["v1"].frames, ROWS[1] * np.float32(factor))


def test_names_in_sub_folders_and_capitals(tmp_path: Path) -> None:
    write(tmp_path / "it", lambda rows: rows, "train/v{}.NPY")
    put(tmp_path / "it" / "@eaDir" / "v0.npy", b"")
    (tmp_path / "it" / "readme.txt").write_text("")
    report, store = imported(tmp_path / "it")
    assert store.ids == ("train/v0", "train/v1", "train/v2")
    assert report.skipped == 1


def test_names_that_no_store_can_hold_are_escaped_wherever_they_stand(tmp_path: Path) -> None:
    """In a file's name, in a pickle, in a group of one: each ended in a traceback."""
    folder = tmp_path / "it"
    folder.mkdir()
    with (folder / os.fsdecode(b"caf\xe9.npy")).open("wb") as file:
        np.save(file, ROWS[0])
    content = {"a\0b": ROWS[1], "\ud800": {"features": ROWS[2]}}
    (folder / "of.pkl").write_bytes(pickle.dumps(content))
    report, store = imported(folder)
    assert (report.ok, report.failed) == (3, {})
    assert set(store.ids) == {r"caf\xe9", r"a\x00b", r"\ud800/features"}


def test_side_files_of_video_features(tmp_path: Path) -> None:
    source = write(tmp_path / "it", lambda rows: rows, "v{}_clip.npy")
    for number, rows in enumerate(ROWS):
        np.save(source / f"v{number}_fps.npy", np.array(25.0))
        np.save(source / f"v{number}_timestamps_ms.npy", np.arange(len(rows)) * 40.0)
    np.save(source / "v2_timestamps_ms.npy", np.arange(4.0))
    report, store = imported(source)
    assert (store.ids, report.timed) == (("v0", "v1"), 2)
    np.testing.assert_allclose(store["v1"].pts_seconds, [0, 0.04, 0.08, 0.12])
    assert report.failed == {"v2": "wrong-times: 4 times for 5 rows"}


def test_crops_are_averaged(tmp_path: Path) -> None:
    for crop in range(3):
        write(tmp_path / "it", lambda rows, crop=crop: rows + crop, f"v{{}}__{crop}.npy")
    report, store = imported(tmp_path / "it")
    assert (report.ok, report.crops) == (3, 3)
    np.testing.assert_array_equal(store["v0"].frames, (ROWS[0] + 1).astype(np.float16))


def test_files_in_folders_that_say_more_than_their_rows(tmp_path: Path) -> None:
    for number, rows in enumerate(ROWS):
        folder = tmp_path / "it" / "a" / f"{number % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        held = {"emb": rows, "fps": 25.0, "video": "x.mp4", "n": len(rows)}
        _save(folder, held, f"v{number}.pt")
    _, store = imported(tmp_path / "it")
    assert store.ids == ("a/0/v0", "a/0/v2", "a/1/v1")
    np.testing.assert_array_equal(store["a/1/v1"].frames, ROWS[1].astype(np.float16))


class _Runs:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch ran",)


def _header(shape: tuple[int, ...]) -> bytes:
    held = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        held, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    return held.getvalue() + b"\0" * 64


def _strange(folder: Path) -> dict[str, str]:
    """Makes what is no array; returns id to the reason that is expected."""
    good = ROWS[0]
    np.save(folder / "objects.npy", np.array([{1: 2}], dtype=object), allow_pickle=True)
    (folder / "junk.npy").write_bytes(b"xx")
    (folder / "cut.npy").write_bytes((folder / "good.npy").read_bytes()[:-9])
    (folder / "huge.npy").write_bytes(_header((1 << 40, D)))
    (folder / "negative.npy").write_bytes(_header((-1, -D)))
    (folder / "zip.npy").write_bytes(b"PK\3\4" + b"\0" * 99)
    os.mkfifo(folder / "pipe.npy")
    (folder / "device.npy").symlink_to("/dev/zero")
    (folder / "dangling.npy").symlink_to(folder / "nowhere")
    (folder / "folder.npy").mkdir()
    (folder / "evil.pkl").write_bytes(pickle.dumps(_Runs()))
    torch.save(_Runs(), folder / "evil_torch.pth")
    torch.save([torch.ones(2, D), torch.ones(3, D)], folder / "list.pt")
    torch.save(torch.ones(3, D).to_sparse(), folder / "sparse_tensor.pt")
    (folder / "loop.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + b"\0" * 99)
    with h5py.File(folder / "out.h5", "w") as file:
        file["link"] = h5py.ExternalLink("/etc/passwd", "/")
        file.create_dataset("sparse", (1 << 40, D), "f4", chunks=(1, D))
        file.create_dataset("beyond", (3, D), "f4", external=[("/etc/passwd", 0, 999)])
    with zipfile.ZipFile(folder / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", _header((1 << 40, D)))
    np.save(folder / "whole.npy", (good * 9).astype(np.int8))
    np.save(folder / "nan.npy", np.where(good > 1, np.nan, good))
    np.save(folder / "hole.npy", good * np.array([[1], [0], [1]], np.float32))
    np.save(folder / "cube.npy", np.ones((2, 3, D), np.float32))
    np.save(folder / "narrow.npy", np.ones((2, 7), np.float32))
    np.save(folder / "cafe\u0301.npy", good)
    np.save(folder / "caf\xe9.npy", good)
    return {
        "objects": "not-an-array: it holds Python objects",
        "junk": "not-an-array: no .npy file",
        "cut": "not-an-array: float32 .* needs",
        "huge": "too-large: 105,553,116,266,496 bytes",
        "negative": "not-an-array: float32",
        "zip": "not-an-array: a zip archive",
        "pipe": "not-a-file: not a regular file",
        "device": "not-a-file: not a regular file",
        "dangling": "not-an-array: No such file",
        "folder": "not-a-file: not a regular file",
        "evil": r"not-an-array: it wants posix\.system, which is not run",
        "evil_torch": "not-an-array: .*not a file of torch.save, or one of other objects",
        "list": "not-an-array: it holds a list",
        "sparse_tensor": "not-an-array: .*not an ordinary dense tensor",
        "loop": "not-an-array: ",
        "link": "not-an-array: a link to elsewhere",
        "sparse": "too-large: ",
        "beyond": "not-an-array: its values lie in another file",
        "bomb": "too-large: ",
        "whole": "wrong-type: int8",
        "nan": "not-finite: ",
        "hole": "all-zero: ",
        "cube": "wrong-shape: ",
        "narrow": "wrong-shape: 7 dimensions, expected 24",
        "caf\xe9 (2)": "twice: caf\xe9 is in ",
    }


def test_each_strange_file_is_one_row(here: Path) -> None:
    source = write(here / "it", lambda rows: rows)
    np.save(source / "good.npy", ROWS[0])
    expected = _strange(source)
    report, store = imported(source)
    assert report.failed.keys() == expected.keys()
    for video_id, reason in expected.items():
        with pytest.raises(StoreError, match=f"has no features: {reason}"):
            store[video_id]
    assert set(store.ids) == {"caf\xe9", "good", "v0", "v1", "v2"}
    assert not (here / "ran").exists()


def test_a_small_file_of_torch_cannot_fill_the_memory(tmp_path: Path) -> None:
    """One tensor under many names, or many times in a list, stands in the file once."""
    (tmp_path / "it").mkdir()
    rows = torch.ones(1 << 10, 1 << 10)
    inner: object = {f"{n}": {"x": rows} for n in range(9)}
    for _ in range(7):
        inner = {f"{n}": inner for n in range(9)}
    torch.save(inner, tmp_path / "it" / "names.pt")
    torch.save([rows] * 1_000, tmp_path / "it" / "list.pt")
    torch.save({f"{n}": rows[n:] for n in range(9)}, tmp_path / "it" / "views.pt")
    report, _ = imported(tmp_path / "it")
    assert report.failed["list"].startswith("too-large: 4,194,304,000 bytes")
    assert report.failed["names"].startswith("too-large: ")
    assert report.ok < 15


def test_nothing_imported_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "it").mkdir()
    with pytest.raises(ConfigError, match=r"holds no arrays; looked for \.h5"):
        import_arrays(tmp_path / "it", tmp_path / "store")
    (tmp_path / "it" / "a.npy").write_bytes(b"x")
    refusal = r"^nothing was imported: a \(not-an-array: no \.npy file\)$"
    with pytest.raises(StoreError, match=refusal):
        run_app("features", "import", tmp_path / "it", "--out", tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_what_lies_in_the_folder_is_not_replaced(tmp_path: Path) -> None:
    source = write(tmp_path / "it", lambda rows: rows)
    put(tmp_path / "store" / "mine.txt", "mine")
    with pytest.raises(ConfigError, match="holds other files"):
        imported(source)
    assert (tmp_path / "store" / "mine.txt").read_text() == "mine"


def test_a_full_disk_leaves_no_store(tmp_path: Path) -> None:
    source = write(tmp_path / "it", lambda rows: rows)
    with (
        full_disk(1000),
        pytest.raises(StoreWriteError, match=r"cannot write .*File too large.*free some space"),
    ):
        imported(source)
    assert not (tmp_path / "store").exists()


def test_features_meet_the_videos_of_a_folder(tmp_path: Path) -> None:
    source = tmp_path / "it"
    for name, rows in zip(("video0.npy", "cats/a.mp4.npy", "feats/dogs/b.npy"), ROWS, strict=True):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(source / name, rows)
    (source / "lost.npy").write_bytes(b"x")
    _, store = imported(source)
    met = meet(store, ["video0.mp4", "cats/a.mp4", "dogs/b.avi", "cats/b.mp4", "lost.mp4"])
    assert set(met) == {"video0.mp4", "cats/a.mp4", "dogs/b.avi"}
    np.testing.assert_array_equal(met["dogs/b.avi"].frames, ROWS[2].astype(np.float16))
    assert {row.id: row.reason for row in met.ledger}["lost.mp4"] == "not-an-array"
    assert set(store) == {"video0", "cats/a.mp4", "feats/dogs/b"}, "a view, no change"


def test_flat_features_meet_videos_in_sub_folders_where_that_is_clear(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, store = imported(write(tmp_path / "it", lambda rows: rows))
    assert set(meet(store, ["v0.mp4", "a/v1.mp4"])) == {"v0.mp4", "a/v1.mp4", "v2"}
    assert capsys.readouterr().err == ""
    assert set(meet(store, ["v0.mp4", "a/v1.mp4", "b/v1.mp4"])) == {"v0.mp4", "v1", "v2"}
    assert "warning: 2 videos may be several of" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(30))
def test_damaged_containers_end_in_a_row_or_an_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = tmp_path / "it"
    source.mkdir()
    np.save(source / "good.npy", ROWS[0])
    list(PLAIN.values())[seed % 5](source)
    for path in source.iterdir():
        if path.suffix != ".npy":
            payload = bytearray(path.read_bytes())
            for at in rng.integers(0, len(payload), 8):
                payload[at] = rng.integers(0, 256)
            path.write_bytes(payload[: len(payload) - int(rng.integers(0, 20))])
    with contextlib.suppress(VtrError):
        report, _ = imported(source)
        assert report.ok >= 1

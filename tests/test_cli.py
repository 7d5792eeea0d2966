"""The command line as a person meets it: a real process, its exit code, both its outputs."""

import functools
import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from builders import ramp, run_app, run_process, run_python, spoil, write_clip
from typer.main import get_command

import vtr
from vtr.api.search import split
from vtr.cli import COMMANDS, app
from vtr.demo import demo_model_folder

Vtr = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run_vtr(tmp_path: Path) -> Vtr:
    """Runs `vtr` in an empty folder."""
    return functools.partial(run_process, cwd=tmp_path)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "videos"
    folder.mkdir()
    for n in range(3):
        write_clip(folder / f"clip {n}.mp4", ramp(20), fps=10)
    return folder


def loaded(code: str) -> set[str]:
    """The modules that a process has imported after this code."""
    code = f"import sys\ntry:\n {code}\nexcept SystemExit: pass\nprint('', *sys.modules, sep='\\n')"
    return set(subprocess.check_output([sys.executable, "-c", code], text=True).splitlines())


HEAVY = {"torch", "transformers", "av", "h5py", "sklearn", "numpy", "pydantic"}


def test_help_imports_no_command() -> None:
    modules = loaded("sys.argv = ['vtr', '--help']; import vtr.cli; vtr.cli.main()")
    assert not modules & HEAVY
    commands = {name for name in modules if name.startswith("vtr.commands.")}
    assert commands == {"vtr.commands.shell", "vtr.commands.console"}


def test_the_package_imports_neither_torch_nor_options_of_verbs() -> None:
    modules = loaded("import vtr; dir(vtr)")
    assert not modules & HEAVY
    assert not [name for name in modules if name.startswith("vtr.verbs")]


def test_the_lines_of_help_are_those_of_the_commands() -> None:
    commands = get_command(app).commands
    assert {
        name: " ".join((c.help or "").split("\n\n")[0].split()) for name, c in commands.items()
    } == {name: line for name, (_, line) in COMMANDS.items()}


@pytest.mark.parametrize("delay", [0.0, 0.03, 0.06, 0.1, 0.15])
def test_an_interrupt_while_modules_are_imported_prints_no_traceback(delay: float) -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'vtr.cli': print('go', flush=True)\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from vtr.__main__ import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, "heads"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"go\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
    assert b"Traceback" not in told, told.decode()
    assert process.returncode == 130
    assert told.startswith(b"interrupted")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("search,~ 5 people dance", "'~ 5 people dance' does not exist, and there is no vtr.toml"),
        (f"search,{'a ' * 200}", "' does not exist, and there is no vtr.toml in "),
        ("push,~nobody-here/run,me/run,--dry-run", "nothing to push: ~nobody-here/run does not"),
        ("serve,~nobody-here/clips", "~nobody-here/clips does not exist; name the folder"),
        ("extract,--videos,.,--model,~nobody-here/clip", "~nobody-here/clip"),
        ("eda,--videos,.,--model,~nobody-here/clip", "~nobody-here/clip"),
    ],
)
def test_the_home_of_nobody_and_a_sentence_are_no_paths(
    words: str, message: str, here: Path
) -> None:
    with pytest.raises(vtr.VtrError) as told:
        run_app(*words.split(","))
    assert message in str(told.value)


def test_a_sentence_longer_than_a_name_is_searched_in_a_workspace(here: Path) -> None:
    (here / "vtr.toml").touch()
    sentence = "a very long sentence " * 20
    assert split([sentence]) == (None, (sentence,))


def heads_where_its_import(folder: Path, *does: str) -> subprocess.CompletedProcess[bytes]:
    """`python -m vtr heads`, with what happens when the command's module is looked for."""
    lines = [
        "import atexit, os, signal, sys",
        "class Finder:",
        "    def find_spec(self, name, *_):",
    ]
    lines += ["        if name == 'vtr.commands.heads':", *(f"            {line}" for line in does)]
    (folder / "sitecustomize.py").write_text("\n".join([*lines, "sys.meta_path[:0] = [Finder()]"]))
    return subprocess.run(
        [sys.executable, "-m", "vtr", "heads"], capture_output=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), *sys.path])},
    )  # fmt: skip


@pytest.mark.parametrize("again", ["0", "os.kill(os.getpid(), signal.SIGINT)"])
def test_an_interrupt_ends_with_130_whatever_it_passed_through_and_whatever_comes_then(
    again: str, tmp_path: Path
) -> None:
    done = heads_where_its_import(
        tmp_path, f"atexit.register(lambda: {again})", "exec('raise KeyboardInterrupt')"
    )
    assert b"Traceback" not in done.stderr, done.stderr.decode()
    assert done.returncode == 130
    assert done.stderr.startswith(b"interrupted: what was published is safe")


def test_a_compiled_module_that_a_full_disk_cut_off_is_named(tmp_path: Path) -> None:
    done = heads_where_its_import(tmp_path, "raise EOFError('marshal data too short')")
    assert done.returncode == 1
    assert done.stderr.startswith(b"error: a module that Python has compiled is cut off")
    done = heads_where_its_import(tmp_path, "raise EOFError('Ran out of input')")
    assert b"Ran out of input" in done.stderr  # and no "Aborted." alone


def test_an_interrupt_that_falls_into_the_removal_of_an_object_is_not_lost() -> None:
    """Python prints and forgets what is raised there."""
    code = """
import time
import vtr.cli
class Held:
    def __del__(self):
        raise KeyboardInterrupt
def work():
    Held()
    for _ in range(1000):
        time.sleep(0.01)
vtr.cli.main = work
from vtr.__main__ import main
main()
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_an_interrupt_that_an_import_makes_something_else_of_is_still_one() -> None:
    code = """
import signal
import vtr.cli
def work():
    try:
        signal.raise_signal(signal.SIGINT)
    except KeyboardInterrupt:
        raise ImportError("cannot load module more than once per process") from None
vtr.cli.main = work
from vtr.__main__ import main
main()
"""
    done = run_python("-c", code)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
    done = run_python(
        "-c", code.replace("signal.raise_signal(signal.SIGINT)", "raise KeyboardInterrupt")
    )
    assert "ImportError: cannot load module" in done.stderr, "a fault of ours stays one"


def test_the_installed_command_begins_where_interrupts_are_answered() -> None:
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vtr": "vtr.__main__:main"}


def test_from_videos_to_store(run_vtr: Vtr, videos: Path, tmp_path: Path) -> None:
    """init, extract, inspect: in a workspace, with no flag that the file already says."""
    done = run_vtr("init", "--videos", videos, "--model", demo_model_folder())
    assert done.returncode == 0, done.stderr
    done = run_vtr("extract", "--sampler", "uniform", "--frames", "4", "--fps", "native")
    assert done.returncode == 0, done.stderr
    assert "3 videos = 3 ok + 0 partial + 0 failed" in done.stdout
    assert "12 frames" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout + done.stderr
    facts = json.loads(run_vtr("inspect", "features", "--json", "--verify").stdout)
    assert (facts["inputs"], facts["ok"], facts["frames"], facts["damaged"]) == (3, 3, 12, [])
    assert facts["spec"]["samplers"] == ["uniform"]
    recorded = json.loads((tmp_path / "features" / "extract.json").read_text())
    assert (recorded["sampler"], recorded["frames"], recorded["fps"]) == ("uniform", 4, "native")
    printed = run_vtr("inspect").stdout
    assert "3 inputs = 3 ok + 0 partial + 0 failed" in printed
    store = vtr.FeatureStore(tmp_path / "features")
    assert store.ids == ("clip 0.mp4", "clip 1.mp4", "clip 2.mp4")


def test_some_videos_fail(run_vtr: Vtr, videos: Path) -> None:
    (videos / "broken.mp4").write_text("no video")
    words = ("extract", "--videos", videos, "--model", demo_model_folder(), "--workers", "1")
    done = run_vtr(*words, "--json")
    assert done.returncode == 3
    facts = json.loads(done.stdout)
    assert (facts["inputs"], facts["ok"], facts["failed"]) == (4, 3, 1)
    assert facts["reasons"] == {"not-a-video": 1}
    again = run_vtr(*words)
    assert again.returncode == 3
    assert "1 not-a-video" in again.stdout
    assert "vtr inspect" in again.stdout
    listed = run_vtr("inspect", "features", "--failures").stdout
    assert "failed: 'broken.mp4': not-a-video: " in listed
    done = run_vtr(*words, "--dry-run", "--retry", "failed", "--json")
    plan = json.loads(done.stdout)
    assert (plan["inputs"], plan["new"], plan["again"]) == (4, 0, 1)
    done = run_vtr(*words, "--frames", "3")
    assert done.returncode == 1
    assert "num_frames is 12, asked 3" in done.stderr


def test_a_dry_run_tells_what_a_run_would_say(run_vtr: Vtr, videos: Path) -> None:
    words = ("extract", "--videos", videos, "--model", demo_model_folder(), "--sampler", "head")
    assert run_vtr(*words).returncode == 0
    write_clip(videos / "clip 1.mp4", ramp(30), fps=10)
    done = run_vtr(*words, "--dry-run")
    assert done.stdout == "would extract 0 new videos and 0 again\n"
    assert (
        "warning: 1 video has another size or date than when it was read, such as 'clip 1.mp4'"
        in (done.stderr)
    )
    done = run_vtr(*words, "--dry-run", "--retry", "changed", "--json")
    assert json.loads(done.stdout)["again"] == 1
    for other in (("--frames", "3"), ("--route", "exact"), ("--fps", "2"), ("--sampler", "tail")):
        refused = [run_vtr(*words, *other, *dry) for dry in ((), ("--dry-run",))]
        assert [done.returncode for done in refused] == [1, 1]
        messages = [done.stderr.splitlines()[-1] for done in refused]
        assert messages[0] == messages[1]


def test_damage_is_exit_code_1(run_vtr: Vtr, videos: Path, tmp_path: Path) -> None:
    assert not run_vtr("extract", "--videos", videos, "--model", demo_model_folder()).returncode
    shard = next((tmp_path / "features").glob("shard-*.h5"))
    spoil(shard)
    done = run_vtr("inspect", "--verify")
    assert done.returncode == 1
    assert "its bytes are not those it was written with" in done.stderr
    assert f"vtr extract --features {shard.parent} --retry damaged" in done.stderr
    words = ("extract", "--videos", videos, "--model", demo_model_folder())
    assert not run_vtr(*words, "--retry", "damaged").returncode
    assert not run_vtr("inspect", "--verify").returncode


def test_inspect_finds_the_store_that_the_workspace_names(
    run_vtr: Vtr, videos: Path, tmp_path: Path
) -> None:
    run_vtr("init", "--videos", videos, "--model", demo_model_folder())
    config = tmp_path / "vtr.toml"
    config.write_text(config.read_text().replace('features = "features"', 'features = "cache"'))
    assert not run_vtr("extract", "--sampler", "dense").returncode
    facts = json.loads(run_vtr("inspect", "--json", cwd=videos).stdout)
    assert (facts["path"], facts["ok"]) == (str(tmp_path / "cache"), 3)
    study = run_vtr("samplers", "study", "--costs", "0", "--json", cwd=videos)
    assert json.loads(study.stdout)["videos"] == 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_output_that_is_full_is_one_message() -> None:
    with Path("/dev/full").open("w") as full:
        words = [sys.executable, "-m", "vtr", "samplers", "--json"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, "error: the output: No space left on device\n")


def test_help_is_wrapped_where_the_terminal_ends(run_vtr: Vtr) -> None:
    text = " ".join(run_vtr("extract", "--help").stdout.split())
    assert "Exit code 3: finished, but some videos failed" in text
    lines = [line.strip() for line in run_vtr("extract", "--help").stdout.splitlines()]
    assert not any(line.endswith("finished, but") for line in lines)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("extract",), 1, "error: no videos named: there is no vtr.toml in"),
        (("train",), 1, "error: no videos named: there is no vtr.toml in"),
        (("extract", "--videos", "nowhere"), 1, "nowhere"),
        (("extract", "--videos", ".", "--sampler", "unifrom"), 1, "Did you mean 'uniform'"),
        (("extract", "--videos", ".", "--fps", "0"), 1, "frames per second above 0"),
        (("extract", "--videos", ".", "--frames", "0"), 1, "a whole number, 1 or more"),
        (("extract", "--videos", ".", "--shard", "3/2"), 1, "write i/n with 1 <= i <= n"),
        (("extract", "--videos", ".", "--retry", "faild"), 1, "Did you mean 'failed'"),
        (("extract", "--videos", ".", "--timeout", "-1"), 1, "--timeout is -1.0"),
        (("extract", "--videos", ".", "--overwrite", "--shard", "1/2"), 1, "Delete the store"),
        (("extract", "--route", "slow"), 2, "slow"),
        (("extract", "--frames", "x"), 2, "--frames"),
        (("extract", "--videos", ".", "--memory", "nan"), 1, "error: --memory is nan; it must be "),
        (("extract", "--videos", ".", "--memory", "inf"), 1, "error: --memory is inf; it must be "),
        (("extract", "--videos", ".", "--memory", "-3"), 1, "error: --memory is -3.0; it must be "),
        (("extract", "--videos", ".", "--max-pixels", "0"), 1, "error: --max-pixels is 0; it must"),
        (("inspect", "nowhere"), 1, "error: no features: nowhere does not exist"),
        (("bogus",), 2, "No such command"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_mistakes_are_one_message(
    run_vtr: Vtr, words: tuple[str, ...], code: int, message: str
) -> None:
    done = run_vtr(*words)
    assert done.returncode == code
    assert message in done.stderr
    assert sum(line.startswith("error: ") for line in done.stderr.splitlines()) == (code == 1)
    assert "Traceback" not in done.stderr
    assert not done.stdout


def test_samplers_are_listed_drawn_and_studied(run_vtr: Vtr, videos: Path, tmp_path: Path) -> None:
    listed = {fact["name"]: fact for fact in json.loads(run_vtr("samplers", "--json").stdout)}
    assert listed["motion"]["options"]["global_share"] == 0.25
    assert "uniform" in run_vtr("samplers").stdout
    done = run_vtr("samplers", "show", videos / "clip 0.mp4", "--sampler", "uniform,motion")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "clip 0.png").read_bytes().startswith(b"\x89PNG")
    assert run_vtr("samplers", "show", "nowhere.mp4").returncode == 1
    words = ("--videos", videos, "--model", demo_model_folder(), "--fps", "native")
    done = run_vtr("extract", "--sampler", "dense", *words)
    assert done.returncode == 0, done.stderr
    done = run_vtr("samplers", "study", "--sampler", "uniform,diversity", "--frames", "4", "--json")
    figures = json.loads(done.stdout)
    assert [row["sampler"] for row in figures["samplers"]] == ["uniform", "diversity"]
    assert figures["videos"] == 3
    assert "uniform" in run_vtr("samplers", "study", "--sampler", "uniform").stdout


@pytest.mark.parametrize("model", ["nobody/nothing", "./nowhere", "videos"])
@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_model_that_is_not_there_is_refused_before_anything_is_read(
    run_vtr: Vtr, videos: Path, tmp_path: Path, model: str, more: tuple[str, ...]
) -> None:
    (tmp_path / "captions.csv").write_text("no such columns\n1\n")
    words = ("--videos", videos, "--annotations", "captions.csv", "--model", model)
    done = run_vtr("extract", *words, *more)
    assert done.returncode == 1
    assert "captions.csv" not in done.stderr
    assert "Traceback" not in done.stderr
    assert model in done.stderr.splitlines()[-1]
    assert done.stderr.count("error: ") == 1


def test_extract_says_at_once_what_it_does(run_vtr: Vtr, videos: Path) -> None:
    words = ("--videos", videos, "--model", demo_model_folder(), "--workers", "1")
    told = run_vtr("extract", *words).stderr.splitlines()
    assert [line.partition(" ")[0] for line in told[:4]] == [
        "looking",
        "3",
        "loading",
        "extracting:",
    ]
    assert told[1].startswith("3 videos of dataset ")
    assert told[3] == "extracting: starting 1 decoding process"
    again = run_vtr("extract", *words).stderr
    assert "starting" not in again  # nothing is decoded
    assert run_vtr("extract", *words, "--quiet").stderr.splitlines() == told[1:2]

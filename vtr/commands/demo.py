"""`vtr demo`: the whole pipeline on a small world that ships with the package."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from vtr.arithmetic import prepare_arithmetic
from vtr.commands.console import AsJson, Quiet, near, print_json, say
from vtr.commands.demo_tables import print_gains, print_results
from vtr.commands.flags import with_options
from vtr.commands.tables import print_searches
from vtr.counts import counted, human_bytes, human_seconds
from vtr.errors import SOME_FAILED
from vtr.progress import note
from vtr.verbs.demo import Options


@with_options("demo")
def demo(*, options: Options, quiet: Quiet = False, as_json: AsJson = False) -> None:
    """Render the demo world, extract it, train heads on it, and show what each can and cannot do.

    Needs no network and no data: clips, captions and model come with the package. A second call
    reuses what is there, and goes on where one was stopped.
    """
    prepare_arithmetic()
    from vtr.api.demo import prepare_demo, search_demo
    from vtr.api.demo_trials import full_trials, gains, measure_heads, short_trials, warnings

    start = time.perf_counter()
    silent = quiet or as_json
    workspace, facts = prepare_demo(options, quiet=silent)
    if not as_json:
        _print_store(facts, num_frames=workspace.frames)
    facts |= {"results": [], "report": None, "gains": [], "warnings": []}
    if options.train:
        trials = full_trials() if options.full else short_trials()
        facts["results"], page = measure_heads(workspace, trials, quiet=silent)
        facts |= {"report": str(page), "warnings": warnings(facts["results"])}
        facts["gains"] = gains(facts["results"])
    facts["searches"] = search_demo(workspace)
    facts["seconds"] = time.perf_counter() - start
    if as_json:
        print_json(facts)
    else:
        if facts["results"]:
            print_results(facts["results"], facts["warnings"])
            print_gains(facts["gains"])
            say()
            say(f"report     {near(Path(facts['report']))}")
        print_searches(facts["searches"])
        folder = shlex.quote(near(workspace.root))
        say(f"workspace  {folder}  (try: cd {folder} && vtr simulate)")
        say(f"the page   vtr serve {folder}")
        note(f"done in {human_seconds(facts['seconds'])}")
    if facts["extract"]["failed"] or facts["extract"]["partial"]:
        raise typer.Exit(SOME_FAILED)


def _print_store(facts: Mapping[str, Any], *, num_frames: int) -> None:
    world, report = facts["world"], facts["extract"]
    splits, groups = (
        ", ".join(f"{name} {count}" for name, count in world[by].items())
        for by in ("clips_by_split", "clips_by_group")
    )
    made = f"{world['num_rendered']} rendered now" if world["num_rendered"] else "found there"
    say(
        f"world      {counted(world['num_videos'], 'clip')} ({made}), "
        f"{counted(world['num_captions'], 'caption')}, "
        f"{human_bytes(world['num_bytes'])}: {splits}; {groups}"
    )
    counts = f"{report['ok']} ok + {report['partial']} partial + {report['failed']} failed"
    frames = f"{counted(report['frames_now'], 'frame')} embedded now"
    seconds = human_seconds(report["seconds"])
    say(f"features   {counted(report['inputs'], 'video')} = {counts}; {frames}, in {seconds}")
    say()
    say(
        f"Which samplers see the brief events? ({counted(num_frames, 'frame')} of each test "
        "clip, chosen from all of them; share with 95 % interval)"
    )
    known = facts["uniform_sees_by_construction"]
    for one in facts["sees_brief_events"]:
        aside = f"   {100 * known:.1f} % by construction" if one["sampler"] == "uniform" else ""
        say(
            f"  {one['sampler']:<20}{100 * one['seen'] / one['events']:5.1f} %  "
            f"[{100 * one['low']:4.1f}, {100 * one['high']:5.1f}]  "
            f"{one['seen']:>2} of {one['events']}{aside}"
        )

"""`vtr serve`: the page over a folder of videos, or over a workspace with its runs and results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vtr.datasets.files import require_folder
from vtr.errors import ConfigError, VtrError
from vtr.extras import require_extra
from vtr.remote import OF_URL, as_path, require_local
from vtr.verbs.serve import Options
from vtr.workspace import FILE_NAME, Workspace, need_workspace, read_workspace

if TYPE_CHECKING:
    from vtr.searching.library import Library


@dataclass(frozen=True)
class Place:
    """What is served."""

    videos: Path  # The folder that all videos lie in
    title: str  # Its name on the page
    workspace: Workspace | None  # Whose store, runs and results these are; None for a plain folder


def serve(
    folder: str | Path | None = None,
    options: Options | None = None,
    *,
    started: Callable[[str], Any] = lambda address: None,
) -> bool:
    """Serves the page of a folder of videos, or of a workspace, until it is interrupted.

    `started` is called with its address when it can be opened.

    Returns:
        Whether everything has ended; a thread that stands still is not waited for.

    Raises:
        ConfigError: No such folder, no workspace here, an address that cannot be had, or the extra
            `serve` is missing.
    """
    options = options or Options()
    require_extra("serve", ["starlette", "uvicorn"], "vtr serve")
    place = find_place(None if folder is None else Path(folder))
    from vtr.serve.server import bind, run

    bound = bind(options.host, options.port)  # first: it may be refused
    from vtr.serve.app import create_app
    from vtr.serve.catalog import store_signature
    from vtr.serve.librarian import Librarian
    from vtr.serve.security import Doors

    port = bound.getsockname()[1]
    doors = Doors.of(options.host, port)
    store = place.workspace.features if place.workspace else None
    librarian = Librarian(
        partial(open_library, place, options),
        place.videos,
        look=None if store is None else partial(store_signature, store),
        follow_links=options.follow_links,
    )
    results = None if place.workspace is None else WorkspaceResults(place.workspace)
    app = create_app(librarian, doors, title=place.title, results=results)
    with bound:
        run(app, bound, started=lambda: started(_address(options.host, port, doors.token)))
    return not librarian.is_at_work


def find_place(folder: Path | None) -> Place:
    """Returns what a folder is: a workspace, or videos."""
    if folder is None:
        workspace = need_workspace("Name the folder of the videos: vtr serve FOLDER")
    else:
        folder = as_path(str(folder))
        if not folder.is_dir():
            require_local(folder, verb="serve", instead=OF_URL)
            what = "is no folder" if folder.exists() else "does not exist"
            raise ConfigError(f"{folder} {what}; name the folder of the videos: vtr serve FOLDER")
        file = require_folder(folder, what="the folder of videos") / FILE_NAME
        if not file.is_file():
            return Place(folder.absolute(), folder.resolve().name or str(folder), None)
        workspace = read_workspace(file)
    return Place(workspace.require_videos(), workspace.root.resolve().name, workspace)


def open_library(place: Place, options: Options) -> Library:
    """Opens what is served as a library; new videos of a plain folder are embedded first."""
    from vtr.arithmetic import prepare_arithmetic

    prepare_arithmetic()
    from vtr.api import search
    from vtr.verbs.search import Options as SearchOptions

    same = {name: getattr(options, name) for name in ("model", "index", "device", "workers")}
    return search.open_library(place.videos, place.workspace, SearchOptions.of(**same))


class WorkspaceResults:
    """The runs and results of a workspace for the page; read anew each time they are asked for."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def documents(self) -> list[dict[str, Any]]:
        """Returns one JSON document per result, and one per run that has none."""
        from vtr.train.run import list_runs

        documents = [_document(key, file) for key, file in self._files().items()]
        measured = {document.pop("run", "") for document in documents}
        for run in list_runs(self._workspace.runs):
            if run.name not in measured:
                note = f"not evaluated yet: vtr eval --run {run}"
                documents.append({"key": "", "title": run.name, "caveats": [note]})
        return documents

    def report(self, key: str) -> bytes | None:
        """Returns the report of one result, or of all; None where there is no such one."""
        from vtr.api.report import report_html
        from vtr.evaluate.reporting.results import load_result

        files = self._files()
        chosen = list(files.values()) if key == "all" else [f for k, f in files.items() if k == key]
        return report_html([load_result(file) for file in chosen]) if chosen else None

    def _files(self) -> dict[str, Path]:
        from vtr.api.report import result_files
        from vtr.serve.catalog import key_of

        return {key_of(str(file)): file for file in result_files(self._workspace)}


def _document(key: str, file: Path) -> dict[str, Any]:
    """Returns what the page shows of a result; of a damaged one why it cannot be read."""
    from vtr.api.report import caveats
    from vtr.evaluate.reporting.results import load_result

    try:
        result = load_result(file)
        told = list(caveats(result))
    except VtrError as error:
        return {"key": "", "title": file.parent.name, "caveats": [str(error)]}
    return {
        "key": key,
        "run": Path(str(result.part("setup").get("run") or "")).name,
        "title": result.title,
        "protocol": result.protocol,
        "created": str(result.document.get("created") or "")[:16].replace("T", " "),
        "metrics": {
            name: {part: entry.get(part) for part in ("value", "low", "high", "n")}
            for name, entry in result.metrics.items()
        },
        "caveats": told,
    }


def _address(host: str | None, port: int, token: str) -> str:
    """Returns what to type into a browser."""
    name = "127.0.0.1" if host is None else host
    name = {"0.0.0.0": _own_address(), "::": _own_address()}.get(name, name)
    name = f"[{name}]" if ":" in name else name
    return f"http://{name}:{port}/" + (f"?token={token}" if token else "")


def _own_address() -> str:
    """Returns the address by which others of the network reach this machine, as far as it knows."""
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as trial:
        try:
            trial.connect(("192.0.2.1", 9))  # nothing is sent: it only chooses the way out
            return str(trial.getsockname()[0])
        except OSError:
            return "127.0.0.1"

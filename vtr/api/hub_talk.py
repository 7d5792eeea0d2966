"""What goes wrong with the Hugging Face hub, told in one line and without the token."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from vtr.clip.hub import transport_error
from vtr.errors import HubError, HubOfflineError, VtrError
from vtr.foreign import shown

_READ_SECONDS = 120.0  # without a byte


def get_token() -> str | None:
    """Returns the user's token, from HF_TOKEN or `hf auth login`."""
    from huggingface_hub import get_token as found

    token = found()
    if token is not None and not re.fullmatch(r"[\x21-\x7e]+", token):
        raise HubError(
            "the token in HF_TOKEN (or of hf auth login) has blanks or letters that no token has: "
            "set it again, without quotes"
        )
    return token


def require_token() -> None:
    """Refuses to begin what needs a token without one."""
    if get_token() is None:
        raise HubError(
            "pushing needs a token of the hub, and there is none: make one that may write at "
            "https://huggingface.co/settings/tokens, then `hf auth login` (or set HF_TOKEN)"
        )


def status_of(error: BaseException) -> int | None:
    """Returns the status that a server refused with; None of other errors."""
    response = getattr(error, "response", None) if _is_http(error) else None
    return None if response is None else int(response.status_code)


def _is_http(error: BaseException) -> bool:
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(error, HfHubHTTPError)


@contextlib.contextmanager
def talking(doing: str, *, hub: str, name: str) -> Iterator[None]:
    """Says in one line what went wrong while `doing` something ("list me/run"); no token in it."""
    from huggingface_hub import get_session

    get_token()
    session = get_session()
    before, session.timeout = session.timeout, _READ_SECONDS
    try:
        yield
    except VtrError:
        raise
    except (
        transport_error(), ConnectionError, TimeoutError, RuntimeError, ValueError, KeyError,
        TypeError, AttributeError,
    ) as error:  # fmt: skip
        raise _told(error, doing, hub, name) from None
    except OSError as error:
        if error.errno is not None and not _is_http(error):
            raise  # of a file here
        raise _told(error, doing, hub, name) from None
    finally:
        session.timeout = before


def _told(error: BaseException, doing: str, hub: str, name: str) -> VtrError:
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__  # "Error while uploading ..."
    what = f"cannot {doing}"
    if isinstance(error, OfflineModeIsEnabled):
        return HubOfflineError(f"{what}: HF_HUB_OFFLINE is set. Unset it and try again")
    status, reason = status_of(error), _reason(error)
    if status is not None:
        return HubError(f"{what}: {hub} answers {status}{reason and f' ({reason})'}. "
                        f"{_advice(status, name)}")  # fmt: skip
    if isinstance(error, transport_error() | ConnectionError | TimeoutError):
        return HubOfflineError(
            f"{what}: {hub} cannot be reached ({reason or type(error).__name__}). What was "
            "transferred is kept: run the same command again when it can"
        )
    return HubError(f"{what}: {hub} does not answer as a hub does ({type(error).__name__}: "
                    f"{reason})")  # fmt: skip


def _reason(error: BaseException) -> str:
    """Returns the server's own words in one line, or ours, without the token."""
    text = str(getattr(error, "server_message", None) or error)
    token = get_token()
    if token:  # before anything is cut off, or the rest of it is known no more
        text = text.replace(token, "...")
    return shown(next((line for line in text.splitlines() if line.strip()), ""), 200)


def _advice(status: int, name: str) -> str:
    has_token = get_token() is not None
    if status == 401 and has_token:
        return "The token is not valid (any more): make another, then hf auth login or HF_TOKEN"
    if status == 401:
        return "Log in with `hf auth login`, or set HF_TOKEN"
    if status == 403:
        return (
            f"The token may not do this with {name}: it needs the right to write, and the "
            "owner must be you or an organisation of yours; of a gated one accept the terms"
        )
    if status == 404:
        return "It is not there (any more), or private and not yours: check the name"
    if status in (409, 412):
        return "Somebody else changes it just now: run the same command again"
    if status == 413:
        return "It is larger than the hub takes"
    if status == 429:
        return "Too many requests: wait some minutes, then run the same command again"
    if status >= 500:
        return (
            "The hub has trouble: run the same command again later; what it has is not sent again"
        )
    return "Check the name and the token"

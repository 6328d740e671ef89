"""Who is there -> what Gradio remembers of its sessions: conversations for an hour after a visitor has gone, and nothing that came with a call."""

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from gradio.state_holder import SessionState
from starlette.types import Scope

# A page, and a client, has one connection open there for as long as it is there.
HEARTBEAT = "/gradio_api/heartbeat/"


def keep_no_values() -> None:
    """Let no session keep what was last given to each function and what came of it: only links to conversations, which are closed, would read it."""
    SessionState._update_value_in_config = lambda *_: None  # type: ignore[method-assign]  # it has no other way


@contextmanager
def counted(scope: Scope, there: Counter[str]) -> Iterator[None]:
    """As long as a request lasts, its session is one of those that are `there`, if it is the one that says so."""
    path = str(scope["path"])
    if not path.startswith(HEARTBEAT):
        yield
        return
    name = path.removeprefix(HEARTBEAT)
    there[name] += 1
    try:
        yield
    finally:
        there[name] -= 1
        if not there[name]:
            del there[name]


def close_absent(sessions: Mapping[str, SessionState], there: Counter[str]) -> None:
    """Of sessions that are closed Gradio forgets what was said an hour ago. It does not close those that never were there, as curl's, nor open those
    of visitors who were cut off and are back.
    """
    for name, session in list(sessions.items()):
        session.is_closed = name not in there

"""A call of a function of the page -> what Gradio makes of it, within limits of ours: its files, who listens, and what is said if it goes wrong."""

import datetime
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import gradio as gr
from gradio.state_holder import SessionState
from gradio.utils import get_upload_folder
from gradio_client.utils import async_traverse, is_http_url_like

from pipeline import InputError, PipelineError
from ui.doors import REFUSED_WITH, refusal
from ui.download import download, in_time
from ui.sentences import FAULT

# An answer has a place with the engine, which others wait for.
PATIENCE_SECONDS = 60.0


class Page(gr.Blocks):
    """Every call comes by `process_api`, a streamed one for each of its items."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        #: States that are set by each call's request, because what Gradio keeps of a session it may lose.
        self.by_request: dict[gr.State, Callable[[gr.Request], Any]] = {}
        self._unheard: WeakKeyDictionary[AsyncIterator[Any], tuple[float, int]] = WeakKeyDictionary()  # since when, and how many wait

    async def process_api(  # type: ignore[override]  # whatever calls it names its arguments
        self,
        block_fn: Any,
        inputs: list[Any],
        *,
        state: SessionState | None = None,
        request: gr.Request | None = None,
        iterator: AsyncIterator[Any] | None = None,
        session_hash: str | None = None,
        event_data: gr.EventData | None = None,
        **more: Any,
    ) -> dict[str, Any]:
        """What Gradio's own does and returns, but public files are fetched before it would fetch them whole into memory, of what was clicked only
        its place is believed, an answer that nobody listens to is given up, and an error is never printed, because it may quote what people wrote.

        Raises:
            gr.Error: one plain sentence.
        """
        try:
            if iterator is None:
                inputs = await self._admitted(inputs, may_fetch=block_fn.api_visibility == "public")
                self._remind(block_fn.inputs, state, request)
            event = _place_alone(event_data)
            output = await super().process_api(
                block_fn, inputs, state=state, request=request, iterator=iterator, session_hash=session_hash, event_data=event, **more
            )
            if iterator is not None and self._unheard_seconds(iterator, session_hash) > PATIENCE_SECONDS:
                raise PipelineError(f"This answer was given up: for {PATIENCE_SECONDS:.0f} s nobody listened to it.")
            return output
        except gr.Error as error:
            error.print_exception = False
            _note(request, 500 if error.message == FAULT else 400)
            raise
        except Exception as error:
            status, sentence = refusal(error)
            _note(request, status)
            raise gr.Error(sentence, print_exception=False) from None

    def _remind(self, inputs: list[Any], session: SessionState | None, request: gr.Request | None) -> None:
        """A session whose heartbeat broke off, as it does with any network and for good, is forgotten an hour after its last call, and not after the
        last time that something in it changed.
        """
        if session is None or request is None:
            return
        now = datetime.datetime.now()
        session._state_ttl = {key: (seconds, now) for key, (seconds, _) in session._state_ttl.items()}
        for state in self.by_request.keys() & set(inputs):
            session[state._id] = self.by_request[state](request)

    async def _admitted(self, inputs: list[Any], may_fetch: bool) -> list[Any]:
        """With public files fetched, which only the endpoints that are offered may have done, many at once, and without components.

        Raises:
            InputError: there is something that nobody who uses the page sends, or its files cannot be had within the limits.
        """
        # Gradio would build any component of its own from what is said here, and open files and addresses that nobody has looked at.
        if _holds_component(inputs):
            raise InputError("A message may hold texts and files only.")
        async with in_time() as allowed:

            async def fetched(item: dict[str, Any]) -> dict[str, Any]:
                if not may_fetch:
                    raise InputError("Files cannot be named by URL here.")
                inside = await async_traverse({**item, "path": None}, fetched, _is_public)
                return {**inside, "path": str(await download(item["path"], Path(get_upload_folder()), allowed))}

            return list(await async_traverse(inputs, fetched, _is_public))

    def _unheard_seconds(self, answer: AsyncIterator[Any], session_hash: str | None) -> float:
        """How long nobody has taken any item of an answer. Each adds to those that wait: where they have not become more, somebody listens."""
        now, waiting = time.monotonic(), self._queue.pending_messages_per_session.get(session_hash)
        size = waiting.qsize() if waiting is not None else 0
        since, before = self._unheard.get(answer, (now, 0))
        self._unheard[answer] = now if size <= before else since, size
        return now - self._unheard[answer][0]


def _place_alone(event: gr.EventData | None) -> gr.EventData | None:
    """An event as the page tells of it, without the value: that may name any file, and this server knows itself what stands at a place."""
    if event is not None and event._data is not None:
        index = event._data.get("index") if isinstance(event._data, dict) else None
        event._data = {"index": index if isinstance(index, int) else None, "value": None}
    return event


def _note(request: gr.Request | None, status: int) -> None:
    """For the doors, before which Gradio forgets why a call was refused."""
    if request is not None and request.request is not None:
        setattr(request.request.state, REFUSED_WITH, status)


def _holds_component(value: object) -> bool:
    """Anywhere in what somebody sent."""
    if isinstance(value, dict):
        return "constructor_args" in value or any(map(_holds_component, value.values()))
    return isinstance(value, list | tuple) and any(map(_holds_component, value))


def _is_public(item: object) -> bool:
    """A file by the address where it can be had."""
    return isinstance(item, dict) and is_http_url_like(item.get("path"))

"""What Gradio hands over, a message and a history -> the conversation for the model; and the asides in a chat, which are no part of it."""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from pipeline import Image, Message, Text, Video
from pipeline.media import kind_by_content
from ui.words import Language

# Not by the system's table of types, which a slim container lacks. What a file really is, its content says.
VIDEO_SUFFIXES = frozenset({".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".ts", ".webm"})
#: What a message box takes; of what a table of types would know, or knows as something else, by their endings.
FILE_TYPES = ["image", "video", ".jfif", *sorted(VIDEO_SUFFIXES)]
# Kinds of asides. What was refused was at fault itself; what failed was not.
PROGRESS, REFUSED, FAILED, STOPPED, CUT, SEEN = "progress", "refused", "failed", "stopped", "cut", "seen"
NO_WORDS: dict[Language, str] = {"en": "*(The model had nothing to say.)*", "zh": "*（模型没有给出回答。）*"}

# Markdown takes an answer such as "139." for the beginning of a list, and shows it as none.
_LONE_NUMBER = re.compile(r"^([ \t]*\d+)([.)])(?=[ \t]*$)", re.M)
_SHOWN_NUMBER = re.compile(r"^([ \t]*\d+)\\([.)])(?=[ \t]*$)", re.M)


def normalise(message: str | Mapping[str, Any], history: Sequence[Mapping[str, Any]]) -> list[Message]:
    """What Gradio hands over, in any of its shapes -> the conversation, the new message last.

    The history may come from the browser, so whatever is not a user's or an assistant's turn in a known shape is left out. So is a user's turn
    that nothing followed or that was refused: what was wrong with it, say a broken file, would be wrong with every later message. One that failed
    stays, though it got no answer: the next message is about it.
    """
    turns = [entry for entry in history if entry.get("role") in ("user", "assistant")]
    messages = []
    for turn, following in zip_longest(turns, turns[1:]):
        parts, kind = _parts(turn.get("content")), aside_kind(turn)
        if turn["role"] == "user":
            if following is not None and following["role"] == "assistant" and aside_kind(following) != REFUSED:
                messages.append(Message("user", parts))
        elif kind is None:
            said = (Text(_SHOWN_NUMBER.sub(r"\1\2", part.text)) for part in parts if isinstance(part, Text) and part.text not in NO_WORDS.values())
            messages.append(Message("assistant", tuple(said)))
    if isinstance(message, str):
        message = {"text": message}
    files = [{"path": file} if isinstance(file, str) else file for file in message.get("files") or []]
    return [*messages, Message("user", _parts([*files, message.get("text")]))]


def shown(answer: str) -> str:
    """Words of the model as the page shows them; `normalise` takes them back."""
    return _LONE_NUMBER.sub(r"\1\\\2", answer)


def aside(title: str, kind: str) -> dict[str, Any]:
    """A line in the chat that is no part of the conversation."""
    return {"role": "assistant", "content": "", "metadata": {"title": title, "id": kind}}


def folded(line: dict[str, Any], path: str, description: str) -> list[dict[str, Any]]:
    """An aside that folds out to a picture. That is inside it as an aside of its own: Gradio's page offers to copy an answer only where all that
    stands beside it is text.
    """
    metadata = line["metadata"]
    inside = {"title": description, "id": metadata["id"], "parent_id": metadata["id"]}
    return [
        {**line, "metadata": {**metadata, "status": "done", "log": description}},
        {"role": "assistant", "content": {"path": path, "alt_text": description}, "metadata": inside},
    ]


def aside_kind(turn: Mapping[str, Any]) -> str | None:
    """Which kind of aside a turn of a history is; None for words of the conversation."""
    metadata = turn.get("metadata") or {}
    return str(metadata.get("id")) if metadata.get("title") else None


def _parts(content: object) -> tuple[Text | Image | Video, ...]:
    """The texts and files of a message's content, in order; items of any other kind are none of the model's business."""
    parts: list[Text | Image | Video] = []
    for item in content if isinstance(content, list) else [content]:
        match item:
            case {"type": "text", "text": str(text)} | str(text) if text.strip():
                parts.append(Text(text.strip()))
            case {"path": str(path)} | {"type": "file", "file": {"path": str(path)}}:
                parts.append((kind_by_content(path) or _kind_by_name(path))(path))
    return tuple(parts)


def _kind_by_name(path: str) -> type[Image | Video]:
    return Video if Path(path).suffix.lower() in VIDEO_SUFFIXES else Image

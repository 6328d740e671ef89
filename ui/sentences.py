"""How far the work is, or what went wrong -> one plain line for the person who waits."""

import logging
import traceback

from pipeline import PipelineError, Status
from ui.model import Degraded, Ready, Starting, State

logger = logging.getLogger("app")

FAULT = "Something went wrong here, through no fault of yours. Please try again."


def progress(status: Status | Starting) -> str:
    """How far the work before the next words is."""
    match status:
        case Starting("downloading", done, total):
            unit, size = ("GB", 1e9) if total >= 1e9 else ("MB", 1e6)
            return f"Starting: downloading {done / size:.1f} of {total / size:.1f} {unit}"
        case Starting("checking"):
            return "Starting: checking files"
        case Starting():
            return "Starting: loading the model"
        case Status("queued", _, ahead):
            return f"Waiting: {ahead} request{'s' if ahead > 1 else ''} ahead"
        case Status("vision", done, total):
            return f"Encoding pictures: {done} of {total} slices done"
        case Status(_, done, total):
            return f"Reading the prompt: {100 * done // total} %"


def state_line(state: State) -> str:
    """Whether the model is there, how far it is, or why it is not."""
    match state:
        case Starting():
            return progress(state)
        case Degraded(reason):
            return reason
        case Ready():
            return "Ready"


def sentence(error: Exception) -> str:
    """What the person is told; a fault of ours is logged by where it happened, without its message, which may quote what people wrote."""
    if isinstance(error, PipelineError):
        return str(error)
    logger.error("%s while answering\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return FAULT

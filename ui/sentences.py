"""How far the work is, or what went wrong -> one plain line for the person who waits."""

import logging
import traceback

from pipeline import PipelineError, Status

logger = logging.getLogger("app")

FAULT = "Something went wrong here, through no fault of yours. Please try again."


def progress(status: Status) -> str:
    """How far the work before the next words is."""
    match status.stage:
        case "queued":
            return f"Waiting: {status.total} request{'s' if status.total > 1 else ''} ahead"
        case "vision":
            return f"Encoding pictures: {status.done} of {status.total} slices done"
        case "prefill":
            return f"Reading the prompt: {100 * status.done // status.total} %"


def sentence(error: Exception) -> str:
    """What the person is told; a fault of ours is logged by where it happened, without its message, which may quote what people wrote."""
    if isinstance(error, PipelineError):
        return str(error)
    logger.error("%s while answering\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return FAULT

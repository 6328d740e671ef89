"""Everything that can go wrong, as a tree: what a person is told flows out, one plain sentence with the limit and the value.

PipelineError
|-- InputError         what was asked cannot be answered as it stands; the sentence says what to change
|   |-- ImageError     a picture cannot be read or is over a limit
|   |-- VideoError     a video cannot be read or is over a limit
|   `-- PromptTooLong  the conversation does not fit the model's context
|-- ArtifactError      a model folder or checkpoint is missing, damaged or not one of ours
|-- Overloaded         no room for one more request now; later there may be
`-- EngineDead         the model stopped working; the request was lost through no fault of its own

The message of an `InputError` is meant for the person who asked. The cause, where there is one, is chained (`raise ... from`) for the developer.
"""

__all__ = ["ArtifactError", "EngineDead", "ImageError", "InputError", "Overloaded", "PipelineError", "PromptTooLong", "VideoError"]


class PipelineError(Exception):
    """The root: catch this to catch everything the pipeline raises on purpose."""


class InputError(PipelineError):
    """What was asked cannot be answered as it stands."""


class ImageError(InputError):
    """A picture cannot be read or is over a limit."""


class VideoError(InputError):
    """A video cannot be read or is over a limit."""


class PromptTooLong(InputError):
    """The conversation does not fit: `tokens` were needed, `limit` are allowed."""

    def __init__(self, tokens: int, limit: int) -> None:
        super().__init__(
            f"The conversation takes {tokens:,} tokens and the limit is {limit:,}: send fewer or smaller pictures, or start a new conversation."
        )
        self.tokens = tokens
        self.limit = limit


class ArtifactError(PipelineError):
    """A model folder or checkpoint is missing, damaged or not one of ours."""


class Overloaded(PipelineError):
    """No room for one more request now."""


class EngineDead(PipelineError):
    """The model stopped working while it held the request."""

"""The parts of an upload -> files, by Gradio's own parser within limits of ours."""

from typing import Any

from gradio.route_utils import GradioMultiPartParser

from pipeline import MediaLimits


class Parts(GradioMultiPartParser):
    """Takes as many files as a message may have, because each has a descriptor for as long as the upload comes, and nothing else: what is no file is
    held in memory whole."""

    def __init__(self, *given: Any, **options: Any) -> None:
        super().__init__(*given, **{**options, "max_files": MediaLimits().max_message_files, "max_fields": 0})

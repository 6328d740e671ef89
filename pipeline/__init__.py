"""MiniCPM-V 2.6 on OpenVINO: a conversation with pictures and videos -> a streamed answer.

with Assistant(Path("model")) as assistant:
    question = Message.user("Compare", Image("a.png"), "with", Image("b.png"))
    print(asyncio.run(assistant.answer([question])).text)
"""
# ruff: noqa: E402

import sys

# Importing openvino reports its use to its makers where this package is found. The page promises that nothing is sent, so it is not to be found.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

from pipeline.artifacts import locate, obtain, verify
from pipeline.assistant import Answer, Assistant, Delta, Notice, Status, TextDelta
from pipeline.config import EngineConfig, GenerationConfig, MediaLimits
from pipeline.errors import ArtifactError, EngineDead, ImageError, InputError, Overloaded, PipelineError, PromptTooLong, VideoError
from pipeline.message import Image, Message, Text, Video
from pipeline.processor import Options, Processor

__all__ = [
    "Answer",
    "ArtifactError",
    "Assistant",
    "Delta",
    "EngineConfig",
    "EngineDead",
    "GenerationConfig",
    "Image",
    "ImageError",
    "InputError",
    "MediaLimits",
    "Message",
    "Notice",
    "Options",
    "Overloaded",
    "PipelineError",
    "Processor",
    "PromptTooLong",
    "Status",
    "Text",
    "TextDelta",
    "Video",
    "VideoError",
    "locate",
    "obtain",
    "verify",
]

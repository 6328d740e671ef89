"""MiniCPM-V 2.6 on OpenVINO: a conversation with pictures and videos -> a streamed answer."""

from pipeline.artifacts import locate
from pipeline.assistant import Answer, Assistant, Delta, Status, TextDelta
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
]

"""A model folder's JSON files, an operator's and a caller's wishes -> frozen dataclasses. Sizes in pixels unless named _patches or _tokens."""

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from pipeline.errors import ArtifactError, InputError

T = TypeVar("T")


@dataclass(frozen=True)
class TextConfig:
    """The language model: Qwen2 (the fields at the top level of config.json; defaults are those of its configuration class)."""

    hidden_size: int = 4096
    intermediate_size: int = 22016
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    vocab_size: int = 151936
    max_position_embeddings: int = 32768
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    hidden_act: str = "silu"
    tie_word_embeddings: bool = False

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class VisionConfig:
    """The image encoder: SigLIP with positions for any aspect ratio (defaults: SigLIP-400M at 980 pixels)."""

    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_hidden_layers: int = 27
    num_attention_heads: int = 16
    num_channels: int = 3
    image_size: int = 980
    patch_size: int = 14
    hidden_act: str = "gelu_pytorch_tanh"
    layer_norm_eps: float = 1e-6

    @property
    def position_side_patches(self) -> int:
        """Side of the square table of learned positions: 70 at 980 pixels."""
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class SliceConfig:
    """How a picture is cut and written into the prompt (preprocessor_config.json; defaults are those of its class)."""

    max_slice_nums: int = 9
    scale_resolution: int = 448
    patch_size: int = 14
    use_image_id: bool = False
    norm_mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    norm_std: tuple[float, ...] = (0.5, 0.5, 0.5)
    im_start: str = "<image>"
    im_end: str = "</image>"
    slice_start: str = "<slice>"
    slice_end: str = "</slice>"
    im_id_start: str = "<image_id>"
    im_id_end: str = "</image_id>"
    unk: str = "<unk>"


@dataclass(frozen=True)
class ModelConfig:
    """Everything about one checkpoint that its JSON files say, and nothing that is only usual."""

    text: TextConfig
    vision: VisionConfig
    slices: SliceConfig
    query_num: int = 64
    drop_vision_last_layer: bool = True
    vision_batch_size: int = 16

    @classmethod
    def from_folder(cls, folder: Path) -> Self:
        """Read config.json and preprocessor_config.json.

        Raises:
            ArtifactError: a file is missing or not JSON, the model is of another kind, or the two files contradict each other.
        """
        config = read_json(folder / "config.json")
        processor = read_json(folder / "preprocessor_config.json")
        if config.get("model_type") != "minicpmv":
            raise ArtifactError(f"{folder / 'config.json'} describes a model of type {config.get('model_type')!r}; only 'minicpmv' is supported.")
        vision = _select(VisionConfig, config.get("vision_config") or {}, "vision_config")
        slice_config = config.get("slice_config") or {"max_slice_nums": 1}
        if not isinstance(slice_config, Mapping):
            raise ArtifactError(f"slice_config is {slice_config!r}; it must be an object.")
        # What the official chat() asserts before each answer, checked once here.
        stated = {
            "query_num": (config.get("query_num", 64), processor.get("image_feature_size", 64)),
            "patch_size": (vision.patch_size, processor.get("patch_size", 14)),
            "max_slice_nums": (slice_config.get("max_slice_nums", 9), processor.get("max_slice_nums", 9)),
            "slice_mode": (True, processor.get("slice_mode", True)),
            "use_image_id": (config.get("use_image_id", True), processor.get("use_image_id", False)),
        }
        for name, (in_model, in_processor) in stated.items():
            if in_model != in_processor:
                raise ArtifactError(f"{folder}: config.json says {name} {in_model!r}, preprocessor_config.json says {in_processor!r}.")
        return cls(
            text=_select(TextConfig, config, "config.json"),
            vision=vision,
            slices=_select(SliceConfig, processor, "preprocessor_config.json"),
            **_known(cls, config, "config.json"),
        )


@dataclass(frozen=True)
class MediaLimits:
    """What files may be before they are decoded, what decoding may take, and how a video is sampled. Pixels and bytes are counts.

    Args:
        max_conversation_pixels: of all its pictures and frames together; 64 frames of the largest video fit.
        max_conversation_slices: the same after they were cut; the longest prompt has 128, or 384 if most are left out because there are many frames.
        max_decode_seconds: for all files of a conversation together.
        max_picture_seconds: to decode one of them, or to read the head of any file; other people's pictures wait behind it.
        max_decode_bytes: memory of the process that decodes a file. A pixel takes up to twelve, more in a WEBP, of which the largest are refused.
        max_slice_patches: a picture so long and thin that one slice takes more is refused.
    """

    max_file_bytes: int = 200_000_000
    max_image_pixels: int = 100_000_000
    max_video_pixels: int = 4096 * 2304
    max_video_frames: int = 100_000
    max_video_seconds: float = 600.0
    max_message_files: int = 50
    max_conversation_files: int = 100
    max_conversation_bytes: int = 500_000_000
    max_conversation_pixels: int = 640_000_000
    max_conversation_slices: int = 512
    max_decode_seconds: float = 120.0
    max_picture_seconds: float = 20.0
    max_decode_bytes: int = 1_500_000_000
    max_slice_patches: int = 2048
    frames_per_second: float = 1.0
    max_frames: int = 64


@dataclass(frozen=True)
class EngineConfig:
    """How the model is run.

    Args:
        threads: 0 leaves the choice to OpenVINO.
        max_prompt_tokens: a longer prompt is refused; 8192 is the official model's own bound.
        max_waiting: requests that may wait for their turn before one more is refused.
        backend: "paged" for many requests at once, "stateful" for one after the other; "auto" is paged on a CPU, the only device it runs on.
        max_picture_bytes: pixels of all who wait or are computed, before one more with pictures is refused; the longest prompt has 80 to 150 million.
        max_running: requests that are computed together.
        prefill_chunk_tokens: of prompts in one step; a cancelled prompt goes on for one such chunk at most.
        mixed_step_tokens: all that a step computes in which some decode while prompts of others are read, as long as these get half of it. The next
            token of those waits for it; and it is always the same number, because the first step of another size takes longer.
        kv_cache_bytes: memory for keys and values; None is an eighth of the machine's.
        prompt_lookup_tokens: guessed at each step from what the conversation holds already; 0 for none.
        max_seconds: of a request, waiting and the reading of its files included; afterwards it is cancelled.
    """

    backend: str = "auto"
    device: str = "AUTO"
    threads: int = 0
    max_prompt_tokens: int = 8192
    max_waiting: int = 32
    max_picture_bytes: int = 600_000_000
    max_running: int = 8
    prefill_chunk_tokens: int = 64
    mixed_step_tokens: int = 48
    kv_cache_bytes: int | None = None
    prompt_lookup_tokens: int = 0
    max_seconds: float = 3600.0
    vision_cache_bytes: int = 256 * 1024 * 1024

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "paged", "stateful"):
            raise InputError(f"The backend {self.backend!r} is unknown; there are 'auto', 'paged' and 'stateful'.")
        kind, _, index = self.device.partition(".")
        if kind == "NPU":
            raise InputError(
                f"DEVICE={self.device} cannot run this model: it needs fixed shapes, and pictures and prompts have any size. Use AUTO, CPU or GPU."
            )
        if self.device not in ("AUTO", "CPU", "GPU") and not (kind == "GPU" and index.isdigit()):
            raise InputError(f"DEVICE={self.device} is unknown; use AUTO, CPU, GPU or GPU.n.")
        for name in ("max_prompt_tokens", "max_waiting", "max_picture_bytes", "max_running", "prefill_chunk_tokens", "mixed_step_tokens"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.prompt_lookup_tokens < 0:
            raise InputError(f"prompt_lookup_tokens is {self.prompt_lookup_tokens}; it must be at least 0.")


@dataclass(frozen=True)
class GenerationConfig:
    """How an answer is made. The three constructors hold the official defaults of their mode; keywords override them.

    Args:
        do_sample: draw tokens (temperature, then top_k, then top_p) instead of taking the best.
        num_beams: beams kept when not sampling; 1 is greedy.
        repetition_penalty: over generated tokens only, as the official model does; 1 is none.
        seed: for sampling; None draws one.
        stop: the answer ends before any of these strings.
    """

    do_sample: bool = True
    temperature: float = 0.7
    top_k: int = 100
    top_p: float = 0.8
    num_beams: int = 1
    repetition_penalty: float = 1.05
    max_new_tokens: int = 2048
    min_new_tokens: int = 0
    seed: int | None = None
    stop: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        bounds: dict[str, tuple[float, float]] = {
            "temperature": (0.01, 10.0),
            "top_k": (0, 1_000_000),
            "top_p": (0.0, 1.0),
            "num_beams": (1, 16),
            "repetition_penalty": (0.1, 10.0),
            "max_new_tokens": (1, 32768),
            "min_new_tokens": (0, 32768),
        }
        for name, (low, high) in bounds.items():
            value, whole = getattr(self, name), isinstance(low, int)
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise InputError(f"{name} is {value!r}; it must be a {'whole ' if whole else ''}number.")
            if not low <= value <= high:
                raise InputError(f"{name} is {value}; it must be from {low} to {high}.")
        if self.seed is not None and not (isinstance(self.seed, int) and self.seed >= 0):
            raise InputError(f"seed is {self.seed!r}; it must be a whole number from 0.")
        if not isinstance(self.stop, tuple) or not all(isinstance(text, str) for text in self.stop):
            raise InputError("stop must be a tuple of strings.")
        if self.do_sample and self.num_beams > 1:
            raise InputError(f"Sampling takes one beam, not {self.num_beams}: choose sampling or beams.")
        if any(not text for text in self.stop):
            raise InputError("A stop string is empty.")

    @classmethod
    def sampling(cls, **overrides: Any) -> Self:
        return cls._made({}, overrides)

    @classmethod
    def greedy(cls, **overrides: Any) -> Self:
        return cls._made({"do_sample": False, "repetition_penalty": 1.0}, overrides)

    @classmethod
    def beams(cls, **overrides: Any) -> Self:
        return cls._made({"do_sample": False, "num_beams": 3, "repetition_penalty": 1.2}, overrides)

    @classmethod
    def _made(cls, defaults: Mapping[str, Any], overrides: Mapping[str, Any]) -> Self:
        unknown = overrides.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise InputError(f"Unknown generation option: {', '.join(sorted(unknown))}.")
        return cls(**{**defaults, **overrides})


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a model folder; an `ArtifactError` names the file that is missing or broken."""
    try:
        value = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as cause:
        raise ArtifactError(f"{path} is missing.") from cause
    except (OSError, ValueError) as cause:
        raise ArtifactError(f"{path} cannot be read as JSON: {cause}.") from cause
    if not isinstance(value, dict):
        raise ArtifactError(f"{path} holds no JSON object.")
    return value


def _select(cls: type[T], values: object, name: str) -> T:
    """A dataclass filled from one object of a file, whose `name` an error says."""
    if not isinstance(values, Mapping):
        raise ArtifactError(f"{name} is {values!r}; it must be an object.")
    return cls(**_known(cls, values, name))


def _known(cls: type, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Of an object's keys those that are fields with a default; the files hold much that is none of our business.

    Each value must be of its default's type, and sizes and counts at least 1.
    """
    known = {}
    for field in dataclasses.fields(cls):
        if field.default is dataclasses.MISSING or field.name not in values:
            continue
        value: Any = values[field.name]
        value = tuple(value) if isinstance(value, list) else value
        kind = type(field.default)
        fits = isinstance(value, int | float) and not isinstance(value, bool) if kind is float else type(value) is kind
        if not fits or (kind is int and value < 1):
            raise ArtifactError(f"{name}: {field.name} is {value!r}, which it cannot be.")
        known[field.name] = value
    return known

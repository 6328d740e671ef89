"""What the controls of the page say -> a `GenerationConfig`, and the `Options` that may be chosen from, the most detailed first."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from pipeline import GenerationConfig, InputError, Options

MODES = {"sampling": GenerationConfig.sampling, "greedy": GenerationConfig.greedy, "beams": GenerationConfig.beams}
DETAILS = ("auto", "fast", "balanced", "full")
#: Of a video; 0 leaves the number to the detail and the time it takes.
FRAMES = (0, 8, 16, 32, 64)
#: Of tokens; the official model's own limit is half of it.
LONGEST_ANSWER = 4096

# Overview only; up to 4 slices, where a page of text begins to be readable; up to the model's own 9.
_PICTURE_SLICES = {"fast": 1, "balanced": 4, "full": None}
# Detail, frames and whether each frame may be cut, too: what "auto" tries one after the other. Frames are given up before the cutting of pictures
# is, because half of them still tell what happens, while letters that are too small for the overview are lost.
_RUNGS = (
    ("full", 64, True),
    ("full", 64, False),
    ("full", 32, False),
    ("balanced", 32, False),
    ("balanced", 16, False),
    ("fast", 16, False),
    ("fast", 8, False),
)
# What people call each, and its bounds; whole numbers where the bounds are.
_BOUNDS: dict[str, tuple[str, float, float]] = {
    "temperature": ("The temperature", 0.01, 2.0),
    "top_p": ("Top-p", 0.01, 1.0),
    "top_k": ("Top-k", 0, 1000),
    "num_beams": ("The number of beams", 1, 8),
    "repetition_penalty": ("The repetition penalty", 0.5, 2.0),
    "max_new_tokens": ("The length of the answer", 1, LONGEST_ANSWER),
    "seed": ("The seed", 1, 2**31 - 1),
}
_ZERO_IS_NONE = ("repetition_penalty", "seed")
# What each mode makes use of, beside what all do.
_USED = {"sampling": ("temperature", "top_p", "top_k", "seed"), "greedy": (), "beams": ("num_beams",)}
_BY_ALL = ("repetition_penalty", "max_new_tokens")


@dataclass(frozen=True)
class Settings:
    """How one request is to be answered; `candidates` are the ways of showing its pictures that the person left open, the most detailed first."""

    generation: GenerationConfig
    candidates: tuple[Options, ...]


def settings(*, mode: str = "sampling", detail: str = "auto", frames: int = 0, system_prompt: str | None = None, **wishes: float | None) -> Settings:
    """Read the controls.

    Args:
        wishes: `temperature`, `top_p`, `top_k`, `num_beams`, `repetition_penalty`, `max_new_tokens`, `seed`. None is the official default of the
            mode, and so is 0 of the penalty and the seed, because a number field cannot be empty. What the mode makes no use of is checked and left
            out.

    Raises:
        InputError: one plain sentence with the value and the bounds.
    """
    for name, value, known in (("mode", mode, tuple(MODES)), ("detail", detail, DETAILS), ("number of frames", frames, FRAMES)):
        if value not in known:
            raise InputError(f"The {name} is {value!r}; it must be one of {', '.join(map(str, known))}.")
    if not isinstance(system_prompt, str | None):
        raise InputError("The system prompt must be a text.")
    given = {name: _checked(name, value) for name, value in wishes.items() if value is not None and (value != 0 or name not in _ZERO_IS_NONE)}
    generation = MODES[mode](**{name: value for name, value in given.items() if name in (*_USED[mode], *_BY_ALL)})
    return Settings(generation, tuple(dataclasses.replace(way, system_prompt=(system_prompt or "").strip() or None) for way in _ways(detail, frames)))


def _checked(name: str, value: float) -> Any:
    called, low, high = _BOUNDS[name]
    whole = isinstance(low, int)
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high or (whole and value != int(value)):
        raise InputError(f"{called} is {value!r}; it must be a {'whole ' if whole else ''}number from {low:,} to {high:,}.")
    return int(value) if whole else float(value)


def _ways(detail: str, frames: int) -> list[Options]:
    """Each way of showing pictures that these two leave open, once."""
    chosen = {}
    for rung_detail, rung_frames, may_cut in _RUNGS:
        picked = rung_detail if detail == "auto" else detail
        cut_frames = may_cut if detail == "auto" else detail == "full"
        chosen[picked, frames or rung_frames, cut_frames] = Options(
            max_slice_nums=_PICTURE_SLICES[picked], max_frame_slice_nums=None if cut_frames else 1, max_frames=frames or rung_frames
        )
    return list(chosen.values())

"""A size in pixels and a colour -> a background or, for what is not a drawn scene, a whole photo-like picture, RGB."""

from typing import TypeAlias

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from demo.chance import between, pick

Colour: TypeAlias = tuple[int, int, int]
Size: TypeAlias = tuple[int, int]

BACKGROUNDS = ("plain", "gradient", "clouds", "grain", "stripes", "checks")
PHOTOGRAPHS = ("noise", "clouds", "stripes", "landscape", "leaves")


def background(size: Size, colour: Colour, texture: str, strength: float, random: Generator) -> Image.Image:
    """A quiet background (width, height): no channel is further than `strength` from `colour`."""
    if texture == "plain":
        return Image.new("RGB", size, colour)
    width, height = size
    if texture == "gradient":
        return _enlarged(colour + strength * _noise(random, 2, 2), size)
    if texture == "clouds":
        return _enlarged(colour + 0.8 * strength * _noise(random, int(between(random, 4, 12)), int(between(random, 4, 12))), size)
    if texture == "grain":
        return _enlarged(colour + strength * _noise(random, height // 2, width // 2, grey=True), size)
    period = between(random, 0.06, 0.25) * (width * height) ** 0.5
    across = np.sin(np.arange(width) * (6.2832 / period))
    down = np.sin(np.arange(height) * (6.2832 / period))
    wave = np.sign(across)[None, :] * np.sign(down)[:, None]
    if texture == "stripes":
        wave = np.broadcast_to(across[None, :] if random.random() < 0.5 else down[:, None], (height, width))
    return _levels(np.asarray(colour) + 0.6 * strength * wave[..., None])


def photograph(size: Size, random: Generator) -> Image.Image:
    """What somebody may show who does not draw scenes: noise, or a texture as loud and as irregular as a photograph."""
    kind = pick(random, PHOTOGRAPHS)
    width, height = size
    if kind == "noise":
        grain = pick(random, (1, 1, 2, 3, 5))
        noise = random.integers(0, 256, (height // grain, width // grain, 1 if random.random() < 0.4 else 3), np.uint8)
        return Image.fromarray(np.repeat(noise, 3 // noise.shape[2], axis=2)).resize(size, Image.Resampling.NEAREST)
    if kind == "clouds":
        return _levels(_clouds(size, random, 90))
    if kind == "stripes":
        return _levels(_stripes(size, random))
    if kind == "landscape":
        return _levels(_landscape(size, random))
    return _leaves(size, random)


def _noise(random: Generator, rows: int, columns: int, *, grey: bool = False) -> NDArray[np.floating]:
    """Uniform in -1..1, (rows, columns, 3) or, the same in each channel, (rows, columns, 1)."""
    return np.asarray(random.random((max(rows, 2), max(columns, 2), 1 if grey else 3), np.float32) * 2 - 1)


def _levels(values: NDArray[np.floating]) -> Image.Image:
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))


def _enlarged(values: NDArray[np.floating], size: Size) -> Image.Image:
    return _levels(values).resize(size, Image.Resampling.BILINEAR)


def _clouds(size: Size, random: Generator, loudness: float) -> NDArray[np.floating]:
    """Octaves of coloured noise around a colour, (height, width, 3)."""
    total = np.full((size[1], size[0], 3), between(random, 80, 170), np.float32) + 40 * _noise(random, 2, 2)[0, 0]
    for cells in (3, 6, 13, 27, 55):
        layer = _enlarged(128 + 127 * _noise(random, cells, cells), size)
        total += (np.asarray(layer, np.float32) - 128) / 127 * loudness
        loudness *= 0.62
    return np.asarray(total)


def _stripes(size: Size, random: Generator) -> NDArray[np.floating]:
    """Bent waves between two colours, with grain."""
    width, height = size
    turn, period = between(random, 0, 3.14), between(random, 6, 26)
    across, down = np.meshgrid(np.arange(width), np.arange(height))
    phase = (across * np.cos(turn) + down * np.sin(turn)) * (6.2832 / period) + between(random, 0, 4) * np.sin(across / between(random, 9, 40))
    low, high = random.random(3) * 255, random.random(3) * 255
    share = (np.sin(phase) * 0.5 + 0.5)[..., None]
    return np.asarray(low + (high - low) * share + 25 * _noise(random, height, width, grey=True))


def _landscape(size: Size, random: Generator) -> NDArray[np.floating]:
    """Sky above two or three ridges, each rough."""
    width, height = size
    rows = np.linspace(0, 1, height)[:, None, None]
    sky = np.array([90, 140, 215]) + 60 * _noise(random, 2, 2)[0, 0]
    picture = sky + rows * (np.array([225, 215, 200]) - sky) + np.zeros((1, width, 1))
    for depth in range(int(between(random, 2, 4))):
        ridge = height * (0.35 + 0.18 * depth) + np.cumsum(random.standard_normal(width)) * height * 0.012
        ground = np.array([60, 110, 50]) / (1 + 0.4 * depth) + 45 * _noise(random, 2, 2)[0, 0]
        below = np.arange(height)[:, None] > ridge[None, :]
        picture[below] = ground
    return np.asarray(picture + (_clouds(size, random, 26) - 125) * 0.6)


def _leaves(size: Size, random: Generator) -> Image.Image:
    """Hundreds of scraps over each other, like foliage or a crowd."""
    patches = _clouds((max(size[0] // 3, 8), max(size[1] // 3, 8)), random, 60)
    height, width, _ = patches.shape
    for _ in range(120):
        left, top = int(random.random() * width), int(random.random() * height)
        across, down = int(between(random, 1, width / 8)), int(between(random, 1, height / 8))
        patches[top : top + down, left : left + across] += between(random, -90, 90)
    return _levels(patches).resize(size, Image.Resampling.BICUBIC)

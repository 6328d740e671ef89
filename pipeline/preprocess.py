"""RGB picture of any size -> overview and slices -> `pixel_values` (3, patch, patch * patches) float32. Sizes (width, height) in pixels.

Follows MiniCPM-V 2.6's image processor bit for bit: Python's own float64 arithmetic and its rounding half to even decide the sizes, so none of
it may be rewritten in float32 or with another rounding. Names are those of the official processor. Pillow and numpy only.
"""

import hashlib
import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image, Resampling

from pipeline.config import SliceConfig, VisionConfig

Size = tuple[int, int]
Grid = tuple[int, int]


@dataclass(frozen=True)
class Layout:
    """How one picture will be shown to the model; known from its size alone, before any pixel is touched."""

    size: Size
    overview_size: Size
    grid: Grid | None  # (columns, rows)
    refined_size: Size | None
    tgt_sizes: tuple[Size, ...]  # (height_patches, width_patches) of the overview, then of each slice row by row

    @property
    def num_slices(self) -> int:
        return len(self.tgt_sizes) - 1


@dataclass(frozen=True)
class Slice:
    """One picture as the image encoder takes it: the overview or one slice, 8-bit RGB (height, width, 3), sides multiples of the patch size."""

    pixels: NDArray[np.uint8]
    config: SliceConfig

    @property
    def tgt_size(self) -> Size:
        """(height_patches, width_patches)."""
        height, width, _ = self.pixels.shape
        return height // self.config.patch_size, width // self.config.patch_size

    @cached_property
    def digest(self) -> bytes:
        """Identifies these pixels and their shape: what a cache of anything computed from them is keyed by."""
        digest = hashlib.sha256(repr(self.pixels.shape).encode())
        digest.update(np.ascontiguousarray(self.pixels).data)
        return digest.digest()

    def know_digest(self) -> None:
        """Compute it now, in this thread."""
        _ = self.digest

    def pixel_values(self) -> NDArray[np.float32]:
        """(3, patch, patch * patches) float32: normalised, patches side by side in row-major order."""
        patch = self.config.patch_size
        mean, std = (np.asarray(values, np.float32) for values in (self.config.norm_mean, self.config.norm_std))
        values = (self.pixels.astype(np.float32) / np.float32(255) - mean) / std
        rows, columns = self.tgt_size
        patches = values.reshape(rows, patch, columns, patch, 3).transpose(4, 1, 0, 2, 3)  # (channel, y, row, column, x)
        return np.ascontiguousarray(patches).reshape(3, patch, rows * columns * patch)


def plan(size: Size, config: SliceConfig, max_slice_nums: int | None = None) -> Layout:
    """Choose the grid and every size for a picture of `size`; `max_slice_nums` overrides the model's own.

    Raises:
        ValueError: `max_slice_nums` or a side is below 1.
    """
    limit = config.max_slice_nums if max_slice_nums is None else max_slice_nums
    if limit < 1 or min(size) < 1:
        raise ValueError(f"max_slice_nums {limit} and both sides of {size} must be at least 1")
    patch = config.patch_size
    slice_patches: tuple[Size, ...] = ()
    grid = choose_grid(size, limit, config.scale_resolution)
    if grid is None:
        overview, refined = best_resize(size, config, upscale=True), None
    else:
        overview, refined = best_resize(size, config, upscale=False), refine(size, grid, config)
        slice_patches = ((refined[1] // grid[1] // patch, refined[0] // grid[0] // patch),) * (grid[0] * grid[1])
    return Layout(size, overview, grid, refined, ((overview[1] // patch, overview[0] // patch), *slice_patches))


def cut(image: Image, layout: Layout, config: SliceConfig) -> list[Slice]:
    """Resize an RGB image and cut it as planned: the overview first, then the slices row by row. Both come from the original."""
    slices = [Slice(np.asarray(image.resize(layout.overview_size, Resampling.BICUBIC)), config)]
    if layout.grid is not None and layout.refined_size is not None:
        refined = np.asarray(image.resize(layout.refined_size, Resampling.BICUBIC))
        columns, rows = layout.grid
        height, width = layout.refined_size[1] // rows, layout.refined_size[0] // columns
        slices += [
            Slice(refined[row * height : (row + 1) * height, column * width : (column + 1) * width], config)
            for row in range(rows)
            for column in range(columns)
        ]
    return slices


def choose_grid(size: Size, max_slice_nums: int, scale_resolution: int) -> Grid | None:
    """The grid (columns, rows) whose shape is nearest to the picture's, or None for a picture that is not cut."""
    width, height = size
    multiple = min(math.ceil(width * height / (scale_resolution * scale_resolution)), max_slice_nums)
    if multiple <= 1:
        return None
    log_ratio = math.log(width / height)
    best, smallest = (1, 1), math.inf
    for count in (multiple - 1, multiple, multiple + 1):
        if count == 1 or count > max_slice_nums:
            continue
        for columns in (divisor for divisor in range(1, count + 1) if count % divisor == 0):
            # Columns over rows first, then the logarithm: ties between a grid and its transpose are decided by the last bit.
            error = abs(log_ratio - math.log(columns / (count // columns)))
            if error < smallest:
                best, smallest = (columns, count // columns), error
    return best


def best_resize(size: tuple[float, float], config: SliceConfig, *, upscale: bool) -> Size:
    """Sides near `size` whose area is about scale_resolution squared and which patches divide; small pictures grow only with `upscale`."""
    width, height = size
    if width * height > config.scale_resolution * config.scale_resolution or upscale:
        ratio = width / height
        height = int(config.scale_resolution / math.sqrt(ratio))
        width = int(height * ratio)
    return divisible(width, config.patch_size), divisible(height, config.patch_size)


def refine(size: Size, grid: Grid, config: SliceConfig) -> Size:
    """Size of the enlarged picture that the grid cuts into slices."""
    columns, rows = grid
    width, height = divisible(size[0], columns), divisible(size[1], rows)
    slice_width, slice_height = best_resize((width / columns, height / rows), config, upscale=True)
    return slice_width * columns, slice_height * rows


def divisible(length: float, unit: int) -> int:
    """The multiple of `unit` nearest to `length` (half to even), at least one unit."""
    return max(round(length / unit) * unit, unit)


def vision_position_ids(tgt_size: Size, config: VisionConfig) -> NDArray[np.int64]:
    """Rows (height_patches * width_patches,) of the table of learned positions for one picture."""
    rows, columns = (_position_bucket(patches, config.position_side_patches) for patches in tgt_size)
    return (rows[:, None] * config.position_side_patches + columns[None, :]).reshape(-1)


@lru_cache(maxsize=256)
def _position_bucket(patches: int, side: int) -> NDArray[np.int64]:
    """Which of `side` equal parts of the unit interval each of `patches` fractions i/patches falls into.

    Not floor(side * i / patches): fractions and boundaries are float32 values of torch.arange, whose rounding moves some of them by one part.
    """
    boundaries = _torch_arange(1 / side, 1.0, 1 / side)
    fractions = _torch_arange(0.0, 1 - 1e-6, float(np.float32(1) / np.float32(patches)))
    bucket = np.searchsorted(boundaries, fractions, side="right")
    bucket.flags.writeable = False  # it is shared by every picture of this size
    return bucket


def _torch_arange(start: float, stop: float, step: float) -> NDArray[np.float32]:
    """torch.arange in float32, to the bit: groups of eight count up from their rounded first element, the last elements are rounded alone."""
    length = math.ceil((stop - start) / step)
    index = np.arange(length)
    grouped = length // 16 * 16
    group = index[:grouped] // 8 * 8
    base = (start + step * group).astype(np.float32).astype(np.float64)
    head = (base + (index[:grouped] - group) * step).astype(np.float32)
    tail = (start + step * index[grouped:]).astype(np.float32)
    return np.concatenate([head, tail])

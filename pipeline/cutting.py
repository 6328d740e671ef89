"""A decoded picture -> its overview and slices, 8-bit RGB (height, width, 3): all that the model can be shown of it. The picture itself is let go."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

from pipeline.config import SliceConfig
from pipeline.errors import ImageError, VideoError
from pipeline.media import Picture
from pipeline.preprocess import Layout, Size, Slice, cut, plan

# The official demo's convention for video: with more frames than this in the conversation none of them is cut, with fewer each may be cut in two.
MANY_FRAMES = 16


@dataclass(frozen=True)
class CutPicture:
    """The overview of a picture of that size, then its slices row by row. `time` and `others` are those of `Picture`.

    A frame is cut while it is not known whether there will be many; if there are, it is shown without its slices, because its overview is the same.
    """

    size: Size
    slices: tuple[Slice, ...]
    time: float | None = None
    others: bool = False


#: A file's pictures, and the seconds that they took, which do not count its waiting for others' files.
Loaded: TypeAlias = tuple[list[CutPicture], float]


@dataclass(frozen=True)
class Cutting:
    """How a conversation's pictures and frames are cut.

    Args:
        picture_slices: of each picture at most.
        frame_slices: of each frame at most; None leaves it to how many frames there are in all.
        max_slice_patches: a picture so long and thin that one slice takes more is refused.
    """

    config: SliceConfig
    picture_slices: int
    frame_slices: int | None
    max_slice_patches: int

    def layout(self, size: Size, name: str, num_frames: int | None = None) -> Layout:
        """The layout of a picture of that size, or of a frame where there are so many in the conversation. `name` is what the sentence of an error
        calls its file.

        Raises:
            ImageError, VideoError: it is too long and thin.
        """
        of_frames = self.frame_slices or (1 if num_frames is not None and num_frames > MANY_FRAMES else 2)
        layout = plan(size, self.config, self.picture_slices if num_frames is None else of_frames)
        if (patches := max(height * width for height, width in layout.tgt_sizes)) > self.max_slice_patches:
            error, each = (ImageError, "") if num_frames is None else (VideoError, " a frame")
            raise error(
                f"{name} has {size[0]} x {size[1]} pixels{each}, too long and thin: it takes {patches:,} patches, "
                f"and the limit is {self.max_slice_patches:,}."
            )
        return layout

    def picture(self, picture: Picture, name: str = "The picture") -> CutPicture:
        """Cut a still picture; raises as `layout` does."""
        return self._cut(picture, self.layout(picture.image.size, name))

    def frames(self, frames: Iterable[Picture], name: str = "The video") -> Iterator[CutPicture]:
        """Cut a video's frames one after the other as they come; raises as `layout` does."""
        # How many there will be is not known yet. Those of other videos do not count: turns may be left out of a conversation that does not fit.
        for num_frames, frame in enumerate(frames, start=1):
            yield self._cut(frame, self.layout(frame.image.size, name, num_frames))

    def _cut(self, picture: Picture, layout: Layout) -> CutPicture:
        return CutPicture(layout.size, tuple(cut(picture.image, layout, self.config)), picture.time, picture.others)

"""A conversation -> its plan (the prompt, the layout of every picture) -> its slices, 8-bit RGB (height, width, 3), in the order of their spans."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import MediaLimits, ModelConfig
from pipeline.errors import ImageError, InputError, PromptTooLong
from pipeline.media import Picture, load_image, load_video
from pipeline.message import Image, Message, Placeholder, Prompt, Text, build_prompt, check_turns
from pipeline.preprocess import Layout, Slice, cut, plan
from pipeline.tokenizer import Tokenizer

# No text has as many characters a token on average: what is longer is refused before the tokenizer spends seconds on it.
CHARACTERS_A_TOKEN = 100
# The official demo's convention for video: with more frames than this in the conversation none of them is cut, with fewer each may be cut in two.
MANY_FRAMES = 16


@dataclass(frozen=True)
class Options:
    """What one request may change of how its pictures are shown and how a conversation is fitted; None keeps the model's own way.

    Args:
        max_slice_nums: for every picture and frame (by default the model's own for pictures, 2 or 1 for frames).
        use_image_id: number every picture and frame (by default pictures are numbered and frames are not).
        drop_oldest: leave out the oldest turns, whole, of a conversation that does not fit, instead of refusing it.
    """

    system_prompt: str | None = None
    max_slice_nums: int | None = None
    use_image_id: bool | None = None
    drop_oldest: bool = False

    def __post_init__(self) -> None:
        if self.max_slice_nums is not None and self.max_slice_nums < 1:
            raise InputError(f"max_slice_nums is {self.max_slice_nums}; it must be at least 1.")


@dataclass(frozen=True)
class PlannedPicture:
    """A picture, where its overview and slices will come from, and its number in the prompt if it has one."""

    picture: Picture
    layout: Layout
    image_id: int | None


@dataclass(frozen=True)
class Plan:
    """What the model will be shown. `dropped_turns` messages were left out to make it fit."""

    prompt: Prompt
    pictures: tuple[PlannedPicture, ...]
    dropped_turns: int = 0


class Processor:
    """The model's way of turning a conversation into its inputs. It needs the folder's JSON files only, and no weights.

    Raises:
        ArtifactError: one of those files is missing or contradicts another.
    """

    def __init__(self, folder: Path, limits: MediaLimits | None = None) -> None:
        self.config = ModelConfig.from_folder(folder)
        self.tokenizer = Tokenizer(folder)
        self._limits = limits or MediaLimits()

    def plan(self, messages: Sequence[Message], options: Options | None = None, max_prompt_tokens: int | None = None) -> Plan:
        """Read every picture, choose its layout and write the prompt; no pixel is resized yet.

        Raises:
            InputError: the turns are not a conversation, or a file cannot be used.
            PromptTooLong: the prompt takes more than `max_prompt_tokens` (and `drop_oldest` is off, or the last turn alone is too long).
        """
        options = options or Options()
        check_turns(messages)
        if max_prompt_tokens is not None:
            _check_length(messages, options, CHARACTERS_A_TOKEN * max_prompt_tokens)
        media = self._load(messages)
        dropped = 0
        while True:
            kept = messages[dropped:]
            placed = self.place(media[sum(len(message.media) for message in messages[:dropped]) :], options)
            prompt = self.prompt(kept, placed, options.system_prompt)
            if max_prompt_tokens is None or len(prompt.input_ids) <= max_prompt_tokens:
                return Plan(prompt, tuple(item for items in placed for item in items), dropped)
            following = next((index for index in range(dropped + 1, len(messages)) if messages[index].role == "user"), None)
            if not options.drop_oldest or following is None:
                raise PromptTooLong(len(prompt.input_ids), max_prompt_tokens)
            dropped = following

    def prompt(self, messages: Sequence[Message], placed: Sequence[Sequence[PlannedPicture]], system_prompt: str | None = None) -> Prompt:
        """Write a conversation whose files are `placed`: a list of pictures for each picture and video."""
        placeholders = [[Placeholder(item.image_id, item.layout.grid) for item in items] for items in placed]
        return build_prompt(messages, placeholders, self.tokenizer, self.config, system_prompt)

    def slices(self, plan: Plan) -> list[Slice]:
        """Resize and cut every picture of a plan; one slice for each span of the prompt's `image_bound`."""
        return [piece for item in plan.pictures for piece in cut(item.picture.image, item.layout, self.config.slices)]

    def _load(self, messages: Sequence[Message]) -> list[list[Picture]]:
        """The pictures of each file of the conversation, counted as people count them in what an error says."""
        loaded: list[list[Picture]] = []
        images = videos = 0
        for item in (item for message in messages for item in message.media):
            if isinstance(item, Image):
                images += 1
                loaded.append([load_image(item, self._limits, f"Picture {images}")])
            else:
                videos += 1
                loaded.append(load_video(item, self._limits, f"Video {videos}"))
        return loaded

    def place(self, media: Sequence[Sequence[Picture]], options: Options) -> list[list[PlannedPicture]]:
        """Choose each picture's layout, and its number among the numbered ones of the whole conversation."""
        num_frames = sum(picture.time is not None for pictures in media for picture in pictures)
        frame_slices = 1 if num_frames > MANY_FRAMES else 2
        placed: list[list[PlannedPicture]] = []
        numbered = 0
        for pictures in media:
            placed.append([])
            for picture in pictures:
                is_frame = picture.time is not None
                max_slice_nums = options.max_slice_nums or (frame_slices if is_frame else None)
                use_image_id = options.use_image_id if options.use_image_id is not None else self.config.slices.use_image_id and not is_frame
                layout = plan(picture.image.size, self.config.slices, max_slice_nums)
                if (patches := max(height * width for height, width in layout.tgt_sizes)) > self._limits.max_slice_patches:
                    width, height = layout.size
                    limit = self._limits.max_slice_patches
                    raise ImageError(
                        f"A picture of {width} x {height} pixels is too long and thin: it takes {patches:,} patches, and the limit is {limit:,}."
                    )
                placed[-1].append(PlannedPicture(picture, layout, numbered if use_image_id else None))
                numbered += use_image_id
        return placed


def _check_length(messages: Sequence[Message], options: Options, limit: int) -> None:
    texts = [part.text for message in messages for part in message.content if isinstance(part, Text)]
    characters = sum(map(len, texts)) + len(options.system_prompt or "")
    if characters > limit:
        raise InputError(f"The conversation has {characters:,} characters; the limit is {limit:,}.")

"""Slices -> image_embeds, each (queries, hidden) float32: the image encoder, the resampler, and a cache by content of what they gave."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from itertools import groupby

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from pipeline.config import ModelConfig
from pipeline.preprocess import Size, Slice, vision_position_ids

Embeds = NDArray[np.float32]

# Two equal pictures at once are a fifth faster than one after the other; more gain nothing and answer a cancel later.
BATCH = 2


class VisionCache:
    """The most recently used embeds by the digest of their slice, together no larger than `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.num_bytes = 0
        self._embeds: OrderedDict[bytes, Embeds] = OrderedDict()

    def __len__(self) -> int:
        return len(self._embeds)

    def get(self, digest: bytes) -> Embeds | None:
        if digest in self._embeds:
            self._embeds.move_to_end(digest)
        return self._embeds.get(digest)

    def put(self, digest: bytes, embeds: Embeds) -> None:
        if digest in self._embeds or embeds.nbytes > self._max_bytes:
            return
        self._embeds[digest] = embeds
        self.num_bytes += embeds.nbytes
        while self.num_bytes > self._max_bytes:
            self.num_bytes -= self._embeds.popitem(last=False)[1].nbytes


class VisionEncoder:
    """SigLIP and the resampler, compiled. `encoded` counts the slices that went through them: what the cache gave is not among them."""

    def __init__(self, encoder: ov.CompiledModel, resampler: ov.CompiledModel, config: ModelConfig, cache_bytes: int) -> None:
        self._encoder = encoder.create_infer_request()
        self._resampler = resampler.create_infer_request()
        # Exporters differ in the type of the masks; the ports say which one it is.
        self._attention_type = encoder.input("patch_attention_mask").get_element_type().to_dtype()
        self._padding_type = resampler.input("key_padding_mask").get_element_type().to_dtype()
        self._config = config
        self._cache = VisionCache(cache_bytes)
        self.batch_size = min(BATCH, config.vision_batch_size)
        self.encoded = 0

    @property
    def cached_bytes(self) -> int:
        """Memory of the embeds that are kept."""
        return self._cache.num_bytes

    def encode(
        self, slices: Sequence[Slice], cancelled: threading.Event | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> list[Embeds] | None:
        """Embeds of each slice, in order; None as soon as `cancelled` is seen, which is looked at before every batch.

        Args:
            on_progress: told the slices done and the slices to do of those that have to be encoded, before each batch.
        """
        found = {piece.digest: embeds for piece in slices if (embeds := self.cached(piece)) is not None}
        missing = {piece.digest: piece for piece in slices if piece.digest not in found}
        done = 0
        for batch in _batches(list(missing.values()), self.batch_size):
            if cancelled is not None and cancelled.is_set():
                return None
            if on_progress is not None:
                on_progress(done, len(missing))
            found |= zip((piece.digest for piece in batch), self.encode_batch(batch), strict=True)
            done += len(batch)
        return [found[piece.digest] for piece in slices]

    def cached(self, piece: Slice) -> Embeds | None:
        return self._cache.get(piece.digest)

    def encode_batch(self, batch: Sequence[Slice]) -> list[Embeds]:
        """Slices of one size -> their embeds, which the cache takes too. Nothing is padded, so the masks are all-valid."""
        count, (height, width) = len(batch), batch[0].tgt_size
        position_ids = vision_position_ids((height, width), self._config.vision)
        features = self._encoder.infer(
            {
                "pixel_values": np.stack([piece.pixel_values() for piece in batch]),
                "patch_attention_mask": np.ones((count, 1, height * width), self._attention_type),
                "position_ids": np.broadcast_to(position_ids, (count, height * width)),
            }
        )["last_hidden_state"]
        table = sincos_table((height, width), self._config.text.hidden_size)
        embeds = self._resampler.infer(
            {
                "image_feature": features,
                "pos_embed": np.repeat(table[:, None, :], count, axis=1),
                "key_padding_mask": np.zeros((count, height * width), self._padding_type),
            }
        )["last_hidden_state"]
        self.encoded += count
        rows = [np.array(row, np.float32) for row in embeds]  # each on its own, so that the cache can let go of one
        for piece, row in zip(batch, rows, strict=True):
            self._cache.put(piece.digest, row)
        return rows


def sincos_table(tgt_size: Size, hidden_size: int) -> NDArray[np.float32]:
    """The resampler's positions, (height_patches * width_patches, hidden) float32: half the channels tell the column, half the row (spec 6)."""
    height, width = tgt_size
    omega = np.arange(hidden_size // 4, dtype=np.float32) / np.float32(hidden_size / 4)
    omega = np.float32(1) / np.float32(10000) ** omega
    rows, columns = (np.arange(side, dtype=np.float32)[:, None] * omega for side in (height, width))
    of_rows, of_columns = (np.concatenate([np.sin(angle), np.cos(angle)], axis=1) for angle in (rows, columns))
    table = np.empty((height, width, hidden_size), np.float32)
    table[..., : hidden_size // 2] = of_columns[None, :, :]
    table[..., hidden_size // 2 :] = of_rows[:, None, :]
    return table.reshape(height * width, hidden_size)


def _batches(slices: Sequence[Slice], size: int) -> list[list[Slice]]:
    """Groups of at most `size` slices whose width and height are the same."""
    groups = groupby(sorted(slices, key=lambda piece: piece.tgt_size), key=lambda piece: piece.tgt_size)
    return [group[start : start + size] for _, members in groups for group in [list(members)] for start in range(0, len(group), size)]

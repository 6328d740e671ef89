"""Text -> token ids that hold no control token, and token ids -> the bytes they stand for. Every id is looked up by its string."""

import json
from functools import cached_property
from pathlib import Path

from tokenizers import AddedToken
from tokenizers import Tokenizer as FastTokenizer

from pipeline.config import read_json
from pipeline.errors import ArtifactError


class Tokenizer:
    """The vocabulary of a model folder, read from its tokenizer.json.

    The file's *added tokens* are found in a text before byte-pair encoding starts. All of them that ordinary encoding would not yield for their own
    text (`<|im_start|>`, `<image>`, ...) are control tokens here: only `control_id` gives their ids and `encode` never does, so nothing that
    people type can become one. Those that it would yield (in this model "!", declared as the padding token) are plain text, split off as the official
    tokenizer does.

    Raises:
        ArtifactError: tokenizer.json is missing or not readable.
    """

    def __init__(self, folder: Path) -> None:
        description = read_json(folder / "tokenizer.json")
        try:
            added: dict[str, int] = {token["content"]: token["id"] for token in description["added_tokens"]}
            self._tokenizer = FastTokenizer.from_str(json.dumps({**description, "added_tokens": []}))
            plain = [token for token, token_id in added.items() if self.encode(token) == [token_id]]
            self._tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in plain])
        except Exception as cause:  # the library raises bare Exception for every fault of the file
            raise ArtifactError(f"{folder / 'tokenizer.json'} is not a tokenizer this version understands: {cause}.") from cause
        self.control_ids = {token: token_id for token, token_id in added.items() if token not in plain}
        self._control_tokens = {token_id: token for token, token_id in self.control_ids.items()}

    def encode(self, text: str) -> list[int]:
        """Ids of a piece of text, whatever it says, with no control token among them."""
        # As a batch of one: encoding a single text holds the interpreter's lock, for seconds where it is long, and nobody else's words would come.
        return list(self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0].ids)

    def control_id(self, token: str) -> int:
        """The id of one control token; an `ArtifactError` if the vocabulary has none by that name."""
        try:
            return self.control_ids[token]
        except KeyError as cause:
            raise ArtifactError(f"The tokenizer has no special token {token!r}.") from cause

    @property
    def terminators(self) -> tuple[int, ...]:
        """The ids that end an answer."""
        return self.control_id("<|im_end|>"), self.control_id("<|endoftext|>")

    def decode(self, ids: list[int]) -> str:
        """Text of whole sequences, control tokens spelled out, bytes that are no character replaced by U+FFFD."""
        return b"".join(map(self.token_bytes, ids)).decode("utf-8", errors="replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes a token stands for; empty for an id outside the vocabulary (the model's table may be larger)."""
        if token_id in self._control_tokens:
            return self._control_tokens[token_id].encode()
        token = self._tokenizer.id_to_token(token_id)
        if token is None:
            return b""
        return bytes(self._byte_of[character] for character in str(token))

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        """The byte-level alphabet of GPT-2: printable bytes stand for themselves, the others for the characters from U+0100 on, in order."""
        printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
        others = [byte for byte in range(256) if byte not in printable]
        return {chr(byte): byte for byte in printable} | {chr(256 + index): byte for index, byte in enumerate(others)}

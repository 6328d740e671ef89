"""The tokens of one possible answer, the blocks that hold their keys and values, and how many are computed; a `Group` of these is one request."""

from dataclasses import dataclass, field
from typing import TypeAlias

#: What identifies a position: its token, or for a picture's placeholder the digest of the slice and the place in it.
Key: TypeAlias = int | tuple[bytes, int]


@dataclass(eq=False)
class Sequence:
    """Position i is computed from `keys[i]`; its keys and values lie in block `block_table[i // block_size]`.

    Args:
        num_guesses: keys at the end that may turn out wrong.
    """

    keys: list[Key]
    block_table: list[int] = field(default_factory=list)
    num_computed_tokens: int = 0
    num_guesses: int = 0

    @property
    def num_uncomputed_tokens(self) -> int:
        return len(self.keys) - self.num_computed_tokens

    @property
    def decoding(self) -> bool:
        """Whether one more token, and the guesses after it, give the logits that are waited for."""
        return self.num_uncomputed_tokens == 1 + self.num_guesses

    def guess(self, tokens: list[int]) -> None:
        """What may come next, to be computed along with what does."""
        self.keys += tokens
        self.num_guesses = len(tokens)

    @property
    def guesses(self) -> list[int]:
        """Tokens: a picture's place is never guessed."""
        return [key for key in self.keys[len(self.keys) - self.num_guesses :] if isinstance(key, int)]

    def take_back(self) -> list[int]:
        """The guesses, no longer among the keys."""
        guesses = self.guesses
        del self.keys[len(self.keys) - self.num_guesses :]
        self.num_guesses = 0
        return guesses


@dataclass(eq=False)
class Group:
    """The sequences of one request: one, or as many as there are live beams. All of them are as long as each other.

    Args:
        ready: whether everything its prompt is computed from is there; pictures may still have to be encoded.
    """

    sequences: list[Sequence]
    ready: bool = True

    @property
    def decoding(self) -> bool:
        """Whether one more token for each sequence gives the logits that the request waits for."""
        return all(sequence.decoding for sequence in self.sequences)

    @property
    def next_to_prefill(self) -> Sequence:
        """Of a group that does not decode yet, the first sequence with more left than the one token that it computes together with the others."""
        return next(sequence for sequence in self.sequences if sequence.num_uncomputed_tokens > 1)

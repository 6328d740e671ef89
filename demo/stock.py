"""A split -> what it may show and say: pairs of colour and shape, words, numbers. Training never meets what is held out for the test."""

import zlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

from numpy.random import Generator

from demo.chance import pick
from demo.scenes import COLOURS, SHAPES

Split: TypeAlias = Literal["train", "test"]
Pair: TypeAlias = tuple[str, str]  # (colour, shape)

PAIRS: tuple[Pair, ...] = tuple((colour, shape) for colour in COLOURS for shape in SHAPES)
HELD_OUT_PAIRS: frozenset[Pair] = frozenset(
    {("red", "star"), ("orange", "square"), ("yellow", "cross"), ("green", "triangle"), ("blue", "diamond"), ("purple", "circle")}
)
_WORDS = (
    "AIR ANT APPLE ARM ART ASK BAG BALL BAND BANK BATH BEACH BEAR BED BEE BELL BIRD BLUE BOAT BOOK BOX BOY BREAD BUS BUSH CAKE CAP CAR CARD CAT "
    "CHAIR CITY CLOUD COAT COLD COOK CORN COW CUP DAY DEER DESK DISH DOG DOOR DRUM DUCK EAR EARTH EAST EGG EXIT EYE FACE FARM FIRE FISH FLAG "
    "FLY FOOD FOX FROG FRUIT GAME GATE GIFT GLASS GO GOAT GOLD GRASS HAND HAT HEART HELLO HILL HOME HORSE HOUSE ICE INK JAM JAZZ JOB JUICE JUMP "
    "KEY KING KITE LAKE LAMP LEAF LEMON LION MAP MILK MOON MOUSE MUSIC NEST NIGHT NO NORTH NOSE OPEN OWL PAPER PARK PEN PIANO PIG QUEEN QUIET "
    "RAIN RING RIVER ROAD ROBOT ROSE SALT SEA SHEEP SHIP SHOE SNOW SONG SOUP STOP SUN TAXI TEA TIGER TRAIN TREE UP VAN VIOLA WATER WAVE WIND "
    "WOLF WOOD YARN YES ZEBRA ZERO ZOO"
)
WORDS: tuple[str, ...] = tuple(_WORDS.split())
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def held_out_number(number: int) -> bool:
    """One in ten."""
    return zlib.crc32(b"number %d" % number) % 10 == 0


def held_out_word(word: str) -> bool:
    """One in five of WORDS."""
    return word in WORDS and zlib.crc32(b"word " + word.encode()) % 5 == 0


@dataclass(frozen=True)
class Stock:
    """What one episode may use: `rare` episodes, of the test alone, show a held-out pair; the others never do."""

    split: Split
    rare: bool = False

    def allows(self, colour: str, shape: str) -> bool:
        """Whether a question may name this pair."""
        return self.split == "test" or (colour, shape) not in HELD_OUT_PAIRS

    def pair(self, random: Generator) -> Pair:
        """Any pair that is not held out."""
        while (found := pick(random, PAIRS)) in HELD_OUT_PAIRS:
            pass
        return found

    def rare_pair(self, random: Generator) -> Pair:
        return pick(random, sorted(HELD_OUT_PAIRS))

    def number(self, random: Generator, digits: tuple[int, ...] = (1, 2, 2, 3, 3, 4)) -> str:
        """Half of the test's are held out."""
        wanted = self.split == "test" and random.random() < 0.5
        while True:
            length = pick(random, digits)
            number = int(random.integers(10 ** (length - 1) if length > 1 else 0, 10**length))
            if held_out_number(number) == wanted:
                return str(number)

    def word(self, random: Generator) -> str:
        """Half of the test's are held out. Half of training's are letters at random: it is letters that are to be read."""
        wanted = self.split == "test" and random.random() < 0.5
        while True:
            if self.split == "train" and random.random() < 0.5:
                word = "".join(pick(random, _LETTERS) for _ in range(pick(random, (2, 3, 3, 4, 4, 5))))
            else:
                word = pick(random, WORDS)
            if held_out_word(word) == wanted:
                return word

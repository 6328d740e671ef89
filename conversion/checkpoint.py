"""A folder or a Hub id in the official checkpoint format -> its tensors by name and shape, and modules filled from them; runs none of its code."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from pipeline.artifacts import CARD
from pipeline.config import read_json
from pipeline.errors import ArtifactError, InputError
from pipeline.hub import bytes_to_fetch, download

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
#: Configs and tokenizer files: all that is read before the weights. Python files are never asked for. The card, which comes too, decides no weight.
SMALL_FILES = ("*.json", "*.jinja", "merges.txt")
WEIGHT_FILES = "*.safetensors"

#: Of thousands of tensors that are not as they should be, in one sentence.
MOST_NAMES = 5


@dataclass(frozen=True)
class Source:
    """Where a checkpoint lies on this machine, and what it is called in the manifest."""

    folder: Path
    name: str
    revision: str | None

    @classmethod
    def locate(cls, source: str, revision: str | None = None) -> Self:
        """Find a folder, or fetch the small files of a Hub repository (the weights follow with `fetch_weights`).

        Raises:
            InputError: neither a folder nor a Hub id.
            ArtifactError: the Hub does not give it.
        """
        folder = Path(source)
        if folder.is_dir():
            if revision is not None:
                raise InputError(f"{source} is a folder; a revision ({revision}) goes with a Hub id only.")
            return cls(folder, folder.resolve().name, None)
        if not re.fullmatch(r"[\w.-]+/[\w.-]+", source):
            raise InputError(f"{source} is neither a folder nor a Hub id of the form OWNER/NAME.")
        try:
            folder = download(source, revision, (*SMALL_FILES, CARD))
        except ArtifactError as cause:
            if Path(source).parent.is_dir():  # then a folder was probably meant
                raise ArtifactError(f"There is no folder {source}. {cause}") from cause
            raise
        return cls(folder, source, folder.name)

    @property
    def bytes_to_fetch(self) -> int:
        """Of weights that are still on the Hub."""
        return 0 if self.revision is None else bytes_to_fetch(self.name, self.revision, (WEIGHT_FILES,))

    def fetch_weights(self) -> None:
        """Download the weights of a Hub source, a file after the other; a folder has them already."""
        if self.revision is not None:
            download(self.name, self.revision, (WEIGHT_FILES,), one_by_one=True)


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of one checkpoint: for each name its file, and its shape from the file's header. No weight is read until `load`."""

    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Read the headers of the one file or of all shards.

        Raises:
            ArtifactError: a file is missing or is no safetensors file, or the index and the shards disagree.
        """
        stated = _weight_map(folder)
        shards = [WEIGHTS] if stated is None else sorted({Path(name).name for name in stated.values()})
        files, shapes = {}, {}
        for path in (folder / shard for shard in shards):
            with _reading(path) as tensors:
                for name in tensors.keys():  # noqa: SIM118 (no mapping: it has keys() and no iterator)
                    files[name] = path
                    shapes[name] = tuple(tensors.get_slice(name).get_shape())
        if stated is not None and (strayed := [name for name in {*stated, *files} if name not in files or stated.get(name) != files[name].name]):
            raise ArtifactError(f"{folder / INDEX} and the shards disagree about {_listed(strayed)}.")
        return cls(files, shapes)

    def check(self, expected: Mapping[str, tuple[int, ...]], may_ignore: Callable[[str], bool]) -> None:
        """Compare with the names and shapes that a model needs, all parts at once.

        Raises:
            ArtifactError: tells missing, unknown and misshapen tensors.
        """
        misshapen = [
            f"{name} is {list(self.shapes[name])} where the config asks for {list(shape)}"
            for name, shape in expected.items()
            if name in self.shapes and self.shapes[name] != shape
        ]
        _refuse(_strangers(self.shapes.keys(), expected.keys(), may_ignore) | {"misshapen": misshapen})

    def load(self, module: nn.Module, prefix: str, dtype: torch.dtype | None = None) -> None:
        """Fill a module with the tensors whose names start with `prefix`; `check` has made sure that they are there.

        The tensors replace the module's own, so one on the meta device becomes real. With `dtype` None they keep the checkpoint's type and stay
        mapped from its files: memory is used only while a tensor is read.
        """
        names = list(module.state_dict())
        tensors: dict[str, torch.Tensor] = {}
        for path in sorted({self.files[prefix + name] for name in names}):
            with _reading(path) as stored:
                tensors |= {name: stored.get_tensor(prefix + name) for name in names if self.files[prefix + name] == path}
        module.load_state_dict({name: tensor.to(dtype or tensor.dtype) for name, tensor in tensors.items()}, strict=True, assign=True)


def check_index(folder: Path, expected: Iterable[str], may_ignore: Callable[[str], bool]) -> None:
    """Compare the names that a model needs with those in the index of shards, if there is one: it is there before them.

    Raises:
        ArtifactError: tells missing and unknown tensors.
    """
    if (stated := _weight_map(folder)) is not None:
        _refuse(_strangers(stated.keys(), set(expected), may_ignore))


def _weight_map(folder: Path) -> dict[str, str] | None:
    """The file of each tensor, as the index has it."""
    if not (folder / INDEX).is_file():
        return None
    stated = read_json(folder / INDEX).get("weight_map")
    if not isinstance(stated, dict) or not all(isinstance(name, str) for name in stated.values()):
        raise ArtifactError(f"{folder / INDEX} holds no weight_map.")
    return stated


def _strangers(found: Set[str], expected: Set[str], may_ignore: Callable[[str], bool]) -> dict[str, list[str]]:
    return {"missing": list(expected - found), "unknown": [name for name in found - expected if not may_ignore(name)]}


def _refuse(faults: Mapping[str, list[str]]) -> None:
    if told := [f"{fault}: {_listed(names)}" for fault, names in faults.items() if names]:
        raise ArtifactError(f"The checkpoint's tensors do not fit its config.json; {'; '.join(told)}.")


def _reading(path: Path) -> safe_open:
    try:
        return safe_open(path, framework="pt")
    except FileNotFoundError as cause:
        raise ArtifactError(f"{path} is missing.") from cause
    except (SafetensorError, OSError) as cause:
        raise ArtifactError(f"{path} is damaged or no safetensors file: {cause}.") from cause


def _listed(names: Sequence[str]) -> str:
    told = ", ".join(sorted(names)[:MOST_NAMES])
    return told if len(names) <= MOST_NAMES else f"{told} and {len(names) - MOST_NAMES} more"

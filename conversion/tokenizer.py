"""The small files of a checkpoint folder -> those of a model folder: tokenizer and detokenizer as IR, configs, generation_config.json."""

import json
import shutil
from pathlib import Path
from typing import Any

from openvino_tokenizers import convert_tokenizer
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from conversion.parts import save
from pipeline.artifacts import DETOKENIZER, TOKENIZER
from pipeline.config import ModelConfig, read_json
from pipeline.errors import ArtifactError

TERMINATORS = ("<|im_end|>", "<|endoftext|>")

#: Copied as they are where a checkpoint has them; what says the same as tokenizer.json, for readers that prefer it.
OPTIONAL_FILES = ("added_tokens.json", "chat_template.jinja", "chat_template.json", "merges.txt", "special_tokens_map.json", "vocab.json")

#: ChatML with the default system block of Qwen2, for a checkpoint that brings no template.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def check_tokenizer(folder: Path, config: ModelConfig) -> None:
    """Make sure that a checkpoint's tokenizer has the tokens that prompts are made of, and none that the model has no embedding for.

    Raises:
        ArtifactError: a file is missing or broken, or tokens are too few or too many.
    """
    read_json(folder / "tokenizer_config.json")
    vocabulary = _read(folder).get_vocab()
    slices = config.slices
    needed = {*TERMINATORS, slices.unk, slices.im_start, slices.im_end, slices.slice_start, slices.slice_end, slices.im_id_start, slices.im_id_end}
    if lacking := sorted(needed - vocabulary.keys()):
        raise ArtifactError(f"{folder / 'tokenizer.json'} lacks {', '.join(lacking)}.")
    if (largest := max(vocabulary.values())) >= config.text.vocab_size:
        raise ArtifactError(f"{folder / 'tokenizer.json'} has a token {largest}, and config.json a vocab_size of {config.text.vocab_size}.")


def write_small_files(folder: Path, output: Path) -> None:
    """Write everything a model folder holds besides the four models and the manifest.

    The configs lose `auto_map`, which points at Python files that are not copied and would not be run; for the same reason the tokenizer's class is
    named as the plain one. The tokenizer's config carries the chat template.
    """
    tokenizer = _load(folder)
    replaced = {"tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": tokenizer.chat_template}}
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        kept = {key: value for key, value in read_json(folder / name).items() if key != "auto_map"}
        _write(output / name, kept | replaced.get(name, {}))
    _write(output / "generation_config.json", _generation_config(folder, tokenizer))
    for name in ("tokenizer.json", *(name for name in OPTIONAL_FILES if (folder / name).is_file())):
        shutil.copyfile(folder / name, output / name)
    for model, name in zip(convert_tokenizer(tokenizer, with_detokenizer=True), (TOKENIZER, DETOKENIZER), strict=True):
        save(model, output / name)


def _read(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise ArtifactError(f"{path} is missing.")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as cause:  # the library raises nothing more specific
        raise ArtifactError(f"{path} cannot be read as a tokenizer: {cause}.") from cause


def _load(folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer by its file alone, whatever class its config names: no code of a checkpoint runs, and nothing is added around a text."""
    config = read_json(folder / "tokenizer_config.json")
    named = {name: _content(config[name]) for name in ("bos_token", "eos_token", "unk_token", "pad_token") if config.get(name) is not None}
    template = _chat_template(folder, config)
    return PreTrainedTokenizerFast(tokenizer_object=_read(folder), clean_up_tokenization_spaces=False, chat_template=template, **named)


def _content(token: Any) -> str:
    """A special token's text: configs hold either that or a description of it."""
    return token["content"] if isinstance(token, dict) else token


def _chat_template(folder: Path, tokenizer_config: dict[str, Any]) -> str:
    if template := tokenizer_config.get("chat_template"):
        return template
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8")
    if (folder / "chat_template.json").is_file():
        return read_json(folder / "chat_template.json")["chat_template"]
    return CHAT_TEMPLATE


def _generation_config(folder: Path, tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """The official sampling defaults; ids are looked up, since every vocabulary has its own."""
    config = read_json(folder / "config.json")
    return {
        "bos_token_id": config.get("bos_token_id", tokenizer.bos_token_id),
        "eos_token_id": [tokenizer.convert_tokens_to_ids(token) for token in TERMINATORS],
        "pad_token_id": tokenizer.pad_token_id,
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 100,
        "top_p": 0.8,
        "repetition_penalty": 1.05,
    }


def _write(path: Path, values: dict[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

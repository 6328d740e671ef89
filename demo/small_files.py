"""Nothing -> the small files of the demo model's checkpoint, in the official form: its configs, and a tokenizer of what the generator says."""

import json
import re
from pathlib import Path
from typing import Any

from demo.episodes import episode
from demo.vocabulary import train_tokenizer, write_tokenizer

SIZES: dict[str, Any] = {
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 8192,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "hidden_act": "silu",
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "query_num": 64,
    "slice_config": {"max_slice_nums": 9, "patch_size": 14, "scale_resolution": 168, "model_type": "minicpmv"},
    "vision_config": {
        "model_type": "siglip",
        "hidden_size": 192,
        "intermediate_size": 576,
        "num_hidden_layers": 5,
        "num_attention_heads": 6,
        "image_size": 336,
        "patch_size": 14,
    },
    "drop_vision_last_layer": False,
    "use_image_id": True,
    "slice_mode": True,
    "batch_vision_input": True,
    "vision_batch_size": 16,
}
VOCABULARY = 900
FRAMES = 3000  # as many conversations lend their fixed words to the tokenizer's texts, so that each becomes one token


def write_small_files(folder: Path) -> None:
    """The configs in the official form, and a tokenizer of what the generator says."""
    texts = (text for seed in range(4000) for turn in episode(seed, "train").turns for text in (turn.question, _unread(turn.answer)))
    frame = ["system\nYou are a helpful assistant.\nuser\nassistant\n"] * FRAMES
    tokenizer = train_tokenizer((*texts, *frame), VOCABULARY)
    write_tokenizer(tokenizer, folder)
    ids = {"bos_token_id": tokenizer.token_to_id("<|endoftext|>"), "eos_token_id": tokenizer.token_to_id("<|im_end|>")}
    kind = {"model_type": "minicpmv", "architectures": ["MiniCPMV"], "version": 2.6, "torch_dtype": "bfloat16"}
    config = {**kind, **SIZES, **ids, "vocab_size": tokenizer.get_vocab_size()}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    slices = SIZES["slice_config"]
    processor = {
        "image_processor_type": "MiniCPMVImageProcessor", "processor_class": "MiniCPMVProcessor", "version": 2.6, "slice_mode": True,
        "max_slice_nums": slices["max_slice_nums"], "scale_resolution": slices["scale_resolution"], "patch_size": 14, "use_image_id": True,
        "image_feature_size": SIZES["query_num"], "im_start": "<image>", "im_end": "</image>", "slice_start": "<slice>", "slice_end": "</slice>",
        "unk": "<unk>", "im_id_start": "<image_id>", "im_id_end": "</image_id>", "norm_mean": [0.5] * 3, "norm_std": [0.5] * 3,
    }  # fmt: skip
    (folder / "preprocessor_config.json").write_text(json.dumps(processor, indent=1) + "\n")


def _unread(answer: str) -> str:
    """Without what was read in a picture: letters are to be written one by one."""
    return re.sub("[A-Z]{2,}", "", answer)

import json
import shutil

import numpy as np
import openvino as ov
import openvino_tokenizers  # noqa: F401 (registers the operations of a tokenizer's IR)
import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from conversion.tokenizer import check_tokenizer, write_small_files
from pipeline.artifacts import DETOKENIZER, TOKENIZER
from pipeline.config import ModelConfig
from pipeline.errors import ArtifactError

CHATML = (
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    "<|im_start|>assistant\nhello<|im_end|>\n<|im_start|>user\nmore<|im_end|>\n<|im_start|>assistant\n"
)
CONVERSATION = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}, {"role": "user", "content": "more"}]
TEXTS = [
    "What is in the image?",
    "<|im_start|>user\n<image><unk><unk></image>\n<slice>",
    "  two  spaces,\n\nçédille 中文 🎈 e\u0301",
    "3.14 don't!",
    "",
]


@pytest.fixture
def checkpoint(golden, tmp_path):
    return shutil.copytree(golden / "tiny_model", tmp_path / "checkpoint")


@pytest.fixture
def config(golden):
    return ModelConfig.from_folder(golden / "tiny_model")


@pytest.fixture
def written(tmp_path):
    (tmp_path / "written").mkdir()
    return tmp_path / "written"


def _edit(path, **fields):
    values = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def test_the_tokenizer_as_ir_gives_the_same_ids(golden, fp32_folder):
    reference = Tokenizer.from_file(str(golden / "tiny_model" / "tokenizer.json"))
    compiled = ov.Core().compile_model(fp32_folder / TOKENIZER, "CPU")
    for text in TEXTS:
        assert compiled([text])["input_ids"][0].tolist() == reference.encode(text, add_special_tokens=False).ids


def test_the_tokenizer_as_ir_gives_the_golden_ids(golden, fp32_folder):
    compiled = ov.Core().compile_model(fp32_folder / TOKENIZER, "CPU")
    texts = json.loads((golden / "tiny_texts.json").read_text())
    for name in ("single0", "single1", "single2", "text_only"):
        ids = np.load(golden / f"tiny_{name}.npz")["input_ids"][0]
        assert compiled([texts[name]["prompt"]])["input_ids"][0].tolist() == ids.tolist()


def test_the_detokenizer_as_ir_gives_the_text_back(golden, fp32_folder):
    reference = Tokenizer.from_file(str(golden / "tiny_model" / "tokenizer.json"))
    compiled = ov.Core().compile_model(fp32_folder / DETOKENIZER, "CPU")
    text = "What is in the image? çédille 中文 🎈"
    assert compiled(np.array([reference.encode(text).ids]))[0].item() == text


def test_both_terminators_end_an_answer_and_the_official_defaults_make_it(golden, fp32_folder):
    written = json.loads((fp32_folder / "generation_config.json").read_text())
    vocabulary = Tokenizer.from_file(str(golden / "tiny_model" / "tokenizer.json")).get_vocab()
    assert written == {
        "bos_token_id": vocabulary["<|endoftext|>"],
        "eos_token_id": [vocabulary["<|im_end|>"], vocabulary["<|endoftext|>"]],
        "pad_token_id": vocabulary["!"],
        "do_sample": True,
        "temperature": 0.7,
        "top_k": 100,
        "top_p": 0.8,
        "repetition_penalty": 1.05,
    }


def test_configs_are_copied_without_what_points_at_code(golden, fp32_folder):
    for name in ("config.json", "preprocessor_config.json"):
        expected = json.loads((golden / "tiny_model" / name).read_text())
        assert "auto_map" in expected
        del expected["auto_map"]
        assert json.loads((fp32_folder / name).read_text()) == expected


def test_transformers_opens_the_tokenizer_and_its_template_without_remote_code(fp32_folder):
    tokenizer = AutoTokenizer.from_pretrained(fp32_folder, trust_remote_code=False, local_files_only=True)
    assert tokenizer("<image>Hi</image>").input_ids == Tokenizer.from_file(str(fp32_folder / "tokenizer.json")).encode("<image>Hi</image>").ids
    assert tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True) == CHATML


def test_a_checkpoint_without_a_template_gets_chatml(checkpoint, written):
    _edit(checkpoint / "tokenizer_config.json", chat_template=None)
    write_small_files(checkpoint, written)
    tokenizer = AutoTokenizer.from_pretrained(written, local_files_only=True)
    assert tokenizer.apply_chat_template(CONVERSATION, tokenize=False, add_generation_prompt=True) == CHATML


def test_a_template_in_a_file_of_its_own_is_kept(checkpoint, written):
    _edit(checkpoint / "tokenizer_config.json", chat_template=None)
    (checkpoint / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")
    write_small_files(checkpoint, written)
    assert json.loads((written / "tokenizer_config.json").read_text())["chat_template"] == "{{ messages[0]['content'] }}"
    assert (written / "chat_template.jinja").is_file()


def test_a_tokenizer_without_the_tokens_prompts_are_made_of_is_refused(checkpoint, config):
    text = (checkpoint / "tokenizer.json").read_text()
    (checkpoint / "tokenizer.json").write_text(text.replace("<slice>", "<piece>").replace("<|im_end|>", "<|end|>"))
    with pytest.raises(ArtifactError, match=r"lacks <slice>, <\|im_end\|>"):
        check_tokenizer(checkpoint, config)


def test_a_tokenizer_larger_than_the_embedding_is_refused(checkpoint):
    _edit(checkpoint / "config.json", vocab_size=700)
    with pytest.raises(ArtifactError, match=r"779.*700"):
        check_tokenizer(checkpoint, ModelConfig.from_folder(checkpoint))


@pytest.mark.parametrize("content", [None, "{}", "not JSON"])
def test_a_missing_or_broken_tokenizer_file_is_named(checkpoint, config, content):
    (checkpoint / "tokenizer.json").unlink()
    if content is not None:
        (checkpoint / "tokenizer.json").write_text(content)
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        check_tokenizer(checkpoint, config)

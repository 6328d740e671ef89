import json

import pytest
from huggingface_hub import ModelCard

from conversion.card import base_model, write_card
from conversion.checkpoint import Source
from conversion.fidelity import FIDELITY
from pipeline.artifacts import CARD

RECIPE = {"weight_format": "int4", "group_size": 64, "ratio": 1.0, "symmetric": True, "vision_format": "int8-ptq"}
PARTS = {
    "image encoder": {"format": "int8-ptq", "patches": [[32, 32], [16, 64]], "cosine": 0.98, "relative_error": 0.2},
    "language model": {"format": "int4", "layers": 28, "cosine": 0.99, "relative_error": 0.1, "tokens": 250, "top_1": 0.9, "kl": 0.02},
}


@pytest.fixture
def card(tmp_path):
    def write(source):
        folder = tmp_path / "made"
        folder.mkdir()
        (folder / "openvino_language_model.bin").write_bytes(bytes(1_500_000))
        write_card(folder, source, RECIPE, {"openvino": "1.2.3"}, PARTS)
        return ModelCard.load(folder / CARD)

    return write


def _checkpoint(folder, **config):
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    return Source(folder, folder.name, None)


def test_the_metadata_is_what_the_hub_knows_a_quantised_model_by(tmp_path, card):
    data = card(Source(tmp_path, "openbmb/MiniCPM-V-2_6", "abc123")).data.to_dict()
    assert data["license"] == "apache-2.0"
    assert data["base_model"] == "openbmb/MiniCPM-V-2_6"
    assert data["base_model_relation"] == "quantized"
    assert data["pipeline_tag"] == "image-text-to-text"
    assert data["library_name"] == "openvino"
    assert {"openvino", "nncf", "int4"} <= set(data["tags"])


def test_the_text_has_recipe_versions_sizes_and_figures(tmp_path, card):
    text = card(Source(tmp_path, "openbmb/MiniCPM-V-2_6", "abc123")).text
    assert "# MiniCPM-V-2_6 for OpenVINO, INT4" in text
    for words in (
        "at revision `abc123`",
        "| group size | 64 |",
        "| vision format | int8-ptq |",
        "openvino 1.2.3",
        "| `openvino_language_model.bin` | 1.5 |",
    ):
        assert words in text
    assert "| language model | int4 | 0.990000 | 0.1000 | 90.0% | 0.0200 |" in text
    assert "all 28 layers" in text
    assert "32 x 32, 64 x 16 patches" in text
    assert FIDELITY in text


def test_it_says_how_to_use_the_folder_in_three_ways(tmp_path, card):
    text = card(Source(tmp_path, "openbmb/MiniCPM-V-2_6", "abc123")).text
    for words in (
        "MODEL_REPO",
        "openvino_genai.VLMPipeline(",
        "OVModelForVisualCausalLM.from_pretrained(",
        'from_pretrained("openbmb/MiniCPM-V-2_6"',
    ):
        assert words in text
    for block in text.split("```python")[1:]:
        compile(block.split("```")[0], "card", "exec")


def test_the_official_model_has_its_makers_licence(tmp_path, card):
    made = card(Source(tmp_path, "openbmb/MiniCPM-V-2_6", "abc123"))
    assert "\n## Licence\n\napache-2.0, as [its makers](https://github.com/OpenBMB/MiniCPM-V) state it.\n" in made.text


def test_a_fine_tune_in_a_folder_goes_by_its_own_name_and_licence(tmp_path, card):
    source = _checkpoint(tmp_path / "mine", _name_or_path="openbmb/MiniCPM-V-2_6")
    (source.folder / CARD).write_text("---\nlicense: cc-by-nc-4.0\n---\nMine.\n")
    made = card(source)
    data = made.data.to_dict()
    assert (data["license"], data["base_model"], data.get("base_model_relation")) == ("cc-by-nc-4.0", "openbmb/MiniCPM-V-2_6", None)
    assert "\n# mine for OpenVINO, INT4\n\nThe checkpoint `mine`, a folder on somebody's disk, as OpenVINO IR" in made.text
    assert "\n\nIts config names [openbmb/MiniCPM-V-2_6](https://huggingface.co/openbmb/MiniCPM-V-2_6) as where it comes from. Whether" in made.text
    assert "\n## Licence\n\ncc-by-nc-4.0, as the checkpoint's card states it.\n" in made.text


def test_a_folder_without_a_card_claims_no_licence_and_says_so(tmp_path, card):
    made = card(_checkpoint(tmp_path / "mine", _name_or_path="openbmb/MiniCPM-V-2_6"))
    assert "license" not in made.data.to_dict()
    assert "\n## Licence\n\nNo licence was found with the checkpoint. Before you pass this folder on, find out" in made.text


def test_a_downloaded_checkpoint_is_known_by_the_name_in_its_config(tmp_path):
    assert base_model(_checkpoint(tmp_path / "a", _name_or_path="openbmb/MiniCPM-V-2_6")) == "openbmb/MiniCPM-V-2_6"
    assert base_model(_checkpoint(tmp_path / "b", _name_or_path="/home/somebody/model")) is None
    assert base_model(_checkpoint(tmp_path / "c")) is None
    assert base_model(_checkpoint(tmp_path / "d", _name_or_path=None)) is None
    assert base_model(_checkpoint(tmp_path / "e", _name_or_path=["a/b"])) is None


def test_a_model_of_ones_own_claims_no_base(tmp_path, card):
    data = card(_checkpoint(tmp_path / "mine")).data.to_dict()
    assert "base_model" not in data
    assert "base_model_relation" not in data

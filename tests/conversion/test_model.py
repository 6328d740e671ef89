import numpy as np
import pytest
import torch

from conversion.model import MiniCPMV, check_architecture
from pipeline.config import ModelConfig
from pipeline.errors import ArtifactError


@pytest.mark.parametrize("file", ["tiny_single0.npz", "tiny_single1.npz", "tiny_single2.npz", "tiny_text_only.npz"])
def test_the_language_model_gives_the_golden_logits(golden, tiny, file):
    stored = np.load(golden / file)
    logits = tiny.llm(inputs_embeds=torch.from_numpy(stored["inputs_embeds"])).logits
    np.testing.assert_allclose(logits, stored["logits"], atol=1e-4)


def test_a_skeleton_holds_no_weights(golden):
    skeleton = MiniCPMV.skeleton(ModelConfig.from_folder(golden / "tiny_model"))
    assert {parameter.device.type for parameter in skeleton.parameters()} == {"meta"}


def test_every_weight_of_a_model_built_to_be_trained_gets_a_gradient(golden):
    model = MiniCPMV(ModelConfig.from_folder(golden / "tiny_model"))
    hidden = model.vpm(torch.rand(1, 3, 14, 28), torch.ones(1, 1, 2), torch.zeros(1, 2, dtype=torch.int64))
    rows = model.resampler(hidden, torch.rand(2, 1, 256), torch.zeros(1, 2))
    text = model.llm.get_input_embeddings()(torch.tensor([[1, 2]]))
    model.llm(inputs_embeds=torch.cat([rows, text], dim=1)).logits.square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.isfinite().all()] == []


def test_the_dropped_layer_is_not_built(make_checkpoint, other_sizes):
    config = ModelConfig.from_folder(make_checkpoint(**other_sizes))
    shapes = MiniCPMV.skeleton(config).stored_shapes()
    assert "vpm.encoder.layers.1.layer_norm1.weight" in shapes
    assert not any(name.startswith("vpm.encoder.layers.2.") for name in shapes)
    assert "vpm.post_layernorm.weight" in shapes


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"use_sliding_window": True}, "use_sliding_window"),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0}}, "rope_scaling"),
        (
            {"quantization_config": {"quant_method": "bitsandbytes"}},
            r"^\S+ says that the weights are quantised \(bitsandbytes\): .* 16 or 32 bits\.$",
        ),
        ({"quantization_config": "gptq"}, r"quantised \(gptq\)"),
        ({"num_attention_heads": 3}, "num_attention_heads"),
        ({"num_key_value_heads": 3}, "num_key_value_heads"),
        ({"hidden_size": 64}, "resampler"),
    ],
)
def test_a_config_that_asks_for_something_else_is_refused(golden, tmp_path, fields, named):
    import json
    import shutil

    shutil.copyfile(golden / "tiny_model" / "preprocessor_config.json", tmp_path / "preprocessor_config.json")
    (tmp_path / "config.json").write_text(json.dumps(json.loads((golden / "tiny_model" / "config.json").read_text()) | fields))
    with pytest.raises(ArtifactError, match=named):
        check_architecture(ModelConfig.from_folder(tmp_path), tmp_path)

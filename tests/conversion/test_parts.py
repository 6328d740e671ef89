import openvino as ov
from openvino import opset13 as ops

from conversion.model import MiniCPMV
from conversion.parts import parts, save
from pipeline.config import ModelConfig


def _model():
    """Names of its own making and given ones."""
    given = ops.parameter(ov.PartialShape([-1, 4]), ov.Type.f32, name="input_12")
    given.output(0).get_tensor().set_names({"Input_12x", "I64"})
    total = ops.add(ops.multiply(given, ops.constant([[1.0, 2.0, 3.0, 4.0]], ov.Type.f32)), ops.constant(1.0, ov.Type.f32))
    return ov.Model([ops.result(total)], [given])


def test_equal_models_are_equal_files_whatever_was_made_before(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        save(_model(), tmp_path / name / "model.xml")
    assert (tmp_path / "one" / "model.xml").read_bytes() == (tmp_path / "other" / "model.xml").read_bytes()


def test_names_stay_different_and_given_ones_stay_as_they_are(tmp_path):
    save(_model(), tmp_path / "model.xml")
    read = ov.Core().read_model(tmp_path / "model.xml")
    names = [node.get_friendly_name() for node in read.get_ops()]
    assert len(set(names)) == len(names) == len(_model().get_ops())
    assert "input_12" in names
    assert read.input(0).get_names() == {"Input_12x", "I64"}
    assert read.input(0).element_type == ov.Type.f32


def test_the_parts_take_every_weight_once_but_a_tied_embedding(golden, make_checkpoint):
    for folder in (golden / "tiny_model", make_checkpoint(tie_word_embeddings=True)):
        model = MiniCPMV.skeleton(ModelConfig.from_folder(folder))
        text = model.config.text
        stored = sum(parameter.numel() for parameter in model.parameters())
        twice = text.vocab_size * text.hidden_size if text.tie_word_embeddings else 0
        assert sum(part.numel for part in parts(model)) == stored + twice

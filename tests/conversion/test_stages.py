import numpy as np
import openvino as ov
import pytest

from conversion.proof import EXACTLY
from conversion.stages import cut, run, spans
from pipeline.artifacts import LANGUAGE_MODEL


def test_spans_take_all_stages_in_order_and_no_more_at_once_than_allowed():
    assert spans([2, 2, 2, 5], at_most=100) == [range(4)]
    assert spans([2, 2, 2, 5], at_most=4) == [range(2), range(2, 3), range(3, 4)]
    assert spans([2, 2, 2, 5], at_most=1) == [range(stage, stage + 1) for stage in range(4)]
    assert spans([9, 1, 1], at_most=2) == [range(1), range(1, 3)]


@pytest.mark.parametrize("folder", ["fp32_folder", "fp16_folder", "int4_folder"])
@pytest.mark.parametrize("stages", [[range(3)], [range(1), range(1, 3)], [range(1), range(1, 2), range(2, 3)], [range(2), range(2, 3)]])
def test_stages_one_after_the_other_give_what_the_whole_gives(request, folder, stages):
    path = request.getfixturevalue(folder) / LANGUAGE_MODEL
    embeds = np.random.default_rng(0).standard_normal((1, 9, 256), np.float32) * np.float32(0.1)
    core, hidden = ov.Core(), embeds
    for span in stages:
        model = core.read_model(path)
        cut(model, span, layers=2)
        hidden = run(core.compile_model(model, "CPU", EXACTLY), hidden, embeds)
    whole = core.compile_model(path, "CPU", EXACTLY)
    np.testing.assert_allclose(hidden, run(whole, embeds, embeds), atol=2e-4)
    assert hidden.shape == (1, 9, 780)


def test_a_stage_holds_no_matrices_of_others_but_one_whose_shape_it_needs(int4_folder):
    model = ov.Core().read_model(int4_folder / LANGUAGE_MODEL)
    cut(model, range(1, 2), layers=2)
    weights = {name for node in model.get_ops() if (name := node.get_friendly_name()).endswith("._openvino_orig_weight")}
    assert len({name for name in weights if ".layers.1." in name}) == 7
    assert {name for name in weights if ".layers.1." not in name} == {"self.layers.0.self_attn.v_proj._openvino_orig_weight"}

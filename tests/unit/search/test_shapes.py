"""Which shapes are proposed for recovery training, for models of any depth."""

import pytest

from search.requests import JobRequest
from search.shapes import choose_shapes
from search.study import StudyState
from search.study import TrialRecord
from tests.unit.search.synthetic import ANATOMY
from tests.unit.search.synthetic import prepared


def shapes_of(layers: int):
    request = JobRequest(model_id="m", dataset_id="d", space={"head_step": 1, "ffn_step": 1})
    sizes = {"layers": layers, "heads": (4,) * layers, "intermediate_size": (8,) * layers}
    known = prepared().model_copy(update={"anatomy": ANATOMY.model_copy(update=sizes)})
    int8 = TrialRecord("int8", 0, "int8", "baseline", "done", drop=0.004, ratio=0.45)
    return choose_shapes(request, known, StudyState("job", 0, request.goal, (int8,), 1.0))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_model_with_no_layer_to_spare_is_narrowed_only(layers):
    shapes = shapes_of(layers)
    assert len(shapes) >= 2
    assert {shape.origin for shape in shapes} == {"uniform"}


def test_deeper_models_are_cut_evenly_between_first_and_last_layer():
    shallow = [shape for shape in shapes_of(6) if shape.origin == "depth"]
    assert shallow
    for shape in shallow:
        kept = [index for index, layer in enumerate(shape.recipe.layers) if not layer.removed]
        assert {0, 5} <= set(kept)
        assert 2 <= len(kept) < 6

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

from export.saturation import round_without_saturation


def _weights(inputs: int, outputs: int = 40) -> np.ndarray:
    return np.random.default_rng(0).standard_t(4, (inputs, outputs)).astype(np.float32)


@pytest.mark.parametrize("inputs", [1, 2, 7, 96])
def test_no_two_neighbours_add_up_to_more_than_a_processor_holds(inputs: int) -> None:
    rounded, _ = round_without_saturation(_weights(inputs))
    whole = np.pad(rounded.astype(int), ((0, inputs % 2), (0, 0)))
    assert np.abs(255 * (whole[0::2] + whole[1::2])).max() <= 255 * 128
    assert np.abs(rounded.astype(int)).max() <= 127


def test_the_largest_inputs_there_are_add_up_exactly() -> None:
    rounded, _ = round_without_saturation(_weights(96))
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["given", "weights", "zero"], ["sums"])],
        "product",
        [helper.make_tensor_value_info("given", TensorProto.UINT8, [None, 96])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, None)],
        [numpy_helper.from_array(rounded, "weights"), numpy_helper.from_array(np.uint8(0), "zero")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    given = np.full((9, 96), 255, np.uint8)
    sums = InferenceSession(model.SerializeToString()).run(None, {"given": given})[0]
    np.testing.assert_array_equal(sums, given.astype(int) @ rounded.astype(int))


def test_weights_that_cannot_saturate_are_rounded_to_the_nearest() -> None:
    weight = _weights(96)
    weight[1::2] *= -np.sign(weight[0::2] * weight[1::2])  # neighbours of unlike sign never add up
    rounded, steps = round_without_saturation(weight)
    assert (np.abs(rounded * steps - weight) <= 0.5001 * steps).all()


def test_where_every_pair_would_be_cut_the_step_is_twice_as_wide() -> None:
    rounded, steps = round_without_saturation(np.ones((64, 1), np.float32))
    np.testing.assert_allclose(rounded * steps, 1, rtol=0.01)


def test_outputs_without_any_weight_stay_nothing() -> None:
    rounded, steps = round_without_saturation(np.zeros((4, 3), np.float32))
    assert not rounded.any()
    assert (steps > 0).all()

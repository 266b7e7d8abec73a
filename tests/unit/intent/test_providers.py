"""What runs a graph: a GPU only where there is one, and only what was made for it."""

import pytest

from intent.classifier import providers_for

CPU, GPU = "CPUExecutionProvider", "CUDAExecutionProvider"


@pytest.mark.parametrize(
    ("available", "half", "expected"),
    [
        ([CPU], False, [CPU]),
        ([CPU], True, [CPU]),
        ([GPU, CPU], True, [GPU, CPU]),
        ([GPU, CPU], False, [CPU]),
        (["TensorrtExecutionProvider", GPU, CPU], True, [GPU, CPU]),
    ],
)
def test_a_gpu_runs_what_is_made_for_it(available, half, expected) -> None:
    assert providers_for(available, half=half) == expected

import pytest

OTHERS = [pytest.param(name, marks=pytest.mark.matrix) for name in ("onnx", "torch", "c")]
LIBRARIES = {"sklearn": (), "onnx": ("ndonnx", "onnxruntime"), "torch": ("torch",), "c": ()}


@pytest.fixture(params=["sklearn", *OTHERS])
def export(request) -> str:
    """Return what estimators are exported to; only scikit-learn is in the default run."""
    for library in LIBRARIES[request.param]:
        pytest.importorskip(library)
    return request.param

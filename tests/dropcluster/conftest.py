"""The two paths of ReNA."""

import pytest

from sklearn_structreg.dropcluster import _compiled


@pytest.fixture(scope="module", params=["torch", "compiled"])
def path(request):
    """Which code clusters; for the module, as hypothesis asks of fixtures."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "ENABLED", request.param == "compiled")
        yield request.param

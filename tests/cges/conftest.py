"""The two paths of the proximal operators."""

import pytest

from sklearn_structreg.cges import _compiled


@pytest.fixture(scope="module", params=["torch", "compiled"])
def path(request):
    """Which code shrinks the groups; for the module, as hypothesis asks of fixtures."""
    if request.param == "compiled":
        pytest.importorskip("numba", reason="numba is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "ENABLED", request.param == "compiled")
        yield request.param

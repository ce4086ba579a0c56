"""The two paths of ReNA."""

import pytest

from sklearn_structreg.dropcluster import _compiled


@pytest.fixture(scope="module", params=["torch", "compiled"])
def path(request):
    """The code that clusters; for the module, as hypothesis asks of fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "ENABLED", request.param == "compiled")
        yield request.param

"""The two paths of a masked linear layer."""

import pytest

from sklearn_structreg.blockout import _compiled


@pytest.fixture(scope="module", params=["torch", "compiled"])
def path(request):
    """Which code masks the weights; for the module, as hypothesis asks of fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "ENABLED", request.param == "compiled")
        patch.setattr(_compiled, "MIN_WEIGHTS", 0)
        yield request.param

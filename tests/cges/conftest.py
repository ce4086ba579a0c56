"""The two paths of the proximal operators."""

import pytest

from sklearn_structreg.cges import _compiled


@pytest.fixture(scope="module", params=["torch", "compiled"])
def path(request):
    """The code that shrinks groups; for the module, as hypothesis asks of fixtures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiled, "ENABLED", request.param == "compiled")
        yield request.param

"""For all tests: real servers, and how much hypothesis tries. Machines that run these are shared and slow."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings

from scaling.stack import Stack
from tasks.settings import Settings

hypothesis_settings.register_profile(
    "sluice", max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
hypothesis_settings.load_profile("sluice")


@pytest.fixture(scope="session")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment that points at the servers."""
    folder = tmp_path_factory.mktemp("stack")
    with pytest.MonkeyPatch.context() as patch:
        # Whoever looks for the embedded stack must not find, or delete, that of this checkout.
        patch.setenv("SLUICE_HOME", str(folder))
        stack = Stack(folder, Settings())
        try:
            yield stack.start_servers(lambda line: None, model=False)
        finally:
            stack.down(purge=True, tell=lambda line: None)
            # A process of many threads is a zombie a moment before it can be waited for.
            for child in stack.processes._children.values():
                child.wait(20)

"""One cluster of real processes for all files; each test has as many workers as its file names."""

import time

import pytest
from dask_processes import Processes, stored, waves


def pytest_collection_modifyitems(items):
    """Let Dask and others warn, and end what hangs."""
    for item in items:
        if "dask" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("default"))
            item.add_marker(pytest.mark.usefixtures("time_limit"))


@pytest.fixture(scope="session")
def processes():
    found = Processes(2)
    yield found
    found.close()


@pytest.fixture
def client(processes, request):
    """A client of a cluster with two workers, or `WORKERS`, no more and no fewer."""
    distributed = pytest.importorskip("distributed", minversion="2025.1")
    n = getattr(request.module, "WORKERS", 2)
    while len(processes.workers) < n:
        processes.add()
    while len(processes.workers) > n:
        processes.kill(max(processes.workers))
    with distributed.Client(processes.address(), timeout=200) as found:
        end = time.monotonic() + 200
        while sorted(w["name"] for w in found.scheduler_info()["workers"].values()) != (
            sorted(processes.workers)
        ):
            assert time.monotonic() < end, "the cluster does not come into order"
            time.sleep(0.05)
        yield found


@pytest.fixture(scope="session")
def source(tmp_path_factory):
    return stored(tmp_path_factory.mktemp("rows"), *waves(4_000))

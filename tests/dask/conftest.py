"""A hard limit for every test with a cluster: none of them may hang."""

import signal

import pytest

SECONDS = 300


@pytest.fixture(autouse=True)
def limit():
    """End a test that takes too long, wherever it is."""

    def end(number, frame):
        raise TimeoutError(f"the test has not ended within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)

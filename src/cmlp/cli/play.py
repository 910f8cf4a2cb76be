"""``cmlp play``: a page that draws a network while it learns."""

from __future__ import annotations

from cmlp.page.play import read_setup, serve


def run(file: str | None, *, port: int, opens: bool) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 (a free one) to 65535, not {port}")
    serve(setup=None if file is None else read_setup(file), port=port, opens=opens)
    return 0

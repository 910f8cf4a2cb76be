"""``cmlp play``: a page that draws a network while it learns."""

from __future__ import annotations

from cmlp.page.play import read_setup, serve


def run(file: str | None, *, lesson: int | None, port: int, opens: bool) -> int:
    """Serve the page until Ctrl-C; return the exit code."""
    if not 0 <= port <= 65535:
        raise ValueError(f"--port must be 0 (a free one) to 65535, not {port}")
    if file is not None and lesson is not None:
        raise ValueError("name a file, or --lesson")
    setup = None
    if file is not None:
        setup = read_setup(file)
    elif lesson is not None:
        from cmlp.course.set_ups import set_up
        from cmlp.page.set_up import SetUp

        setup = SetUp.from_dict(set_up(lesson))
    serve(setup=setup, port=port, opens=opens)
    return 0

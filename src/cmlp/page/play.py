"""``cmlp.play``, and what ``cmlp play`` calls."""

from __future__ import annotations

import contextlib
import os
import sys
import webbrowser
from typing import TYPE_CHECKING, Any

from cmlp.page.door import Door

if TYPE_CHECKING:  # the others are imported while the browser starts
    from cmlp.page.build import Own
    from cmlp.page.set_up import SetUp


def read_setup(path: str) -> SetUp:
    """Read a set-up from a file that the page has saved.

    Raises
    ------
    ValueError
        If it is no set-up; the message names the field.
    OSError
    """
    from cmlp.formats.safetensors import parse_json
    from cmlp.page import limits
    from cmlp.page.set_up import SetUp

    if path.lower().endswith((".csv", ".tsv", ".txt", ".parquet")):
        raise ValueError(
            f"{path}: cmlp play opens a set-up that its page has saved, a .json file; for a table "
            "start cmlp play alone, and drop the file on the page"
        )
    if os.path.getsize(path) > limits.SET_UP_BYTES:
        raise ValueError(f"{path}: a set-up has at most {limits.SET_UP_BYTES:,} bytes")
    with open(path, encoding="utf-8") as file:
        try:
            found = parse_json(file.read(), max_digits=19, constants=False, surrogates=False)
            return SetUp.from_dict(found)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}: this is no set-up of cmlp play: {error}") from None


def serve(
    own: Own | None = None, setup: SetUp | None = None, *, port: int = 0, opens: bool = True
) -> None:
    """Serve the page until Ctrl-C, and print its address."""
    door = Door(port)
    print(f"cmlp play: {door.url}\n(on this machine alone; Ctrl-C ends it)", flush=True)
    if opens:
        webbrowser.open(door.url)
    from cmlp.page.ahead import Ahead

    ahead = Ahead(own, setup)
    from cmlp.page.server import PageServer  # while it trains

    server = PageServer(own, setup, door, ahead)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve()
    server.close()


def play(
    model: Any = None,
    X: Any = None,
    y: Any = None,
    *,
    X_val: Any = None,
    y_val: Any = None,
    setup: dict[str, Any] | None = None,
    port: int = 0,
    open_browser: bool = True,
) -> Any:
    """Open a page that draws a network while it learns, on the real engine.

    The page is served on this machine alone. The model that is passed stays as it is: the page
    trains a copy. In a notebook the page is a widget, if anywidget is installed.

    Parameters
    ----------
    model : Network or fitted estimator, optional
        By default the page begins with handwritten digits. Of an estimator's networks the first is
        shown; a tabular one's gets the rows as its encoder makes them.
    X, y : array-like, (n, n_in) and (n,) or (n, n_out)
        Rows to train on, as the model's ``fit`` takes them; with a model they are required.
    X_val, y_val : array-like, optional
        Rows that are held out.
    setup : dict, optional
        Fields of a set-up, as the page saves them.
    port : int
        0 takes a free one.
    open_browser : bool
        Whether a browser is opened.

    Returns
    -------
    widget or None
        In a notebook the widget; else None, after Ctrl-C.

    Raises
    ------
    TypeError, ValueError
        If it is another kind of model, or the rows do not fit it.
    ImportError
        Without websockets: ``pip install 'cmlp[play]'``.
    """
    from cmlp.page.set_up import SetUp

    own = None
    if model is not None:
        if X is None or y is None:
            raise ValueError("play(model, X, y) needs rows to train on: X and y")
        from cmlp.page.models import own_of

        own = own_of(model, X, y, X_val, y_val)
    elif X is not None or y is not None:
        raise ValueError("play(model, X, y) needs a model for these rows")
    made = None if setup is None else SetUp.from_dict(setup)
    if in_notebook():
        from cmlp.page.widget import widget_of

        return widget_of(own, made)
    serve(own, made, port=port, opens=open_browser)
    return None


def in_notebook() -> bool:
    """Whether a notebook runs this, and anywidget is installed."""
    shell = sys.modules.get("IPython")
    running = shell is not None and shell.get_ipython() is not None
    if not running or "ipykernel" not in sys.modules:
        return False
    from importlib.util import find_spec

    return find_spec("anywidget") is not None

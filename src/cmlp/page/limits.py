"""How much a page may request; it is told all of it when it connects."""

from __future__ import annotations

UPLOAD_BYTES = 20_000_000
MESSAGE_BYTES = 1 << 20
PART_BYTES = 256_000
SET_UP_BYTES = 1_000_000
ROWS = 200_000
COLUMNS = 1_000
POINTS = 5_000
HIDDEN_LAYERS = 8
UNITS = 512
"""With so many layers at most 1.9 million parameters, of digits."""

EPOCHS = 100_000
FIRST_PRODUCTS = 5_000_000_000
"""Epochs x rows x parameters before the first picture: some seconds."""

SESSIONS = 8
MESSAGES_PER_SECOND = 30
HISTORY_BYTES = 64_000_000
"""Memory of one session's checkpoints."""

FRAME_PARAMETERS = 16_384
"""Parameters up to which a frame has all weights; of larger networks it has a part."""


def told() -> dict[str, int]:
    """Return the limits that a page shows."""
    return {
        "upload": UPLOAD_BYTES,
        "part": PART_BYTES,
        "setup": SET_UP_BYTES,
        "rows": ROWS,
        "columns": COLUMNS,
        "points": POINTS,
        "layers": HIDDEN_LAYERS,
        "units": UNITS,
        "epochs": EPOCHS,
        "sessions": SESSIONS,
    }

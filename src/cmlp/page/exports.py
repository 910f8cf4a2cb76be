"""What a page takes away: a diagnosis in words, a script, a set-up, a model file."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from cmlp.formats import cmlp_file
from cmlp.model.history import History
from cmlp.page.build import targets_of
from cmlp.page.frames import to_bytes
from cmlp.page.host import Host
from cmlp.page.script import script_of
from cmlp.page.set_up import SetUpError


class Exports:
    """Answers messages about what leaves the page."""

    def __init__(self, session: Host) -> None:
        self.session = session

    def handlers(self) -> dict[str, Any]:
        """Return what answers which message."""
        return {"diagnose": self.diagnose, "export": self.export}

    def diagnose(self, message: dict[str, Any]) -> None:
        """Report in words what keeps the network from learning."""
        from cmlp.diagnosis.report import diagnose

        session = self.session
        run, rows = session.run, session.rows
        if not run.step:
            session.event("diagnosis", ok=True, findings=[], looked_at="")
            return
        net = run.net
        names = ("epoch", "", "loss", "val_loss", "val_score")[: 3 if run.held_out is None else 5]
        columns = dict(zip(names, zip(*run.curve, strict=True), strict=False))
        net.history = History({k: list(v) for k, v in columns.items() if k}, metric="accuracy")
        if session.setup.data != "own":
            targets = targets_of(session.setup, rows.y, net.sizes[-1])
        else:
            targets = net.classes[rows.y] if net.classes is not None else rows.y
        session.event("diagnosis", **diagnose(net, rows.X, targets).to_dict())

    def export(self, message: dict[str, Any]) -> None:
        """Send a script, a set-up or a model file."""
        session, kind = self.session, message.get("kind")
        net, run = session.run.net, session.run
        if kind == "python":
            changed = session.changes > 0
            text = script_of(session.setup, net.sizes[0], net.sizes[-1], max(1, run.epoch), changed)
            session.event("file", name="run.py", text=text)
        elif kind == "setup":
            text = json.dumps(session.setup.differences(), indent=1)
            session.event("file", name="setup.json", text=text)
        elif kind == "model":
            file = io.BytesIO()
            cmlp_file.save(net, file, optimizer=False)
            raw = np.frombuffer(file.getvalue(), np.uint8)
            session.channel.send(to_bytes({"bytes": raw}, {"kind": "file", "name": "network.cmlp"}))
        else:
            raise SetUpError("kind", "must be python, setup or model")

"""Fixtures of the command's tests."""

from __future__ import annotations

import pytest

from cmlp import cli


@pytest.fixture
def run(capsys):
    """Run the command in this process; return its exit code and what it printed."""

    def run(*args):
        try:
            code = cli.main([str(arg) for arg in args])
        except SystemExit as stop:  # argparse
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture
def complaint(run):
    """Run a command that must fail; return its one line."""

    def complaint(*args, code=2):
        came, out, err = run(*args)
        assert came == code and "epoch" not in out.replace("epochs", ""), (came, out, err)
        assert err.startswith("cmlp: error: ") and err.count("\n") == 1 and err.endswith("\n")
        return err

    return complaint


@pytest.fixture
def in_folder(tmp_path, monkeypatch):
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path

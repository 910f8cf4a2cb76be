"""Model files of an older cmlp are read, predict the same, and continue training alike."""

import io
import json

import numpy as np
import pytest
from golden import make_golden as golden

import cmlp

STORED = json.loads((golden.HERE / "golden.json").read_text())


def path_of(name):
    return golden.HERE / f"{name}.cmlp"


@pytest.mark.parametrize("name", STORED)
def test_a_file_computes_what_it_did(core, name):
    """Up to rounding, which adds up over the steps: other cores sum in another order."""
    net = cmlp.load(path_of(name))
    limit = 64 * float(np.finfo(net.dtype).eps)
    today = golden.computed(net, name)
    assert today.keys() == STORED[name].keys()
    for key, expected in STORED[name].items():
        got = today[key]
        if isinstance(expected, dict):
            assert got.keys() == expected.keys()
            got, expected = list(got.values()), list(expected.values())
        np.testing.assert_allclose(got, expected, rtol=limit, atol=limit, err_msg=key)


@pytest.mark.parametrize("name", STORED)
def test_a_file_that_is_saved_again_has_the_same_bytes(name):
    saved = io.BytesIO()
    cmlp.load(path_of(name)).save(saved, optimizer=True)
    assert saved.getvalue() == path_of(name).read_bytes()


def test_a_file_holds_all_that_belongs_to_a_training():
    net = cmlp.load(path_of("classifier"))
    assert net.classes.tolist() == ["high", "low", "middle"]
    assert net.feature_names == ["a", "b", "c", "d", "β"] and net.target_name == "level"
    assert net.normalization == "batch" and len(net.running) == 2
    assert net.history.epochs == net.history.best_epoch == 12 and net.history.restored
    assert net.history.metric == "accuracy" and len(net.history["val_score"]) == 12
    assert (net.solver, net.steps, len(net.moments)) == ("adam", 36, 2)
    net = cmlp.load(path_of("regressor"))
    assert (net.loss_name, net.loss_parameter) == ("quantile", 0.3) and net.missing_targets
    assert (net.solver, net.steps, net.averaged, len(net.moments)) == ("sgd", 96, 96, 2)
    assert net.dtype == np.float64 and net.classes is None
    net = cmlp.load(path_of("slopes"))
    assert net.activations == ("leaky_relu:0.3", "elu:0.5", "leaky_relu:0.1")
    assert (net.normalization, net.normalization_epsilon) == ("layer", 0.01)

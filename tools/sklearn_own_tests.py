"""Run scikit-learn's own tests of its multilayer perceptrons on cmlp's.

    python tools/sklearn_own_tests.py [--core NAME] [--dtype float64] [pytest options]

The test module is the installed scikit-learn's; its two classes are replaced before it is imported.
NOT_APPLICABLE lists the tests that cannot apply, each with its reason.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import pytest
import sklearn
from sklearn import neural_network

import cmlp

PRIVATE = "calls a private method, _loss_grad_lbfgs"
FOLLOWS_X = "the dtype of the weights is a parameter here, not that of X"
ROUNDING = "compares to 1e-7, which the default float32 cannot; passes with --dtype float64"

NOT_APPLICABLE = {
    "test_gradient": PRIVATE,
    "test_early_stopping_stratified": "expects the label 'True'; the message has the user's, '1'",
}
FLOAT32_ONLY = {
    "test_partial_fit_regression": ROUNDING,
    "test_mlp_param_dtypes[MLPClassifier-float64]": FOLLOWS_X,
    "test_mlp_param_dtypes[MLPRegressor-float64]": FOLLOWS_X,
}
FLOAT64_ONLY = {
    "test_mlp_param_dtypes[MLPClassifier-float32]": FOLLOWS_X,
    "test_mlp_param_dtypes[MLPRegressor-float32]": FOLLOWS_X,
}


class Replaced:
    """A pytest plugin that skips the tests that cannot apply."""

    def __init__(self, left_out: dict[str, str]) -> None:
        self.left_out = left_out

    def pytest_collection_modifyitems(self, config: Any, items: list[Any]) -> None:
        left_out = [item for item in items if item.name in self.left_out]
        items[:] = [item for item in items if item.name not in self.left_out]
        config.hook.pytest_deselected(items=left_out)

    @pytest.fixture
    def global_random_seed(self) -> int:
        """Replace a fixture of scikit-learn's conftest."""
        return 42


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--core", help="a core of cmlp, as in CMLP_CORE")
    parser.add_argument("--dtype", default="float32", help="the default dtype of both classes")
    arguments, options = parser.parse_known_args()
    if arguments.core:
        cmlp.use_core(arguments.core)
    for estimator in (cmlp.MLPClassifier, cmlp.MLPRegressor):
        estimator.__init__.__kwdefaults__["dtype"] = arguments.dtype
    left_out = NOT_APPLICABLE | (FLOAT32_ONLY if arguments.dtype == "float32" else FLOAT64_ONLY)
    neural_network.MLPClassifier = cmlp.MLPClassifier
    neural_network.MLPRegressor = cmlp.MLPRegressor
    module = Path(neural_network.__file__).parent / "tests" / "test_mlp.py"
    core = cmlp.core_info().core
    print(f"scikit-learn {sklearn.__version__}, cmlp's {core} core, {arguments.dtype}")
    code = pytest.main(
        [str(module), "-q", "-p", "no:cacheprovider", "--noconftest", *options],
        [Replaced(left_out)],
    )
    for name, reason in left_out.items():
        print(f"not applicable: {name}: {reason}")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())

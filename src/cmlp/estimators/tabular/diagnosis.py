"""What a tabular estimator passes to a diagnosis: its networks, and rows as they see them."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from cmlp.core.layout import Array
from cmlp.diagnosis.model import model_of_network
from cmlp.diagnosis.report import Diagnosis, diagnose_models
from cmlp.estimators.tabular.members import Member
from cmlp.network import Network

if TYPE_CHECKING:
    from cmlp.estimators.tabular.targets import Rows
    from cmlp.estimators.targets import Targets


def diagnose(
    estimator: Any,
    rows: Rows,
    targets: Targets,
    held_out: tuple[Rows, Targets] | None,
) -> Diagnosis:
    """Diagnose the members that the first encoder belongs to, on encoded rows."""
    members: list[Member] = [each for each in estimator._members if each.encoder == 0]
    settings = estimator.parameters_

    def fit(net: Network, X: Array, y: Array, **more: Any) -> None:
        net.fit(
            X, y, solver=settings["solver"], learning_rate=settings["learning_rate_init"],
            beta_2=settings["beta_2"], batch_size=settings["batch_size"], **more,
        )  # fmt: skip

    models = [
        replace(model_of_network(member.network, fit), is_estimator=True) for member in members
    ]
    scale = members[0].scale

    def encoded(rows: Rows, targets: Targets) -> tuple[Any, Array]:
        y = targets.encoded if scale is None else scale.to_network(targets.encoded)
        return estimator.encoders_[0].transform(rows.X), y

    X, y = encoded(rows, targets)
    X_val, y_val = (None, None) if held_out is None else encoded(*held_out)
    return diagnose_models(models, X, y, sample_weight=targets.weights, X_val=X_val, y_val=y_val)

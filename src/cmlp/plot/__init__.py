"""Pictures of trainings and networks, with matplotlib: ``pip install 'cmlp[plot]'``.

Every function takes a fitted :class:`~cmlp.Network`, MLPClassifier or MLPRegressor (`attributions`:
what :func:`cmlp.attributions` has found), draws into `ax` (or into a new figure, by way of
``plt.subplots``) and returns what it drew into; nothing is shown, closed or set for other pictures.
Classes and curves differ by colour, and by marker or line style as well, in colours that
colour-blind readers tell apart.
"""

from cmlp.plot.classes import confusion_matrix, decision_regions
from cmlp.plot.contributions import attributions
from cmlp.plot.curves import loss_curve, validation_curve
from cmlp.plot.units import activations, first_layer_weights, gradient_norms

__all__ = [
    "activations",
    "attributions",
    "confusion_matrix",
    "decision_regions",
    "first_layer_weights",
    "gradient_norms",
    "loss_curve",
    "validation_curve",
]

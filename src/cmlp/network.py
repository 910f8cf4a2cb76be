"""Network: layer sizes, activations, one flat parameter vector and views into it."""

from __future__ import annotations

import contextlib
import copy
import functools
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cmlp.core import dispatch
from cmlp.core.arrays import refuse_masked
from cmlp.core.checks import check_dtype, check_input_scale, check_integer, check_number
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import (
    ALIGNMENT,
    BIAS,
    N_IN,
    N_OUT,
    STRIDE,
    UNITS,
    WEIGHTS,
    Array,
    address,
    aligned,
    folded,
    make_plan,
    normalization_views,
    params_size,
)
from cmlp.core.vocabulary import (
    ACTIVATIONS,
    LOSS_PARAMETERS,
    LOSSES,
    NORMALIZATION_VECTORS,
    NORMALIZATIONS,
    SOLVERS,
    Loss,
    Solver,
    lookup,
    unknown,
)
from cmlp.data.checks import RowsLike, check_weights, check_X
from cmlp.data.rows import Data
from cmlp.data.targets import check_targets
from cmlp.model import custom_loss, passes, scoring
from cmlp.model.assignment import ASSIGNED, check_kept, check_optimizer, put, refuse_unknown
from cmlp.model.custom_loss import CustomLoss, lost_loss
from cmlp.model.history import History, solver_of
from cmlp.model.initialise import draw, initialiser
from cmlp.training import divergence, fit
from cmlp.training.recipe import Recipe, make_recipe
from cmlp.training.trainer import Trainer

if TYPE_CHECKING:
    from cmlp.diagnosis.report import Diagnosis
    from cmlp.explain.gradient_check import GradientCheck
    from cmlp.explain.trace import Trace

Method = TypeVar("Method", bound=Callable[..., Any])


class Propagation(NamedTuple):
    """Every layer's numbers for some rows: lists with one array per layer, (rows, n_out)."""

    z: list[Array]
    """Weighted sums, ``a_before W + b``."""
    a: list[Array]
    """Activations; the last is the output."""


class Gradients(NamedTuple):
    """Derivatives of the loss."""

    weights: list[Array]
    """dC/dW of each layer, (n_in, n_out)."""
    biases: list[Array]
    """dC/db of each layer, (n_out,)."""
    inputs: Array
    """dC/dX, (rows, n_in)."""
    loss: float
    scales: list[Array]
    """dC/dgamma of each normalised layer, (n_out,); empty if there is none."""


def _trains(method: Method) -> Method:
    """Let no two threads train a network at once (see :meth:`Network.alone`), undisturbed."""

    @undisturbed
    @functools.wraps(method)
    def guarded(self: Network, *args: Any, **kwargs: Any) -> Any:
        with self.alone():
            return method(self, *args, **kwargs)

    return cast(Method, guarded)


class Views(list[Array]):
    """Arrays that share the parameters' memory: ``net.weights[0] = W`` writes W into it."""

    def __setitem__(self, index: Any, value: Any) -> None:
        refuse_masked("the value", value)
        with np.errstate(under="ignore"):  # too large a number is worth NumPy's warning
            self[index][...] = value


class Network:
    """A multilayer perceptron.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer from the inputs to the outputs: ``[64, 32, 10]`` has 64 inputs, a
        hidden layer of 32 and 10 outputs.
    activation : str or sequence of str
        Of the hidden layers, one for all or one each: 'identity', 'logistic', 'tanh', 'relu',
        'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'mish', 'softplus', 'hard_sigmoid', 'exp'.
    out_activation : str, optional
        Of the output layer, also 'softmax'. By default the one that belongs to the loss.
    loss : str or callable, optional
        'squared_error', 'absolute_error', 'huber', 'binary_crossentropy' (also multi-label),
        'categorical_crossentropy', 'poisson', 'quantile'. A row's losses are summed over the
        outputs and averaged over the rows. By default categorical cross-entropy for two outputs
        and more, squared error for one; or what belongs to `out_activation`, if that is given.

        A callable takes (outputs, targets), both (rows, n_out), and returns the mean loss of the
        rows and its derivative by the outputs, (rows, n_out). With a third argument,
        ``loss(outputs, targets, sample_weight=None)``, it also serves `sample_weight`: it then gets
        the rows' weights, (rows,) in float64, and returns the mean by these weights. It runs in
        Python once per batch, on one thread, outside the fused step: a second forward pass, the
        gradient written out.
    weight_init : str
        'auto' (He for rectifiers, LeCun for selu, else Glorot), 'glorot_uniform', 'glorot_normal',
        'he_uniform', 'he_normal', 'lecun_uniform', 'lecun_normal', 'orthogonal'. Biases start at 0.
    dtype : {'float32', 'float64'}
    seed : int, numpy Generator or None
        Source of everything random in this network: first weights, order of rows, dropout.
    quantile : float
        The quantile that the loss 'quantile' estimates, between 0 and 1.
    huber_delta : float
        The size of error from which the loss 'huber' is linear.
    input_scale : float
        A factor above 0 of every input, applied as rows are gathered: with ``input_scale=1/255``
        pixels of 0 to 255 train in place, as the bytes they are.
    missing_targets : bool
        With True, a NaN in y stands for a target that is not known: that output of the row has no
        loss, no gradient and no part in the score; the row's other outputs have. With False it is
        an error. Not for categorical cross-entropy, whose outputs share one target. A loss of your
        own sees the NaN.
    normalization : {None, 'batch', 'layer'}
        Normalise the weighted sums of the hidden layers before their activation, to
        ``gamma (z - mean) / sqrt(variance + 1e-5) + beta``. With 'batch' (Ioffe & Szegedy 2015) the
        statistics are a unit's over the rows of a batch (of each 1,024 rows of a larger one; rows
        count alike, whatever their weights are), and running means of them, a tenth of each new
        batch, in prediction. One row has no variance: each unit of it is beta, so batches need
        two. With 'layer' (Ba et al. 2016) they are a row's over the units of the layer. `biases`
        are beta; L1, L2 and weight decay leave gamma and beta alone.

    Attributes
    ----------
    sizes, activations : tuple
        The layers; `activations` has one name per layer, the output's last. Other names may be
        assigned; they act at once.
    params : ndarray
        All weights and biases, one flat vector (rows padded to 64 bytes with zeros). Another one of
        this shape may be assigned; it is not copied if it fits: assign ``other.params.copy()``
        for numbers of its own.
    weights, biases : list of ndarray
        Views into `params`, (n_in, n_out) and (n_out,) per layer: write into them to set them.
    input_scale : float
        What every input is multiplied by.
    missing_targets : bool
        Whether y may hold NaN, for targets that are not known.
    normalization : str or None
        'batch', 'layer' or None.
    scales : list of ndarray
        Views of gamma, (n_out,) per normalised layer.
    running : list of (ndarray, ndarray)
        Views of the running mean and variance, per layer normalised by 'batch'.
    classes : ndarray or None
        The labels in the order of the outputs, once the network has seen labels. Others may be
        assigned, in any order, each once; whole numbers keep every digit.
    feature_names, target_name : list of str, str or None
        What the columns of X and y are called, if whoever trained the network said so. Names that
        are not text become text.
    history : History
        Every epoch so far.
    solver, moments, steps : str, ndarray, int
        The optimizer's state: its rule, (n_moments, len(params)), and the steps taken with them.
        With weight averaging the last of the moments holds the weights that training goes on from.
    averaged : int
        Steps that the weights are a mean of (``fit(..., ema=0.999)``); 0 if they are no mean.

    Notes
    -----
    What is assigned to an attribute predicts from then on, and `save`, pickle and copies keep it;
    what they could not keep is refused at once, and so are names that a network does not have.
    `sizes`, the dtype, the loss and `normalization` are those of the constructor.

    Examples
    --------
    >>> import numpy as np, cmlp
    >>> X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    >>> y = np.array([0, 1, 1, 0])
    >>> net = cmlp.Network([2, 8, 1], "tanh", loss="binary_crossentropy", seed=0)
    >>> history = net.fit(X, y, epochs=200, batch_size=4, learning_rate=0.5)
    >>> net.predict_classes(X).tolist()
    [0, 1, 1, 0]
    """

    _bound: tuple[Any, ...] = (None, None, None)
    """Core and version of the last prediction, and the fast path to it."""

    _unsuited = ""
    """Why the loss is not defined for an output activation that was assigned."""

    _made = False
    """Whether the constructor, which checks what it writes, is through."""

    @undisturbed
    def __init__(
        self,
        sizes: Sequence[int],
        activation: str | Sequence[str] = "relu",
        out_activation: str | None = None,
        loss: str | CustomLoss | None = None,
        weight_init: str = "auto",
        dtype: Any = "float32",
        seed: Any = None,
        *,
        quantile: float = 0.5,
        huber_delta: float = 1.0,
        input_scale: float = 1.0,
        missing_targets: bool = False,
        normalization: str | None = None,
    ) -> None:
        if isinstance(sizes, str) or not isinstance(sizes, Iterable):
            raise TypeError(f"sizes must be a sequence such as [64, 32, 10], not {sizes!r}")
        self.sizes: tuple[int, ...] = tuple(check_integer("every size", size, 1) for size in sizes)
        if len(self.sizes) < 2:
            raise ValueError(f"sizes needs inputs and outputs, as in [64, 10]; it is {sizes!r}")
        self.normalization = self._resolve_normalization(normalization)
        if self.n_params > 1 << 44:
            raise ValueError(
                f"sizes={sizes!r} takes {self.n_params:.1e} parameters: no memory holds them"
            )
        self.dtype = check_dtype(dtype)
        self.loss_row, self._custom_loss, out = self._resolve_loss(loss, out_activation)
        custom = self._custom_loss
        self._weights_argument = custom_loss.weights_argument(custom) if custom else "optional"
        self.activations = (*self._resolve_hidden(activation), out)
        self.loss_parameter = self._resolve_parameter(quantile, huber_delta)
        self.input_scale = check_input_scale(input_scale)
        self.missing_targets = self._resolve_missing(missing_targets)
        self.weight_init = weight_init
        self.plan = make_plan(self.sizes, self.activations, self.dtype, self.normalization)
        self.params = aligned((params_size(self.plan),), self.dtype)
        self.rng = np.random.default_rng(seed)
        for W, name in zip(self.weights, self.activations, strict=True):
            n_in, n_out = W.shape
            W[...] = draw(initialiser(weight_init, name), n_in, n_out, self.rng)
        for gamma, *statistics in normalization_views(self.plan, self.params):
            gamma[...] = 1
            for variance in statistics[1:]:
                variance[...] = 1
        self.classes: Array | None = None
        self.feature_names: list[str] = []
        self.target_name: str | None = None
        self.history = History()
        self.steps = self.averaged = 0
        self.shown_average: int | None = None  # digest of the mean, while it is in `params`
        self.solver = ""
        self.moments = np.zeros((0, len(self.params)), self.dtype)
        self._workspaces: list[Array] = []
        self._training = threading.RLock()  # a callback may train the network that it sees
        self._version = object()  # another one after every assignment
        self._made = True

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ASSIGNED and self._made:
            put(self, **{name: ASSIGNED[name](self, value)})
            return
        if self._made:
            refuse_unknown(self, name)
        super().__setattr__(name, value)

    def _resolve_loss(
        self, loss: str | CustomLoss | None, out_activation: str | None
    ) -> tuple[Loss | None, CustomLoss | None, str]:
        """Find loss and output activation from each other, or from the number of outputs."""
        out = out_activation and lookup("out_activation", ACTIVATIONS, out_activation)
        if callable(loss):
            return None, loss, out.name if out else "identity"
        if loss is None:
            names = {row.out_activation: row.name for row in reversed(LOSSES)}
            default = "categorical_crossentropy" if self.sizes[-1] > 1 else "squared_error"
            loss = names.get(out.name, "squared_error") if out else default
        row = lookup("loss", LOSSES, loss)
        out = out or lookup("out_activation", ACTIVATIONS, row.out_activation)
        if row.domain[0] > out.range[0] or row.domain[1] < out.range[1]:
            raise ValueError(
                f"{row.name} needs outputs between {row.domain[0]:g} and {row.domain[1]:g}, but "
                f"out_activation={out.name!r} leaves that range; use {row.out_activation!r}"
            )
        if self.sizes[-1] == 1 and "softmax" in (out.name, row.out_activation):
            raise ValueError(
                f"{row.name} with {out.name} needs an output per class; for two classes with one "
                "output use loss='binary_crossentropy'"
            )
        return row, None, out.name

    def _resolve_hidden(self, activation: str | Sequence[str]) -> list[str]:
        n_hidden = len(self.sizes) - 2
        if not isinstance(activation, Iterable):
            raise TypeError(f"activation must be a name or a list of names, not {activation!r}")
        names = [activation] * n_hidden if isinstance(activation, str) else list(activation)
        if isinstance(activation, str):
            lookup("activation", ACTIVATIONS, activation)
        if len(names) != n_hidden:
            raise ValueError(
                f"activation has {len(names)} names, but there are {n_hidden} hidden layers"
            )
        rows = [lookup("activation", ACTIVATIONS, name) for name in names]
        for row in rows:
            if row.output_only:
                raise ValueError(f"{row.name} is for the output layer: out_activation={row.name!r}")
        return [row.name for row in rows]

    def _resolve_parameter(self, quantile: float, huber_delta: float) -> float:
        quantile = check_number("quantile", quantile, 0, 1)
        huber_delta = check_number("huber_delta", huber_delta, 0)
        return {"quantile": quantile, "huber": huber_delta}.get(self.loss_name, 0.0)

    def _resolve_missing(self, missing_targets: bool) -> bool:
        if missing_targets and self.loss_name == "categorical_crossentropy":
            raise ValueError(
                "missing_targets has no meaning for categorical_crossentropy, whose outputs share "
                "one target: leave the rows out, or give them the sample_weight 0"
            )
        return bool(missing_targets)

    def _resolve_normalization(self, normalization: str | None) -> str | None:
        if normalization is None:
            return None
        names = NORMALIZATIONS[1:]
        if normalization not in names:
            raise unknown("normalization", normalization, names, ("None", *names))
        if len(self.sizes) == 2:
            raise ValueError("normalization needs a hidden layer; this network has none")
        return normalization

    # What it is ----------------------------------------------------------------------------------

    @property
    def loss_name(self) -> str:
        """The loss; 'custom' for a callable."""
        return "custom" if self.loss_row is None else self.loss_row.name

    @property
    def n_params(self) -> int:
        """Number of weights, biases and scales, without the padding."""
        gammas = sum(self.sizes[1:-1]) if self.normalization else 0
        return sum((n_in + 1) * n_out for n_in, n_out in pairwise(self.sizes)) + gammas

    def _views(self, flat: Array) -> tuple[Views, Views]:
        """Cut a vector laid out like `params` into weights and biases."""
        weights, biases = Views(), Views()
        for row in self.plan.tolist():
            n_in, n_out, stride, at, bias = (
                row[column] for column in (N_IN, N_OUT, STRIDE, WEIGHTS, BIAS)
            )
            weights.append(flat[at : at + n_in * stride].reshape(n_in, stride)[:, :n_out])
            biases.append(flat[bias : bias + n_out])
        return weights, biases

    @property
    def weights(self) -> list[Array]:
        """Each layer's weights, (n_in, n_out), as views into `params`."""
        return self._views(self.params)[0]

    @property
    def biases(self) -> list[Array]:
        """Each layer's biases, (n_out,), as views into `params`."""
        return self._views(self.params)[1]

    @property
    def scales(self) -> list[Array]:
        """Each normalised layer's gamma, (n_out,), as views into `params`."""
        return self._scale_views(self.params)

    def _scale_views(self, flat: Array) -> list[Array]:
        return Views(gamma for gamma, *_ in normalization_views(self.plan, flat))

    @property
    def running(self) -> list[tuple[Array, Array]]:
        """Running mean and variance of each layer normalised by 'batch', as views."""
        parts = normalization_views(self.plan, self.params)
        return [(part[1], part[2]) for part in parts if len(part) == 3]

    def _parts(self, flat: Array, prefix: str = "") -> dict[str, Array]:
        """Cut a vector laid out like `params` into all its parts, by their names in a file."""
        kinds: dict[str, Iterable[Array]]
        kinds = dict(zip(("weight", "bias"), self._views(flat), strict=True))
        normalization = zip(*normalization_views(self.plan, flat), strict=True)
        kinds |= zip(NORMALIZATION_VECTORS[self.normalization], normalization, strict=False)
        return {
            f"{prefix}layers.{number}.{kind}": part
            for kind, parts in kinds.items()
            for number, part in enumerate(parts)
        }

    def __repr__(self) -> str:
        hidden = self.activations[:-1]
        activation: Any = hidden[0] if len(set(hidden)) == 1 else list(hidden)
        named = f", activation={activation!r}" if hidden else ""
        scaled = f", input_scale={self.input_scale!r}" if self.input_scale != 1 else ""
        if self.normalization:
            scaled += f", normalization={self.normalization!r}"
        loss = f"loss={self.loss_name!r}"
        if parameter := LOSS_PARAMETERS.get(self.loss_name):
            loss += f", {parameter}={self.loss_parameter!r}"
        return (
            f"Network({list(self.sizes)}{named}, out_activation={self.activations[-1]!r}, "
            f"{loss}, dtype={self.dtype.name!r}{scaled})"
        )

    def summary(self) -> str:
        """Return a table of the layers, with the number of parameters."""
        rows = [("layer", "in", "out", "activation", "weights", "biases")]
        layers = zip(pairwise(self.sizes), self.activations, strict=True)
        for number, ((n_in, n_out), activation) in enumerate(layers, 1):
            weights, biases = f"{n_in * n_out:,}", f"{n_out:,}"
            rows.append((str(number), str(n_in), str(n_out), activation, weights, biases))
        columns = zip((5, 6, 5, 12, 9, 7), *rows, strict=True)
        widths = [max(least, *map(len, cells)) for least, *cells in columns]
        row = "{{:>{}}}  {{:>{}}} -> {{:>{}}}  {{:{}}}  {{:>{}}}  {{:>{}}}".format(*widths)
        lines = [row.format(*cells) for cells in rows]
        size = self.n_params * self.dtype.itemsize
        bytes = f"{size / 1000:,.1f} kB" if size >= 1000 else f"{size} bytes"
        scaled = f", inputs times {self.input_scale:g}" if self.input_scale != 1 else ""
        if self.normalization:
            scaled += f", hidden layers normalised by {self.normalization}"
        lines.append(
            f"{self.n_params:,} parameters ({bytes}, {self.dtype.name}), "
            f"loss {self.loss_name}{scaled}"
        )
        return "\n".join(lines)

    # Forward -------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def scratch(self, batch_size: int = 1) -> Iterator[Array]:
        """Lend a workspace for the core; one is kept, so that small calls do not allocate."""
        size = dispatch.core.workspace_size(self.plan, batch_size)
        workspace = np.empty(0, self.dtype)
        with contextlib.suppress(IndexError):  # another thread may have it
            workspace = self._workspaces.pop()
        if len(workspace) < size:
            workspace = aligned((size,), self.dtype)
        try:
            yield workspace
        finally:
            if workspace.nbytes <= 1 << 22:
                self._workspaces[:] = [workspace]

    def predict(self, X: RowsLike) -> Array:
        """Return the output activations.

        Parameters
        ----------
        X : array-like or sparse, (n, n_in)
            Any real dtype and memory order; read row by row, never copied as a whole.

        Returns
        -------
        ndarray, (n, n_out)

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        """
        ready: Array | None = self._ready_outputs()(X)
        return self._predicted(X) if ready is None else ready

    @undisturbed
    def _predicted(self, X: RowsLike) -> Array:
        """Return the output activations of any X, without the fast path."""
        rows = check_X(X, self.sizes[0], self.dtype)
        out = np.empty((len(rows), self.sizes[-1]), self.dtype)
        with self.scratch() as workspace:
            for part, some, numbers in passes.portions(rows, passes.flops_of(self)):
                dispatch.core.predict(
                    self.plan, self.params, some, numbers, out[part], workspace, self.input_scale
                )
        return out

    @undisturbed
    def for_prediction(self) -> tuple[NDArray[np.int64], Array]:
        """Return the plan and parameters that predict, with 'batch' folded into the weights."""
        return folded(self.plan, self.params)

    def folded(self) -> Network:
        """Return a copy with normalisation by 'batch' folded into its weights.

        It predicts the same, up to rounding, and has no statistics to learn any more. One that is
        normalised otherwise, or not at all, is copied as it is, without optimizer state.
        """
        other = self.astype(self.dtype)
        if self.normalization == "batch":
            plan, params = self.for_prediction()
            put(other, normalization=None, plan=plan, params=params)
            other.moments = np.zeros((0, len(params)), other.dtype)
        return other

    def _ready_outputs(self) -> Callable[[Any], Array | None]:
        """Return the fast path of :meth:`predict`, which belongs to the core and network of now.

        It answers what needs no closer look, and None to anything else.
        """
        core, version, outputs = self._bound
        if core is not dispatch.core or version is not self._version:
            outputs = self._bind()
        ready: Callable[[Any], Array | None] = outputs
        return ready

    def _bind(self) -> Callable[[Any], Array | None]:
        core, version = dispatch.core, self._version  # first: another thread may assign now
        outputs: Callable[[Any], Array | None]
        outputs = core.Predictor(self.plan, self.params, self.input_scale).outputs
        self._bound = core, version, outputs
        return outputs

    def predictor(self, batch_size: int = 1) -> Any:
        """Return a callable that gives one row's outputs in a fraction of a microsecond.

        What :meth:`predict` does at every call is done once: ``p = net.predictor()``; ``p(x)``.

        Parameters
        ----------
        batch_size : int
            Rows of a call, at most.

        Returns
        -------
        callable
            ``p(x, out=None)``, for x (n_in,) or (n, n_in): the outputs, (n_out,) or (n, n_out), in
            **one array that the next call overwrites**; copy what you keep, or give an array to
            write to as `out` (then n may be anything). NaN, infinity and masks are not looked for.

            It belongs to the parameters, the activations, the input scale and the core of now.
            Changes in place are seen, such as training or ``net.weights[0] = W``; after an
            assignment to these attributes or :class:`cmlp.use_core` make another one, as after
            every training with ``normalization='batch'``, which is folded into weights of its own.
            Make one for each thread. It is not pickled.
        """
        check_integer("batch_size", batch_size, 1)
        return dispatch.core.Predictor(*self.for_prediction(), self.input_scale, batch_size)

    def predict_classes(self, X: RowsLike) -> Array:
        """Return the likeliest label of each row, (n,); for several labels per row a 0/1 matrix."""
        out = self.predict(X)
        if self.classes is not None:
            index = out.argmax(axis=1) if out.shape[1] > 1 else (out[:, 0] > 0.5).astype(np.intp)
            return np.asarray(self.classes[index])
        if self.loss_name == "categorical_crossentropy":
            return np.asarray(out.argmax(axis=1))
        if self.loss_name == "binary_crossentropy":
            labels = (out > 0.5).astype(np.int64)
            return labels if out.shape[1] > 1 else labels[:, 0]
        raise ValueError(
            f"this network was trained with {self.loss_name} on numbers, not on class labels; "
            "use predict"
        )

    @undisturbed
    def forward(self, X: RowsLike, return_all: bool = False) -> Any:
        """Propagate X through the layers.

        Returns
        -------
        ndarray or Propagation
            The outputs, (n, n_out); with ``return_all`` every layer's sums (of a normalised layer:
            what its activation is applied to) and activations.
        """
        if not return_all:
            return self.predict(X)
        rows = check_X(X, self.sizes[0], self.dtype)
        z, a = self._record(len(rows)), self._record(len(rows))
        with self.scratch() as workspace:
            dispatch.core.forward(self.plan, self.params, rows, z, a, workspace, self.input_scale)
        return Propagation(self._cut_record(z), self._cut_record(a))

    def _record(self, n: int) -> Array:
        """Make room for one number per row and unit."""
        return np.zeros((n, int(self.plan[-1, UNITS] + self.plan[-1, STRIDE])), self.dtype)

    def _cut_record(self, record: Array) -> list[Array]:
        return [record[:, row[UNITS] : row[UNITS] + row[N_OUT]] for row in self.plan.tolist()]

    # Loss and gradients --------------------------------------------------------------------------

    def custom_loss(
        self, out: Array, y: Array, weights: NDArray[np.float64] | None = None
    ) -> tuple[float, Array]:
        """Call the loss that was given as a callable, and check what it returns."""
        assert self._custom_loss is not None
        return custom_loss.call(self._custom_loss, self._weights_argument, out, y, weights)

    def target_matrix(self, targets: Array) -> Array:
        """Return encoded targets as numbers, (n, n_out): class numbers become one-hot rows."""
        if targets.ndim == 1:
            targets = targets[:, None] == np.arange(self.sizes[-1])
        return np.array(targets, self.dtype)  # a copy: what a custom loss does to it stays there

    def _data(
        self, X: RowsLike, y: ArrayLike, sample_weight: ArrayLike | None = None, suffix: str = ""
    ) -> Data:
        """Check rows, targets and weights; the labels of the first targets seen are kept."""
        rows = check_X(X, self.sizes[0], self.dtype, f"X{suffix}")
        n = len(rows)
        if n == 0:
            raise ValueError(f"X{suffix} has no rows")
        weights = check_weights(sample_weight, n)
        if weights is not None and self._weights_argument == "no":
            raise custom_loss.refuse_weights()
        if self._unsuited:
            raise ValueError(self._unsuited)
        targets, classes = check_targets(
            y, n, self.sizes[-1], self.loss_row, self.classes, self.dtype, f"y{suffix}",
            self.missing_targets,
        )  # fmt: skip
        if classes is not self.classes:
            self.classes = classes
        return Data(rows, targets, weights)

    @undisturbed
    def loss(self, X: RowsLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the (weighted) mean loss of the rows, without penalties, dropout or smoothing."""
        return scoring.evaluate(self, self._data(X, y, sample_weight), None)[0]

    @undisturbed
    def score(self, X: RowsLike, y: ArrayLike, sample_weight: ArrayLike | None = None) -> float:
        """Return the accuracy for classes, the coefficient of determination R^2 for numbers.

        R^2 of fewer than two rows is NaN, with an UndefinedMetricWarning.
        """
        return scoring.evaluate(self, self._data(X, y, sample_weight), None, warns=True)[1]

    @undisturbed
    def gradients(
        self,
        X: RowsLike,
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
    ) -> Gradients:
        """Return the derivatives of ``loss(X, y) + l1 sum|W| + l2/2 sum W^2`` by backpropagation.

        With ``normalization='batch'`` these are of the loss with the statistics of these rows, as a
        step takes them; ``net.folded().gradients(X, y)`` has those of the loss in prediction.

        Returns
        -------
        Gradients
            Lists of dC/dW and dC/db, one per layer; dC/dX; and the value of the loss.
        """
        data = self._data(X, y, sample_weight)
        loss, grads, _, dX = self._backpropagate(data, Recipe(l1=l1, l2=l2), inputs=True)
        return Gradients(*self._views(grads), dX, loss, self._scale_views(grads))

    def _backpropagate(
        self,
        data: Data,
        recipe: Recipe,
        *,
        deltas: bool = False,
        inputs: bool = False,
        learns: bool = False,
        team: NDArray[np.int64] | None = None,
    ) -> tuple[float, Array, Array, Array]:
        """Return loss, flat gradient, record of deltas and dC/dX (the last two on request).

        If it `learns`, running statistics follow those of the rows. A `team` lets another thread
        end the call early.
        """
        n, core = len(data.X), dispatch.core
        objective, noise = recipe.objective(self), recipe.noise(self, 0)
        grads = np.zeros_like(self.params)
        record = self._record(n if deltas else 0)
        dX = np.empty((n if inputs else 0, self.sizes[0]), self.dtype)
        targets, weights, value = data.targets, data.weights, 0.0
        if self.loss_row is None:
            out = np.empty((n, self.sizes[-1]), self.dtype)
            with self.scratch(n) as workspace:
                core.evaluate(
                    self.plan, self.params, data.X, targets, None, objective, noise, 0, out,
                    np.empty(n, self.dtype), workspace, self.input_scale, team,
                )  # fmt: skip
            value, targets = self.custom_loss(out, self.target_matrix(targets), weights)
            objective = passes.shared_penalties(objective, weights)
            weights = None  # they are in dC/da
        with self.scratch(n) as workspace:
            value += core.gradient(
                self.plan, self.params, data.X, targets, weights, None, objective, noise, 0,
                grads, record, dX, workspace, self.input_scale, learns, team,
            )  # fmt: skip
        return value, grads, record, dX

    # Training ------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Train in this block, and refuse other threads that want to train the same network.

        Two trainings at once would take steps from each other's weights with moments of their own,
        and no result could be had again. Predictions are no trainings: they see the weights of the
        moment.
        """
        if not self._training.acquire(blocking=False):
            raise RuntimeError(
                "another thread is training this network: wait for it, or train a copy "
                "(copy.deepcopy(net))"
            )
        try:
            yield
        finally:
            self._training.release()

    def moments_for(self, rule: Solver, averages: bool = False) -> Array:
        """Return the optimizer's state, (n_moments, len(params)); another solver starts afresh.

        If it `averages`, there is one more row, for a mean of the parameters.
        """
        fresh = rule.name != self.solver
        if fresh:
            self.solver, self.steps = rule.name, 0
        if fresh or len(self.moments) != rule.n_moments + averages:
            moments = aligned((rule.n_moments + averages, len(self.params)), self.dtype)
            if not fresh:
                moments[: rule.n_moments] = self.moments[: rule.n_moments]
            self.moments, self.averaged, self.shown_average = moments, 0, None
        return self.moments

    @_trains
    def fit(
        self,
        X: RowsLike,
        y: ArrayLike,
        *,
        epochs: int = 10,
        batch_size: int | None = 32,
        solver: str = "sgd",
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        nesterov: bool = False,
        l1: float = 0.0,
        l2: float = 0.0,
        weight_decay: float = 0.0,
        dropout: float | Sequence[float] = 0.0,
        input_noise: float = 0.0,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        ema: float = 0.0,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        X_val: RowsLike | None = None,
        y_val: ArrayLike | None = None,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        schedule: Any = None,
        callbacks: Iterable[Any] = (),
        max_time: float | None = None,
        n_threads: int | None = None,
        verbose: int = 0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
    ) -> History:
        """Train by gradient descent; called again, it goes on where it stopped.

        Ctrl-C ends the training with a warning and keeps the weights of the last whole step.

        Parameters
        ----------
        X : array-like or sparse, (n, n_in)
            Any real dtype and memory order. Rows are converted as batches are gathered: a set of
            uint8 pixels is never copied, and of a SciPy sparse matrix or array only one batch of
            rows at a time has its zeros written out.
        y : array-like
            Class labels, (n,): text, bytes, truth values or numbers, of which integers keep every
            digit of their 64 bits; one-hot rows or a 0/1 matrix, (n, n_out); or numbers. Masked
            entries are refused here as in X and in weights.
        epochs : int
            Times that every row is used.
        batch_size : int or None
            Rows per step: 1 is stochastic descent, None (all rows) is batch descent.
        solver : {'sgd', 'adam', 'adamw', 'rmsprop', 'nadam', 'lion'}
            The rule of a step. 'adamw' is 'adam'; its decay is `weight_decay` (0.01 is usual).
            'nadam' is Dozat's with its schedule of momentum, as in PyTorch and Keras. 'lion' moves
            every weight by the learning rate: a tenth of Adam's, and beta_2=0.99, are usual.
        learning_rate : float
        momentum : float
            Of 'sgd' (Polyak), [0, 1]; with `nesterov`, Nesterov's.
        l1, l2 : float
            Adds ``l1 sum|W| + l2/2 sum W^2`` to the loss; biases are free.
        weight_decay : float
            Takes ``learning_rate * weight_decay * W`` off the weights at each step, beside the
            gradient (Loshchilov & Hutter 2019).
        dropout : float or sequence of float
            Probability that a hidden unit is switched off for a row; one for all or one per layer.
        input_noise : float
            Standard deviation of noise added to the inputs.
        label_smoothing : float
            Moves cross-entropy targets this far towards equal probabilities.
        clip_norm : float or None
            Largest Euclidean norm of the whole gradient (with its penalties). Costs a pass over the
            gradient, which is otherwise never written out.
        ema : float
            Average the weights over the steps, [0, 1): each step leaves this much of the old mean,
            0.999 is usual (an exponential mean, without bias towards the first weights). The mean
            is what is validated, what callbacks see in the network, and what stays in it; the
            loss of training is that of the weights that move. A further call with `ema` goes on
            from those, unless the network's weights were changed meanwhile; one without it goes on
            from the mean. 0 averages nothing.
        shuffle : bool
            Draw a new order of the rows for each epoch.
        sample_weight : array-like, (n,), optional
        X_val, y_val : array-like, optional
            Rows to validate on after every epoch.
        validation_fraction : float
            Part of the rows to hold out for that instead, drawn anew at each call; labels keep
            their proportions.
        patience : int or None
            Stop when the validation loss (without validation: the training loss) has not reached a
            new low for this many epochs; with validation the best weights come back.
        schedule : str, Schedule or callable, optional
            Learning rate over time, see :mod:`cmlp.schedules`; a callable maps epoch to rate.
        callbacks : iterable
            Functions of a :class:`cmlp.TrainingState`, called after each epoch, or objects with any
            of ``on_train_begin``, ``on_epoch_end``, ``on_train_end``. One that returns anything
            true (True, NumPy's True, 1) ends the training.
        max_time : float or None
            Seconds after which to stop, within a step if need be; that step is not taken.
        n_threads : int or None
            The most to use. None takes every processor, or as many as the environment variable
            ``CMLP_NUM_THREADS`` allows; where that is not set, ``OMP_NUM_THREADS``, by which joblib
            and others divide the processors between their workers. Never more than the process
            may use, and one where a step is too small to gain. The result is the same for any
            number.
        verbose : int
            0 silent; 1 a progress bar (tqdm's or rich's where one is installed, else a line that is
            written over) on a terminal or in a notebook, lines elsewhere; 2 a line per epoch.
            Numbers below 0.001 are shown with an exponent.
        beta_1, beta_2, epsilon : float
            Of 'adam', 'adamw' and 'nadam'; 'rmsprop' averages the squares with `beta_2`, 'lion' has
            no epsilon.

        Returns
        -------
        History
            One list per quantity, one entry per epoch of this call.

        Raises
        ------
        DivergenceError
            When the loss or a weight is not finite; the last finite weights are kept.
        ValueError, TypeError
            For data or parameters that do not fit; the message says what does.
        RuntimeError
            If another thread is training this network.
        """
        recipe = Recipe(
            solver, learning_rate, momentum, nesterov, beta_1, beta_2, epsilon, l1, l2,
            weight_decay, dropout, input_noise, label_smoothing, clip_norm, ema,
        )  # fmt: skip
        recipe.objective(self), recipe.noise(self, 0)
        epochs = check_integer("epochs", epochs, 0)
        if batch_size is not None:
            check_integer("batch_size", batch_size, 1)
        if patience is not None:
            check_integer("patience", patience, 1)
        if n_threads is not None:
            check_integer("n_threads", n_threads, 1)
        if max_time is not None:
            check_number("max_time", max_time, 0)
        check_number("validation_fraction", validation_fraction, 0, 1, open_high=True)
        if (X_val is None) != (y_val is None):
            raise ValueError("X_val and y_val go together; only one of them came")
        if X_val is not None and validation_fraction:
            raise ValueError("give X_val and y_val or validation_fraction, not both")
        classes, validation = self.classes, None
        try:
            data = self._data(X, y, sample_weight)
            if X_val is not None and y_val is not None:
                validation = self._data(X_val, y_val, suffix="_val")
        except (TypeError, ValueError):
            self.classes = classes  # a call that failed leaves no labels behind
            raise
        return fit.fit(
            self,
            data,
            recipe,
            epochs=epochs,
            batch_size=batch_size,
            shuffle=shuffle,
            validation=validation,
            validation_fraction=validation_fraction,
            patience=patience,
            schedule=schedule,
            callbacks=callbacks,
            max_time=max_time,
            n_threads=n_threads,
            verbose=verbose,
        )

    @_trains
    def train_epoch(
        self,
        X: RowsLike,
        y: ArrayLike,
        *,
        batch_size: int | None = 32,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        n_threads: int | None = None,
        **recipe: Any,
    ) -> float:
        """Use every row once, and return the mean loss.

        Parameters
        ----------
        **recipe
            solver, learning_rate, momentum and so on, as in :meth:`fit`.
        """
        data = self._data(X, y, sample_weight)
        rows = np.arange(len(data.X), dtype=np.int64)
        return self._train(data, make_recipe(recipe), batch_size, shuffle, rows, n_threads)

    @_trains
    def step(
        self, X: RowsLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, **recipe: Any
    ) -> float:
        """Take one step on these rows as one batch, and return their loss before it.

        Parameters
        ----------
        **recipe
            solver, learning_rate, momentum and so on, as in :meth:`fit`.
        """
        data = self._data(X, y, sample_weight)
        rows = np.arange(len(data.X), dtype=np.int64)
        return self._train(data, make_recipe(recipe), None, False, rows, 1)

    def _train(
        self,
        data: Data,
        recipe: Recipe,
        batch_size: int | None,
        shuffle: bool,
        rows: NDArray[np.int64],
        n_threads: int | None,
    ) -> float:
        batch_size = check_integer("batch_size", len(rows) if batch_size is None else batch_size, 1)
        batch_size = min(batch_size, len(rows))
        if n_threads is not None:
            check_integer("n_threads", n_threads, 1)
        trainer = Trainer(self, data, recipe, batch_size, n_threads)
        rates = np.full(-(-len(rows) // batch_size), float(recipe.learning_rate))
        try:
            loss, _ = trainer.epoch(self.rng.permutation(rows) if shuffle else rows, rates)
        finally:
            trainer.close()
        if not math.isfinite(loss):
            raise divergence.DivergenceError(
                "the loss is not finite; the step that saw it was not taken. Lower the learning "
                "rate, scale X and y, or clip gradients (clip_norm=1)"
            )
        return loss

    # For learners --------------------------------------------------------------------------------

    @_trains
    def trace_step(self, X: RowsLike, y: ArrayLike, *, apply: bool = True, **recipe: Any) -> Trace:
        """Take one step of backpropagation and return every number in it.

        Parameters
        ----------
        apply : bool
            False leaves the network as it was.
        **recipe
            solver, learning_rate, momentum and so on, as in :meth:`fit`; no dropout, no noise.

        Returns
        -------
        Trace
            Per layer z, a, delta, dC/dW, dC/db, and the weights before and after, of a normalised
            layer also what lies between z and a; print it.
        """
        from cmlp.explain import trace

        return trace.trace_step(self, self._data(X, y), make_recipe(recipe), apply)

    @undisturbed
    def check_gradients(
        self,
        X: RowsLike,
        y: ArrayLike,
        *,
        l1: float = 0.0,
        l2: float = 0.0,
        entries: int | None = 200,
    ) -> GradientCheck:
        """Compare backpropagation with central differences of the loss.

        Parameters
        ----------
        entries : int or None
            Parameters to try per layer, drawn at random; None tries all.

        Returns
        -------
        GradientCheck
            Per layer the largest difference and where it is; true if all are as small as rounding.
        """
        from cmlp.explain import gradient_check

        data = self._data(X, y)
        return gradient_check.check_gradients(self, data, Recipe(l1=l1, l2=l2), entries)

    def diagnose(self, X: ArrayLike, y: ArrayLike, **more: Any) -> Diagnosis:
        """Say in plain words what is wrong with a training; see :func:`cmlp.diagnose`.

        Parameters
        ----------
        **more
            sample_weight; X_val and y_val.
        """
        from cmlp.diagnosis import report

        return report.diagnose(self, X, y, **more)

    # Files and copies ----------------------------------------------------------------------------

    def __copy__(self) -> Network:
        """Copy everything: two networks that share their weights would surprise."""
        return copy.deepcopy(self)

    def __getstate__(self) -> dict[str, Any]:
        state = {**self.__dict__, "_workspaces": []}
        for name in ("_bound", "_training", "_version"):  # they belong to this process
            state.pop(name, None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._training, self._version = threading.RLock(), object()
        for name in ("params", "moments"):  # a pickle does not know where an array began
            array = state[name]
            if array.flags.writeable and address(array) % ALIGNMENT:  # not a mapped file
                setattr(self, name, aligned(array.shape, self.dtype))
                getattr(self, name)[...] = array

    @undisturbed
    def astype(self, dtype: Any) -> Network:
        """Return a copy in another dtype, without optimizer state."""
        other = copy.deepcopy(self)
        dtype = check_dtype(dtype)
        plan = make_plan(self.sizes, self.activations, dtype, self.normalization)
        put(other, dtype=dtype, plan=plan, params=aligned((params_size(plan),), dtype))
        theirs = other._parts(other.params)
        for name, part in self._parts(self.params).items():
            theirs[name][...] = part
        other.history.solver = solver_of(self)
        other.solver, other.steps, other.averaged, other.shown_average = "", 0, 0, None
        other.moments = np.zeros((0, len(other.params)), other.dtype)
        return other

    @undisturbed
    def save(self, path: str | os.PathLike[str], *, optimizer: bool = False) -> None:
        """Write the network to a file in the safetensors layout, by way of a temporary file.

        Parameters
        ----------
        optimizer : bool
            Also keep the optimizer's state and the random generator, so that training goes on
            exactly as it would have.

        Raises
        ------
        ValueError
            If a file cannot hold something of it, such as labels of dates; nothing is written.
        OSError
            If the file cannot be written.
        """
        from cmlp.formats import cmlp_file

        check_kept(self)
        architecture = {
            "sizes": list(self.sizes),
            "activations": list(self.activations),
            "loss": self.loss_name,
            "loss_parameter": self.loss_parameter,
            "weight_init": self.weight_init,
            "dtype": self.dtype.name,
            "feature_names": [str(name) for name in self.feature_names],
            "target_name": self.target_name,
            "input_scale": self.input_scale,
            "missing_targets": self.missing_targets,
            "normalization": self.normalization,
        }
        if self._unsuited:
            architecture["out_activation_given"] = True
        arrays = self._parts(self.params)
        state = None
        if optimizer:
            check_optimizer(self)
            for number, moment in enumerate(self.moments):
                arrays |= self._parts(moment, f"moment{number}.")
            generator = self.rng.bit_generator.state
            state = {"solver": self.solver, "steps": self.steps, "generator": generator}
            state |= {"averaged": self.averaged, "shown_average": self.shown_average}
        cmlp_file.write(
            path, architecture, arrays, self.classes, self.history, solver_of(self), state
        )


@undisturbed
def load(path: str | os.PathLike[str], *, loss: CustomLoss | None = None) -> Network:
    """Read a network that :meth:`Network.save` wrote; nothing in the file is executed.

    Parameters
    ----------
    loss : callable, optional
        The loss of a network that was trained with one of its own.

    Raises
    ------
    ModelFileError
        If the file is cut off, damaged or of another kind; before anything large is allocated.
        Whatever the file holds, nothing else is raised.
    OSError
        If it cannot be opened or read.
    """
    from cmlp.formats import cmlp_file, safetensors, training_records
    from cmlp.model.assignment import predict_with

    saved = cmlp_file.read(path)
    about = saved.architecture
    *hidden, out = about["activations"]
    given = about["out_activation_given"]
    parameter = LOSS_PARAMETERS.get(about["loss"])
    try:
        net = Network(
            about["sizes"],
            hidden,
            None if given else out,
            (loss or lost_loss) if about["loss"] == "custom" else about["loss"],
            "zeros",
            cmlp_file.DTYPES[about["dtype"]],
            input_scale=about["input_scale"],
            missing_targets=about["missing_targets"],
            normalization=about["normalization"],
            **({parameter: about["loss_parameter"]} if parameter else {}),
        )
        if given:
            predict_with(net, out)
        if saved.state is not None:
            averages = saved.state["averaged"] > 0
            if saved.state["solver"]:
                net.moments_for(lookup("solver", SOLVERS, saved.state["solver"]), averages)
            net.steps, net.averaged = saved.state["steps"], saved.state["averaged"]
            net.shown_average = saved.state["shown_average"]
            net.rng = training_records.generator(saved.state["generator"])
        net.feature_names, net.target_name = about["feature_names"], about["target_name"]
        net.classes, net.history = saved.classes, saved.history
    except cmlp_file.BAD_CONTENT as error:
        message = f"{safetensors.name_of(path)} does not describe a network: {error}"
        raise safetensors.ModelFileError(message) from None
    except MemoryError as error:
        message = f"{safetensors.name_of(path)} cannot be read: {error}"
        raise safetensors.ModelFileError(message) from error
    put(net, weight_init=about["weight_init"])
    views = net._parts(net.params)
    for number, moment in enumerate(net.moments):
        views |= net._parts(moment, f"moment{number}.")
    for key, view in views.items():
        view[...] = saved.arrays[key]
    return net

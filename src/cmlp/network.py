"""Network: what users do with a network. What it is, a State, lies below."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
from numpy.typing import ArrayLike

from cmlp.core import dispatch
from cmlp.core.checks import check_integer, check_number
from cmlp.core.errstate import undisturbed
from cmlp.core.layout import Array
from cmlp.core.public import set_module
from cmlp.core.vocabulary import NORMALIZATION_EPS
from cmlp.data.checks import RowsLike, check_X
from cmlp.data.rows import check_pair
from cmlp.data.source import Source, no_targets
from cmlp.model import passes, scoring
from cmlp.model.architecture import Architecture
from cmlp.model.assignment import ASSIGNED, check_plan, refuse_unknown
from cmlp.model.custom_loss import CustomLoss
from cmlp.model.history import History
from cmlp.model.initialise import initialise
from cmlp.model.inputs import Inputs
from cmlp.model.parameters import Gradients, Parameters, Propagation
from cmlp.model.precision import check_columns, check_runs
from cmlp.model.state import State, followed

if TYPE_CHECKING:
    from cmlp.diagnosis.report import Diagnosis
    from cmlp.distributed.communicator import Communicator
    from cmlp.explain.gradient_check import GradientCheck
    from cmlp.explain.trace import Trace
    from cmlp.training.fit import Options
    from cmlp.training.recipe import Recipe
    from cmlp.training.step_trainer import StepTrainer

LEARNING_RATE, LARGEST_RATE = 0.01, 1e300
"""Learning rate where none is given, and the largest one that needs no closer look."""

Method = TypeVar("Method", bound=Callable[..., Any])


def _trains(method: Method) -> Method:
    """Let no two threads train a network at once, and NumPy's error state not disturb it."""

    @undisturbed
    @functools.wraps(method)
    def guarded(self: Network, *args: Any, **kwargs: Any) -> Any:
        with self.exclusive_training():
            return method(self, *args, **kwargs)

    return cast(Method, guarded)


@set_module("cmlp")
class Network(State):
    """A multilayer perceptron.

    Parameters
    ----------
    sizes : sequence of int
        Units of every layer from the inputs to the outputs: ``[64, 32, 10]`` has 64 inputs, a
        hidden layer of 32 and 10 outputs.
    activation : str or sequence of str
        Of the hidden layers, one for all or one each: 'identity', 'logistic', 'tanh', 'relu',
        'leaky_relu', 'elu', 'selu', 'gelu', 'silu', 'mish', 'softplus', 'hard_sigmoid', 'exp'.
        'leaky_relu:0.3' has the slope 0.3 below 0 (default 0.01), 'elu:0.5' the alpha 0.5
        (default 1).
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
        'auto' (He for rectifiers, with the slope of leaky_relu; LeCun for selu, else Glorot),
        'glorot_uniform', 'glorot_normal', 'he_uniform', 'he_normal', 'lecun_uniform',
        'lecun_normal', 'orthogonal'. Biases start at 0.
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
        With True, a NaN in y is a missing target: that output of the row has no
        loss, no gradient and no part in the score; the row's other outputs have. With False it is
        an error. Not for categorical cross-entropy, whose outputs share one target. A loss of your
        own sees the NaN.
    normalization : {None, 'batch', 'layer'}
        Normalise the weighted sums of the hidden layers before their activation, to
        ``gamma (z - mean) / sqrt(variance + epsilon) + beta``. With 'batch' (Ioffe & Szegedy 2015)
        the statistics are a unit's over the rows of a batch (of each 1,024 rows of a larger one;
        rows count alike, whatever their weights are), and running means of them, a tenth of each
        new batch, in prediction. One row has no variance: each unit of it is beta, so batches need
        two. With 'layer' (Ba et al. 2016) they are a row's over the units of the layer. `biases`
        are beta; L1, L2 and weight decay leave gamma and beta alone.
    parametric_activation : bool
        With True, hidden layers compute ``a = z + alpha (f(z) - z)`` with an alpha per unit that is
        learned; it starts at 1, where a = f(z). L1, L2 and weight decay leave alpha alone.
    inputs : Inputs, optional
        What happens to columns of X before the first layer: categories and numbers in bins become
        rows of a table that is learned, numbers periodic features. ``sizes[0]`` stays the number
        of columns. Positions in a table that are NaN or outside it are its first or last row. L1
        and L2 leave these arrays alone; weight decay is for tables only.
    normalization_epsilon : float
        What is added to the variance of a normalisation.
    precision : {None, 'bfloat16', 'bfloat16-emulated'}
        What the operands of the products are rounded to, in training and prediction: with None
        they are what the dtype is. 'bfloat16' (8 bits, to nearest even) is for processors with
        AVX512_BF16, whose products of layers from 64 units on take about half as long, and for
        ARM with FEAT_BF16; 'bfloat16-emulated' rounds them on any, in software, for tests. Sums,
        activations, weights, moments and updates stay float32, and so do the products of layers
        of up to 16 units. Standardise X: a column that loses what its numbers differ by is refused.
        Files keep the precision; other formats, :meth:`check_gradients` and attributions are of
        the float32 network. Only for float32.

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
        Whether y may hold NaN, for missing targets.
    normalization : str or None
        'batch', 'layer' or None.
    normalization_epsilon : float
        What is added to a variance there; another one may be assigned.
    precision : str or None
        What operands of products are rounded to; another one may be assigned, which predictors
        that were made before do not follow.
    scales : list of ndarray
        Views of gamma, (n_out,) per normalised layer.
    parametric_activation : bool
        Whether the hidden activations have an alpha per unit.
    alphas : list of ndarray
        Views of alpha, (n_out,) per hidden layer with a parametric activation.
    inputs : Inputs or None
        What happens to columns of X before the first layer.
    front : dict of str to ndarray
        What is learned there, views by name: "factors", (n_inputs,); "levels.3", the table of
        column 3, (rows, width); "summed.3", (rows, units of the first layer);
        "periodic.frequencies" and "periodic.phases", (columns, frequencies), "periodic.weights",
        (columns, width, frequencies), "periodic.biases", (columns, width). Write into them by
        ``net.front["levels.3"] = E``.
    running : list of (ndarray, ndarray)
        Views of the running mean and variance, per layer normalised by 'batch'.
    classes : ndarray or None
        The labels in the order of the outputs, once the network has seen labels. Others may be
        assigned, in any order, each once; whole numbers keep every digit.
    feature_names, target_name : list of str, str or None
        The names of the columns of X and y; empty, or None, if there are none. Names that are not
        text become text.
    history : History
        Every epoch so far.
    solver, moments, steps : str, ndarray, int
        The optimizer's state: its rule, (n_moments, len(params)), and the steps taken with them.
        With weight averaging the last moment holds the weights from which training continues.
    averaged : int
        Steps that the weights are averaged over (``fit(..., ema=0.999)``); 0 without averaging.

    Notes
    -----
    What is assigned to an attribute predicts from then on, and `save`, pickle and copies keep it;
    what they could not keep is refused at once, and so are names that a network does not have.
    `sizes`, the dtype, the loss, `normalization` and
    `parametric_activation` are those of the constructor.

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

    activations: tuple[str, ...]  # what a program may assign; see __setattr__
    input_scale: float
    missing_targets: bool
    loss_parameter: float
    normalization_epsilon: float
    precision: str | None
    solver: str
    moments: Array
    steps: int
    averaged: int

    _bound: tuple[Any, ...] = (None, None, None)
    """Core and version of the last prediction, and the fast path to it."""

    _stepper: Any = None
    """What :meth:`step` prepared at its last call."""

    _short_fit: Any = None
    """The same of :meth:`fit`, where it was a single step."""

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
        parametric_activation: bool = False,
        inputs: Inputs | None = None,
        normalization_epsilon: float = NORMALIZATION_EPS,
        precision: str | None = None,
    ) -> None:
        architecture = Architecture.resolve(
            sizes,
            activation,
            out_activation,
            loss,
            weight_init,
            dtype,
            quantile=quantile,
            huber_delta=huber_delta,
            input_scale=input_scale,
            missing_targets=missing_targets,
            normalization=normalization,
            parametric_activation=parametric_activation,
            inputs=inputs,
            normalization_epsilon=normalization_epsilon,
            precision=precision,
        )
        check_runs(architecture.precision)
        super().__init__(architecture, np.random.default_rng(seed))
        initialise(self)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in ASSIGNED:
            ASSIGNED[name](self, value)
            return
        refuse_unknown(self, name)
        super().__setattr__(name, value)

    def __repr__(self) -> str:
        return f"Network({self.architecture})"

    def summary(self) -> str:
        """Return a table of the layers, with the number of parameters."""
        return self.architecture.summary()

    # Forward -------------------------------------------------------------------------------------

    def predict(self, X: RowsLike) -> Array:
        """Return the output activations.

        Parameters
        ----------
        X : array-like or sparse, (n, n_in), or Source
            Any real dtype and memory order; read row by row, never copied as a whole. Of a source
            the outputs of all rows have to fit into memory; see :meth:`predict_blocks`.

        Returns
        -------
        ndarray, (n, n_out)

        Raises
        ------
        ValueError
            For a wrong shape, NaN or infinity.
        """
        ready: Array | None = self.bound_outputs()(X)
        return self._predicted(X) if ready is None else ready

    @undisturbed
    def _predicted(self, X: RowsLike) -> Array:
        """Return the output activations of any X, without the fast path."""
        if isinstance(X, Source):
            return np.concatenate(list(self.predict_blocks(X)))
        return passes.predict(self, check_X(X, self.sizes[0], self.dtype))

    def predict_blocks(self, source: Source) -> Iterator[Array]:
        """Yield the output activations of a source's rows in order, (n, n_out) for each piece."""
        from cmlp.sources.encode import check_names
        from cmlp.sources.fitting import blocks_of

        check_names(self, source)
        for data in blocks_of(source):
            yield self.predict(data.X)

    def folded(self) -> Network:
        """Return a copy with normalisation by 'batch' folded into its weights.

        It predicts the same, up to rounding, and has no statistics to learn any more; nor factors
        of the inputs, which are folded, too. One without them is copied as it is, without optimizer
        state.
        """
        from cmlp.model.folding import fold_statistics

        return fold_statistics(self)

    def bound_outputs(self) -> Callable[[Any], Array | None]:
        """Return the fast path of :meth:`predict`, which belongs to the present core and network.

        It answers what needs no closer look, and None to anything else.
        """
        core, version, outputs = self._bound
        if core is not dispatch.core or version is not self._version:
            outputs = self._bind()
        ready: Callable[[Any], Array | None] = outputs
        return ready

    def _bind(self) -> Callable[[Any], Array | None]:
        core, version = dispatch.core, self._version  # first: another thread may assign now
        outputs = passes.fast_outputs(self)
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
            write to as `out` (then n may be anything). NaN, infinity and masks are not detected.

            It belongs to the present parameters, activations, input scale and core.
            Changes in place are seen, such as training or ``net.weights[0] = W``; after an
            assignment to these attributes or :class:`cmlp.use_core` create a new predictor; also
            after every training with ``normalization='batch'``, which a predictor has folded into
            its own weights. Create one for each thread. It is not pickled.
        """
        check_integer("batch_size", batch_size, 1)
        return passes.predictor(self, batch_size)

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

        Parameters
        ----------
        return_all : bool
            Whether every layer is returned.

        Returns
        -------
        ndarray or Propagation
            The outputs, (n, n_out); with ``return_all`` every layer's sums (of a normalised layer:
            what its activation is applied to) and activations.
        """
        if not return_all:
            return self.predict(X)
        rows = check_X(X, self.sizes[0], self.dtype)
        return Propagation(*passes.forward(self, rows))

    # Loss and gradients --------------------------------------------------------------------------

    @undisturbed
    def loss(
        self, X: RowsLike | Source, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the (weighted) mean loss of the rows, without penalties, dropout or smoothing."""
        if isinstance(X, Source):
            return self._evaluated(X, y, sample_weight)[0]
        return scoring.evaluate(self, self.encode_rows(X, y, sample_weight), None)[0]

    @undisturbed
    def score(
        self, X: RowsLike | Source, y: Any = None, sample_weight: ArrayLike | None = None
    ) -> float:
        """Return the accuracy for classes, the coefficient of determination R^2 for numbers.

        R^2 of fewer than two rows is NaN, with an UndefinedMetricWarning.
        """
        if isinstance(X, Source):
            return self._evaluated(X, y, sample_weight)[1]
        return scoring.evaluate(self, self.encode_rows(X, y, sample_weight), None, warns=True)[1]

    def evaluate(self, source: Source) -> tuple[float, float]:
        """Return the mean loss of a source's rows, and their score, from one reading."""
        return self._evaluated(source, None, None)

    def _evaluated(self, source: Source, y: Any, sample_weight: Any) -> tuple[float, float]:
        from cmlp.sources.evaluation import evaluate

        no_targets(y, sample_weight)
        return evaluate(self, source)

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
            Lists of dC/dW and dC/db, one per layer; dC/dX; the value of the loss; lists of
            dC/dgamma and dC/dalpha; and a dictionary of the derivatives by what is learned before
            the first layer. dC/dX of a column with a table is the slope from the row of x to the
            next one.
        """
        data = self.encode_rows(X, y, sample_weight)
        penalties = {"l1": check_number("l1", l1, 0), "l2": check_number("l2", l2, 0)}
        objective = self.architecture.objective(**penalties)
        found = passes.backpropagate(self, data, objective, inputs=True)
        parts = Parameters(self.plan, found.gradient)
        return Gradients(
            parts.weights,
            parts.biases,
            found.inputs,
            found.loss,
            parts.scales,
            parts.alphas,
            parts.front,
        )

    # Training ------------------------------------------------------------------------------------

    def fit(
        self,
        X: RowsLike | Source,
        y: Any = None,
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
        rate_factors: Mapping[str, float | Sequence[float]] | None = None,
        decay_factors: Mapping[str, float | Sequence[float]] | None = None,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        X_val: RowsLike | Source | None = None,
        y_val: ArrayLike | None = None,
        validation_fraction: float = 0.0,
        patience: int | None = None,
        schedule: Any = None,
        dropout_schedule: Any = None,
        weight_decay_schedule: Any = None,
        callbacks: Iterable[Any] = (),
        max_time: float | None = None,
        n_threads: int | None = None,
        verbose: int = 0,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        memory: int | str = "1 GB",
        checkpoint: str | os.PathLike[str] | None = None,
        checkpoint_every: float = 300,
        resume: bool = False,
        comm: Communicator | None = None,
        sync_every: Any = 1,
    ) -> History:
        """Train by gradient descent; a further call continues the training.

        Ctrl-C ends the training with a warning and keeps the weights of the last whole step.

        Parameters
        ----------
        X : array-like or sparse, (n, n_in), or Source
            Any real dtype and memory order. Rows are converted as batches are gathered: a set of
            uint8 pixels is never copied, and of a SciPy sparse matrix or array only one batch of
            rows at a time has its zeros written out. A source (:mod:`cmlp.data`) need not fit into
            memory: a thread reads windows of rows while the core trains. It has its own y and
            weights; y, sample_weight and y_val are left out then.
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
            How far a step goes: a factor of the gradient.
        momentum : float
            Of 'sgd' (Polyak), [0, 1].
        nesterov : bool
            Nesterov's momentum in place of Polyak's.
        l1, l2 : float
            Adds ``l1 sum|W| + l2/2 sum W^2`` to the loss; biases are free.
        weight_decay : float
            Takes ``learning_rate * weight_decay * W`` off the weights at each step, apart from the
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
            loss of training is that of the weights that move. A further call with `ema` starts
            from those, unless the network's weights were changed meanwhile; one without it starts
            from the mean. 0 averages nothing.
        rate_factors, decay_factors : dict, optional
            Factors of the step and of `weight_decay` for groups of parameters: 'weights', 'biases',
            'scales' (gamma), 'alphas', each a number or one per layer; and one number each for the
            `front`: 'inputs' (its factors), 'embeddings' (all tables), 'periodic' (four arrays). A
            step is ``theta *= 1 - learning_rate * weight_decay * decay_factor``, then ``theta -=
            rate_factor * step``, of any solver. Without them every rate factor is 1, and only
            weights and tables decay. Groups that the network has not are ignored. For Adam,
            ``rate_factors={'weights': 1 / sqrt(n_in)}``, one for each layer, is training in the
            scaling of the neural tangent kernel.
        shuffle : bool
            Draw a new order of the rows for each epoch.
        sample_weight : array-like, (n,), optional
            How much each row counts; by default all alike.
        X_val, y_val : array-like, optional
            Rows to validate on after every epoch.
        validation_fraction : float
            Part of the rows to hold out for that instead, drawn anew at each call; labels keep
            their proportions.
        patience : int or None
            Stop when the validation loss (without validation: the training loss) has not reached a
            new low for this many epochs; with validation the best weights are restored.
        schedule : str, Schedule or callable, optional
            Learning rate over time, see :mod:`cmlp.schedules`; a callable maps epoch to rate.
        dropout_schedule, weight_decay_schedule : str, Schedule or callable, optional
            Factor of `dropout` and of `weight_decay` over time, the same; a callable maps epoch to
            factor.
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
        memory : int or str
            Bytes that rows of a source may take, such as "512 MB". If all rows fit, they are read
            once, and the result is that of arrays; else there are two windows of them, and with
            `shuffle` rows are permuted within a window, which has rows of up to 256 blocks, drawn
            anew in each epoch.
        checkpoint : str or path-like, optional
            A file that training can continue from, written every `checkpoint_every` seconds, at the
            end, at Ctrl-C and when `max_time` is over. It is also a model that :func:`cmlp.load`
            reads. If it cannot be written later on, there is one warning, the older file is whole,
            and ``history.checkpoint_errors`` counts.
        checkpoint_every : float
            Seconds.
        resume : bool
            Continue from the file `checkpoint`, if there is one: with the weights, bit for bit, of
            a training that was not interrupted. One that was complete returns at once. Data, sizes
            and `batch_size` have to be the same.
        comm : cmlp.distributed.Communicator, optional
            Train with other processes, which call this with the same arguments; see
            :mod:`cmlp.distributed`. `batch_size` is that of all together, and the result the same
            for any number of them, to rounding. Callbacks, output and checkpoints are rank 0's.
        sync_every : int, (int, int) or 'auto'
            Steps between two messages to them: 1 sums gradients at each step. With k above 1 each
            takes k steps of its own, then their weights are averaged; ``(5, 16)`` does so after 5
            epochs, and 'auto' finds a k by measuring.

        Returns
        -------
        History
            One list per quantity, one entry per epoch of this call.

        Raises
        ------
        DivergenceError
            When the loss or a weight is not finite; the last finite weights are kept.
        ValueError, TypeError
            For data or parameters that do not fit; the message names what is expected.
        RuntimeError
            If another thread is training this network.
        """
        arguments = locals()
        short = self._short_fit
        if short is not None and short.serves(arguments):
            self.begin_training()
            try:
                history: History | None = short.fit(self, X, y, learning_rate)
            finally:
                self.end_training()
            if history is not None:
                return history
        return self._fit(X, arguments)

    @_trains
    def _fit(self, X: Any, arguments: dict[str, Any]) -> History:
        """Do what :meth:`fit` does, with its arguments."""
        from cmlp.training import fit
        from cmlp.training.recipe import Recipe, chosen
        from cmlp.training.short_fit import ShortFit, is_short
        from cmlp.training.trainer import check_batch_size

        recipe = Recipe(**chosen(Recipe, arguments))
        recipe.check(self.architecture)
        options = fit.Options(**chosen(fit.Options, arguments))
        check_batch_size(self, options.batch_size)
        X_val, y_val = arguments["X_val"], arguments["y_val"]
        if not isinstance(X_val, Source):
            check_pair(X_val, y_val)
        if X_val is not None and options.validation_fraction:
            raise ValueError("give X_val and y_val or validation_fraction, not both")
        if arguments["resume"] and arguments["checkpoint"] is None:
            raise ValueError("resume=True needs the file to continue from: checkpoint=...")
        shards = 0
        if arguments["resume"] and arguments["comm"] is None:
            from cmlp.formats.checkpoint import shards_of

            shards = shards_of(arguments["checkpoint"])  # several ranks have begun the training
        if arguments["comm"] is not None or shards:
            return self._fit_with_others(X, arguments, recipe, options, shards)
        if isinstance(X, Source) or arguments["checkpoint"] is not None:
            return self._fit_source(X, arguments, recipe, options)
        classes, validation = self.classes, None
        try:
            data = self.encode_rows(X, arguments["y"], arguments["sample_weight"])
            check_columns(self, data.X)
            if isinstance(X_val, Source):
                from cmlp.sources.fitting import validation_rows
                from cmlp.sources.plan import bytes_of

                validation = validation_rows(self, X_val, y_val, bytes_of(arguments["memory"]))
            elif X_val is not None and y_val is not None:
                validation = self.encode_rows(X_val, y_val, suffix="_val")
        except (TypeError, ValueError):
            self.classes = classes  # a failed call keeps no labels
            raise
        history = fit.fit(self, data, recipe, options, validation)
        if is_short(self, arguments, len(data.X)):
            self._short_fit = ShortFit(arguments, recipe, len(data.X))
        return history

    def _fit_source(
        self, X: Any, arguments: dict[str, Any], recipe: Recipe, options: Options
    ) -> History:
        """Train on a source, or on arrays with checkpoints."""
        from cmlp.formats.checkpoint import checkpoint_of
        from cmlp.sources.arrays import arrays
        from cmlp.sources.fitting import fit_source
        from cmlp.sources.plan import bytes_of

        y, weight, path, every = (
            arguments[name] for name in ("y", "sample_weight", "checkpoint", "checkpoint_every")
        )
        if isinstance(X, Source):
            no_targets(y, weight)
        else:
            X = arrays(X, y, weight)
        checkpoint = checkpoint_of(self, path, every, X, recipe, options)
        return fit_source(
            self, X, recipe, options, (arguments["X_val"], arguments["y_val"]),
            bytes_of(arguments["memory"]), checkpoint, bool(arguments["resume"]),
        )  # fmt: skip

    def _fit_with_others(
        self, X: Any, arguments: dict[str, Any], recipe: Recipe, options: Options, shards: int
    ) -> History:
        """Train as one of several ranks; or alone, in the order of their `shards`."""
        from cmlp.distributed.rank import Settings, fit
        from cmlp.distributed.sockets import ThreadRing
        from cmlp.formats.checkpoint import checkpoint_of
        from cmlp.sources.arrays import arrays
        from cmlp.sources.fitting import validation_rows
        from cmlp.sources.plan import bytes_of

        y, weight, path, comm = (
            arguments[name] for name in ("y", "sample_weight", "checkpoint", "comm")
        )
        comm = comm or ThreadRing.make(1)[0]
        memory, checkpoint, classes = bytes_of(arguments["memory"]), None, self.classes
        shards = shards or max(8, comm.size)
        settings = Settings(recipe, options, shards, arguments["sync_every"], memory)
        settings.check(self)
        try:
            if isinstance(X, Source):
                no_targets(y, weight)
            elif path is not None:
                X = arrays(X, y, weight)
            if comm.rank == 0:
                every = arguments["checkpoint_every"]
                checkpoint = checkpoint_of(self, path, every, X, recipe, options)
            found = X.resident() if isinstance(X, Source) else (X, y, weight)
            rows = X if found is None else self.encode_rows(*found)
            validation = validation_rows(self, arguments["X_val"], arguments["y_val"], memory)
        except (TypeError, ValueError):
            self.classes = classes  # a failed call keeps no labels
            raise
        return fit(self, rows, settings, validation, comm, checkpoint, bool(arguments["resume"]))

    @_trains
    def train_epoch(
        self,
        X: RowsLike | Source,
        y: Any = None,
        *,
        batch_size: int | None = 32,
        shuffle: bool = True,
        sample_weight: ArrayLike | None = None,
        n_threads: int | None = None,
        memory: int | str = "1 GB",
        **recipe: Any,
    ) -> float:
        """Use every row once, and return the mean loss.

        Parameters
        ----------
        memory : int or str
            Of a source, as in :meth:`fit`.
        **recipe
            solver, learning_rate, momentum and so on, as in :meth:`fit`.
        """
        from cmlp.training import fit
        from cmlp.training.recipe import make_recipe

        made = make_recipe(recipe)
        if isinstance(X, Source):
            from cmlp.sources.fitting import run_epoch
            from cmlp.sources.plan import bytes_of

            no_targets(y, sample_weight)
            limit = bytes_of(memory)
            return run_epoch(self, X, made, limit, batch_size, shuffle, n_threads)
        data = self.encode_rows(X, y, sample_weight)
        return fit.run_epoch(self, data, made, batch_size, shuffle, n_threads)

    def step(
        self, X: RowsLike, y: ArrayLike, *, sample_weight: ArrayLike | None = None, **recipe: Any
    ) -> float:
        """Take one step on these rows as one batch, and return their loss before it.

        What a step prepares is kept for the next one with the same parameters (up to 4 MB); another
        learning rate changes nothing about it. :meth:`trainer` has less to compare at each call.

        Parameters
        ----------
        **recipe
            solver, learning_rate, momentum and so on, as in :meth:`fit`.
        """
        rate = recipe.pop("learning_rate", LEARNING_RATE)
        self.begin_training()
        try:
            stepper = self._stepper
            if stepper is None or not stepper.serves(recipe):
                from cmlp.training.stepper import stepper_of

                stepper = self._stepper = stepper_of(recipe, rate)
            elif type(rate) is not float or not 0 <= rate <= LARGEST_RATE:
                rate = check_number("learning_rate", rate, 0)
            loss: float | None = stepper.step(self, X, y, sample_weight, rate)
            if loss is None:
                loss = stepper.step_of_any(self, X, y, sample_weight, rate)
            return loss
        finally:
            self.end_training()

    def trainer(self, *, batch_size: int = 32, **recipe: Any) -> StepTrainer:
        """Return an object that takes single steps with nothing prepared and nothing allocated.

        ``trainer = net.trainer(solver="adam"); loss = trainer.step(X, y)`` trains as
        ``net.step(X, y, solver="adam")`` does, to the bit.

        Parameters
        ----------
        batch_size : int
            Rows of a step: room for them is made before the first one. Other batches are fine,
            too; a larger one makes more room.
        **recipe
            solver, learning_rate, momentum and so on, as in :meth:`fit`, without `ema`.

        Returns
        -------
        StepTrainer
            With the methods ``step(X, y)``, ``gradients(X, y)``, ``backward(X, dC_da)`` for a loss
            of your own, ``apply()``, and the attribute `learning_rate`, which may be assigned.

        Raises
        ------
        ValueError, TypeError
            For parameters that do not fit this network.
        """
        from cmlp.training.recipe import make_recipe
        from cmlp.training.step_trainer import StepTrainer

        return StepTrainer(self, make_recipe(recipe), check_integer("batch_size", batch_size, 1))

    # Networks that follow another one ------------------------------------------------------------

    @_trains
    def copy_from(self, other: State) -> None:
        """Write the parameters of another network into this one, in place.

        They are all that `params` holds, running statistics included; this network keeps its
        labels, its record and its optimizer's state. Predictors of it see the new numbers.

        Parameters
        ----------
        other : Network
            Of the same architecture and number type.

        Raises
        ------
        ValueError
            If the other network has another architecture or number type.
        """
        self.params[:] = followed(self, other)

    @_trains
    def polyak(self, other: State, tau: float) -> None:
        """Move the parameters towards another network's: ``params += tau (other.params - params)``.

        With a small `tau` at each step, such as 0.005, this network is the slow copy ("target") of
        one in training that reinforcement learning takes its targets from; 1 is :meth:`copy_from`.

        Parameters
        ----------
        other : Network
            Of the same architecture and number type.
        tau : float
            Part of the way, [0, 1].
        """
        theirs = followed(self, other)
        if check_number("tau", tau, 0, 1) == 1:
            self.params[:] = theirs
        else:
            dispatch.core.blend(self.params, theirs, tau)

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
        from cmlp.training.recipe import make_recipe

        made = make_recipe(recipe)
        return trace.trace_step(self, self.encode_rows(X, y), made, apply)

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
        from cmlp.training.recipe import Recipe

        data = self.encode_rows(X, y)
        return gradient_check.check_gradients(self, data, Recipe(l1=l1, l2=l2), entries)

    def diagnose(self, X: ArrayLike, y: ArrayLike, **more: Any) -> Diagnosis:
        """Report in plain words what is wrong with a training; see :func:`cmlp.diagnose`.

        Parameters
        ----------
        **more
            sample_weight; X_val and y_val.
        """
        from cmlp.diagnosis.model import model_of_network
        from cmlp.diagnosis.report import diagnose_models

        return diagnose_models([model_of_network(self, type(self).fit)], X, y, **more)

    # Files and copies ----------------------------------------------------------------------------

    @undisturbed
    def astype(self, dtype: Any) -> Network:
        """Return a copy in another dtype, without optimizer state; float64 has no precision.

        Parameters
        ----------
        dtype : dtype
            float32 or float64.
        """
        return super().astype(dtype)

    @undisturbed
    def save(self, path: str | os.PathLike[str], *, optimizer: bool = False) -> None:
        """Write the network to a file in the safetensors layout, by way of a temporary file.

        Parameters
        ----------
        optimizer : bool
            Also keep the optimizer's state and the random generator, so that training continues
            exactly as it would have.

        Raises
        ------
        ValueError
            If a file cannot hold something of it, such as labels of dates; nothing is written.
        OSError
            If the file cannot be written.
        """
        from cmlp.formats import cmlp_file

        check_plan(self)
        cmlp_file.save(self, path, optimizer=optimizer)


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
    from cmlp.formats import cmlp_file

    return cmlp_file.load(Network, path, loss)

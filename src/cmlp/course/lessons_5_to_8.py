"""Exercises of lessons 5 to 8: backpropagation, batches, cross-entropies, what is left over."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from cmlp.course.exercise import Exercise, Slip
from cmlp.course.nets import X_TWO, Y_TWO, raw_reader, softmax, two_two_one
from cmlp.datasets import load_digits
from cmlp.explain.trace import Trace


def _step(n_rows: int = 1, loss: str = "squared_error", learning_rate: float = 1.0) -> Trace:
    net = two_two_one(loss)
    return net.trace_step(
        X_TWO[:n_rows], Y_TWO[:n_rows], learning_rate=learning_rate, momentum=0, apply=False
    )


def _output() -> tuple[float, float]:
    """Return z2 and a2 of the row of lesson 5."""
    last = _step().layers[-1]
    return float(last.z[0, 0]), float(last.a[0, 0])


def _delta_1(W: Any, slope: bool = True) -> Any:
    """Return delta of the hidden layer, from a W2 of one's choice."""
    hidden, last = _step().layers
    carried = last.delta @ W.T
    return carried * hidden.a * (1 - hidden.a) if slope else carried


def _new_cost(*, sign: int = 1, weights: bool = True, biases: bool = True, first: int = 0) -> float:
    """Return the cost after a step that leaves something out."""
    net = two_two_one()
    found = net.gradients(X_TWO[:1], Y_TWO[:1])
    for number in range(first, 2):
        if weights:
            net.weights[number] -= sign * found.weights[number]
        if biases:
            net.biases[number] -= sign * found.biases[number]
    return net.loss(X_TWO[:1], Y_TWO[:1])


def _bias_slopes() -> Any:
    """Return dC/db of the output for each of the two rows alone."""
    return [
        float(two_two_one().gradients(X_TWO[n : n + 1], Y_TWO[n : n + 1]).biases[1][0])
        for n in (0, 1)
    ]


def _db2_of(rows: list[int]) -> float:
    return float(two_two_one().gradients(X_TWO[rows], Y_TWO[rows]).biases[1][0])


def _softmax_delta(again: bool = False) -> Any:
    a = softmax([2, 1, 0.1])
    delta = a - [1, 0, 0]
    return delta * a * (1 - a) if again else delta


def _half_width(n: int, times: float = 1.96) -> float:
    return float(100 * times * np.sqrt(0.95 * 0.05 / n))


@lru_cache(maxsize=1)
def _diagnosis() -> list[str]:
    digits = load_digits()
    return raw_reader().diagnose(digits.X_train, digits.y_train).codes


SECOND = (
    Exercise(
        "5.1",
        "$\\delta^{(2)} = dC/dz^{(2)}$ of the output, from $a^{(2)} = 0.5841$ and $y = 1$, for "
        "the cost $\\frac{1}{2} (a - y)^2$ and the sigmoid: four digits after the point.",
        lambda: _step().layers[-1].delta[0, 0],
        4,
        (
            Slip("slope", lambda: _output()[1] - 1,
                 "the slope of the sigmoid is missing: that is dC/da, not dC/dz."),
            Slip("slope", lambda: (_output()[1] - 1) * _sigmoid_slope(_output()[1]),
                 "here a was put into the sigmoid's slope once more. It is a (1 - a), with the a "
                 "that is known already."),
            Slip("factor", lambda: 2 * (_output()[1] - 1) * _output()[1] * (1 - _output()[1]),
                 "that is twice too large: the 1/2 of the cost cancels the 2 of the square."),
            Slip("sign", lambda: -_step().layers[-1].delta[0, 0],
                 "the sign is wrong: a - y, not y - a. The cost falls when a grows, so the slope "
                 "is negative."),
        ),
        ("The chain rule: dC/dz = dC/da * da/dz.",
         "dC/da = a - y, and da/dz = a (1 - a).",
         "(0.5841 - 1) * 0.5841 * (1 - 0.5841)"),
        "$(a - y)\\, a (1 - a) = -0.4159 \\cdot 0.2429 = -0.1010$.",
    ),
    Exercise(
        "5.2",
        "$\\delta^{(1)}$ of the two hidden units, from $\\delta^{(2)} = -0.1010$, $W^{(2)} = "
        "(1, -2)$ and $a^{(1)} = (0.3775, 0.2689)$. As `(., .)`, four digits after the point.",
        lambda: _step().layers[0].delta[0],
        4,
        (
            Slip("early", lambda: _delta_1(_step().layers[-1].new_weights)[0],
                 "here W2 had been stepped already. Delta goes back through the weights that the "
                 "forward pass used."),
            Slip("slope", lambda: _delta_1(_step().layers[-1].weights, slope=False)[0],
                 "the slope of the hidden units' sigmoid is missing: times a (1 - a) of each."),
            Slip("sign", lambda: -_step().layers[0].delta[0],
                 "the signs are the wrong way round: was delta of the output positive?"),
            Slip("output", lambda: -0.1010 * _step().layers[0].a[0],
                 "that is dC/dW2, delta times the activations. Here delta goes back: times W2."),
        ),
        ("Delta goes back along the weights, and then through the slope of each unit.",
         "(delta2 * W2) * a1 * (1 - a1), unit by unit.",
         "-0.1010 * np.array([1, -2]) * a1 * (1 - a1)"),
        "$-0.1010 \\cdot 1 \\cdot 0.3775 \\cdot 0.6225 = -0.0237$ and "
        "$-0.1010 \\cdot (-2) \\cdot 0.2689 \\cdot 0.7311 = 0.0397$.",
    ),
    Exercise(
        "5.3",
        "One step with the learning rate 1 for all nine numbers of the network. What is the cost "
        "of the row afterwards? Four digits after the point.",
        lambda: _step().new_loss,
        4,
        (
            Slip("sign", lambda: _new_cost(sign=-1), "the cost has grown: that step led uphill."),
            Slip("kept", lambda: _step().loss, "that is the cost before the step."),
            Slip("bias", lambda: _new_cost(biases=False),
                 "the biases were left as they are. They have slopes, too."),
            Slip("early", lambda: _new_cost(first=1),
                 "only the output layer took a step. The hidden layer learns as well."),
        ),
        ("Subtract every slope from its parameter, then propagate forwards again.",
         "net.step does both, and so does net.trace_step(...).new_loss.",
         "net.trace_step(x, y, learning_rate=1, momentum=0, apply=False).new_loss"),
        "0.0691: by 0.0174 less than before.",
    ),
    Exercise(
        "6.1",
        "The batch has the rows $(1, -1)$ with $y = 1$ and $(0, 1)$ with $y = 0$. What is "
        "$dC/db^{(2)}$, where $C$ is the mean over the rows? Four digits after the point.",
        lambda: _db2_of([0, 1]),
        4,
        (
            Slip("factor", lambda: 2 * _db2_of([0, 1]),
                 "that is the sum over the rows. The cost is their mean: half of it."),
            Slip("mean", lambda: _bias_slopes()[0], "that is the first row alone."),
            Slip("mean", lambda: _bias_slopes()[1], "that is the second row alone."),
            Slip("sign", lambda: (_bias_slopes()[1] - _bias_slopes()[0]) / 2,
                 "the two rows pull in opposite directions: one of the signs was lost."),
        ),
        ("The slope of a mean is the mean of the slopes.",
         "The rows alone have the slopes -0.1010 and 0.1092.",
         "(-0.1010 + 0.1092) / 2, with more digits"),
        "$\\frac{1}{2} (-0.1010 + 0.1092) = 0.0041$: the rows nearly cancel, and that is right.",
    ),
    Exercise(
        "6.2",
        "3,823 rows in batches of 32: how many steps has an epoch?",
        lambda: int(np.ceil(3823 / 32)),
        0,
        (
            Slip("kept", lambda: 3823 // 32,
                 "the last batch is missing: it is short, and a step all the same."),
            Slip("factor", lambda: 3823, "that is the number of steps with single rows."),
            Slip("factor", lambda: 3823 * 32, "rows were multiplied by the batch size."),
        ),
        ("How often do 32 rows fit into 3,823, and what is left over?",
         "3823 / 32 = 119.47; the rest is a batch, too.",
         "-(-3823 // 32)"),
        "119 batches of 32 rows, and one of 15: 120.",
    ),
    Exercise(
        "6.3",
        "The batch of exercise 6.1 with every row twice, so with four rows: what is "
        "$dC/db^{(2)}$ now? Four digits after the point.",
        lambda: _db2_of([0, 1, 0, 1]),
        4,
        (
            Slip("factor", lambda: 2 * _db2_of([0, 1]),
                 "a mean does not grow when every row is there twice."),
            Slip("factor", lambda: 4 * _db2_of([0, 1]),
                 "that is the sum over the four rows. The cost is their mean."),
            Slip("factor", lambda: _db2_of([0, 1]) / 2,
                 "the sum has twice as many terms, and is divided by twice as many rows."),
        ),
        ("What happens to a mean when every number is there twice?",
         "(p + q + p + q) / 4 = (p + q) / 2.",
         "It is the answer to exercise 6.1."),
        "0.0041 as before. That is why the learning rate need not change with the number of rows.",
    ),
    Exercise(
        "7.1",
        "The binary cross-entropy of one row with $y = 1$ and $p = 0.8$: four digits after the "
        "point.",
        lambda: -np.log(0.8),
        4,
        (
            Slip("one-plus-y", lambda: -(np.log(0.8) + 2 * np.log(0.2)),
                 "that is with 1 + y as the second factor, which is a slip in some notes. With "
                 "1 - y the second term is 0 here."),
            Slip("sign", lambda: np.log(0.8),
                 "the minus is missing: a logarithm of a probability is negative, a cost is not."),
            Slip("labels", lambda: -np.log(0.2),
                 "that is the cost for y = 0: p is the probability of 1."),
            Slip("factor", lambda: -np.log10(0.8), "the natural logarithm is meant: np.log."),
        ),
        ("With y = 1 one of the two terms is 0.",
         "-(1 * log(0.8) + 0 * log(0.2))",
         "-np.log(0.8)"),
        "$-\\log 0.8 = 0.2231$.",
    ),
    Exercise(
        "7.2",
        "Three outputs with softmax, $z = (2, 1, 0.1)$, and the first class is right. What is "
        "$\\delta = dC/dz$ for the categorical cross-entropy? As `(., ., .)`, three digits after "
        "the point.",
        _softmax_delta,
        3,
        (
            Slip("output", lambda: _softmax_delta(again=True),
                 "a slope of the activation is in it once more. Softmax and cross-entropy together "
                 "have cancelled it already."),
            Slip("sign", lambda: -_softmax_delta(), "the sign is wrong: a - y, not y - a."),
            Slip("kept", lambda: softmax([2, 1, 0.1]),
                 "those are the outputs. The target is still to be subtracted."),
            Slip("labels", lambda: softmax([2, 1, 0.1]) - [0, 1, 0],
                 "here the second class is the target. The first place is number 0."),
        ),
        ("First softmax, then delta = a - y.",
         "a = (0.659, 0.242, 0.099), and y = (1, 0, 0).",
         "np.exp(z) / np.exp(z).sum() - np.array([1, 0, 0])"),
        "$a = (0.659, 0.242, 0.099)$, and $\\delta = a - y = (-0.341, 0.242, 0.099)$.",
    ),
    Exercise(
        "7.3",
        "The output unit has $z = 40$, and $y = 0$. What is the binary cross-entropy, exactly? "
        "One digit after the point. (Try the formula with $p$ first, and then the one with $z$.)",
        lambda: np.logaddexp(0, 40),
        1,
        (
            Slip("one-plus-y", lambda: np.inf,
                 "p was rounded to 1, and the logarithm of 1 - p is that of 0. Compute it from z."),
            Slip("one-plus-y", lambda: np.nan,
                 "0 * log(0) is no number. Compute the cost from z, without the logarithm of 0."),
            Slip("labels", lambda: np.logaddexp(0, -40),
                 "that is the cost for y = 1. Here a very sure answer is wrong."),
            Slip("sign", lambda: -40.0, "a cost is never negative."),
        ),
        ("p rounds to 1. Which formula needs no p?",
         "For y = 0 the cost is log(1 + e^z).",
         "np.maximum(z, 0) - y * z + np.log1p(np.exp(-abs(z)))"),
        "$\\log(1 + e^{40}) = 40 + \\log(1 + e^{-40}) = 40.0$. From $p$, a computer finds "
        "$\\log 0$.",
    ),
    Exercise(
        "8.1",
        "Once the test rows are digits by writers who wrote none of the training rows, once all "
        "rows are shuffled first. Which accuracy is higher? Answer `'writers'` or `'shuffled'`.",
        lambda: "shuffled",
        0,
        (
            Slip("labels", lambda: "writers",
                 "compare the numbers above. It is easier to read a hand that one has seen."),
        ),
        ("The numbers are a few lines above.",
         "In which case has the network seen digits of the same writers?",
         "'shuffled'"),
        "Shuffled: then each writer is in both parts, and the network knows the hand. For digits "
        "of new writers, only the other number is honest.",
    ),
    Exercise(
        "8.2",
        "Of 1,797 test digits 95 % are read right. By how many per cent is that uncertain (95 % "
        "interval, half its width)? One digit after the point.",
        lambda: _half_width(1797),
        1,
        (
            Slip("factor", lambda: _half_width(1797, 1.0),
                 "that is one standard deviation. An interval of 95 % has 1.96 of them."),
            Slip("labels", lambda: _half_width(3823),
                 "that is with the 3,823 training rows. The accuracy was measured on 1,797."),
            Slip("factor", lambda: _half_width(1797) / 100,
                 "that is a share. The question is about per cent."),
        ),
        ("The standard deviation of a share p of n rows is sqrt(p (1 - p) / n).",
         "sqrt(0.95 * 0.05 / 1797) = 0.0051.",
         "100 * 1.96 * 0.0051"),
        "$1.96 \\sqrt{0.95 \\cdot 0.05 / 1797} = 0.0101$: 1.0 points of per cent. A difference "
        "of 0.3 points between two networks means nothing here.",
    ),
    Exercise(
        "8.3",
        "The last network has learned from pixels from 0 to 16 as they are, at a high rate. What "
        "does `diagnose` call its error? The name, between quotes.",
        lambda: _diagnosis()[0],
        0,
        (
            Slip("dead", lambda: "no-better-than-constant",
                 "that is what follows from it. The first finding, the error, is meant."),
            Slip("dead", lambda: "constant-columns",
                 "that is a note: two pixels never have ink. It is harmless."),
            Slip("dead", lambda: "unscaled-inputs",
                 "that is the cause, and what one would change. The question is what happened to "
                 "the units."),
        ),
        ("Print the diagnosis. Its findings have names.",
         "The line starts with 'error:'.",
         "print(course.raw_reader().diagnose(digits.X_train, digits.y_train).codes[0])"),
        "`'dead-units'`: the units of a layer are 0 for every row, and nothing passes.",
    ),
)  # fmt: skip


def _sigmoid_slope(z: float) -> float:
    a = 1 / (1 + np.exp(-z))
    return float(a * (1 - a))

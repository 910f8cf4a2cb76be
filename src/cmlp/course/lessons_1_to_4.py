"""Exercises of lessons 1 to 4: a neuron, a layer, the cost, gradient descent."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cmlp.course.exercise import Exercise, Slip
from cmlp.course.nets import Array, costs_of_test_digits, descend, digits_net, sigmoid
from cmlp.network import Network

ONE, TWO = np.array([[1, 2], [0, 1]]), np.array([[1, 0], [3, 1]])
"""The two layers of exercise 1.3."""


def _n_parameters(*sizes: int) -> int:
    return int(Network(list(sizes)).n_params)


def _costs_of_guessing() -> tuple[float, float]:
    squares = float(((np.full(10, 0.1) - np.eye(10)[3]) ** 2).sum())
    return squares / 2, squares


@lru_cache(maxsize=1)
def _path() -> Array:
    return descend((2, 1), 0.05, 120)


def _steps_below(limit: float, which: int) -> int:
    return int(np.argmax(np.abs(_path()[:, which]) < limit))


FIRST = (
    Exercise(
        "1.1",
        "A neuron has the inputs $x = (2, 1)$, the weights $w = (0.5, -1)$ and the bias "
        "$b = 0.25$. What is its output with the sigmoid? Three digits after the point.",
        lambda: sigmoid(np.dot([2, 1], [0.5, -1]) + 0.25),
        3,
        (
            Slip("bias", lambda: sigmoid(0.0),
                 "that is the output without the bias. Add b to the weighted sum."),
            Slip("bias", lambda: sigmoid(-0.25),
                 "here the bias was subtracted, as one does with a threshold. A bias is added."),
            Slip("shape", lambda: sigmoid(1.25),
                 "the second input is missing: each input is multiplied by a weight of its own."),
            Slip("linear", lambda: 0.25,
                 "that is z, the weighted sum with the bias. The sigmoid of it is meant."),
        ),
        ("First the weighted sum with the bias, then the sigmoid of it.",
         "z = 2 * 0.5 + 1 * (-1) + 0.25.",
         "1 / (1 + np.exp(-0.25))"),
        "$z = 2 \\cdot 0.5 + 1 \\cdot (-1) + 0.25 = 0.25$, and $a = 1 / (1 + e^{-0.25}) = 0.562$.",
    ),
    Exercise(
        "1.2",
        "The same neuron: for which bias $b$ is its output exactly 0.5?",
        lambda: 0.0,
        2,
        (
            Slip("bias", lambda: -0.25,
                 "that is by how much b has to change. The question is what b is afterwards."),
            Slip("shape", lambda: -1.0,
                 "that balances the first input only; the second one takes 1 away already."),
            Slip("slope", lambda: 0.5,
                 "with that bias z is 0.5. The sigmoid of which z is 0.5?"),
        ),
        ("For which z is the sigmoid 0.5?",
         "The sigmoid is 0.5 where z = 0. How large is the weighted sum without a bias?",
         "2 * 0.5 + 1 * (-1) + b = 0"),
        "The sigmoid is 0.5 at $z = 0$. The inputs give $1 - 1 = 0$, so $b = 0$.",
    ),
    Exercise(
        "1.3",
        "Two layers without an activation, $x W_1 W_2$, with $W_1 = ((1, 2), (0, 1))$ and "
        "$W_2 = ((1, 0), (3, 1))$. Which single matrix $W$ gives the same output $x W$ for every "
        "$x$? As `[[., .], [., .]]`.",
        lambda: ONE @ TWO,
        2,
        (
            Slip("shape", lambda: TWO @ ONE,
                 "the matrices are multiplied the other way round. x meets the first one first."),
            Slip("linear", lambda: ONE * TWO,
                 "here the entries were multiplied one by one. A product of matrices is meant."),
            Slip("linear", lambda: ONE + TWO,
                 "the matrices were added. One layer is applied to the output of the other."),
        ),
        ("Brackets may be moved: (x W1) W2 = x (W1 W2).",
         "Row i, column j of the product is the sum over k of W1[i, k] * W2[k, j].",
         "np.array([[1, 2], [0, 1]]) @ np.array([[1, 0], [3, 1]])"),
        "$W = W_1 W_2 = ((7, 2), (3, 1))$. However many layers without an activation are stacked, "
        "they are one matrix.",
    ),
    Exercise(
        "2.1",
        "The network 64-16-16-10: which shape has $W$ of its first layer here, where rows are "
        "examples and $z = x W + b$? As `(., .)`.",
        lambda: digits_net(0).weights[0].shape,
        0,
        (
            Slip("shape", lambda: digits_net(0).weights[0].T.shape,
                 "that is how notes write it that put W before a column of inputs, z = W x + b. "
                 "Here an example is a row, and W is its transpose."),
            Slip("bias", lambda: (65, 16),
                 "the bias is not a row of W here; it is a vector of its own."),
        ),
        ("x is (rows, 64), and z has to be (rows, 16).",
         "(rows, n) times (n, m) is (rows, m).",
         "n = 64 inputs, m = 16 units."),
        "(64, 16): one row for each input, one column for each unit.",
    ),
    Exercise(
        "2.2",
        "How many numbers does the network 64-16-16-10 learn, weights and biases together?",
        lambda: _n_parameters(64, 16, 16, 10),
        0,
        (
            Slip("bias", lambda: 64 * 16 + 16 * 16 + 16 * 10,
                 "those are the weights. Every unit has a bias, too."),
            Slip("bias", lambda: 64 * 16 + 16 * 16 + 16 * 10 + 3,
                 "here each layer has a single bias. Each unit has one of its own."),
            Slip("shape", lambda: 64 * 16 + 16 * 16 + 16 * 10 + 64 + 16 + 16,
                 "here each input of a layer has a bias. It belongs to the unit that sums."),
        ),
        ("Count the weights of each of the three layers, and the biases.",
         "A layer from n to m has n * m weights and m biases.",
         "64 * 16 + 16, and 16 * 16 + 16, and 16 * 10 + 10"),
        "$64 \\cdot 16 + 16 + 16 \\cdot 16 + 16 + 16 \\cdot 10 + 10 = 1482$.",
    ),
    Exercise(
        "2.3",
        "The pictures of MNIST have 28 times 28 pixels. How many numbers does 784-16-16-10 learn?",
        lambda: _n_parameters(784, 16, 16, 10),
        0,
        (
            Slip("bias", lambda: 784 * 16 + 16 * 16 + 16 * 10,
                 "those are the weights. Every unit has a bias, too."),
            Slip("bias", lambda: 784 * 16 + 16 * 16 + 16 * 10 + 3,
                 "here each layer has a single bias. Each unit has one of its own."),
            Slip("kept", lambda: 784 * 16 + 16 * 16 + 16 * 10 + 784 + 16 + 16 + 10,
                 "the pixels have no bias: they are given, not computed."),
        ),
        ("Only the first layer differs from the network of exercise 2.2.",
         "The first layer has 784 * 16 weights and 16 biases.",
         "1482 - 64 * 16 + 784 * 16"),
        "$784 \\cdot 16 + 16 + 16 \\cdot 16 + 16 + 16 \\cdot 10 + 10 = 13002$; nearly all of them "
        "are weights of the first layer.",
    ),
    Exercise(
        "3.1",
        "The outputs are $a = (0.1, 0.7, 0.2)$, the target is $y = (0, 1, 0)$. What is the cost "
        "$C = \\frac{1}{2} \\sum (a - y)^2$? Three digits after the point.",
        lambda: 0.5 * np.sum((np.array([0.1, 0.7, 0.2]) - [0, 1, 0]) ** 2),
        3,
        (
            Slip("factor", lambda: 0.14, "the factor 1/2 is missing."),
            Slip("factor", lambda: 0.14 / 3,
                 "that is the mean over the outputs. The cost of a row is half the sum."),
            Slip("factor", lambda: 0.07 / 3,
                 "the outputs of one row are summed; only rows are averaged."),
            Slip("output", lambda: 0.5 * (0.7 - 1) ** 2,
                 "only the right output was counted. The others ought to be 0, and are not."),
            Slip("sign", lambda: 0.5 * (0.1 + 0.7 + 0.2 - 1) ** 2,
                 "the differences were added before they were squared, and cancelled."),
        ),
        ("Square the three differences, add the squares, and halve the sum.",
         "The differences are 0.1, -0.3 and 0.2.",
         "(0.01 + 0.09 + 0.04) / 2"),
        "$\\frac{1}{2} (0.01 + 0.09 + 0.04) = 0.07$.",
    ),
    Exercise(
        "3.2",
        "`a` and `costs` are the outputs and the costs of the trained network for the 1,797 test "
        "digits. Which row has the largest cost? (Its number, from 0.)",
        lambda: costs_of_test_digits()[1].argmax(),
        0,
        (
            Slip("sign", lambda: costs_of_test_digits()[1].argmin(),
                 "that row has the smallest cost: the digit that is read best."),
            Slip("labels", lambda: costs_of_test_digits()[0].max(axis=1).argmin(),
                 "there the network is least sure. The most wrong row is one where it is sure, "
                 "and errs."),
            Slip("labels", lambda: costs_of_test_digits()[1].max(),
                 "that is the cost itself. The number of its row is meant: np.argmax."),
        ),
        ("The place of the largest number of an array: np.argmax.",
         "It is the costs whose largest is sought, not the outputs.",
         "costs.argmax()"),
        "`costs.argmax()`.",
    ),
    Exercise(
        "3.3",
        "A network that knows nothing answers 0.1 ten times. What does that cost for a row, "
        "whichever digit it is? Three digits after the point.",
        lambda: _costs_of_guessing()[0],
        3,
        (
            Slip("factor", lambda: _costs_of_guessing()[1], "the factor 1/2 is missing."),
            Slip("factor", lambda: _costs_of_guessing()[1] / 10,
                 "that is the mean over the ten outputs. They are summed."),
            Slip("output", lambda: 0.5 * 0.81,
                 "only the right output was counted; each of the nine others costs a little."),
            Slip("output", lambda: 0.5 * 9 * 0.01,
                 "the right output ought to be 1. Its difference counts most."),
        ),
        ("One output ought to be 1, and nine ought to be 0.",
         "The differences are -0.9 once, and 0.1 nine times.",
         "(0.81 + 9 * 0.01) / 2"),
        "$\\frac{1}{2} (0.9^2 + 9 \\cdot 0.1^2) = 0.45$. What costs more than that is worse than "
        "guessing.",
    ),
    Exercise(
        "4.1",
        "$C = \\frac{1}{2} (w_1^2 + 10 w_2^2)$. From $w = (2, 1)$, one step with the learning "
        "rate 0.05: where does it end? As `(., .)`, two digits after the point.",
        lambda: descend((2, 1), 0.05, 1)[-1],
        2,
        (
            Slip("sign", lambda: descend((2, 1), -0.05, 1)[-1],
                 "that step leads uphill. The slope is subtracted."),
            Slip("rate", lambda: (1.9, 0.95),
                 "the 10 is missing in the slope: the valley is ten times steeper that way."),
            Slip("labels", lambda: (2.0, 10.0),
                 "that is the slope. The step is rate times slope, and starts at w."),
            Slip("factor", lambda: (1.95, 0.75),
                 "the 1/2 was kept. The derivative of w^2 / 2 is w."),
        ),
        ("New w = w - rate * slope.",
         "The slope is (w1, 10 w2).",
         "(2 - 0.05 * 2, 1 - 0.05 * 10)"),
        "The slope is $(w_1, 10 w_2) = (2, 10)$, the step $-0.05 (2, 10)$, and it ends at "
        "$(1.9, 0.5)$.",
    ),
    Exercise(
        "4.2",
        "In the same valley: up to which learning rate do the steps not diverge? (Above it, they "
        "grow.) Two digits after the point.",
        lambda: 2 / 10,
        2,
        (
            Slip("rate", lambda: 2.0,
                 "that is the limit along w1, where the curvature is 1. The steepest direction "
                 "decides."),
            Slip("rate", lambda: 0.1,
                 "at that rate w2 is 0 after one step: the best for w2, not the limit."),
            Slip("rate", lambda: 1.0,
                 "at that rate w1 is 0 after one step; w2 has long run away."),
        ),
        ("Each step multiplies w2 by a number. When is it further from 0 than 1?",
         "w2 becomes w2 - rate * 10 w2 = (1 - 10 rate) w2.",
         "1 - 10 * rate = -1"),
        "Each step multiplies $w_2$ by $1 - 10 \\eta$. That stays between -1 and 1 up to "
        "$\\eta = 2 / 10 = 0.2$: two divided by the largest curvature.",
    ),
    Exercise(
        "4.3",
        "From $(2, 1)$ with the learning rate 0.05: after how many steps is $|w_2|$ below 0.01 for "
        "the first time?",
        lambda: _steps_below(0.01, 1),
        0,
        (
            Slip("rate", lambda: _steps_below(0.01, 0),
                 "that is how long w1 takes, along the flat direction."),
            Slip("kept", lambda: _steps_below(0.01, 1) - 1,
                 "one too few: after six steps it is 0.0156."),
            Slip("kept", lambda: 2,
                 "the slope was kept from the first step. It shrinks as w2 shrinks."),
        ),
        ("Each step multiplies w2 by the same number.",
         "1 - 0.05 * 10 = 0.5: each step halves w2.",
         "0.5 ** n < 0.01"),
        "Each step halves $w_2$, and $0.5^7 = 0.0078$ is the first power below 0.01: 7 steps.",
    ),
)  # fmt: skip

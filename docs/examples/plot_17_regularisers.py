"""
Learning by heart, and against it
=================================

Few rows and many weights: the training loss falls to nothing, and that of other rows rises. Four
ways against it.
"""

import matplotlib.pyplot as plt

import cmlp

digits = cmlp.load_digits()
few = slice(0, 300)
ways = {
    "nothing": {},
    "weight_decay=0.1": {"weight_decay": 0.1},
    "dropout=0.3": {"dropout": 0.3},
    "input_noise=0.3": {"input_noise": 0.3},
    "label_smoothing=0.1": {"label_smoothing": 0.1},
}
figure, ax = plt.subplots(figsize=(8, 3.8), layout="constrained")
for (name, more), style in zip(ways.items(), ("-", "--", ":", "-.", (0, (5, 1))), strict=True):
    net = cmlp.Network([64, 128, 128, 10], "relu", input_scale=1 / 16, seed=0)
    history = net.fit(
        digits.X_train[few],
        digits.y_train[few],
        X_val=digits.X_test,
        y_val=digits.y_test,
        epochs=80,
        learning_rate=0.02,
        **more,
    )
    label = f"{name}: {history['val_score'][-1]:.1%} right"
    ax.plot(history["val_loss"], ls=style, label=label)
ax.set(xlabel="epoch", ylabel="loss of other writers' digits", ylim=(0.2, 1))
ax.legend()

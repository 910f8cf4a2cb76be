"""
Text as features
================

Words become columns by hashing: no vocabulary has to be kept. The matrix is sparse, and stays so:
only the rows of a batch are expanded.
"""

import zlib

import matplotlib.pyplot as plt
import numpy as np
from scipy.sparse import csr_matrix

import cmlp

rng = np.random.default_rng(0)
WORDS = {
    "heating": "cold radiator boiler warm heating leak pressure",
    "network": "router slow cable wifi offline signal password",
    "payment": "invoice paid twice refund card amount bank",
}
FILLERS = "the my since please again help it is not working today and"


def ticket(topic):
    return " ".join(
        rng.permutation([*rng.choice(WORDS[topic].split(), 2), *rng.choice(FILLERS.split(), 6)])
    )


topics = rng.choice(list(WORDS), 1200)
texts = [ticket(topic) for topic in topics]
print(texts[0], "->", topics[0])

# %%
# Each word counts in one of 1,024 columns. ``zlib.crc32`` is the same in every process, which
# Python's own ``hash`` is not.
N = 1024


def hashed(texts):
    pairs = [
        (row, zlib.crc32(word.encode()) % N) for row, t in enumerate(texts) for word in t.split()
    ]
    rows, columns = np.array(pairs).T
    return csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(texts), N))


model = cmlp.MLPClassifier((16,), early_stopping=True, learning_rate_init=0.01, random_state=0)
model.fit(hashed(texts[:900]), topics[:900])
print(f"accuracy {model.score(hashed(texts[900:]), topics[900:]):.3f}")
print(model.predict(hashed(["the radiator is cold again", "please refund my card"])))

# %%
# What each word alone is taken for:
words = " ".join(WORDS.values()).split()
figure, ax = plt.subplots(figsize=(8, 2.6), layout="constrained")
image = ax.imshow(model.predict_proba(hashed(words)).T, cmap="cividis", vmin=0, vmax=1)
ax.set_xticks(range(len(words)), words, rotation=60, ha="right")
ax.set_yticks(range(3), model.classes_)
figure.colorbar(image, label="probability", shrink=0.8)

"""
What counted, in a table
========================

Attributions share the answer about a row out among its columns. They add up to it.
"""

import numpy as np

import cmlp

rng = np.random.default_rng(0)
n = 600
flats = {
    "area": rng.uniform(20, 150, n).round(),
    "district": rng.choice(["north", "centre", "harbour"], n),
    "floor": rng.integers(0, 6, n).astype(float),
    "lift": rng.choice(["yes", "no"], n),
}
rent = 8 * flats["area"] + 200 * (flats["district"] == "centre") + rng.normal(0, 40, n)
rent -= 40 * flats["floor"] * (flats["lift"] == "no")

model = cmlp.TabularRegressor(random_state=0, max_time=4).fit(flats, rent)
found = cmlp.attributions(model, {k: v[:100] for k, v in flats.items()}, background=flats)
print(found)

# %%
# Each point is a flat, in the colour of its number in that column.
cmlp.plot.attributions(found)

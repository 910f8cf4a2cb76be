"""
C on a microcontroller
======================

``to_c`` writes a network as one C file without a library, with weights of 8 bits if need be. A
self-test is inside: the file compiled as a program returns 0 if its answers are those of cmlp.
"""

import os
import shutil
import subprocess

import matplotlib.pyplot as plt

import cmlp

digits = cmlp.load_digits()
net = cmlp.Network([64, 16, 10], "relu", input_scale=1 / 16, seed=0)
net.fit(digits.X_train, digits.y_train, epochs=30, learning_rate=0.05)

cmlp.to_c(net, "digits.c")
cmlp.to_c(net, "digits_int8.c", weights="int8", X=digits.X_test[:200])
flash = []
for name in ("digits.c", "digits_int8.c"):
    with open(name) as file:
        (line,) = [line for line in file if line.startswith(" * flash:")]
    flash.append(int(line.split()[2]))
    print(name, os.path.getsize(name), "bytes of text;", line[3:].strip())

figure, ax = plt.subplots(figsize=(6, 1.8), layout="constrained")
ax.bar_label(ax.barh(["float32", "int8"], flash), fmt=" %d bytes")
ax.set(xlabel="tables in flash", xlim=(0, 1.25 * max(flash)))

# %%
# The beginning of the file tells how to use it:
with open("digits_int8.c") as file:
    print("".join(file.readlines()[:24]))

# %%
# If there is a compiler, the self-test:
if compiler := shutil.which("cc"):
    command = [compiler, "-O2", "-DDIGITS_SELFTEST", "digits.c", "-o", "digits", "-lm"]
    subprocess.run(command, check=True)
    print("self-test:", "right" if subprocess.run(["./digits"]).returncode == 0 else "wrong")

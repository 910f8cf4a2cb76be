"""
C on a microcontroller
======================

``to_c`` writes a network as one C file without a library, with weights of 8 bits if need be. A
self-test is inside: the file compiled as a program returns 0 if its answers are those of cmlp.
"""

import os
import shutil
import subprocess

import cmlp

digits = cmlp.load_digits()
net = cmlp.Network([64, 16, 10], "relu", input_scale=1 / 16, seed=0)
net.fit(digits.X_train, digits.y_train, epochs=30, learning_rate=0.05)

cmlp.to_c(net, "digits.c")
cmlp.to_c(net, "digits_int8.c", weights="int8", X=digits.X_test[:200])
for name in ("digits.c", "digits_int8.c"):
    print(name, os.path.getsize(name), "bytes of text")

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

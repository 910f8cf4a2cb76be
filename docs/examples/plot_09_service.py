"""
In a service
============

A model in a web server of the standard library: one predictor for each thread, and single rows in
microseconds.
"""

import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import matplotlib.pyplot as plt
import numpy as np

import cmlp

digits = cmlp.load_digits()
net = cmlp.Network([64, 64, 10], "relu", input_scale=1 / 16, seed=0)
net.fit(digits.X_train, digits.y_train, epochs=20, learning_rate=0.05)
net.save("digits.cmlp")

# %%
# The service loads the file. A predictor belongs to one thread, so each thread has its own.
model = cmlp.load("digits.cmlp")
local = threading.local()


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        if not hasattr(local, "predict"):
            local.predict = model.predictor()
        row = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        p = local.predict(row)
        answer = json.dumps({"digit": int(p.argmax()), "probability": round(float(p.max()), 3)})
        self.send_response(200)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *args):
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()

url = f"http://127.0.0.1:{server.server_port}"
for row, label in zip(digits.X_test[:3], digits.y_test[:3], strict=True):
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    print(label, opener.open(url, json.dumps(row.tolist()).encode()).read().decode())
server.shutdown()
server.server_close()

# %%
# How long the prediction itself takes:
predict = model.predictor()
times = np.empty(2000)
for n, row in enumerate(digits.X_test[np.arange(2000) % 1797]):
    start = time.perf_counter_ns()
    predict(row)
    times[n] = (time.perf_counter_ns() - start) / 1000
figure, ax = plt.subplots(figsize=(6, 2.6), layout="constrained")
ax.hist(times, bins=np.linspace(0, np.quantile(times, 0.99), 50))
ax.set(xlabel="µs for one row", ylabel="calls", title=f"median {np.median(times):.1f} µs")

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
start = time.perf_counter()
for row in digits.X_test[:1000]:
    predict(row)
print(f"{(time.perf_counter() - start) * 1000:.1f} µs a row")

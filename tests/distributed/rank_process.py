"""A rank in a process of its own: it joins the rings that it is told of, until training has ended.

Each line of standard input is a ring, as JSON: addresses, rank, attempt, timeout. Each line of
standard output is what has happened: an address to listen on, an epoch, a ring that broke, the end.
"""

import json
import sys

from ranks import TOKEN
from test_rounds import made

from cmlp.distributed import Listener, RingBroken


def tell(**what):
    print(json.dumps(what), flush=True)


def main():
    rank = made(epochs=int(sys.argv[1]), patience=None)
    while True:
        listener = Listener("127.0.0.1")
        tell(address=listener.address)
        line = sys.stdin.readline()
        if not line:
            return
        try:
            with listener.ring(**json.loads(line), token=TOKEN) as comm:
                ended = ""
                while not ended:
                    found = rank.round(comm)
                    ended = found.ended
                    tell(epoch=found.position.epoch)
        except RingBroken as error:
            tell(broken=str(error), waited_for=error.waited_for)
        else:
            tell(params=rank.net.params.tolist(), losses=rank.net.history["loss"])
            return


if __name__ == "__main__":
    main()

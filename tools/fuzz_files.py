"""Changes model files at random, loads them, and reports every violation of what ``load`` promises.

``PYTHONPATH=src python tools/fuzz_files.py --executions 10000000 --processes 2``; returns 1 if a
fault was found. A file must be refused with a ModelFileError, or give a network that predicts; one
in SECOND_FILES of these networks is written again, must predict the same from the second file, and
must continue to train. Nothing may warn, hang, or use memory beyond what the file's size explains;
a process that dies ends the run. The same seed gives the same files.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import gc
import io
import json
import random
import resource
import signal
import sys
import time
import tracemalloc
import warnings
import zlib
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

import cmlp
from cmlp import ModelFileError

CHUNK = 10_000
"""Files per seed."""

MEASURED = 100
"""One file in this many is loaded with every allocation counted."""

SECOND_FILES = 8
"""One network in this many is written, read again and trained: ten times the work."""

SECONDS = 2.0
"""Limit of processor time for a file of this size (with its second file)."""

BATCH = 64
"""Files whose time is taken together; one by one if that is beyond the limit of one."""

ROOM, FACTOR = 2 * 2**20, 100
"""Limit of the bytes that loading allocates: a constant, and per byte of the file."""

ADDRESS_SPACE = 128 * 2**20
"""Limit of a process's growth, in bytes."""


# Seed files --------------------------------------------------------------------------------------

LABELS = (
    *(np.array([100, 3, 42], code) for code in ("i1", "u1", "i2", "u2", "i4", "u4")),
    np.array([-(2**63), 0, 2**63 - 1]),
    np.array([7, 2**63 + 1025, 2**64 - 1], np.uint64),
    np.array([0.5, -1.5, 1e300]),
    np.array([0.5, 2, 1], np.float16),
    np.array([0.1, 2, 1], np.float32),
    np.array(["ape", "bee", "cat"]),
    np.array(["ä\n", "日本", "🐝 \\u0041"]),
    np.array([b"x\xff", b"", b"abc"]),
    np.array([3, 1, 2], ">i4"),
)
GENERATORS = ("PCG64", "PCG64DXSM", "MT19937", "Philox", "SFC64")
SOLVERS = ("sgd", "adam", "rmsprop", "adamw", "nadam", "lion")


def squared_error(outputs, targets):
    error = outputs - targets
    return 0.5 * (error**2).sum(axis=1).mean(), error / len(error)


def networks():
    """Create a network for each kind of content that a file may have, with how to save it."""
    rng = np.random.default_rng(0)
    X, place = rng.normal(size=(12, 2)), np.arange(12) % 3
    for number, labels in enumerate(LABELS):
        generator = getattr(np.random, GENERATORS[number % 5])(number)
        net = cmlp.Network(
            [2, 3, 3],
            ("tanh", "gelu", "relu")[number % 3],
            dtype=("float32", "float64")[number % 2],
            normalization=(None, "batch", "layer")[number // 2 % 3],
            seed=np.random.Generator(generator),
            input_scale=(1.0, 1 / 255)[number % 2],
        )
        if number % 3:
            net.feature_names, net.target_name = ["größe", "b"], "y"
        how = {"validation_fraction": 0.25, "patience": 1} if number % 2 else {}
        net.fit(
            X, place, epochs=2, batch_size=4, solver=SOLVERS[number % 6],
            ema=(0.0, 0.9)[number // 3 % 2], **how,
        )  # fmt: skip
        net.classes = labels
        yield net, number % 4 != 3
    y = rng.normal(size=12)
    for loss in ("huber", "quantile", "poisson", squared_error):
        net = cmlp.Network([2, 2, 1], ["softplus"], loss=loss, quantile=0.3, seed=1)
        net.fit(X, np.abs(y), epochs=1, learning_rate=1e-3)
        yield net, False
    several = cmlp.Network([2, 2], loss="binary_crossentropy", missing_targets=True, seed=2)
    several.train_epoch(X, (rng.random((12, 2)) > 0.5).astype(float))
    yield several, True
    two = cmlp.Network([2, 1], loss="binary_crossentropy", seed=3)
    two.fit(X, np.array([True, False])[place % 2], epochs=1)
    yield two, False
    yield cmlp.Network([1, 1, 1, 1], ["selu", "mish"], seed=4), True
    names = ["leaky_relu:0.3", "elu:0.5"]
    yield cmlp.Network([1, 1, 1, 1], names, normalization="layer", normalization_epsilon=0.1), True
    before = {"periodic": [0], "frequencies": 2, "width": 2, "scaled": True}
    for number, tables in enumerate(({"levels": {1: (3, 2)}}, {"summed": {1: 3}})):
        net = cmlp.Network(
            [2, 3, 3], "tanh", inputs=cmlp.Inputs(**before, **tables), parametric_activation=True,
            normalization=(None, "batch")[number], seed=5 + number,
        )  # fmt: skip
        net.fit(X, place, epochs=1, solver="adam")
        yield net, True


class Seed:
    """A valid file: its bytes, its header in parts, and its data."""

    def __init__(self, raw):
        self.raw = raw
        end = 8 + int.from_bytes(raw[:8], "little")
        self.header, self.data = raw[8:end].decode().rstrip(), raw[end:]
        self.metadata = json.loads(self.header)["__metadata__"]
        self.digits = [at for at in range(8, end) if 48 <= raw[at] < 58]
        self.around = {}
        for key, text in self.metadata.items():
            before, after = self.header.split(json.dumps(text, ensure_ascii=False), 1)
            self.around[key] = before, after

    def with_text(self, key, text):
        """Return the file with other text under a key of its metadata."""
        before, after = self.around[key]
        return framed(f"{before}{json.dumps(text)}{after}", self.data)


def seeds():
    """Return a file of each network."""
    files = []
    for net, optimizer in networks():
        file = io.BytesIO()
        net.save(file, optimizer=optimizer)
        files.append(Seed(file.getvalue()))
    return files


# Changes -----------------------------------------------------------------------------------------

TEXTS = (
    "", "x", "f4,f4", "O", "(2,)i4", "f4,(", "<U999999999", "<U0", "|S0", "<U3 ", "<u٣", "<f8,",
    "__import__('os')", "().__class__", "float16", "float128", "<f16", "<c8", "<M8[s]", "|V4",
    "=i8", "i8", "nan", "inf", "1_000", "0x10", "\u0661", "\x00", "a\x00", "\ud800", "💥" * 30,
    "softmax", "custom", "quantile", "lion", "MT19937", "Philox", "batch", "x" * 5000, "[" * 500,
    "F64", "I8", "BOOL", "BF16", "epochs", "../../etc", "%s%n", "__metadata__", "cmlp", "2",
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, 2, 3, 5, -1, 255, 256, 624, 625, 2**31, 2**32, 2**53 + 1, 2**62,
    2**63 - 1, 2**63, 2**64, -(2**63), 2**128 - 1, 2**128, 10**30, 10**400, 0.0, -0.0, 0.5, 1.5,
    1e-320, 1e308, [], {}, [[]], [None], {"a": 1}, [0, 0], [1] * 624, [0] * 700,
)  # fmt: skip
RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "-" + "9" * 5000,
    "1." + "3" * 999, "[" * 2000 + "]" * 2000, '{"a":' * 1500 + "1" + "}" * 1500,
    '{"a":1,"a":2}', "1E5", "-0", "2.0", '"\\ud800"', '"\\u0000"', "[1,]", "'x'", "0x1", "00",
    "tru", "",
)  # fmt: skip
"""JSON, and text close to JSON, that ``json.dumps`` would not write."""

MARK = "\x01raw\x01"

JSON = ("network", "network", "history", "classes", "classes", "optimizer", "optimizer")
"""Entries of the metadata that are JSON themselves."""


def framed(header, data):
    """Put a header, as text, before the data."""
    text = header.encode("utf-8", "surrogatepass")
    return len(text).to_bytes(8, "little") + text + data


def places(tree):
    """List the places in a tree of dicts and lists: (container, key)."""
    found, todo = [], [tree]
    for node in todo:
        keys = node if isinstance(node, dict) else range(min(len(node), 50))
        for key in keys:
            found.append((node, key))
            if isinstance(node[key], (dict, list)):
                todo.append(node[key])
    return found


def nasty(rng, old):
    """Return a replacement for a value."""
    kind = rng.randrange(8)
    if kind == 0 and type(old) is float:
        return rng.choice((old + 1, -old, old * 1e9, old / 1e9, str(old), rng.random()))
    if kind == 0 and type(old) is int and abs(old) < 2**200:
        return rng.choice((old + 1, old - 1, -old, old * 2, old * 1e9, old << 64, str(old)))
    if kind == 1 and isinstance(old, str):
        at = rng.randrange(len(old) + 1)
        return rng.choice(
            (old[:at], old + old, old[:at] + rng.choice(TEXTS) + old[at:], old.upper())
        )
    if kind == 2 and isinstance(old, list):
        new = old[:50] * rng.choice((0, 1, 2, 40)) + [any_value(rng)] * rng.randrange(2)
        rng.shuffle(new)
        return new
    if kind == 3:
        return rng.choice(([old], {"a": old}, str(old)[:1000], [old]))
    if kind == 4:
        return rng.choice(TEXTS)
    if kind == 5:
        return MARK
    return any_value(rng)


def any_value(rng):
    return copy.deepcopy(rng.choice(VALUES))  # which may be changed, too


def edit(rng, tree):
    """Change a random place of a tree of dicts and lists."""
    found = places(tree)
    if not found:
        return
    node, key = rng.choice(found)
    kind = rng.randrange(10)
    if kind == 0:
        del node[key]
    elif kind == 1:
        other, place = rng.choice(found)
        node[key], other[place] = copy.deepcopy(other[place]), copy.deepcopy(node[key])
    elif kind == 2 and isinstance(node, dict):
        node[rng.choice(TEXTS) or str(key) + "x"] = (
            node[key] if rng.random() < 0.5 else node.pop(key)
        )
    elif kind == 3 and isinstance(node, list):
        node.insert(key, rng.choice((copy.deepcopy(node[key]), any_value(rng))))
    else:
        node[key] = nasty(rng, node[key])


def dumped(rng, tree, **options):
    """Write JSON, with invalid text at the marked place."""
    text = json.dumps(tree, **options)
    return text.replace(json.dumps(MARK), rng.choice(RAW)) if MARK[1:-1] in text else text


def change_text(rng, seed):
    """Change the JSON inside the metadata, which only cmlp reads."""
    key = rng.choice(JSON)
    if key not in seed.metadata:
        key = "network"
    if rng.random() < 0.02:
        return seed.with_text(key, rng.choice((*RAW, *TEXTS)))
    tree = json.loads(seed.metadata[key])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        edit(rng, tree)
    return seed.with_text(key, dumped(rng, tree))


def change_header(rng, seed):
    """Change the header itself: names, dtypes, shapes and places of arrays."""
    tree, data = json.loads(seed.header), seed.data
    edit(rng, tree)
    text = dumped(rng, tree, ensure_ascii=rng.random() < 0.5)
    if rng.random() < 0.2:
        data = rng.choice((data + data, data[: len(data) // 2], data + b"\0", b"", data[:-4]))
    return framed(text, data)


def fitting_shapes(rng, seed):
    """Give arrays other shapes, dtypes and an order that still fit the data."""
    tree, begin = json.loads(seed.header), 0
    names = [name for name in tree if name != "__metadata__"]
    chosen = rng.choice(names)
    rng.shuffle(names)
    for name in names:
        entry = tree[name]
        if name == chosen:
            entry["shape"] = rng.choice(([0], [2, 0], [1], [], [1] * 32, [40], [2, 3], [3, 3, 1]))
            entry["dtype"] = rng.choice(("F64", "F32", "F16", "I64", "U8", "BOOL", entry["dtype"]))
        size = {"F64": 8, "I64": 8, "F32": 4, "F16": 2}.get(entry["dtype"], 1)
        end = begin + size * int(np.prod(entry["shape"]))
        entry["data_offsets"], begin = [begin, end], end
    return framed(json.dumps(tree), rng.randbytes(begin))


def change_length(rng, seed):
    """Change the first eight bytes, the header's length."""
    raw = seed.raw
    length = int.from_bytes(raw[:8], "little")
    new = rng.choice((
        0, 1, length - 1, length + 1, length - 64, length + 64, 2 * length, 2**24, 2**24 + 1, 2**32,
        2**63, 2**64 - 1, rng.getrandbits(64), rng.randrange(len(raw)),
    ))  # fmt: skip
    return (new % 2**64).to_bytes(8, "little") + raw[8:]


def change_bytes(rng, raw):
    """Flip bits, write bytes, move, remove and repeat some; mostly in the header."""
    raw = bytearray(raw)
    header = 8 + int.from_bytes(raw[:8], "little")
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        most = len(raw) if rng.random() < 0.02 else min(header, len(raw))
        at, n = rng.randrange(most or 1), rng.choice((1, 1, 2, 4, 8, 64))
        kind = rng.randrange(6)
        if kind == 0 and at < len(raw):
            raw[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(raw):
            raw[at] = rng.choice(b'\0\x01\x7f\x80\xff"{}[],:0159-+.eEnN\\ud')
        elif kind == 2:
            raw[at : at + n] = rng.randbytes(n)
        elif kind == 3:
            del raw[at : at + n]
        elif kind == 4:
            raw[at:at] = raw[at : at + n]
        else:
            raw[at:at] = rng.choice((*TEXTS, *RAW)).encode("utf-8", "surrogatepass")
    return bytes(raw)


def digits(rng, seed):
    """Replace some digits: the text stays JSON, and the length of the file is the same."""
    raw = bytearray(seed.raw)
    for _ in range(rng.choice((1, 1, 2, 5))):
        raw[rng.choice(seed.digits)] = rng.choice(b"0123456789")
    return bytes(raw)


def truncate(rng, seed):
    return seed.raw[: rng.randrange(len(seed.raw))]


def splice(rng, seed, other):
    """Continue with another file: at the same place, or anywhere."""
    at = rng.randrange(len(seed.raw))
    return seed.raw[:at] + other.raw[at if rng.random() < 0.7 else rng.randrange(len(other.raw)) :]


def exchange(rng, seed, other):
    """Take an entry of the metadata from another file."""
    key = rng.choice(list(other.metadata))
    if key not in seed.metadata:
        key = "network"
    return seed.with_text(key, other.metadata[key])


def changed(rng, files):
    """Generate a file from scratch."""
    seed, other = rng.choices(files, [1 / len(file.raw) for file in files], k=2)
    way = rng.random()
    if way < 0.56:
        return change_text(rng, seed)
    if way < 0.66:
        return change_header(rng, seed)
    if way < 0.86:
        return change_bytes(rng, seed.raw)
    if way < 0.88:
        return digits(rng, seed)
    if way < 0.90:
        return exchange(rng, seed, other)
    if way < 0.93:
        return splice(rng, seed, other)
    if way < 0.95:
        return fitting_shapes(rng, seed)
    if way < 0.97:
        return change_length(rng, seed)
    if way < 0.98:
        return truncate(rng, seed)
    return change_bytes(rng, change_text(rng, seed))


# Invariants --------------------------------------------------------------------------------------


class Wrong(Exception):
    """A loaded network violates an invariant."""


def check(raw):
    """Load a file and check the network; return the outcome."""
    try:
        net = cmlp.load(io.BytesIO(raw))
    except ModelFileError as error:
        if isinstance(error.__cause__, MemoryError):
            raise Wrong("it uses too much memory") from error
        return "refused"
    X = np.linspace(-1, 1, 3 * net.sizes[0]).reshape(3, -1)
    expected = net.predict(X)
    if zlib.crc32(raw) % SECOND_FILES:
        return "accepted"
    net.rng.random(), net.rng.permutation(5), repr(net), net.summary()
    if net.classes is not None:
        net.predict_classes(X)
    file = io.BytesIO()
    net.save(file, optimizer=bool(net.solver))
    again = cmlp.load(io.BytesIO(file.getvalue()))
    if again.predict(X).tobytes() != expected.tobytes():
        raise Wrong("its second file predicts differently")
    if len(raw) % 2 == 0:
        other = io.BytesIO()
        again.save(other, optimizer=bool(net.solver))
        if other.getvalue() != file.getvalue():
            raise Wrong("its second file differs")
    elif net.solver and net.loss_row is not None:  # the loaded state must allow further training
        y = np.eye(net.sizes[-1])[np.arange(3) % net.sizes[-1]]
        with contextlib.suppress(cmlp.DivergenceError):
            net.train_epoch(
                X,
                y,
                solver=net.solver,
                batch_size=2,
                shuffle=True,
                dropout=0.5 * bool(net.sizes[2:]),
            )
    return "accepted"


def measured(raw):
    """Load a file with the allocations counted."""
    tracemalloc.start()
    try:
        outcome = check(raw)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    if peak > ROOM + FACTOR * len(raw):
        raise Wrong(f"it uses {peak:,} bytes of memory")
    return outcome


def hangs(*_):
    raise Wrong("it does not end")


def tried(raw, counted, counts):
    """Try a file, and note the outcome; return what is wrong, if anything is."""
    try:
        counts[(measured if counted else check)(raw)] += 1
    except Exception as error:
        counts[type(error).__name__] += 1
        return f"{type(error).__name__}: {error}"[:200]
    return None


def slow(raw):
    """Try a file once more; return what is wrong if it takes too long."""
    began = time.process_time()
    with contextlib.suppress(Exception):
        check(raw)
    return "it takes too long" if time.process_time() - began > SECONDS else None


def run(chunk):
    """Try the files of one chunk; return the counts, the faults, and the memory."""
    files, number, n, keep = chunk
    rng = random.Random(number)
    counts, wrong = collections.Counter(), []
    before = signal.signal(signal.SIGVTALRM, hangs)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for start in range(0, n, BATCH):
            batch = [changed(rng, files) for _ in range(min(BATCH, n - start))]
            signal.setitimer(signal.ITIMER_VIRTUAL, 120)  # processor time of this process
            began = time.process_time()
            found = {
                start + at: fault
                for at, raw in enumerate(batch)
                if (fault := tried(raw, (start + at) % MEASURED == 0, counts))
            }
            if time.process_time() - began > SECONDS:  # which of them?
                found |= {start + at: fault for at, raw in enumerate(batch) if (fault := slow(raw))}
            for execution, what in found.items():
                wrong.append((number, execution, what))
                if keep:
                    name = f"{number}-{execution}.cmlp"
                    (Path(keep) / name).write_bytes(batch[execution - start])
    signal.setitimer(signal.ITIMER_VIRTUAL, 0)
    signal.signal(signal.SIGVTALRM, before)
    return counts, wrong, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def begin():
    """Limit the memory of a process, so that excessive use fails."""
    gc.freeze()
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--executions", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--keep", metavar="DIRECTORY", help="folder for files that show a fault")
    args = parser.parse_args(arguments)
    files = seeds()
    chunks = [
        (files, args.seed * 10**6 + number, min(CHUNK, args.executions - start), args.keep)
        for number, start in enumerate(range(0, args.executions, CHUNK))
    ]
    total, faults, began, grown = collections.Counter(), 0, time.perf_counter(), []
    sizes = [len(file.raw) for file in files]
    print(f"{len(files)} files of {min(sizes):,} to {max(sizes):,} bytes, "
          f"seed {args.seed}, core {cmlp.core_info().core}", flush=True)  # fmt: skip
    with ProcessPoolExecutor(args.processes, initializer=begin) as pool:
        for number, (counts, wrong, memory) in enumerate(pool.map(run, chunks), 1):
            total += counts
            faults += len(wrong)
            grown.append(memory)
            for where in wrong[:20]:
                print("FAULT", *where, flush=True)
            if number % 10 == 0 or number == len(chunks):
                done, seconds = total.total(), time.perf_counter() - began
                said = ", ".join(f"{key} {count:,}" for key, count in total.most_common())
                print(f"{done:12,d} files, {done / seconds:7,.0f}/s: {said}; "
                      f"{max(grown) / 1e3:.0f} MB", flush=True)  # fmt: skip
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())

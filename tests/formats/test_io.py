"""The safetensors layout: what is written can be read, and no file breaks the reader."""

import errno
import json
import os
import stat
import sys
import tracemalloc
from contextlib import contextmanager
from io import BufferedWriter, FileIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cmlp.formats import safetensors
from cmlp.formats.safetensors import ModelFileError

SMALL = 512 * 1024
"""Bytes that reading a bad file may take: the buffer of `open` and what JSON makes of a header."""
posix = pytest.mark.skipif(os.name != "posix", reason="permissions and links as POSIX has them")
fuzz = settings(deadline=None, database=None, max_examples=100)

EXAMPLE = {
    "layers.0.weights": np.arange(12, dtype=np.float32).reshape(3, 4),
    "layers.0.bias": np.array([1.5, -2.5]),
    "classes": np.array([True, False, True]),
    "step": np.array(7, np.int16),
}
TEXT = {"format": "cmlp", "größe": "3 → 4 ✓\n"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.cmlp"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """One path for all the examples of a property."""
    return tmp_path_factory.mktemp("scratch") / "model.cmlp"


@pytest.fixture(scope="module")
def example_bytes(scratch):
    safetensors.write(scratch, EXAMPLE, TEXT)
    return scratch.read_bytes()


@pytest.fixture(scope="module")
def tiny_bytes(scratch):
    """A file small enough to try every byte of it."""
    safetensors.write(
        scratch, {"w": np.ones(2, np.float32), "b": np.array([True, False])}, {"é": "1"}
    )
    return scratch.read_bytes()


def entry(dtype="F32", shape=(1,), offsets=(0, 4), **more):
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


def file_bytes(header, data=b""):
    """Frame a header (bytes, text, or what becomes JSON) and data, sound or not."""
    if not isinstance(header, str | bytes):
        header = json.dumps(header)
    raw = header if isinstance(header, bytes) else header.encode()
    return len(raw).to_bytes(8, "little") + raw + data


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for name, array in expected.items():
        array = np.asarray(array)
        assert got[name].shape == array.shape, name
        assert got[name].dtype == array.dtype.newbyteorder("="), name
        native = array.astype(array.dtype.newbyteorder("="))
        assert got[name].tobytes() == native.tobytes(), name  # NaN payloads and -0.0 as well


def assert_own(array):
    assert type(array) is np.ndarray
    assert array.flags.owndata and array.flags.writeable
    assert array.flags.aligned and array.flags.c_contiguous and array.dtype.isnative


@contextmanager
def at_most(n_bytes):
    """Fail if the block takes more memory than `n_bytes`; NumPy's arrays count."""
    tracemalloc.start()
    try:
        yield
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < n_bytes


def header_of(path):
    """Return what `validate` gets: the metadata, and dtype and shape of each array."""
    headers = []
    safetensors.read(path, lambda *header: headers.append(header))
    return headers[0]


def load_or_refuse(path, raw):
    """Return what `raw` holds, or None if it is refused as it should be."""
    path.write_bytes(raw)
    try:
        loaded = safetensors.read(path)
    except ModelFileError as error:
        assert str(error).startswith(f"{path} ")
        return None
    for array in loaded[0].values():
        assert_own(array)
    metadata, infos = header_of(path)
    assert metadata == loaded[1]
    assert infos == {name: (a.dtype, a.shape) for name, a in loaded[0].items()}
    return loaded


# Round trips -------------------------------------------------------------------------------------

SHAPES = [(), (0,), (1,), (7,), (0, 3), (3, 0), (2, 3), (2, 3, 4), (1,) * 32]


@pytest.mark.parametrize("dtype", safetensors.DTYPES.values())
def test_round_trip(path, dtype):
    rng = np.random.default_rng(0)
    arrays = {str(shape): rng.integers(0, 2, shape).astype(dtype) for shape in SHAPES}
    safetensors.write(path, arrays, TEXT)
    loaded, metadata = safetensors.read(path)
    assert_same(loaded, arrays)
    for array in loaded.values():
        assert_own(array)
    assert metadata == TEXT


GRID = np.arange(24, dtype=np.int32).reshape(4, 6)
READ_ONLY = GRID.copy()
READ_ONLY.flags.writeable = False
LAYOUTS = {
    "fortran": np.asfortranarray(GRID),
    "strided": GRID[::2, 1::2],
    "reversed": GRID[::-1, ::-1],
    "broadcast": np.broadcast_to(np.float16(3), (2, 3)),
    "big-endian": GRID.astype(">f8"),
    "big-endian 0-d": np.array(3, ">u4"),
    "big-endian strided": GRID.astype(">i2").T[::2],
    "read-only": READ_ONLY,
    "unaligned": np.frombuffer(b"\0" + GRID.tobytes(), np.int32, offset=1),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_any_layout(path, name):
    safetensors.write(path, {"a": LAYOUTS[name]}, {})
    arrays, _ = safetensors.read(path)
    assert_same(arrays, {"a": LAYOUTS[name]})
    assert_own(arrays["a"])


def test_booleans_of_any_byte_are_written_as_0_and_1(path):
    safetensors.write(path, {"a": np.array([0, 1, 2, 255], np.uint8).view(bool)}, {})
    assert safetensors.read(path)[0]["a"].view(np.uint8).tolist() == [0, 1, 1, 1]


def test_no_arrays(path):
    safetensors.write(path, {}, {})
    assert safetensors.read(path) == ({}, {})


def test_layout_in_the_file(path, example_bytes):
    """The data starts at a multiple of 64, and each array at one of its item's size."""
    length = int.from_bytes(example_bytes[:8], "little")
    assert (8 + length) % 64 == 0
    header = json.loads(example_bytes[8 : 8 + length])
    assert header.pop("__metadata__") == TEXT
    last = 0
    for name in sorted(header, key=lambda name: header[name]["data_offsets"]):
        begin, end = header[name]["data_offsets"]
        assert begin == last and begin % EXAMPLE[name].itemsize == 0
        last = end
    assert 8 + length + last == len(example_bytes)
    safetensors.write(path, EXAMPLE, TEXT)
    assert path.read_bytes() == example_bytes  # the same model, the same file


def test_order_is_kept_within_a_dtype(path):
    names = ["z", "a", "m", "b"]
    safetensors.write(path, {name: np.zeros(2, np.float32) for name in names}, {})
    assert list(safetensors.read(path)[0]) == list(header_of(path)[1]) == names


def test_unicode_and_odd_names(tmp_path):
    path = tmp_path / "Gewichte ж 重み 🧠.cmlp"
    names = ["", " ", "ж", "重み", "🧠", 'a"b\\c', "\0\n\x7f", "../x", "e\u0301", "\u00e9", "{"]
    arrays = {name: np.array([i]) for i, name in enumerate(names)}
    safetensors.write(path, arrays, {name: name for name in names})
    loaded, metadata = safetensors.read(str(path))
    assert_same(loaded, arrays)
    assert metadata == {name: name for name in names}


names = st.text(max_size=8).filter(lambda name: name != "__metadata__")
any_array = st.sampled_from([e + d for d in safetensors.DTYPES.values() for e in "<>"]).flatmap(
    lambda dtype: hnp.arrays(
        dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    )
)


@fuzz
@given(
    arrays=st.dictionaries(names, any_array, max_size=4),
    metadata=st.dictionaries(st.text(max_size=8), st.text(max_size=20), max_size=4),
)
def test_round_trip_of_anything(scratch, arrays, metadata):
    safetensors.write(scratch, arrays, metadata)
    loaded, text = safetensors.read(scratch)
    assert_same(loaded, arrays)
    assert text == metadata


# The other program -------------------------------------------------------------------------------


def test_safetensors_reads_ours(path):
    package = pytest.importorskip("safetensors")
    numpy_side = pytest.importorskip("safetensors.numpy")
    arrays = dict(EXAMPLE)
    for dtype in safetensors.DTYPES.values():
        arrays |= {f"{dtype}{shape}": np.ones(shape, dtype) for shape in SHAPES}
    safetensors.write(path, arrays, TEXT)
    assert_same(numpy_side.load_file(path), arrays)
    with package.safe_open(path, "np") as file:
        assert file.metadata() == TEXT


@pytest.mark.parametrize("metadata", [TEXT, {}, None], ids=["text", "empty", "none"])
def test_we_read_safetensors(path, metadata):
    numpy_side = pytest.importorskip("safetensors.numpy")
    arrays = dict(EXAMPLE)
    for dtype in safetensors.DTYPES.values():
        arrays |= {f"{dtype}{shape}": np.ones(shape, dtype) for shape in SHAPES}
    numpy_side.save_file(arrays, path, metadata)
    loaded, text = safetensors.read(path)
    assert_same(loaded, arrays)
    assert text == (metadata or {})


# Refusals ----------------------------------------------------------------------------------------

NO_HEADER = "a header of valid JSON"
FOUR = bytes(4)
HOSTILE = {
    "empty file": (b"", "cut off: a model file has at least 8 bytes, 0 are there"),
    "seven bytes": (bytes(7), "cut off: a model file has at least 8 bytes, 7 are there"),
    "a picture": (b"\x89PNG\r\n\x1a\n" + bytes(90), "a header of at most 16777216 bytes, got"),
    "largest length": (b"\xff" * 8, "a header of at most 16777216 bytes"),
    "length just above the cap": (
        (safetensors.MAX_HEADER + 1).to_bytes(8, "little") + b"{}",
        "a header of at most 16777216 bytes",
    ),
    "length at the cap": (
        safetensors.MAX_HEADER.to_bytes(8, "little") + b"{}",
        "cut off: it promises a header of 16,777,216 bytes, 2 are there; copy or save it again",
    ),
    "no header": (bytes(8), "it does not start with '{'"),
    "space first": (file_bytes(" {}"), "it does not start with '{'"),
    "byte order mark": (file_bytes("\ufeff{}"), "it does not start with '{'"),
    "list": (file_bytes("[]"), "it does not start with '{'"),
    "UTF-16": (file_bytes("{}".encode("utf-16-le")), NO_HEADER),
    "no UTF-8": (file_bytes(b'{"\xff": 1}'), "can't decode byte 0xff"),
    "surrogate": (file_bytes(r'{"\ud800": 1}'), "surrogates not allowed"),
    "surrogate in metadata": (
        file_bytes(r'{"__metadata__": {"a": "\udc00"}}'), "surrogates not allowed",
    ),
    "open brace": (file_bytes("{"), NO_HEADER),
    "trailing comma": (file_bytes('{"__metadata__": {},}'), NO_HEADER),
    "two objects": (file_bytes("{}{}"), "Extra data"),
    "padded with zeros": (file_bytes("{}\0\0"), "Extra data"),
    "newline in a name": (file_bytes('{"a\nb": 1}'), "Invalid control character"),
    "NaN": (file_bytes('{"a": NaN}'), "the number NaN"),
    "minus infinity": (file_bytes('{"a": -Infinity}'), "the number -Infinity"),
    "5,000 digits": (file_bytes('{"a": 1' + "0" * 5000 + "}"), "a number of 5001 digits"),
    "20 digits": (file_bytes('{"a": ' + "9" * 20 + "}"), "a number of 20 digits"),
    "deep list": (file_bytes('{"a": ' + "[" * 100_000), NO_HEADER),
    "deep sound list": (file_bytes('{"a":' + "[" * 100_000 + "]" * 100_000 + "}"), NO_HEADER),
    "deep object": (file_bytes('{"a": ' * 100_000), NO_HEADER),
    "fairly deep": (file_bytes('{"a": ' * 300 + "1" + "}" * 300), "exactly dtype, shape and data_"),
    "name twice": (file_bytes('{"a": 1, "a": 1}'), "the key 'a' comes twice"),
    "name twice, escaped": (file_bytes(r'{"a": 1, "\u0061": 1}'), "the key 'a' comes twice"),
    "metadata twice": (
        file_bytes('{"__metadata__": {}, "__metadata__": {}}'), "'__metadata__' comes twice",
    ),
    "key twice in metadata": (
        file_bytes('{"__metadata__": {"k": "", "k": ""}}'), "the key 'k' comes twice",
    ),
    "key twice in an array": (
        file_bytes('{"a":{"dtype":"U8","dtype":"U8","shape":[0],"data_offsets":[0,0]}}'),
        "the key 'dtype' comes twice",
    ),
    "50,000 names and one twice": (
        file_bytes("{" + "".join(f'"{i}":0,' for i in range(50_000)) + '"49999":0}'),
        "the key '49999' comes twice",
    ),
    "metadata null": (file_bytes({"__metadata__": None}), "metadata that is all text, got None"),
    "metadata list": (file_bytes({"__metadata__": []}), "metadata that is all text, got []"),
    "metadata number": (file_bytes({"__metadata__": {"a": 1}}), "all text, got {'a': 1}"),
    "metadata nested": (file_bytes({"__metadata__": {"a": {}}}), "all text, got {'a': {}}"),
    "entry null": (file_bytes({"a": None}), "exactly dtype, shape and data_offsets, got None"),
    "entry list": (file_bytes({"a": []}), "exactly dtype, shape and data_offsets, got []"),
    "no shape": (file_bytes({"a": {"dtype": "F32", "data_offsets": [0, 4]}}, FOUR), "exactly"),
    "extra key": (file_bytes({"a": entry(x=1)}, FOUR), "exactly dtype, shape and data_offsets"),
    "BF16": (
        file_bytes({"a": entry("BF16", (2,))}, FOUR),
        "got 'BF16'; convert it with the program that wrote it",
    ),
    "F8": (file_bytes({"a": entry("F8_E4M3", (4,))}, FOUR), "a dtype among F64, I64"),
    "small letters": (file_bytes({"a": entry("f32")}, FOUR), "got 'f32'"),
    "object dtype": (file_bytes({"a": entry("O")}, FOUR), "got 'O'"),
    "dtype null": (file_bytes({"a": entry(None)}, FOUR), "a dtype among"),
    "dtype list": (file_bytes({"a": entry(["F32"])}, FOUR), "a dtype among"),
    "shape number": (file_bytes({"a": entry(shape=1)}, FOUR), "a shape of up to 32 sizes"),
    "shape null": (file_bytes({"a": entry(shape=None)}, FOUR), "a shape of up to 32 sizes"),
    "shape true": (file_bytes({"a": entry(shape=[True])}, FOUR), "memory holds, got [True]"),
    "shape float": (file_bytes({"a": entry(shape=[1.0])}, FOUR), "got [1.0]"),
    "shape text": (file_bytes({"a": entry(shape=["1"])}, FOUR), "got ['1']"),
    "shape nested": (file_bytes({"a": entry(shape=[[1]])}, FOUR), "got [[1]]"),
    "shape negative": (file_bytes({"a": entry(shape=[-1, -1])}, FOUR), "got [-1, -1]"),
    "33 dimensions": (file_bytes({"a": entry(shape=[1] * 33)}, FOUR), "a shape of up to 32 sizes"),
    "product wraps to 0": (
        file_bytes({"a": entry(shape=[2**32, 2**32], offsets=(0, 0))}), "that memory holds",
    ),
    "product wraps to 4": (
        file_bytes({"a": entry("U8", [(2**64 + 4) // 4, 4])}, FOUR), "that memory holds",
    ),
    "19 digits": (file_bytes({"a": entry(shape=[2**63 - 1] * 32)}, FOUR), "that memory holds"),
    "empty but huge": (
        file_bytes({"a": entry(shape=[0, 2**62, 2**62], offsets=(0, 0))}), "that memory holds",
    ),
    "claims 4 TB": (
        file_bytes({"a": entry(shape=[2**40], offsets=(0, 2**42))}, FOUR),
        "cut off: its header promises 4,398,046,511,104 bytes of data, 4 are there; copy or",
    ),
    "one offset": (file_bytes({"a": entry(offsets=[0])}, FOUR), "two whole numbers, got [0]"),
    "three offsets": (file_bytes({"a": entry(offsets=[0, 4, 4])}, FOUR), "two whole numbers"),
    "offsets null": (file_bytes({"a": entry(offsets=None)}, FOUR), "two whole numbers, got None"),
    "offsets true": (
        file_bytes({"a": entry("U8", offsets=[False, True])}, b"\0"), "got [False, True]",
    ),
    "offset negative": (file_bytes({"a": entry(offsets=[-4, 0])}, FOUR), "two whole numbers"),
    "offset float": (file_bytes({"a": entry(offsets=[0, 4e0])}, FOUR), "two whole numbers"),
    "offsets swapped": (file_bytes({"a": entry(offsets=[4, 0])}, FOUR), "4 bytes between its data"),
    "too few bytes": (file_bytes({"a": entry(shape=[2])}, FOUR), "with 8 bytes between its"),
    "too many bytes": (file_bytes({"a": entry("U8")}, FOUR), "with 1 bytes between its"),
    "hole at the start": (
        file_bytes({"a": entry(offsets=[4, 8])}, bytes(8)), "array 'a' to begin at byte 0",
    ),
    "hole": (
        file_bytes({"a": entry(), "b": entry(offsets=[8, 12])}, bytes(12)),
        "array 'b' to begin at byte 4 of the data, got 8",
    ),
    "overlap": (
        file_bytes({"a": entry("U8", [4]), "b": entry(offsets=[2, 6])}, bytes(6)),
        "array 'b' to begin at byte 4 of the data, got 2",
    ),
    "same bytes twice": (file_bytes({"a": entry(), "b": entry()}, FOUR), "to begin at byte 4"),
    "empty inside another": (
        file_bytes({"a": entry(), "b": entry(shape=[0], offsets=[2, 2])}, FOUR),
        "array 'b' to begin at byte 4",
    ),
    "far away": (
        file_bytes({"a": entry(offsets=[2**62, 2**62 + 4])}, FOUR), "array 'a' to begin at byte 0",
    ),
    "bytes after the end": (file_bytes({"a": entry()}, bytes(5)), "4 bytes of data, got 5"),
    "bytes without arrays": (file_bytes({}, b"\0"), "expected 0 bytes of data, got 1"),
    "boolean 2": (file_bytes({"a": entry("BOOL", [4])}, b"\0\1\2\1"), "bytes of 0 and 1, got 2"),
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile(path, name):
    raw, message = HOSTILE[name]
    path.write_bytes(raw)
    headers = []
    with at_most(SMALL + 100 * len(raw)), pytest.raises(ModelFileError) as caught:
        safetensors.read(path, lambda *header: headers.append(header))
    assert str(caught.value).startswith(f"{path} ")
    assert message in str(caught.value)
    assert len(str(caught.value)) < len(str(path)) + 400
    assert bool(headers) == (name == "boolean 2")  # the only one that the header cannot tell


def test_long_and_wild_texts_do_not_fill_the_message(path):
    for header in ({"\x1b[31m" + "x" * 10**6: 1}, {"a": {"x" * 10**6: ["y" * 10**6] * 9}}):
        path.write_bytes(file_bytes(header))
        with pytest.raises(ModelFileError) as caught:
            safetensors.read(path)
        assert len(str(caught.value)) < len(str(path)) + 400
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("what", [None, 3, 2.5, ["model"]])
def test_what_is_neither_a_path_nor_a_file(what):
    for use in (
        safetensors.read,
        lambda file: safetensors.write(file, EXAMPLE, TEXT),
    ):
        with pytest.raises(TypeError, match="a path or a binary file is expected"):
            use(what)


def test_files_that_are_open(path):
    with open(path, "w+b") as file:
        for start in (0, 7):
            file.write(b"before it"[:start])
            safetensors.write(file, EXAMPLE, TEXT)
            file.seek(start)
            arrays, metadata = safetensors.read(file)
            assert_same(arrays, EXAMPLE)
            assert metadata == TEXT
            file.seek(0)
            file.truncate()


def test_errors_of_the_system_stay_what_they_are(tmp_path):
    with pytest.raises(FileNotFoundError):
        safetensors.read(tmp_path / "missing")
    with pytest.raises(IsADirectoryError if os.name == "posix" else PermissionError):
        safetensors.read(tmp_path)


def test_cut_at_every_byte(path, tiny_bytes):
    for size in range(len(tiny_bytes)):
        path.write_bytes(tiny_bytes[:size])
        with pytest.raises(
            ModelFileError, match=r"is cut off: .* are there; copy or save it again"
        ):
            safetensors.read(path)


def test_every_byte_flipped(path, tiny_bytes):
    data = 8 + int.from_bytes(tiny_bytes[:8], "little")
    booleans = data + 8
    with at_most(SMALL):
        for position in range(len(tiny_bytes)):
            for mask in (0x01, 0x20, 0x80, 0xFF):
                raw = bytearray(tiny_bytes)
                raw[position] ^= mask
                sound = load_or_refuse(path, raw) is not None
                if position < 8:
                    assert not sound
                elif position >= data:
                    assert sound == (position < booleans or raw[position] <= 1)


@fuzz
@given(raw=st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(file_bytes)))
def test_random_bytes(scratch, raw):
    load_or_refuse(scratch, raw)


@fuzz
@given(
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 4), st.binary(max_size=4)), min_size=1, max_size=5
    )
)
def test_random_edits(scratch, example_bytes, edits):
    raw = example_bytes
    for place, removed, added in edits:
        at = int(place * len(raw))
        raw = raw[:at] + added + raw[at + removed :]
    load_or_refuse(scratch, raw)


numbers = st.one_of(st.sampled_from([0, 1, 2, 4, 8, 12, 2**32, 2**62, -1, True]), st.floats())
odd = st.one_of(
    st.none(), st.booleans(), numbers, st.text(max_size=3), st.lists(numbers, max_size=3)
)
sound_entry = st.sampled_from(
    [entry(), entry("U8", [4]), entry("I16", [0], [4, 4]), entry("F64", [], [4, 12])]
)
headers = st.dictionaries(
    st.sampled_from(["a", "b", "c", "__metadata__"]),
    st.one_of(
        sound_entry,
        st.dictionaries(st.text(max_size=3), st.one_of(odd, st.text(max_size=3)), max_size=3),
        st.tuples(
            sound_entry, st.sampled_from(["dtype", "shape", "data_offsets", "more"]), odd
        ).map(lambda drawn: {**drawn[0], drawn[1]: drawn[2]}),
    ),
    max_size=4,
)


@fuzz
@given(header=headers, n_bytes=st.sampled_from([0, 4, 8, 12]))
def test_random_headers(scratch, header, n_bytes):
    """What is let in, the safetensors package lets in too and reads alike."""
    raw = file_bytes(header, bytes(n_bytes))
    loaded = load_or_refuse(scratch, raw)
    if loaded is not None:
        assert set(loaded[0]) == set(header) - {"__metadata__"}
        assert loaded[1] == header.get("__metadata__", {})
        try:
            from safetensors.numpy import load
        except ImportError:
            return
        assert_same(load(raw), loaded[0])


# Before the arrays -------------------------------------------------------------------------------


def test_validate_comes_before_the_memory(path):
    big = np.ones((1000, 1000))
    safetensors.write(path, {"big": big, "flag": np.array(True)}, TEXT)
    seen = []

    def refuse(metadata, infos):
        seen.append((metadata, infos))
        raise ModelFileError(f"{path} is of another network")

    with at_most(SMALL), pytest.raises(ModelFileError, match="of another network"):
        safetensors.read(path, refuse)
    expected = {"big": (np.dtype("f8"), (1000, 1000)), "flag": (np.dtype(bool), ())}
    assert seen == [(TEXT, expected)]
    with at_most(big.nbytes + SMALL):  # read in place, not copied
        loaded, _ = safetensors.read(path, lambda metadata, infos: None)
    assert_same(loaded, {"big": big, "flag": True})


def test_file_that_shrinks_while_it_is_read(path):
    safetensors.write(path, {"a": np.ones(10**6), "b": np.ones(3)}, {})
    message = "cut off: array 'a' has 8,000,000 bytes, .* are there; copy or save it again"
    with pytest.raises(ModelFileError, match=message):
        safetensors.read(path, lambda metadata, infos: os.truncate(path, 10**6))


@pytest.mark.parametrize(
    ("size", "message"),
    [(4096, "at most"), (10**6, "promises a header of 1,000 bytes, 0 are there")],
)
def test_file_that_is_shorter_than_the_system_says(path, monkeypatch, size, message):
    path.write_bytes((1000 if size > 4096 else 2**60).to_bytes(8, "little"))
    monkeypatch.setattr(
        safetensors.os, "fstat", lambda number: os.stat_result([0] * 6 + [size] + [0] * 3)
    )
    with pytest.raises(ModelFileError, match=message):
        safetensors.read(path)


# Writing that fails ------------------------------------------------------------------------------


class FullDisk(BufferedWriter):
    """Takes the header, and then no more."""

    def write(self, data):
        if self.tell() > 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def no_space(*args):
    raise OSError(errno.ENOSPC, "No space left on device")


def interrupt(*args):
    raise KeyboardInterrupt


FAILURES = {
    "write": ("open", lambda name, mode: FullDisk(FileIO(name, mode)), OSError),
    "sync": ("os.fsync", no_space, OSError),
    "replace": ("os.replace", no_space, OSError),
    "permissions": ("shutil.copymode", no_space, OSError),
    "ctrl-c": ("os.fsync", interrupt, KeyboardInterrupt),
}


@pytest.mark.parametrize("old", [b"an older model", None], ids=["old", "new"])
@pytest.mark.parametrize("failure", FAILURES)
def test_failed_write_leaves_no_trace(path, monkeypatch, failure, old):
    if old is not None:
        path.write_bytes(old)
    where, what, error = FAILURES[failure]
    monkeypatch.setattr(f"cmlp.formats.whole_file.{where}", what, raising=False)
    with pytest.raises(error) as caught:
        safetensors.write(path, EXAMPLE, TEXT)
    monkeypatch.undo()
    if error is OSError:
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.filename == str(path)  # the user's file, not the temporary one
    assert os.listdir(path.parent) == ([path.name] if old else [])
    assert old is None or path.read_bytes() == old


HUGE = "x" * safetensors.MAX_HEADER
UNFIT = {
    "metadata key": ({}, {1: "a"}, TypeError, "must be str, got 1"),
    "metadata value": ({}, {"a": None}, TypeError, "must be str, got None"),
    "metadata bytes": ({}, {"a": b"b"}, TypeError, "must be str"),
    "name": ({3: np.ones(2)}, {}, TypeError, "must be str, got 3"),
    "reserved name": ({"__metadata__": np.ones(2)}, {}, ValueError, "give it another name"),
    "surrogate": ({"\ud800": np.ones(2)}, {}, ValueError, "surrogates not allowed"),
    "objects": ({"a": np.array([{}, None])}, {}, ValueError, "has dtype object"),
    "complex": ({"a": np.ones(2, complex)}, {}, ValueError, "has dtype complex128"),
    "text": ({"a": np.array(["b"])}, {}, ValueError, "has dtype <U1"),
    "dates": ({"a": np.zeros(2, "M8[s]")}, {}, ValueError, "has dtype datetime64"),
    "records": ({"a": np.zeros(2, "f4,i4")}, {}, ValueError, "but a model file holds F64"),
    "33 dimensions": ({"a": np.ones(1)}, {}, ValueError, "33 dimensions"),
    "header": ({}, {"a": HUGE}, ValueError, "16,777,216 is the limit"),
}
if np.lib.NumpyVersion(np.__version__) >= "2.0.0":
    UNFIT["33 dimensions"][0]["a"] = np.ones((1,) * 33)
else:
    del UNFIT["33 dimensions"]


@pytest.mark.parametrize("name", UNFIT)
def test_what_cannot_be_stored_is_refused(path, name):
    arrays, metadata, error, message = UNFIT[name]
    path.write_bytes(b"an older model")
    with pytest.raises(error, match=message):
        safetensors.write(path, {"fine": np.ones(3), **arrays}, metadata)
    assert os.listdir(path.parent) == [path.name]
    assert path.read_bytes() == b"an older model"


def test_header_of_the_largest_size(path):
    fits = {"a": "x" * (safetensors.MAX_HEADER - 64)}
    safetensors.write(path, {}, fits)
    assert path.stat().st_size <= 8 + safetensors.MAX_HEADER
    assert safetensors.read(path) == ({}, fits)


def test_missing_directory_is_named_by_the_users_path(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        safetensors.write(tmp_path / "missing" / "model", EXAMPLE, TEXT)
    assert caught.value.filename == str(tmp_path / "missing" / "model")


def test_directory_is_not_replaced(path):
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        safetensors.write(path, EXAMPLE, TEXT)
    assert os.listdir(path) == [] and os.listdir(path.parent) == [path.name]


# Permissions, links, devices ---------------------------------------------------------------------


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@posix
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077, 0o002])
def test_permissions_of_a_new_file(path, mask):
    before = os.umask(mask)
    try:
        safetensors.write(path, EXAMPLE, TEXT)
    finally:
        os.umask(before)
    assert mode(path) == 0o666 & ~mask


@posix
@pytest.mark.parametrize("bits", [0o600, 0o640, 0o666, 0o755])
def test_permissions_of_an_older_file_stay(path, monkeypatch, bits):
    path.write_bytes(b"an older model")
    path.chmod(bits)
    during = []

    def sync(number):
        during.append(stat.S_IMODE(os.fstat(number).st_mode))

    monkeypatch.setattr(safetensors.os, "fsync", sync)
    safetensors.write(path, EXAMPLE, TEXT)
    assert mode(path) == bits
    assert during == [bits]  # a private model is never open to others, not even for a moment
    assert_same(safetensors.read(path)[0], EXAMPLE)


@posix
@pytest.mark.skipif(os.name == "posix" and os.geteuid() == 0, reason="root may write anywhere")
def test_unwritable_directory_or_file(path):
    path.write_bytes(b"an older model")
    for locked, bits in ((path.parent, 0o555), (path, 0o444)):
        before = mode(locked)
        locked.chmod(bits)
        try:
            with pytest.raises(PermissionError) as caught:
                safetensors.write(path, EXAMPLE, TEXT)
        finally:
            locked.chmod(before)
        assert caught.value.filename == str(path)
        assert path.read_bytes() == b"an older model"
        assert os.listdir(path.parent) == [path.name]


@posix
def test_protected_file_is_not_replaced(path, monkeypatch):
    path.write_bytes(b"an older model")
    monkeypatch.setattr(safetensors.os, "access", lambda *args: False)
    with pytest.raises(PermissionError):
        safetensors.write(path, EXAMPLE, TEXT)
    assert path.read_bytes() == b"an older model"


@posix
def test_link_is_followed(tmp_path):
    (tmp_path / "models").mkdir()
    target, link = tmp_path / "models" / "a.cmlp", tmp_path / "latest"
    link.symlink_to("models/a.cmlp")
    for _ in range(2):  # dangling, then not
        safetensors.write(link, EXAMPLE, TEXT)
        assert link.is_symlink() and not target.is_symlink()
        assert_same(safetensors.read(link)[0], EXAMPLE)
    assert os.listdir(tmp_path / "models") == ["a.cmlp"]


@posix
def test_device_is_not_replaced(tmp_path):
    """As root, a file renamed to /dev/null would be a disaster; a named pipe stands in for it."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="Invalid argument"):
        safetensors.write(pipe, EXAMPLE, TEXT)
    assert stat.S_ISFIFO(pipe.stat().st_mode) and os.listdir(tmp_path) == ["pipe"]


def test_relative_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    safetensors.write("model", EXAMPLE, TEXT)
    assert os.listdir(tmp_path) == ["model"]
    assert_same(safetensors.read("model")[0], EXAMPLE)


@pytest.mark.skipif(sys.byteorder == "big", reason="the bytes of this file are spelled for x86")
def test_the_bytes(path):
    """The layout, spelled out once."""
    safetensors.write(
        path, {"b": np.array([1], np.uint8), "a": np.array([[1.0, -2.0]], np.float32)}, {"k": "v"}
    )
    header = (
        b'{"__metadata__":{"k":"v"},'
        b'"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},'
        b'"b":{"dtype":"U8","shape":[1],"data_offsets":[8,9]}}'
    ).ljust(184)
    data = b"\x00\x00\x80\x3f\x00\x00\x00\xc0\x01"
    assert path.read_bytes() == b"\xb8" + bytes(7) + header + data

"""A reply's arrays come through bit for bit or as one sentence; hostile bytes never raise and are never unpickled."""

import io
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

pytest.importorskip("flwr", reason="Flower is not installed: pip install 'holdfast[flower]'")

from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict

from holdfast.flower.decoding import STYPE, Spec, decode, encode, encode_array
from holdfast.types import DataError

MODEL = {"w": np.zeros((3, 2), np.float32), "b": np.zeros((), np.float64), "n": np.zeros(2, np.int64)}
SPEC = Spec.of(MODEL)


def reply(**changes: Any) -> RecordDict:
    """A good reply with some arrays replaced (None: left out)."""
    arrays = dict(encode(MODEL)) | changes
    return RecordDict({"arrays": ArrayRecord({k: v for k, v in arrays.items() if v is not None})})


def file(value: np.ndarray, **kwargs: Any) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, value, **kwargs)
    return buffer.getvalue()


def array(data: bytes, dtype: str = "float32", shape: tuple[int, ...] = (3, 2), stype: str = STYPE) -> Array:
    return Array(dtype, shape, stype, data)


W = file(MODEL["w"])
HUGE_HEADER = W.replace(b"(3, 2)", b"(9999999999, 2)")
FAULTS = {
    "missing": (reply(b=None), "lacks 'b'"),
    "renamed": (reply(b=None, bias=Array(MODEL["b"])), "lacks 'b'"),
    "extra": (reply(more=Array(np.zeros(1))), "unexpected array 'more'"),
    "broadcasts": (reply(w=Array(np.zeros((1, 1), np.float32))), "shape (1, 1) where (3, 2)"),
    "transposed": (reply(w=Array(np.zeros((2, 3), np.float32))), "shape (2, 3) where (3, 2)"),
    "float64": (reply(w=Array(np.zeros((3, 2)))), "'w' is float64 where float32"),
    "int32": (reply(w=Array(np.zeros((3, 2), np.int32))), "'w' is int32 where float32"),
    "text": (reply(w=Array(np.array([["a", "b"]] * 3))), "'w' is <U1 where float32"),
    "text that says float": (reply(w=array(file(np.array([["a", "b"]] * 3)))), "and not what it says"),
    "big endian": (reply(w=array(file(MODEL["w"].astype(">f4")))), "and not what it says"),
    "other shape inside": (reply(w=array(file(np.zeros((2, 3), np.float32)))), "and not what it says"),
    "not a file": (reply(w=array(b"rubbish")), "not a NumPy file"),
    "empty": (reply(w=array(b"")), "not a NumPy file"),
    "cut off": (reply(w=array(W[:-1])), "23 bytes of numbers where 24"),
    "too long": (reply(w=array(W + b"\0")), "25 bytes of numbers where 24"),
    "oversized": (reply(w=array(W + bytes(10_000))), "bytes where at most"),
    "huge header": (reply(w=array(HUGE_HEADER)), "and not what it says"),
    "pickle": (reply(w=array(pickle.dumps(MODEL["w"]))), "not a NumPy file"),
    "objects": (reply(w=array(file(np.array([[1, 2]] * 3, object), allow_pickle=True))), "and not what it says"),
    "other serialization": (reply(w=array(W, stype="pickle")), "serialized as 'pickle'"),
    "unprintable": (reply(w=array(W, dtype="\x1b[31m" + "x" * 999)), "where float32 is expected"),
    "no record": (RecordDict({"metrics": MetricRecord({"num-examples": 1})}), "holds 0 ArrayRecords"),
    "two records": (RecordDict({"a": encode(MODEL), "b": encode(MODEL)}), "holds 2 ArrayRecords"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_one_sentence(name: str) -> None:
    content, said = FAULTS[name]
    fault = decode(content, SPEC)
    assert isinstance(fault, str), name
    assert said in fault
    assert fault.isprintable()
    assert len(fault) < 250


def test_sizes_are_checked_before_anything_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded before the sizes of all arrays were checked")

    monkeypatch.setattr(np, "frombuffer", explode)
    assert "bytes where at most" in str(decode(reply(n=array(bytes(9999), "int64", (2,))), SPEC))


@given(
    hnp.arrays(
        st.sampled_from([np.float16, np.float32, np.float64, np.int64, np.int32, np.uint8, np.bool_]),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5),
    ),
    st.sampled_from(["C", "F"]),
)
def test_what_is_encoded_comes_back_bit_for_bit(value: np.ndarray, order: Any) -> None:
    ordered = np.asarray(value, order=order)
    spec = Spec.of({"x": ordered})
    for made in (encode_array(ordered), Array(ordered)):
        assert made.numpy().tobytes() == value.tobytes()
        back = decode(RecordDict({"any name": ArrayRecord({"x": made})}), spec)
        assert not isinstance(back, str), back
        assert (back["x"].dtype, back["x"].shape) == (value.dtype, value.shape)
        assert back["x"].tobytes() == value.tobytes()


def test_nothing_is_copied_and_the_order_is_the_spec_s() -> None:
    content = RecordDict({"arrays": ArrayRecord({k: Array(v) for k, v in reversed(MODEL.items())})})
    arrays = decode(content, SPEC)
    assert not isinstance(arrays, str)
    assert list(arrays) == list(MODEL)
    assert not arrays["w"].flags.writeable
    assert not arrays["w"].flags.owndata


@given(st.binary(max_size=300), st.integers(0, 120))
def test_damaged_bytes_never_raise(noise: bytes, at: int) -> None:
    data = W[:at] + noise + W[at + len(noise) :]
    arrays = decode(reply(w=array(data)), SPEC)
    assert isinstance(arrays, str) or arrays["w"].shape == (3, 2)


def test_a_spec_is_of_numbers() -> None:
    with pytest.raises(DataError, match="'w' must hold real numbers"):
        Spec.of({"w": np.array(["a"])})

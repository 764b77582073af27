"""Files become data sets unchanged, and damaged ones become one sentence."""

import gzip
import struct

import numpy as np
import pandas as pd
import pytest

from holdfast.data import fetch, load
from holdfast.data.idx import MNIST_MD5, parse_idx
from holdfast.types import ConfigError, DataError
from tests.conftest import shared


def idx(array):
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.astype(np.uint8).tobytes()
    )


def write_idx(folder, *, suffix="", rows=8):
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {}
    for name in MNIST_MD5:
        shape = (rows, 28, 28) if "images" in name else (rows,)
        arrays[name] = rng.integers(0, 256, shape) if "images" in name else np.arange(rows) % 10
        content = idx(arrays[name])
        (folder / (name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    return arrays


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_folder_round_trip(tmp_path, suffix):
    arrays = write_idx(tmp_path / "fashion", suffix=suffix, rows=20)
    data = load(tmp_path / "fashion")
    assert data.name == "fashion"
    assert data.x_train.dtype == np.float32
    assert data.image_shape == (1, 28, 28)
    np.testing.assert_array_equal(np.rint(data.x_train[:, 0] * 255), arrays["train-images-idx3-ubyte"])
    np.testing.assert_array_equal(data.y_test, arrays["t10k-labels-idx1-ubyte"])


def test_mnist_refuses_files_that_are_not_the_official_ones(tmp_path):
    write_idx(tmp_path / "mnist")
    with pytest.raises(DataError) as caught:
        load("mnist", data_dir=tmp_path)
    assert "train-images-idx3-ubyte is not the official file (md5 " in str(caught.value)
    assert MNIST_MD5["train-images-idx3-ubyte"] in str(caught.value)


def test_idx_magic_truncation_and_excess_are_named():
    good = idx(np.zeros((3, 2, 2)))
    parse_idx(good, "images", dims=3)
    for broken, sentence in [
        (b"", "images starts with nothing"),
        (b"\x1f\x8b" + good[2:], "images starts with 1f8b0803, not with IDX's magic 00000803"),
        (idx(np.zeros(3)), "not with IDX's magic"),
        (good[:7], "cut off inside its header"),
        (good[:-1], "is cut off: 27 bytes"),
        (good + b"\0", "is too long: 29 bytes"),
        (good[:4] + b"\xff" * 12 + good[16:], "is cut off"),
    ]:
        with pytest.raises(DataError, match=sentence.replace("(", r"\(")):
            parse_idx(broken, "images", dims=3)


def test_damaged_gzip_is_one_sentence(tmp_path):
    write_idx(tmp_path, suffix=".gz")
    path = tmp_path / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path)


def test_real_mnist_is_whole_and_scaled():
    data = load("mnist", data_dir=shared("data/mnist"))
    assert data.x_train.shape == (60_000, 1, 28, 28)
    assert data.x_test.shape == (10_000, 1, 28, 28)
    assert np.bincount(data.y_train).tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert data.y_train[:5].tolist() == [5, 0, 4, 1, 9]
    assert data.x_train.max() == 1.0
    assert abs(float(data.x_train.mean(dtype=np.float64)) - 0.1306604762738429) < 1e-6


def test_digits_split_is_stratified_and_drawn_from_the_seed():
    data = load("digits")
    assert len(data.y_train) + len(data.y_test) == 1797
    share = np.bincount(data.y_test) / (np.bincount(data.y_test) + np.bincount(data.y_train))
    assert np.allclose(share, 0.25, atol=0.01)
    assert data.x_train.min() >= 0
    assert data.x_train.max() == 1.0
    np.testing.assert_array_equal(data.x_train, load("digits", seed=0).x_train)
    assert data.fingerprint() == load("digits", seed=0).fingerprint() != load("digits", seed=1).fingerprint()


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int64", "int32", "int8", "bool"])
def test_npz_round_trip_keeps_values_and_users(tmp_path, dtype):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 2, (40, 3)).astype(dtype)
    y = np.arange(40) % 3
    client = np.repeat([11, 22, 33, 44], 10)
    np.savez(tmp_path / "mine.npz", x=x, y=y.astype(np.uint8), client=client, label_names=["a", "b", "c"])
    data = load(tmp_path / "mine.npz")
    assert data.name == "mine"
    assert data.x_train.dtype == np.float32
    assert data.y_train.dtype == data.users_train.dtype == np.int64
    assert data.label_names == ("a", "b", "c")
    assert data.user_names == ("11", "22", "33", "44")
    assert np.bincount(data.users_train).tolist() == [8, 8, 8, 8]
    assert np.bincount(data.users_test).tolist() == [2, 2, 2, 2]
    both = np.concatenate([data.x_train, data.x_test])
    assert sorted(map(tuple, both)) == sorted(map(tuple, x.astype(np.float32)))


def test_npz_with_its_own_test_set_keeps_it_and_puts_new_users_last(tmp_path):
    np.savez(
        tmp_path / "d.npz",
        x=np.eye(4, dtype=np.uint8) * 255,
        y=[0, 1, 0, 1],
        client=["m", "m", "z", "z"],
        x_test=np.zeros((2, 4), dtype=np.uint8),
        y_test=[1, 2],
        client_test=["a", "z"],
    )
    data = load(tmp_path / "d.npz")
    np.testing.assert_array_equal(data.x_train, np.eye(4, dtype=np.float32))
    assert data.n_labels == 3  # label 2 is only in the test rows
    assert data.users_train.tolist() == [0, 0, 1, 1]
    assert data.users_test.tolist() == [2, 1]
    assert data.user_names == ("m", "z", "a")


def test_pixels_of_any_usual_layout_become_channels_first(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (8, 6, 5, 3), dtype=np.uint8)
    y = np.zeros(8, int)
    for x, shape in [
        (colour, (3, 6, 5)),
        (colour.transpose(0, 3, 1, 2), (3, 6, 5)),
        (colour[..., :1], (1, 6, 5)),
        (colour[..., 0], (1, 6, 5)),
    ]:
        np.savez(tmp_path / "d.npz", x=x, y=y, x_test=x, y_test=y)
        data = load(tmp_path / "d.npz")
        assert data.image_shape == shape
        channels = colour.transpose(0, 3, 1, 2)[:, : shape[0]]
        np.testing.assert_array_equal(data.x_train, channels / np.float32(255))


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({"x": np.eye(9)}, "arrays x and y are needed"),
        ({"x": np.eye(9), "y": np.zeros(8, int)}, "x has 9 rows but y has 8"),
        ({"x": np.eye(9), "y": np.zeros(9, int), "client": [1]}, "x has 9 rows but client has 1"),
        ({"x": np.eye(9), "y": np.arange(1, 10)}, "labels run from 1 to 9 but there are 9 different ones"),
        ({"x": np.eye(9), "y": np.arange(9) - 4}, "labels run from -4 to 4"),
        ({"x": np.eye(9), "y": np.arange(9), "label_names": ["a"]}, "labels run from 0 to 8 but 1 label_names"),
        ({"x": np.eye(9), "y": np.full(9, 0.5)}, "label 0.5 is not an integer"),
        ({"x": np.eye(9), "y": np.full(9, np.nan)}, "label nan is not an integer"),
        ({"x": np.eye(9), "y": np.full(9, np.inf)}, "label inf is not an integer"),
        ({"x": np.eye(9), "y": np.eye(9)}, "one label per row"),
        ({"x": np.zeros(9), "y": np.zeros(9, int)}, "at least one row and one feature"),
        ({"x": np.zeros((0, 3)), "y": np.zeros(0, int)}, "at least one row and one feature"),
        ({"x": np.zeros((9, 2), "<U3"), "y": np.zeros(9, int)}, "not numbers"),
        ({"x": np.eye(3), "y": np.zeros(3, int)}, "too few to hold some back"),
        ({"x": np.eye(9), "y": np.zeros(9, int), "x_test": np.eye(9)}, "one of x_test and y_test"),
        ({"x": np.eye(9), "y": np.zeros(9, int), "x_test": np.eye(8), "y_test": np.zeros(8, int)}, "rows of x_test"),
        ({"x": np.eye(9), "y": np.array([object()] * 9)}, "Python objects are never loaded"),
    ],
)
def test_unusable_npz_is_one_sentence(tmp_path, arrays, sentence):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError) as caught:
        load(tmp_path / "d.npz")
    assert sentence in str(caught.value)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_values_that_are_not_finite_float32_are_counted_by_column(tmp_path, value):
    x = np.ones((20, 3))
    x[[2, 5], 1] = value
    x[7, 2] = value
    np.savez(tmp_path / "d.npz", x=x, y=np.zeros(20, int))
    with pytest.raises(DataError, match=r"column 1 of x has .* in 2 of 20 rows \(and 1 other columns\)"):
        load(tmp_path / "d.npz")
    table = pd.DataFrame(x, columns=["age", "weight", "dose"]).assign(y=0)
    table.to_csv(tmp_path / "d.csv", index=False)
    with pytest.raises(DataError, match=r"column 'weight' has .* in 2 of 20 rows"):
        load(tmp_path / "d.csv")


def test_large_finite_values_are_accepted(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.full((20, 3), 3e38), y=np.zeros(20, int))
    assert np.isfinite(load(tmp_path / "d.npz").x_train).all()


def test_truncated_npz_and_foreign_files_are_one_sentence(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.eye(9), y=np.zeros(9, int))
    whole = (tmp_path / "d.npz").read_bytes()
    for cut in range(0, len(whole), 37):
        (tmp_path / "d.npz").write_bytes(whole[:cut])
        with pytest.raises(DataError, match="cannot be read"):
            load(tmp_path / "d.npz")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match="must end in"):
        load(tmp_path / "notes.txt")
    with pytest.raises(ConfigError, match="neither a data set"):
        load("minst")
    with pytest.raises(DataError, match="no known layout"):
        load(tmp_path)
    with pytest.raises(ConfigError, match="unknown data set"):
        fetch("minst")


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".csv.gz"])
def test_tables_round_trip(tmp_path, suffix):
    table = pd.DataFrame({"age": np.arange(24.0), "height": np.arange(24) % 5, "label": ["no", "yes"] * 12})
    table["client"] = np.repeat(["A", "B", "C"], 8)
    path = tmp_path / f"patients{suffix}"
    table.to_parquet(path) if suffix == ".parquet" else table.to_csv(path, index=False)
    data = load(path)
    assert data.name == "patients"
    assert data.feature_names == ("age", "height")
    assert data.label_names == ("no", "yes")
    assert data.user_names == ("A", "B", "C")
    rows = {tuple(row): int(label) for row, label in zip(data.x_train, data.y_train, strict=True)}
    assert all(int(age) % 2 == label for (age, _), label in rows.items())
    assert len(data.y_test) == 6


def test_nullable_and_object_columns_are_read_as_what_they_hold(tmp_path):
    table = pd.DataFrame({"a": np.arange(24.0), "y": np.arange(24) % 12, "client": ["x", "y"] * 12})
    for dtype, names in (("Int64", "integers"), ("int8", "integers"), ("string", "text"), ("boolean", "truth")):
        column = table["y"] % 2 == 1 if dtype == "boolean" else table["y"]
        table.assign(y=column.astype(dtype)).to_parquet(tmp_path / "t.parquet")
        data = load(tmp_path / "t.parquet")
        assert data.n_labels == (2 if names == "truth" else 12)
        expected = sorted(map(str, range(12))) if names == "text" else [str(i) for i in range(data.n_labels)]
        assert list(data.label_names) == expected
        assert data.user_names == ("x", "y")
    table.assign(y=pd.Timestamp("2020-01-01")).to_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="labels must be integers"):
        load(tmp_path / "t.parquet")


def test_parquet_with_lists_in_train_and_test(tmp_path):
    x = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)
    for name in ("train", "test"):
        pd.DataFrame({"x": list(x), "y": np.arange(12) % 4}).to_parquet(tmp_path / f"{name}.parquet")
    data = load(tmp_path)
    np.testing.assert_array_equal(data.x_train, x)
    np.testing.assert_array_equal(data.x_test, x)
    pd.DataFrame({"x": [[1.0], [1.0, 2.0]], "y": [0, 1]}).to_parquet(tmp_path / "ragged.parquet")
    with pytest.raises(DataError, match="equally long"):
        load(tmp_path / "ragged.parquet")


def test_unusable_tables_are_one_sentence(tmp_path):
    for frame, sentence in [
        (pd.DataFrame({"a": [1.0]}), "no column named y or label"),
        (pd.DataFrame({"y": [1, 0]}), "no feature columns"),
        (pd.DataFrame({"y": [1, None], "a": [1, 2]}), "column 'y' is empty in 1 rows"),
        (pd.DataFrame({"y": [1, 0], "a": [1, 2], "user": [1, None]}), "column 'user' is empty in 1 rows"),
        (pd.DataFrame({"y": [1, 0], "a": ["low", "high"]}), "column 'a' is not numeric (for example 'low')"),
        (pd.DataFrame({"y": [], "a": []}), "has no rows"),
    ]:
        frame.to_csv(tmp_path / "t.csv", index=False)
        with pytest.raises(DataError) as caught:
            load(tmp_path / "t.csv")
        assert sentence in str(caught.value)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="cannot be read"):
        load(tmp_path / "t.parquet")


def test_phone_har_keeps_its_23_users():
    data = load(shared("data/phone_har/phone_har.npz"))
    assert data.x_train.shape[1] == 399
    assert len(data.y_train) + len(data.y_test) == 3167
    assert len(data.user_names) == 23
    counts = np.bincount(data.users_train) + np.bincount(data.users_test)
    np.testing.assert_array_equal(np.bincount(data.users_test), counts // 4)
    assert data.label_names[2] == "WALKING"


def test_one_users_split_does_not_depend_on_the_others(tmp_path):
    x = np.arange(60, dtype=float)[:, None]
    client = np.repeat([0, 1, 2], 20)
    np.savez(tmp_path / "all.npz", x=x, y=np.zeros(60, int), client=client)
    np.savez(tmp_path / "two.npz", x=x[:40], y=np.zeros(40, int), client=client[:40])
    every, two = load(tmp_path / "all.npz"), load(tmp_path / "two.npz")
    np.testing.assert_array_equal(every.x_test[every.users_test < 2], two.x_test)

"""CIFAR and Fashion-MNIST in their official formats, the random split, digits and Titanic."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import sklearn
from formats import archive_of, binary, cifar10_files, folder_of, images, pickle2, pickle3, rejects
from helpers import case

from mlp_xp import datasets
from mlp_xp.datasets import DatasetError, load_cifar10, load_cifar100, read_cifar, split_dataset


@pytest.fixture(params=[pickle2, pickle3, binary])
def encode(request):
    return request.param


@pytest.fixture(params=["folder", "archive"])
def put(request, tmp_path):
    """Return a function that writes files into a folder of a name, or an archive of one."""

    def write(folder, files):
        if request.param == "folder":
            return folder_of(tmp_path / folder, files)
        # An archive may have any order and other files.
        members = {"readme.html": b"hello"} | {name: files[name] for name in reversed(files)}
        return archive_of(tmp_path / "some-name.tar.gz", members, folder=folder)

    return write


def test_cifar10_is_read_in_the_official_order(put, encode, batches, in_cache):
    files = cifar10_files(batches, encode)
    path = put("cifar-10-batches-bin" if encode is binary else "cifar-10-batches-py", files)
    x, y = (np.concatenate([getattr(batches[name], kind) for name in batches]) for kind in "xy")
    data, labels = read_cifar(path)
    assert (data.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(data, x)
    np.testing.assert_array_equal(labels, y)
    d = load_cifar10(path)
    assert d.x_train.dtype == d.x_test.dtype == np.uint8
    assert d.y_train.dtype == d.y_test.dtype == np.int64
    np.testing.assert_array_equal(d.x_test, batches["test_batch"].x)
    np.testing.assert_array_equal(np.concatenate([d.x_train, d.x_test]), x)
    np.testing.assert_array_equal(np.concatenate([d.y_train, d.y_test]), y)
    assert d.class_names[3] == "cat"
    assert d.image_shape == (3, 32, 32)
    assert in_cache() == []  # it is not the published CIFAR-10
    if path.is_dir():
        data, labels = read_cifar(path / list(files)[2])
        np.testing.assert_array_equal(data, batches["data_batch_3"].x)
        np.testing.assert_array_equal(labels, batches["data_batch_3"].y)
        # An array in Fortran order is read by rows.
        batch = batches["test_batch"]
        (path / "data_batch_1").write_bytes(pickle3(np.asfortranarray(batch.x), labels=batch.y))
        np.testing.assert_array_equal(read_cifar(path / "data_batch_1")[0], batch.x)


def test_load_cifar100_has_fine_and_coarse_labels(put, encode):
    train, test = images(5, seed=0, n_classes=100), images(4, seed=1, n_classes=100)
    pairs = (("train", train), ("test", test))
    if encode is binary:
        files = {f"{name}.bin": binary(b.x, b.coarse, b.y) for name, b in pairs}
    else:
        files = {n: encode(b.x, coarse_labels=b.coarse, fine_labels=b.y) for n, b in pairs}
    path = put("cifar-100-binary" if encode is binary else "cifar-100-python", files)
    for mode, kind, n_names in (("fine", "y", 100), ("coarse", "coarse", 20)):
        d = load_cifar100(path, label_mode=mode)
        found = (d.x_train, d.x_test, d.y_train, d.y_test)
        expected = (train.x, test.x, getattr(train, kind), getattr(test, kind))
        for pair in zip(found, expected, strict=True):
            np.testing.assert_array_equal(*pair)
        assert len(d.class_names) == n_names
    with pytest.raises(ValueError, match="`label_mode` must be 'fine' or 'coarse', got 'both'"):
        load_cifar100(label_mode="both")


def test_errors_name_the_missing_files(tmp_path, batches, python2_folder):
    for read in (read_cifar, load_cifar10):
        rejects(r"nowhere does not exist: pass .*cifar-10-batch", read, tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"data_batch_1 is a file: pass a folder"):
        load_cifar10(python2_folder / "data_batch_1")
    (tmp_path / "empty").mkdir()
    rejects("contains none of the data set's files: pass a folder", read_cifar, tmp_path / "empty")
    (python2_folder / "data_batch_4").unlink()
    rejects(r"data_batch_4 cannot be read \(No such file.*check", read_cifar, python2_folder)
    files = cifar10_files(batches, pickle2)
    del files["data_batch_4"]
    with pytest.raises(DatasetError, match=r"a\.tar\.gz must be .* has only data_batch_1, .*: add"):
        read_cifar(archive_of(tmp_path / "a.tar.gz", files))


NAMES = tuple(datasets.fashion_mnist._FILES.values())
IMAGES, LABELS = NAMES[:2]


def idx(array):
    header = bytes((0, 0, 8, array.ndim)) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def arrays(rng):
    train, test = ((rng.integers(0, 256, (n, 28, 28)), rng.integers(0, 10, n)) for n in (6, 4))
    return dict(zip(NAMES, (*train, *test), strict=True))


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_files_can_be_plain_or_gzipped(arrays, pack, in_cache):
    suffix = "" if pack is bytes else ".gz"
    packed = {name + suffix: pack(idx(array)) for name, array in arrays.items()}
    folder = folder_of(Path("data", "fashion-mnist"), packed)
    for d in (datasets.load_fashion_mnist(folder), datasets.load_fashion_mnist()):
        for found, expected in zip(d, arrays.values(), strict=False):
            np.testing.assert_array_equal(found, expected.reshape(found.shape))
    assert (d.x_train.shape, d.x_train.dtype) == ((6, 784), np.uint8)
    assert (d.y_test.shape, d.y_test.dtype) == ((4,), np.int64)
    assert d.image_shape == (1, 28, 28)
    assert len(d.class_names) == 10
    assert in_cache() == []
    (folder / (LABELS + suffix)).unlink()
    rejects(rf"has neither {LABELS} nor {LABELS}\.gz: pass", datasets.load_fashion_mnist)


DAMAGE = {
    "cut short": (IMAGES, lambda raw: raw[:-1]),
    "header only half": (LABELS, lambda raw: raw[:6]),
    "wrong magic": (LABELS, lambda raw: b"\1" + raw[1:]),
    "images for labels": (LABELS, lambda raw: idx(np.zeros((6, 28, 28)))),
    "wrong size of image": (IMAGES, lambda raw: idx(np.zeros((6, 28, 27)))),
    "no labels": (LABELS, lambda raw: idx(np.zeros(0))),
    "huge": (IMAGES, lambda raw: raw[:4] + struct.pack(">3I", 2**31, 28, 28) + raw[16:]),
    "too few labels": (LABELS, lambda raw: idx(np.zeros(5))),
    "label too large": (LABELS, lambda raw: idx(np.full(6, 10))),
    "cut gzip": (IMAGES, lambda raw: gzip.compress(raw)[:-20]),
    "damaged gzip": (IMAGES, lambda raw: gzip.compress(raw)[:-8] + bytes(8)),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_idx_file_is_an_error(name, tmp_path, arrays, in_cache):
    files = {name: idx(array) for name, array in arrays.items()}
    folder = folder_of(tmp_path / "fashion", files)
    damaged, damage = DAMAGE[name]
    (folder / damaged).write_bytes(damage(files[damaged]))
    rejects(r"fashion.*load (it|them) again", datasets.load_fashion_mnist, folder)
    assert in_cache() == []


DATA = np.arange(300, dtype=np.float32).reshape(100, 3)
CODES = np.arange(100, dtype=np.int16)


def test_split_is_a_seeded_permutation_of_the_data():
    for split, n_train in ((0.9, 90), (0.5, 50), (0.011, 1), (0.994, 99)):
        x_train, y_train, x_test, y_test = split_dataset(DATA, CODES, split)
        assert (len(x_train), len(x_test)) == (n_train, 100 - n_train)
        labels = [*y_train, *y_test]
        np.testing.assert_array_equal(np.sort(labels), CODES)
        np.testing.assert_array_equal(np.concatenate([x_train, x_test])[:, 0] / 3, labels)
        assert (x_train.dtype, x_test.dtype) == (np.float32, np.float32)
        assert (y_train.dtype, y_test.dtype) == (np.int16, np.int16)
    first, other = (split_dataset(DATA, CODES, 0.8, seed=seed)[1] for seed in (0, 1))
    np.testing.assert_array_equal(first, split_dataset(DATA, CODES, 0.8)[1])
    assert (first != other).any()
    assert (first != np.sort(first)).any()


def test_a_split_with_an_empty_part_is_an_error():
    for split, message in (
        *((bad, rf"`split` must be .* got {bad}: e.g. split=0\.9") for bad in (0, 1, -0.1, 1.5)),
        (float("nan"), "the fraction of training samples, .* got nan"),
        (0.001, "both parts .* uses 0 of 100 samples"),
        (0.999, "both parts .* uses 100 of 100 samples"),
    ):
        with case(split), pytest.raises(ValueError, match=message):
            split_dataset(DATA, CODES, split)
    said = r"must have one label per sample, got shapes \(100, 3\) and \(99,\)"
    with pytest.raises(ValueError, match=said):
        split_dataset(DATA, CODES[1:], 0.9)


def test_digits_need_only_scikit_learn(in_cache):
    d = datasets.load_digits()
    assert (d.x_train.dtype, d.y_train.dtype) == (np.uint8, np.int64)
    assert (d.x_train.shape, d.x_test.shape) == ((1438, 64), (359, 64))
    assert d.x_train.max() == d.max_value == 16
    assert d.image_shape == (1, 8, 8)
    assert set(d.y_train) == set(d.y_test) == set(range(len(d.class_names)))
    assert in_cache() == []


def test_load_titanic_matches_the_table_in_scikit_learns_tests():
    pandas = pytest.importorskip("pandas")
    X, y = datasets.load_titanic()
    assert (X.shape, list(y[:3])) == ((1309, 8), ["saved", "saved", "lost"])
    assert X.isna().sum()[["age", "fare", "embarked", "home"]].tolist() == [263, 1, 2, 564]
    folder = Path(sklearn.__file__).parent / "datasets" / "tests" / "data" / "openml" / "id_40945"
    file = folder / "data-v1-dl-16826755.arff.gz"
    if not file.is_file():
        pytest.skip("this scikit-learn has no data of its tests")
    names = "pclass survived name sex age sibsp parch ticket fare cabin embarked boat body home"
    table = pandas.read_csv(file, skiprows=17, names=names.split(), na_values="?")
    pandas.testing.assert_frame_equal(X, table[list(X)])
    assert (y == table["survived"].map({0: "lost", 1: "saved"})).all()


def test_every_data_set_can_be_located():
    assert list(datasets.LOADERS) == ["cifar10", "cifar100", "fashion-mnist", "digits"]
    assert datasets.locate("cifar10") is datasets.locate("cifar100") is None
    assert datasets.locate("digits").is_file()
    datasets.locate("fashion-mnist")  # Debian's package may be installed
    with pytest.raises(ValueError, match="must be one of cifar10, cifar100, fashion"):
        datasets.locate("mnist")

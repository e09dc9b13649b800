"""Reading of CIFAR in its official formats."""

import numpy as np
import pytest
from official_formats import (
    BATCHES,
    binary,
    cifar10_files,
    images,
    python2_pickle,
    python3_pickle,
    write_archive,
    write_folder,
)

from mlp_xp.datasets import DatasetError, load_cifar10, load_cifar100, read_cifar


@pytest.fixture(params=[python2_pickle, python3_pickle, binary])
def encode(request):
    return request.param


@pytest.fixture(params=["folder", "archive"])
def put(request, tmp_path):
    """Return a function that writes files into a folder of a name, or an archive of one."""

    def write(folder, files):
        if request.param == "folder":
            return write_folder(tmp_path / folder, files)
        # Any order in the archive, and other members between.
        members = {"readme.html": b"hello"} | {name: files[name] for name in reversed(files)}
        return write_archive(tmp_path / "some-name.tar.gz", members, folder=folder)

    return write


def test_cifar10_is_read_in_the_official_order(put, encode, batches, in_cache):
    folder = "cifar-10-batches-bin" if encode is binary else "cifar-10-batches-py"
    path = put(folder, cifar10_files(batches, encode))
    x, y = (np.concatenate([getattr(batches[name], kind) for name in BATCHES]) for kind in "xy")
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


def test_read_cifar_reads_a_single_batch(tmp_path, batches, encode):
    files = cifar10_files(batches, encode)
    path = write_folder(tmp_path / "folder", files) / list(files)[2]
    data, labels = read_cifar(path)
    np.testing.assert_array_equal(data, batches["data_batch_3"].x)
    np.testing.assert_array_equal(labels, batches["data_batch_3"].y)


def test_a_fortran_ordered_array_is_read_by_rows(tmp_path):
    batch = images(4, seed=0)
    path = tmp_path / "data_batch_1"
    path.write_bytes(python3_pickle(np.asfortranarray(batch.x), labels=batch.y))
    np.testing.assert_array_equal(read_cifar(path)[0], batch.x)


def test_load_cifar100_has_fine_and_coarse_labels(put, encode):
    train, test = images(5, seed=0, n_classes=100), images(4, seed=1, n_classes=100)
    pairs = (("train", train), ("test", test))
    if encode is binary:
        files = {f"{name}.bin": binary(b.x, b.coarse, b.y) for name, b in pairs}
    else:
        files = {n: encode(b.x, coarse_labels=b.coarse, fine_labels=b.y) for n, b in pairs}
    path = put("cifar-100-binary" if encode is binary else "cifar-100-python", files)
    fine, coarse = load_cifar100(path), load_cifar100(path, label_mode="coarse")
    for d in (fine, coarse):
        np.testing.assert_array_equal(d.x_train, train.x)
        np.testing.assert_array_equal(d.x_test, test.x)
    np.testing.assert_array_equal(fine.y_train, train.y)
    np.testing.assert_array_equal(fine.y_test, test.y)
    np.testing.assert_array_equal(coarse.y_train, train.coarse)
    np.testing.assert_array_equal(coarse.y_test, test.coarse)
    assert (len(fine.class_names), len(coarse.class_names)) == (100, 20)


def test_an_unknown_label_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match="label_mode='both', expected 'fine' or 'coarse'"):
        load_cifar100(label_mode="both")


def test_a_path_without_the_batches_says_what_was_expected(tmp_path, python2_folder):
    for read in (read_cifar, load_cifar10):
        with pytest.raises(
            DatasetError, match=r"nowhere does not exist, expected .*cifar-10-batch"
        ):
            read(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match=r"data_batch_1 is a file, expected a folder"):
        load_cifar10(python2_folder / "data_batch_1")
    (tmp_path / "empty").mkdir()
    said = "holds none of the data set's files: name a folder like cifar"
    with pytest.raises(DatasetError, match=said):
        read_cifar(tmp_path / "empty")


def test_a_missing_batch_is_named(tmp_path, batches, python2_folder):
    (python2_folder / "data_batch_4").unlink()
    with pytest.raises(DatasetError, match=r"data_batch_4 cannot be read \(No such file.*check"):
        read_cifar(python2_folder)
    files = cifar10_files(batches, python2_pickle)
    del files["data_batch_4"]
    said = r"a\.tar\.gz has only data_batch_1, .*test_batch, expected"
    with pytest.raises(DatasetError, match=said):
        read_cifar(write_archive(tmp_path / "a.tar.gz", files))

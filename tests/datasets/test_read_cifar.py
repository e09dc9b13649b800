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

FORMATS = [
    pytest.param(python2_pickle, "cifar-10-batches-py", id="python2"),
    pytest.param(python3_pickle, "cifar-10-batches-py", id="python3"),
    pytest.param(binary, "cifar-10-batches-bin", id="binary"),
]


def put(tmp_path, batches, encode, folder, kind):
    files = cifar10_files(batches, encode)
    if kind == "folder":
        return write_folder(tmp_path / folder, files)
    # Any order in the archive, and other members between.
    members = {f"{folder}/readme.html": b"hello"}
    members |= {f"{folder}/{name}": files[name] for name in reversed(files)}
    return write_archive(tmp_path / "some-name.tar.gz", members)


@pytest.mark.parametrize("kind", ["folder", "archive"])
@pytest.mark.parametrize(("encode", "folder"), FORMATS)
def test_read_cifar_returns_the_test_batch_last(tmp_path, batches, encode, folder, kind):
    data, labels = read_cifar(put(tmp_path, batches, encode, folder, kind))
    assert (data.dtype, labels.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(data, np.concatenate([batches[name].x for name in BATCHES]))
    np.testing.assert_array_equal(labels, np.concatenate([batches[name].y for name in BATCHES]))


@pytest.mark.parametrize("kind", ["folder", "archive"])
@pytest.mark.parametrize(("encode", "folder"), FORMATS)
def test_load_cifar10_reads_a_given_path(tmp_path, batches, encode, folder, kind, in_cache):
    d = load_cifar10(put(tmp_path, batches, encode, folder, kind))
    assert d.x_train.dtype == d.x_test.dtype == np.uint8
    assert d.y_train.dtype == d.y_test.dtype == np.int64
    np.testing.assert_array_equal(d.x_train, np.concatenate([batches[n].x for n in BATCHES[:5]]))
    np.testing.assert_array_equal(d.y_train, np.concatenate([batches[n].y for n in BATCHES[:5]]))
    np.testing.assert_array_equal(d.x_test, batches["test_batch"].x)
    np.testing.assert_array_equal(d.y_test, batches["test_batch"].y)
    assert d.class_names[3] == "cat"
    assert d.image_shape == (3, 32, 32)
    assert in_cache() == []  # it is not the published CIFAR-10


@pytest.mark.parametrize(("encode", "folder"), FORMATS)
def test_read_cifar_reads_a_single_batch(tmp_path, batches, encode, folder):
    files = cifar10_files(batches, encode)
    path = write_folder(tmp_path / folder, files) / list(files)[2]
    data, labels = read_cifar(path)
    np.testing.assert_array_equal(data, batches["data_batch_3"].x)
    np.testing.assert_array_equal(labels, batches["data_batch_3"].y)


def test_a_fortran_ordered_array_is_read_by_rows(tmp_path):
    batch = images(4, seed=0)
    path = tmp_path / "data_batch_1"
    path.write_bytes(python3_pickle(np.asfortranarray(batch.x), labels=batch.y))
    np.testing.assert_array_equal(read_cifar(path)[0], batch.x)


@pytest.mark.parametrize("kind", ["folder", "archive"])
@pytest.mark.parametrize("encode", [python2_pickle, python3_pickle, binary])
def test_load_cifar100_has_fine_and_coarse_labels(tmp_path, encode, kind):
    train, test = images(5, seed=0, n_classes=100), images(4, seed=1, n_classes=100)
    if encode is binary:
        folder = "cifar-100-binary"
        files = {
            f"{n}.bin": binary(b.x, b.coarse, b.y) for n, b in (("train", train), ("test", test))
        }
    else:
        folder = "cifar-100-python"
        files = {
            n: encode(b.x, coarse_labels=b.coarse, fine_labels=b.y)
            for n, b in (("train", train), ("test", test))
        }
    if kind == "folder":
        path = write_folder(tmp_path / folder, files)
    else:
        path = write_archive(
            tmp_path / f"{folder}.tar.gz", {f"{folder}/{n}": raw for n, raw in files.items()}
        )
    fine = load_cifar100(path)
    coarse = load_cifar100(path, label_mode="coarse")
    np.testing.assert_array_equal(fine.x_train, train.x)
    np.testing.assert_array_equal(fine.y_train, train.y)
    np.testing.assert_array_equal(fine.y_test, test.y)
    np.testing.assert_array_equal(coarse.y_train, train.coarse)
    np.testing.assert_array_equal(coarse.y_test, test.coarse)
    assert (len(fine.class_names), len(coarse.class_names)) == (100, 20)


def test_an_unknown_label_mode_lists_the_known_ones():
    with pytest.raises(ValueError, match="label_mode='both', expected 'fine' or 'coarse'"):
        load_cifar100(label_mode="both")


@pytest.mark.parametrize("read", [read_cifar, load_cifar10])
def test_a_missing_path_says_what_was_expected(tmp_path, read):
    with pytest.raises(DatasetError, match=r"nowhere does not exist, expected .*cifar-10-batches"):
        read(tmp_path / "nowhere")


def test_load_cifar10_of_one_batch_is_an_error(python2_folder):
    with pytest.raises(DatasetError, match=r"data_batch_1 is a file, expected a folder"):
        load_cifar10(python2_folder / "data_batch_1")


def test_a_missing_batch_is_named(python2_folder):
    (python2_folder / "data_batch_4").unlink()
    with pytest.raises(DatasetError, match=r"data_batch_4 cannot be read \(No such file.*check"):
        read_cifar(python2_folder)


def test_an_incomplete_archive_is_an_error(tmp_path, batches):
    files = cifar10_files(batches, python2_pickle)
    del files["data_batch_4"]
    path = write_archive(
        tmp_path / "a.tar.gz", {f"cifar-10-batches-py/{name}": raw for name, raw in files.items()}
    )
    with pytest.raises(
        DatasetError, match=r"a\.tar\.gz has only data_batch_1, .*test_batch, expected"
    ):
        read_cifar(path)


def test_an_empty_folder_has_no_batch(tmp_path):
    with pytest.raises(
        DatasetError, match="holds none of the data set's files: name a folder like cifar"
    ):
        read_cifar(tmp_path)

"""Logs of a fit in CSV files and for TensorBoard."""

import csv
import math
import struct
import sys

import numpy as np
import pytest
from fake_fit import SCORED, fit, record

from mlp_xp._utils.optional import optional
from mlp_xp.callbacks import CSVLog, MLflow, TensorBoard
from mlp_xp.training.loop.records import Record


def test_a_log_is_read_back_exactly(tmp_path):
    rows = [
        record(1, loss=1 / 3, seconds=1e-9, accuracy=0.1 + 0.2),
        record(2, loss=math.inf, validation_loss=np.float64(2 / 3), validation_score=-0.0),
    ]
    log = CSVLog(tmp_path / "new" / "log.csv")
    fit(log, rows)
    with open(log.path, newline="", encoding="utf-8") as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(Record._fields)
    parsed = [tuple(float(v) if v else None for v in row.values()) for row in read]
    assert parsed == [tuple(row) for row in rows]


def test_a_log_is_replaced_at_fit_begin_and_written_after_each_epoch(tmp_path):
    path = tmp_path / "log.csv"
    path.write_text("an earlier log")
    log = CSVLog(str(path))
    assert path.read_text() == "an earlier log"
    for _ in range(2):
        log.on_fit_begin(None)
        for epoch in (1, 2, 3):
            log.on_epoch_end(None, record(epoch))
            assert len(path.read_text().splitlines()) == 1 + epoch
        log.on_fit_end(None)


def events(path) -> list:
    from tensorboardX.proto import event_pb2

    content, found = path.read_bytes(), []
    while content:  # length, its checksum, the event, its checksum
        (length,) = struct.unpack("<Q", content[:8])
        found.append(event_pb2.Event.FromString(content[12 : 12 + length]))
        content = content[16 + length :]
    return found


def scalars(path) -> dict[tuple[str, int], float]:
    return {(v.tag, e.step): v.simple_value for e in events(path) for v in e.summary.value}


@pytest.mark.matrix
def test_tensorboard_scalars_are_written_each_epoch(tmp_path):
    rows = [record(1, loss=2.5), record(2, validation_loss=0.75, validation_score=0.5)]
    fit(TensorBoard(tmp_path / "new" / "run"), rows)
    (path,) = (tmp_path / "new" / "run").iterdir()
    expected = {("loss", 1): 2.5, ("loss", 2): 0.5}
    expected |= {("validation_loss", 2): 0.75, ("validation_score", 2): 0.5}
    for epoch in (1, 2):
        expected |= {("learning_rate", epoch): pytest.approx(0.001)}
        expected |= {("samples_per_second", epoch): 120.0}
    assert scalars(path) == expected


@pytest.mark.matrix
def test_lbfgs_logs_no_learning_rate(tmp_path, caplog):
    fit(TensorBoard(tmp_path), [record(1, learning_rate=math.nan)])
    (path,) = tmp_path.iterdir()
    assert set(scalars(path)) == {("loss", 1), ("samples_per_second", 1)}
    assert caplog.records == []


@pytest.mark.matrix
def test_quick_consecutive_fits_write_separate_files(tmp_path):
    board = TensorBoard(str(tmp_path))
    for n_epochs in (1, 2, 3):
        fit(board, SCORED[:n_epochs])
    paths = sorted(tmp_path.iterdir())
    assert [len(scalars(path)) for path in paths] == [4, 8, 12]
    # This makes TensorBoard forget earlier fits.
    starts = [e.session_log.status for e in events(paths[-1]) if e.HasField("session_log")]
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("callback", "library", "extra"),
    [(TensorBoard("folder"), "tensorboardX", "tensorboard"), (MLflow(), "mlflow", "mlflow")],
)
def test_error_for_a_missing_library_names_the_extra_to_install(
    monkeypatch, callback, library, extra
):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"'{library}'.*pip install -e \".*\[{extra}\]\""):
        callback.on_fit_begin(None)


def test_missing_module_without_its_own_extra_names_the_cli_extra():
    with pytest.raises(ImportError, match=r'\'nothing\'.*\[cli\]"'):
        optional("nothing.like.this")

"""Data of one's own: folders of pictures and tables, well-formed and hostile."""

import io
import shutil
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from formats import rejects
from helpers import case, matrix, peak
from PIL import Image

from mlp_xp._utils.columns.table import join_rows
from mlp_xp.datasets import load_files
from mlp_xp.datasets._dataset import Column
from mlp_xp.datasets._own_data import csv_files
from mlp_xp.datasets._own_data import parquet as _parquet
from mlp_xp.datasets._own_data import tables as _tables
from mlp_xp.datasets._own_data.csv_format import CsvFormat
from mlp_xp.datasets._own_data.own import read_files
from mlp_xp.datasets._own_data.tables import read_table

GOOD = "".join(f"{i},{i * i},{'ab'[i % 2]}\n" for i in range(20))


def write(name: str, content: str | bytes) -> Path:
    path = Path(name)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def draw(path: Path, size=(4, 3), mode="RGB", value=0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value if mode == "L" else (value, 0, 9)).save(path)


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_file_is_split_holding_out_a_fifth_of_each_class(delimiter):
    data = load_files(write("a.csv", ("i,j,kind\n" + GOOD).replace(",", delimiter)))
    assert (data.feature_names, data.class_names) == (("i", "j"), ("a", "b"))
    assert data.image_shape is None
    assert [np.bincount(y).tolist() for y in (data.y_train, data.y_test)] == [[8, 8], [2, 2]]
    rows = np.concatenate([data.x_train, data.x_test])
    assert sorted(rows[:, 0].tolist()) == list(range(20))
    np.testing.assert_array_equal(rows[:, 1], rows[:, 0] ** 2)
    np.testing.assert_array_equal(data.y_train, data.x_train[:, 0] % 2)


def test_target_is_the_named_the_recognized_or_the_last_column():
    text = "label,i,kind\n" + "".join(f"{i % 3},{i},{i % 2}\n" for i in range(12))
    assert load_files(write("a.csv", text)).feature_names == ("i", "kind")
    assert load_files("a.csv", target="kind").feature_names == ("label", "i")
    assert load_files(write("b.csv", GOOD)).feature_names == ("1", "2")
    frame = ",0,1,target\n" + "".join(f"{i},{i},{i},{i % 2}\n" for i in range(12))
    assert load_files(write("d.csv", frame)).feature_names == ("0", "1")  # No index.
    numbers = "n,c\n" + "".join(f"{i},{10 - i % 3}\n" for i in range(12))
    assert load_files(write("c.csv", numbers)).class_names == ("8", "9", "10")
    ends = "i,kind,,\n" + "".join(f"{i},{i % 2},\n" for i in range(12)).replace("1,", "1,,", 3)
    assert load_files(write("e.csv", ends)).feature_names == ("i",)


def test_column_names_can_contain_commas_and_look_like_missing_values():
    write("a.csv", '"Price, EUR";"Area, m2";kind\n' + "1;2;a\n3;4;b\n" * 6)
    assert load_files("a.csv").feature_names == ("Price, EUR", "Area, m2")
    write("a.csv", "RI,Na,Mg,Type\n" + "1.5,13,4,1\n1.6,14,3,2\n" * 6)
    assert load_files("a.csv").feature_names == ("RI", "Na", "Mg")


def test_na_can_be_a_class_name_or_a_missing_number():
    write("a.csv", "i,kind\n" + "1,NA\n2,b\n3,\n4,nan\n" * 3)
    data = load_files("a.csv")
    assert (data.class_names, len(data.y_train) + len(data.y_test)) == (("NA", "b"), 6)
    kept = "'NA' is a class (3 rows): if it means a missing value, leave it empty"
    assert data.columns.notes == ("left out: 6 rows without kind", kept)
    assert load_files(write("a.csv", "i,kind\n" + "1,NA\n2,1\n3,0\n" * 3)).class_names == ("0", "1")


def test_targets_with_fractions_or_many_values_mean_regression():
    numbers = [1.5, 2.5] * 50, range(100), [*range(21)] * 5
    classes = [*range(20)] * 5, [*range(21)] * 10, ["1", "2", "x", "y"] * 25
    for values in (*numbers, *classes):
        write("a.csv", "i,price\n" + "".join(f"{i},{value}\n" for i, value in enumerate(values)))
        data = load_files("a.csv")
        with case(values):
            assert (data.class_names == ()) is (values in numbers)
            if values in classes:
                continue
            assert "numbers to predict" in repr(data)
            assert data.y_train.dtype == np.float64
            rows = np.concatenate([data.x_train[:, 0], data.x_test[:, 0]]).astype(int)
            targets = np.concatenate([data.y_train, data.y_test])
            assert targets.tolist() == [float(values[row]) for row in rows]
            assert len(data.y_test) == round(len(values) / 5)
    write("a.csv", "i,price\n" + "1,1\n2,2\n" * 5)
    assert load_files("a.csv", task="regression").class_names == ()
    write("a.csv", "i,price\n" + "1,1.5\n2,2.5\n" * 5)
    assert load_files("a.csv", task="classification").class_names == ("1.5", "2.5")
    rejects("must be 'classification' or .*, got 'ranking'", load_files, "a.csv", task="ranking")


def test_columns_of_a_model_are_matched_by_name():
    i, j, k = Column("i"), Column("j", "flag"), Column("k")
    path = write("a.csv", "j,label,i\nyes,,2\nNo,8,4\n")
    table = read_table(path, columns=(i, j), has_target=False)
    assert table.x.tolist() == [[2, 1], [4, 0]]
    assert table.y is None
    rejects("no column 'k', which the net", read_table, Path("a.csv"), columns=(k, j))
    write("b.csv", "j,i\nyes,1\nperhaps,2\n,3\n2,4\n0,5\n")
    flags = read_table(Path("b.csv"), columns=[j], has_target=False).x[:, 0]
    np.testing.assert_array_equal(flags, [1, np.nan, np.nan, 2, 0])
    infinite = write("d.csv", "j,i\nyes,1\ninf,2\n")
    rejects("'j' is infinite in row 2", read_table, infinite, columns=[j], has_target=False)
    codes = "j,i\n" + "".join(f"{i},1\n" for i in range(60))  # The text may be digits in new rows.
    text = [Column("j", "text")]
    assert read_table(write("c.csv", codes), columns=text, has_target=False).x[9, 0] == "9"
    for word, kind in (("yes", "number"), ("2020-13-01", "date")):
        given = {"columns": [Column("j", kind)], "has_target": False}
        rejects(f"'j' has '{word}', but", read_table, write("a.csv", f"j,i\n{word},1\n"), **given)


def test_npz_files_contain_feature_and_target_arrays():
    x, y = np.arange(40, dtype=np.float32).reshape(20, 2), np.arange(20) % 2
    np.savez("a.npz", X=x, y=y, z=np.asarray(["u", "v"] * 10))
    assert load_files("a.npz").x_train.dtype == np.float32
    data = load_files("a.npz", target="z")
    assert data.class_names == ("u", "v")
    np.savez("c.npz", X=x, y=y == 1)
    assert load_files("c.npz").class_names == ("False", "True")
    assert repr(data) == "Dataset(16 training and 4 test samples of 2 features, 2 classes)"
    np.savez("b.npz", X=x)
    columns = [Column(name) for name in "123"]
    assert read_table(Path("b.npz"), columns=columns[:2], has_target=False).y is None
    rejects("no column '3', which the net", read_table, Path("b.npz"), columns=columns)
    x[1, 1] = np.nan
    np.savez("d.npz", X=x, y=y)
    assert load_files("d.npz").columns.used == (Column("1"), Column("2", has_gaps=True))


def test_text_dates_booleans_and_missing_values_are_accepted():
    rows = [
        f"n{i},{'NA' if i == 3 else i % 7},{'x y'[i % 3]},{i % 2 == 0},2020-01-0{i % 5 + 1},{i}.5"
        for i in range(40)
    ]
    write("a.csv", "\n".join(["name,age,town,member,born,price", *rows, ""]))
    data = load_files("a.csv")
    kinds = [("age", "number", True), ("town", "text", True), ("member", "flag"), ("born", "date")]
    note = "left out: name (text, with 40 values in 40 rows)"
    assert data.columns == ("price", tuple(Column(*kind) for kind in kinds), (note,))
    x = np.concatenate([data.x_train, data.x_test]).tolist()
    rows = dict(zip([*data.y_train.tolist(), *data.y_test.tolist()], x, strict=True))
    assert rows[4.5] == [4, None, 1, datetime(2020, 1, 5)]
    assert np.isnan(rows[3.5][0])
    assert load_files("a.csv", drop=["town", "born", "age"]).feature_names == ("member",)
    write("c.csv", "at,y\n2024-01-01T00:00-08:00,1\n9999-12-31T02:00-23:00,2\n")
    dates = [datetime(2024, 1, 1, 8), datetime(9999, 12, 31, 2)]
    assert read_table(Path("c.csv")).x[:, 0].tolist() == dates
    write("b.csv", "born,member,town,age,price\n,,1,5,1\n,no,x,,2\n,yes,x,1,3\n,no,y,1,4\n")
    new = load_files("b.csv", columns=data.columns.used, task="regression")
    rows = np.concatenate([new.x_train, new.x_test])[np.argsort([*new.y_train, *new.y_test])]
    assert rows[1:3, 1:].tolist() == [["x", 0, None], ["x", 1, None]]
    assert rows[0, 1] == "1"


def test_rare_values_are_reported_in_notes():
    rows = [f"c{max(0, i - 249)},{'' if i else 'x'},{i}.5" for i in range(300)]
    data = load_files(write("a.csv", "\n".join(["code,flag,price", *rows, ""])))
    assert data.feature_names == ("code", "flag")
    assert data.columns.notes == (
        "code: 1 of 51 values are inputs; the others are too rare",
        "flag: all values are rare, so the only input is whether one is missing",
    )


def test_all_unusable_columns_are_listed_in_one_error():
    rows = [f"{i},{i if i else '?!'},${i},{'inf' if i == 7 else i},{i % 2}" for i in range(60)]
    write("b.csv", "\n".join(['i,"j, or so",k,l,kind', *rows, ""]))
    rejects("type --drop '\"j, or so\",k,l'$", load_files, "b.csv")
    write("a.csv", "\n".join(["i,j,k,l,kind", *rows, ""]))
    said = r"'j' has '\?!' among.*'k' has '\$0' among.*'l' is infinite in row 8.*--drop j,k,l$"
    rejects(said, load_files, "a.csv")
    rows = [
        f'{i}.5 kg,"{i},5",{"soon" if i == 3 else f"2026-01-{i % 28 + 1:02}T{i:02}"},{i % 2}'
        for i in range(24)
    ]
    write("c.csv", "\n".join(["m,n,o,kind", *rows, ""]))
    said = r"'m' has '0.5 kg' among its numbers; 'n' has '0,5' among its numbers; 'o' has 'soon'"
    cures = "write dates such as 2026-01-31, or type --drop m,n,o$"
    cures = f"set --decimal , for decimal commas, {cures}"
    rejects(f"{said} among its dates: .*, {cures}", load_files, "c.csv")
    few = [f"{i % 3}.5 kg,{i % 4 + 1}/12/2025,{i % 2}" for i in range(60)]
    data = load_files(write("d.csv", "\n".join(["m,n,kind", *few, ""])))
    assert data.columns.notes == (
        "m has '0.5 kg' among its numbers, but is used as 3 categories",
        "n has '1/12/2025', which is not an ISO 8601 date, but is used as 4 categories",
    )
    data = load_files("a.csv", drop=["j", "k", "l"])
    assert data.feature_names == ("i",)
    rejects(r"no column 'm' to drop\. It has i, j", load_files, "a.csv", drop=["m"])
    rejects("'kind' is the column to predict", load_files, "a.csv", target="kind", drop=["kind"])


WRONG_TABLES = [
    ("", "is empty"),
    ("i,j,kind\n", "no rows"),
    ("i,i,kind\n1,2,a\n", "2 columns named 'i'"),
    ("kind\na\nb\n", "add at least one feature"),
    ("i,kind\n1,a\n2\n3,b\n", "line 3 must have 2 values, got 1"),
    ("i,kind\n,a\n,b\n,a\n,b\n", "no column that can be an input: left out: i .it is empty"),
    ("i,kind\n1,\n2,\n", "no rows: add one per sample, with its target"),
    ("i,kind\n1,a\nx,a\n", "'kind' is a in every row: nothing to predict"),
    ("i,kind\n1,a\n2,a\n3,b\n", "at least 2 samples, .* 'b' has one"),
    ("i,price\n1,2.5\n2,2.50\n3,2.5\n4,2.5\n", "'price' is 2.5 in every row"),
    ("i,price\n1,2.5\n2,3\n3,3\n", "must have at least 4 rows, got 3"),
    ('i,kind\n"1,a\n2,b\n', "cannot be read"),
    (b"i,kind\n\x81,a\n", "cannot be read .*set --encoding to"),
    ("i,kind\n" + "9" * 200_000 + ",a\n", "cannot be read"),
]


@pytest.mark.parametrize(("text", "message"), WRONG_TABLES)
def test_csv_errors_name_the_line_or_column(text, message):
    rejects(rf"a\.csv.*{message}", load_files, write("a.csv", text), name=text[:99])


def test_csv_reading_stops_early_if_all_rows_have_one_class_and_saves_memory(monkeypatch):
    write("a.csv", "i,kind\n" + "1,a\n" * 1000)
    with monkeypatch.context() as patch:
        patch.setattr(csv_files.Values, "extend", None)  # No feature is parsed.
        rejects("'kind' is a in every row", load_files, "a.csv")
    text = "i,kind\n" + "1,a\n2,b\n" * 500 + f"3,{'z' * 30_000}\n" * 2
    path = write("a.csv", text)
    assert peak(lambda: load_files(path)) < 1 << 20  # Fixed-width text would take 120 MB.
    assert len(load_files(path).class_names) == 3


def saved(**arrays) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


@pytest.mark.parametrize("size", [1 << 20, *matrix(32 << 20)])
def test_an_invalid_npz_file_is_an_error(size, monkeypatch):
    monkeypatch.setattr(_tables, "_MIN_LIMIT", size)
    for content, message in (
        (saved(X=np.zeros(size + 1, "uint8")), "unpacks to .* np.savez, which"),
        (saved(X=np.zeros((size // 8, 2), "int8")), f"unpacks to {2 * size:,}"),  # As float64.
        (saved(X=np.zeros((size // 8, 1), "?"), y=[0] + [1] * (size // 8 - 1)), "unpacks to"),
        (b"PK\x03\x04 cut short", "cannot be read"),
        (saved(X=np.asarray([{}], dtype=object)), "cannot be read"),
        (saved(X=np.ones((4, 2)), y=np.ones((4, 2))), "must contain a label for each"),
        (saved(X=np.ones(4), y=np.arange(4)), "one sample per row, got"),
        (saved(a=np.ones(4)), "has the arrays a, but needs X"),
        (saved(X=np.asarray([{}], dtype=object), y=[2, 2]), "y is 2 in every row: nothing to"),
        (saved(X=np.ones((4, 2))), "no array y"),
        (saved(X=[[1.0], [np.inf]], y=[0, 1]), "'1' is infinite in row 2"),
    ):
        rejects(message, load_files, write("a.npz", content))


def test_boolean_arrays_stay_bytes():
    x = np.arange(40).reshape(20, 2) % 3 == 0
    for kind in (bool, np.uint8):
        data = load_files(write("a.npz", saved(X=x.astype(kind), y=np.arange(20) % 2)))
        assert data.x_train.dtype == data.x_test.dtype == np.uint8
        assert np.sum(data.x_train) + np.sum(data.x_test) == np.sum(x)


class Kind(str):
    num_fields = property(lambda self: int(self == "list"))


class Columns(dict):
    """Columns as pyarrow and fastparquet have them, to read without either."""

    num_row_groups, total_byte_size = 1, 0
    columns = property(list)
    metadata = property(lambda self: self)
    num_rows = property(lambda self: len(next(iter(self.values()))))
    read = to_pandas = row_group = lambda self, *_: self
    count = num_rows.fget

    @property
    def schema_arrow(self):
        kinds = {list: "list", str: "string"}
        types = {name: Kind(kinds.get(type(values[0]))) for name, values in self.items()}
        return [SimpleNamespace(name=name, type=kind) for name, kind in types.items()]

    def __getitem__(self, name):
        values = super().__getitem__(name)
        column = SimpleNamespace(to_numpy=lambda **_: np.asarray(values), type=None)
        if isinstance(values[0], str):  # None is not text.
            texts = sorted({*values} - {None})
            codes = np.asarray([texts.index(v) if v else np.nan for v in values])
            column.type = SimpleNamespace(value_type="string")
            parts = SimpleNamespace(to_numpy=lambda **_: codes, to_pylist=lambda: texts)
            column.chunks = [SimpleNamespace(indices=parts, dictionary=parts)]
        return column


POLARS = """
import os

class PanicException(BaseException): pass

def scan_parquet(path):
    os.write(2, b"stack backtrace:")
    {how}
"""


def test_a_file_that_crashes_polars_is_an_error(tmp_path, monkeypatch, capfd):
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    monkeypatch.delitem(sys.modules, "polars", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    write("a.parquet", "PAR1")
    for how, said in (
        ("raise PanicException('out of spec')", "out of spec"),
        ("os.abort()", "abo"),
        ("os.write(2, b'memory allocation of 9 bytes failed'); os.abort()", "MemoryError: polars"),
        ("bytearray(6 << 30)", "MemoryError" if sys.platform == "linux" else ""),
    ):
        (tmp_path / "polars.py").write_text(POLARS.format(how=how))
        rejects(rf"a\.parquet cannot be read \(.*{said}", load_files, "a.parquet", name=how)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("library", ["pyarrow.parquet", "fastparquet", *matrix(None)])
def test_a_parquet_file_is_read_like_the_equivalent_csv_file(library, monkeypatch):
    """Read with the first installed library; the matrix has a real one."""
    reader = SimpleNamespace()

    def put(table):
        if library:
            reader.ParquetFile = lambda path, **_: Columns(table)
        else:
            pytest.importorskip("polars").DataFrame(table).write_parquet("a.parquet")

    write("a.parquet", b"PAR1 and nothing else")
    if library:
        found = {}
        importlib = SimpleNamespace(import_module=lambda name: found[name])
        monkeypatch.setattr(_parquet, "importlib", importlib)
        monkeypatch.setattr(_parquet, "suppress", lambda _: suppress(KeyError))
        monkeypatch.setattr(_parquet, "_read_polars", lambda *_: found["polars"])
        with pytest.raises(ImportError, match="pip install pyarrow"):
            load_files("a.parquet")
        found[library] = reader
    else:
        rejects("cannot be read", load_files, "a.parquet")
    table = {"i": np.arange(20), "j": np.arange(20.0) ** 2, "kind": ["a", "b"] * 10}
    put(table)
    ours, theirs = load_files("a.parquet"), load_files(write("a.csv", "i,j,kind\n" + GOOD))
    np.testing.assert_array_equal(ours.x_train, theirs.x_train)
    np.testing.assert_array_equal(ours.y_test, theirs.y_test)
    assert ours.feature_names == theirs.feature_names
    put(table | {"i": ["Paris", None] * 10, "j": [1.0] * 19 + [np.nan], "yes": [True, None] * 10})
    assert load_files("a.parquet", target="kind").columns.used[2] == Column("yes", "flag", True)
    put(table | {"__index_level_0__": range(20)})  # Written by pandas.
    assert load_files("a.parquet").feature_names == ("i", "j")
    put(table | {"kind": ["a"] * 3 + ["b"] * 3 + [None] * 14})
    first, *notes = load_files("a.parquet").columns.notes
    assert first == "i numbers the rows: to leave it out, type --drop i"
    assert notes == ["left out: 14 rows without kind"]
    put(table | {"i": ["x" * 99_999, "y"] * 10, "l": [[0, 1]] * 20})
    if library != "fastparquet":
        rejects("'l' must contain numbers or text, got .*type --drop l$", load_files, "a.parquet")
        for chosen in {"drop": ["l"]}, {"columns": [Column("i", "text")]}:
            x = read_table(Path("a.parquet"), "kind", **chosen).x
            assert len({*map(id, x[:, 0])}) == 2  # A long text is stored once.
    put({"i": np.asarray(["2020-01-01T12:30", "NaT"], "datetime64[us]"), "y": [True, False]})
    assert read_table(Path("a.parquet"), "y").x.tolist() == [[datetime(2020, 1, 1, 12, 30)], [None]]
    rejects("'y' has 'True'", read_table, Path("a.parquet"), "i", columns=[Column("y")])
    monkeypatch.setattr(_parquet, "_MIN_LIMIT", 31)
    monkeypatch.setattr(_parquet, "_MAX_RATIO", 0)
    rejects(r"a.parquet has .* unpacks to \d+ or more .2 rows of 2", load_files, "a.parquet")


def test_a_table_with_text_keeps_its_dtypes_until_it_is_encoded():
    """Stored as an object, each number would take four times as much memory."""
    rng = np.random.default_rng(0)
    numbers = {f"x{i}": rng.normal(size=20_000).astype(np.float32) for i in range(8)}
    names = rng.choice(["Paris", "Rome", None], 20_000)
    pytest.importorskip("polars").DataFrame({**numbers, "town": names, "y": names}).write_parquet(
        "a.parquet"
    )
    data = read_files("a.parquet", target="x0", task="regression")
    kinds = [raw.values.dtype for raw in data.x_train.columns]
    assert kinds == [np.float32] * 7 + [np.int32] * 2
    matrix = load_files("a.parquet", target="x0", task="regression").x_test
    assert matrix.dtype == object
    assert data.x_test.shape == matrix.shape == (4000, 9)
    np.testing.assert_array_equal(np.asarray(data.x_test), matrix)
    parts = data.x_test[:1000], data.x_test[np.arange(4000) >= 1000]
    np.testing.assert_array_equal(np.asarray(join_rows(parts)), matrix)
    only = data.x_test[matrix[:, 7] == "Rome"].columns[7]
    assert only.counts == {"Rome": len(only.values)}


def test_a_folder_of_images_is_a_data_set():
    for i in range(10):
        draw(Path(f"pets/cat/{i}.png"), value=i)
        draw(Path(f"pets/dog/deep/{i}.jpg"), value=200 + i)
    write("pets/cat/.hidden.png", "no picture")
    write("pets/notes.txt", "no class")
    data = load_files("pets")
    assert (data.class_names, data.image_shape) == (("cat", "dog"), (3, 3, 4))
    assert (data.x_train.shape, len(data.x_test)) == ((16, 36), 4)
    np.testing.assert_array_equal(data.y_train, data.x_train[:, 0] > 100)
    # Gray ones have one channel, and folders may be split.
    for part, kind in ("train", "x"), ("train", "y"), ("test", "x"), ("test", "y"):
        draw(Path(f"d/{part}/{kind}/1.png"), mode="L")
    data = load_files("d", image_size=(2, 2))
    assert data.image_shape == (1, 2, 2)
    assert (len(data.x_train), data.y_test.tolist()) == (2, [0, 1])


def test_errors_in_an_image_folder_name_the_file():
    deep = Image.fromarray(np.full((3, 4), 9999, np.uint16))
    for damage, message in (
        (lambda: draw(Path("d/x/2.png"), (9, 9)), "2.png is 9x9, .*1.png is 4x3: .*--image-size"),
        (lambda: write("d/x/2.png", b"\x89PNG\r\n\x1a\nno"), "d/x/2.png cannot be read as a PNG"),
        (lambda: write("d/x/2.jpg", b""), "d/x/2.jpg cannot be read as a PNG"),
        (lambda: deep.save("d/x/2.png"), "2.png .*16 bits per channel: save it with 8"),
        (lambda: Path("d/z").mkdir(), "d/z has no PNG or JPEG files"),
        (lambda: shutil.rmtree("d/y"), "d must have at least two subfolders .* got 1"),
        (lambda: Image.new("1", (9000, 9000)).save("d/x/2.png"), "9000x9000 pixels, but at most"),
    ):
        shutil.rmtree("d", ignore_errors=True)
        draw(Path("d/x/1.png"))
        draw(Path("d/y/1.png"))
        damage()
        rejects(message, load_files, "d")
    rejects(r"ends in \.csv, \.npz, \.parquet", load_files, write("a.txt", "1"))


EUROPEAN = "Straße;Größe;Preis\n" + "".join(f"Süd;{i},5;{i % 3}\n" for i in range(12))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_the_encoding_of_a_csv_file_is_recognized(encoding):
    path = write("a.csv", EUROPEAN.encode(encoding))
    for given in None, encoding.removesuffix("-sig"):
        data = load_files(path, decimal=",", encoding=given, drop=["Straße"])
        assert data.feature_names == ("Größe",)
        assert sorted([*data.x_train, *data.x_test]) == [[i + 0.5] for i in range(12)]
        assert data.columns.notes == ()


def test_non_unicode_files_are_read_as_western_european_with_a_note():
    data = load_files(write("a.csv", EUROPEAN.encode("latin-1")), decimal=",")
    assert data.columns.used == (Column("Größe"),)
    said = "read as cp1252 (Western European), not UTF-8: to read it as another, set --encoding"
    assert data.columns.notes[-1] == said
    last = load_files(
        write("a.csv", ("i,kind\n" + "1,a\n2,b\n" * 6 + "2,b\n3,é\n3,é").encode("latin-1"))
    )
    assert last.class_names == ("a", "b", "é")


def test_invalid_or_unknown_encodings_are_an_error_that_names_the_option():
    text = EUROPEAN.encode()
    broken = write("b.csv", text[:-1] + b"\xe9\n")
    rejects(r"b\.csv, line 13 has the byte 0xe9, .*correct it, or set --enc", load_files, broken)
    for content, given, message in (
        (b"i,\x81\n1,2\n", None, r"cannot be read \(.*0x81.*set --encoding to .*, e.g. utf-8"),
        (text, "utf-16", "cannot be read as utf-16 .*: set --encoding"),
        (text, "utf-9", "unknown encoding 'utf-9': set --encoding to utf-8"),
        (text, "hex", "unknown encoding 'hex'"),
    ):
        rejects(message, load_files, write("a.csv", content), encoding=given)


def test_given_separator_and_decimal_mark_are_used():
    write("a.csv", "a b,price\n" + "".join(f"{i},5 {i},25\n" for i in range(12)))
    data = load_files("a.csv", separator=" ", decimal=",")
    assert (data.feature_names, data.columns.target) == (("a",), "b,price")
    assert sorted([*data.y_train, *data.y_test]) == [i + 0.25 for i in range(12)]
    # Commas cannot separate columns if they are decimal points.
    write("b.csv", "1,5;2,25;a\n" + "3,5;-1,5e2;b\n2,5;;a\n" * 6)
    table = read_table(Path("b.csv"), form=CsvFormat(decimal=","))
    assert table.names == ("1", "2")
    assert table.x[:2].tolist() == [[1.5, 2.25], [3.5, -150.0]]
    assert np.isnan(table.x[2, 1])
    for given, message in (
        ({"decimal": ";"}, "--decimal must be '.' or ',', got ';'"),
        ({"separator": ";;"}, r"--separator must be one character, such as ';' or '\\t', got ';;'"),
        ({"separator": ",", "decimal": ","}, "--separator and --decimal must differ, got ','"),
        ({"separator": "|"}, "has only the column 'a b,price': .*set --separator"),
    ):
        rejects(message, load_files, "a.csv", **given)
    np.savez("a.npz", X=np.eye(4), y=[0, 1, 0, 1])
    rejects(
        "a.npz: leave out --decimal ,, which is for .csv files", load_files, "a.npz", decimal=","
    )


def test_a_target_with_decimal_commas_is_an_error_that_names_the_option():
    write("a.csv", "i;price\n" + "".join(f"{i};{i % 3},{i % 2}\n" for i in range(12)))
    said = "'price', the column to predict, has '0,0': if commas are decimal points, type --decimal"
    rejects(rf"a\.csv: {said} ,; .*; to predict classes, type --task class", load_files, "a.csv")
    rejects(f"{said} ,; .* remove them$", load_files, "a.csv", task="regression")
    assert load_files("a.csv", task="classification").class_names[:2] == ("0,0", "0,1")
    data = load_files("a.csv", decimal=",")
    assert sorted([*data.y_train, *data.y_test])[:4] == [0.0, 0.0, 0.1, 0.1]


def test_advice_for_numbers_with_commas_depends_on_the_format():
    rows = "".join(f"{i},5;{i};x\n{i},25;{i};y\n" for i in range(60))
    write("a.csv", f"i;j;kind\n{rows}")
    said = (
        "'i' has '0,5' among its numbers: write plain .*1234.5, set --decimal , for decimal commas"
    )
    rejects(f"{said}, or type --drop i$", load_files, "a.csv")
    used = load_files("a.csv", decimal=",").columns.used
    assert used == (Column("i"), Column("j"))
    new = {"columns": used, "has_target": False}
    said = "'i' has '1,5', but the network was trained with numbers: correct it, set --decimal ,"
    rejects(said, read_table, write("b.csv", "i;j\n1,5;2\n"), **new)
    new["form"] = CsvFormat(decimal=",")
    assert read_table(Path("b.csv"), **new).x.tolist() == [[1.5, 2.0]]
    said = "'i' has '1.5', but .*: correct it, set --decimal . for decimal points, or leave it"
    rejects(said, read_table, write("b.csv", "i;j\n2,5;2\n1.5;2\n"), **new)


def test_a_table_with_too_many_columns_is_rejected_after_its_first_line():
    names = ",".join(f"c{i}" for i in range(50_001))
    write("a.csv", f"{names},kind\n" + "1\n" * 3)  # The lines are wrong, but are not read.
    said = "a.csv has 50,002 columns, but at most 50,000 can be inputs: keep the most"
    rejects(said, load_files, "a.csv")

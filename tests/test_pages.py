"""README and pages: examples print the output shown, links work, and each task has a page."""

import ast
import functools
import importlib
import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pages
import pytest
from helpers import PATIENCE
from sklearn import neural_network

from mlp_xp import MLP, MLPRegressor
from mlp_xp.datasets import locate

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = [*sorted(DOCS.glob("*.md")), *sorted((DOCS / "how-to").glob("*.md"))]
PAGES = [*sorted(ROOT.glob("*.md")), *SOURCES, ROOT / "bench" / "README.md"]
# Each block of these pages is a complete program; the last test runs them.
PROGRAMS = {"migrate.md"}
EXAMPLES = sorted((DOCS / "gallery").glob("plot_*.py"))
# The packages that a page needs beyond the extra `test`.
NEEDED = {
    "docs/export.md": ["ndonnx", "onnxruntime", "skl2onnx", "torch"],
    "docs/how-to/batches.md": ["pyarrow", "torch"],
    "docs/how-to/device.md": ["torch"],
    "docs/how-to/export.md": ["ndonnx", "onnxruntime"],
    "docs/how-to/gpu-arrays.md": ["torch"],
    "docs/how-to/gpu-trouble.md": ["torch"],
    "docs/how-to/reproduce.md": ["torch"],
    "docs/how-to/save.md": ["skops"],
    "docs/how-to/tune.md": ["optuna"],
}
WITH_CODE = [
    page
    for page in [ROOT / "README.md", *SOURCES]
    if page.name not in PROGRAMS and pages.blocks(page.read_text(encoding="utf-8"))
]
# The tasks of a new user: the page of each task, and a word that the page must contain.
JOBS = {
    "choose a device": ("device", "`device`"),
    "an own validation set and early stopping": ("validation", "X_val"),
    "class weights": ("class-weights", "class_weight"),
    "save and load": ("save", "load_model"),
    "resume": ("resume", "resume="),
    "several machines": ("machines", "mpiexec"),
    "tune hyper-parameters": ("tune", "optuna"),
    "tables": ("tables", "categorical_features"),
    "monotone predictions": ("monotone", "monotonic_cst"),
    "arrays that are on a GPU": ("gpu-arrays", "cupy"),
    "custom loss, activation and callback": ("custom", "on_epoch_end"),
    "the code of an own loss": ("inspect", "explain"),
    "reproducibility": ("reproduce", "random_state"),
    "speed": ("speed", "float32"),
    "trouble with a GPU": ("gpu-trouble", "NVRTC"),
    "prediction in batches": ("predict", "working_memory"),
    "explaining a model": ("explain", "permutation_importance"),
    "calibrated probabilities and intervals": ("uncertainty", "CalibratedClassifierCV"),
    "export": ("export", "to_onnx"),
    "export to C": ("c", "to_c"),
    "serving": ("serve", "FastAPI"),
    "serving over HTTP": ("serve-http", "uvicorn"),
    "imbalanced classes": ("imbalanced", "average_precision"),
    "several labels or targets": ("several-targets", "multi-label"),
    "SHAP values": ("shap", "shap_values"),
    "checking new data": ("check", "check"),
    "an own metric": ("metrics", "make_scorer"),
    "learning rate": ("learning-rate", "validation_curve"),
    "fine-tuning": ("fine-tune", "warm_start"),
    "logging": ("log", "autolog"),
    "batches from a loader": ("batches", "DataLoader"),
}


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)


def links(page: Path) -> list[tuple[str, str]]:
    """Return the links to files and headings, as paths and anchors, without titles."""
    return re.findall(
        r"\]\(([^)#: ]*)(?:#([^) ]*))?(?: \"[^\"]*\")?\)", page.read_text(encoding="utf-8")
    )


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# A warning would be visible on the page.
@pytest.mark.matrix
@pytest.mark.filterwarnings("error::sklearn.exceptions.ConvergenceWarning")
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_examples_print_the_shown_output(page, tmp_path, monkeypatch):
    if page.name == "datasets.md" and locate("cifar10") is None:
        pytest.skip("cifar10 is not in the cache")
    for name in NEEDED.get(page.relative_to(ROOT).as_posix(), ()):
        pytest.importorskip(name)
    monkeypatch.chdir(tmp_path)
    for block, printed in pages.run(page):
        assert not pages.differs(block.shown, printed), f"line {block.line} prints:\n{printed}"


@pytest.mark.parametrize(
    ("shown", "printed", "expected"),
    [
        ("accuracy 0.97", "accuracy 0.98\n", False),
        ("accuracy 0.97", "accuracy 0.99\n", True),
        ("accuracy 0.97", "score 0.97\n", True),
        ("(2, 3)", "(2, 4)\n", True),
        ("", "something\n", True),
        ("something", "", True),
    ],
)
def test_outputs_can_differ_by_one_in_the_last_digit(shown, printed, expected):
    assert pages.differs(shown, printed) == expected


@pytest.mark.matrix
def test_documented_server_and_client_work(tmp_path, monkeypatch, capsys):
    for name in ("fastapi", "httpx", "uvicorn"):
        pytest.importorskip(name)
    page = DOCS / "how-to" / "serve-http.md"
    train, app, client = pages.blocks(page.read_text(encoding="utf-8"))
    monkeypatch.chdir(tmp_path)
    exec(train.code, {})
    (tmp_path / "app.py").write_text(app.code, encoding="utf-8")
    start = [sys.executable, "-m", "uvicorn", "app:app", "--port", "0"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(start, stderr=subprocess.PIPE, text=True, env=environment) as server:
        try:
            lines = iter(server.stderr.readline, "")
            urls = (re.search(r"running on (http://\S+)", line) for line in lines)
            url = next(filter(None, urls))[1]
            capsys.readouterr()
            exec(client.code.replace("http://127.0.0.1:8000", url), {})
        finally:
            server.terminate()
    assert not pages.differs(client.shown, capsys.readouterr().out)


def test_all_python_blocks_are_found():
    for page in [ROOT / "README.md", *SOURCES]:
        text = page.read_text(encoding="utf-8")
        assert len(pages.blocks(text)) == text.count("```python"), page.name


def test_links_point_to_existing_files_and_headings():
    for page in PAGES:
        for link, anchor in links(page):
            target = page.parent / link if link else page
            assert target.exists(), f"{page.name}: {link}"
            assert not anchor or anchor in anchors(target), f"{page.name}: {link}#{anchor}"


def test_first_two_readme_commands_are_one_line_each():
    train, check = fenced(README, "bash")[:2]
    assert train.count("\n") == check.count("\n") == 1
    assert train.rstrip().endswith("mlp-xp train")
    assert check.rstrip().endswith("pytest")


def test_first_readme_block_runs_after_the_first_command(capsys):
    code, shown = fenced(README, "python")[0], fenced(README, "text")[0]
    exec(code, {})
    assert not pages.differs(shown, capsys.readouterr().out)
    # The frame needs pandas, which the command installs.
    (extras,) = re.findall(r"pip install \S* ?-e \"\.\[(.*?)\]\"", fenced(README, "bash")[0])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    installed = [
        line for name in extras.split(",") for line in project["optional-dependencies"][name]
    ]
    assert any(line.startswith("pandas>=") for line in installed)


def test_readme_example_prints_the_shown_output(capsys):
    code, gpu_line = fenced(README, "python")[1:3]
    shown_bar, accuracy = fenced(README, "text")[1].splitlines()
    exec(code, {})
    *_, last_epoch, printed = capsys.readouterr().out.splitlines()
    assert printed == accuracy
    # Here stdout is not a terminal, so each epoch prints a line instead of a bar.
    shown = re.fullmatch(r"(epoch 20/20) ━+ 100 %  loss (0\.\d{4})  took 0:00", shown_bar)
    ran = re.fullmatch(r"(epoch 20/20)  loss (0\.\d{4})  0:00 left", last_epoch)
    assert ran[1] == shown[1]
    assert float(ran[2]) == pytest.approx(float(shown[2]), abs=3e-4)
    (line,) = re.findall(r"^model = .*\n", code, flags=re.MULTILINE)
    assert gpu_line == line.replace(")\n", ', backend="cupy")\n')
    for block in fenced(README, "python")[3:]:
        exec(block, {})


def test_readme_charts_match_the_benchmark_records(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    charts = importlib.import_module("bench.reports.charts")
    shown = []
    for picture in charts.IMAGES:
        svg = (DOCS / picture).read_text(encoding="utf-8")
        (names,) = re.findall("<dc:source>(.*)</dc:source>", svg)
        charts.draw_readme([ROOT / name for name in names.split("; ")], tmp_path)
        again = (tmp_path / picture).read_text(encoding="utf-8")
        texts = re.compile("<text[^>]*>([^<]*)</text>")
        assert texts.findall(svg) == texts.findall(again)
        shown += texts.findall(svg)
        assert f"](docs/{picture})" in README
    known, source = charts.PUBLISHED
    assert f"{known} %" in (DOCS / "accuracy.md").read_text(encoding="utf-8")
    ours = {"mlp_xp, NumPy", "thinc", "59.0 %  mlp-xp train, NumPy"}
    assert ours | {f"{known:.1f} %  {source}"} < set(shown)
    assert any("thin lines: quartiles" in text for text in shown)
    tables = (DOCS / "tables.svg").read_text(encoding="utf-8")
    assert "](docs/tables.svg)" in README
    assert "Lower is better" in tables


def test_plots_page_shows_the_images_it_saves():
    text = (DOCS / "pictures.md").read_text(encoding="utf-8")
    shown = re.findall(r"\]\((pictures-.*\.png)\)", text)
    assert sorted(shown) == sorted(re.findall(r'savefig\("(pictures-.*\.png)"', text))
    assert all((DOCS / name).is_file() for name in shown)


def test_the_documented_recipe_loads(tmp_path):
    (recipe,) = fenced((DOCS / "cli.md").read_text(encoding="utf-8"), "toml")
    (tmp_path / "my-recipe.toml").write_text(recipe)
    model = MLP.from_recipe(tmp_path / "my-recipe.toml")
    assert tuple(model.hidden_layer_sizes) == (128, 128)
    assert model.solver.ns_steps == 3


def test_how_to_pages_are_two_clicks_from_the_front_page():
    # The front page links to each how-to, which links to pages with details.
    front = {(DOCS / link).resolve() for link, _ in links(DOCS / "index.md")}
    for name, word in JOBS.values():
        page = DOCS / "how-to" / f"{name}.md"
        assert word in page.read_text(encoding="utf-8")
        assert page.resolve() in front
    how_tos = {page.stem for page in (DOCS / "how-to").glob("*.md")} - {"index"}
    assert how_tos == {name for name, _ in JOBS.values()}


def test_how_to_pages_that_train_show_a_score():
    for page in (DOCS / "how-to").glob("*.md"):
        ran = [
            block for block in pages.blocks(page.read_text(encoding="utf-8")) if not block.reason
        ]
        shown = "".join(block.shown for block in ran)
        trains = any(".fit(" in block.code for block in ran)
        assert re.search(r"\d\.\d\d", shown) or not trains, page.name


def test_every_page_is_in_a_toctree():
    listed = set()
    for page in DOCS.rglob("*.md"):
        entries = "\n".join(fenced(page.read_text(encoding="utf-8"), r"\{toctree\}"))
        for name in re.findall(r"^(?!:)(?:.*<)?([\w/-]+)>?$", entries, flags=re.MULTILINE):
            listed |= {file.resolve() for file in page.parent.glob(f"{name}.*")}
    found = {page.resolve() for page in DOCS.rglob("*.md") if "_build" not in page.parts}
    assert found - listed == {(DOCS / "index.md").resolve(), (DOCS / "paper.md").resolve()}


# --- the gallery; the build of the site runs its examples -----------------------------------------


def test_every_example_is_ordered_in_the_gallery():
    tree = ast.parse((DOCS / "extensions" / "gallery.py").read_text(encoding="utf-8"))
    (order,) = (
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER"
    )
    assert sorted(order) == [path.stem.removeprefix("plot_") for path in EXAMPLES]


def test_every_gallery_example_has_a_title_and_a_plot():
    for path in EXAMPLES:
        code = path.read_text(encoding="utf-8")
        title, line, *_ = ast.get_docstring(ast.parse(code)).splitlines()
        assert line == "=" * len(title), path
        assert re.search(r"plt\.subplots\(|Display\.from_estimator\(", code), path


# --- tables that name tests and messages ---------------------------------------------------------

OURS = "mlp_xp"
PEERS = {"feature", OURS, "scikit-learn", "skorch", "Keras", "thinc", "pytabkit"}
LINK = re.compile(r"\]\(\.\./(tests/[\w/]+\.py) \"(\w+)\"\)")
# Messages from CUDA, CuPy and torch.
THEIRS = re.compile("cudaError|Failed to find|libnvrtc|cannot open|not compiled|OutOf|out of mem")


def features() -> list[dict[str, str]]:
    found, text = [], (DOCS / "features.md").read_text(encoding="utf-8")
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        names, _, *lines = ([c.strip() for c in row.split("|")[1:-1]] for row in table.splitlines())
        if OURS in names:
            found += [dict(zip(names, cells, strict=True)) for cells in lines]
    return found


@functools.cache
def functions(path: str) -> set[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_feature_table_rows_say_yes_partly_or_no_and_name_a_test():
    table = features()
    assert len({row["feature"] for row in table}) == len(table) > 0
    for row in table:
        assert set(row) == PEERS, row["feature"]
        for name in PEERS - {"feature"}:
            assert re.match(r"\[?(yes|no|partly)\b", row[name]), f"{row['feature']}, {name}"
        named = LINK.findall(row[OURS])
        assert bool(named) != row[OURS].startswith("no"), row[OURS]
        for path, function in named:
            assert function.startswith("test_"), function
            assert function in functions(path), f"{path} has no {function}"


def test_error_messages_on_the_gpu_page_exist_in_the_code():
    table = (DOCS / "gpu.md").read_text(encoding="utf-8").partition("## When it does not work")[2]
    rows = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| `")]
    assert rows
    messages = [m for row in rows for m in re.findall("`([^`]+)`", row) if not THEIRS.search(m)]
    code = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "mlp_xp").rglob("*.py"))
    code = re.sub(r'"\s*\n\s*f?"', "", code)  # Join adjacent string literals.
    # These words are inserted at run time, so they match any word.
    filled = "'cupy'|cupy|torch|jax|'cpu'|bfloat16"
    patterns = {message: re.sub(filled, r"\\S+", re.escape(message)) for message in messages}
    assert [m for m, pattern in patterns.items() if not re.search(pattern, code)] == []


PAGE = ROOT / "docs" / "migrate.md"
MIGRATED_FROM = ("scikit-learn", "skorch", "Keras")
ACCURACY = 0.93  # On 450 test images; all six blocks reach at least 0.95.


def blocks(peer):
    part = PAGE.read_text().split(f"\n## From {peer}\n")[1].split("\n## ")[0]
    return re.findall(r"^```python\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL)


def accuracy_of(code, tmp_path, *options):
    """Run a block in a separate process, because Keras selects its backend when it is imported."""
    script = tmp_path / "block.py"
    script.write_text(f"{code}\nprint(float(accuracy))\n")
    environment = os.environ | {"KERAS_BACKEND": "torch", "KERAS_HOME": str(tmp_path / "keras")}
    environment |= {"OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    settings = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True}
    done = subprocess.run([sys.executable, *options, str(script)], timeout=PATIENCE, **settings)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


def test_migration_page_shows_code_before_and_after_for_each_library():
    text = PAGE.read_text()
    assert re.findall("^## From (.*)$", text, flags=re.MULTILINE) == list(MIGRATED_FROM)
    for peer in MIGRATED_FROM:
        before, after = blocks(peer)
        assert "mlp_xp" not in before
        assert "from mlp_xp import" in after
    assert text.count("```") == 4 * len(MIGRATED_FROM), "a block that no test runs"


def test_documented_differences_from_scikit_learn_have_a_reason():
    differences, inside = PAGE.read_text().split("\n### ")[1:3]
    for part in differences, inside.split("\n## ")[0]:
        lines = [line.strip("|") for line in part.splitlines() if line.startswith("|")]
        names, _, *rows = [[cell.strip() for cell in line.split(" | ")] for line in lines]
        assert [name.split()[0] for name in names[1:]] == ["scikit-learn", "mlp_xp", "reason"]
        assert rows
        assert all(len(row) == 4 and all(row) for row in rows), rows


def test_migration_guide_states_the_number_of_parameters():
    counts = [
        len(kind().get_params()) for kind in (neural_network.MLPClassifier, MLP, MLPRegressor)
    ]
    row = "| {} entries, for the classifier | {} entries for the classifier, {} for the regressor |"
    assert row.format(*counts) in PAGE.read_text(encoding="utf-8")


@pytest.mark.matrix
@pytest.mark.parametrize("peer", MIGRATED_FROM)
@pytest.mark.parametrize("when", ["before", "after"])
def test_migration_examples_reach_the_stated_accuracy(when, peer, tmp_path):
    if when == "before" and peer != "scikit-learn":
        pytest.importorskip("torch")
        # Importing Keras would load its default backend.
        if importlib.util.find_spec(peer.lower()) is None:
            pytest.skip(f"{peer} is not installed")
    options = ["-W", "error"] * (when == "after")
    assert accuracy_of(blocks(peer)[when == "after"], tmp_path, *options) > ACCURACY

"""Docstrings, comments, messages and pages use the words of the field and American spelling."""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

pytestmark = pytest.mark.matrix

ROOT = Path(__file__).parent.parent
MODULES = sorted([*(ROOT / "mlp_xp").rglob("*.py"), *(ROOT / "bench").rglob("*.py")])
TESTS = sorted({*(ROOT / "tests").rglob("*.py")} - {Path(__file__)})
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "bench" / "README.md"]

# A function's docstring begins with one of these. If none of them fits, add a plain verb.
VERBS = set(
    """
    Accumulate Add Advance Align Allocate Append Apply Ask Assert Assign Average Broadcast Build
    Cache Calibrate Call Capture Cast Check Choose Clear Clip Close Collect Combine Compare Compile
    Compute Concatenate Configure Continue Convert Copy Count Create Decide Decode Delay Delete
    Describe Detect Disable Discard Divide Download Draw Drop Embed Emit Enable Encode Ensure Escape
    Estimate Evaluate Execute Exit Expand Export Extract Fetch Fill Find Fit Flatten Flip Flush
    Format Freeze Fuse Gather Generate Get Hash Ignore Implement Import Increase Initialize Install
    Interpolate Invert Iterate Join Launch Limit List Load Locate Lock Log Map Mark Measure Merge
    Minimize Mix Move Multiply Normalize Open Pack Pad Parse Permute Pickle Plot Predict Prepare
    Print Process Publish Raise Read Record Reduce Register Release Remove Rename Render Repeat
    Replace Report Request Reset Reshape Resize Resolve Restore Resume Return Reuse Reverse Round
    Run Sample Save Scale Schedule Score Select Send Set Shard Shift Show Shuffle Simulate Skip
    Sleep Solve Sort Split Start Stop Store Stream Subtract Sum Swap Synchronize Test Time Trace
    Track Train Transform Transpose Truncate Try Undo Unpack Unpickle Update Upload Validate Verify
    Visit Wait Wake Warn Whether Wrap Write Yield
    """.split()  # noqa: SIM905
)
# Docstrings of classes, properties and modules are noun phrases, so they begin with none of these.
NO_NOUNS = set(
    """
    As Bring Brings Do Does Give Gives How Leave Leaves Let Lets Look Looks Make Makes Of Refuse
    Refuses Say Says Show Shows Some Take Takes Tell Tells What Where Which Who
    """.split()  # noqa: SIM905
)
BANNED = re.compile(
    r"""\b(?:
    # Private language: say after, at most, failed, released, reported, instead of, thread pool.
    behind | at\s+the\s+most | in\s+vain | let(?:s|ting)?\s+go\s+of
    | (?:is|are|was|were)\s+told | told\s+of | in\s+the\s+place\s+of
    | that\s+(?:it\s+is|they\s+are)\s+to | (?:a|the)\s+team
    # British spelling.
    | (?:un|re|de)?(?:
        (?:categor|equal|factor|final|general|initial|local|material|maxim|memor|minim|normal|optim|organ|parallel
           |penal|quant|random|real|recogn|regular|serial|special|standard|summar|symbol|synchron|token|util|vector
           |visual)is(?:e[drs]?|ing|ations?)
        | (?:behavi|col|fav|flav|hon|lab|neighb)our\w*
        | (?:analys|catalys|paralys)(?:e[ds]?|ing)
        | (?<!churn-)(?:cancel|label|level|model|signal|travel)l(?:ed|ing)
        | artefacts? | centred? | centres | fulfil | grey(?:scale)? | judgement | licence | metre
        | programme | whilst
    )
    )\b""",
    re.VERBOSE | re.IGNORECASE,
)

# Names whose meaning is not clear without their file.
BANNED_NAMES = re.findall(
    r"\w+", "before begun do each find full many moves of rest same show through words"
)


def wrong_first_word(node):
    """Return the first word of a docstring if the rules above forbid it."""
    if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
        return None
    words = re.findall(r"[^\s:,.;]+", ast.get_docstring(node) or "")
    if not words:
        return None
    decorators = [ast.unparse(decorator) for decorator in getattr(node, "decorator_list", [])]
    if isinstance(node, ast.FunctionDef) and not any("property" in name for name in decorators):
        return None if words[0] in VERBS else words[0]
    return words[0] if words[0] in NO_NOUNS else None


def prose(path):
    """Return a page, or a module's comments and strings, each with its line number."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        return [(1, text)]
    return [
        (token.start[0], token.string)
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if tokenize.tok_name[token.type] in {"COMMENT", "STRING", "FSTRING_MIDDLE"}
    ]


def places(found):
    return "\n".join(f"{path.relative_to(ROOT)}:{line}: {word!r}" for path, line, word in found)


def test_docstrings_begin_with_a_verb_of_the_field_or_a_noun():
    found = [
        (path, getattr(node, "lineno", 1), word)
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if (word := wrong_first_word(node))
    ]
    assert not found, places(found)


def test_no_banned_phrase_and_no_british_spelling():
    found = [
        (path, line + text[: match.start()].count("\n"), match.group())
        for path in [*MODULES, *TESTS, *PAGES]
        for line, text in prose(path)
        for match in BANNED.finditer(text)
    ]
    assert not found, places(found)


def defined_names(path):
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.append((node.lineno, node.name))
        elif isinstance(node, ast.arg):
            found.append((node.lineno, node.arg))
        elif isinstance(getattr(node, "ctx", None), ast.Store):
            name = getattr(node, "id", None) or getattr(node, "attr", "")
            found.append((node.lineno, name))
    return [(line, name.strip("_")) for line, name in found]


def test_names_say_what_they_hold():
    found = [
        (path, line, name)
        for path in (ROOT / "mlp_xp").rglob("*.py")
        for line, name in defined_names(path)
        if name in BANNED_NAMES
    ]
    assert not found, places(found)

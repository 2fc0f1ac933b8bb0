"""The rules for functions and for English that CONTRIBUTING states, checked on the source."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("tumorbatch", "preprocess", "train", "infer")
MODULES = [path for name in FOLDERS for path in sorted((ROOT / name).rglob("*.py"))]
TEXTS = [
    *MODULES,
    *(ROOT / name for name in ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "tumorbatch" / "report").glob("*.jinja")),
]

# First words of docstrings that are verbs in the imperative. Add a verb when a new one is needed.
_VERBS = """
    Add Analyse Append Apply Ask Assign Associate Begin Block Bootstrap Bring Build Calculate
    Calibrate Catch Change Check Choose Classify Clear Close Collect Combine Compare Compile
    Compress Compute Convert Count Create Cross Cut Decide Decode Delay Delete Describe Divide
    Do Download Draw Embed Encode End Enter Equalise Escape Estimate Evaluate Examine Exchange
    Explain Export Fetch Fill Filter Find Finish Fit Follow Format Free Freeze Generate Give
    Group Hash Hold Ignore Import Index Inflate Initialise Interrupt Invert Keep Label Leave Let
    List Load Lock Log Look Make Map Mark Match Measure Merge Move Name Normalise Number Open
    Pad Pair Parse Pass Plot Predict Prepare Print Process Propose Publish Put Raise Read
    Rebuild Recompute Record Reduce Refuse Register Release Remove Rename Render Renumber
    Replace Report Resample Reserve Reset Resize Resolve Restart Restore Return Round Run Sample
    Save Say Scale Score Search Select Send Serialise Set Shorten Show Shrink Silence Skip Sort
    Split Start Stop Store Stretch Summarise Suppress Swap Take Test Time Train Transform Try
    Turn Undo Unpack Update Use Validate Verify Wait Warn Weigh Withhold Write Yield
"""
VERBS = frozenset(_VERBS.split())
# Words of the old private dialect, and what to write instead.
PHRASES = {
    r"\bhangs? on\b": "depends on",
    r"\bat least nearly\b": "identical or nearly identical",
    r"\bis told\b": "is printed, is formatted",
    r"\bare told\b": "are printed, are formatted",
    r"\bflatters?\b": "is too optimistic",
    r"\bno (second )?attempt will mend\b": "cannot be fixed by",
    r"\bDo simple baselines reach as much\b": "Next: compare with simple baselines",
    r"\bsays its cost first\b": "print their cost and ask first",
    r"\bno count\b": "not a whole number",
    r"\bfor want of\b": "for lack of, because there is no",
    r"\b(is|are|was|were) passed over\b": "is skipped, is ignored",
    r"\bgo(es)? on\b": "continues",
    r"\bto the eye\b": "visibly",
    r"\bsome \d[\d.,]* ?%": "about",
    r"\b(a|an|the) (\w+ )?\w+ of its own\b": "its own ...",
    r"\bwhoever (has|tries|had)\b": "anyone who",
    r"\bleans? upwards\b": "is biased upwards",
    r"\ball the same\b": "nevertheless, or: equal",
    r"\bat hand\b": "available",
    r"\bthe very (same|ones?)\b": "the same",
    r"\b(?<!there )(is|are|was|were) no (bug|bundle|error|fault|images|evaluation)\b": "is not a",
    r"\bis costly\b": "takes long, needs much",
    r"\bwhat tells\b": "which shows",
}


def _functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.name}", node


def _body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Count the lines below signature and docstring."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    return (function.end_lineno or 0) - body[0].lineno + 1 if body else 0


def test_docstrings_of_functions_open_with_a_verb() -> None:
    first = {
        f"{name}:{node.lineno}": re.split(r"\W", docstring, maxsplit=1)[0]
        for name, node in _functions()
        if (docstring := ast.get_docstring(node))
    }
    others = {name: word for name, word in first.items() if word not in VERBS}
    assert len(others) <= 0.03 * len(first), others


def test_functions_have_at_most_60_lines() -> None:
    assert {name: lines for name, node in _functions() if (lines := _body_lines(node)) > 60} == {}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_phrase_of_the_private_dialect(path: Path) -> None:
    text = path.read_text()
    for phrase, better in PHRASES.items():
        found = re.search(phrase, text, re.IGNORECASE)
        assert found is None, f"{found[0]!r}: write {better!r}"


def test_the_architecture_is_one_screen_and_one_table() -> None:
    """What is longer belongs into docs/contracts.md or docs/decisions.md."""
    lines = (ROOT / "ARCHITECTURE.md").read_text().splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert table.count("|---|---|") == 1
    assert len(lines) - len(table) <= 30

"""Every statement of docs/semantics.md has a test of the same name in this folder.

A statement is a sentence in bold at the start of a list item.
"""

import ast
import re
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "semantics.md"


def statements() -> list[str]:
    """Return every statement of the page."""
    return re.findall(r"^- \*\*(.+?)\.\*\*", PAGE.read_text(), re.MULTILINE | re.DOTALL)


def name_of(statement: str) -> str:
    """Return the name of the test that proves it."""
    return "test_" + re.sub(r"[^a-z0-9]+", "_", statement.lower()).strip("_")


def proofs() -> set[str]:
    """Return the names of all tests on a real mount."""
    found = set()
    for path in HERE.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                found.add(node.name)
    return found


def test_every_statement_has_a_test_of_the_same_name() -> None:
    proven = proofs()
    missing = [f"{one}: {name_of(one)}" for one in statements() if name_of(one) not in proven]

    assert len(statements()) > 50
    assert missing == []


def test_every_test_of_the_semantics_is_a_statement() -> None:
    said = {name_of(one) for one in statements()}
    proven = set()
    for path in HERE.glob("test_semantics_*.py"):
        proven |= set(re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE))

    assert proven - said == set()

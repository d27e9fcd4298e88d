#!/usr/bin/env python3
"""Checks that no item of the API reference is forgotten: each one in the list has its row in the
document, and its C++ name is used by a test."""

import pathlib
import re
import sys

from source_files import ROOT, code_only

ITEMS = "tests/conformance/reference_items.txt"
DOCUMENT = "docs/reference_api.md"
TESTS = "tests/conformance"

ROW = re.compile(r"^\| `([\w:]+)` \|", re.MULTILINE)
NAME = re.compile(r"\w+(::\w+)*$")
WORD = re.compile(r"\w+")


def read_items(text):
    """[(line, name, C++ name)] of the list; the C++ name is the name unless the line gives one."""
    items = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.split("#")[0].strip()
        if line:
            name, _, spelling = (part.strip() for part in line.partition("="))
            items.append((number, name, spelling or name))
    return items


def check(root=ROOT):
    items = read_items((root / ITEMS).read_text())
    rows = set(ROW.findall((root / DOCUMENT).read_text()))
    words = set()
    for path in (root / TESTS).rglob("*.cc"):
        words.update(WORD.findall(code_only(path.read_text())))

    problems, seen = [], set()
    for number, name, spelling in items:
        where = f"{ITEMS}:{number}: "
        if not (NAME.match(name) and NAME.match(spelling)):
            problems.append(f"{where}not a name: {name}")
            continue
        if name in seen:
            problems.append(f"{where}{name} is listed twice")
        if name not in rows:
            problems.append(f"{where}{name} has no row in {DOCUMENT}")
        last = spelling.split("::")[-1]
        if last not in words:
            problems.append(f"{where}no test in {TESTS} uses {last}")
        seen.add(name)
    problems += [f"{DOCUMENT}: {name} is not in {ITEMS}" for name in sorted(rows - seen)]
    if not items:
        problems.append(f"{ITEMS}:1: the list is empty")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))

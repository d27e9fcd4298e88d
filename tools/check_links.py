#!/usr/bin/env python3
"""Checks that relative links in Markdown files lead to a file, their anchors to a heading, and names
of tests, such as `LookupTest.EndsAtTheFirstGap`, to a test."""

import pathlib
import re
import sys
import urllib.parse

from source_files import ROOT, project_files

LINK = re.compile(r"\[[^\]]*\]\(\s*<?([^)\s>]+)>?[^)]*\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
HEADING = re.compile(r"^#{1,6}\s+(.*?)\s*#*$", re.MULTILINE)
EXPLICIT_ANCHOR = re.compile(r"<a\s+(?:id|name)=\"([^\"]+)\"")
TEST = re.compile(r"^(?:TYPED_)?TEST(?:_F|_P)?\(\s*(\w+),\s*(\w+)\)", re.MULTILINE)
TEST_NAME = re.compile(r"`([A-Z]\w*\.[A-Z][a-z]?\w*)`")
FENCE = re.compile(r"^ *(```|~~~).*?^ *\1 *$", re.MULTILINE | re.DOTALL)


def blank_lines(match):
    return "\n" * match.group().count("\n")


def without_fences(text):
    return FENCE.sub(blank_lines, text)


def anchors(text):
    """The anchors GitHub gives the headings of a Markdown text."""
    text = without_fences(text)
    found = set(EXPLICIT_ANCHOR.findall(text))
    for heading in HEADING.findall(text):
        heading = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
        slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        number, unique = 0, slug
        while unique in found:
            number += 1
            unique = f"{slug}-{number}"
        found.add(unique)
    return found


def check_link(path, link):
    """Why a link is broken; None if it is not."""
    if re.match(r"[a-z][a-z0-9+.-]*:|//", link, re.IGNORECASE):
        return None
    file_name, _, anchor = urllib.parse.unquote(link).partition("#")
    target = path.parent / file_name if file_name else path
    if not target.exists():
        return f"no such file: {link}"
    if anchor and target.suffix == ".md" and anchor not in anchors(target.read_text()):
        return f"no such heading: {link}"
    return None


def tests(root):
    found = set()
    for path in project_files(root):
        if path.name.endswith("_test.cc"):
            found |= {f"{suite}.{name}" for suite, name in TEST.findall(path.read_text())}
    return found


def check(root=ROOT):
    problems = []
    known = tests(root)
    for path in project_files(root):
        if path.suffix != ".md":
            continue
        text = without_fences(path.read_text())
        for match in TEST_NAME.finditer(text):
            if match.group(1) not in known:
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{path.relative_to(root).as_posix()}:{line}: no such test: {match.group(1)}")
        text = re.sub(r"`[^`\n]*`", "", text)
        for match in LINK.finditer(text):
            reason = check_link(path, match.group(1) or match.group(2))
            if reason:
                line = text.count("\n", 0, match.start()) + 1
                problems.append(f"{path.relative_to(root).as_posix()}:{line}: {reason}")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))

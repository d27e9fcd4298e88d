#!/usr/bin/env python3
"""Checks the small rules: length of files and functions, leftovers, banned calls, whitespace."""

import ast
import pathlib
import re
import sys

from source_files import CPP_SUFFIXES, ROOT, code_only, project_files

MAX_FILE_LINES = 600
MAX_FUNCTION_LINES = 70
LONG_FILE = re.compile(r"^(//|#) Long file: \S", re.MULTILINE)
LONG_FUNCTION = re.compile(r"(//|#) Long function: \S")

TEXT_SUFFIXES = CPP_SUFFIXES | {".py", ".sh", ".md", ".cmake", ".txt", ".json", ".in", ".yml"}
# Brackets, so that this line is not a finding itself.
LEFTOVER = re.compile(r"\b(T[O]DO|F[I]XME|X[X]X|H[A]CK)\b")


def is_test(name):
    return name.startswith("tests/") or name.endswith("_test.cc")


# (which files, what, what to do instead). Looked for in code, not in comments or literals.
BANNED = [
    (lambda name: name.startswith("src/"),
     re.compile(r"\bstd::c(out|err|log)\b|\b(printf|puts)\s*\("),
     "the library does not print: return an Error"),
    # Output on stderr just before abort() is the one print a library may make.
    (lambda name: name.startswith("src/"),
     re.compile(r"\bfprintf\s*\(\s*(?!stderr\b)"),
     "the library does not print: return an Error"),
    (is_test, re.compile(r"\b(sleep_for|sleep_until|usleep|nanosleep)\b"),
     "a test does not sleep: use a gate, a counter or a fake clock"),
    (lambda name: name.startswith("src/logical/"), re.compile(r"\bstd::function\b"),
     "hot paths take a template parameter or a function pointer"),
]

NOT_A_FUNCTION = re.compile(r"(class|struct|enum|union|namespace|extern)\b")
TEMPLATE = re.compile(r"template\s*<[^{;]*?>\s*(?=class|struct|enum|union)")


def cpp_functions(code):
    """(first line, last line) of every outermost function body. A heuristic: a block is a function
    if the text before its brace has a parameter list and does not declare a type or namespace."""
    code = re.sub(r"^[ \t]*#(?:.*\\\n)*.*$", lambda m: "\n" * m.group().count("\n"), code,
                  flags=re.MULTILINE)
    found, depth, function_depth, head, line, start = [], 0, None, "", 1, 0
    for char in code:
        if char == "\n":
            line += 1
        if char == "{":
            depth += 1
            head = TEMPLATE.sub("", head.strip())
            if function_depth is None and "(" in head and not NOT_A_FUNCTION.match(head):
                function_depth, start = depth, line
        elif char == "}":
            if depth == function_depth:
                found.append((start, line))
                function_depth = None
            depth -= 1
        head = "" if char in "{};" else head + char
    return found


def python_functions(text):
    return [(node.lineno, node.end_lineno) for node in ast.walk(ast.parse(text))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def check_lengths(name, text, functions):
    lines = text.splitlines()
    if len(lines) > MAX_FILE_LINES and not LONG_FILE.search(text):
        yield 1, (f"{len(lines)} lines, more than {MAX_FILE_LINES}: split it, or say why not in a "
                  "line 'Long file: <reason>'")
    for first, last in functions:
        length = last - first + 1
        # The reason may stand above the function or in it.
        nearby = "\n".join(lines[max(0, first - 10):last])
        if length > MAX_FUNCTION_LINES and not LONG_FUNCTION.search(nearby):
            yield first, (f"a function of {length} lines, more than {MAX_FUNCTION_LINES}: split it, "
                          "or say why not in a line 'Long function: <reason>'")


def check_whitespace(name, text):
    for number, line in enumerate(text.splitlines(), 1):
        if "\t" in line and not name.endswith("Makefile"):
            yield number, "a tab: use spaces"
        if line != line.rstrip():
            yield number, "trailing whitespace"
        if LEFTOVER.search(line):
            yield number, f"{LEFTOVER.search(line).group()}: finish it or describe the limit"
    if text and not text.endswith("\n"):
        yield text.count("\n") + 1, "no newline at the end of the file"


def check_banned(name, code):
    for applies, pattern, advice in BANNED:
        if applies(name):
            for match in pattern.finditer(code):
                what = match.group().rstrip("( ")
                yield code.count("\n", 0, match.start()) + 1, f"{what}: {advice}"


def check_file(name, text):
    findings = list(check_whitespace(name, text))
    if name.endswith((".h", ".cc")):
        code = code_only(text)
        findings += check_lengths(name, text, cpp_functions(code))
        findings += check_banned(name, code)
    elif name.endswith(".py"):
        findings += check_lengths(name, text, python_functions(text))
    elif not name.endswith((".md", ".json")):
        findings += check_lengths(name, text, [])
    return [f"{name}:{number}: {what}" for number, what in sorted(findings)]


def is_text(path):
    if path.suffix:
        return path.suffix in TEXT_SUFFIXES
    return path.name != "LICENSE"


def check(root=ROOT):
    problems = []
    for path in project_files(root):
        if is_text(path):
            problems += check_file(path.relative_to(root).as_posix(), path.read_text())
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))

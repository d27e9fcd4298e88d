#!/usr/bin/env python3
"""Writes the C++ program in a Markdown file to a source file: extract_readme.py README.md out.cc

The program is the one ```cpp block with a main(). A #line directive makes the compiler report
errors at their place in the Markdown file.
"""

import pathlib
import re
import sys


def extract(text, name):
    programs = []
    for match in re.finditer(r"^```cpp\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        if re.search(r"\bint main\(", match.group(1)):
            line = text.count("\n", 0, match.start(1)) + 1
            programs.append(f'#line {line} "{name}"\n{match.group(1)}')
    if len(programs) != 1:
        sys.exit(f"{name}: expected one ```cpp block with a main(), found {len(programs)}")
    return programs[0]


def main():
    source, target = sys.argv[1:]
    pathlib.Path(target).write_text(extract(pathlib.Path(source).read_text(), source))


if __name__ == "__main__":
    main()

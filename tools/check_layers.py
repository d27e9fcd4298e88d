#!/usr/bin/env python3
"""Checks every #include against the LAYERS file."""

import pathlib
import re
import sys

from source_files import CPP_SUFFIXES, ROOT, project_files

# Third-party headers and the layers that may include them. None may appear in a public header.
TESTS = "tests"  # stands for *_test.cc and test_*.h of every layer
THIRD_PARTY = [
    (r"liburing", ["platform", "benchmarks"]),
    (r"nixl|cuda", ["platform", "physical/transfer"]),
    (r"xxhash\.h", ["base", "logical/tokens", "physical/transfer"]),
    (r"openssl/", ["logical/tokens", "remote", "benchmarks"]),
    (r"boost/", ["logical", "tiers", "benchmarks"]),
    (r"CLI/|fmt/|nlohmann/|toml\+\+/", ["apps", "benchmarks"]),
    (r"gtest/|gmock/", [TESTS]),
]
# Headers of the C and C++ libraries, the compiler and the operating system.
STANDARD = re.compile(r"[a-z_0-9]+$")
SYSTEM = re.compile(r"(sys|linux|asm|bits|arpa|net|netinet)/|[a-z_0-9]+\.h$")
ROOT_FOLDERS = ("apps/", "benchmarks/")  # included relative to the root
INCLUDE = re.compile(r'\s*#\s*include\s*([<"])([^>"]+)[>"]')


class Layers:
    """The parsed LAYERS file. Mistakes in the file itself are in `problems`."""

    def __init__(self, root):
        self.visible = {}  # layer -> the layers it may see
        self.owner = {}  # path of a public header -> its layer
        self.problems = []
        for number, line in enumerate((root / "LAYERS").read_text().splitlines(), 1):
            line = line.split("#")[0].strip()
            if "=" in line:
                header, layer = (part.strip() for part in line.split("=", 1))
                self.owner[header] = layer
                if layer not in self.visible:
                    self._problem(number, f"no such layer: {layer}")
                if not (root / header).is_file():
                    self._problem(number, f"no such header: {header}")
            elif line:
                layer, seen = (part.strip() for part in line.split(":", 1))
                for name in seen.split():
                    if name != "public" and name not in self.visible:
                        self._problem(number, f"layer {layer} names {name}, which is not below it")
                self.visible[layer] = seen.split()

    def _problem(self, number, text):
        self.problems.append(f"LAYERS:{number}: {text}")

    def of(self, path):
        """The layer that owns a file, given relative to the root; None if there is none."""
        if path.startswith("include/"):
            return self.owner.get(path)
        folder = path.removeprefix("src/")
        owners = [layer for layer in self.visible if folder.startswith(layer + "/")]
        return max(owners, key=len, default=None)


def resolve(header, root):
    """Where a header of ours lives, relative to the root; None if it is not ours."""
    for place in ("include/", "src/", ""):
        prefixes = {"": ROOT_FOLDERS, "include/": "kvbm/", "src/": ""}[place]
        if header.startswith(prefixes):
            if (root / place / header).is_file():
                return place + header
    return None


def in_layers(layer, allowed, is_test):
    return any(layer == name or layer.startswith(name + "/") or (name == TESTS and is_test)
               for name in allowed)


def refuse_foreign(layer, header, is_public, is_test):
    """Why this file may not include a header that is not ours; None if it may."""
    if STANDARD.match(header):
        return None
    if is_public:
        return f"a public header may include only the standard library and kvbm/: {header}"
    for pattern, allowed in THIRD_PARTY:
        if re.match(pattern, header):
            if in_layers(layer, allowed, is_test):
                return None
            return f"layer {layer} may not see {header}: only {', '.join(allowed)} may"
    if SYSTEM.match(header):
        return None
    return f"unknown header {header}: add its library to THIRD_PARTY in tools/check_layers.py"


def refuse(layers, layer, line, root, is_public, is_test):
    """Why this #include line is wrong; None if it is right."""
    quote, header = INCLUDE.match(line).groups()
    target = resolve(header, root)
    if target is None:
        if quote == '"' or header.startswith("kvbm/"):
            return f"no such header, relative to include/, src/ or the root: {header}"
        return refuse_foreign(layer, header, is_public, is_test)
    if is_public and not target.startswith("include/"):
        return f"a public header may include only the standard library and kvbm/: {header}"
    target_layer = layers.of(target)
    if target_layer in (None, layer) or target_layer in layers.visible[layer]:
        return None  # an unowned header is reported once, at the header
    if "public" in layers.visible[layer] and target.startswith("include/"):
        return None
    return f"layer {layer} may not see {target_layer}: {header}"


def check(root=ROOT):
    layers = Layers(root)
    problems = list(layers.problems)
    for path in project_files(root):
        name = path.relative_to(root).as_posix()
        if not name.startswith(("include/", "src/", *ROOT_FOLDERS)) or path.suffix not in CPP_SUFFIXES:
            continue
        layer = layers.of(name)
        if layer not in layers.visible:
            problems.append(f"{name}:1: no layer owns this file: add it to LAYERS")
            continue
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if INCLUDE.match(line):
                reason = refuse(layers, layer, line, root, name.startswith("include/"),
                                name.endswith("_test.cc") or "/test_" in name)
                if reason:
                    problems.append(f"{name}:{number}: {reason}")
    return problems


if __name__ == "__main__":
    found = check(pathlib.Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT)
    print("\n".join(found), end="\n" * bool(found))
    sys.exit(bool(found))

#!/usr/bin/env python3
"""Mutation testing of src/logical: breaks one line at a time and looks whether a unit test fails.

Mutants are made by universalmutator, which `make mutants` installs. Each is compiled and tested in a
copy of the tree below build/mutants. Left out are lines that no test can or should see: comments,
literals, assertions, invariant checks, prefetches and reservations (see worth_trying()).

Exit status: 0; 1 if too few mutants were killed; 2 if the run could not begin.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import fnmatch
import json
import os
import pathlib
import queue
import random
import re
import resource
import shutil
import subprocess
import sys
import time

from source_files import ROOT, code_only

BUILD = pathlib.Path("build/mutants")
MUTATOR_PYTHON = BUILD / "venv/bin/python"
SUBJECT = "src/logical"
# -O1: mutants that change nothing mostly give the same object file. Assertions are on. Without its
# return a function does anything, even what is right.
COMPILE = [os.environ.get("CXX", "g++"), "-std=c++20", "-O1", "-D_GLIBCXX_ASSERTIONS",
           "-Werror=return-type", "-frandom-seed=0", "-Iinclude", "-Isrc", "-MMD", "-c"]
LIBRARIES = ["-lgtest_main", "-lgmock", "-lgtest", "-lcrypto", "-pthread"]
MEMORY_BYTES = 8 << 30  # for a mutant that allocates without end
LAST_TESTS = "tests/property"


def fail(message):
    print(f"mutants: {message}", file=sys.stderr)
    sys.exit(2)


@dataclasses.dataclass(frozen=True)
class Mutant:
    file: str
    line: int
    before: str
    after: str


# --- which mutants -------------------------------------------------------------------------------

GENERATE = """
import contextlib, json, sys
from universalmutator import mutator
rules = ["universal.rules", "cpp.rules", "c_like.rules"]
with contextlib.redirect_stdout(sys.stderr):
    found = [(name, line, text) for name in sys.argv[1:]
             for line, text, *_ in mutator.mutants_regexp(
                 open(name).readlines(), rules, ignorePatterns=[], ignoreStringOnly=True)]
json.dump(found, sys.stdout)
"""

# Lines that check or hint: a program that works does the same without them.
NO_BEHAVIOUR = re.compile(
    r"\b(assert|static_assert|require|policy_check|fprintf|abort|\w*prefetch\w*|reserve)\b")
CHECKING_FUNCTION = re.compile(r"^( *)\S.*\b(check_invariants|is_consistent)\(.*\{$")
# An operator between two operands stands between two spaces; others belong to a type.
PART_OF_A_TYPE = re.compile(r"(?<![ <>&])[<>&*][=<>!|]*|[<>&*][=<>!|]*(?![ =<>!|&])")
NUMBER = re.compile(r"\b\d[\w']*")
NAME = re.compile(r"\b[A-Za-z_]\w*")
DECLARATION = re.compile(
    r"(?!(return|delete|else)\b)[\w:<>,&* ]+ [&*]?\w+( =|;|\(|\{)|.*\b(const|noexcept|override);$")
FUNCTION_HEAD = re.compile(r"(?!(return|else)\b)[\w:<>,&* ]+ [&*]?[\w:]+\(")
NEW_NAMES = {"min", "max", "begin", "end", "if", "all_of", "any_of", "none_of", "break", "continue"}


def checking_lines(lines):
    """Numbers of the lines in functions that check invariants."""
    found, end = set(), None
    for number, line in enumerate(lines, 1):
        if end is None and (match := CHECKING_FUNCTION.match(line)):
            end = match.group(1) + "}"
        if end is not None:
            found.add(number)
            if line == end:
                end = None
    return found


def brackets(code):
    """What must stay for a line to compile."""
    return [code.count("(") - code.count(")"), code.count("[") - code.count("]"), code.count("{"),
            code.count("}")]


def may_compile(before, after):
    if brackets(before) != brackets(after) or re.search(r"\( ?,|, ?\)", after):
        return False
    # Half of ++ or --.
    if not set(re.findall(r"[-+*/%]{2,}", after)) <= {"++", "--"}:
        return False
    if not after:
        return before.endswith(";") and not DECLARATION.match(before)
    # Parameters of a function that changed places.
    if FUNCTION_HEAD.match(before) and sorted(before.replace(" ", "")) == sorted(
            after.replace(" ", "")):
        return False
    # A number that was changed inside a name or another number, such as uint32_t or 0xff.
    new_names = set(NAME.findall(after)) - set(NAME.findall(before))
    new_numbers = set(NUMBER.findall(after)) - set(NUMBER.findall(before))
    if not new_names <= NEW_NAMES or not new_numbers <= {"0", "1"}:
        return False
    return PART_OF_A_TYPE.findall(before) == PART_OF_A_TYPE.findall(after)


def worth_trying(before, after):
    """Whether a mutant of a line changes code, may compile, and is not in a check or hint."""
    before, after = (" ".join(code_only(line).split()) for line in (before, after))
    if before == after or before.startswith("#") or NO_BEHAVIOUR.search(before):
        return False
    return may_compile(before, after)


def subjects(root, pattern):
    files = sorted(path.relative_to(root).as_posix() for suffix in ("h", "cc")
                   for path in (root / SUBJECT).rglob("*." + suffix))
    return [name for name in files if fnmatch.fnmatch(name, pattern)
            and not re.search(r"(_test\.cc|_invariants\.cc|/test_\w+\.h|/check\.h)$", name)]


def generate(root, files):
    if not (root / MUTATOR_PYTHON).exists():
        fail(f"{MUTATOR_PYTHON} is missing: run `make mutants`, which installs it")
    output = subprocess.run([root / MUTATOR_PYTHON, "-c", GENERATE, *files], cwd=root, check=True,
                            text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    lines = {name: (root / name).read_text().splitlines() for name in files}
    skipped = {name: checking_lines(text) for name, text in lines.items()}
    return [Mutant(name, line, lines[name][line - 1], text.rstrip("\n"))
            for name, line, text in json.loads(output)
            if line not in skipped[name] and text.count("\n") == 1
            and worth_trying(lines[name][line - 1], text.rstrip("\n"))]


def in_random_order(mutants, rng):
    """One mutant of each line first, in random order; then a second one of each line, and so on."""
    by_line = collections.defaultdict(list)
    for mutant in mutants:
        by_line[mutant.file, mutant.line].append(mutant)
    ordered = []
    for of_line in by_line.values():
        rng.shuffle(of_line)
        ordered += [(turn, rng.random(), mutant) for turn, mutant in enumerate(of_line)]
    return [mutant for *_, mutant in sorted(ordered, key=lambda entry: entry[:2])]


# --- building and testing ------------------------------------------------------------------------


def read_layers(text):
    """{layer: the layers that it stands on, itself the last} from LAYERS."""
    layers = {}
    for layer, visible in re.findall(r"^([a-z/]+):(.*)$", text, re.MULTILINE):
        below = dict.fromkeys(name for seen in visible.split() for name in layers.get(seen, []))
        layers[layer] = [*below, layer]
    return layers


def test_programs(root):
    """{program: its .cc files}: the unit tests of each layer, then the property tests."""
    layers = {layer: below for layer, below in read_layers((root / "LAYERS").read_text()).items()
              if layer.startswith("logical/")}

    def sources(wanted):
        return [path.relative_to(root).as_posix() for layer in wanted
                for path in sorted((root / "src" / layer).rglob("*.cc"))
                if not path.stem.endswith("_test")]

    programs = {}
    for layer, below in layers.items():
        tests = [path.relative_to(root).as_posix()
                 for path in sorted((root / "src" / layer).rglob("*_test.cc"))
                 if not path.stem.endswith("_stress_test")]
        if tests:
            programs["src/" + layer] = tests + sources(below)
    everything = dict.fromkeys(name for below in layers.values() for name in below)
    programs[LAST_TESTS] = [path.relative_to(root).as_posix()
                            for path in sorted((root / LAST_TESTS).glob("*.cc"))]
    programs[LAST_TESTS] += sources(everything)
    return programs


def in_killing_order(programs, file):
    """The tests beside the file first, then those above it, the property tests last."""
    return sorted(programs, key=lambda name: (not file.startswith(name + "/"), name == LAST_TESTS))


def linker_option():
    for linker in ("mold", "lld", "gold"):
        if shutil.which("ld." + linker) or shutil.which(linker):
            return [f"-fuse-ld={linker}"]
    return []


class Tests:
    """The test programs, built once without a mutant, and the trees that mutants are tried in."""

    def __init__(self, root, jobs, without):
        self.base = root / BUILD / "base"
        self.programs = test_programs(root)
        for name in without:
            if self.programs.pop(name, None) is None:
                fail(f"no test program {name!r}; there are " + ", ".join(self.programs))
        self.trees = queue.SimpleQueue()
        self.link_with = linker_option()
        for job in range(jobs):
            tree = root / BUILD / f"tree{job}"
            shutil.rmtree(tree, ignore_errors=True)
            for folder in ("include", "src", LAST_TESTS):
                shutil.copytree(root / folder, tree / folder)
            self.trees.put(tree)
        shutil.rmtree(self.base, ignore_errors=True)
        self.dependencies = {}
        self.seconds = {}

    def compile(self, tree, unit, target):
        """Whether `unit` compiles; the object file is target/unit.o."""
        target = target / (unit + ".o")
        target.parent.mkdir(parents=True, exist_ok=True)
        return subprocess.run([*COMPILE, unit, "-o", target], cwd=tree,
                              capture_output=True).returncode == 0

    def link(self, name, changed, target):
        """Whether target/program links, from the objects in `target` for `changed` units."""
        objects = [(target if unit in changed else self.base) / (unit + ".o")
                   for unit in self.programs[name]]
        return subprocess.run([COMPILE[0], *self.link_with, *objects, *LIBRARIES, "-o",
                               target / "program"], capture_output=True).returncode == 0

    def failure(self, target, limit_s):
        """Runs target/program. Returns the end of its output if it fails, else None."""
        environment = dict(os.environ, GTEST_FAIL_FAST="1", GTEST_BRIEF="1", KVBM_SEED="1",
                           KVBM_OPERATIONS="20000")

        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

        try:
            done = subprocess.run([target / "program"], cwd=target, env=environment, timeout=limit_s,
                                  preexec_fn=limit, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        except subprocess.TimeoutExpired:
            return "timeout"
        return done.stdout.decode(errors="replace")[-2000:] if done.returncode != 0 else None

    def prepare(self, pool):
        """Builds everything without a mutant. Returns what fails."""
        tree = self.trees.get()
        units = sorted({unit for units in self.programs.values() for unit in units})
        built = list(pool.map(lambda unit: self.compile(tree, unit, self.base), units))
        if not all(built):
            return [f"{unit} does not compile" for unit, good in zip(units, built) if not good]
        for unit in units:
            listed = (self.base / (unit + ".d")).read_text().replace("\\\n", " ")
            self.dependencies[unit] = set(listed.split(": ", 1)[1].split())
        failed = []
        for name in self.programs:
            started = time.monotonic()
            output = (self.failure(self.base, None) if self.link(name, (), self.base)
                      else "does not link")
            if output is not None:
                failed.append(f"{name}:\n{output}")
            self.seconds[name] = time.monotonic() - started
        self.trees.put(tree)
        return failed

    def judge(self, mutant):
        """'killed', 'survived', 'did not compile' or 'equivalent'."""
        tree = self.trees.get()
        source = tree / mutant.file
        text = source.read_text()
        lines = text.splitlines(keepends=True)
        lines[mutant.line - 1] = mutant.after + "\n"
        source.write_text("".join(lines))
        target = tree / "mutant"
        try:
            return self._judge_in(tree, mutant, target)
        finally:
            source.write_text(text)
            shutil.rmtree(target, ignore_errors=True)
            self.trees.put(tree)

    def _judge_in(self, tree, mutant, target):
        changed, same = set(), set()
        for name in in_killing_order(self.programs, mutant.file):
            units = [unit for unit in self.programs[name] if mutant.file in self.dependencies[unit]]
            # Sources before tests: they tell soonest that a mutant does not compile.
            for unit in sorted(units, key=lambda unit: unit.endswith("_test.cc")):
                if unit in changed or unit in same:
                    continue
                if not self.compile(tree, unit, target):
                    return "did not compile"
                objects = [(folder / (unit + ".o")).read_bytes() for folder in (target, self.base)]
                (same if objects[0] == objects[1] else changed).add(unit)
            if not changed.intersection(units):
                continue
            if not self.link(name, changed, target):
                return "did not compile"
            if self.failure(target, 5 + 5 * self.seconds[name]) is not None:
                return "killed"
        return "survived" if changed else "equivalent"


# --- the run -------------------------------------------------------------------------------------


def report(results, wanted, seconds):
    """Prints the survivors and a table. Returns the share of killed mutants in percent."""
    for mutant, verdict in sorted(results, key=lambda result: (result[0].file, result[0].line)):
        if verdict == "survived":
            print(f"\n{mutant.file}:{mutant.line}\n-{mutant.before}\n+{mutant.after}")
    by_file = collections.defaultdict(collections.Counter)
    for mutant, verdict in results:
        by_file[mutant.file][verdict] += 1
        by_file["all"][verdict] += 1
    columns = ("killed", "survived", "equivalent", "did not compile")
    print(f"\n{'':42}" + "".join(f"{column:>17}" for column in columns))
    for name, counts in sorted(by_file.items(), key=lambda entry: (entry[0] == "all", entry[0])):
        print(f"{name:42}" + "".join(f"{counts[column]:17}" for column in columns))
    killed, survived = (by_file["all"][verdict] for verdict in ("killed", "survived"))
    if killed + survived < wanted:
        print(f"only {killed + survived} of {wanted} mutants: there are no more")
    share = 100.0 * killed / max(1, killed + survived)
    print(f"killed {killed} of {killed + survived} mutants: {share:.1f} %; "
          f"{seconds / max(1, len(results)):.1f} s for each that was tried")
    return share


def positive(text):
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def options():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=positive, default=200,
                        help="mutants to judge (default %(default)s)")
    parser.add_argument("--seed", type=int,
                        help="of the choice of mutants (default: random, printed)")
    parser.add_argument("--files", default="*", metavar="GLOB",
                        help="only these, such as 'src/logical/policy/*'")
    parser.add_argument("--without", action="append", default=[], metavar="PROGRAM",
                        help="leave out these tests, such as src/logical/pool or tests/property")
    parser.add_argument("--jobs", type=positive, default=2,
                        help="mutants at a time (default %(default)s)")
    parser.add_argument("--floor", type=float, default=85, metavar="PERCENT",
                        help="share to kill at least (default %(default)s)")
    return parser.parse_args()


def main(root=ROOT):
    chosen = options()
    seed = chosen.seed if chosen.seed is not None else random.SystemRandom().randrange(1 << 32)
    files = subjects(root, chosen.files)
    if not files:
        fail(f"no file of {SUBJECT} matches {chosen.files!r}")
    waiting = in_random_order(generate(root, files), random.Random(seed))
    print(f"{len(waiting)} mutants of {len(files)} files; seed {seed}", flush=True)

    tests = Tests(root, chosen.jobs, chosen.without)
    results = []
    with concurrent.futures.ThreadPoolExecutor(chosen.jobs) as pool:
        if failed := tests.prepare(pool):
            fail("\n".join(["these fail without any mutant", *failed]))
        started = time.monotonic()
        # Those that do not compile or change nothing are replaced. Batches, so that what is judged
        # depends on the seed alone.
        while waiting and (missing := chosen.count - sum(
                verdict in ("killed", "survived") for _, verdict in results)) > 0:
            batch, waiting = waiting[:missing], waiting[missing:]
            for mutant, verdict in zip(batch, pool.map(tests.judge, batch)):
                results.append((mutant, verdict))
                print(f"{verdict:16} {mutant.file}:{mutant.line}", flush=True)
    share = report(results, chosen.count, time.monotonic() - started)
    return int(share < chosen.floor)


if __name__ == "__main__":
    sys.exit(main())

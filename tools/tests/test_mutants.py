import unittest

import project
import mutants
from mutants import Mutant, worth_trying


class WorthTryingTest(unittest.TestCase):
    def test_operators_constants_and_statements_are(self):
        for before, after in [
                ("  if (a < b) return;", "  if (a <= b) return;"),
                ("  x = y + 1;", "  x = y - 1;"),
                ("  const int x = f(0);", "  const int x = f(1);"),
                ("  a = std::min(b, c);", "  a = std::max(b, c);"),
                ("  x &= y;", "  x |= y;"),
                ("  put(a, b);", "  put ( b,a);"),
                ("  drop(id);", "  /*drop(id);*/"),
                ("  return 1;", "  /*return 1;*/"),
                ("  size_ += n;", "  /*size_ += n;*/")]:
            self.assertTrue(worth_trying(before, after), after)

    def test_comments_and_literals_are_not(self):
        for before, after in [
                ("  f();  // 1 of them", "  f();  // 2 of them"),
                ("  // f();", "  /*// f();*/"),
                ('  return bad("1 .. 2");', '  return bad("1 .. 3");')]:
            self.assertFalse(worth_trying(before, after), after)

    def test_checks_and_hints_are_not(self):
        for before, after in [
                ("  assert(a < b);", "  assert(a > b);"),
                ("  policy_check(a == 1, x);", "  policy_check(a == 2, x);"),
                ("  index_.prefetch_cell(a + 1);", "  index_.prefetch_cell(a - 1);"),
                ("  ids.reserve(n + 1);", "  ids.reserve(n - 1);")]:
            self.assertFalse(worth_trying(before, after), after)

    def test_what_cannot_compile_is_not(self):
        for before, after in [
                ("  std::uint32_t x = f();", "  std::uint(32-1)_t x = f();"),
                ("  std::vector<int> x = f();", "  std::vector>int> x = f();"),
                ("  return static_cast<int>(x);", "  return static_cast<=int>(x);"),
                ("  ++count_;", "  +/count_;"),
                ("  return x & 0xff;", "  return x & -1xff;"),
                ("  f(g(a, b), c);", "  f(c, g(a,),b);"),
                ("  const T& x = f();", "  const T| x = f();"),
                ("  const int x = f();", "  /*const int x = f();*/"),
                ("  int size() const;", "  /*int size() const;*/"),
                ("void f(int a, int b) {", "void f (int b, int a) {"),
                ("  if (x) {", "  /*if (x) {*/"),
                ("  if (f(x, y(z))) g();", "  if (f(y(z, x))));")]:
            self.assertFalse(worth_trying(before, after), after)


class ChoiceTest(unittest.TestCase):
    def test_functions_that_check_invariants_are_left_out(self):
        lines = ["void f() {", "}", "void A::check_invariants() const {", "  if (x) {", "  }", "}",
                 "void g() {", "}"]
        self.assertEqual(mutants.checking_lines(lines), {3, 4, 5, 6})

    def test_each_line_comes_once_before_any_comes_twice(self):
        found = [Mutant("a.cc", line, "", str(i)) for line in range(20) for i in range(3)]
        order = mutants.in_random_order(found, mutants.random.Random(1))
        self.assertEqual({mutant.line for mutant in order[:20]}, set(range(20)))
        self.assertEqual({mutant.line for mutant in order[20:40]}, set(range(20)))
        self.assertCountEqual(order, found)
        self.assertEqual(order, mutants.in_random_order(found, mutants.random.Random(1)))


class ProgramsTest(project.ProjectTest):
    def test_a_program_has_its_tests_and_the_sources_of_the_layers_below(self):
        root = self.project({
            "LAYERS": "base:\nlogical/a: base\nlogical/b: logical/a\nphysical: logical/b\n",
            "src/base/x.cc": "", "src/logical/a/a.cc": "", "src/logical/a/a_test.cc": "",
            "src/logical/b/b.cc": "", "src/logical/b/b_test.cc": "",
            "src/logical/b/b_stress_test.cc": "", "src/physical/p.cc": "",
            "tests/property/p_test.cc": ""})
        self.assertEqual(mutants.test_programs(root), {
            "src/logical/a": ["src/logical/a/a_test.cc", "src/base/x.cc", "src/logical/a/a.cc"],
            "src/logical/b": ["src/logical/b/b_test.cc", "src/base/x.cc", "src/logical/a/a.cc",
                              "src/logical/b/b.cc"],
            "tests/property": ["tests/property/p_test.cc", "src/base/x.cc", "src/logical/a/a.cc",
                               "src/logical/b/b.cc"]})

    def test_the_tests_beside_a_file_run_first_and_the_property_tests_last(self):
        programs = ["src/logical/a", "src/logical/b", "tests/property", "src/logical/c"]
        self.assertEqual(mutants.in_killing_order(programs, "src/logical/b/b.cc"),
                         ["src/logical/b", "src/logical/a", "src/logical/c", "tests/property"])


if __name__ == "__main__":
    unittest.main()

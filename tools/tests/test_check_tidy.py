import unittest

from project import ProjectTest

import check_tidy

LONG_BODY = "  work();\n" * 80


class CheckTidyTest(ProjectTest):
    def lines(self, name, text):
        return [int(found.split(":")[1]) for found in check_tidy.check_file(name, text)]

    def test_clean_code_passes(self):
        text = ('// std::cout is only named here\nconst char* a() { return "printf("; }\n'
                'int fail() { std::fprintf(stderr, "x"); std::snprintf(b, 1, "y"); }\n')
        self.assertEqual(self.lines("src/base/x.cc", text), [])

    def test_long_files_need_a_reason(self):
        text = "int x;\n" * 601
        self.assertEqual(self.lines("src/x.cc", text), [1])
        self.assertEqual(self.lines("src/x.cc", "// Long file: a table\n" + text), [])
        self.assertEqual(self.lines("tools/x.py", "x = 1\n" * 601), [1])

    def test_long_functions_need_a_reason(self):
        for head in ("int f(int a) {", "A::A() : a_{1}, b_(2) {", "auto f() const -> int {",
                     "TEST(A, B) {", "template <class T>\nvoid f(T t) {"):
            text = f"namespace a {{\n\n{head}\n{LONG_BODY}}}\n}}\n"
            self.assertEqual(self.lines("src/x.cc", text), [3 + head.count("\n")], head)
            reasoned = text.replace("\n\n", "\n\n// Long function: one switch\n", 1)
            self.assertEqual(self.lines("src/x.cc", reasoned), [], head)
        python = "def f():\n" + "    work()\n" * 80
        self.assertEqual(self.lines("tools/x.py", python), [1])

    def test_long_types_and_tables_are_no_functions(self):
        for head in ("class A {", 'class CAPABILITY("m") A {', "template <class T>\nstruct A {",
                     "namespace {", "const int table[] = {"):
            self.assertEqual(self.lines("src/x.cc", f"{head}\n{'  int a;' * 1}\n{LONG_BODY}}};\n"),
                             [], head)

    def test_leftovers_and_whitespace_are_found(self):
        self.assertEqual(self.lines("docs/x.md", "a\n" "TO" "DO b\nc \n\td\ne"), [2, 3, 4, 5])

    def test_banned_calls_are_found(self):
        self.assertEqual(self.lines("src/base/x.cc", 'std::cout << 1;\nprintf("x");\n'), [1, 2])
        self.assertEqual(self.lines("src/logical/pool/x.h", "std::function<void()> f;\n"), [1])
        self.assertEqual(self.lines("src/base/x_test.cc", "std::this_thread::sleep_for(a);\n"), [1])
        self.assertEqual(self.lines("tests/e2e/x_test.cc", "usleep(1);\n"), [1])
        self.assertEqual(self.lines("apps/kvbm/x.cc", "std::cout << 1;\n"), [])

    def test_the_whole_project_is_searched(self):
        root = self.project({"src/a/x.cc": "int x; \n", "LICENSE": "a \n", "build/x.cc": "x \n"})
        self.assertEqual(check_tidy.check(root), ["src/a/x.cc:1: trailing whitespace"])


if __name__ == "__main__":
    unittest.main()

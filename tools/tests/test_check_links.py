import unittest

from project import ProjectTest

import check_links


class CheckLinksTest(ProjectTest):
    def test_good_links_pass(self):
        root = self.project({
            "README.md": "# A `b`: c\n[x](docs/a.md#one-two-1) [y](#a-b-c) [z](https://a.b/c)\n"
                         "`[code](none.md)`\n```\n[code](none.md)\n# no heading\n```\n[r]: docs\n",
            "docs/a.md": "## One two\n## One two\n[up](../README.md)\n"})
        self.assertEqual(check_links.check(root), [])

    def test_broken_links_are_found(self):
        root = self.project({"README.md": "# A\n[x](gone.md)\n[y](#b)\n\n[r]: none.md\n"})
        self.assertEqual(check_links.check(root), [
            "README.md:2: no such file: gone.md", "README.md:3: no such heading: #b",
            "README.md:5: no such file: none.md"])

    def test_names_of_tests_must_exist(self):
        root = self.project({
            "README.md": "`FooTest.Works` `BarTest.Is` `config.h`\n`FooTest.Gone`\n",
            "src/base/foo_test.cc": "TEST(FooTest, Works) {\nTEST_P(BarTest,\n       Is) {\n"})
        self.assertEqual(check_links.check(root), ["README.md:2: no such test: FooTest.Gone"])


if __name__ == "__main__":
    unittest.main()

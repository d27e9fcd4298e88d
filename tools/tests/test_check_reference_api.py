import unittest

from project import ProjectTest

import check_reference_api

DOCUMENT = "| reference | C++ |\n|---|---|\n| `Pool` | same |\n| `Pool::new` | `Pool::create` |\n"
ITEMS = "# names\nPool\nPool::new = Pool::create\n"
TEST = "Pool pool = Pool::create();\n"


class CheckReferenceApiTest(ProjectTest):
    def check(self, items=ITEMS, document=DOCUMENT, test=TEST):
        return check_reference_api.check(self.project({
            "tests/conformance/reference_items.txt": items,
            "docs/reference_api.md": document,
            "tests/conformance/a_test.cc": test}))

    def test_items_with_row_and_test_pass(self):
        self.assertEqual(self.check(), [])

    def test_missing_rows_and_tests_are_found(self):
        self.assertEqual(self.check(items=ITEMS + "Pool::size\n"), [
            "tests/conformance/reference_items.txt:4: Pool::size has no row in "
            "docs/reference_api.md",
            "tests/conformance/reference_items.txt:4: no test in tests/conformance uses size"])

    def test_comments_literals_and_parts_of_words_are_no_use(self):
        for test in ("Pool p; // create\n", 'Pool p("create");\n', "Pool p; recreate();\n"):
            self.assertEqual(self.check(test=test), [
                "tests/conformance/reference_items.txt:3: no test in tests/conformance uses create"])

    def test_a_row_that_is_not_listed_is_found(self):
        self.assertEqual(self.check(document=DOCUMENT + "| `Other` | same |\n"), [
            "docs/reference_api.md: Other is not in tests/conformance/reference_items.txt"])

    def test_a_broken_list_is_found(self):
        self.assertEqual(self.check(items=ITEMS + "Pool\nPool pool\n"), [
            "tests/conformance/reference_items.txt:4: Pool is listed twice",
            "tests/conformance/reference_items.txt:5: not a name: Pool pool"])


if __name__ == "__main__":
    unittest.main()

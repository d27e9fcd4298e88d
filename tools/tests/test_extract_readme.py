import unittest

from project import ProjectTest

import extract_readme


class ExtractReadmeTest(ProjectTest):
    def test_the_block_with_main_is_taken(self):
        text = "a\n```cpp\nint x;\n```\n\n```cpp\nint main() {}\n```\n```sh\nint main()\n```\n"
        self.assertEqual(extract_readme.extract(text, "R.md"), '#line 7 "R.md"\nint main() {}\n')

    def test_none_or_two_are_refused(self):
        block = "```cpp\nint main() {}\n```\n"
        for text in ("", block + block):
            with self.assertRaises(SystemExit):
                extract_readme.extract(text, "R.md")


if __name__ == "__main__":
    unittest.main()

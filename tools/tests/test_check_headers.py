import subprocess
import unittest

from project import TOOLS, ProjectTest


class CheckHeadersTest(ProjectTest):
    def run_on(self, text):
        root = self.project({"include/kvbm/x.h": "#pragma once\n" + text})
        return subprocess.run([TOOLS / "check_headers", root], capture_output=True, text=True)

    def test_a_header_that_needs_another_is_found(self):
        run = self.run_on("std::string name();\n")
        self.assertNotEqual(run.returncode, 0)
        self.assertIn("kvbm/x.h:1: does not compile alone", run.stderr)

    def test_a_complete_header_passes(self):
        self.assertEqual(self.run_on("#include <string>\nstd::string name();\n").returncode, 0)


if __name__ == "__main__":
    unittest.main()

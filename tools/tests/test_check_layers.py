import unittest

from project import ProjectTest

import check_layers

LAYERS = """\
base:
logical/pool: base
manager: base logical/pool
benchmarks: base
apps/kvbm: manager benchmarks public
include/kvbm/types.h = base
include/kvbm/manager.h = manager
"""


class CheckLayersTest(ProjectTest):
    def check(self, files, layers=LAYERS):
        return check_layers.check(self.project({
            "LAYERS": layers,
            "include/kvbm/types.h": "#include <cstdint>\n",
            "include/kvbm/manager.h": '#include "kvbm/types.h"\n',
            "src/base/mutex.h": "",
            "src/manager/impl.h": "",
            **files,
        }))

    def test_downward_includes_pass(self):
        self.assertEqual(self.check({
            "src/manager/x.cc": '#include "base/mutex.h"\n#include "kvbm/manager.h"\n',
            "src/logical/pool/x.cc": "#include <boost/a.hpp>\n#include <sys/mman.h>\n",
            "src/base/test_x.h": "#include <gtest/gtest.h>\n",
            "src/base/x_test.cc": "#include <gtest/gtest.h>\n",
            "apps/kvbm/x.cc": '#include "kvbm/types.h"\n#include <fmt/format.h>\n',
            "benchmarks/bench.h": '#include "base/mutex.h"\n#include <fmt/format.h>\n',
            "apps/kvbm/y.cc": '#include "benchmarks/bench.h"\n',
        }), [])

    def test_upward_includes_are_found(self):
        self.assertEqual(self.check({
            "src/base/x.cc": '\n#include "manager/impl.h"\n',
            "src/logical/pool/x.h": "#include <kvbm/manager.h>\n",
            "apps/kvbm/x.cc": '#include "base/mutex.h"\n',
            "benchmarks/x.cc": '#include "kvbm/manager.h"\n',
        }), [
            "apps/kvbm/x.cc:1: layer apps/kvbm may not see base: base/mutex.h",
            "benchmarks/x.cc:1: layer benchmarks may not see manager: kvbm/manager.h",
            "src/base/x.cc:2: layer base may not see manager: manager/impl.h",
            "src/logical/pool/x.h:1: layer logical/pool may not see manager: kvbm/manager.h",
        ])

    def test_third_party_headers_stay_in_their_folders(self):
        found = self.check({
            "src/base/x.cc": "#include <boost/a.hpp>\n",
            "src/manager/x.cc": "#include <liburing.h>\n#include <xxhash.h>\n#include <abc/a.h>\n",
            "src/base/y.cc": "#include <gtest/gtest.h>\n",
        })
        self.assertEqual([line.split(": ")[0] for line in found], [
            "src/base/x.cc:1", "src/base/y.cc:1", "src/manager/x.cc:1", "src/manager/x.cc:2",
            "src/manager/x.cc:3"])

    def test_public_headers_include_only_standard_and_public_headers(self):
        found = self.check({
            "include/kvbm/types.h": '#include <unistd.h>\n#include "base/mutex.h"\n'})
        self.assertEqual(len(found), 2, found)

    def test_unowned_and_missing_headers_are_found(self):
        found = self.check({
            "include/kvbm/new.h": "", "src/other/x.h": "",
            "src/base/x.cc": '#include "mutex.h"\n'})
        self.assertEqual([line.split(": ")[0] for line in found],
                         ["include/kvbm/new.h:1", "src/base/x.cc:1", "src/other/x.h:1"])

    def test_a_file_that_points_upward_or_nowhere_is_refused(self):
        found = self.check({}, LAYERS.replace("base:\n", "base: manager\n") +
                           "include/kvbm/gone.h = base\ninclude/kvbm/types.h = nothing\n")
        self.assertIn("LAYERS:1: layer base names manager, which is not below it", found)
        self.assertIn("LAYERS:8: no such header: include/kvbm/gone.h", found)
        self.assertIn("LAYERS:9: no such layer: nothing", found)


if __name__ == "__main__":
    unittest.main()

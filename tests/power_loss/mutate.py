#!/usr/bin/env python3
"""Writes a copy of a source file of the store with one fault: mutate.py <fault> <source> <target>.
A fault whose text is not in the source, or more than once, is an error."""

import pathlib
import sys

# name: (text, what becomes of it)
FAULTS = {
    "acknowledges_without_sync": (
        "    synced = store_.sync();\n",
        ""),
    "syncs_records_but_not_payloads": (
        "  KVBM_CHECK_OK(files_.blocks->sync());\n  KVBM_CHECK_OK(files_.index->sync());\n",
        "  KVBM_CHECK_OK(files_.index->sync());\n"),
    "resets_without_sync": (
        "  KVBM_CHECK_OK(write_superblock(Durable::Yes));\n"
        "  return write_superblock(Durable::Yes);\n",
        "  return {};\n"),
    "leaves_both_superblocks_unsynced": (
        "    KVBM_CHECK_OK(files_.manifest->sync());\n    place_ = place;\n  }\n",
        "    KVBM_CHECK_OK(files_.manifest->sync());\n  }\n  place_ = place;\n"),
}


def main():
    fault, source, target = sys.argv[1:]
    text = pathlib.Path(source).read_text()
    right, wrong = FAULTS[fault]
    if text.count(right) != 1:
        sys.exit(f"{source}: the text of the fault {fault} is there {text.count(right)} times")
    pathlib.Path(target).write_text(text.replace(right, wrong))


if __name__ == "__main__":
    main()

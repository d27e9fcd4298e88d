#!/bin/bash
# Compiles copying and summing for aarch64, and runs their tests in an emulator: the portable
# kernel as other CPUs get it. KVBM_QUICK makes the tests take every so many of their cases.
set -euo pipefail
cd "$(dirname "$0")/../.."

target=aarch64-linux-gnu
folder=build/cross
mkdir -p "$folder/include"
# The header alone: the system's own folder would bring the headers of this machine's C library.
cp "$(echo '#include <xxhash.h>' | g++ -E -x c++ - | grep -m1 -o '/[^"]*xxhash\.h')" "$folder/include/"

compile=("$target-g++" -std=c++20 -O2 -Wall -Wextra -Wconversion -Werror -Iinclude -Isrc
  -isystem "$folder/include" -isystem /usr/src/googletest/googletest/include)
objects=()
pids=()
finish() {
  local pid
  for pid in "${pids[@]}"; do wait "$pid"; done
  pids=()
}
build() {
  local object="$folder/$(basename "$1" .cc).o"
  objects+=("$object")
  if [ "${#pids[@]}" -ge "$(nproc)" ]; then finish; fi
  "${compile[@]}" "${@:2}" -c "$1" -o "$object" &
  pids+=($!)
}
for source in gtest-all gtest_main; do
  build "/usr/src/googletest/googletest/src/$source.cc" -I/usr/src/googletest/googletest -w
done
for source in src/physical/copy/*.cc; do build "$source"; done
finish

"$target-g++" "${objects[@]}" -pthread -o "$folder/copy_test"
KVBM_QUICK=1 qemu-aarch64 -L "/usr/$target" "$folder/copy_test" --gtest_brief=1

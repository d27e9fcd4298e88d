#!/bin/bash
# Installs kvbm to a temporary prefix, moves the prefix, and builds the consumer against it: with
# CMake and with pkg-config, from a static and from a shared library.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT

use() {
  local kind="$1" prefix="$folder/$1/moved" flags
  mv "$folder/$kind/prefix" "$prefix"

  cmake -G Ninja -S tests/consumer -B "$folder/$kind/cmake" -DCMAKE_PREFIX_PATH="$prefix" >/dev/null
  cmake --build "$folder/$kind/cmake"
  "$folder/$kind/cmake/consumer"

  # The system's folders are searched too, so make sure that it is our copy that was found.
  export PKG_CONFIG_PATH="$prefix/lib/pkgconfig"
  [ "$(pkg-config --variable=pcfiledir kvbm)" = "$PKG_CONFIG_PATH" ]
  read -r -a flags <<<"$(pkg-config --cflags --libs kvbm)"
  g++ -std=c++20 tests/consumer/main.cc -o "$folder/$kind/consumer" "${flags[@]}"
  LD_LIBRARY_PATH="$prefix/lib" "$folder/$kind/consumer"
  echo "consumer: $kind library: CMake ok, pkg-config ok"
}

make install PREFIX="$folder/static/prefix"
"$folder/static/prefix/bin/kvbm" --help >/dev/null
use static

cmake -G Ninja -S . -B build/shared -DBUILD_SHARED_LIBS=ON -DKVBM_BUILD_PROGRAM=OFF >/dev/null
cmake --build build/shared
cmake --install build/shared --prefix "$folder/shared/prefix"
use shared

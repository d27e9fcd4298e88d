# How our own code is compiled. Every target of this project links kvbm_options PRIVATE; nothing of
# it reaches a consumer. Warnings become errors through CMAKE_COMPILE_WARNING_AS_ERROR, which the
# presets set, so that a consumer's newer compiler does not break on a new warning.
add_library(kvbm_options INTERFACE)
target_compile_features(kvbm_options INTERFACE cxx_std_20)
target_compile_options(kvbm_options INTERFACE
  -Wall -Wextra -Wconversion
  $<$<CXX_COMPILER_ID:Clang>:-Wthread-safety>
  # GCC 12 sees overlapping copies in the concatenation of two strings (GCC bug 105651).
  $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)

if(KVBM_SANITIZE)
  # Global, because code with and without instrumentation in one program gives false reports.
  add_compile_options(-fsanitize=${KVBM_SANITIZE} -fno-sanitize-recover=all
                      -fno-omit-frame-pointer -g)
  add_link_options(-fsanitize=${KVBM_SANITIZE})
  # GCC's instrumentation makes it warn of members of a std::variant that are never read.
  add_compile_options($<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()

# Turns the LAYERS file into targets. In every layer folder
#   *_stress_test.cc are concurrent tests, *_test.cc are unit tests, other *.cc are sources.
# A layer without sources gets no target.

set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/LAYERS")

function(kvbm_target_name out layer)
  string(REPLACE "/" "_" name "${layer}")
  set(${out} "kvbm_${name}" PARENT_SCOPE)
endfunction()

# Splits the .cc files of a folder: <prefix>_SOURCES, <prefix>_TESTS, <prefix>_STRESS_TESTS.
function(kvbm_glob prefix folder)
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS "${folder}/*.cc")
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")
  set(stress_tests ${tests})
  list(FILTER tests EXCLUDE REGEX "_stress_test\\.cc$")
  list(FILTER stress_tests INCLUDE REGEX "_stress_test\\.cc$")
  set(${prefix}_SOURCES ${sources} PARENT_SCOPE)
  set(${prefix}_TESTS ${tests} PARENT_SCOPE)
  set(${prefix}_STRESS_TESTS ${stress_tests} PARENT_SCOPE)
endfunction()

# Puts the object files of the layers into a target.
function(kvbm_link_objects target)
  foreach(layer IN LISTS ARGN)
    kvbm_target_name(object_library "${layer}")
    if(TARGET ${object_library})
      target_sources(${target} PRIVATE $<TARGET_OBJECTS:${object_library}>)
    endif()
  endforeach()
endfunction()

# Private headers are included relative to src/; Boost, xxHash, OpenSSL and liburing stay
# out of public headers.
function(kvbm_use_private_headers target)
  target_include_directories(${target} PRIVATE "${PROJECT_SOURCE_DIR}/include"
                                               "${PROJECT_SOURCE_DIR}/src")
  target_include_directories(${target} SYSTEM PRIVATE "${KVBM_XXHASH_INCLUDE_DIR}")
  target_link_libraries(${target} PRIVATE kvbm_options Boost::headers OpenSSL::Crypto
                                          PkgConfig::liburing Threads::Threads)
endfunction()

# One OBJECT library per src/ layer. Sets, for the caller,
#   KVBM_LAYERS        the src/ layers, lowest first
#   KVBM_BELOW_<layer> everything a layer needs to link: what it may see, and what those may see
function(kvbm_add_layers)
  file(STRINGS "${PROJECT_SOURCE_DIR}/LAYERS" lines REGEX "^[a-z/]+:")
  set(layers "")
  foreach(line IN LISTS lines)
    string(REGEX MATCH "^([a-z/]+):(.*)$" matched "${line}")
    set(layer "${CMAKE_MATCH_1}")
    string(STRIP "${CMAKE_MATCH_2}" visible)
    string(REGEX REPLACE " +" ";" visible "${visible}")
    if(layer MATCHES "^(apps/|benchmarks$)")
      continue()
    endif()

    set(below "")
    foreach(seen IN LISTS visible)
      list(APPEND below ${KVBM_BELOW_${seen}} ${seen})
    endforeach()
    list(REMOVE_DUPLICATES below)
    set(KVBM_BELOW_${layer} ${below})
    set(KVBM_BELOW_${layer} ${below} PARENT_SCOPE)
    list(APPEND layers ${layer})

    kvbm_glob(layer "${PROJECT_SOURCE_DIR}/src/${layer}")
    if(layer_SOURCES)
      kvbm_target_name(target "${layer}")
      add_library(${target} OBJECT ${layer_SOURCES})
      kvbm_use_private_headers(${target})
    endif()
  endforeach()
  set(KVBM_LAYERS ${layers} PARENT_SCOPE)
endfunction()

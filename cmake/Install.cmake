include(CMakePackageConfigHelpers)

set(package_dir "${CMAKE_INSTALL_LIBDIR}/cmake/kvbm")

install(TARGETS kvbm EXPORT kvbm)
install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/kvbm" DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}"
        FILES_MATCHING PATTERN "*.h")
if(TARGET kvbm_program)
  install(TARGETS kvbm_program)
endif()

install(EXPORT kvbm NAMESPACE kvbm:: FILE kvbmTargets.cmake DESTINATION "${package_dir}")
configure_package_config_file("${PROJECT_SOURCE_DIR}/cmake/kvbmConfig.cmake.in"
                              "${PROJECT_BINARY_DIR}/kvbmConfig.cmake"
                              INSTALL_DESTINATION "${package_dir}")
write_basic_package_version_file("${PROJECT_BINARY_DIR}/kvbmConfigVersion.cmake"
                                 COMPATIBILITY SameMinorVersion)
install(FILES "${PROJECT_BINARY_DIR}/kvbmConfig.cmake"
              "${PROJECT_BINARY_DIR}/kvbmConfigVersion.cmake"
        DESTINATION "${package_dir}")

# Relative to the .pc file, so that an installed tree can be moved and `cmake --install --prefix`
# works.
file(RELATIVE_PATH KVBM_PC_PREFIX "/usr/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/usr")
# A shared library brings its own dependency; a static one leaves it to whoever links.
set(KVBM_PC_REQUIRES "libcrypto liburing")
if(BUILD_SHARED_LIBS)
  set(KVBM_PC_REQUIRES "")
endif()
string(REGEX REPLACE "/$" "" KVBM_PC_PREFIX "${KVBM_PC_PREFIX}")
configure_file("${PROJECT_SOURCE_DIR}/cmake/kvbm.pc.in" "${PROJECT_BINARY_DIR}/kvbm.pc" @ONLY)
install(FILES "${PROJECT_BINARY_DIR}/kvbm.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")

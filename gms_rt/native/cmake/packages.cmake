# Debian packages: libgms-rt and its ABI (the library and gmsrt-trial) and libgms-rt-dev. `cpack` in the build folder.
#
# Configure as Debian does, so that packages of several architectures can be installed together:
#   cmake -DCMAKE_INSTALL_PREFIX=/usr -DCMAKE_INSTALL_LIBDIR=lib/<triplet> -DCMAKE_INSTALL_LIBEXECDIR=lib/<triplet>
set(license ${CMAKE_CURRENT_SOURCE_DIR}/../../LICENSE)
if(EXISTS ${license})
  install(FILES ${license} DESTINATION share/doc/libgms-rt${GMSRT_ABI} RENAME copyright COMPONENT runtime)
  install(FILES ${license} DESTINATION share/doc/libgms-rt-dev RENAME copyright COMPONENT development)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME gms-rt)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_CONTACT "The gms-rt authors <gms-rt@localhost>")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_COMPONENTS_ALL runtime development)
set(CPACK_STRIP_FILES ON)

set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON) # and the trigger that runs ldconfig
if(CMAKE_SYSTEM_PROCESSOR MATCHES "aarch64|arm64")
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE arm64)
elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set(CPACK_DEBIAN_PACKAGE_ARCHITECTURE amd64)
endif()
set(CPACK_DEBIAN_RUNTIME_PACKAGE_NAME libgms-rt${GMSRT_ABI})
set(CPACK_DEBIAN_RUNTIME_PACKAGE_SECTION libs)
set(CPACK_DEBIAN_RUNTIME_DESCRIPTION
    "runs fused medical segmentation graphs on a CPU or an NVIDIA GPU\nOpenVINO and the CUDA driver are opened at run time where they are. Not for\nclinical use.")
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_NAME libgms-rt-dev)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_SECTION libdevel)
set(CPACK_DEBIAN_DEVELOPMENT_PACKAGE_DEPENDS "libgms-rt${GMSRT_ABI} (= ${PROJECT_VERSION}), libc6-dev")
set(CPACK_DEBIAN_DEVELOPMENT_DESCRIPTION
    "headers and static library of libgms-rt${GMSRT_ABI}\nFor programs in C and C++ that run fused medical segmentation graphs.")

# The C library that the packages need is known when the files are there.
set(CPACK_PROJECT_CONFIG_FILE ${CMAKE_CURRENT_SOURCE_DIR}/cmake/needed_libc.cmake)
set(CPACK_GMSRT_FILES ${CMAKE_CURRENT_BINARY_DIR}/libgms_rt.so ${CMAKE_CURRENT_BINARY_DIR}/gmsrt-trial)
set(CPACK_GMSRT_OBJDUMP ${CMAKE_OBJDUMP})
include(CPack)

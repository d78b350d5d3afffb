# What `cmake --install` puts where. Everything finds everything else from where it is itself: the tree can be moved.
include(CMakePackageConfigHelpers)

set(package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/gms_rt)
set(pkgconfig_folder ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(TARGETS gms_rt EXPORT gms_rt
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT runtime NAMELINK_COMPONENT development)
install(TARGETS gms_rt_static EXPORT gms_rt ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT development)
install(TARGETS gmsrt-trial EXPORT gms_rt RUNTIME DESTINATION ${trial_folder} COMPONENT runtime)
install(FILES include/gms_rt.h include/gms_rt.hpp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT development)

install(EXPORT gms_rt NAMESPACE gms_rt:: FILE gms_rt-targets.cmake DESTINATION ${package_folder} COMPONENT development)
configure_package_config_file(cmake/gms_rt-config.cmake.in gms_rt-config.cmake INSTALL_DESTINATION ${package_folder})
write_basic_package_version_file(gms_rt-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/gms_rt-config.cmake ${CMAKE_CURRENT_BINARY_DIR}/gms_rt-config-version.cmake
        DESTINATION ${package_folder} COMPONENT development)

# Folders in the pkg-config files: from the file's own place, unless somebody asked for an absolute one.
if(IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}")
  set(pc_prefix ${CMAKE_INSTALL_PREFIX})
else()
  file(RELATIVE_PATH up /prefix/${pkgconfig_folder} /prefix)
  string(REGEX REPLACE "/$" "" up "${up}")
  set(pc_prefix "\${pcfiledir}/${up}")
endif()
foreach(folder LIBDIR INCLUDEDIR)
  if(IS_ABSOLUTE "${CMAKE_INSTALL_${folder}}")
    set(pc_${folder} ${CMAKE_INSTALL_${folder}})
  else()
    set(pc_${folder} "\${prefix}/${CMAKE_INSTALL_${folder}}")
  endif()
endforeach()
foreach(file gms_rt gms_rt-static)
  configure_file(cmake/${file}.pc.in ${file}.pc @ONLY)
  install(FILES ${CMAKE_CURRENT_BINARY_DIR}/${file}.pc DESTINATION ${pkgconfig_folder} COMPONENT development)
endforeach()

#include "nixl/nixl_api.h"

#include <dlfcn.h>
#include <link.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <utility>
#include <vector>

namespace kvbm::nixl {
namespace {

namespace fs = std::filesystem;

constexpr const char* kFile = "libnixl_capi.so";
constexpr const char* kPathVariable = "KVBM_NIXL_LIBRARY";
constexpr const char* kWheels[] = {"cu12", "cu13"};
constexpr int kFoldersAbove = 3;  // build/dev/bin/kvbm is that far below its .venv

// A variable that NIXL or UCX reads while it is loaded, or later.
struct Setting {
  const char* name;
  const char* value;
};
constexpr Setting kSettings[] = {
    // The wheel's module for EFA crashes the process when it ends, where the host has libefa.
    {"UCX_MODULES", "^efa"},
    {"UCX_WARN_UNUSED_ENV_VARS", "n"},
    // UCX logs to standard output.
    {"UCX_LOG_LEVEL", "error"},
    {"NIXL_LOG_LEVEL", "WARN"},
    // Memory that was unmapped but is still registered, which else grows without bounds.
    {"UCX_RCACHE_MAX_UNRELEASED", "1024"},
};

// Which Debian packages have what a wheel does not bring.
constexpr std::pair<const char*, const char*> kPackages[] = {
    {"libssl.so.3", "libssl3"},
    {"libcrypto.so.3", "libssl3"},
    {"libz.so.1", "zlib1g"},
    {"libstdc++.so.6", "libstdc++6"},
};

Error unusable(std::string reason) {
  return Error{ErrorCode::NixlError, 0, 0, 0, "no NIXL: " + std::move(reason)};
}

// Only files of this user or of root, for the folders above a program may belong to anybody.
bool is_ours(const fs::path& file) {
  struct stat status;
  return ::stat(file.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         (status.st_uid == 0 || status.st_uid == ::geteuid());
}

// The folders of this program and of the object that has this code.
std::vector<fs::path> own_folders() {
  std::vector<fs::path> folders;
  std::error_code ignored;
  const fs::path program = fs::read_symlink("/proc/self/exe", ignored);
  if (!program.empty()) folders.push_back(program.parent_path());
  Dl_info info;
  if (::dladdr(reinterpret_cast<const void*>(&own_folders), &info) != 0 && info.dli_fname) {
    const fs::path object = fs::canonical(info.dli_fname, ignored);
    if (!object.empty() && object != program) folders.push_back(object.parent_path());
  }
  return folders;
}

// A wheel beside this program; empty if there is none. `looked` names the folders for a message.
std::string find_beside(std::string& looked) {
  for (fs::path folder : own_folders()) {
    looked += (looked.empty() ? "" : ", ") + folder.string();
    for (int i = 0; i <= kFoldersAbove; ++i, folder = folder.parent_path()) {
      for (const fs::path& place : {folder / ".venv/nixl", folder}) {
        for (const char* wheel : kWheels) {
          const fs::path file = place / (".nixl_" + std::string(wheel) + ".mesonpy.libs") / kFile;
          if (is_ours(file)) return file.string();
        }
      }
    }
  }
  return {};
}

struct OtherUcx {
  std::string allowed;  // the folder of this NIXL's own UCX, with a slash; empty: none is known
  std::string found;
};

int look_for_ucx(dl_phdr_info* info, std::size_t, void* data) {
  auto& other = *static_cast<OtherUcx*>(data);
  const std::string_view path = info->dlpi_name ? info->dlpi_name : "";
  const std::size_t slash = path.rfind('/');
  const std::string_view name = slash == path.npos ? path : path.substr(slash + 1);
  if (!name.starts_with("libucp")) return 0;
  std::error_code ignored;
  const std::string whole = fs::weakly_canonical(fs::path(path), ignored).string();
  if (!other.allowed.empty() && whole.starts_with(other.allowed)) return 0;
  other.found = path;
  return 1;
}

// The UCX that is in this process and is not the one that the library at `path` would load.
std::string other_ucx(const std::string& path) {
  OtherUcx other;
  std::error_code ignored;
  const fs::path file = fs::weakly_canonical(path, ignored);
  for (const char* wheel : kWheels) {
    const fs::path own =
        file.parent_path().parent_path() / ("nixl_" + std::string(wheel) + ".libs");
    const std::string folder = file.parent_path().filename().string();
    if (folder.find(wheel) != folder.npos && fs::is_directory(own, ignored)) {
      other.allowed = own.string() + "/";
    }
  }
  ::dl_iterate_phdr(&look_for_ucx, &other);
  return other.found;
}

// The version that the wheel around a library says it has; empty if there is no wheel.
std::string wheel_version(const std::string& path) {
  std::error_code ignored;
  const fs::path root = fs::weakly_canonical(path, ignored).parent_path().parent_path();
  for (const fs::directory_entry& entry : fs::directory_iterator(root, ignored)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("nixl_cu") || !name.ends_with(".dist-info")) continue;
    std::ifstream metadata(entry.path() / "METADATA");
    constexpr std::string_view kKey = "Version: ";
    for (std::string line; std::getline(metadata, line);) {
      if (line.starts_with(kKey)) return line.substr(kKey.size());
    }
  }
  return {};
}

std::string why_not_loaded(const std::string& path) {
  const char* reason = ::dlerror();
  std::string why = reason ? reason : path + " cannot be loaded";
  for (const auto& [library, package] : kPackages) {
    if (why.starts_with(std::string(library) + ":")) {
      return path + " needs " + why + " (Debian package " + package + ")";
    }
  }
  return why.find(path) == why.npos ? path + " needs " + why : why;
}

// Finds functions by name and remembers the first that is missing.
class Finder {
 public:
  explicit Finder(void* library) : library_(library) {}

  template <class Function>
  void need(const char* name, Function*& function) {
    function = reinterpret_cast<Function*>(find(name));
    if (!function && missing_.empty()) missing_ = "nixl_capi_" + std::string(name);
  }
  void* find(const char* name) const {
    return ::dlsym(library_, ("nixl_capi_" + std::string(name)).c_str());
  }
  const std::string& missing() const noexcept { return missing_; }

 private:
  void* library_;
  std::string missing_;
};

void find_all(Finder& find, NixlApi& api) {
#define KVBM_NEED(function) find.need(#function, api.function)
  KVBM_NEED(is_stub);
  KVBM_NEED(create_configured_agent);
  KVBM_NEED(destroy_agent);
  KVBM_NEED(create_params);
  KVBM_NEED(params_add);
  KVBM_NEED(destroy_params);
  KVBM_NEED(create_backend);
  KVBM_NEED(destroy_backend);
  KVBM_NEED(create_opt_args);
  KVBM_NEED(opt_args_add_backend);
  KVBM_NEED(destroy_opt_args);
  KVBM_NEED(create_reg_dlist);
  KVBM_NEED(reg_dlist_add_desc);
  KVBM_NEED(destroy_reg_dlist);
  KVBM_NEED(register_mem);
  KVBM_NEED(get_local_md);
  KVBM_NEED(load_remote_md);
  KVBM_NEED(invalidate_remote_md);
  KVBM_NEED(create_xfer_dlist);
  KVBM_NEED(xfer_dlist_add_desc);
  KVBM_NEED(destroy_xfer_dlist);
  KVBM_NEED(prep_xfer_dlist);
  KVBM_NEED(release_xfer_dlist_handle);
  KVBM_NEED(make_xfer_req);
  KVBM_NEED(post_xfer_req);
  KVBM_NEED(get_xfer_status);
  KVBM_NEED(release_xfer_req);
  KVBM_NEED(destroy_xfer_req);
  KVBM_NEED(gen_notif);
  KVBM_NEED(create_notif_map);
  KVBM_NEED(get_notifs);
  KVBM_NEED(notif_map_size);
  KVBM_NEED(destroy_notif_map);
#undef KVBM_NEED
}

// Requires: the library's settings are made.
Result<Library> load_file(const std::string& path) {
  if (const std::string other = other_ucx(path); !other.empty()) {
    return unusable(other + " is in this process already, and " + path +
                    " would bring a second UCX: load only one of them");
  }
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) return unusable(why_not_loaded(path));
  Library library{.api = {}, .path = path, .version = {}};
  Finder find(handle);
  find_all(find, library.api);
  if (!find.missing().empty()) return unusable(path + " has no " + find.missing());
  if (library.api.is_stub()) return unusable(path + " stands for a NIXL that is not there");
  Dl_info info;
  if (::dladdr(reinterpret_cast<const void*>(library.api.is_stub), &info) != 0 && info.dli_fname) {
    library.path = info.dli_fname;
  }
  library.version = wheel_version(library.path);
  if (library.version.empty()) {
    library.version = find.find("opt_args_set_custom_param") ? "1.5 or later" : "before 1.5";
  }
  return library;
}

}  // namespace

Result<Library> load_library(const std::string& path) {
  for (const Setting& setting : kSettings) ::setenv(setting.name, setting.value, 0);
  if (!path.empty()) return load_file(path);
  if (const char* told = std::getenv(kPathVariable); told && *told) return load_file(told);
  std::string looked;
  if (const std::string beside = find_beside(looked); !beside.empty()) return load_file(beside);
  auto found = load_file(kFile);
  if (!found) {
    Error error = std::move(found).error();
    error.message += "; there is none at or above " + looked + " either, and " + kPathVariable +
                     " does not name one";
    return error;
  }
  return found;
}

Error failed(Status status, const std::string& call) {
  return Error{ErrorCode::NixlError, status, 0, 0, "NIXL's " + call + " failed"};
}

}  // namespace kvbm::nixl

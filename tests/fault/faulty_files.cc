#define FUSE_USE_VERSION 31
#include "tests/fault/faulty_files.h"

#include <fcntl.h>
#include <fuse.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <vector>

namespace kvbm::fault {
namespace {

constexpr const char kFaults[] = "/.faults";  // whose writes are Order

// How a test sets a fault.
struct Order {
  char name[64] = {};
  Fault fault;
};

struct Served {
  std::vector<char> bytes;
  Fault fault;
  bool exists = false;  // a fault may be set before the file is made
};

// What the serving process knows.
struct Server {
  std::mutex mutex;
  std::condition_variable changed;  // a fault was set
  std::map<std::string, Served, std::less<>> files;
  int ready = -1;  // a pipe that the test waits at

  // Null if there is no such file.
  Served* find(std::string_view path) {
    const auto found = files.find(path);
    return found == files.end() || !found->second.exists ? nullptr : &found->second;
  }
};

Server& server() {
  static Server the_server;
  return the_server;
}

bool is_faults(const char* path) { return std::string_view(path) == kFaults; }

void* start(fuse_conn_info*, fuse_config* config) {
  config->hard_remove = 1;  // instead of renaming what is still open
  const char byte = 1;
  [[maybe_unused]] const ssize_t written = ::write(server().ready, &byte, 1);
  return nullptr;
}

int get_attributes(const char* path, struct stat* out, fuse_file_info*) {
  const std::lock_guard lock(server().mutex);
  const Served* file = server().find(path);
  const bool is_folder = std::string_view(path) == "/";
  if (!file && !is_folder && !is_faults(path)) return -ENOENT;
  *out = {};
  out->st_mode = is_folder ? S_IFDIR | 0700 : S_IFREG | 0600;
  out->st_nlink = 1;
  out->st_size = file ? static_cast<off_t>(file->bytes.size()) : 0;
  return 0;
}

int open_file(const char* path, fuse_file_info* info) {
  const std::lock_guard lock(server().mutex);
  info->direct_io = 1;  // every call of the test arrives here as it is
  return server().find(path) || is_faults(path) ? 0 : -ENOENT;
}

int create_file(const char* path, mode_t, fuse_file_info* info) {
  const std::lock_guard lock(server().mutex);
  Served& file = server().files[path];
  if (file.fault.write_error != 0) return -file.fault.write_error;
  info->direct_io = 1;
  file.exists = true;
  return 0;
}

int remove_file(const char* path) {
  const std::lock_guard lock(server().mutex);
  return server().files.erase(path) == 1 ? 0 : -ENOENT;
}

int list(const char*, void* out, fuse_fill_dir_t fill, off_t, fuse_file_info*, fuse_readdir_flags) {
  const std::lock_guard lock(server().mutex);
  for (const auto& [path, file] : server().files) {
    if (file.exists) fill(out, path.c_str() + 1, nullptr, 0, {});
  }
  return 0;
}

int set_size(const char* path, off_t size, fuse_file_info*) {
  const std::lock_guard lock(server().mutex);
  Served* const file = server().find(path);
  if (!file) return -ENOENT;
  if (file->fault.write_error != 0 && file->fault.spot < 0) return -file->fault.write_error;
  file->bytes.resize(static_cast<std::size_t>(size));
  return 0;
}

int sync_file(const char* path, int, fuse_file_info*) {
  const std::lock_guard lock(server().mutex);
  const Served* const file = server().find(path);
  return file ? -file->fault.sync_error : 0;
}

bool concerns(const Fault& fault, std::size_t size, off_t offset) {
  return fault.spot < 0 || (offset <= fault.spot && offset + static_cast<off_t>(size) > fault.spot);
}

int read_file(const char* path, char* out, std::size_t size, off_t offset, fuse_file_info*) {
  std::unique_lock lock(server().mutex);
  Served* file = nullptr;
  server().changed.wait(lock, [&] {
    file = server().find(path);
    return !file || !file->fault.waits || offset == 0;
  });
  if (!file) return -EIO;
  const Fault& fault = file->fault;
  if (fault.read_error != 0 && concerns(fault, size, offset)) return -fault.read_error;
  if (fault.readable_unit != 0 && offset % fault.readable_unit != 0) return 0;
  if (fault.longest_read != 0) size = std::min<std::size_t>(size, fault.longest_read);
  const std::size_t begin = std::min(static_cast<std::size_t>(offset), file->bytes.size());
  const std::size_t moved = std::min(size, file->bytes.size() - begin);
  std::memcpy(out, file->bytes.data() + begin, moved);
  for (std::size_t i = 0; fault.flipped_unit != 0 && i < moved; ++i) {
    if ((begin + i) % fault.flipped_unit == 0) out[i] = static_cast<char>(~out[i]);
  }
  return static_cast<int>(moved);
}

int write_file(const char* path, const char* in, std::size_t size, off_t offset, fuse_file_info*) {
  const std::lock_guard lock(server().mutex);
  if (is_faults(path)) {
    Order order;
    if (size != sizeof order) return -EINVAL;
    std::memcpy(&order, in, sizeof order);
    server().files[std::string("/") + order.name].fault = order.fault;
    server().changed.notify_all();
    return static_cast<int>(size);
  }
  Served* const file = server().find(path);
  if (!file) return -EIO;
  if (file->fault.write_error != 0 && concerns(file->fault, size, offset)) {
    return -file->fault.write_error;
  }
  const std::size_t begin = static_cast<std::size_t>(offset);
  if (begin + size > file->bytes.size()) file->bytes.resize(begin + size);
  std::memcpy(file->bytes.data() + begin, in, size);
  return static_cast<int>(size);
}

[[noreturn]] void serve(const std::string& folder, int ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  server().ready = ready;
  fuse_operations operations{};
  operations.init = start;
  operations.getattr = get_attributes;
  operations.open = open_file;
  operations.create = create_file;
  operations.unlink = remove_file;
  operations.readdir = list;
  operations.truncate = set_size;
  operations.fsync = sync_file;
  operations.read = read_file;
  operations.write = write_file;
  std::string name = "faulty";
  std::string foreground = "-f";
  std::string path = folder;
  char* arguments[] = {name.data(), foreground.data(), path.data(), nullptr};
  ::_exit(fuse_main(3, arguments, &operations, nullptr));
}

std::string reason_of(const char* what) {
  return std::string(what) + ": " + std::generic_category().message(errno);
}

}  // namespace

std::unique_ptr<FaultyFiles> FaultyFiles::mount(std::string& reason) {
  std::string folder = (std::filesystem::temp_directory_path() / "kvbm-fault-XXXXXX").string();
  int ready[2];
  if (::unshare(CLONE_NEWNS) != 0 ||
      ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) {
    reason = reason_of("no mounts of our own");
    return nullptr;
  }
  if (::access("/dev/fuse", R_OK | W_OK) != 0 || ::pipe2(ready, O_CLOEXEC) != 0 ||
      !::mkdtemp(folder.data())) {
    reason = reason_of("no FUSE");
    return nullptr;
  }
  const pid_t child = ::fork();
  if (child == 0) serve(folder, ready[1]);
  ::close(ready[1]);
  char byte = 0;
  const bool serves = child > 0 && ::read(ready[0], &byte, 1) == 1;
  ::close(ready[0]);
  std::unique_ptr<FaultyFiles> files(new FaultyFiles(folder, child));
  if (serves) return files;
  reason = "the FUSE server did not start";
  return nullptr;
}

FaultyFiles::~FaultyFiles() {
  ::umount2(folder_.c_str(), MNT_DETACH);
  die();  // nobody has a file open any more
  ::rmdir(folder_.c_str());
}

void FaultyFiles::set(const std::string& name, const Fault& fault) const {
  Order order;
  name.copy(order.name, sizeof order.name - 1);
  order.fault = fault;
  const int file = ::open((folder_ + kFaults).c_str(), O_WRONLY | O_CLOEXEC);
  const bool set = file >= 0 && ::write(file, &order, sizeof order) == sizeof order;
  if (file >= 0) ::close(file);
  if (!set) throw std::runtime_error(reason_of("cannot set a fault"));
}

void FaultyFiles::die() {
  if (server_ <= 0) return;
  ::kill(server_, SIGKILL);
  ::waitpid(server_, nullptr, 0);
  server_ = -1;
}

}  // namespace kvbm::fault

#define FUSE_USE_VERSION 31
#include "tests/fault/faulty_files.h"

#include <fuse.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <condition_variable>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <mutex>
#include <string_view>
#include <system_error>
#include <vector>

namespace kvbm::fault {
namespace {

constexpr std::size_t kPiece = 4096;
constexpr off_t kUnit = 16384;
constexpr off_t kSpot = 50000;
constexpr std::array<std::string_view, 9> kNames = {"/good", "/eio",  "/spot", "/enospc", "/short",
                                                    "/cut",  "/flip", "/slow", "/release"};

// What the serving process knows.
struct Server {
  std::mutex mutex;
  std::condition_variable changed;
  bool released = false;
  std::array<std::vector<char>, kNames.size()> contents;
  int ready = -1;  // a pipe that the test waits at

  std::vector<char>* find(std::string_view path) {
    const auto found = std::ranges::find(kNames, path);
    return found == kNames.end() ? nullptr : &contents[std::size_t(found - kNames.begin())];
  }
};

Server& server() {
  static Server the_server;
  return the_server;
}

void* start(fuse_conn_info*, fuse_config*) {
  const char byte = 1;
  [[maybe_unused]] const ssize_t written = ::write(server().ready, &byte, 1);
  return nullptr;
}

int get_attributes(const char* path, struct stat* out, fuse_file_info*) {
  const std::lock_guard lock(server().mutex);
  const auto* file = server().find(path);
  if (!file && std::string_view(path) != "/") return -ENOENT;
  *out = {};
  out->st_mode = file ? S_IFREG | 0600 : S_IFDIR | 0700;
  out->st_nlink = 1;
  out->st_size = file ? static_cast<off_t>(file->size()) : 0;
  return 0;
}

int open_file(const char* path, fuse_file_info* info) {
  const std::lock_guard lock(server().mutex);
  info->direct_io = 1;  // every call of the test arrives here as it is
  return server().find(path) ? 0 : -ENOENT;
}

int set_size(const char* path, off_t size, fuse_file_info*) {
  const std::lock_guard lock(server().mutex);
  server().find(path)->resize(static_cast<std::size_t>(size));
  return 0;
}

bool touches_spot(std::string_view name, std::size_t size, off_t offset) {
  return name == "/spot" && offset <= kSpot && offset + static_cast<off_t>(size) > kSpot;
}

int read_file(const char* path, char* out, std::size_t size, off_t offset, fuse_file_info*) {
  const std::string_view name = path;
  std::unique_lock lock(server().mutex);
  if (name == "/eio" || touches_spot(name, size, offset)) return -EIO;
  if (name == "/slow" && offset > 0) server().changed.wait(lock, [] { return server().released; });
  if (name == "/release" && offset > 0) {
    server().released = true;
    server().changed.notify_all();
  }
  if (name == "/cut" && offset % kUnit != 0) return 0;
  if (name == "/cut" || name == "/short") size = std::min(size, kPiece);
  const std::vector<char>& bytes = *server().find(path);
  const std::size_t begin = std::min(static_cast<std::size_t>(offset), bytes.size());
  const std::size_t moved = std::min(size, bytes.size() - begin);
  std::memcpy(out, bytes.data() + begin, moved);
  for (std::size_t i = 0; name == "/flip" && i < moved; ++i) {
    if ((offset + static_cast<off_t>(i)) % kUnit == 0) out[i] = static_cast<char>(~out[i]);
  }
  return static_cast<int>(moved);
}

int write_file(const char* path, const char* in, std::size_t size, off_t offset, fuse_file_info*) {
  const std::string_view name = path;
  const std::lock_guard lock(server().mutex);
  if (name == "/eio" || touches_spot(name, size, offset)) return -EIO;
  if (name == "/enospc") return -ENOSPC;
  std::vector<char>& bytes = *server().find(path);
  const std::size_t begin = std::min(static_cast<std::size_t>(offset), bytes.size());
  const std::size_t moved = std::min(size, bytes.size() - begin);
  std::memcpy(bytes.data() + begin, in, moved);
  return static_cast<int>(moved);
}

[[noreturn]] void serve(const std::string& folder, int ready) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  server().ready = ready;
  fuse_operations operations{};
  operations.init = start;
  operations.getattr = get_attributes;
  operations.open = open_file;
  operations.truncate = set_size;
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
  if (server_ > 0) {
    ::kill(server_, SIGKILL);  // nobody has a file open any more
    ::waitpid(server_, nullptr, 0);
  }
  ::rmdir(folder_.c_str());
}

}  // namespace kvbm::fault

#include "remote/frame_stream.h"

namespace kvbm::remote {
namespace {

// What is kept for the next frame; longer ones are rare.
constexpr std::size_t kKeptBytes = 64 * 1024;

}  // namespace

Result<void> FrameStream::send(std::span<const std::byte> frame, std::span<const std::byte> behind,
                               const Until& until) {
  if (!can_send_) return leader::garbage("a frame was sent in part");
  can_send_ = false;
  KVBM_CHECK_OK(send_all(socket_, frame, behind, until));
  can_send_ = true;
  return {};
}

Result<Frame> FrameStream::receive(const Until& until, std::size_t max_body_bytes) {
  if (bytes_.capacity() > kKeptBytes) bytes_ = {};
  bytes_.resize(leader::kHeaderBytes);
  // The version alone says whether the rest is a header. Ends of different versions do not fit
  // together, which trying again will not change.
  KVBM_CHECK_OK(receive_exact(socket_, std::span(bytes_).first(1), until));
  if (auto version = leader::read_header(std::span(bytes_).first(1)); !version) {
    Error other = std::move(version).error();
    other.code = ErrorCode::InvalidConfig;
    return other;
  }
  KVBM_CHECK_OK(receive_exact(socket_, std::span(bytes_).subspan(1), until));
  KVBM_TRY(const auto header, leader::read_header(bytes_));
  if (header->body_bytes > max_body_bytes) {
    return leader::garbage("a frame is too long", header->body_bytes, max_body_bytes);
  }
  bytes_.resize(leader::kHeaderBytes + header->body_bytes);
  const auto body = std::span(bytes_).subspan(leader::kHeaderBytes);
  KVBM_CHECK_OK(receive_exact(socket_, body, until));
  return Frame{.type = header->type, .request = header->request, .body = body};
}

}  // namespace kvbm::remote

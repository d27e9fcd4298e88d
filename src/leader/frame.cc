#include "leader/frame.h"

namespace kvbm::leader {
namespace {

bool is_known(FrameType type) noexcept {
  switch (type) {
    case FrameType::Hello:
    case FrameType::Lookup:
    case FrameType::Trim:
    case FrameType::Release:
    case FrameType::Info:
    case FrameType::Plan:
    case FrameType::Failure:
    case FrameType::Challenge:
    case FrameType::Proof:
    case FrameType::Introduction:
    case FrameType::Fetch:
    case FrameType::Pull:
    case FrameType::Confirm:
    case FrameType::Ping:
    case FrameType::Goodbye:
    case FrameType::ChallengeAnswer:
    case FrameType::ProofAnswer:
    case FrameType::IntroductionAnswer:
    case FrameType::Fetched:
    case FrameType::Block:
    case FrameType::Confirmed:
    case FrameType::Pong: return true;
  }
  return false;
}

}  // namespace

Result<std::optional<FrameHeader>> read_header(std::span<const std::byte> bytes) {
  if (bytes.empty()) return std::optional<FrameHeader>();
  FrameReader reader(bytes.first(std::min(bytes.size(), kHeaderBytes)));
  // The version is looked at as soon as it is there: what follows may be anything.
  if (const auto version = reader.get<std::uint8_t>(); version != kProtocolVersion) {
    return garbage("protocol version " + std::to_string(version) + " is not known, only " +
                   std::to_string(kProtocolVersion));
  }
  if (bytes.size() < kHeaderBytes) return std::optional<FrameHeader>();
  const auto type = static_cast<FrameType>(reader.get<std::uint8_t>());
  if (!is_known(type)) {
    return garbage("frame type " + std::to_string(static_cast<unsigned>(type)) + " is not known");
  }
  if (reader.get<std::uint16_t>() != 0) return garbage("a frame's reserved bytes are not 0");
  const std::size_t body = reader.get<std::uint32_t>();
  if (body > kMaxBodyBytes) return garbage("a frame is too long", body, kMaxBodyBytes);
  return std::optional(
      FrameHeader{.type = type, .body_bytes = body, .request = reader.get<std::uint64_t>()});
}

Result<std::optional<Frame>> next_frame(std::span<const std::byte> bytes) {
  KVBM_TRY(const auto header, read_header(bytes));
  if (!header || bytes.size() - kHeaderBytes < header->body_bytes) return std::optional<Frame>();
  return std::optional(Frame{.type = header->type,
                             .request = header->request,
                             .body = bytes.subspan(kHeaderBytes, header->body_bytes)});
}

}  // namespace kvbm::leader

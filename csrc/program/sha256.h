// SHA-256 (FIPS 180-4), for the integrity of program files.
#pragma once

#include <cstddef>
#include <cstdint>

namespace unrain::program {

void sha256(const unsigned char* bytes, std::size_t count, std::uint8_t (&digest)[32]);

}  // namespace unrain::program

// A package holds machine code: it is loaded only when it is, byte for byte, the file that its sidecar describes.
#pragma once

#include <string>

// Throws std::runtime_error unless PACKAGE.json, beside it, has the SHA-256 of the package.
void require_intact(const std::string& package);

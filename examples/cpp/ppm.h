// Pictures as binary PPM ("P6", 8 bits): the format that needs no library.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

struct Picture {
    int height = 0, width = 0;
    std::vector<std::uint8_t> rgb;  // [height][width][3]
};

// Throw std::runtime_error with one line that says what is wrong.
Picture read_ppm(const std::string& path);
void write_ppm(const std::string& path, const Picture& picture);  // under another name first: never half a file

#include "ppm.h"

#include <cctype>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <unistd.h>

namespace {

constexpr int largest_side = 16384;

// One number of the header, behind white space and comments; -1 when there is none.
int header_number(std::istream& file) {
    int c = file.get();
    while (c == '#' || std::isspace(c)) {
        if (c == '#')
            while (c != '\n' && c != EOF) c = file.get();
        c = file.get();
    }
    int value = -1;
    for (; std::isdigit(c) && value < 1000000; c = file.get()) value = (value < 0 ? 0 : value) * 10 + (c - '0');
    return std::isspace(c) ? value : -1;  // exactly one white space follows, which is read now
}

}  // namespace

Picture read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + " cannot be read");
    if (file.get() != 'P' || file.get() != '6') throw std::runtime_error(path + " is no binary PPM (P6)");
    Picture picture;
    picture.width = header_number(file);
    picture.height = header_number(file);
    const int largest = header_number(file);
    if (picture.width < 1 || picture.height < 1 || largest != 255)
        throw std::runtime_error(path + " is no PPM with 8 bits a colour");
    if (picture.width > largest_side || picture.height > largest_side)
        throw std::runtime_error(path + " has more than 16384 pixels on a side");
    picture.rgb.resize(std::size_t(picture.width) * std::size_t(picture.height) * 3);
    file.read(reinterpret_cast<char*>(picture.rgb.data()), std::streamsize(picture.rgb.size()));
    if (std::size_t(file.gcount()) != picture.rgb.size()) throw std::runtime_error(path + " ends too early");
    return picture;
}

void write_ppm(const std::string& path, const Picture& picture) {
    const std::string part = path + "." + std::to_string(::getpid()) + ".part";
    {
        std::ofstream file(part, std::ios::binary);
        file << "P6\n" << picture.width << " " << picture.height << "\n255\n";
        file.write(reinterpret_cast<const char*>(picture.rgb.data()), std::streamsize(picture.rgb.size()));
        file.close();
        if (file && std::rename(part.c_str(), path.c_str()) == 0) return;
    }
    std::remove(part.c_str());
    throw std::runtime_error(path + " cannot be written");
}

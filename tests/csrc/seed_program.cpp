// Writes the small program file that the fuzzers begin with.
#include <cstdio>

#include "program_file.h"

int main(int count, char** words) {
    const std::vector<unsigned char> file = program_file::small();
    std::FILE* to = count == 2 ? std::fopen(words[1], "wb") : nullptr;
    if (to == nullptr) return 2;
    const bool whole = std::fwrite(file.data(), 1, file.size(), to) == file.size();
    return std::fclose(to) == 0 && whole ? 0 : 1;
}

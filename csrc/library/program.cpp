// unrain_program: a file's bytes, 64 bytes aligned, that were found to be right.
#include "program.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <new>

using unrain::program::Message;

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kMostBytes = std::size_t{1} << 33;

void* block_of(std::size_t bytes) { return ::operator new(bytes, std::align_val_t{kAlignment}, std::nothrow); }

void free_block(void* block) { ::operator delete(block, std::align_val_t{kAlignment}); }

// Takes the block over, whatever comes of it.
unrain_program* program_in(void* block, std::size_t size, Message& message) {
    auto* made = new (std::nothrow) unrain_program;
    if (made == nullptr) {
        message.say("not enough memory for a program");
        free_block(block);
        return nullptr;
    }
    made->block = block;
    if (!unrain::program::read(block, size, made->program, message)) {
        unrain_program_close(made);
        return nullptr;
    }
    const std::size_t length = made->program.header->card_bytes;
    made->card = new (std::nothrow) char[length + 1];
    if (made->card == nullptr) {
        message.say("not enough memory for a program");
        unrain_program_close(made);
        return nullptr;
    }
    std::memcpy(made->card, made->program.card, length);
    made->card[length] = '\0';
    return made;
}

// The whole of a file in a block; null with a message.
void* file_in_block(const char* path, std::size_t& size, Message& message) {
    std::FILE* file = std::fopen(path, "rb");
    if (file == nullptr) {
        message.say("the program file cannot be opened: %s", std::strerror(errno));
        return nullptr;
    }
    void* block = nullptr;
    const long end = std::fseek(file, 0, SEEK_END) == 0 ? std::ftell(file) : -1;
    if (end < 0 || static_cast<unsigned long>(end) > kMostBytes || std::fseek(file, 0, SEEK_SET) != 0) {
        message.say("this is no program file (.unrain)");
    } else {
        size = static_cast<std::size_t>(end);
        block = block_of(size + 1);
        if (block == nullptr) {
            message.say("not enough memory for a program of %zu bytes", size);
        } else if (std::fread(block, 1, size, file) != size) {
            message.say("the program file cannot be read");
            free_block(block);
            block = nullptr;
        }
    }
    std::fclose(file);
    return block;
}

}  // namespace

namespace unrain::library {

void tell(const Message& from, char* message, std::size_t size) {
    if (message != nullptr && size > 0) std::snprintf(message, size, "%s", from.text);
}

}  // namespace unrain::library

using unrain::library::tell;

extern "C" {

const char* unrain_version(void) { return UNRAIN_VERSION; }

unrain_program* unrain_program_open(const char* path, char* message, size_t message_size) {
    Message wrong;
    std::size_t size = 0;
    void* block = path != nullptr ? file_in_block(path, size, wrong) : nullptr;
    if (path == nullptr) wrong.say("the path is missing");
    unrain_program* made = block != nullptr ? program_in(block, size, wrong) : nullptr;
    tell(wrong, message, message_size);
    return made;
}

unrain_program* unrain_program_read(const void* bytes, size_t size, char* message, size_t message_size) {
    Message wrong;
    unrain_program* made = nullptr;
    void* block = bytes != nullptr && size <= kMostBytes ? block_of(size + 1) : nullptr;
    if (block == nullptr) {
        wrong.say(bytes == nullptr ? "the bytes are missing" : "not enough memory for a program of so many bytes");
    } else {
        std::memcpy(block, bytes, size);
        made = program_in(block, size, wrong);
    }
    tell(wrong, message, message_size);
    return made;
}

const char* unrain_program_card(const unrain_program* program) { return program != nullptr ? program->card : ""; }

void unrain_program_close(unrain_program* program) {
    if (program == nullptr) return;
    free_block(program->block);
    delete[] program->card;
    delete program;
}

}  // extern "C"

// Programs for Python: a file that was found to be right, its weights packed for a precision, a context for each call
// in flight. Each is made by one function and ended by another. It is used only while those that it was made of are
// there, which Python sees to; ended it may be in any order. What is wrong goes into `message`, and nothing is made
// then.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <memory>
#include <new>

#include "bindings.h"
#include "ops.h"
#include "program/context.h"

using namespace unrain;
using program::Message;

namespace {

struct Free {
    void operator()(void* block) const { ::operator delete (block, std::align_val_t{64}); }
};
using Block = std::unique_ptr<void, Free>;

Block block_of(std::size_t bytes, Message& message) {
    void* block = ::operator new (bytes > 0 ? bytes : 1, std::align_val_t{64}, std::nothrow);
    if (block == nullptr) message.say("not enough memory: %zu bytes", bytes);
    return Block(block);
}

struct File {
    Block bytes;
    program::Program program;

    bool read(const void* data, std::size_t size, Message& message) {
        bytes = block_of(size, message);
        if (bytes == nullptr) return false;
        std::memcpy(bytes.get(), data, size);
        return program::read(bytes.get(), size, program, message);
    }
};

struct Packed {
    const Tier* tier = nullptr;
    bool by_name = false;  // else the best that each part of a call finds
    program::Prepared prepared;
    Block memory;

    bool prepare(const File& file, const char* name, DType maps, DType products, Message& message) {
        by_name = name != nullptr;
        tier = pick_tier(name);
        if (tier == nullptr) return message.say("%s", kNoTier);
        if (!prepared.plan(file.program, {maps, products}, message)) return false;
        memory = block_of(prepared.bytes(), message);
        return memory != nullptr && prepared.pack(memory.get(), message);
    }
    const char* name_of_tier() const { return by_name ? tier->name : nullptr; }
};

// Where each instruction that begins, and the end, leave the time in nanoseconds.
struct Clock {
    std::int64_t* next = nullptr;
    std::int64_t* end = nullptr;

    void stamp() {
        using namespace std::chrono;
        if (next != end) *next++ = duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
    }
};

struct Call {
    program::Plan plan;
    std::unique_ptr<program::Context> context;
    const char* memory = nullptr;
};

// No exception leaves the library: `body` says what is wrong, or throws it.
template <class Body>
bool guarded(char* text, std::size_t size, const Body& body) {
    Message message;
    bool right = false;
    try {
        right = body(message);
    } catch (const std::exception& error) {
        message.say("%s", error.what());
    }
    if (!right) std::snprintf(text, size, "%s", message.text);
    return right;
}

template <class T>
T& of(void* handle) {
    return *static_cast<T*>(handle);
}

template <class T, class Body>
void* made(char* text, std::size_t size, const Body& body) {
    std::unique_ptr<T> object;
    const auto make = [&](Message& message) {
        object = std::make_unique<T>();
        return body(*object, message);
    };
    return guarded(text, size, make) ? object.release() : nullptr;
}

}  // namespace

extern "C" {

struct unrain_native_facts {
    std::int64_t multiple, in_channels, out_channels, instructions, ports, runs, card_bytes;
    const char* card;
};

struct unrain_native_place {
    std::int64_t offset, channels, stored, height, width, bfloat16;
};
}

namespace {

void write(const Call& call, const program::Place& from, unrain_native_place& to) {
    to = {static_cast<const char*>(from.data) - call.memory,
          from.channels,
          from.stored,
          from.height,
          from.width,
          from.dtype == DType::bf16};
}

// Ports of what comes in (mark 0) are those of run 1 alone.
bool has_port(const Call& call, std::uint32_t run, std::uint32_t mark, std::uint32_t number, Message& message) {
    const program::Program& program = call.plan.program();
    const bool there = run < program.header->runs && mark <= program.runs[run].marks &&
                       number < program.runs[run].ports && (mark > 0 || run > 0);
    return there || message.say("this program has no such port");
}

}  // namespace

UNRAIN_SHOWN void* unrain_native_program(const void* bytes, std::size_t size, char* message, std::size_t room) {
    return made<File>(message, room, [&](File& file, Message& wrong) { return file.read(bytes, size, wrong); });
}

UNRAIN_SHOWN void unrain_native_program_end(void* program) { delete &of<File>(program); }

UNRAIN_SHOWN unrain_native_facts unrain_native_program_facts(void* program) {
    const program::Program& p = of<File>(program).program;
    const program::Header& h = *p.header;
    return {h.multiple,
            h.in_channels,
            h.out_channels,
            h.instructions,
            p.runs[0].ports,
            h.runs,
            static_cast<std::int64_t>(h.card_bytes),
            p.card};
}

UNRAIN_SHOWN std::int64_t unrain_native_program_marks(void* program, std::uint32_t run) {
    return of<File>(program).program.runs[run].marks;
}

UNRAIN_SHOWN void* unrain_native_prepared(void* program, int maps, int products, const char* tier, char* message,
                                          std::size_t room) {
    return made<Packed>(message, room, [&](Packed& packed, Message& wrong) {
        return packed.prepare(of<File>(program), tier, static_cast<DType>(maps), static_cast<DType>(products), wrong);
    });
}

UNRAIN_SHOWN void unrain_native_prepared_end(void* prepared) { delete &of<Packed>(prepared); }

UNRAIN_SHOWN std::size_t unrain_native_prepared_bytes(void* prepared) { return of<Packed>(prepared).prepared.bytes(); }

// What a context for pictures of this size works in; 0 where it is refused.
UNRAIN_SHOWN std::size_t unrain_native_context_bytes(void* prepared, std::ptrdiff_t batch, std::ptrdiff_t height,
                                                     std::ptrdiff_t width, int threads, char* message,
                                                     std::size_t room) {
    std::size_t bytes = 0;
    guarded(message, room, [&](Message& wrong) {
        program::Plan plan;
        if (!program::make_plan(of<Packed>(prepared).prepared, {batch, height, width}, threads, plan, wrong))
            return false;
        bytes = plan.bytes();
        return true;
    });
    return bytes;
}

// In `memory`, of that many bytes, from a multiple of 64 on; it stays for as long as the context.
UNRAIN_SHOWN void* unrain_native_context(void* prepared, std::ptrdiff_t batch, std::ptrdiff_t height,
                                         std::ptrdiff_t width, int threads, void* memory, char* message,
                                         std::size_t room) {
    return made<Call>(message, room, [&](Call& call, Message& wrong) {
        const Packed& packed = of<Packed>(prepared);
        if (!program::make_plan(packed.prepared, {batch, height, width}, threads, call.plan, wrong)) return false;
        call.memory = static_cast<const char*>(memory);
        call.context =
            std::make_unique<program::Context>(call.plan, memory, packed.tier->program, packed.name_of_tier());
        return true;
    });
}

UNRAIN_SHOWN void unrain_native_context_end(void* context) { delete &of<Call>(context); }

UNRAIN_SHOWN int unrain_native_start(void* context, std::uint32_t run, const float* pictures, char* message,
                                     std::size_t room) {
    const auto body = [&](Message& wrong) { return of<Call>(context).context->start(run, pictures, wrong); };
    return guarded(message, room, body) ? 1 : 0;
}

UNRAIN_SHOWN int unrain_native_advance(void* context, std::uint32_t mark, float* pictures, char* message,
                                       std::size_t room) {
    const auto body = [&](Message& wrong) { return of<Call>(context).context->advance(mark, pictures, wrong); };
    return guarded(message, room, body) ? 1 : 0;
}

// `advance`, with the time at which each of its instructions began, and that of the end, in `times`; how many they are.
UNRAIN_SHOWN std::size_t unrain_native_advance_timed(void* context, std::uint32_t mark, float* pictures,
                                                     std::int64_t* times, std::size_t count, char* message,
                                                     std::size_t room) {
    Clock clock{times, times + count};
    const auto stamp = [](const void* of) {
        static_cast<Clock*>(const_cast<void*>(of))->stamp();
        return false;
    };
    program::Context& at = *of<Call>(context).context;
    at.give_up_when(stamp, &clock);
    const bool right = guarded(message, room, [&](Message& wrong) { return at.advance(mark, pictures, wrong); });
    at.give_up_when(nullptr, nullptr);
    clock.stamp();
    return right ? static_cast<std::size_t>(clock.next - times) : 0;
}

UNRAIN_SHOWN int unrain_native_port(void* context, std::uint32_t number, unrain_native_place* place, char* message,
                                    std::size_t room) {
    const auto body = [&](Message& wrong) {
        const Call& call = of<Call>(context);
        if (!has_port(call, 1, 0, number, wrong)) return false;
        write(call, call.context->port(1, number), *place);
        return true;
    };
    return guarded(message, room, body) ? 1 : 0;
}

UNRAIN_SHOWN int unrain_native_state(void* context, std::uint32_t run, std::uint32_t mark, std::uint32_t number,
                                     unrain_native_place* place, char* message, std::size_t room) {
    const auto body = [&](Message& wrong) {
        const Call& call = of<Call>(context);
        if (!has_port(call, run, mark, number, wrong)) return false;
        if (mark < 1) return wrong.say("marks count from 1");
        write(call, call.context->state(run, mark, number), *place);
        return true;
    };
    return guarded(message, room, body) ? 1 : 0;
}

// Setting up a context: what its options ask for, and where its parts lie.
#include "context.h"

#include <cstdlib>
#include <new>

#if defined(_OPENMP)
#include <omp.h>
#endif

using unrain::program::aligned_bytes;
using unrain::program::Carver;
using unrain::program::Message;

namespace {

constexpr int kLeastSide = 8;

int usable_cores() {
#if defined(_OPENMP)
    return omp_get_num_procs();
#else
    return 1;
#endif
}

// A network that was trained for video leaves one picture and a state; one that works in stages keeps a memory between
// them, which drifts away within seconds where it is carried from frame to frame.
bool trained_for_video(const unrain::program::Program& program) {
    return program.header->runs == 2 && program.runs[0].marks == 1 && program.runs[1].marks == 1 &&
           program.runs[1].ports > 0;
}

bool check_options(const unrain::program::Program& p, const unrain_options& o, Message& message) {
    if (o.struct_size != sizeof(unrain_options)) {
        return message.say("options: struct_size is not that of this library; begin with unrain_default_options");
    }
    if (o.width < kLeastSide || o.height < kLeastSide) {
        return message.say("options: frames must be at least %d x %d, got %d x %d", kLeastSide, kLeastSide, o.width,
                           o.height);
    }
    const auto known = [](unrain_format f) { return f == UNRAIN_RGB8 || f == UNRAIN_BGR8 || f == UNRAIN_NV12; };
    if (!known(o.input) || !known(o.output)) return message.say("options: input and output are RGB8, BGR8 or NV12");
    if (o.precision == UNRAIN_INT8) return message.say("options: this version has no int8: take auto, fp32 or bf16");
    if (o.precision != UNRAIN_AUTO && o.precision != UNRAIN_F32 && o.precision != UNRAIN_BF16) {
        return message.say("options: there is no such precision");
    }
    if (o.threads < 0) return message.say("options: threads must be 0 or more");
    const auto stages = static_cast<int>(p.runs[0].marks);
    if (o.stages < 0 || o.stages > stages) {
        return message.say("options: stages must be 0 (all) to %d, got %d", stages, o.stages);
    }
    if (o.carry != 0 && o.carry != 1) return message.say("options: carry must be 0 or 1");
    if (!(o.strength >= 0.0F && o.strength <= 1.0F)) return message.say("options: strength must be between 0 and 1");
    if (o.deadline_us < 0) return message.say("options: deadline_us must be 0 (none) or more");
    if (p.header->in_channels != 3 || p.header->out_channels != 3) {
        return message.say("this program takes pictures of %u channels and gives %u: frames have 3",
                           p.header->in_channels, p.header->out_channels);
    }
    return true;
}

std::size_t bytes_of(const unrain::program::Place& place) {
    return static_cast<std::size_t>(place.numbers()) * (place.dtype == unrain::DType::f32 ? 4 : 2);
}

char* aligned(void* memory) {
    const auto address = reinterpret_cast<std::uintptr_t>(memory);
    return reinterpret_cast<char*>((address + unrain::program::kPartAlignment - 1) / unrain::program::kPartAlignment *
                                   unrain::program::kPartAlignment);
}

// With what an alignment may cost.
std::size_t size_of(unrain_context& context) {
    Carver counted(nullptr);
    context.lay_out(counted);
    return aligned_bytes(sizeof(unrain_context)) + counted.used() + unrain::program::kPartAlignment;
}

bool there(const unrain_program* program, const unrain_options* options, Message& message) {
    if (program == nullptr) return message.say("the program is missing");
    return options != nullptr || message.say("the options are missing");
}

}  // namespace

bool unrain_context::decide(const unrain_program& program, const unrain_options& asked, Message& message) {
    if (!check_options(program.program, asked, message)) return false;
    file = &program;
    options = asked;
    tier = unrain::pick_tier(nullptr);
    if (options.threads == 0) options.threads = usable_cores();
    if (options.stages == 0) options.stages = static_cast<int>(program.program.runs[0].marks);
    carries = options.carry == 1 && trained_for_video(program.program);
    const bool multiplies = unrain::multiplies_bf16();
    const bool bf16 = options.precision == UNRAIN_BF16 || (options.precision == UNRAIN_AUTO && multiplies);
    unrain::program::Arithmetic arithmetic;
    if (bf16) arithmetic.maps = unrain::DType::bf16;
    if (bf16 && multiplies) arithmetic.products = unrain::DType::bf16;
    const unrain::program::Size size = {1, options.height, options.width};
    return prepared.plan(program.program, arithmetic, message) &&
           unrain::program::make_plan(prepared, size, options.threads, plan, message);
}

void unrain_context::lay_out(Carver& carver) {
    const auto width = static_cast<std::ptrdiff_t>(options.width), height = static_cast<std::ptrdiff_t>(options.height);
    const unrain::library::FrameShape shape = unrain::library::shape_of(options.input, width, height);
    raw.format = static_cast<unrain::library::Format>(options.input);
    for (int k = 0; k < shape.planes; ++k) {
        raw.stride[k] = shape.row_bytes[k];
        raw.data[k] = carver.take<std::uint8_t>(static_cast<std::size_t>(shape.row_bytes[k] * shape.rows[k]));
    }
    change = carver.take<float>(static_cast<std::size_t>(unrain::library::tasks_of(height)));
    staging = carver.take<float>(static_cast<std::size_t>(options.threads * unrain::library::staging_numbers(width)));
    weights = carver.take<char>(prepared.bytes());
    arena = carver.take<char>(plan.bytes());
    std::size_t kept = 0;
    const unrain::program::Run& second = file->program.runs[1];
    for (std::uint32_t k = 0; carries && k < second.ports; ++k) {
        kept += aligned_bytes(bytes_of(place_of(plan, 1, file->program.port(second, k).value, nullptr)));
    }
    states = carver.take<char>(kept);
}

bool unrain_context::get_ready(Message& message) {
    if (!prepared.pack(weights, message)) return false;
    core.emplace(plan, arena, tier->program, nullptr);
    return true;
}

extern "C" {

unrain_options unrain_default_options(int width, int height) {
    unrain_options options = {};
    options.struct_size = sizeof(unrain_options);
    options.width = width;
    options.height = height;
    options.carry = 1;
    options.strength = 1.0F;
    return options;
}

size_t unrain_context_size(const unrain_program* program, const unrain_options* options, char* message,
                           size_t message_size) {
    Message wrong;
    std::size_t size = 0;
    if (there(program, options, wrong)) {
        auto* trial = new (std::nothrow) unrain_context;
        if (trial == nullptr) {
            wrong.say("not enough memory to plan a context");
        } else if (trial->decide(*program, *options, wrong)) {
            size = size_of(*trial);
        }
        delete trial;
    }
    unrain::library::tell(wrong, message, message_size);
    return size;
}

unrain_context* unrain_context_init(void* memory, size_t size, const unrain_program* program,
                                    const unrain_options* options, char* message, size_t message_size) {
    Message wrong;
    unrain_context* made = nullptr;
    if (memory == nullptr || size < sizeof(unrain_context) + unrain::program::kPartAlignment) {
        wrong.say("the context's memory is missing, or smaller than unrain_context_size says");
    } else if (there(program, options, wrong)) {
        char* place = aligned(memory);
        made = new (place) unrain_context;
        bool right = made->decide(*program, *options, wrong);
        if (right && size < size_of(*made)) {
            right = wrong.say("the context's memory is smaller than the %zu bytes that it needs", size_of(*made));
        }
        if (right) {
            Carver carver(place + aligned_bytes(sizeof(unrain_context)));
            made->lay_out(carver);
            right = made->get_ready(wrong);
        }
        if (!right) {
            made->~unrain_context();
            made = nullptr;
        }
    }
    unrain::library::tell(wrong, message, message_size);
    return made;
}

unrain_context* unrain_context_open(const unrain_program* program, const unrain_options* options, char* message,
                                    size_t message_size) {
    const std::size_t size = unrain_context_size(program, options, message, message_size);
    if (size == 0) return nullptr;
    void* memory = std::malloc(size);
    if (memory == nullptr) {
        Message wrong;
        wrong.say("not enough memory: a context of this size takes %zu bytes", size);
        unrain::library::tell(wrong, message, message_size);
        return nullptr;
    }
    unrain_context* made = unrain_context_init(memory, size, program, options, message, message_size);
    if (made == nullptr) {
        std::free(memory);
    } else {
        made->owned = memory;
    }
    return made;
}

void unrain_context_close(unrain_context* context) {
    if (context == nullptr) return;
    void* owned = context->owned;
    context->~unrain_context();
    std::free(owned);
}

}  // extern "C"

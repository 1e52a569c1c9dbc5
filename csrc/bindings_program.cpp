#include "bindings_program.h"

#include <pybind11/stl.h>

#include <cstring>
#include <memory>
#include <new>
#include <string>
#include <vector>

#include "ops.h"
#include "program/context.h"

namespace py = pybind11;
using namespace unrain;
using program::Message;

namespace {

struct Free {
    void operator()(void* block) const { ::operator delete(block, std::align_val_t{64}); }
};
using Block = std::shared_ptr<void>;  // 64 bytes aligned

Block block_of(std::size_t bytes) {
    void* block = ::operator new(bytes > 0 ? bytes : 1, std::align_val_t{64}, std::nothrow);
    if (block == nullptr) throw py::value_error("not enough memory: " + std::to_string(bytes) + " bytes");
    return Block(block, Free());
}

void check(bool right, const Message& message) {
    if (!right) throw py::value_error(message.text);
}

DType dtype_of(const std::string& name) {
    if (name == "float32") return DType::f32;
    if (name == "bfloat16") return DType::bf16;
    throw py::value_error("maps and products must be float32 or bfloat16");
}

struct ProgramBytes {
    Block bytes;
    std::size_t size;
    program::Program program;

    explicit ProgramBytes(const py::bytes& file) : size(py::len(file)) {
        bytes = block_of(size);
        std::memcpy(bytes.get(), static_cast<std::string_view>(file).data(), size);
        Message message;
        bool right = false;
        {
            const py::gil_scoped_release release;
            right = program::read(bytes.get(), size, program, message);
        }
        check(right, message);
    }
};

struct PreparedBlock {
    std::shared_ptr<ProgramBytes> file;
    std::string tier;
    const Tier* chosen;
    program::Prepared prepared;
    Block memory;

    PreparedBlock(std::shared_ptr<ProgramBytes> of, const std::string& maps, const std::string& products,
                  const std::string& tier_name)
        : file(std::move(of)), tier(tier_name), chosen(pick_tier(tier.empty() ? nullptr : tier.c_str())) {
        if (chosen == nullptr) throw py::value_error(kNoTier);
        Message message;
        check(prepared.plan(file->program, {dtype_of(maps), dtype_of(products)}, message), message);
        memory = block_of(prepared.bytes());
        bool right = false;
        {
            const py::gil_scoped_release release;
            right = prepared.pack(memory.get(), message);
        }
        check(right, message);
    }
    const char* name_of_tier() const { return tier.empty() ? nullptr : tier.c_str(); }
};

struct ContextBlock {
    std::shared_ptr<PreparedBlock> prepared;
    program::Plan plan;
    Block memory;
    std::size_t capacity;
    std::unique_ptr<program::Context> context;

    // In the memory of a context that is no longer used, where that is large enough.
    ContextBlock(std::shared_ptr<PreparedBlock> of, program::Size size, int threads, const ContextBlock* former)
        : prepared(std::move(of)) {
        Message message;
        check(program::make_plan(prepared->prepared, size, threads, plan, message), message);
        const bool fits = former != nullptr && former->capacity >= plan.bytes();
        memory = fits ? former->memory : block_of(plan.bytes());
        capacity = fits ? former->capacity : plan.bytes();
        context =
            std::make_unique<program::Context>(plan, memory.get(), prepared->chosen->program, prepared->name_of_tier());
    }

    void start(std::uint32_t run, std::uintptr_t pictures) {
        Message message;
        bool right = false;
        {
            const py::gil_scoped_release release;
            right = context->start(run, reinterpret_cast<const float*>(pictures), message);
        }
        check(right, message);
    }

    void advance(std::uint32_t mark, std::uintptr_t pictures) {
        Message message;
        bool right = false;
        {
            const py::gil_scoped_release release;
            right = context->advance(mark, reinterpret_cast<float*>(pictures), message);
        }
        check(right, message);
    }

    py::dict described(const program::Place& place) const {
        const auto* base = static_cast<const char*>(memory.get());
        py::dict place_of;
        place_of["offset"] = static_cast<const char*>(place.data) - base;
        place_of["channels"] = place.channels;
        place_of["stored"] = place.stored;
        place_of["height"] = place.height;
        place_of["width"] = place.width;
        place_of["dtype"] = place.dtype == DType::f32 ? "float32" : "bfloat16";
        return place_of;
    }

    void check_port(std::uint32_t run, std::uint32_t mark, std::uint32_t number) const {
        const program::Header& header = *plan.program().header;
        const bool there = run < header.runs && mark <= plan.program().runs[run].marks &&
                           number < plan.program().runs[run].ports && (mark > 0 || run > 0);
        if (!there) throw py::value_error("this program has no such port");
    }

    py::dict port(std::uint32_t number) const {
        check_port(1, 0, number);
        return described(context->port(1, number));
    }

    py::dict state(std::uint32_t run, std::uint32_t mark, std::uint32_t number) const {
        check_port(run, mark, number);
        if (mark < 1) throw py::value_error("marks count from 1");
        return described(context->state(run, mark, number));
    }
};

}  // namespace

void bind_program(py::module_& m) {
    py::class_<ProgramBytes, std::shared_ptr<ProgramBytes>>(m, "Program", "A program file that was found to be right.")
        .def(py::init<const py::bytes&>())
        .def_property_readonly(
            "card", [](const ProgramBytes& p) { return py::bytes(p.program.card, p.program.header->card_bytes); })
        .def_property_readonly("multiple", [](const ProgramBytes& p) { return p.program.header->multiple; })
        .def_property_readonly("in_channels", [](const ProgramBytes& p) { return p.program.header->in_channels; })
        .def_property_readonly("out_channels", [](const ProgramBytes& p) { return p.program.header->out_channels; })
        .def_property_readonly("instructions", [](const ProgramBytes& p) { return p.program.header->instructions; })
        .def_property_readonly("ports", [](const ProgramBytes& p) { return p.program.runs[0].ports; })
        .def_property_readonly("marks", [](const ProgramBytes& p) {
            std::vector<std::uint32_t> marks;
            for (std::uint32_t k = 0; k < p.program.header->runs; ++k) marks.push_back(p.program.runs[k].marks);
            return marks;
        });
    py::class_<PreparedBlock, std::shared_ptr<PreparedBlock>>(m, "Prepared", "Its weights, packed for a precision.")
        .def(py::init<std::shared_ptr<ProgramBytes>, const std::string&, const std::string&, const std::string&>(),
             py::arg("program"), py::arg("maps") = "float32", py::arg("products") = "float32", py::arg("tier") = "")
        .def_property_readonly("bytes", [](const PreparedBlock& p) { return p.prepared.bytes(); })
        .def(
            "context_bytes",
            [](const PreparedBlock& p, std::ptrdiff_t batch, std::ptrdiff_t height, std::ptrdiff_t width, int threads) {
                Message message;
                program::Plan plan;
                check(program::make_plan(p.prepared, {batch, height, width}, threads, plan, message), message);
                return plan.bytes();
            },
            "What a context for pictures of this size takes.");
    py::class_<ContextBlock, std::shared_ptr<ContextBlock>>(m, "Context", py::buffer_protocol(),
                                                            "One call in flight; its memory as a buffer of bytes.")
        .def(py::init([](std::shared_ptr<PreparedBlock> prepared, std::ptrdiff_t batch, std::ptrdiff_t height,
                         std::ptrdiff_t width, int threads, const ContextBlock* former) {
                 return std::make_shared<ContextBlock>(std::move(prepared), program::Size{batch, height, width},
                                                       threads, former);
             }),
             py::arg("prepared"), py::arg("batch"), py::arg("height"), py::arg("width"), py::arg("threads"),
             py::arg("former") = py::none())
        .def_buffer([](ContextBlock& c) {
            return py::buffer_info(static_cast<std::uint8_t*>(c.memory.get()),
                                   static_cast<py::ssize_t>(c.plan.bytes()));
        })
        .def_property_readonly("bytes", [](const ContextBlock& c) { return c.plan.bytes(); })
        .def_property_readonly("capacity", [](const ContextBlock& c) { return c.capacity; })
        .def("start", &ContextBlock::start, py::arg("run"), py::arg("x"))
        .def("advance", &ContextBlock::advance, py::arg("mark"), py::arg("y"))
        .def("port", &ContextBlock::port, py::arg("number"))
        .def("state", &ContextBlock::state, py::arg("run"), py::arg("mark"), py::arg("number"));
}

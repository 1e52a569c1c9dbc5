// unrain._native: the CPU kernels for Python. Every op is one function that takes the fields of its struct in ops.h by
// name; tensors arrive as addresses. The Python side (kernels/<op>/native.py) has checked shapes, dtypes and layout and
// keeps the tensors alive; what is wrong all the same comes back as a ValueError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings_conv.h"
#include "bindings_fields.h"
#include "bindings_program.h"
#include "ops.h"

namespace py = pybind11;
using namespace unrain;

namespace {

#define UNRAIN_FIELD(x) read(#x, a.x)

void fill(Fields& read, LstmGates& a) {
    UNRAIN_FIELD(pre);
    UNRAIN_FIELD(c);
    UNRAIN_FIELD(peephole);
    UNRAIN_FIELD(rows);
    UNRAIN_FIELD(inner);
    UNRAIN_FIELD(peephole_rows);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(state_dtype);
    UNRAIN_FIELD(h);
    UNRAIN_FIELD(c_next);
    UNRAIN_FIELD(grad_h);
    UNRAIN_FIELD(grad_c_next);
    UNRAIN_FIELD(grad_pre);
    UNRAIN_FIELD(grad_c);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, GruGates& a) {
    UNRAIN_FIELD(z);
    UNRAIN_FIELD(candidate);
    UNRAIN_FIELD(h);
    UNRAIN_FIELD(r);
    UNRAIN_FIELD(hidden);
    UNRAIN_FIELD(z_pitch);
    UNRAIN_FIELD(candidate_pitch);
    UNRAIN_FIELD(h_pitch);
    UNRAIN_FIELD(r_pitch);
    UNRAIN_FIELD(hidden_pitch);
    UNRAIN_FIELD(rows);
    UNRAIN_FIELD(inner);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(state_dtype);
    UNRAIN_FIELD(z_keeps);
    UNRAIN_FIELD(activation);
    UNRAIN_FIELD(h_next);
    UNRAIN_FIELD(grad);
    UNRAIN_FIELD(grad_z);
    UNRAIN_FIELD(grad_candidate);
    UNRAIN_FIELD(grad_h);
    UNRAIN_FIELD(grad_r);
    UNRAIN_FIELD(grad_hidden);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, Charbonnier& a) {
    UNRAIN_FIELD(pred);
    UNRAIN_FIELD(target);
    UNRAIN_FIELD(count);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(eps);
    UNRAIN_FIELD(reduction);
    UNRAIN_FIELD(loss);
    UNRAIN_FIELD(grad_loss);
    UNRAIN_FIELD(grad_pred);
    UNRAIN_FIELD(grad_target);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, GaussianPyramid& a) {
    UNRAIN_FIELD(x);
    UNRAIN_FIELD(pictures);
    UNRAIN_FIELD(height);
    UNRAIN_FIELD(width);
    UNRAIN_FIELD(channels);
    UNRAIN_FIELD(kernel);
    UNRAIN_FIELD(count);
    UNRAIN_FIELD(factors);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(levels);
    UNRAIN_FIELD(grad_levels);
    UNRAIN_FIELD(grad_x);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, FrameToTensor& a) {
    UNRAIN_FIELD(frame);
    UNRAIN_FIELD(image);
    UNRAIN_FIELD(batch);
    UNRAIN_FIELD(height);
    UNRAIN_FIELD(width);
    UNRAIN_FIELD(padded_height);
    UNRAIN_FIELD(padded_width);
    UNRAIN_FIELD(bgr);
    UNRAIN_FIELD(nv12);
    UNRAIN_FIELD(channels_last);
    UNRAIN_FIELD(black);
    UNRAIN_FIELD(white);
    UNRAIN_FIELD(chroma);
    UNRAIN_FIELD(kr);
    UNRAIN_FIELD(kb);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, TensorToFrame& a) {
    UNRAIN_FIELD(image);
    UNRAIN_FIELD(residual);
    UNRAIN_FIELD(frame);
    UNRAIN_FIELD(batch);
    UNRAIN_FIELD(image_height);
    UNRAIN_FIELD(image_width);
    UNRAIN_FIELD(height);
    UNRAIN_FIELD(width);
    UNRAIN_FIELD(bgr);
    UNRAIN_FIELD(truncate);
    UNRAIN_FIELD(channels_last);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, Ssim& a) {
    UNRAIN_FIELD(x);
    UNRAIN_FIELD(y);
    UNRAIN_FIELD(pictures);
    UNRAIN_FIELD(height);
    UNRAIN_FIELD(width);
    UNRAIN_FIELD(channels);
    UNRAIN_FIELD(valid);
    UNRAIN_FIELD(data_range);
    UNRAIN_FIELD(taps);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(result);
    UNRAIN_FIELD(grad);
    UNRAIN_FIELD(grad_x);
    UNRAIN_FIELD(grad_y);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, MemoryRead& a) {
    UNRAIN_FIELD(query);
    UNRAIN_FIELD(items);
    UNRAIN_FIELD(queries);
    UNRAIN_FIELD(items_count);
    UNRAIN_FIELD(columns);
    UNRAIN_FIELD(dtype);
    read("read", a.read);
    UNRAIN_FIELD(weights);
    UNRAIN_FIELD(grad_read);
    UNRAIN_FIELD(grad_weights);
    UNRAIN_FIELD(grad_query);
    UNRAIN_FIELD(grad_items);
    UNRAIN_FIELD(threads);
}

void fill(Fields& read, MemoryUpdate& a) {
    UNRAIN_FIELD(query);
    UNRAIN_FIELD(items);
    UNRAIN_FIELD(queries);
    UNRAIN_FIELD(items_count);
    UNRAIN_FIELD(columns);
    UNRAIN_FIELD(hard);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(result);
    UNRAIN_FIELD(grad);
    UNRAIN_FIELD(grad_query);
    UNRAIN_FIELD(grad_items);
    UNRAIN_FIELD(threads);
}

template <class Args>
void bind(py::module_& m, const char* op) {
    m.def(
        op,
        [op](bool backward, const py::kwargs& given) {
            Args args{};
            Fields fields(given);
            fill(fields, args);
            std::string tier;
            fields("tier", tier);
            if (!fields.all_taken())
                throw py::type_error(std::string(op) + ": a keyword that is no field of its arguments");
            const char* wrong = nullptr;
            {
                const py::gil_scoped_release release;
                wrong = run(args, backward, tier.empty() ? nullptr : tier.c_str());
            }
            if (wrong != nullptr) throw py::value_error(std::string(op) + ": " + wrong);
        },
        py::arg("backward"));
}

}  // namespace

PYBIND11_MODULE(_native, m) {
    m.doc() = "CPU kernels of unrain (see csrc/ops.h).";
    m.def(
        "tiers",
        [] {
            std::vector<std::string> names;
            for (const Tier* const* t = runnable_tiers(); *t != nullptr; ++t) names.emplace_back((*t)->name);
            return names;
        },
        "The SIMD tiers this machine can run, the one taken by default first.");
    m.def("multiplies_bf16", &multiplies_bf16, "Whether convolutions can have products of bfloat16.");
    bind<LstmGates>(m, "lstm_gates");
    bind<GruGates>(m, "gru_gates");
    bind<Charbonnier>(m, "charbonnier");
    bind<GaussianPyramid>(m, "gaussian_pyramid");
    bind<FrameToTensor>(m, "frame_to_tensor");
    bind<TensorToFrame>(m, "tensor_to_frame");
    bind<Ssim>(m, "ssim");
    bind<MemoryRead>(m, "memory_read");
    bind<MemoryUpdate>(m, "memory_update");
    bind_conv(m);
    bind_program(m);
}

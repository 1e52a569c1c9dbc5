// unrain._native: the CPU kernels for Python. Every op is one function that takes the fields of its struct in ops.h by
// name; tensors arrive as addresses. The Python side (kernels/<op>/native.py) has checked shapes, dtypes and layout and
// keeps the tensors alive; what is wrong all the same comes back as a ValueError.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "bindings_program.h"
#include "ops.h"

namespace py = pybind11;
using namespace unrain;

namespace {

// Takes fields out of the keyword arguments; a field that is not there keeps its zero.
class Fields {
public:
    explicit Fields(const py::kwargs& given) : given_(given) {}

    template <class T>
    void operator()(const char* name, T& field) {
        if (!given_.contains(name)) return;
        ++taken_;
        set(given_[name], field);
    }

    template <class T, std::size_t kMost>
    void operator()(const char* name, T (&field)[kMost]) {
        if (!given_.contains(name)) return;
        ++taken_;
        const auto values = given_[name].template cast<py::sequence>();
        if (values.size() > kMost) throw py::value_error(std::string(name) + ": at most " + std::to_string(kMost));
        for (std::size_t k = 0; k < values.size(); ++k) set(values[k], field[k]);
    }

    bool all_taken() const { return taken_ == given_.size(); }

private:
    template <class T>
    static void set(const py::object& value, T& field) {
        if constexpr (std::is_pointer_v<T>) {
            field = value.is_none() ? nullptr : reinterpret_cast<T>(value.cast<std::uintptr_t>());
        } else if constexpr (std::is_enum_v<T>) {
            field = static_cast<T>(value.cast<int>());
        } else {
            field = value.cast<T>();
        }
    }

    const py::kwargs& given_;
    std::size_t taken_ = 0;
};

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

void fill(Fields& read, Conv3x3& a) {
    UNRAIN_FIELD(x);
    UNRAIN_FIELD(x_channels);
    UNRAIN_FIELD(weight);
    UNRAIN_FIELD(weight_dtype);
    UNRAIN_FIELD(bias);
    UNRAIN_FIELD(batch);
    UNRAIN_FIELD(height);
    UNRAIN_FIELD(width);
    UNRAIN_FIELD(inputs);
    UNRAIN_FIELD(outputs);
    UNRAIN_FIELD(dtype);
    UNRAIN_FIELD(y_dtype);
    UNRAIN_FIELD(y);
    UNRAIN_FIELD(y_channels);
    UNRAIN_FIELD(form);
    UNRAIN_FIELD(dilation);
    UNRAIN_FIELD(relu);
    UNRAIN_FIELD(relu_sum);
    UNRAIN_FIELD(slope);
    UNRAIN_FIELD(add);
    UNRAIN_FIELD(gates);
    UNRAIN_FIELD(c);
    UNRAIN_FIELD(c_next);
    UNRAIN_FIELD(workspace);
    UNRAIN_FIELD(workspace_bytes);
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
    m.def("multiplies_bf16", &multiplies_bf16, "Whether conv3x3 can take weights in bfloat16.");
    m.def("conv3x3_workspace", &conv3x3_workspace, py::arg("inputs"), py::arg("outputs"), py::arg("threads"),
          "Bytes of working memory that conv3x3 needs.");
    bind<LstmGates>(m, "lstm_gates");
    bind<Conv3x3>(m, "conv3x3");
    bind<Charbonnier>(m, "charbonnier");
    bind<GaussianPyramid>(m, "gaussian_pyramid");
    bind<FrameToTensor>(m, "frame_to_tensor");
    bind<TensorToFrame>(m, "tensor_to_frame");
    bind<Ssim>(m, "ssim");
    bind<MemoryRead>(m, "memory_read");
    bind<MemoryUpdate>(m, "memory_update");
    bind_program(m);
}

// A layer (csrc/conv.h) is given by the fields of its struct, a source by three lists of the same length; memory as
// addresses.
#include "bindings_conv.h"

#include <pybind11/stl.h>

#include <stdexcept>

#include "bindings_fields.h"
#include "conv.h"

namespace py = pybind11;
using namespace unrain;

namespace {

#define UNRAIN_FIELD(x) read(#x, a.x)

void fill(Fields& read, ConvLayer& a) {
    std::ptrdiff_t channels[kMostSources] = {};
    bool thin[kMostSources] = {};
    DType dtype[kMostSources] = {};
    read("source_channels", channels);
    read("source_thin", thin);
    read("source_dtype", dtype);
    for (int k = 0; k < kMostSources; ++k) a.source[k] = {channels[k], thin[k], dtype[k]};
    while (a.sources < kMostSources && channels[a.sources] != 0) ++a.sources;
    a.stride = a.dilation = a.groups = a.shuffle = 1;
    UNRAIN_FIELD(outputs);
    UNRAIN_FIELD(kernel);
    UNRAIN_FIELD(stride);
    UNRAIN_FIELD(dilation);
    UNRAIN_FIELD(groups);
    UNRAIN_FIELD(form);
    UNRAIN_FIELD(shuffle);
    UNRAIN_FIELD(gates);
    UNRAIN_FIELD(act1);
    UNRAIN_FIELD(act2);
    UNRAIN_FIELD(adds);
    UNRAIN_FIELD(maps);
    UNRAIN_FIELD(products);
    UNRAIN_FIELD(y_dtype);
    UNRAIN_FIELD(y_thin);
    UNRAIN_FIELD(add_dtype);
}

void fill(Fields& read, ConvCall& a) {
    UNRAIN_FIELD(x);
    UNRAIN_FIELD(packed);
    UNRAIN_FIELD(add);
    UNRAIN_FIELD(y);
    UNRAIN_FIELD(c);
    UNRAIN_FIELD(c_next);
    UNRAIN_FIELD(batch);
    UNRAIN_FIELD(height);
    UNRAIN_FIELD(width);
    UNRAIN_FIELD(workspace);
    UNRAIN_FIELD(threads);
}

struct Weights {
    const float *weight, *bias, *slope1, *slope2;
    void* packed;
};

void fill(Fields& read, Weights& a) {
    UNRAIN_FIELD(weight);
    UNRAIN_FIELD(bias);
    UNRAIN_FIELD(slope1);
    UNRAIN_FIELD(slope2);
    UNRAIN_FIELD(packed);
}

void refuse(const char* wrong) {
    if (wrong != nullptr) throw py::value_error(std::string("conv: ") + wrong);
}

ConvLayer layer_of(Fields& fields) {
    ConvLayer layer{};
    fill(fields, layer);
    return layer;
}

void complete(const Fields& fields) {
    if (!fields.all_taken()) throw py::type_error("conv: a keyword that is no field of its arguments");
}

std::ptrdiff_t packed_size(const py::kwargs& given) {
    Fields fields(given);
    const ConvLayer layer = layer_of(fields);
    complete(fields);
    refuse(check(layer));
    return packed_bytes(layer);
}

void pack_weights(const py::kwargs& given) {
    Fields fields(given);
    const ConvLayer layer = layer_of(fields);
    Weights w{};
    fill(fields, w);
    complete(fields);
    refuse(check(layer));
    if (w.weight == nullptr || w.packed == nullptr) refuse("weight or packed is missing");
    const py::gil_scoped_release release;
    pack(layer, w.weight, w.bias, w.slope1, w.slope2, w.packed);
}

std::ptrdiff_t workspace_size(const py::kwargs& given) {
    Fields fields(given);
    const ConvLayer layer = layer_of(fields);
    ConvCall call{};
    fill(fields, call);
    complete(fields);
    refuse(check(layer));
    return workspace_bytes(layer, call.batch, call.height, call.width, call.threads);
}

void convolve(const py::kwargs& given) {
    Fields fields(given);
    const ConvLayer layer = layer_of(fields);
    ConvCall call{};
    fill(fields, call);
    std::string tier;
    fields("tier", tier);
    complete(fields);
    const char* wrong = nullptr;
    {
        const py::gil_scoped_release release;
        wrong = run(layer, call, tier.empty() ? nullptr : tier.c_str());
    }
    refuse(wrong);
}

}  // namespace

void bind_conv(py::module_& m) {
    m.def("conv_packed_bytes", &packed_size, "Bytes of a layer's packed weights, which start at a multiple of 64.");
    m.def("conv_pack", &pack_weights, "Writes the packed weights of a layer.");
    m.def("conv_workspace_bytes", &workspace_size, "Bytes that a call works in, from a multiple of 64 on.");
    m.def("conv", &convolve, "Runs a layer.");
}

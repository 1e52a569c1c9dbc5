// How a layer is computed, from its shape alone: shared by packing and by every tier's kernel.
//
// A convolution is a window of taps over the pixels of a grid, and `outputs` numbers for each place of the grid. A
// transposed or shuffled one has four parts: place (i, j) gives the pixels (2 i + part / 2, 2 j + part % 2) of y.
// Packed outputs are in the order they are stored: part by part, each rounded up to what a pixel of y has; those of a
// ConvLSTM 16 channels of each gate after the other.
#pragma once

#include "conv.h"

namespace unrain {

constexpr std::ptrdiff_t kBlock = 16;  // packed outputs that lie together

static inline std::ptrdiff_t rounded_up(std::ptrdiff_t n, std::ptrdiff_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

enum class ConvWay : int { direct = 0, winograd = 1, depthwise = 2 };

struct ConvPlan {
    ConvWay way;
    DType products;           // those of thin maps alone, and of depthwise ones, are always float32's
    int parts;                // 1 or 4
    std::ptrdiff_t channels;  // of y
    std::ptrdiff_t stored;    // numbers per pixel of y
    std::ptrdiff_t outputs;   // packed, a multiple of 16
    std::ptrdiff_t inputs;    // numbers per pixel, side by side: wide maps as stored, thin ones without their padding
    std::ptrdiff_t window;    // taps along a side
    std::ptrdiff_t stride;    // between the windows of two places
    std::ptrdiff_t before;    // how many pixels above and left of its place the window begins
    std::ptrdiff_t tile_rows, tile_columns;  // direct: places of one task
    std::ptrdiff_t tiles;                    // winograd: tiles of one task
};

// Of Winograd's form: places along a side of a tile, pixels along a side of what it reads, products.
constexpr std::ptrdiff_t kTile = 4, kPatch = 6, kProducts = kPatch * kPatch;
constexpr std::ptrdiff_t kMostTiles = 24;                // of a task
constexpr std::ptrdiff_t kMostBlocks = 2 * kMostTiles;   // times the blocks of 16 outputs that are finished together

static inline std::ptrdiff_t stored_channels(const ConvSource& source) {
    return source.thin ? 4 : rounded_up(source.channels, kBlock);
}

// Numbers that a source takes beside the others.
static inline std::ptrdiff_t width_of(const ConvSource& source) {
    return source.thin ? source.channels : rounded_up(source.channels, kBlock);
}

static inline std::ptrdiff_t input_channels(const ConvLayer& a) {
    std::ptrdiff_t sum = 0;
    for (int k = 0; k < a.sources; ++k) sum += a.source[k].channels;
    return sum;
}

// Whether Winograd's form is the faster one.
static inline bool is_winograd(const ConvLayer& a, bool thin) {
    const bool whole = a.form == 0 && a.kernel == 3 && a.stride == 1, transposed = a.form == 1 && a.kernel >= 3;
    return (whole || transposed) && !thin && a.groups == 1 && (a.gates == 0 || a.dilation == 1);
}

// Whether each output reads the one input of its own number.
static inline bool is_depthwise(const ConvLayer& a) {
    const bool plain = a.form == 0 && a.gates == 0 && a.shuffle <= 1 && !a.y_thin;
    return plain && a.groups > 1 && a.groups == a.outputs && a.sources == 1 && !a.source[0].thin &&
           a.source[0].channels == a.outputs;
}

static inline ConvPlan plan_of(const ConvLayer& a) {
    ConvPlan p{};
    bool thin = true, some_thin = false;
    for (int k = 0; k < a.sources; ++k) {
        thin = thin && a.source[k].thin;
        some_thin = some_thin || a.source[k].thin;
        p.inputs += width_of(a.source[k]);
    }
    p.way = is_winograd(a, some_thin) ? ConvWay::winograd : is_depthwise(a) ? ConvWay::depthwise : ConvWay::direct;
    p.products = thin || p.way == ConvWay::depthwise ? DType::f32 : a.products;
    if (p.products == DType::bf16) p.inputs = rounded_up(p.inputs, 2);
    p.parts = a.form == 1 || a.shuffle == 2 ? 4 : 1;
    p.channels = a.shuffle == 2 ? a.outputs / 4 : a.gates != 0 ? a.outputs / a.gates : a.outputs;
    p.stored = a.y_thin ? 4 : rounded_up(p.channels, kBlock);
    p.outputs = rounded_up(p.stored * p.parts * (a.gates != 0 ? a.gates : 1), kBlock);
    p.stride = a.form == 0 ? a.stride : 1;
    p.window = a.form == 0 ? a.kernel : a.kernel - 1;
    p.before = a.form == 0 ? (a.kernel % 2 != 0 ? a.dilation * (a.kernel - 1) / 2 : 0) : (a.kernel == 4 ? 1 : 0);

    // The pixels that a task reads stay in the second-level cache beside the weights.
    constexpr std::ptrdiff_t kPatchNumbers = 32 * 1024, kColumns = 48, kLeastColumns = 12;
    const std::ptrdiff_t halo = (p.window - 1) * a.dilation + 1 - p.stride;
    p.tile_columns = kColumns;
    while (p.tile_columns > kLeastColumns &&
           (p.stride + halo) * (p.tile_columns * p.stride + halo) * p.inputs > kPatchNumbers) {
        p.tile_columns /= 2;
    }
    const std::ptrdiff_t line = (p.tile_columns * p.stride + halo) * p.inputs;
    const std::ptrdiff_t rows = (kPatchNumbers / line - halo) / p.stride;
    p.tile_rows = rows < 1 ? 1 : rows > 16 ? 16 : rows;
    p.tiles = p.inputs <= 64 ? 24 : 12;
    return p;
}

// Places of the grid along a side of `pixels`.
static inline std::ptrdiff_t places(const ConvLayer& a, std::ptrdiff_t pixels) {
    if (a.form == 1) return pixels;
    if (a.kernel % 2 != 0) return (pixels + a.stride - 1) / a.stride;
    return pixels / a.stride;
}

// The part of the window, and of the inputs, that 16 packed outputs have weights for.
struct ConvWindow {
    std::ptrdiff_t row, rows, column, columns, from, to;
    std::ptrdiff_t size() const { return rows * columns * (to - from); }
};

// Where input channel c of the weights is among the plan's inputs.
static inline std::ptrdiff_t place_of_input(const ConvLayer& a, std::ptrdiff_t c) {
    std::ptrdiff_t at = 0;
    for (int k = 0; k < a.sources; ++k) {
        if (c < a.source[k].channels) return at + c;
        c -= a.source[k].channels;
        at += width_of(a.source[k]);
    }
    return at;
}

// Which output of the weights a packed one is, or -1 where it is padding; for a transposed one also which part.
struct ConvOutput {
    std::ptrdiff_t channel;
    int part;
};

static inline ConvOutput output_at(const ConvLayer& a, const ConvPlan& p, std::ptrdiff_t packed) {
    if (a.gates != 0) {
        const std::ptrdiff_t gate = packed / kBlock % a.gates;
        const std::ptrdiff_t c = packed / (kBlock * a.gates) * kBlock + packed % kBlock;
        return {c < p.channels ? gate * p.channels + c : -1, 0};
    }
    const std::ptrdiff_t part = packed / p.stored, c = packed % p.stored;
    if (part >= p.parts || c >= p.channels) return {-1, 0};
    return {a.shuffle == 2 ? c * 4 + part : c, static_cast<int>(part)};
}

// The tap of a transposed kernel at a place of the window for the first or second pixel of a pair, or -1.
static inline std::ptrdiff_t transposed_tap(std::ptrdiff_t kernel, std::ptrdiff_t place, std::ptrdiff_t second) {
    if (kernel == 2) return second;
    if (kernel == 3) return second == 0 ? (place == 0 ? 1 : -1) : (place == 0 ? 2 : 0);
    if (second == 0) return place == 0 ? 3 : place == 1 ? 1 : -1;
    return place == 0 ? -1 : place == 1 ? 2 : 0;
}

static inline ConvWindow window_of(const ConvLayer& a, const ConvPlan& p, std::ptrdiff_t block) {
    ConvWindow w{0, p.window, 0, p.window, 0, p.inputs};
    if (a.groups > 1) {
        const std::ptrdiff_t each = a.outputs / a.groups, reads = input_channels(a) / a.groups;
        w.from = p.inputs, w.to = 0;
        for (std::ptrdiff_t k = block * kBlock; k < (block + 1) * kBlock; ++k) {
            const std::ptrdiff_t o = output_at(a, p, k).channel;
            if (o < 0) continue;
            const std::ptrdiff_t first = place_of_input(a, o / each * reads);
            const std::ptrdiff_t last = place_of_input(a, o / each * reads + reads - 1);
            if (first < w.from) w.from = first;
            if (last >= w.to) w.to = last + 1;
        }
        if (w.to == 0) w.from = 0;  // nothing but padding
        w.from -= w.from % 2, w.to = w.to + w.to % 2 > p.inputs ? p.inputs : w.to + w.to % 2;
    }
    if (a.form == 1 && p.stored >= kBlock && a.kernel > 2) {
        const std::ptrdiff_t part = block * kBlock / p.stored, down = part / 2, right = part % 2;
        const std::ptrdiff_t last = a.kernel == 3 ? 0 : 1;  // place of the last tap of a first pixel
        w.row = a.kernel == 4 && down == 1 ? 1 : 0, w.rows = (down == 0 ? last : last + 1) - w.row + 1;
        w.column = a.kernel == 4 && right == 1 ? 1 : 0, w.columns = (right == 0 ? last : last + 1) - w.column + 1;
    }
    return w;
}

// The packed memory: bias, both slopes, then the weights.
static inline std::ptrdiff_t parameter_bytes(const ConvPlan& p) { return 3 * p.outputs * 4; }
static inline std::ptrdiff_t product_bytes(const ConvPlan& p) { return p.products == DType::bf16 ? 2 : 4; }

static inline std::ptrdiff_t patch_rows(const ConvLayer& a, const ConvPlan& p) {
    return (p.tile_rows - 1) * p.stride + (p.window - 1) * a.dilation + 1;
}
static inline std::ptrdiff_t patch_columns(const ConvLayer& a, const ConvPlan& p) {
    return (p.tile_columns - 1) * p.stride + (p.window - 1) * a.dilation + 1;
}

// Numbers between two of the 36 matrices of inputs: they do not fall on the same lines of a cache.
static inline std::ptrdiff_t winograd_matrix(const ConvPlan& p) {
    return p.tiles * p.inputs + 64 / product_bytes(p);
}
static inline std::ptrdiff_t winograd_bytes(const ConvPlan& p) {
    constexpr std::ptrdiff_t kSums = kMostTiles * kTile * kTile * 4 * kBlock;
    return kProducts * winograd_matrix(p) * product_bytes(p) + (kMostBlocks * kProducts * kBlock + kSums) * 4;
}

// Tiles along a side of a picture.
static inline std::ptrdiff_t tiles_along(std::ptrdiff_t side, std::ptrdiff_t dilation) {
    return (side + kTile * dilation - 1) / (kTile * dilation) * dilation;
}

// How a gradient to weights is computed: in chunks of tiles, some tiles of a chunk at once.
struct GradientPlan {
    std::ptrdiff_t inputs, outputs;  // as stored
    std::ptrdiff_t tiles, at_once, chunk_tiles, chunks;

    explicit GradientPlan(const ConvGradient& a)
        : inputs(rounded_up(a.inputs, kBlock)),
          outputs(rounded_up(a.outputs, kBlock)),
          tiles(a.batch * tiles_along(a.height, a.dilation) * tiles_along(a.width, a.dilation)),
          at_once(inputs + outputs <= 128 ? 32 : 16) {
        constexpr std::ptrdiff_t kLeast = 128, kMostChunks = 16;
        const std::ptrdiff_t share = (tiles + kMostChunks - 1) / kMostChunks;
        chunk_tiles = rounded_up(share < kLeast ? kLeast : share, at_once);
        chunks = tiles == 0 ? 1 : (tiles + chunk_tiles - 1) / chunk_tiles;
    }

    // Numbers between two matrices, which do not fall on the same lines of a cache.
    std::ptrdiff_t matrix(std::ptrdiff_t channels) const { return at_once * channels + kBlock; }
    std::ptrdiff_t sum_matrix() const { return inputs * outputs + kBlock; }
    std::ptrdiff_t chunk_numbers() const { return kProducts * sum_matrix() + outputs; }  // the sums, and the bias's
    std::ptrdiff_t scratch_numbers() const { return kProducts * (matrix(inputs) + matrix(outputs)); }  // of a thread
};

// Of one thread; a cache line more than the numbers, for reads of a vector that begin with the last of them.
static inline std::ptrdiff_t patch_bytes(const ConvLayer& a, const ConvPlan& p) {
    return rounded_up(patch_rows(a, p) * patch_columns(a, p) * p.inputs * product_bytes(p), 64) + 64;
}

}  // namespace unrain

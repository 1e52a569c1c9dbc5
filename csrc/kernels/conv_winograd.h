// A 3x3 convolution by Winograd's minimal filtering F(4x4, 3x3): 16 pixels from 36 products in place of 144.
//
// A tile is 4 x 4 places. Its 6 x 6 pixels d become B^T d B, the 3 x 3 taps g are G g G^T beforehand, their products
// are summed over the inputs, which is 36 matrix products over all tiles of a task, and A^T m A is the result.
//
// Tiling   a task is a row of tiles whose 36 matrices of inputs lie in a second-level cache. A few tiles by a few
//          vectors of outputs at a time pass through all 36 products and are transformed back from a first-level one.
// Bound    arithmetic: a quarter of the direct multiplications, plus the transforms.
// Dilated  by d: as d x d pictures of every dth pixel in each direction. Transposed: four parts, each with taps for
//          2 x 2 pixels; products that are zero whatever the picture is are left out.
#pragma once

#include "../parallel.h"
#include "conv_finish.h"
#include "winograd_transforms.h"

namespace unrain::UNRAIN_TIER {

// Tiles that pass through the products together, and the blocks of 16 outputs that do.
constexpr Index kGroup = kSumVectors / (kBlock / kLanes);
constexpr Index kWide = kLanes >= 16 ? 2 : 1;  // in registers
constexpr Index kTogether = 2;                 // finished together: a pixel's 32 numbers share a line or two
// Tiles that go through one product after the other: few enough that their 36 products stay in a near cache, enough
// that the weights do not come from a far one for every group.
constexpr Index kPass = kLanes >= 16 ? kGroup : kMostTiles;

// m [kGroup tiles][36][16], kBlocks of them, at one of the 36: v [kGroup, inputs] * u [inputs, 16], for each block.
template <Index kBlocks, class V>
UNRAIN_HD void multiply_group(const V* v, const V* u, Index block, Index inputs, float* m) {
    constexpr Index kPer = kBlock / kLanes, kColumns = kBlocks * kPer, kPair = kDepthOf<V>;
    Vec sum[kGroup][kColumns];
    UNRAIN_UNROLL
    for (Index r = 0; r < kGroup; ++r) {
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) sum[r][n] = zero();
    }
    for (Index k = 0; k < inputs; k += kPair) {
        decltype(load_outputs(u)) taps[kColumns];
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) {
            taps[n] = load_outputs(u + n / kPer * block + k * kBlock + n % kPer * kLanes * kPair);
        }
        UNRAIN_UNROLL
        for (Index r = 0; r < kGroup; ++r) {
            const auto value = repeat(v + r * inputs + k);
            UNRAIN_UNROLL
            for (Index n = 0; n < kColumns; ++n) sum[r][n] = multiply_add(value, taps[n], sum[r][n]);
        }
    }
    UNRAIN_UNROLL
    for (Index r = 0; r < kGroup; ++r) {
        UNRAIN_UNROLL
        for (Index n = 0; n < kColumns; ++n) {
            store(m + (n / kPer * kPass + r) * kProducts * kBlock + n % kPer * kLanes, sum[r][n]);
        }
    }
}

// A tile: where it starts, how many of its places are in the picture, and where the first of them is in y.
struct Tile {
    Index image, top, left, down, across, start;
};

// The tiles of a picture. With dilation d their pixels are d apart: there are d tiles for each of a square of d x d
// tiles' rows, and d for each of its columns.
struct Tiles {
    Index height, width, dilation, down, across;

    Tiles(Index h, Index w, Index d)
        : height(h), width(w), dilation(d), down(tiles_along(h, d)), across(tiles_along(w, d)) {}

    Tile find(Index tile) const {
        const Index row = tile / across % down;  // rows of tiles that overlap follow one another: they share a cache
        const Index column = tile % across, each = across / dilation;
        Tile at{tile / (down * across), row / dilation * kTile * dilation + row % dilation,
                column % each * kTile * dilation + column / each, 0, 0, 0};
        at.down = inside(at.top, height), at.across = inside(at.left, width);
        return at;
    }

private:
    // How many of a tile's places along a side are in the picture.
    Index inside(Index start, Index side) const {
        return start >= side ? 0 : least(kTile, ceil_div(side - start, dilation));
    }
};

// One source of a tile into the 36 matrices.
template <class T, class V>
void transform_patch(const Tiles& tiles, const T* x, Index channels, const Tile& at, V* v, Index matrix) {
    const Index d = tiles.dilation, top = at.top - d, left = at.left - d, beyond = (kPatch - 1) * d;
    x += at.image * tiles.height * tiles.width * channels;
    if (top >= 0 && left >= 0 && top + beyond < tiles.height && left + beyond < tiles.width) {
        const T* from = x + (top * tiles.width + left) * channels;
        for (Index k = 0; k < channels; k += kLanes) {
            transform_input(from + k, d * tiles.width * channels, d * channels, v + k, matrix);
        }
        return;
    }
    float patch[kProducts * kLanes];
    for (Index k = 0; k < channels; k += kLanes) {
        for (Index i = 0; i < kPatch; ++i) {
            for (Index j = 0; j < kPatch; ++j) {
                const Index row = top + i * d, column = left + j * d;
                const bool inside = row >= 0 && row < tiles.height && column >= 0 && column < tiles.width;
                const Vec pixel = inside ? load(x + (row * tiles.width + column) * channels + k) : zero();
                store(patch + (i * kPatch + j) * kLanes, pixel);
            }
        }
        transform_input(patch, kPatch * kLanes, Index{kLanes}, v + k, matrix);
    }
}

// The pixels of a tile that the one to its left does not read, on their way before they are needed.
static void prefetch_patch(const Tiles& tiles, const void* x, Index pixel_bytes, const Tile& at) {
    const Index d = tiles.dilation, left = at.left + d, right = least(left + kTile * d, tiles.width);
    for (Index i = 0; i < kPatch; ++i) {
        const Index row = at.top + (i - 1) * d;
        if (row < 0 || row >= tiles.height) continue;
        const char* line = static_cast<const char*>(x) + (at.image * tiles.height + row) * tiles.width * pixel_bytes;
        if (d == 1) {
            prefetch(line + left * pixel_bytes, (right - left) * pixel_bytes);
        } else {
            for (Index column = left; column < right; column += d) prefetch(line + column * pixel_bytes, pixel_bytes);
        }
    }
}

// Where y, and what is added, has the packed outputs from k on of a tile's places.
static Spread spread_of(const Finish& f, const Tiles& tiles, const Tile& at, Index k) {
    const Index d = tiles.dilation;
    return {at.start + f.offset(0, 0, 0, k), d * f.right(), d * f.below(), at.across, at.down};
}

static void prefetch_places(const Finish& f, const Spread& to, Index width) {
    const Index size = f.y_f32 ? 4 : 2, add_size = f.add_f32 ? 4 : 2;
    for (Index i = 0; i < to.rows; ++i) {
        for (Index j = 0; j < to.columns; ++j) {
            const Index at = to.at + i * to.below + j * to.right;
            prefetch(static_cast<char*>(f.y) + at * size, width * size);
            if (f.add != nullptr) prefetch(static_cast<const char*>(f.add) + at * add_size, width * add_size);
        }
    }
}

// From the products of a block of outputs of one tile to sums [4 x 4 places, width], with the bias.
static void sum_tile(const float* bias, const float* m, float* sums, Index width) {
    for (Index n = 0; n < kBlock; n += kLanes) {
        const Vec start = load(bias + n);
        transform_output(m + n,
                         [&](Index i, Index j, Vec sum) { store(sums + (i * kTile + j) * width + n, sum + start); });
    }
}

// Those of the 36 products that are not zero for whatever picture.
struct ProductRange {
    Index row, rows, column, columns;  // first and one beyond the last
    bool some() const { return row != 0 || column != 0 || rows != kPatch || columns != kPatch; }
};

static ProductRange products_of(const ConvLayer& a, const ConvPlan& p, Index block) {
    if (a.form == 0 || p.stored < kBlock) return {0, kPatch, 0, kPatch};
    const Index part = block * kBlock / p.stored, down = part / 2, right = part % 2;
    const Index first = a.kernel == 3 ? 1 : 0;
    return {down == 0 ? first : 1, down == 0 ? kPatch - 1 : kPatch, right == 0 ? first : 1,
            right == 0 ? kPatch - 1 : kPatch};
}

// What one thread works in.
template <class V>
struct TileMemory {
    V* v;            // [36][tiles][inputs]
    Index matrix;    // between two of the 36
    float* m;        // [blocks][kGroup][36][16]
    float* sums;     // [kGroup][4 x 4 places][4 gates][16]

    TileMemory(void* workspace, const ConvPlan& p)
        : v(static_cast<V*>(workspace)),
          matrix(winograd_matrix(p)),
          m(reinterpret_cast<float*>(v + kProducts * matrix)),
          sums(m + kMostBlocks * kProducts * kBlock) {}
};

template <Index kBlocks, class V>
void multiply_all(const TileMemory<V>& memory, Index tile, Index count, const ProductRange& range, const V* weight,
                  Index inputs) {
    constexpr Index kAtOnce = kBlocks < kWide ? kBlocks : kWide;
    const Index block = kProducts * inputs * kBlock;
    for (Index i = range.row; i < range.rows; ++i) {
        for (Index j = range.column; j < range.columns; ++j) {
            const Index p = i * kPatch + j;
            for (Index t = 0; t < count; t += kGroup) {
                const V* v = memory.v + p * memory.matrix + (tile + t) * inputs;
                for (Index b = 0; b < kBlocks; b += kAtOnce) {
                    multiply_group<kAtOnce>(v, weight + b * block + p * inputs * kBlock, block, inputs,
                                            memory.m + ((b * kPass + t) * kProducts + p) * kBlock);
                }
            }
        }
    }
}

// The tiles of a task.
struct Task {
    Index count;
    Tile tile[kMostTiles];
};

template <class V>
void transform_tiles(const ConvLayer& a, const ConvCall& call, const Tiles& tiles, const Task& task,
                     const TileMemory<V>& memory, Index inputs) {
    for (Index t = 0; t < task.count; ++t) {
        V* v = memory.v + t * inputs;
        for (int k = 0; k < a.sources; ++k) {
            const Index channels = stored_channels(a.source[k]);
            const bool f32 = a.source[k].dtype == DType::f32;
            if (t + 1 < task.count) prefetch_patch(tiles, call.x[k], channels * (f32 ? 4 : 2), task.tile[t + 1]);
            if (f32) {
                transform_patch(tiles, static_cast<const float*>(call.x[k]), channels, task.tile[t], v, memory.matrix);
            } else {
                transform_patch(tiles, static_cast<const bf16*>(call.x[k]), channels, task.tile[t], v, memory.matrix);
            }
            v += channels;
        }
    }
}

// `kBlocks` blocks of outputs for all tiles of a task.
template <Index kBlocks, class V>
void finish_blocks(const ConvPlan& p, const Finish& f, const Tiles& tiles, const Task& task,
                   const TileMemory<V>& memory, const ProductRange& range, const V* weight, Index block) {
    for (Index t = 0; t < task.count; t += kPass) {
        const Index here = least(kPass, task.count - t);
        for (Index r = 0; r < here; ++r) {
            prefetch_places(f, spread_of(f, tiles, task.tile[t + r], block * kBlock), kBlocks * kBlock);
        }
        multiply_all<kBlocks>(memory, t, here, range, weight, p.inputs);
        for (Index r = 0; r < here; ++r) {
            for (Index b = 0; b < kBlocks; ++b) {
                const Index k = (block + b) * kBlock;
                float sums[kTile * kTile * kBlock];
                sum_tile(f.bias + k, memory.m + (b * kPass + r) * kProducts * kBlock, sums, kBlock);
                f.ending(f, spread_of(f, tiles, task.tile[t + r], k), k, sums, kTile);
            }
        }
    }
}

// The gates of 16 channels for all tiles of a task.
template <class V>
void finish_gate_blocks(const ConvLayer& a, const ConvCall& call, const ConvPlan& p, const Finish& f, const Task& task,
                        const TileMemory<V>& memory, const V* weight, Index block) {
    const Index each = kProducts * p.inputs * kBlock, width = a.gates * kBlock;
    for (Index t = 0; t < task.count; t += kPass) {
        const Index here = least(kPass, task.count - t);
        for (Index g = 0; g < a.gates; ++g) {
            multiply_all<1>(memory, t, here, {0, kPatch, 0, kPatch}, weight + g * each, p.inputs);
            for (Index r = 0; r < here; ++r) {
                sum_tile(f.bias + (block + g) * kBlock, memory.m + r * kProducts * kBlock,
                         memory.sums + r * kTile * kTile * width + g * kBlock, width);
            }
        }
        for (Index r = 0; r < here; ++r) {
            const Tile& at = task.tile[t + r];
            for (Index i = 0; i < at.down; ++i) {
                const float* row = memory.sums + (r * kTile + i) * kTile * width;
                finish_gates(a, call, f, at.start + i * f.below(), block * kBlock, row, at.across);
            }
        }
    }
}

template <class V>
void winograd_task(const ConvLayer& a, const ConvCall& call, const ConvPlan& p, const Finish& f, const Tiles& tiles,
                   const Task& task, const TileMemory<V>& memory) {
    transform_tiles(a, call, tiles, task, memory, p.inputs);
    const V* weights = reinterpret_cast<const V*>(static_cast<const char*>(call.packed) + parameter_bytes(p));
    const Index blocks = p.outputs / kBlock, each = kProducts * p.inputs * kBlock;
    Index block = 0;
    while (block < blocks) {
        const ProductRange range = products_of(a, p, block);
        const V* weight = weights + block * each;
        if (range.some()) std::memset(memory.m, 0, kPass * kProducts * kBlock * sizeof(float));
        if (a.gates != 0) {
            finish_gate_blocks(a, call, p, f, task, memory, weight, block);
            block += a.gates;
        } else if (!range.some() && block + kTogether <= blocks) {
            finish_blocks<kTogether>(p, f, tiles, task, memory, range, weight, block);
            block += kTogether;
        } else {
            finish_blocks<1>(p, f, tiles, task, memory, range, weight, block);
            ++block;
        }
    }
}

template <class V>
void convolve_winograd(const ConvLayer& a, const ConvPlan& p, const ConvCall& call) {
    const Finish f(a, p, call);
    const Tiles tiles(call.height, call.width, a.dilation);
    const Index all = call.batch * tiles.down * tiles.across, bytes = winograd_bytes(p);
    const auto work = static_cast<std::size_t>(all * kProducts * p.outputs) * sizeof(float);
    for_each_task(ceil_div(all, p.tiles), work, call.threads, [&](Index task, int slot) {
        const TileMemory<V> memory(static_cast<char*>(call.workspace) + slot * bytes, p);
        Task here;
        here.count = least(p.tiles, all - task * p.tiles);
        for (Index t = 0; t < here.count; ++t) {
            Tile& at = here.tile[t] = tiles.find(task * p.tiles + t);
            at.start = f.offset(at.image, at.top, at.left, 0);
        }
        winograd_task(a, call, p, f, tiles, here, memory);
    });
}

}  // namespace unrain::UNRAIN_TIER

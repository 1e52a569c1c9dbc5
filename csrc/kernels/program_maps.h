// Operations of a program that move numbers to another place: pooling, pixel shuffles, maps side by side, parts of
// maps, and the two ends of a run.
//
// Tiling  rows of the result; nothing is shared between tasks. Traffic: reads and writes everything once. Bound:
// memory.
//         Shuffles, slices and copies go number by number: the rules of a program leave few of them.
#pragma once

#include <limits>

#include "program_pixelwise.h"

namespace unrain::UNRAIN_TIER {

using program::PictureCall;

UNRAIN_HD float number_at(const Place& p, Index at) {
    return p.dtype == DType::f32 ? static_cast<const float*>(p.data)[at]
                                 : load_one(static_cast<const bf16*>(p.data) + at);
}
UNRAIN_HD void set_number(const Place& p, Index at, float x) {
    if (p.dtype == DType::f32) {
        static_cast<float*>(p.data)[at] = x;
    } else {
        store_one(static_cast<bf16*>(p.data) + at, x);
    }
}

// body(picture, row) for every row of y.
template <class Body>
void for_each_row(const Operation& o, const Body& body) {
    const Index rows = o.batch * o.y.height;
    const auto bytes = static_cast<std::size_t>(rows * o.y.width * o.y.stored * 8);
    for_each_task(rows, bytes, o.threads, [&](Index task, int) { body(task / o.y.height, task % o.y.height); });
}

// Numbers of one pixel that are no channel's.
UNRAIN_HD void clear_padding(const Place& y, Index pixel) {
    for (Index k = y.channels; k < y.stored; ++k) set_number(y, pixel * y.stored + k, 0.0F);
}

// The larger one, or the one that is no number.
UNRAIN_HD Vec largest(Vec a, Vec b) {
    const Vec larger = select(less(b, a), a, b);
    return select(less(a, set1(std::numeric_limits<float>::infinity())), larger, a);
}

static void pool(const Operation& o) {
    const Place &x = o.x[0], &y = o.y;
    const bool takes_largest = o.attribute[0] == 1;
    const Index k = o.attribute[1];
    const Vec share = set1(1.0F / static_cast<float>(k * k));
    for_each_row(o, [&](Index picture, Index row) {
        for (Index column = 0; column < y.width; ++column) {
            const Index from = (picture * x.height + row * k) * x.width + column * k;
            const Index to = (picture * y.height + row) * y.width + column;
            for (Index c = 0; c < y.stored; c += kLanes) {
                const Index n = y.stored - c;
                Vec sum = load_number(x, from * x.stored + c, n);
                for (Index i = 0; i < k; ++i) {
                    for (Index j = i == 0 ? 1 : 0; j < k; ++j) {
                        const Vec each = load_number(x, (from + i * x.width + j) * x.stored + c, n);
                        sum = takes_largest ? largest(sum, each) : sum + each;
                    }
                }
                store_number(y, to * y.stored + c, takes_largest ? sum : sum * share, n);
            }
        }
    });
}

// [C r r] at a pixel to C channels of r x r pixels.
static void shuffle(const Operation& o) {
    const Place &x = o.x[0], &y = o.y;
    const Index r = o.attribute[0];
    for_each_row(o, [&](Index picture, Index row) {
        for (Index column = 0; column < y.width; ++column) {
            const Index from = (picture * x.height + row / r) * x.width + column / r, part = row % r * r + column % r;
            const Index to = (picture * y.height + row) * y.width + column;
            for (Index c = 0; c < y.channels; ++c) {
                set_number(y, to * y.stored + c, number_at(x, from * x.stored + c * r * r + part));
            }
            clear_padding(y, to);
        }
    });
}

static void unshuffle(const Operation& o) {
    const Place &x = o.x[0], &y = o.y;
    const Index r = o.attribute[0];
    for_each_row(o, [&](Index picture, Index row) {
        for (Index column = 0; column < y.width; ++column) {
            const Index from = (picture * x.height + row * r) * x.width + column * r;
            const Index to = (picture * y.height + row) * y.width + column;
            for (Index c = 0; c < y.channels; ++c) {
                const Index channel = c / (r * r), part = c % (r * r);
                const Index pixel = from + part / r * x.width + part % r;
                set_number(y, to * y.stored + c, number_at(x, pixel * x.stored + channel));
            }
            clear_padding(y, to);
        }
    });
}

// `count` channels of x from `first` on, for one row of a map.
static void move_channels(const Place& x, Index first, Place y, Index to, Index count, Index row_start) {
    const bool whole = first % kLanes == 0 && to % kLanes == 0 && count % kLanes == 0;
    for (Index pixel = row_start; pixel < row_start + y.width; ++pixel) {
        if (whole) {
            for (Index c = 0; c < count; c += kLanes) {
                const Vec numbers = load_number(x, pixel * x.stored + first + c, kLanes);
                store_number(y, pixel * y.stored + to + c, numbers, kLanes);
            }
            continue;
        }
        for (Index c = 0; c < count; ++c) {
            set_number(y, pixel * y.stored + to + c, number_at(x, pixel * x.stored + first + c));
        }
    }
}

static void clear_row(const Place& y, Index row_start) {
    if (y.channels == y.stored) return;
    for (Index pixel = row_start; pixel < row_start + y.width; ++pixel) clear_padding(y, pixel);
}

static void copy(const Operation& o) {
    for_each_row(o, [&](Index picture, Index row) {
        const Index start = (picture * o.y.height + row) * o.y.width;
        Index to = 0;
        for (int k = 0; k < o.operands; ++k) {
            move_channels(o.x[k], 0, o.y, to, o.x[k].channels, start);
            to += o.x[k].channels;
        }
        clear_row(o.y, start);
    });
}

static void slice(const Operation& o) {
    for_each_row(o, [&](Index picture, Index row) {
        const Index start = (picture * o.y.height + row) * o.y.width;
        move_channels(o.x[0], o.attribute[0], o.y, 0, o.y.channels, start);
        clear_row(o.y, start);
    });
}

static void fill(const Operation& o) {
    for_each_vector(o, 1, nothing,
                    [&](Nothing, Index at, Index k, Index n) { store_number(o.y, at, load(o.constants[0] + k), n); });
}

template <class Body>
void for_each_picture_row(const PictureCall& p, Index height, const Body& body) {
    const Index rows = p.batch * height;
    const auto bytes = static_cast<std::size_t>(rows * p.map.width * p.map.stored * 8);
    for_each_task(rows, bytes, p.threads, [&](Index task, int) { body(task / height, task % height); });
}

// What lies at a place beyond the picture along one side: a place in it, or -1 for zeros.
UNRAIN_HD Index place_inside(program::Padding padding, Index at, Index side) {
    if (at < side) return at;
    if (padding == program::Padding::zeros) return -1;
    return padding == program::Padding::edge ? side - 1 : reflect(at, side);
}

// One pixel of the padding.
UNRAIN_HD void pad_pixel(const PictureCall& p, Index picture, Index row, Index column) {
    const Place& map = p.map;
    const Index from_row = place_inside(p.padding, row, p.height), from = place_inside(p.padding, column, p.width);
    const Index to = ((picture * map.height + row) * map.width + column) * map.stored;
    const Index source = ((picture * map.height + from_row) * map.width + from) * map.stored;
    for (Index c = 0; c < map.stored; ++c) {
        set_number(map, to + c, from_row < 0 || from < 0 ? 0.0F : number_at(map, source + c));
    }
}

static void picture_padding(const PictureCall& p) {
    const Place& map = p.map;
    if (map.height == p.height && map.width == p.width) return;
    for (Index picture = 0; picture < p.batch; ++picture) {
        for (Index row = 0; row < map.height; ++row) {
            for (Index column = row < p.height ? p.width : 0; column < map.width; ++column) {
                pad_pixel(p, picture, row, column);
            }
        }
    }
}

// The planes side by side in each pixel.
static void picture_in(const PictureCall& p) {
    const Place& map = p.map;
    for_each_picture_row(p, p.height, [&](Index picture, Index row) {
        const Index start = (picture * map.height + row) * map.width, plane = p.height * p.width;
        const float* from = p.from + picture * map.channels * plane + row * p.width;
        for (Index c = 0; c < map.channels; ++c) {
            for (Index column = 0; column < p.width; ++column) {
                set_number(map, (start + column) * map.stored + c, from[c * plane + column]);
            }
        }
        clear_row(map, start);
    });
    picture_padding(p);
}

static void picture_out(const PictureCall& p) {
    const Place& map = p.map;
    for_each_picture_row(p, p.height, [&](Index picture, Index row) {
        const Index start = (picture * map.height + row) * map.width, plane = p.height * p.width;
        float* to = p.to + picture * map.channels * plane + row * p.width;
        for (Index c = 0; c < map.channels; ++c) {
            for (Index column = 0; column < p.width; ++column) {
                to[c * plane + column] = number_at(map, (start + column) * map.stored + c);
            }
        }
    });
}

}  // namespace unrain::UNRAIN_TIER

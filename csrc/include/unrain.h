/* libunrain: takes rain out of the frames of a camera, by a program file (.unrain) that `unrain export` wrote.
 *
 *     unrain_program *program = unrain_program_open("wiper.unrain", message, sizeof message);
 *     unrain_options options = unrain_default_options(1280, 720);
 *     unrain_context *context = unrain_context_open(program, &options, message, sizeof message);
 *     ... for every frame: unrain_process(context, &frame, &frame);
 *
 * Threads   A program is read-only: any number of contexts in any number of threads may share it. A context is one
 *           stream of frames: one thread at a time may be in a call on it. Contexts know nothing of one another. A frame
 *           is computed by `threads` threads of OpenMP (a team for each thread that calls); no bit depends on how many.
 *           Between frames those threads may wait busily for some milliseconds; OMP_WAIT_POLICY=passive forbids it.
 * Memory    A program holds a copy of its file. A context holds all else: its weights as the machine computes with them,
 *           every map of the network, and the frame that is worked on. It needs its program for as long as it lives.
 *           Nothing is allocated from the second frame on: the first one in a thread makes OpenMP's threads.
 * Frames    Belong to the caller, and are not looked at between two calls.
 * Messages  Where a call fails that takes `message`, one line is written there, cut to `message_size` and terminated;
 *           message may be NULL. Nothing is ever printed, no signal is touched, nothing but the program file is read.
 */
#ifndef UNRAIN_H
#define UNRAIN_H

#include <stddef.h>

#if defined(UNRAIN_BUILDS) && defined(__GNUC__)
#define UNRAIN_API __attribute__((visibility("default")))
#else
#define UNRAIN_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef struct unrain_program unrain_program;
typedef struct unrain_context unrain_context;

/* NV12 is video range (16..235), BT.709 from 720 lines on and BT.601 below. Sides may be odd: then its chroma has
 * (width + 1) / 2 pairs in (height + 1) / 2 rows. */
typedef enum { UNRAIN_RGB8, UNRAIN_BGR8, UNRAIN_NV12 } unrain_format;

/* AUTO is bfloat16 where the processor multiplies it, else float32. INT8 is refused by this version. */
typedef enum { UNRAIN_AUTO, UNRAIN_F32, UNRAIN_BF16, UNRAIN_INT8 } unrain_precision;

typedef enum {
    UNRAIN_OK,          /* every stage, in time */
    UNRAIN_LATE,        /* the deadline came first: the picture of an earlier stage, or the last one, but too late */
    UNRAIN_PASSTHROUGH, /* the frame as it came */
    UNRAIN_REFUSED      /* wrong arguments: nothing was written, nothing counted */
} unrain_outcome;

typedef struct {
    size_t struct_size; /* set by unrain_default_options */
    int width, height;  /* of every frame, at least 8 */
    unrain_format input, output; /* RGB8 */
    unrain_precision precision;  /* AUTO */
    int threads;                 /* 0: the cores this process may use */
    int stages;                  /* 0: the network's own number; or as many, for less time and less rain taken out */
    int carry;                   /* 1: keep the network's state from frame to frame where it was trained to (wiper); where it
                                  * was not, and with 0, every frame stands alone. 1 by default */
    float strength;              /* 0: the frame as it is, to 1: all that the network takes out. 1 by default */
    long long deadline_us;       /* 0: none; else what a call may take: what is ready then goes out */
} unrain_options;

/* Pixels lie in rows that begin `stride` bytes apart (it may be negative). RGB8, BGR8: data[0] alone. NV12: luma, and
 * chroma as pairs of u and v. */
typedef struct {
    unsigned char *data[2];
    ptrdiff_t stride[2];
} unrain_frame;

/* frames = ok + late + passthrough. p50 and p99 are of the last 4096 frames, max is of all. */
typedef struct {
    unsigned long long frames, ok, late, passthrough;
    long long p50_us, p99_us, max_us;
} unrain_counters;

UNRAIN_API const char *unrain_version(void);

UNRAIN_API unrain_options unrain_default_options(int width, int height);

/* NULL where the file is not one that runs: message says why. Everything in it is checked first. */
UNRAIN_API unrain_program *unrain_program_open(const char *path, char *message, size_t message_size);
UNRAIN_API unrain_program *unrain_program_read(const void *bytes, size_t size, char *message, size_t message_size);

/* What the program says of itself, JSON; it lives as long as the program. */
UNRAIN_API const char *unrain_program_card(const unrain_program *program);

/* Once all its contexts are closed. NULL is allowed. */
UNRAIN_API void unrain_program_close(unrain_program *program);

/* The bytes that unrain_context_init needs; 0 where there can be no such context: message says why. */
UNRAIN_API size_t unrain_context_size(const unrain_program *program, const unrain_options *options, char *message,
                                      size_t message_size);

/* A context in memory of the caller's, of any alignment, which stays the context's until it is closed. Some kilobytes of
 * tables (where each map lies) still come from malloc; unrain_context_close gives those back, and the memory is the
 * caller's again. NULL: message says why. The options are copied. */
UNRAIN_API unrain_context *unrain_context_init(void *memory, size_t size, const unrain_program *program,
                                               const unrain_options *options, char *message, size_t message_size);

/* The same in memory from malloc. */
UNRAIN_API unrain_context *unrain_context_open(const unrain_program *program, const unrain_options *options,
                                               char *message, size_t message_size);

/* One frame. `out` may be `in`, or lie anywhere else; its format is options.output. Where the result holds a number that is
 * none, or differs from the frame beyond belief (by half of the range on average), the frame goes through as it came, and
 * the state is forgotten. A deadline is looked at between two operations of the network. */
UNRAIN_API unrain_outcome unrain_process(unrain_context *context, const unrain_frame *in, const unrain_frame *out);

/* Why the last outcome was not OK, "" where it was; until the next call on this context. */
UNRAIN_API const char *unrain_reason(const unrain_context *context);

/* The next frame does not continue the last one: a cut, a gap. */
UNRAIN_API void unrain_reset(unrain_context *context);

UNRAIN_API unrain_counters unrain_statistics(const unrain_context *context);

/* Of unrain_context_init or of unrain_context_open. NULL is allowed. */
UNRAIN_API void unrain_context_close(unrain_context *context);

#ifdef __cplusplus
}
#endif

#endif
